"""Rules for conversations and their members: who may make, see, change, join and leave them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from .. import audit
from ..config import ChatConfig
from ..deps.contracts import Database, Tx
from ..errors import Conflict, Forbidden, Invalid, LastAdmin, NotFound
from ..idempotency import Attempt
from ..identity import ConversationId, UserId, new_id
from . import changes, notices, permissions, store
from .changes import Event, Kind
from .deletion import store as deletion
from .deletion.store import Deleted
from .notifications import store as notifications
from .permissions import REMOVES, Action
from .reactions import store as reactions
from .store import (
    Conversation,
    ConversationType,
    Member,
    MemberRole,
    Participant,
    Person,
    Seat,
    Summary,
)
from .writer import Done, ReadMark, Writer

FORGET_PAGE = 100
MembersLeft = Callable[[Tx, ConversationId, Sequence[UserId], int], Awaitable[None]]
"""In the unit in which they leave; the last is the time, microseconds UTC."""


def not_found(conversation: str) -> NotFound:
    """What strangers are told, whether it exists or not."""
    return NotFound(denial="denied:conversation", subject=conversation)


async def unmissed(_: Tx, __: ConversationId, ___: Sequence[UserId], ____: int) -> None:
    """Nothing outside this room hangs on it."""


async def require_seat(tx: Tx, conversation: ConversationId, user: UserId) -> Seat:
    seat = await store.seat(tx, conversation, user)
    if seat is None:
        raise not_found(conversation)
    return seat


async def require_summary(tx: Tx, conversation: ConversationId, user: UserId, now_us: int) -> Summary:
    summary = await store.summary(tx, conversation, user, now_us)
    if summary is None:
        raise not_found(conversation)
    return summary


async def dissolve(tx: Tx, conversation: ConversationId, actor: UserId, now_us: int) -> Event:
    """Put everybody out, for good. The conversation is locked."""
    change = await changes.number(tx, conversation, now_us)
    await deletion.begin(tx, Deleted(conversation, change, actor, now_us))
    event = Event("conversation_deleted", conversation, change, now_us)
    await changes.record(tx, event, actor)
    return event


_RANKS: dict[MemberRole, int] = {"member": 0, "admin": 1, "owner": 2}


def _inherits(heir: MemberRole, goes: MemberRole) -> bool:
    """Whether the next in rank takes the place of who goes: no owner, or nobody at all, would be left."""
    return heir == "member" if goes == "admin" else goes == "owner" and heir != "owner"


class Conversations:
    def __init__(self, config: ChatConfig, db: Database, writer: Writer) -> None:
        self._config = config
        self._db = db
        self._writer = writer
        self.members_left: MembersLeft = unmissed

    # making

    async def create(
        self,
        caller: UserId,
        kind: ConversationType,
        title: str | None,
        participants: Sequence[UserId],
        is_e2ee_enabled: bool,
        attempt: Attempt | None = None,
    ) -> tuple[ConversationId, bool]:
        """The conversation, and whether it is new: two people have one direct conversation."""
        others = [user for user in dict.fromkeys(participants) if user != caller]
        if kind == "direct" and len(others) != 1:
            raise Invalid("Name the one other person.", details={"field": "participant_ids"})
        if len(others) >= self._config.max_members:
            raise Invalid(
                f"A group has at most {self._config.max_members} members.",
                details={"field": "participant_ids"},
            )
        conversation = ConversationId(new_id())
        return await self._writer.change_once(
            attempt,
            tuple[ConversationId, bool],
            self._create,
            caller,
            conversation,
            kind,
            title,
            others,
            is_e2ee_enabled,
        )

    async def _create(
        self,
        tx: Tx,
        caller: UserId,
        conversation: ConversationId,
        kind: ConversationType,
        title: str | None,
        others: Sequence[UserId],
        is_e2ee_enabled: bool,
    ) -> Done[tuple[ConversationId, bool]]:
        for user in others:
            await self._require_open(tx, caller, user, "participant_ids")
        direct_key = ":".join(sorted((caller, *others))) if kind == "direct" else None
        now_us = self._db.now_us()
        new = Conversation(
            conversation_id=conversation,
            type=kind,
            title=title,
            avatar_url=None,
            created_by=caller,
            created_us=now_us,
            updated_us=now_us,
            last_seq=0,
            last_change=1,
            touched_us=now_us,
            first_seq=1,
            min_change=0,
            is_e2ee_enabled=is_e2ee_enabled,
            recording_enabled=False,
            message_retention_days=0,
            history_visible=False,
        )
        if not await store.create(tx, new, direct_key):
            first = await store.by_direct_key(tx, direct_key or "")
            assert first is not None
            return Done((first.conversation_id, False))
        founder = Member(caller, "owner" if kind == "group" else "member", now_us, 0, 0)
        members = [founder, *(Member(user, "member", now_us, 0, 0) for user in others)]
        await store.join(tx, conversation, members)
        event = Event("conversation_updated", conversation, new.last_change, now_us, conversation=new)
        await changes.record(tx, event, caller)
        await audit.record(
            tx,
            action="chat:conversation:created",
            actor=caller,
            subject=conversation,
            facts={"type": kind, "members": len(members)},
            now_us=now_us,
        )
        return Done((conversation, True), [event])

    # seeing

    async def get(self, caller: UserId, conversation: ConversationId) -> tuple[Summary, list[Participant]]:
        return await self._db.read(self._get, caller, conversation)

    async def _get(
        self, tx: Tx, caller: UserId, conversation: ConversationId
    ) -> tuple[Summary, list[Participant]]:
        summary = await require_summary(tx, conversation, caller, self._db.now_us())
        if summary.last_message is not None:
            [last] = await reactions.with_reactions(tx, [summary.last_message], caller)
            summary = summary._replace(last_message=last)
        return summary, await store.participants(tx, conversation, caller)

    async def summary(self, caller: UserId, conversation: ConversationId) -> Summary:
        return await self._db.read(require_summary, conversation, caller, self._db.now_us())

    async def participants(
        self, caller: UserId, conversation: ConversationId, after: str, limit: int
    ) -> list[Participant]:
        return await self._db.read(self._participants, caller, conversation, after, limit)

    async def _participants(
        self, tx: Tx, caller: UserId, conversation: ConversationId, after: str, limit: int
    ) -> list[Participant]:
        await require_seat(tx, conversation, caller)
        return await store.participants(tx, conversation, caller, after, limit)

    # changing

    async def describe(
        self, caller: UserId, conversation: ConversationId, changes: dict[str, str | None]
    ) -> None:
        """changes: title, avatar_url."""
        await self._writer.change(self._update, caller, conversation, "describe", changes)

    async def configure(
        self, caller: UserId, conversation: ConversationId, changes: dict[str, bool | int]
    ) -> None:
        """changes: any of the settings. Encryption is never switched off; 0 days of retention are no term."""
        await self._writer.change(self._update, caller, conversation, "configure", changes)

    async def _update(
        self,
        tx: Tx,
        caller: UserId,
        conversation: ConversationId,
        action: Action,
        wanted: dict[str, str | None] | dict[str, bool | int],
    ) -> Done[None]:
        await store.lock(tx, conversation)
        seat = await require_seat(tx, conversation, caller)
        permissions.require(seat, action)
        if await store.is_parted(tx, conversation, caller):  # a title is a way to say something, too
            raise Forbidden(denial="denied:forbidden", subject=conversation)
        old = seat.conversation
        new = old._replace(**wanted)
        if old.is_e2ee_enabled and not new.is_e2ee_enabled:
            raise Conflict("Encryption cannot be switched off again.")
        if new == old:
            return Done(None)
        now_us = self._db.now_us()
        change = await changes.number(tx, conversation, now_us)
        new = new._replace(updated_us=now_us, last_change=change, touched_us=now_us)
        await store.describe(tx, new)
        event = Event("conversation_updated", conversation, change, now_us, conversation=new)
        await changes.record(tx, event, caller)
        if action == "configure":
            facts = {name: value for name, value in wanted.items() if value != getattr(old, name)}
            await self._note(tx, "chat:conversation:configured", caller, conversation, now_us, **facts)
        return Done(None, [event, *await notices.give_all(tx, caller, old, new)])

    # members

    async def add(
        self,
        caller: UserId,
        conversation: ConversationId,
        user: UserId,
        role: MemberRole,
        attempt: Attempt | None = None,
    ) -> tuple[Participant, bool]:
        """The participant, and whether they are new."""
        return await self._writer.change_once(
            attempt, tuple[Participant, bool], self._add, caller, conversation, user, role
        )

    async def _add(
        self, tx: Tx, caller: UserId, conversation: ConversationId, user: UserId, role: MemberRole
    ) -> Done[tuple[Participant, bool]]:
        await store.lock(tx, conversation)
        seat = await require_seat(tx, conversation, caller)
        group = self._require_group(seat, "add")
        if role == "owner":
            permissions.require(seat, "make_owner")
        if already := await store.participant(tx, conversation, caller, user):
            return Done((already, False))
        await self._require_open(tx, caller, user, "user_id")
        if (await store.count_members(tx, conversation)).members >= self._config.max_members:
            raise Conflict(f"A group has at most {self._config.max_members} members.")
        now_us = self._db.now_us()
        member = Member(user, role, now_us, 0, group.last_seq)
        if not group.history_visible:
            member = member._replace(
                visible_from_seq=group.last_seq + 1, visible_from_change=group.last_change + 1
            )
        await store.join(tx, conversation, [member])
        joined = await self._participant(tx, conversation, caller, user)
        event = await self._happened(tx, "user_joined", conversation, caller, joined.person, member, now_us)
        notice = await notices.give(tx, conversation, caller, "member_added", now_us, user_id=user)
        await self._note(tx, "chat:member:added", caller, conversation, now_us, user_id=user)
        return Done((joined, True), [event, notice])

    async def remove(self, caller: UserId, conversation: ConversationId, user: UserId) -> None:
        """Remove a member, or leave. Raises LastAdmin when nobody else could look after the others."""
        await self._writer.change(self._remove, caller, conversation, user)

    async def _remove(self, tx: Tx, caller: UserId, conversation: ConversationId, user: UserId) -> Done[None]:
        await store.lock(tx, conversation)
        seat = await require_seat(tx, conversation, caller)
        if user == caller:
            self._require_several(seat)
            counts = await store.count_members(tx, conversation)
            if seat.member.role != "member" and counts.moderators == 1 and counts.members > 1:
                raise LastAdmin
            return Done(None, await self._leave(tx, conversation, caller, seat.member))
        self._require_group(seat, "remove_member")
        target = (await self._participant(tx, conversation, caller, user)).member
        permissions.require(seat, REMOVES[target.role])
        return Done(None, await self._leave(tx, conversation, caller, target))

    async def note_call(
        self, conversation: ConversationId, caller: UserId, facts: Mapping[str, str | int]
    ) -> None:
        """Tell of a call that is over among the messages, once however often it is asked.  facts: the call_id
        among them."""
        await self._writer.change(self._note_call, conversation, caller, facts)

    async def _note_call(
        self, tx: Tx, conversation: ConversationId, caller: UserId, facts: Mapping[str, str | int]
    ) -> Done[None]:
        await store.lock(tx, conversation)
        name = f"call/{facts['call_id']}"  # which no client can give to a message of its own
        if (
            await store.get(tx, conversation) is None
            or await deletion.get(tx, conversation) is not None
            or await store.is_sent(tx, caller, name)
        ):
            return Done(None)
        now_us = self._db.now_us()
        return Done(None, [await notices.give(tx, conversation, caller, "call", now_us, name, **facts)])

    async def _leave(
        self, tx: Tx, conversation: ConversationId, caller: UserId, member: Member
    ) -> list[Event]:
        """Take somebody out. What only they could look after is handed on; what nobody is in is deleted."""
        user, now_us = member.user_id, self._db.now_us()
        events = []
        heir = await store.heir(tx, conversation, user)
        if heir is not None and _inherits(heir.member.role, member.role):
            await store.set_role(tx, conversation, heir.person.user_id, "owner")
            owner = heir.member._replace(role="owner")
            events.append(
                await self._happened(tx, "member_updated", conversation, caller, heir.person, owner, now_us)
            )
        person = await store.person(tx, user) or Person(user, "", "", None)
        await store.leave(tx, conversation, user)
        await self.members_left(tx, conversation, [user], now_us)
        left = await self._happened(tx, "user_left", conversation, caller, person, None, now_us)
        events.append(left)
        if (await store.count_members(tx, conversation)).members:
            what: notices.What = "member_left" if user == caller else "member_removed"
            events.append(await notices.give(tx, conversation, caller, what, now_us, user_id=user))
        else:
            await deletion.begin(tx, Deleted(conversation, left.change, caller, now_us))
        action = "chat:member:left" if user == caller else "chat:member:removed"
        await self._note(tx, action, caller, conversation, now_us, user_id=user)
        return events

    async def set_role(
        self, caller: UserId, conversation: ConversationId, user: UserId, role: MemberRole
    ) -> Participant:
        """Raises LastAdmin when that would leave a group without an owner."""
        return await self._writer.change(self._set_role, caller, conversation, user, role)

    async def _set_role(
        self, tx: Tx, caller: UserId, conversation: ConversationId, user: UserId, role: MemberRole
    ) -> Done[Participant]:
        await store.lock(tx, conversation)
        seat = await require_seat(tx, conversation, caller)
        self._require_group(seat, "add")
        before = await self._participant(tx, conversation, caller, user)
        target = before.member
        if role == "owner":
            permissions.require(seat, "make_owner")
        elif user != caller and _RANKS[role] < _RANKS[target.role]:
            permissions.require(seat, REMOVES[target.role])
        if target.role == role:
            return Done(before)
        counts = await store.count_members(tx, conversation)
        if target.role == "owner" and counts.owners == 1:
            raise LastAdmin("Make another member owner first.")
        if role == "member" and counts.moderators == 1:
            raise LastAdmin
        now_us = self._db.now_us()
        await store.set_role(tx, conversation, user, role)
        changed = before._replace(member=before.member._replace(role=role))
        action = "chat:member:role_changed"
        await self._note(tx, action, caller, conversation, now_us, user_id=user, role=role)
        event = await self._happened(
            tx, "member_updated", conversation, caller, changed.person, changed.member, now_us
        )
        return Done(changed, [event])

    # reading

    async def mark_read(self, caller: UserId, conversation: ConversationId, seq: int) -> None:
        """The caller has read up to `seq`; what was read stays read."""
        await self._writer.change(self._mark_read, caller, conversation, seq)

    async def _mark_read(self, tx: Tx, caller: UserId, conversation: ConversationId, seq: int) -> Done[None]:
        seat = await require_seat(tx, conversation, caller)
        read = min(seq, seat.conversation.last_seq)
        moved = await store.mark_read(tx, conversation, caller, read)
        if not moved:
            return Done(None)
        await notifications.read_up_to(tx, conversation, caller, read, self._db.now_us())
        is_private = not await store.sends_receipts(tx, conversation, caller)
        return Done(None, marks=[ReadMark(conversation, caller, read, is_private)])

    # going for good

    async def forget(self, user: UserId) -> None:
        """Take somebody who is erased out of every group. Direct conversations keep both their people, or the
        other would lose what was said; when both are erased they are deleted. Safe to repeat."""
        while groups := await self._db.read(store.groups_of, user, FORGET_PAGE):
            for group in groups:
                await self._writer.relieve(self._forget, user, group)
        while deserted := await self._db.read(store.deserted, user, FORGET_PAGE):
            for conversation in deserted:
                await self._writer.relieve(self._dissolve, user, conversation)

    async def _forget(self, tx: Tx, user: UserId, conversation: ConversationId) -> Done[None]:
        await store.lock(tx, conversation)
        seat = await store.seat(tx, conversation, user)
        if seat is None:
            return Done(None)
        return Done(None, await self._leave(tx, conversation, user, seat.member))

    async def _dissolve(self, tx: Tx, user: UserId, conversation: ConversationId) -> Done[None]:
        """Nobody can come back to it."""
        await store.lock(tx, conversation)
        if await store.seat(tx, conversation, user) is None:  # another node was faster
            return Done(None)
        return Done(None, [await dissolve(tx, conversation, user, self._db.now_us())])

    # what they share

    @staticmethod
    async def _require_open(tx: Tx, caller: UserId, user: UserId, field: str) -> None:
        """Whom the caller may bring into a conversation. Raises NotFound, and Forbidden where either has
        blocked the other.  field: of the request that names them."""
        is_apart = await store.are_apart(tx, caller, user)
        if is_apart is None:
            raise NotFound("There is no such user.", details={"field": field})
        if is_apart:
            raise Forbidden(denial="denied:forbidden", subject=user)

    @staticmethod
    def _require_several(seat: Seat) -> None:
        """Raises Conflict in a direct conversation."""
        if seat.conversation.type == "direct":
            raise Conflict("A direct conversation is between two people.")

    @classmethod
    def _require_group(cls, seat: Seat, action: Action) -> Conversation:
        """A group in which the caller may do that."""
        cls._require_several(seat)
        permissions.require(seat, action)
        return seat.conversation

    @staticmethod
    async def _participant(tx: Tx, conversation: ConversationId, caller: UserId, user: UserId) -> Participant:
        """As the caller sees them. Raises NotFound."""
        found = await store.participant(tx, conversation, caller, user)
        if found is None:
            raise NotFound("There is no such member.")
        return found

    @staticmethod
    async def _happened(
        tx: Tx,
        kind: Kind,
        conversation: ConversationId,
        caller: UserId,
        person: Person,
        member: Member | None,
        now_us: int,
    ) -> Event:
        event = Event(
            kind,
            conversation,
            await changes.number(tx, conversation, now_us),
            now_us,
            user=person,
            role=member.role if member else None,
            visible_from_seq=member.visible_from_seq if member else None,
        )
        await changes.record(tx, event, caller)
        return event

    @staticmethod
    async def _note(
        tx: Tx,
        action: str,
        caller: UserId,
        conversation: ConversationId,
        now_us: int,
        **facts: str | int | None,
    ) -> None:
        await audit.record(tx, action=action, actor=caller, subject=conversation, facts=facts, now_us=now_us)
