"""Whatever people do to a group, in whatever order and on whichever node: it is as a small model says."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.databases import open_sqlite
from secureconnect.chat import Chat, archive
from secureconnect.chat.permissions import ALLOWED, REMOVES, Action
from secureconnect.chat.store import MemberRole
from secureconnect.config import ChatConfig, MemoryConfig
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import Conflict, Forbidden, LastAdmin, MessageDeleted, NotFound, Problem
from secureconnect.identity import ConversationId, MessageId, UserId, new_id

from .rig import history, make_group, make_people, running, say

KINDS = (
    "say",
    "say",
    "say",
    "edit",
    "edit",
    "edit",
    "delete",
    "read",
    "add",
    "remove",
    "role",
    "title",
    "pin",
    "unpin",
    "dissolve",
)
ROLES: tuple[MemberRole, ...] = ("member", "admin", "owner")
MOST = 4
TARGETS = 3

steps = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.booleans(),  # on which of two nodes
        st.sampled_from((0, 0, 0, 1, 1, 2, 3)),  # who does it
        st.integers(0, 4),  # to whom
        st.integers(0, 30),  # which message or role, or how far
    ),
    min_size=30,
    max_size=60,
)
Step = tuple[str, bool, int, int, int]


@dataclass
class Said:
    """texts: what it said, one after the other; none: it is a notice, or deleted.  key: client_message_id."""

    sender: int
    texts: list[str]
    key: int | None = None
    is_notice: bool = False
    is_pinned: bool = False


@dataclass
class Seat:
    role: MemberRole
    visible_from: int
    read: int


@dataclass
class Model:
    """seats: by the number of the person, those longest there first.  said: from seq 1 on."""

    seats: dict[int, Seat] = field(default_factory=dict)
    said: list[Said] = field(default_factory=list)
    title: str = "a group"
    deleted_by: int | None = None

    def take(self, kind: str, me: int, other: int, number: int) -> None:
        """The same as the room does. Raises the same."""
        seat = self.seats.get(me)
        if kind == "dissolve" and self.deleted_by == me:
            return
        if kind == "say" and self.first(me, number) is not None:
            return
        if seat is None:
            raise NotFound
        match kind:
            case "say":
                self.said.append(Said(me, [f"said {number}"], number))
            case "edit" | "delete" | "pin" | "unpin":
                self._change(kind, me, seat, number)
            case "read":
                seat.read = max(seat.read, min(number, len(self.said)))
            case "title":
                self._require(seat, "describe")
                if self.title != str(number):
                    self.title = str(number)
                    self._notice(me)
            case "add":
                self._require(seat, "add")
                if other in self.seats:
                    return
                if len(self.seats) == MOST:
                    raise Conflict
                self.seats[other] = Seat("member", len(self.said) + 1, len(self.said))
                self._notice(me)
            case "remove":
                self._remove(me, seat, other)
            case "role":
                self._set_role(me, seat, other, ROLES[number % 3])
            case "dissolve":
                self._require(seat, "delete_conversation")
                self.seats.clear()
                self.deleted_by = me

    def _change(self, kind: str, me: int, seat: Seat, number: int) -> None:
        seq = self.seq_of(number)
        if seq is None or seq < seat.visible_from:
            raise NotFound
        message = self.said[seq - 1]
        if kind in ("pin", "unpin"):
            self._require(seat, "pin")
        elif message.sender != me:
            if kind == "edit":
                raise Forbidden
            self._require(seat, "delete_others")
        if message.is_notice:
            raise Forbidden
        if kind == "delete":
            message.texts, message.is_pinned = [], False
            return
        if not message.texts:
            raise MessageDeleted
        if kind == "edit":
            text = f"edited {number % 4}"
            message.texts += [text] if text != message.texts[-1] else []
        else:
            message.is_pinned = kind == "pin"

    def _remove(self, me: int, seat: Seat, other: int) -> None:
        target = self.seats.get(other)
        if me == other:
            if seat.role != "member" and len(self.seats) > 1 and self._count("owner", "admin") == 1:
                raise LastAdmin
        else:
            self._require(seat, "remove_member")
            if target is None:
                raise NotFound
            self._require(seat, REMOVES[target.role])
        gone = self.seats.pop(other)
        if gone.role == "owner" and self.seats and not self._count("owner"):
            heir = next(who for who, each in self.seats.items() if each.role == "admin")  # the oldest
            self.seats[heir].role = "owner"
        if self.seats:
            self._notice(me)
        else:
            self.deleted_by = me

    def _set_role(self, me: int, seat: Seat, other: int, role: MemberRole) -> None:
        self._require(seat, "add")
        target = self.seats.get(other)
        if target is None:
            raise NotFound
        if role == "owner":
            self._require(seat, "make_owner")
        elif me != other and ROLES.index(role) < ROLES.index(target.role):
            self._require(seat, REMOVES[target.role])
        if target.role == role:
            return
        if target.role == "owner" and self._count("owner") == 1:
            raise LastAdmin
        if role == "member" and self._count("owner", "admin") == 1:
            raise LastAdmin
        target.role = role

    def first(self, me: int, key: int) -> int | None:
        """The seq of what they have sent with this client_message_id."""
        return next(
            (seq for seq, said in enumerate(self.said, 1) if (said.sender, said.key) == (me, key)), None
        )

    def seq_of(self, number: int) -> int | None:
        """Of one of the first few, so that much happens to the same."""
        return number % min(len(self.said), TARGETS) + 1 if self.said else None

    @staticmethod
    def _require(seat: Seat, action: Action) -> None:
        if seat.role not in ALLOWED[action]:
            raise Forbidden

    def _count(self, *roles: MemberRole) -> int:
        return sum(each.role in roles for each in self.seats.values())

    def _notice(self, me: int) -> None:
        self.said.append(Said(me, [], is_notice=True))

    def unread(self, me: int) -> int:
        seat = self.seats[me]
        return sum(
            seq > max(seat.read, seat.visible_from - 1) and message.sender != me and message.texts != []
            for seq, message in enumerate(self.said, 1)
        )


@settings(max_examples=15, deadline=None)
@given(steps)
def test_a_group_is_as_the_model_says(taken: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_compare, Path(folder), taken)


async def _compare(folder: Path, taken: list[Step]) -> None:
    bus, config = MemoryBus(MemoryConfig()), ChatConfig(max_members=MOST)
    async with open_sqlite(folder) as db:
        people = await make_people(db, "ann", "bob", "cid", "dee", "eve")
        async with running(db, bus, config) as here, running(db, bus, config) as there:
            where = await make_group(here, *people[:3])
            await here.conversations.set_role(people[0], where, people[1], "admin")
            model = Model({0: Seat("owner", 1, 0), 1: Seat("admin", 1, 0), 2: Seat("member", 1, 0)})
            for kind, is_here, me, other, number in taken:
                if kind == "dissolve" and number > 1:  # or no group would live
                    continue
                stored = await db.read(archive.oldest_after, where, 0, TARGETS, db.now_us())
                about = stored[number % len(stored)].message_id if stored else MessageId(new_id())
                act = _act(here if is_here else there, where, kind, people[me], people[other], about, number)
                expected = got = None
                try:
                    model.take(kind, me, other, number)
                except Problem as problem:
                    expected = type(problem)
                try:
                    await act
                except Problem as problem:
                    got = type(problem)
                assert got is expected, f"{kind} by {me}: {got}, not {expected}"
            for room in (here, there):
                for number, user in enumerate(people):
                    await _same(room, where, number, user, model)


async def _act(
    room: Chat, where: ConversationId, kind: str, me: UserId, other: UserId, about: MessageId, number: int
) -> None:
    match kind:
        case "say":
            await say(room, me, where, f"said {number}", str(number))
        case "edit":
            await room.messages.edit(me, about, f"edited {number % 4}")
        case "delete":
            await room.messages.delete(me, about)
        case "pin" | "unpin":
            await room.pins.set(me, where, about, on=kind == "pin")
        case "read":
            await room.conversations.mark_read(me, where, number)
        case "title":
            await room.conversations.describe(me, where, {"title": str(number)})
        case "add":
            await room.conversations.add(me, where, other, "member")
        case "remove":
            await room.conversations.remove(me, where, other)
        case "role":
            await room.conversations.set_role(me, where, other, ROLES[number % 3])
        case "dissolve":
            await room.deletion.delete(me, where)


async def _same(room: Chat, where: ConversationId, number: int, user: UserId, model: Model) -> None:
    seat = model.seats.get(number)
    if seat is None:
        with pytest.raises(NotFound):
            await history(room, user, where)
        return
    stored = await history(room, user, where)
    mine = list(enumerate(model.said, 1))[seat.visible_from - 1 :]
    seen = [None if each.message_type == "system" else each.content for each in stored]
    assert seen == [None if said.is_notice else "".join(said.texts[-1:]) for _, said in mine]
    for message, (_, said) in zip(stored, mine, strict=True):
        assert (message.deleted_us is None) == bool(said.texts or said.is_notice)
        if len(said.texts) > 1:
            versions = await room.versions.page(user, message.message_id, 0, 100)
            assert [each.content for each in versions] == said.texts
    summary = await room.conversations.summary(user, where)
    assert (summary.seat.member.role, summary.seat.conversation.title) == (seat.role, model.title)
    assert (summary.seat.member.last_read_seq, summary.unread_count) == (seat.read, model.unread(number))
    pinned = {each.message.seq for each in await room.pins.list_of(user, where)}
    assert pinned == {seq for seq, said in mine if said.is_pinned}
