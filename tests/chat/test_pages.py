"""The newest page of a conversation is kept, and always as it would be read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import count

import msgspec
import pytest

from kit.databases import on_sqlite
from kit.outage import Interrupted
from kit.scrape import value
from kit.wait import until
from secureconnect.chat import Chat, pages
from secureconnect.chat.pages import Asked, Pages
from secureconnect.chat.recent import Recent
from secureconnect.chat.store import NO_ID, Conversation, Member, Message, Seat
from secureconnect.clock import SECOND_US
from secureconnect.config import ChatConfig, MemoryConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import NotFound, Unavailable
from secureconnect.identity import ConversationId, MessageId, UserId, new_id

from .rig import Json, block, make_group, make_people, read_page, running, say, seqs
from .test_recent import ROOMS, conversation, message

NEVER = ChatConfig(disappear_pass_s=3_600, poll_pass_s=3_600, retention_pass_s=3_600, catch_up_ms=60_000)
UP = "\N{THUMBS UP SIGN}"
AFTER_S = 60
LIMIT = 4


def seat_in(room: Conversation) -> Seat:
    return Seat(room, Member(UserId(NO_ID), "owner", 1, 0, 0))


@dataclass
class Scene:
    """Two nodes, of which neither hears of the other; a group of Ann and Bob with three messages, of which
    the last disappears."""

    db: Interrupted
    here: Chat
    there: Chat
    ann: UserId
    bob: UserId
    cid: UserId
    group: ConversationId
    ids: list[MessageId]

    async def told(self, user: UserId, limit: int = LIMIT) -> tuple[Json, bool]:
        """The newest page as REST tells it here, and whether that was kept."""
        before = value("secureconnect_chat_pages_total", result="kept")
        data = await self.here.messages.page(user, Asked(self.group, limit))
        return msgspec.json.decode(data), value("secureconnect_chat_pages_total", result="kept") > before

    async def texts(self, user: UserId, limit: int = LIMIT) -> list[str]:
        await read_page(self.here, user, self.group, limit)
        told, _ = await self.told(user, limit)
        return [each["content"] for each in told["messages"]]


async def has_heard(room: Chat, last: Message) -> None:
    """Until that is told, by which what is kept goes."""

    def is_told() -> bool:
        past = room._recent.past(last.conversation_id)
        return past is not None and past.head == last.change

    await until(is_told)


@pytest.fixture
async def at(db: Database, bus: MemoryBus) -> AsyncIterator[Scene]:
    ann, bob, cid = await make_people(db, "ann", "bob", "cid")
    shifted = Interrupted(db)
    other_bus = MemoryBus(MemoryConfig())
    async with running(shifted, bus, NEVER) as here, running(shifted, other_bus, NEVER) as there:
        group = await make_group(here, ann, bob)
        ids = [(await say(here, ann, group, text)).message.message_id for text in ("one", "two")]
        await here.conversations.configure(ann, group, {"disappear_after_s": AFTER_S})
        last = (await say(here, ann, group, "three")).message
        ids.append(last.message_id)
        await has_heard(here, last)
        yield Scene(shifted, here, there, ann, bob, cid, group, ids)


async def test_it_is_told_again_to_whoever_may_see_it(at: Scene) -> None:
    first, _ = await at.told(at.ann)
    assert [each["content"] for each in first["messages"]][-1] == "three"
    for user in (at.ann, at.bob):
        assert await at.told(user) == (first, True)
    with pytest.raises(NotFound):
        await at.told(at.cid)
    for bound in ({"before_seq": 2**63 - 1}, {"after_seq": 1}, {"before_seq": 3}):
        asked = Asked(at.group, LIMIT, **bound)
        await at.here.messages.page(at.ann, asked)
        assert at.here._pages.get(asked) is None, "what one asks by oneself is not kept"
    assert await at.told(at.ann) == (first, True)
    assert [(await at.told(at.ann, limit))[1] for limit in (2, 2, LIMIT)] == [False, True, False]


async def test_nothing_is_left_of_what_is_deleted(at: Scene) -> None:
    await at.told(at.bob)
    assert b"two" in bytes(at.here._pages._kept[at.group].data)
    await at.here.messages.delete(at.ann, at.ids[1])
    await until(lambda: at.group not in at.here._pages._kept)


async def _dissolve(at: Scene) -> None:
    await at.there.deletion.delete(at.ann, at.group)


async def _pass_end(at: Scene) -> None:
    at.db.ahead_us += (AFTER_S + 1) * SECOND_US


async def _disappear(at: Scene) -> None:
    await _pass_end(at)
    assert await at.there.disappearing.pass_once() == 1


async def _retain(at: Scene) -> None:
    sent_us = (await at.there.messages.get(at.ann, at.ids[1])).sent_us
    assert await at.there.retention.drop(at.group, 0, sent_us)


CHANGES: dict[str, tuple[Callable[[Scene], Awaitable[object]], list[str] | None]] = {
    "said": (lambda at: say(at.there, at.bob, at.group, "four"), ["two", "", "three", "four"]),
    "edited": (lambda at: at.there.messages.edit(at.ann, at.ids[0], "1"), ["1", "two", "", "three"]),
    "deleted": (lambda at: at.there.messages.delete(at.ann, at.ids[0]), ["", "two", "", "three"]),
    "past its end": (_pass_end, ["one", "two", "", ""]),
    "disappeared": (_disappear, ["one", "two", "", ""]),
    "past its term": (_retain, ["two", "", "three"]),
    "dissolved": (_dissolve, None),
    "removed": (lambda at: at.there.conversations.remove(at.ann, at.group, at.bob), None),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_what_happened_on_another_node_is_seen_at_once(at: Scene, what: str) -> None:
    act, after = CHANGES[what]
    for user in (at.ann, at.bob, at.bob):
        _, was_kept = await at.told(user)
    assert was_kept
    await act(at)
    if after is None:
        with pytest.raises(NotFound):
            await at.told(at.bob)
        return
    told, was_kept = await at.told(at.bob)
    assert not was_kept
    said = ["" if each["message_type"] == "system" else each["content"] for each in told["messages"]]
    assert said == after
    assert await at.told(at.ann) == (told, True)
    await read_page(at.here, at.bob, at.group, LIMIT)


async def test_everybody_sees_which_reactions_are_theirs(at: Scene) -> None:
    for user in (at.ann, at.bob):
        await at.told(user)

    async def reactions(user: UserId) -> list[tuple[int, bool]]:
        told, was_kept = await at.told(user)
        assert not was_kept
        await read_page(at.here, user, at.group, LIMIT)
        return [(each["count"], each["mine"]) for each in told["messages"][0]["reactions"]]

    await at.there.reactions.set(at.bob, at.ids[0], UP, on=True)
    assert [await reactions(user) for user in (at.ann, at.bob, at.ann)] == [
        [(1, False)],
        [(1, True)],
        [(1, False)],
    ]
    await at.there.reactions.set(at.ann, at.ids[0], UP, on=True)
    assert [await reactions(user) for user in (at.ann, at.bob)] == [[(2, True)], [(2, True)]]
    for user in (at.ann, at.bob):
        await at.there.reactions.set(user, at.ids[0], UP, on=False)
    assert await reactions(at.ann) == []
    assert (await at.told(at.bob))[1], "without any it is kept again"


async def test_who_joined_later_sees_their_part(at: Scene) -> None:
    await at.there.conversations.add(at.ann, at.group, at.cid, "member")
    await say(at.there, at.bob, at.group, "welcome")
    for _ in range(2):
        assert (await at.texts(at.ann, 10))[:2] == ["one", "two"]
        assert await at.texts(at.cid, 10) == ["Somebody was added.", "welcome"]
    told, _ = await at.told(at.ann, 2)
    assert await at.told(at.cid, 2) == (told, True), "which does not reach back to what is hidden"
    told, _ = await at.told(at.ann, 3)
    assert not (await at.told(at.cid, 3))[1]
    assert len(await at.texts(at.cid, 3)) == 2


async def test_what_is_in_no_page_leaves_it_right(at: Scene, db: Database) -> None:
    told, _ = await at.told(at.bob, 20)
    await block(db, at.ann, at.bob)
    await at.there.conversations.mark_read(at.bob, at.group, 2)
    assert await at.told(at.bob, 20) == (told, True)
    await at.there.pins.set(at.ann, at.group, at.ids[0], on=True)
    await at.there.forget(at.ann)
    after, _ = await at.told(at.bob, 20)
    assert after["messages"][:LIMIT] == told["messages"], "who is erased stays as an id"
    await read_page(at.here, at.bob, at.group, 20)


async def test_a_history_that_went_back_and_on_is_another(at: Scene) -> None:
    async def go_back(tx: Tx) -> None:
        await tx.run("DELETE FROM messages WHERE conversation_id = $1 AND seq = 4", at.group)
        await tx.run(
            "UPDATE conversations SET last_seq = last_seq - 1, last_change = last_change - 1"
            " WHERE conversation_id = $1",
            at.group,
        )

    before, _ = await at.told(at.bob)
    await at.db.write(go_back)
    await say(at.there, at.bob, at.group, "another")
    told, was_kept = await at.told(at.bob)
    assert (told["change"], was_kept) == (before["change"], False)
    assert told["messages"][-1]["content"] == "another"


@on_sqlite
async def test_memory_for_an_outage_has_what_was_told_again(at: Scene) -> None:
    """Although it had let go of it."""
    await at.told(at.bob)
    assert (await at.told(at.bob))[1]
    at.here._recent._drop(at.group)
    told, was_kept = await at.told(at.bob)
    assert not was_kept
    assert await at.told(at.bob) == (told, True)
    await say(at.here, at.bob, at.group, "four")
    await until(lambda: at.here.hub.can_see(at.group, at.bob) is not None)
    at.db.go_away()
    recalled = at.here.recall.page(Unavailable(), at.bob, at.group, LIMIT)
    assert seqs(recalled.messages) == [2, 3, 4, 5]


@pytest.mark.parametrize("pages_mb", [0, 1])
async def test_it_can_be_switched_off(db: Database, bus: MemoryBus, pages_mb: int) -> None:
    [ann] = await make_people(db, "ann")
    async with running(db, bus, ChatConfig(pages_mb=pages_mb)) as room:
        group = await make_group(room, ann)
        await has_heard(room, (await say(room, ann, group, "one")).message)
        before = value("secureconnect_chat_pages_total", result="kept")
        for _ in range(3):
            await room.messages.page(ann, Asked(group, 5))
        assert value("secureconnect_chat_pages_total", result="kept") - before == (2 if pages_mb else 0)


def test_the_bytes_are_bounded_and_what_is_asked_for_stays() -> None:
    kept = Pages(100_000, Recent(0, 1))
    numbers = count(1)

    def ask(group: ConversationId, content: str = "x" * 5_000) -> bool:
        if kept.get(Asked(group, 1)) is not None:
            return True
        head, said = conversation(group, next(numbers)), message(group, 1)._replace(content=content)
        with kept.reading(group) as reading:
            kept.answer(Asked(group, 1), reading, seat_in(head), [said])
        kept.tell_size()
        assert value("secureconnect_chat_pages_bytes") <= 100_000
        return False

    groups = [ConversationId(new_id()) for _ in range(50)]
    for group in groups:
        ask(group)
        assert ask(groups[0])
    held = [group for group in groups if kept.get(Asked(group, 1)) is not None]
    each = value("secureconnect_chat_pages_bytes") / len(held)
    assert held == [groups[0], *groups[-len(held) + 1 :]]
    assert 5_000 + pages.AROUND_BYTES < each < 100_000 / len(held)
    assert not ask(large := ConversationId(new_id()), "x" * 100_000)
    assert kept.get(Asked(large, 1)) is None
    assert all(ask(group) for group in held), "nor does it drive others out"


def test_what_is_overtaken_while_it_is_read_is_not_kept() -> None:
    recent, [room, elsewhere, *_] = Recent(10_000_000, 20), ROOMS
    kept, asked = Pages(100_000, recent), Asked(room, 1)
    for happens_in in (room, elsewhere):
        with kept.reading(room) as reading, kept.reading(room) as another:
            kept.heard(happens_in)
            for each in (reading, another):
                kept.answer(asked, each, seat_in(conversation(room, 1)), [message(room, 1)])
        assert (kept.get(asked) is not None) == (happens_in == elsewhere)
        assert (recent.past(room) is not None) == (happens_in == elsewhere)
