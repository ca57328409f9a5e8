"""Who may do what: the table, its documentation, and that groups keep somebody who looks after them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import get_args

import pytest
import trio

from secureconnect.chat import Chat
from secureconnect.chat.permissions import ALLOWED, Action, Standing
from secureconnect.chat.polls.polls import Question
from secureconnect.chat.store import MemberRole
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import Forbidden, LastAdmin, NotFound
from secureconnect.identity import ConversationId, MessageId, UserId

from .rig import make_group, running, say

PAGE = Path(__file__).parents[2] / "docs" / "conversations.md"
ROLES: tuple[MemberRole, ...] = ("owner", "admin", "member")


def test_the_documentation_shows_the_table() -> None:
    assert list(ALLOWED) == list(get_args(Action))
    shown = re.findall(
        r"^\| `(\w+)` \| [^|]+((?:\| (?:yes|no) ){4})\|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    told = {
        action: {
            who
            for who, word in zip(get_args(Standing), re.findall("yes|no", words), strict=True)
            if word == "yes"
        }
        for action, words in shown
    }
    assert told == ALLOWED


class Group:
    """Of an owner, an admin and a member, with somebody of each role to do it to."""

    def __init__(self, room: Chat, where: ConversationId, who: dict[str, UserId], said: MessageId) -> None:
        self.room = room
        self.where = where
        self.who = who
        self.said = said  # by the member to whom it is done


Act = Callable[[Group, UserId], Awaitable[object]]


async def _end_a_poll(at: Group, me: UserId) -> None:
    asked = Question("Well?", ["yes", "no"], "single", True, None)
    await at.room.polls.delete(me, await at.room.polls.create(at.who["target"], at.where, asked))


ACTS: dict[Action, Act] = {
    "describe": lambda at, me: at.room.conversations.describe(me, at.where, {"title": "new"}),
    "configure": lambda at, me: at.room.conversations.configure(me, at.where, {"disappear_after_s": 60}),
    "pin": lambda at, me: at.room.pins.set(me, at.where, at.said, on=True),
    "delete_others": lambda at, me: at.room.messages.delete(me, at.said),
    "end_polls": _end_a_poll,
    "add": lambda at, me: at.room.conversations.set_role(me, at.where, at.who["target"], "admin"),
    "remove_member": lambda at, me: at.room.conversations.remove(me, at.where, at.who["target"]),
    "remove_admin": lambda at, me: at.room.conversations.set_role(me, at.where, at.who["admin2"], "member"),
    "remove_owner": lambda at, me: at.room.conversations.remove(me, at.where, at.who["owner2"]),
    "make_owner": lambda at, me: at.room.conversations.set_role(me, at.where, at.who["target"], "owner"),
    "delete_conversation": lambda at, me: at.room.deletion.delete(me, at.where),
}


async def make(room: Chat, people: list[UserId], caller: MemberRole, action: Action) -> tuple[Group, UserId]:
    ann, bob, cid, dee = people
    where = await make_group(room, ann, bob, cid, dee)
    me = ann if caller == "owner" else bob
    await room.conversations.set_role(ann, where, cid, "admin")
    if action == "remove_owner":
        await room.conversations.set_role(ann, where, dee, "owner")
    if caller == "admin":
        await room.conversations.set_role(ann, where, bob, "admin")
    said = (await say(room, dee, where, "hello")).message.message_id
    return Group(room, where, {"target": dee, "admin2": cid, "owner2": dee}, said), me


@pytest.mark.parametrize("action", ALLOWED)
async def test_each_role_does_what_the_table_says(room: Chat, people: list[UserId], action: Action) -> None:
    for caller in ROLES:
        at, me = await make(room, people, caller, action)
        if caller in ALLOWED[action]:
            await ACTS[action](at, me)
        else:
            with pytest.raises(Forbidden) as refused:
                await ACTS[action](at, me)
            assert refused.value.denial == "denied:forbidden"


async def role_of(room: Chat, where: ConversationId, user: UserId) -> MemberRole:
    return (await room.conversations.summary(user, where)).seat.member.role


async def test_ownership_is_passed_on(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob, cid)
    for less in ("admin", "member"):
        with pytest.raises(LastAdmin):
            await room.conversations.set_role(ann, where, ann, less)
    await room.conversations.set_role(ann, where, bob, "owner")
    await room.conversations.set_role(ann, where, ann, "member")
    with pytest.raises(Forbidden):
        await room.conversations.set_role(ann, where, ann, "owner")
    assert (await role_of(room, where, ann), await role_of(room, where, bob)) == ("member", "owner")


async def test_a_group_always_has_an_owner(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob, cid)
    await room.conversations.set_role(ann, where, cid, "admin")
    await room.conversations.remove(ann, where, ann)
    assert (await role_of(room, where, cid), await role_of(room, where, bob)) == ("owner", "member")
    with pytest.raises(LastAdmin):
        await room.conversations.remove(cid, where, cid)
    await room.conversations.remove(cid, where, bob)
    await room.conversations.remove(cid, where, cid)
    with pytest.raises(NotFound):
        await room.conversations.summary(cid, where)


async def leave(room: Chat, where: ConversationId, user: UserId) -> None:
    await room.conversations.remove(user, where, user)


async def step_down(room: Chat, where: ConversationId, user: UserId) -> None:
    await room.conversations.set_role(user, where, user, "member")


@pytest.mark.parametrize(("role", "go"), [("admin", leave), ("owner", step_down)])
async def test_of_the_last_two_who_go_at_the_same_time_one_must_stay(
    db: Database, bus: MemoryBus, people: list[UserId], role: MemberRole, go: Callable[..., Awaitable[None]]
) -> None:
    ann, bob, cid, _ = people
    refused: dict[ConversationId, UserId] = {}

    async def attempt(room: Chat, where: ConversationId, user: UserId) -> None:
        try:
            await go(room, where, user)
        except LastAdmin:
            assert refused.setdefault(where, user) is user, "one went"

    async with running(db, bus) as here, running(db, bus) as there:
        for _ in range(5):
            where = await make_group(here, ann, bob, cid)
            await here.conversations.set_role(ann, where, bob, role)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(attempt, here, where, ann)
                nursery.start_soon(attempt, there, where, bob)
            assert await role_of(here, where, refused[where]) == "owner"
