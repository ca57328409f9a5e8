"""How quick the web client is, and that it stays so; with room for a slower machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from kit.server import Server

from .crowd import LINES, Crowd, arrives, gather, in_use, listed_s
from .people import Account, People

READY_S = 10 * 1.0  # on a machine with other work
ROUNDS = 4  # of use, after as many that fill what is kept on purpose
GROWTH_KB = 60  # of the heap, a round


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    folder: Path = tmp_path_factory.mktemp("crowd") / "data"
    server = Server(folder)
    server.start()
    ann, bob = Account(server, "ann"), Account(server, "bob")
    yield gather(server, ann, bob)
    for account in (ann, bob):
        account.close()
    assert server.terminate() == 0
    server.check()


def test_a_thousand_conversations_are_there_at_once(people: People, crowd: Crowd) -> None:
    """On a device that knows nothing yet, and on one that has been here before."""
    ann = arrives(people, crowd)
    assert listed_s(ann) < READY_S
    ann.finds("app.mine.writer.flush()")
    assert listed_s(ann.at("/")) < READY_S


def test_it_takes_no_more_memory_the_longer_it_is_used(people: People, crowd: Crowd) -> None:
    ann = arrives(people, crowd)
    debugger = ann.context.new_cdp_session(ann.page)

    def use() -> None:
        for _ in range(ROUNDS):
            for conversation in crowd.busy[:3]:
                ann.finds("app.router.go(`/c/${given[0]}`)", conversation)
                expect(ann.messages(f"line {LINES} of")).to_be_visible()
            for path in ("/new", "/settings", "/"):
                ann.finds("app.router.go(given[0])", path)
                ann.settles()

    use()
    before = in_use(debugger)
    use()
    after = in_use(debugger)
    told = f"{before} {after}"
    assert (after["heap"] - before["heap"]) / 1_024 / ROUNDS < GROWTH_KB, told
    assert after["nodes"] < 1.2 * before["nodes"] + 500, told
    assert after["listeners"] < 1.2 * before["listeners"] + 100, told
