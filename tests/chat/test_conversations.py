"""Who may make, see, change, join and leave a conversation."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest
import trio

from secureconnect.chat import Chat
from secureconnect.chat.store import NO_ID, TOP, MemberRole
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import Conflict, E2eeRequired, Forbidden, Invalid, LastAdmin, NotFound, Problem
from secureconnect.identity import ConversationId, MessageId, UserId, new_id

from .rig import block, history, make_group, make_people, read_page, running, say, seqs, store


class Scene(NamedTuple):
    """Where somebody tries something: a message there, and a member to do it to."""

    room: Chat
    where: ConversationId
    what: MessageId
    whom: UserId


Act = Callable[[Scene, UserId], Awaitable[object]]

MEMBERS_ONLY: dict[str, Act] = {
    "get": lambda at, me: at.room.conversations.get(me, at.where),
    "participants": lambda at, me: at.room.conversations.participants(me, at.where, NO_ID, 10),
    "history": lambda at, me: read_page(at.room, me, at.where, 10),
    "message": lambda at, me: at.room.messages.get(me, at.what),
    "send": lambda at, me: say(at.room, me, at.where, "hi"),
    "read": lambda at, me: at.room.conversations.mark_read(me, at.where, 1),
}
MODERATORS_ONLY: dict[str, Act] = {
    "describe": lambda at, me: at.room.conversations.describe(me, at.where, {"title": "new"}),
    "configure": lambda at, me: at.room.conversations.configure(me, at.where, {"recording_enabled": True}),
    "add": lambda at, me: at.room.conversations.add(me, at.where, UserId(new_id()), "member"),
    "remove": lambda at, me: at.room.conversations.remove(me, at.where, at.whom),
    "promote": lambda at, me: at.room.conversations.set_role(me, at.where, at.whom, "admin"),
    "edit": lambda at, me: at.room.messages.edit(me, at.what, "mine now"),
    "delete": lambda at, me: at.room.messages.delete(me, at.what),
}
ALL = MEMBERS_ONLY | MODERATORS_ONLY


@pytest.mark.parametrize("act", ALL)
async def test_strangers_find_nothing(room: Chat, people: list[UserId], act: str) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob)
    what = (await say(room, ann, where, "hello")).message.message_id
    with pytest.raises(NotFound) as refused:
        await ALL[act](Scene(room, where, what, bob), cid)
    assert refused.value.denial == "denied:conversation"
    nowhere = Scene(room, ConversationId(new_id()), MessageId(new_id()), bob)
    with pytest.raises(NotFound):
        await ALL[act](nowhere, cid)


@pytest.mark.parametrize("act", MODERATORS_ONLY)
async def test_members_may_not_do_what_moderators_do(room: Chat, people: list[UserId], act: str) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob, cid)
    what = (await say(room, ann, where, "hello")).message.message_id
    before = (await room.conversations.get(ann, where))[0].seat.conversation
    with pytest.raises(Forbidden) as refused:
        await MODERATORS_ONLY[act](Scene(room, where, what, cid), bob)
    assert refused.value.denial == "denied:forbidden"
    after = (await room.conversations.get(ann, where))[0].seat.conversation
    assert after == before, "a refusal leaves no trace"


async def test_moderators_may(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, dee = people
    where = await make_group(room, ann, bob)
    await room.conversations.describe(ann, where, {"title": "new", "avatar_url": "/a.png"})
    await room.conversations.configure(ann, where, {"recording_enabled": True})
    await room.conversations.add(ann, where, cid, "admin")
    await room.conversations.add(cid, where, dee, "member")
    what = (await say(room, bob, where, "hello")).message.message_id
    await room.messages.delete(cid, what)
    await room.conversations.remove(cid, where, dee)
    summary, participants = await room.conversations.get(bob, where)
    assert (summary.seat.conversation.title, summary.seat.conversation.avatar_url) == ("new", "/a.png")
    assert summary.seat.conversation.recording_enabled
    roles = {each.person.user_id: each.member.role for each in participants}
    assert roles == {ann: "owner", bob: "member", cid: "admin"}


@pytest.mark.parametrize(
    ("actor", "target", "role", "allowed"),
    [
        ("owner", "admin", "member", True),
        ("owner", "member", "owner", True),
        ("admin", "member", "admin", True),
        ("admin", "member", "owner", False),
        ("admin", "owner", "member", False),
        ("member", "member", "admin", False),
    ],
)
async def test_who_may_give_which_role(
    room: Chat, people: list[UserId], actor: str, target: str, role: MemberRole, allowed: bool
) -> None:
    ann, bob, cid, dee = people
    where = await make_group(room, ann, bob, cid, dee)
    await room.conversations.set_role(ann, where, bob, "admin")
    who = {"owner": ann, "admin": bob, "member": cid}
    other = dee if target == "member" else who[target]
    if allowed:
        changed = await room.conversations.set_role(who[actor], where, other, role)
        assert changed.member.role == role
    else:
        with pytest.raises(Forbidden):
            await room.conversations.set_role(who[actor], where, other, role)


async def test_an_admin_may_not_remove_the_owner(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    await room.conversations.set_role(ann, where, bob, "admin")
    with pytest.raises(Forbidden):
        await room.conversations.remove(bob, where, ann)


async def test_the_last_admin_stays_until_there_is_another(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    with pytest.raises(LastAdmin):
        await room.conversations.remove(ann, where, ann)
    with pytest.raises(LastAdmin):
        await room.conversations.set_role(ann, where, ann, "member")
    await room.conversations.set_role(ann, where, bob, "admin")
    await room.conversations.remove(ann, where, ann)
    with pytest.raises(NotFound):
        await room.conversations.get(ann, where)
    with pytest.raises(LastAdmin):
        await room.conversations.set_role(bob, where, bob, "member")
    await room.conversations.remove(bob, where, bob)  # alone: nobody is left behind


async def test_two_people_have_one_direct_conversation(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    found: list[tuple[ConversationId, bool]] = []

    async def open_it(one: UserId, other: UserId) -> None:
        found.append(await room.conversations.create(one, "direct", None, [other], False))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(open_it, ann, bob)
            nursery.start_soon(open_it, bob, ann)
    assert len({conversation for conversation, _ in found}) == 1
    assert [is_new for _, is_new in found].count(True) == 1


async def test_a_direct_conversation_stays_between_two(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    where, _ = await room.conversations.create(ann, "direct", None, [bob], False)
    for act in (
        lambda: room.conversations.add(ann, where, cid, "member"),
        lambda: room.conversations.remove(ann, where, ann),
        lambda: room.conversations.remove(ann, where, bob),
        lambda: room.conversations.set_role(ann, where, bob, "admin"),
    ):
        with pytest.raises(Conflict):
            await act()
    await room.conversations.configure(bob, where, {"message_retention_days": 7})


@pytest.mark.parametrize("participants", [0, 2])
async def test_a_direct_conversation_takes_one_other(
    room: Chat, people: list[UserId], participants: int
) -> None:
    with pytest.raises(Invalid):
        await room.conversations.create(people[0], "direct", None, people[1 : 1 + participants], False)
    with pytest.raises(Invalid):
        await room.conversations.create(people[0], "direct", None, [people[0]], False)


async def test_the_blocked_neither_open_nor_write(db: Database, room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, dee = people
    where, _ = await room.conversations.create(ann, "direct", None, [bob], False)
    told = (await say(room, ann, where, "hello")).message
    group = await make_group(room, ann, bob)
    hers = await make_group(room, ann)
    await block(db, bob, ann)
    await block(db, ann, cid)
    for act in (
        lambda: say(room, ann, where, "are you there?"),
        lambda: say(room, bob, where, "no"),
        lambda: room.messages.edit(ann, told.message_id, "hello?"),
        lambda: room.conversations.create(ann, "direct", None, [cid], False),
        lambda: room.conversations.create(cid, "direct", None, [ann], False),
        lambda: room.conversations.describe(ann, where, {"title": "are you there?"}),
        lambda: room.conversations.configure(ann, where, {"message_retention_days": 1}),
        lambda: make_group(room, ann, bob),
        lambda: make_group(room, bob, dee, ann),
        lambda: room.conversations.add(ann, hers, cid, "member"),
    ):
        with pytest.raises(Forbidden):
            await act()
    assert (await room.conversations.add(ann, group, bob, "member"))[1] is False
    await room.conversations.describe(ann, group, {"title": "a group"})
    assert (await say(room, ann, group, "a group is not theirs alone")).fresh


async def test_unknown_people_cannot_be_added(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    nobody = UserId(new_id())
    with pytest.raises(NotFound):
        await make_group(room, ann, nobody)
    where = await make_group(room, ann, bob)
    with pytest.raises(NotFound):
        await room.conversations.add(ann, where, nobody, "member")
    assert await room.listing.page(bob, TOP, 10) != []


async def test_a_group_has_its_limit(db: Database, bus: MemoryBus) -> None:
    ann, *others = await make_people(db, "ann", "bob", "cid", "dee")
    async with running(db, bus, ChatConfig(max_members=3)) as room:
        with pytest.raises(Invalid):
            await make_group(room, ann, *others)
        where = await make_group(room, ann, *others[:2])
        with pytest.raises(Conflict):
            await room.conversations.add(ann, where, others[2], "member")


async def test_adding_twice_is_adding_once(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob)
    first, was_new = await room.conversations.add(ann, where, cid, "member")
    again, is_new = await room.conversations.add(ann, where, cid, "admin")
    assert (was_new, is_new) == (True, False)
    assert again == first
    assert (await room.conversations.get(ann, where))[0].seat.conversation.last_change == 3


@pytest.mark.parametrize("history_visible", [False, True])
async def test_who_joins_sees_the_past_only_where_it_is_open(
    room: Chat, people: list[UserId], history_visible: bool
) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob)
    await room.conversations.configure(ann, where, {"history_visible": history_visible})
    past = [(await say(room, ann, where, f"past {n}")).message for n in range(3)]
    await room.conversations.add(ann, where, cid, "member")
    await say(room, ann, where, "welcome")
    seen = await history(room, cid, where)
    assert seqs(seen) == ([1, 2, 3, 4, 5] if history_visible else [4, 5])
    if history_visible:
        assert (await room.messages.get(cid, past[0].message_id)).content == "past 0"
    else:
        with pytest.raises(NotFound):
            await room.messages.get(cid, past[0].message_id)
        draft = room.messages.draft(cid, where, "re", reply_to=past[0].message_id)
        with pytest.raises(Invalid):
            await room.messages.send(draft)
    assert (await room.conversations.get(cid, where))[0].unread_count == 1


async def test_encryption_is_one_way_and_refuses_plaintext(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    plain = (await say(room, ann, where, "plain")).message
    await room.conversations.configure(ann, where, {"is_e2ee_enabled": True})
    with pytest.raises(E2eeRequired):
        await say(room, bob, where, "plain")
    with pytest.raises(E2eeRequired):
        await room.messages.edit(ann, plain.message_id, "plain again")
    sealed = await store(room, room.messages.draft(bob, where, "c2VhbGVk", is_encrypted=True))
    edited = await room.messages.edit(bob, sealed.message.message_id, "b3RoZXI=")
    assert edited.is_encrypted
    with pytest.raises(Conflict):
        await room.conversations.configure(ann, where, {"is_e2ee_enabled": False})
    await room.conversations.configure(ann, where, {"is_e2ee_enabled": True})


async def test_the_list_is_paged_by_latest_activity(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    made = [await make_group(room, ann, bob) for _ in range(5)]
    await say(room, bob, made[1], "newest")
    expected = [made[1], made[4], made[3], made[2], made[0]]
    found: list[ConversationId] = []
    below = TOP
    while page := await room.listing.page(ann, below, 2):
        found += [line.summary.seat.conversation.conversation_id for line in page]
        below = page[-1].summary.place
    assert found == expected
    [line] = await room.listing.page(ann, TOP, 1)
    first = line.summary
    assert first.last_message is not None
    assert (first.last_message.content, first.unread_count) == ("newest", 1)


async def test_nothing_changed_is_no_event(room: Chat, people: list[UserId]) -> None:
    ann, *_ = people
    where = await make_group(room, ann)
    for _ in range(2):
        await room.conversations.describe(ann, where, {"title": "new"})
    assert (await room.conversations.get(ann, where))[0].seat.conversation.last_change == 3


async def test_every_deed_is_audited(db: Database, room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob)
    await room.conversations.add(ann, where, cid, "member")
    await room.conversations.set_role(ann, where, cid, "admin")
    await room.conversations.configure(ann, where, {"recording_enabled": False, "message_retention_days": 7})
    await room.conversations.remove(ann, where, cid)
    await room.conversations.remove(bob, where, bob)
    what = (await say(room, ann, where, "x")).message.message_id
    await room.messages.edit(ann, what, "y")
    await room.messages.delete(ann, what)
    with pytest.raises(Problem):
        await room.conversations.remove(bob, where, ann)

    rows = await db.read(lambda tx: tx.all("SELECT action, actor_id, subject FROM audit ORDER BY audit_id"))
    assert rows == [
        ("chat:conversation:created", ann, where),
        ("chat:member:added", ann, where),
        ("chat:member:role_changed", ann, where),
        ("chat:conversation:configured", ann, where),
        ("chat:member:removed", ann, where),
        ("chat:member:left", bob, where),
        ("chat:message:edited", ann, what),
        ("chat:message:deleted", ann, what),
    ]
    facts = "SELECT facts FROM audit WHERE action = 'chat:conversation:configured'"
    [(told,)] = await db.read(lambda tx: tx.all(facts))
    assert json.loads(told) == {"message_retention_days": 7}


async def test_a_group_is_never_larger_than_it_may_be(db: Database, bus: MemoryBus) -> None:
    """Twenty are added at the same time, on two nodes, where there is room for seven."""
    ann, *others = await make_people(db, "ann", *(f"other{number}" for number in range(20)))
    config = ChatConfig(max_members=8)
    refused = 0
    async with running(db, bus, config) as here, running(db, bus, config) as there:
        where = await make_group(here, ann)

        async def add(room: Chat, user: UserId) -> None:
            nonlocal refused
            try:
                await room.conversations.add(ann, where, user, "member")
            except Conflict:
                refused += 1

        async with trio.open_nursery() as nursery:
            for number, user in enumerate(others):
                nursery.start_soon(add, (here, there)[number % 2], user)
        summary, people = await there.conversations.get(ann, where)
        assert (len(people), refused) == (8, 13)
        assert summary.seat.conversation.last_change == 1 + 2 * 7, "each with its notice, and no refused one"


async def test_two_nodes_open_one_direct_conversation(
    db: Database, bus: MemoryBus, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    found: list[tuple[ConversationId, bool]] = []
    async with running(db, bus) as here, running(db, bus) as there:

        async def open_it(room: Chat, one: UserId, other: UserId) -> None:
            found.append(await room.conversations.create(one, "direct", None, [other], False))

        async with trio.open_nursery() as nursery:
            for room in (here, there) * 5:
                nursery.start_soon(open_it, room, ann, bob)
                nursery.start_soon(open_it, room, bob, ann)
        assert len({conversation for conversation, _ in found}) == 1
        assert [is_new for _, is_new in found].count(True) == 1
        assert (await there.conversations.get(bob, found[0][0]))[0].seat.conversation.last_change == 1


async def test_who_is_erased_is_brought_nowhere(db: Database, room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob)
    await db.write(lambda tx: tx.run("UPDATE users SET erased_at = created_at WHERE user_id = $1", cid))
    for act in (
        lambda: room.conversations.create(ann, "direct", None, [cid], False),
        lambda: make_group(room, ann, bob, cid),
        lambda: room.conversations.add(ann, where, cid, "member"),
    ):
        with pytest.raises(NotFound):
            await act()
    assert len((await room.conversations.get(ann, where))[1]) == 2
