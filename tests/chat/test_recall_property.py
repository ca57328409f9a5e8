"""Whatever happens, on whichever node: memory says what the table says, or nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.databases import open_sqlite
from kit.outage import Interrupted
from kit.wait import until
from secureconnect.chat import Chat, archive, changes, frames, store
from secureconnect.chat.attachments import NoFiles
from secureconnect.chat.disappearing import Disappearing
from secureconnect.chat.polls import store as polls
from secureconnect.chat.polls.polls import Polls, Question
from secureconnect.chat.reactions import store as reactions
from secureconnect.chat.resume import _is_visible
from secureconnect.chat.store import LAST_ID
from secureconnect.clock import SECOND_US
from secureconnect.config import ChatConfig, MemoryConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import Problem, Unavailable
from secureconnect.identity import ConversationId, PollId, UserId, new_id

from .rig import make_group, make_people, read_page, running

LASTS_S = 3_600
SMALL = ChatConfig(catch_up_ms=100, recent_changes=12, disappear_pass_s=3_600, poll_pass_s=3_600)

Step = tuple[str, bool, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "say",
                "say",
                "say",
                "edit",
                "delete",
                "react",
                "unreact",
                "pin",
                "unpin",
                "ask",
                "vote",
                "end",
                "unask",
                "join",
                "leave",
                "promote",
                "title",
                "read",
                "drop",
                "dissolve",
                "last",
                "sweep",
            ]
        ),
        st.booleans(),  # on which of the two nodes
        st.integers(0, 30),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(steps, steps, st.booleans())
def test_memory_never_contradicts_the_table(
    before: list[Step], after: list[Step], opens_the_past: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_compare, Path(folder), before, after, opens_the_past)


class AnyFile(NoFiles):
    """Whatever is named is a file of the sender."""

    async def attach(self, *_: object, **__: object) -> None:
        return None


async def _compare(folder: Path, before: list[Step], after: list[Step], opens_the_past: bool) -> None:
    """before, after: the start of the node whose memory is looked at."""
    bus = MemoryBus(MemoryConfig())
    async with open_sqlite(folder) as db:
        away = Interrupted(db)
        async with running(db, bus, SMALL, attachments=AnyFile()) as far:
            people = await make_people(db, "ann", "bob", "cid")
            group = await make_group(far, *people[:2])
            await far.conversations.configure(people[0], group, {"history_visible": opens_the_past})
            for kind, _, number in before:
                await take(kind, far, db, group, people, number)
            async with running(away, bus, SMALL, attachments=AnyFile()) as room:
                for kind, here, number in after:
                    await take(kind, room if here else far, db, group, people, number)
                await until(lambda: _is_settled(db, group, room))
                away.go_away()
                for ahead_us in (0, 2 * LASTS_S * SECOND_US):
                    away.ahead_us = ahead_us
                    now_us = away.now_us()
                    for user in people:
                        await _same_pages(room, db, group, user, now_us)
                        await _same_replay(room, db, group, user, now_us)


async def take(
    kind: str, room: Chat, db: Database, group: ConversationId, people: Sequence[UserId], number: int
) -> None:
    """One step; what the rules refuse does not happen."""
    ann, _, cid = people
    held = await db.read(archive.oldest_after, group, 0, 1_000, db.now_us())
    target = held[number % len(held)] if held else None
    asked = await db.read(polls.list_of, group, -1, PollId(LAST_ID), 1_000, db.now_us(), only_active=False)
    poll = asked[number % len(asked)] if asked else None
    with suppress(Problem):
        match kind:
            case "say":
                files = [new_id()] if number % 2 else []
                said = room.messages.draft(people[number % 3], group, f"said {number}", file_ids=files)
                await room.messages.send(said)
            case "edit" if target:
                metadata = msgspec.Raw(b'{"k": 1}') if number % 2 else None
                message = target.message_id
                await room.messages.edit(target.sender_id, message, f"edited {number}", metadata=metadata)
            case "delete" if target:
                await room.messages.delete(target.sender_id, target.message_id)
            case "react" if target:
                await room.reactions.set(people[number % 3], target.message_id, "👍👎"[number % 2], on=True)
            case "unreact" if target:
                await room.reactions.set(people[number % 3], target.message_id, "👍👎"[number % 2], on=False)
            case "pin" | "unpin" if target:
                await room.pins.set(ann, group, target.message_id, on=kind == "pin")
            case "dissolve" if number < 3:
                await room.deletion.delete(ann, group)
            case "ask":
                question = Question(f"asked {number}", ["yes", "no"], "single", True, None)
                await room.polls.create(people[number % 3], group, question)
            case "vote" if poll:
                await room.polls.vote(people[number % 3], poll.poll_id, [poll.options[number % 2].option_id])
            case "end" if poll:
                await room.polls.close(poll.created_by, poll.poll_id)
            case "unask" if poll:
                await room.polls.delete(poll.created_by, poll.poll_id)
            case "promote":
                await room.conversations.set_role(ann, group, people[1], ("admin", "member")[number % 2])
            case "join":
                await room.conversations.add(ann, group, cid, "member")
            case "leave":
                await room.conversations.remove(cid, group, cid)
            case "title":
                await room.conversations.describe(ann, group, {"title": str(number)})
            case "read":
                await read_page(room, people[number % 3], group, 1 + number % 7, before_seq=number + 2)
            case "last":
                await db.write(_last, group, number % 2 * LASTS_S)
            case "sweep":
                later = Interrupted(db)
                later.ahead_us = 2 * LASTS_S * SECOND_US
                await Disappearing(SMALL, later, room.writer, NoFiles()).pass_once()
                await Polls(SMALL, later, room.writer).pass_once()
            case "drop" if target and number < 10:
                await room.retention.drop(group, 0, target.sent_us)


async def _last(tx: Tx, group: ConversationId, seconds: int) -> None:
    await tx.run("UPDATE conversations SET disappear_after_s = $2 WHERE conversation_id = $1", group, seconds)


async def _is_settled(db: Database, group: ConversationId, room: Chat) -> bool:
    stored = await db.read(store.get, group)
    assert stored is not None
    return room.hub.change_of(group) == stored.last_change


async def _same_pages(room: Chat, db: Database, group: ConversationId, user: UserId, now_us: int) -> None:
    for limit in (1, 3, 20):
        for bounds in ({}, {"before_seq": 5}, {"before_seq": 12}, {"after_seq": 0}, {"after_seq": 8}):
            try:
                told = room.recall.page(Unavailable(), user, group, limit, **bounds)
            except Unavailable:
                continue
            assert told.messages == await _page(db, group, user, now_us, limit, **bounds)
            assert told.change == room.hub.change_of(group)
            for message in told.messages:
                assert room.recall.message(Unavailable(), user, message.message_id) == message


async def _page(
    db: Database,
    group: ConversationId,
    user: UserId,
    now_us: int,
    limit: int,
    before_seq: int | None = None,
    after_seq: int | None = None,
) -> list[store.Message]:
    seat = await db.read(store.seat, group, user)
    assert seat is not None, "told to one who is no member"
    lowest = seat.member.visible_from_seq
    if after_seq is not None:
        found = await db.read(archive.oldest_after, group, max(lowest - 1, after_seq), limit, now_us)
    else:
        before = before_seq or 1_000
        found = await db.read(archive.newest_before, group, lowest, before, limit, now_us)
    reacted = await db.read(reactions.reacted_to, found)
    return [each._replace(reactions=reacted.get(each.message_id, ())) for each in found]


async def _same_replay(room: Chat, db: Database, group: ConversationId, user: UserId, now_us: int) -> None:
    standing = next(
        (each for each in await db.read(store.standings, user) if each.conversation_id == group), None
    )
    head = room.hub.change_of(group) or 0
    for change in range(head + 1):
        missed = room.recall.missed(user, group, change, 1_000)
        if missed is None:
            continue
        assert standing is not None, "told to one who is no member"
        assert change >= standing.min_change, "what retention took is a gap"
        assert missed.change == head
        stored = await db.read(changes.events, group, change, 1_000, now_us)
        visible = [each for each in stored if _is_visible(each, standing, user)]
        assert [frame.data for frame in missed.frames] == [
            told.frame.data if (told := frames.live(each)).kind != "conversation_updated" else frame.data
            for each, frame in zip(visible, missed.frames, strict=True)
        ]
