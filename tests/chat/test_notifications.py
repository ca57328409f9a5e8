"""Notifications: who is told of what, once, and not of what they have read."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
import trio

from kit.databases import on_sqlite
from kit.wait import until
from secureconnect.chat import Chat, note_announcement
from secureconnect.chat.notifications import announced
from secureconnect.chat.notifications.notifications import Listed
from secureconnect.chat.notifications.preferences import Kinds, Preferences, QuietHours
from secureconnect.chat.notifications.store import Notification
from secureconnect.chat.store import LAST_ID
from secureconnect.clock import from_iso
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import Invalid, NotFound
from secureconnect.identity import ConversationId, MessageId, NotificationId, UserId, new_id

from .rig import MemorySocket, block, dialled, make_group, running, say, store

WAITS = ChatConfig(notify_pass_s=3_600)


@pytest.fixture
async def quiet(db: Database, bus: MemoryBus) -> AsyncIterator[Chat]:
    """A room whose passes the test makes itself."""
    async with running(db, bus, WAITS) as room:
        yield room


async def make_direct(room: Chat, one: UserId, other: UserId) -> ConversationId:
    conversation, _ = await room.conversations.create(one, "direct", None, [other], False)
    return conversation


async def of(room: Chat, user: UserId, *, unread: bool = False) -> list[Notification]:
    return (await listed(room, user, unread=unread)).notifications


async def listed(room: Chat, user: UserId, *, unread: bool = False) -> Listed:
    return await room.notifications.page(user, NotificationId(LAST_ID), 100, only_unread=unread)


def kinds(notifications: list[Notification]) -> list[str]:
    return [each.kind for each in notifications]


async def mention(room: Chat, sender: UserId, conversation: ConversationId, *users: str) -> MessageId:
    metadata = msgspec.Raw(msgspec.json.encode({"mentions": users}))
    draft = room.messages.draft(sender, conversation, "look", metadata=metadata)
    return (await store(room, draft)).message.message_id


async def test_what_is_made_is_told_before_the_pass_rests(
    db: Database, bus: MemoryBus, nursery: trio.Nursery, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    async with running(db, bus, ChatConfig(notify_pass_s=3_600, background_share=0.001)) as room:
        await say(room, ann, await make_direct(room, ann, bob), "one")
        socket = await dialled(nursery, room, bob)
        with trio.CancelScope() as resting:
            nursery.start_soon(_cancelled_when_told, socket, resting)
            await room.notifier.pass_once()
        assert resting.cancelled_caught, "it rests a second"
        assert len(await of(room, bob)) == 1


async def _cancelled_when_told(socket: MemorySocket, scope: trio.CancelScope) -> None:
    await socket.wait_for("notification")
    scope.cancel()


async def test_a_direct_message_is_told_once_and_the_next_takes_its_place(
    quiet: Chat, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    direct = await make_direct(quiet, ann, bob)
    first = await say(quiet, ann, direct, "one")
    assert await quiet.notifier.pass_once() == 1
    [told] = await of(quiet, bob)
    assert (told.kind, told.ref, told.conversation_id, told.actor_id, told.read_us) == (
        "message",
        first.message.message_id,
        direct,
        ann,
        None,
    )
    assert await quiet.notifier.pass_once() == 0
    await say(quiet, ann, direct, "two")
    third = await say(quiet, ann, direct, "three")
    assert await quiet.notifier.pass_once() == 1
    [told] = await of(quiet, bob)
    assert told.ref == third.message.message_id
    assert await of(quiet, ann) == []


async def test_of_a_group_only_what_calls_somebody(quiet: Chat, people: list[UserId]) -> None:
    ann, bob, cid, dee = people
    group = await make_group(quiet, ann, bob, cid)
    await quiet.notifier.pass_once()
    assert [(each.kind, each.ref) for each in await of(quiet, bob)] == [("added", group)]
    asked = await say(quiet, bob, group, "who?")
    named = await mention(quiet, ann, group, cid, ann)
    draft = quiet.messages.draft(cid, group, "me", reply_to=asked.message.message_id)
    answered = (await store(quiet, draft)).message
    await quiet.reactions.set(ann, asked.message.message_id, "+", on=True)
    await quiet.reactions.set(bob, asked.message.message_id, "+", on=True)
    await quiet.notifier.pass_once()
    assert {(each.kind, each.ref) for each in await of(quiet, bob, unread=True)} == {
        ("added", group),
        ("reply", answered.message_id),
        ("reaction", asked.message.message_id),
    }
    assert [(each.kind, each.ref) for each in await of(quiet, cid)] == [("mention", named), ("added", group)]
    assert await of(quiet, ann) == await of(quiet, dee) == []


async def test_whom_an_edit_names_is_told_once_though_they_have_read_it(
    quiet: Chat, people: list[UserId]
) -> None:
    ann, bob, cid, dee = people
    group = await make_group(quiet, ann, bob, cid, dee)
    named = await mention(quiet, ann, group, cid)
    await quiet.notifier.pass_once()
    for user in (bob, cid):
        await quiet.conversations.mark_read(user, group, 1)
    made = []
    for users in ((cid, bob), (cid,), (cid, bob, ann)):  # the second takes it back
        metadata = msgspec.Raw(msgspec.json.encode({"mentions": users}))
        await quiet.messages.edit(ann, named, "look again", metadata=metadata)
        made.append(await quiet.notifier.pass_once())
    await quiet.messages.edit(ann, named, "and again")
    assert [*made, await quiet.notifier.pass_once()] == [1, 0, 0, 0]
    assert [(each.kind, each.ref) for each in await of(quiet, bob, unread=True)] == [
        ("mention", named),
        ("added", group),
    ]
    assert kinds(await of(quiet, cid, unread=True)) == ["added"], "they were told before"
    assert kinds(await of(quiet, dee)) == ["added"]
    assert await of(quiet, ann) == []


async def test_who_is_added_later_is_told_and_who_leaves_keeps_nothing(
    quiet: Chat, people: list[UserId]
) -> None:
    ann, bob, cid, _ = people
    group = await make_group(quiet, ann, bob)
    await quiet.conversations.add(ann, group, cid, "member")
    await quiet.notifier.pass_once()
    assert kinds(await of(quiet, cid)) == ["added"]
    await mention(quiet, ann, group, cid)
    await quiet.conversations.remove(cid, group, cid)
    await quiet.notifier.pass_once()
    assert await of(quiet, cid) == []


async def test_what_is_read_is_no_news(quiet: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    direct = await make_direct(quiet, ann, bob)
    await say(quiet, ann, direct, "one")
    await quiet.conversations.mark_read(bob, direct, 1)
    assert await quiet.notifier.pass_once() == 0
    await say(quiet, ann, direct, "two")
    await quiet.notifier.pass_once()
    assert (await listed(quiet, bob)).unread == 1
    await quiet.conversations.mark_read(bob, direct, 2)
    [told] = await of(quiet, bob)
    assert told.read_us is not None
    answer = await say(quiet, bob, direct, "three")
    await quiet.reactions.set(ann, answer.message.message_id, "+", on=True)
    await quiet.conversations.mark_read(bob, direct, 3)
    await quiet.notifier.pass_once()
    await say(quiet, ann, direct, "four")
    await quiet.conversations.mark_read(bob, direct, 4)
    assert kinds(await of(quiet, bob, unread=True)) == ["reaction"], "it is newer than what they have read"


async def test_what_is_deleted_or_past_its_term_is_told_no_more(
    quiet: Chat, people: list[UserId], db: Database
) -> None:
    ann, bob, *_ = people
    direct, group = await make_direct(quiet, ann, bob), await make_group(quiet, ann, bob)
    gone = await say(quiet, ann, direct, "never mind")
    named = await mention(quiet, ann, group, bob)
    own = await say(quiet, bob, group, "yes?")
    await quiet.reactions.set(ann, own.message.message_id, "+", on=True)
    await quiet.notifier.pass_once()
    await quiet.messages.delete(ann, gone.message.message_id)
    await quiet.notifier.pass_once()
    assert [each.ref for each in await of(quiet, bob)] == [own.message.message_id, named, group]
    assert await quiet.retention.drop(group, 0, db.now_us() + 1)
    assert [each.ref for each in await of(quiet, bob)] == [group]


async def test_a_reaction_that_is_taken_back_is_told_no_more(quiet: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    direct = await make_direct(quiet, ann, bob)
    said = (await say(quiet, bob, direct, "hello")).message.message_id
    for emoji in ("+", "-"):
        await quiet.reactions.set(ann, said, emoji, on=True)
    await quiet.notifier.pass_once()
    assert kinds(await of(quiet, bob)) == ["reaction"]
    await quiet.reactions.set(ann, said, "+", on=False)
    await quiet.notifier.pass_once()
    assert kinds(await of(quiet, bob)) == ["reaction"], "the other one stays"
    await quiet.reactions.set(ann, said, "-", on=False)
    await quiet.notifier.pass_once()
    assert await of(quiet, bob) == []
    for on in (True, False):
        await quiet.reactions.set(ann, said, "+", on=on)
    assert await quiet.notifier.pass_once() == 0


@on_sqlite
async def test_nobody_is_told_by_whom_they_have_blocked(
    quiet: Chat, people: list[UserId], db: Database
) -> None:
    ann, bob, cid, _ = people
    group = await make_group(quiet, ann, bob, cid)
    await quiet.notifier.pass_once()
    await block(db, bob, cid)
    await mention(quiet, cid, group, bob, ann)
    await quiet.notifier.pass_once()
    assert kinds(await of(quiet, bob)) == ["added"]
    assert kinds(await of(quiet, ann)) == ["mention"]


@on_sqlite
async def test_people_choose(quiet: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    direct = await make_direct(quiet, ann, bob)
    assert (await quiet.notifications.preferences(bob)).kinds.message == "push"
    night = QuietHours("22:00", "07:00", "Asia/Ho_Chi_Minh")
    await quiet.notifications.choose(bob, Preferences(Kinds(message="off"), night))
    assert await quiet.notifications.preferences(bob) == Preferences(Kinds(message="off"), night)
    await say(quiet, ann, direct, "one")
    await quiet.notifier.pass_once()
    assert await of(quiet, bob) == []
    for nowhere in ("Nowhere/Land", "../../etc/passwd", "/etc/passwd", "Europe", "\N{SNOWMAN}"):
        with pytest.raises(Invalid):
            await quiet.notifications.choose(
                bob, Preferences(quiet_hours=QuietHours("22:00", "07:00", nowhere))
            )


def test_a_time_zone_that_is_lost_keeps_nobody_quiet() -> None:
    """It was known where the hours were chosen."""
    assert not QuietHours("00:00", "23:59", "Nowhere/Land").cover(from_iso("2026-01-15T12:00:00Z"))


def test_a_time_of_day_is_nothing_more() -> None:
    hours = QuietHours("22:00", "07:00\n", "Europe/Berlin")
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(hours), type=QuietHours)


@pytest.mark.parametrize(
    ("start", "end", "at", "quiet"),
    [
        ("22:00", "07:00", "2026-01-15T21:30:00Z", True),  # 22:30 in Berlin
        ("22:00", "07:00", "2026-07-15T20:30:00Z", True),  # and in summer
        ("22:00", "07:00", "2026-07-15T19:59:00Z", False),
        ("22:00", "07:00", "2026-01-15T05:59:59Z", True),
        ("22:00", "07:00", "2026-01-15T06:00:00Z", False),
        ("09:00", "17:00", "2026-01-15T08:00:00Z", True),
        ("09:00", "17:00", "2026-01-15T16:00:00Z", False),
        ("09:00", "09:00", "2026-01-15T08:00:00Z", False),
    ],
)
def test_quiet_hours_are_those_of_the_wall_clock(start: str, end: str, at: str, quiet: bool) -> None:
    hours = Preferences(quiet_hours=QuietHours(start, end, "Europe/Berlin"))
    assert hours.is_pushed("message", from_iso(at)) is not quiet


async def test_reading_one_or_all(nursery: trio.Nursery, quiet: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    screen = await dialled(nursery, quiet, bob)
    for other in (ann, cid):
        await say(quiet, other, await make_direct(quiet, other, bob), "hello")
    await quiet.notifier.pass_once()
    live = await screen.wait_for("notification", 2)
    newest, oldest = await of(quiet, bob)
    assert {each["notification_id"] for each in screen.of("notification")} == {
        newest.notification_id,
        oldest.notification_id,
    }
    assert live["read_at"] is None
    read = await quiet.notifications.read(bob, oldest.notification_id)
    assert (await quiet.notifications.read(bob, oldest.notification_id)) == read
    assert (await screen.wait_for("notification", 3))["read_at"] is not None
    with pytest.raises(NotFound):
        await quiet.notifications.read(ann, newest.notification_id)
    assert await quiet.notifications.read_all(bob, oldest.notification_id) == 0
    assert await quiet.notifications.read_all(bob, newest.notification_id) == 1
    assert (await screen.wait_for("notifications_read"))["up_to"] == newest.notification_id
    assert await of(quiet, bob, unread=True) == []
    assert len(screen.of("notification")) == 3


async def test_two_nodes_share_the_work_and_the_screens(
    nursery: trio.Nursery, db: Database, bus: MemoryBus, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    async with running(db, bus, WAITS) as here, running(db, bus, WAITS) as there:
        direct = await make_direct(here, ann, bob)
        screen = await dialled(nursery, there, bob)
        await say(here, ann, direct, "hello")
        made: list[int] = []

        async def look(room: Chat) -> None:
            made.append(await room.notifier.pass_once())

        async with trio.open_nursery() as both:
            both.start_soon(look, here)
            both.start_soon(look, there)
        assert sum(made) == 1
        await screen.wait_for("notification")
        assert len(await of(there, bob)) == 1


@on_sqlite
async def test_what_a_crash_made_it_forget_is_found(
    db: Database, bus: MemoryBus, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    async with running(db, bus, WAITS) as room:
        await say(room, ann, await make_direct(room, ann, bob), "hello")
    async with running(db, bus, ChatConfig(notify_pass_s=0.05)) as room:

        async def is_told() -> bool:
            return bool(await of(room, bob))

        await until(is_told)


async def test_a_person_has_so_many_at_most(db: Database, bus: MemoryBus, people: list[UserId]) -> None:
    ann, bob, *_ = people
    async with running(db, bus, ChatConfig(notify_pass_s=3_600, notifications_kept=10)) as room:
        group = await make_group(room, ann, bob)
        named = [await mention(room, ann, group, bob) for _ in range(12)]
        await room.notifier.pass_once()
        assert [each.ref for each in await of(room, bob)] == named[:1:-1]


async def test_who_is_erased_leaves_none(quiet: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    await say(quiet, ann, await make_direct(quiet, ann, bob), "hello")
    await quiet.notifier.pass_once()
    await quiet.notifications.choose(bob, Preferences(Kinds(message="list")))
    records = [each async for each in quiet.export_of(bob)]
    assert [each["about"] for each in records if each["kind"] == "notification"] == ["message"]
    [chosen] = [each for each in records if each["kind"] == "notification_preferences"]
    assert chosen["kinds"]["message"] == "list"
    await quiet.forget(bob)
    assert await of(quiet, bob) == []
    assert await quiet.notifications.preferences(bob) == Preferences()


async def test_everybody_is_notified_of_an_announcement_once(
    db: Database, bus: MemoryBus, people: list[UserId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announced, "PAGE", 2)
    root, *others = people
    async with running(db, bus, WAITS) as here, running(db, bus, WAITS) as there:
        await here.notifications.choose(others[0], Preferences(Kinds(announcement="off")))
        name = new_id()
        await db.write(note_announcement, name, root)
        async with trio.open_nursery() as both:
            both.start_soon(here.announced.pass_once)
            both.start_soon(there.announced.pass_once)
        told = [[each.ref for each in await of(here, user)] for user in people]
        assert told == [[], [], [name], [name]]
        assert await here.announced.pass_once() == 0
