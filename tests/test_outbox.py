"""Mail waits in the database until one node has sent it, once, or until it is of no use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio

from auth.harness import Clocked
from kit.databases import on_both
from kit.scrape import value
from secureconnect.config import OutboxConfig
from secureconnect.deps.contracts import Database, Deferred, Mail, Row, Tx, Undeliverable
from secureconnect.errors import Unavailable
from secureconnect.identity import UserId, new_id
from secureconnect.outbox import DECOY, Letter, Outbox

pytest_generate_tests = on_both

KEY = bytes(32)
ANN = UserId(new_id())
HOUR_US = 3_600_000_000


class Postman:
    """answers: what the next mails meet, in order; None is a yes. Later ones are taken."""

    def __init__(self, *answers: Exception | None) -> None:
        self.is_away = False
        self.mails: list[Mail] = []
        self.answers = list(answers)
        self.hold: trio.Event | None = None
        self.holding = trio.Event()

    async def send(self, mail: Mail) -> None:
        if self.hold is not None:
            self.holding.set()
            await self.hold.wait()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        self.mails.append(mail)

    @property
    def subjects(self) -> list[str]:
        return [each.subject for each in self.mails]


@pytest.fixture
def clocked(db: Database) -> Clocked:
    return Clocked(db)


def outbox_of(db: Database, postman: Postman, **settings: Any) -> Outbox:
    config = replace(OutboxConfig(senders=1), **settings)
    return Outbox(config, db, postman, KEY, try_s=20)


def letter(subject: str, kind: str = "reset") -> Letter:
    return Letter(kind, "ann@example.org", subject, "text", "<p>text</p>")


async def put(
    outbox: Outbox, db: Database, subject: str, *, lasts_us: int = HOUR_US, replaces: bool = False
) -> None:
    async def unit(tx: Tx) -> None:
        now_us = db.now_us()
        await outbox.add(
            tx, ANN, letter(subject), now_us=now_us, expires_us=now_us + lasts_us, replaces=replaces
        )

    await db.write(unit)


async def rows(db: Database) -> list[Row]:
    async def unit(tx: Tx) -> list[Row]:
        return await tx.all("SELECT kind, sealed, attempts FROM outbox ORDER BY mail_id")

    return await db.read(unit)


def counted(result: str) -> Callable[[], float]:
    """How many more of these there are than now."""

    def now() -> float:
        return value("secureconnect_outbox_mails_total", result=result)

    before = now()
    return lambda: now() - before


async def test_what_is_committed_is_sent_once_and_forgotten(clocked: Clocked) -> None:
    postman = Postman()
    outbox = outbox_of(clocked, postman)
    await put(outbox, clocked, "one")
    await put(outbox, clocked, "two")

    async def rolled_back(tx: Tx) -> None:
        await outbox.add(tx, ANN, letter("never"), now_us=0, expires_us=HOUR_US, replaces=False)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await clocked.write(rolled_back)
    sealed = b"".join(bytes(row[1]) for row in await rows(clocked))
    assert b"ann" not in sealed
    assert b"text" not in sealed
    await outbox.pass_once()
    assert postman.subjects == ["one", "two"]
    assert postman.mails[0].to == "ann@example.org"
    await outbox.pass_once()
    assert len(postman.mails) == 2
    assert await rows(clocked) == []


async def test_a_later_one_of_its_kind_takes_the_place_of_one_that_waits(clocked: Clocked) -> None:
    postman = Postman()
    outbox = outbox_of(clocked, postman)
    await put(outbox, clocked, "old")
    await put(outbox, clocked, "new", replaces=True)
    await outbox.pass_once()
    assert postman.subjects == ["new"]


async def test_failed_tries_are_repeated_with_growing_pauses(clocked: Clocked) -> None:
    postman = Postman(*[Deferred("later")] * 4)
    outbox = outbox_of(clocked, postman, retry_s=1, longest_retry_s=3)
    await put(outbox, clocked, "stubborn")
    for pause_s in (1, 2, 3, 3):
        tried = len(postman.answers)
        await outbox.pass_once()
        assert len(postman.answers) == tried - 1
        clocked.forward(pause_s - 0.5)
        await outbox.pass_once()
        assert len(postman.answers) == tried - 1, "too early"
        clocked.forward(0.6)
    await outbox.pass_once()
    assert postman.subjects == ["stubborn"]


async def test_one_that_is_put_off_or_refused_does_not_hold_up_the_others(clocked: Clocked) -> None:
    refused = counted("refused")
    postman = Postman(Undeliverable("no such mailbox"), Deferred("later"), None)
    outbox = outbox_of(clocked, postman)
    for subject in ("refused", "later", "good"):
        await put(outbox, clocked, subject)
    await outbox.pass_once()
    assert postman.subjects == ["good"]
    assert [row[2] for row in await rows(clocked)] == [1]
    assert refused() == 1


async def test_a_server_that_is_away_is_tried_once_a_pass_and_not_at_all_once_known(clocked: Clocked) -> None:
    postman = Postman(Unavailable(), Unavailable())
    outbox = outbox_of(clocked, postman)
    await put(outbox, clocked, "one")
    await put(outbox, clocked, "two")
    await outbox.pass_once()
    assert len(postman.answers) == 1
    postman.is_away = True
    clocked.forward(2)
    await outbox.pass_once()
    assert len(postman.answers) == 1
    postman.is_away, postman.answers = False, []
    await outbox.pass_once()
    assert sorted(postman.subjects) == ["one", "two"]


async def test_what_has_expired_is_never_sent_and_decoys_are_no_mail(clocked: Clocked) -> None:
    expired = counted("expired")
    postman = Postman()
    outbox = outbox_of(clocked, postman)
    await put(outbox, clocked, "stale", lasts_us=1_000_000)

    async def decoy(tx: Tx) -> None:
        await outbox.add_decoy(tx, UserId(new_id()), letter("nobody"), now_us=clocked.now_us())

    await clocked.write(decoy)
    assert [row[0] for row in await rows(clocked)] == ["reset", DECOY]
    clocked.forward(2)
    await outbox.pass_once()
    assert postman.mails == []
    assert await rows(clocked) == []
    assert expired() == 1


async def test_two_nodes_never_send_the_same_mail(clocked: Clocked) -> None:
    slow, other = Postman(), Postman()
    slow.hold = trio.Event()
    first, second = outbox_of(clocked, slow), outbox_of(clocked, other)
    await put(first, clocked, "one")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.pass_once)
        await slow.holding.wait()
        clocked.forward(20)  # as long as a try may take
        await second.pass_once()
        assert other.mails == []
        slow.hold.set()
    assert slow.subjects == ["one"]
    assert await rows(clocked) == []


async def test_many_nodes_at_once_share_the_work(clocked: Clocked) -> None:
    postmen = [Postman() for _ in range(4)]
    boxes = [outbox_of(clocked, each, senders=2) for each in postmen]
    for number in range(20):
        await put(boxes[0], clocked, str(number))
    async with trio.open_nursery() as nursery:
        for box in boxes:
            nursery.start_soon(box.pass_once)
    assert sorted(int(each) for postman in postmen for each in postman.subjects) == list(range(20))
    assert await rows(clocked) == []


async def test_what_a_node_died_over_is_sent_by_another_later(clocked: Clocked) -> None:
    dead, other = Postman(), Postman()
    dead.hold = trio.Event()
    first, second = outbox_of(clocked, dead), outbox_of(clocked, other)
    await put(first, clocked, "one")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.pass_once)
        await dead.holding.wait()
        nursery.cancel_scope.cancel()
    await second.pass_once()
    assert other.mails == []
    clocked.forward(51)
    await second.pass_once()
    assert other.subjects == ["one"]


async def test_it_is_bounded(clocked: Clocked) -> None:
    dropped = counted("dropped")
    postman = Postman()
    postman.is_away = True
    outbox = outbox_of(clocked, postman, waiting=2)

    async def notice(tx: Tx) -> None:
        await outbox.notify(tx, ANN, letter("notice", "device"), now_us=clocked.now_us())

    await clocked.write(notice)
    await outbox.pass_once()
    outbox.require_room()
    await clocked.write(notice)
    await outbox.pass_once()
    with pytest.raises(Unavailable):
        outbox.require_room()
    await clocked.write(notice)
    assert dropped() == 1
    assert len(await rows(clocked)) == 2
    postman.is_away = False
    await outbox.pass_once()
    await outbox.pass_once()
    outbox.require_room()


async def test_what_waits_for_someone_can_be_forgotten(clocked: Clocked) -> None:
    outbox = outbox_of(clocked, Postman())
    await put(outbox, clocked, "one")
    await clocked.write(outbox.forget, ANN)
    assert await rows(clocked) == []


async def test_it_goes_on_after_the_database_was_away(clocked: Clocked) -> None:
    postman = Postman()
    outbox = outbox_of(clocked, postman, poll_s=0.05)
    await put(outbox, clocked, "one")
    clocked.take_away()
    async with trio.open_nursery() as nursery:
        await nursery.start(outbox.run)
        with trio.fail_after(5):
            while not clocked.refused:  # noqa: ASYNC110
                await trio.sleep(0.01)
            clocked.bring_back()
            while not postman.mails:  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert postman.subjects == ["one"]


async def test_what_no_key_opens_is_dropped_and_holds_up_nothing(clocked: Clocked) -> None:
    """As after a master key was lost."""
    postman = Postman()
    other, outbox = (
        Outbox(OutboxConfig(), clocked, postman, bytes(31) + b"x", 20),
        outbox_of(clocked, postman),
    )
    for _ in range(3):
        await put(other, clocked, "unreadable")
    await put(outbox, clocked, "readable")
    await outbox.pass_once()
    assert postman.subjects == ["readable"]
    assert await rows(clocked) == []


async def test_how_many_wait_is_counted_no_further_than_there_is_room(clocked: Clocked) -> None:
    postman = Postman()
    postman.is_away = True
    outbox = outbox_of(clocked, postman, waiting=3)
    for _ in range(2):
        await put(outbox, clocked, "stale", lasts_us=1_000_000)
    await put(outbox, clocked, "fresh")
    await outbox.pass_once()
    with pytest.raises(Unavailable):
        outbox.require_room()
    for _ in range(2):
        await put(outbox, clocked, "fresh")
    await outbox.pass_once()
    assert value("secureconnect_outbox_waiting") == 3
    clocked.forward(2)
    await put(outbox, clocked, "stale", lasts_us=-1)
    await outbox.pass_once()
    assert value("secureconnect_outbox_waiting") == 3, "three are fresh"
    postman.is_away = False
    await outbox.pass_once()
    await outbox.pass_once()
    assert value("secureconnect_outbox_waiting") == 0
    outbox.require_room()
