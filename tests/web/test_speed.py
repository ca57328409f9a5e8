"""How quick the web client is, and that it stays so; with room for a slower machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import CDPSession, expect

from kit.server import Server

from .crowd import CONVERSATIONS, LINES, WATCH_LIST, Crowd, arrives, gather, in_use, listed_s
from .people import Account, People

READY_S = 10 * 1.0  # on a machine with other work
BUSY_S = 5.0  # it is less than one
ROUNDS = 3  # of use, after as many that fill what is kept on purpose
GROWTH_KB = 60  # of the heap, a round


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    folder: Path = tmp_path_factory.mktemp("crowd") / "data"
    server = Server(folder)
    server.start()
    ann, bob = Account(server, "ann"), Account(server, "bob")
    yield gather(server, ann, bob, long=0)
    for account in (ann, bob):
        account.close()
    assert server.terminate() == 0
    server.check()


def test_a_thousand_conversations_are_there_at_once(people: People, crowd: Crowd) -> None:
    """On a device that knows nothing yet, and on one that has been here before."""
    ann = people.device(crowd.server, crowd.ann)
    ann.context.add_init_script(WATCH_LIST)
    debugger = ann.context.new_cdp_session(ann.page)
    debugger.send("Performance.enable", {"timeDomain": "threadTicks"})
    rows = ann.page.get_by_role("navigation", name="Conversations").get_by_role("listitem")
    for _ in ("cold", "warm"):
        assert listed_s(ann.at("/")) < READY_S
        ann.comes_to(f"app.state.order.peek().length === {CONVERSATIONS}")
        assert rows.count() < CONVERSATIONS / 2  # rows are made as one comes to them
        ann.page.get_by_role("searchbox", name="Filter conversations").fill("group 777")
        expect(rows).to_have_count(1)
        rows.click()
        expect(ann.page.get_by_role("heading", name="group 777", level=2)).to_be_visible()
        ann.comes_to("app.state.isSynced.peek()")
        ann.finds("app.mine.writer.flush()")
        assert task_s(debugger) < BUSY_S


def task_s(debugger: CDPSession) -> float:
    """How long the page has worked, by its thread's clock: other work of the machine does not count."""
    metrics = debugger.send("Performance.getMetrics")["metrics"]
    return next(float(each["value"]) for each in metrics if each["name"] == "TaskDuration")


def test_it_takes_no_more_memory_the_longer_it_is_used(people: People, crowd: Crowd) -> None:
    ann = arrives(people, crowd)
    ann.comes_to("app.state.isSynced.peek()")
    debugger = ann.context.new_cdp_session(ann.page)

    def use() -> None:
        for _ in range(ROUNDS):
            for conversation in crowd.busy[:3]:
                ann.finds("app.router.go(`/c/${given[0]}`)", conversation)
                expect(ann.messages(f"line {LINES} of")).to_be_visible()
            for path in ("/new", "/settings", "/"):
                ann.goes(path)

    use()
    before = in_use(debugger)
    use()
    after = in_use(debugger)
    told = f"{before} {after}"
    assert (after["heap"] - before["heap"]) / 1_024 / ROUNDS < GROWTH_KB, told
    assert after["nodes"] < 1.2 * before["nodes"] + 500, told
    assert after["listeners"] < 1.2 * before["listeners"] + 100, told
