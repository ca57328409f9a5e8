"""Calls: who calls whom, who comes, who goes, and when it is over.

Each step is one unit that holds the call's row, so that of two who race one is second and sees what the first
did. What is told is made of what was committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from .. import audit
from ..clock import SECOND_US
from ..config import SignalingConfig
from ..deps.contracts import Database, Tx, UniqueViolation
from ..errors import (
    CallCapacity,
    CallElsewhere,
    CallEngaged,
    CallOver,
    CallUnderWay,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
)
from ..idempotency import Attempt, keep, recall
from ..identity import CallId, ConversationId, Principal, UserId, new_id
from . import store
from .bells import Bells, Then, no_bells, nothing_more
from .meters import ENDED, JOINED, STARTED
from .steps import Step, after
from .store import Called, CallType, Person, PersonState

Event = Literal["call_incoming", "call_answered", "call_declined", "call_missed", "call_ended"]
BATCH = 100  # calls in one look
MODERATORS = ("owner", "admin")


class Told(NamedTuple):
    """What people are to hear of a call.  to: whose devices.  then: what else is to be told then."""

    event: Event
    call: Called
    to: Sequence[UserId]
    then: Then = nothing_more


Tell = Callable[[Told], None]


def _untold(_: Told) -> None:
    """Nobody listens."""


class Outcome(NamedTuple):
    """How a call stands after a step, and what is told of it once that is committed."""

    call: Called
    told: Sequence[Told] = ()


class Calls:
    """tell: hears, after its commit, what people are to be told. Never waits.  bells: what wakes devices just
    now."""

    def __init__(self, config: SignalingConfig, db: Database) -> None:
        self._config = config
        self._db = db
        self.tell: Tell = _untold
        self.bells: Callable[[], Bells] = no_bells

    # seeing

    async def get(self, caller: UserId, call: CallId) -> Called:
        """Raises NotFound for what is not the caller's conversation's."""
        return await self._db.read(self._visible, caller, call)

    async def history(
        self, caller: UserId, conversation: ConversationId | None, before: str, limit: int
    ) -> list[Called]:
        """The newest first: calls the caller was called to or came to, or those of one conversation. Raises
        NotFound for strangers."""
        return await self._db.read(self._history, caller, conversation, before, limit)

    async def ringing(self, caller: UserId, before: str, limit: int) -> list[Called]:
        """Calls to which the caller is being called just now."""
        return await self._db.read(store.ringing, caller, before, limit)

    async def ever(self, user: UserId, before: str, limit: int) -> list[Called]:
        """All they were called to or came to, of conversations they have left, too."""
        return await self._db.read(store.ever, user, before, limit)

    async def _history(
        self, tx: Tx, caller: UserId, conversation: ConversationId | None, before: str, limit: int
    ) -> list[Called]:
        if conversation is None:
            return await store.history(tx, caller, before, limit)
        await _require_seat(tx, caller, conversation)
        return await store.history_of(tx, conversation, before, limit, caller)

    async def _visible(self, tx: Tx, caller: UserId, call_id: CallId) -> Called:
        return await _seen(tx, caller, call_id, await store.get(tx, call_id))

    async def _held(self, tx: Tx, caller: UserId, call_id: CallId) -> Called:
        """The same, held. Raises CallOver for one that is over."""
        call = await _seen(tx, caller, call_id, await store.lock(tx, call_id))
        if call.is_over:
            raise CallOver
        return call

    # calling

    async def initiate(
        self,
        caller: Principal,
        conversation: ConversationId,
        call_type: CallType,
        callees: Sequence[UserId] | None,
        attempt: Attempt | None,
    ) -> Called:
        """Call people of a conversation: all others if `callees` is None. The caller is in it at once.

        Raises NotFound, Forbidden where there is a block, Invalid for callees who are no members,
        CallCapacity, CallEngaged, CallUnderWay (its details tell which call to join).
        """
        try:
            outcome = await self._db.write(
                self._initiate_once, attempt, caller, conversation, call_type, callees
            )
        except UniqueViolation as exc:
            raise CallEngaged from exc
        if outcome.told:
            STARTED[call_type].inc()
        return self.done(outcome)

    async def _initiate_once(
        self,
        tx: Tx,
        attempt: Attempt | None,
        caller: Principal,
        conversation: ConversationId,
        call_type: CallType,
        callees: Sequence[UserId] | None,
    ) -> Outcome:
        """An earlier attempt's call is told to nobody again."""
        if attempt is None:
            return await self._initiate(tx, caller, conversation, call_type, callees)
        kept = await recall(tx, attempt, str, self._db.now_us())
        if kept is not None:
            return Outcome(await self._visible(tx, caller.user_id, kept.value))
        outcome = await self._initiate(tx, caller, conversation, call_type, callees)
        await keep(tx, attempt, outcome.call.call_id)
        return outcome

    async def _initiate(
        self,
        tx: Tx,
        caller: Principal,
        conversation: ConversationId,
        call_type: CallType,
        callees: Sequence[UserId] | None,
    ) -> Outcome:
        me = caller.user_id
        seat = await _require_seat(tx, me, conversation)
        if seat.is_apart:
            raise Forbidden("You cannot call here.", denial="denied:call", subject=conversation)
        called = await self._callees(tx, me, conversation, callees)
        if await store.engaged_in(tx, me):
            raise CallEngaged
        now_us = self._db.now_us()
        call_id = CallId(new_id())
        rung = [Person(user, "busy" if await store.engaged_in(tx, user) else "ringing") for user in called]
        people = sorted([Person(me, "joined", caller.device_id, now_us), *rung])
        new = Called(
            call_id,
            conversation,
            me,
            call_type,
            "ringing",
            "mesh",
            1,
            now_us,
            now_us + self._config.ring_s * SECOND_US,
            people=tuple(people),
        )
        if not await store.add(tx, new):
            other = await store.under_way(tx, conversation)
            raise CallUnderWay(details=None if other is None else {"call_id": other.call_id})
        await store.save_people(tx, call_id, people)
        await self._note(tx, "signaling:call:started", me, new)
        busy = [each.user_id for each in rung if each.state == "busy"]
        then = await self.bells().missed(tx, new, busy)
        if not new.ringing:
            new = await self._step(tx, new, "engage", None)
            return Outcome(new, [Told("call_missed", new, busy, then), Told("call_ended", new, [me])])
        await self.bells().ring(tx, new, new.ringing)
        return Outcome(new, [Told("call_incoming", new, new.ringing), Told("call_missed", new, busy, then)])

    async def _callees(
        self, tx: Tx, me: UserId, conversation: ConversationId, asked: Sequence[UserId] | None
    ) -> list[UserId]:
        """Who rings. Somebody with whom there is a block is not called, and nobody is told."""
        most = self._config.max_participants
        if asked is None:
            others = dict(await store.some_others(tx, conversation, me, most))
        else:
            others = {}
            for user in [each for each in dict.fromkeys(asked) if each != me][:most]:
                is_blocked = await store.is_blocked(tx, conversation, me, user)
                if is_blocked is None:
                    raise Invalid(
                        "Only other members of the conversation can be called.",
                        details={"field": "callee_ids"},
                    )
                others[user] = is_blocked
        if len(others) >= most:
            raise CallCapacity(f"call capacity limit reached (max {most} participants)")
        if not others:
            raise Invalid("There is nobody to call.", details={"field": "callee_ids"})
        return [user for user, is_blocked in others.items() if not is_blocked]

    async def join(self, caller: Principal, call_id: CallId) -> Called:
        """Answer, or come to a call of one's conversation. Joining again from the same device is the same.

        Raises CallElsewhere when another device of the caller's is in it, CallCapacity, CallOver, CallEngaged
        while the caller is in another call, Forbidden where two have parted since.
        """
        try:
            outcome = await self._db.write(self._join, caller, call_id)
        except UniqueViolation as exc:
            raise CallEngaged from exc
        if outcome.told:
            JOINED.inc()
        return self.done(outcome)

    async def _join(self, tx: Tx, caller: Principal, call_id: CallId) -> Outcome:
        call = await self._held(tx, caller.user_id, call_id)
        me, now_us = caller.user_id, self._db.now_us()
        mine = call.person(me)
        if mine is not None and mine.state == "joined":
            if mine.device_id != caller.device_id:
                raise CallElsewhere
            return Outcome(call)
        if (await _require_seat(tx, me, call.conversation_id)).is_apart:
            raise Forbidden("You cannot call here.", denial="denied:call", subject=call_id)
        if len(call.joined) >= self._config.max_participants:
            raise CallCapacity(f"call is at full capacity (max {self._config.max_participants} participants)")
        if await store.engaged_in(tx, me):
            raise CallEngaged
        call = await self._place(tx, call, Person(me, "joined", caller.device_id, now_us))
        if call.state == "ringing":
            call = await self._step(tx, call, "answer", me)
        await self._note(tx, "signaling:call:joined", me, call)
        return Outcome(call, [Told("call_answered", call, call.everybody)])

    async def decline(self, caller: UserId, call_id: CallId) -> Called:
        """Raises CallOver; Conflict for who is not called, or in it already. Declining again is the same."""
        return self.done(await self._db.relieve(self._decline, caller, call_id))

    async def _decline(self, tx: Tx, caller: UserId, call_id: CallId) -> Outcome:
        call = await self._held(tx, caller, call_id)
        mine = call.person(caller)
        if mine is not None and mine.state == "declined":
            return Outcome(call)
        if mine is None or mine.state != "ringing":
            raise Conflict("You are not being called.")
        return await self._refuse(tx, call, mine)

    async def _refuse(self, tx: Tx, call: Called, who: Person) -> Outcome:
        call = await self._place(tx, call, who._replace(state="declined"))
        if call.state != "ringing" or call.ringing:
            return Outcome(call, [Told("call_declined", call, call.everybody)])
        call = await self._step(tx, call, "refuse", None)
        return Outcome(
            call, [Told("call_declined", call, call.everybody), Told("call_ended", call, call.everybody)]
        )

    async def leave(self, caller: UserId, call_id: CallId) -> Called:
        """Leave; the last but one in a direct conversation, and the last anywhere, ends the call. So does a
        caller whom nobody has answered. Leaving what one is not in changes nothing."""
        return self.done(await self._db.relieve(self._leave, caller, call_id))

    async def _leave(self, tx: Tx, caller: UserId, call_id: CallId) -> Outcome:
        call = await _seen(tx, caller, call_id, await store.lock(tx, call_id))
        mine = call.person(caller)
        if call.is_over or mine is None or mine.state != "joined":
            return Outcome(call)
        return await self.part(tx, call, mine, "give_up")

    async def part(self, tx: Tx, call: Called, who: Person, unanswered: Step) -> Outcome:
        """Somebody is out of a call that the transaction holds.  unanswered: the step if nobody has come."""
        call = await self._place(tx, call, who._replace(state="left", left_us=self._db.now_us()))
        await store.drop_peer_of(tx, call.call_id, who.user_id)
        await self._note(tx, "signaling:call:left", who.user_id, call)
        if call.state == "ringing":
            return await self._give_up(tx, call, unanswered, who.user_id)
        is_direct = len(call.people) == 2
        if len(call.joined) > (1 if is_direct else 0):
            return Outcome(await self.settle(tx, call))
        return await self._end(tx, call, None)

    async def lose(self, tx: Tx, call: Called) -> Called:
        """Devices of a call that the transaction holds have lost their signaling with its node."""
        call = call._replace(epoch=call.epoch + 1)
        if call.state == "active":
            return await self._step(tx, call, "lose", None)
        await store.save(tx, call)
        return call

    async def settle(self, tx: Tx, call: Called) -> Called:
        """Nobody is waited for any more, if everybody who is in it is connected."""
        if call.state != "recovering":
            return call
        connected = {each.user_id for each in await store.peers(tx, call.call_id) if each.lost_us is None}
        return await self._step(tx, call, "regain", None) if connected >= set(call.joined) else call

    async def end(self, caller: Principal, call_id: CallId) -> Called:
        """End it for everybody: its caller, either of two, or a moderator of the group. Whoever of two is
        being called declines by that. Raises Forbidden for other members. Ending what is over changes
        nothing."""
        return self.done(await self._db.relieve(self._end_by, caller.user_id, call_id))

    async def _end_by(self, tx: Tx, caller: UserId, call_id: CallId) -> Outcome:
        call = await _seen(tx, caller, call_id, await store.lock(tx, call_id))
        seat = await _require_seat(tx, caller, call.conversation_id)
        if not (seat.is_direct or caller == call.caller_id or seat.role in MODERATORS):
            raise Forbidden(
                "Only its caller and the group's moderators may end a call for everybody.",
                denial="denied:call",
                subject=call_id,
            )
        if call.is_over:
            return Outcome(call)
        mine = call.person(caller)
        if seat.is_direct and mine is not None and mine.state == "ringing":
            return await self._refuse(tx, call, mine)
        if call.state == "ringing":
            return await self._give_up(tx, call, "give_up", caller)
        return await self._end(tx, call, caller)

    async def forget(self, user: UserId) -> None:
        """Somebody is erased: they are in no call any more, and none rings for them. That they were in some
        stays, as of somebody unknown. Safe to repeat."""
        for call_id in await self._db.read(store.in_or_rung, user):
            self._done_if_any(await self._db.relieve(self.withdraw, user, call_id))
        await self._db.relieve(store.forget_devices, user)

    async def withdraw(self, tx: Tx, user: UserId, call_id: CallId) -> Outcome | None:
        """Take somebody out of a call, whether they are in it or it rings for them. None: it is gone, or was
        never theirs. Safe to repeat."""
        call = await store.lock(tx, call_id)
        who = None if call is None else call.person(user)
        if call is None or who is None:
            return None
        if call.is_over:
            return Outcome(call)
        if who.state == "joined":
            return await self.part(tx, call, who, "give_up")
        if who.state != "ringing":
            return Outcome(call)
        if call.state == "ringing" and call.ringing == [user]:
            return await self._give_up(tx, call, "give_up", None)
        call = await self._place(tx, call, who._replace(state="missed"))
        return Outcome(call, [Told("call_missed", call, [user])])

    # what time brings

    async def ring_out(self) -> int:
        """Whoever has not answered in time has missed the call. Returns how many calls that touched. Safe to
        repeat, and on every node."""
        due = await self._db.read(store.rung_out, self._db.now_us(), BATCH)
        for call_id in due:
            self._done_if_any(await self._db.write(self._ring_out, call_id))
        return len(due)

    async def _ring_out(self, tx: Tx, call_id: CallId) -> Outcome | None:
        call = await store.lock(tx, call_id)
        if call is None:  # its conversation is deleted meanwhile
            return None
        if call.ring_until_us is None or call.ring_until_us > self._db.now_us():
            return Outcome(call)
        if call.state == "ringing":
            return await self._give_up(tx, call, "give_up", None)
        missed = call.ringing
        call, then = await self._missed(tx, call)
        await store.save(tx, call)
        return Outcome(call, [Told("call_missed", call, missed, then)])

    # the steps

    async def _give_up(self, tx: Tx, call: Called, step: Step, by: UserId | None) -> Outcome:
        """Nobody has answered, and nobody will."""
        missed, others = call.ringing, [each.user_id for each in call.people if each.state != "ringing"]
        call, then = await self._missed(tx, call)
        call = await self._step(tx, call, step, by)
        for user in missed:
            await self._note(tx, "signaling:call:missed", user, call)
        return Outcome(call, [Told("call_missed", call, missed, then), Told("call_ended", call, others)])

    async def _end(self, tx: Tx, call: Called, by: UserId | None) -> Outcome:
        missed = call.ringing
        call, then = await self._missed(tx, call)
        call = await self._step(tx, call, "end", by)
        others = [user for user in call.everybody if user not in missed]
        return Outcome(call, [Told("call_missed", call, missed, then), Told("call_ended", call, others)])

    async def _missed(self, tx: Tx, call: Called) -> tuple[Called, Then]:
        """It rings for nobody any more."""
        then = await self.bells().missed(tx, call, call.ringing)
        call = await self._turn(tx, call, "ringing", "missed")
        return call._replace(ring_until_us=None), then

    async def _turn(self, tx: Tx, call: Called, old: PersonState, new: PersonState) -> Called:
        """Whoever is `old` is `new`."""
        left_us = self._db.now_us() if new == "left" else None
        turned = [each._replace(state=new, left_us=left_us) for each in call.people if each.state == old]
        await store.save_people(tx, call.call_id, turned)
        others = [each for each in call.people if each.state != old]
        return call._replace(people=tuple(sorted([*others, *turned])))

    async def _place(self, tx: Tx, call: Called, person: Person) -> Called:
        if person.user_id in call.ringing:
            answered_on = person.device_id if person.state == "joined" else None
            await self.bells().hush(tx, call, [person.user_id], answered_on)
        await store.save_people(tx, call.call_id, [person])
        others = [each for each in call.people if each.user_id != person.user_id]
        call = call._replace(people=tuple(sorted([*others, person])))
        if call.ring_until_us is not None and not call.ringing:
            call = call._replace(ring_until_us=None)
            await store.save(tx, call)
        return call

    async def _step(self, tx: Tx, call: Called, step: Step, by: UserId | None) -> Called:
        state = after(call.state, step)
        if state is None:
            raise Conflict(f"The call is {call.state}.")
        now_us = self._db.now_us()
        call = call._replace(state=state)
        if step == "answer":
            call = call._replace(answered_us=now_us)
        elif state not in ("active", "recovering"):
            await store.drop_peers(tx, call.call_id)
            call = await self._turn(tx, call, "joined", "left")
            call = call._replace(ended_us=now_us, ended_by=by, ring_until_us=None)
            await self._note(tx, "signaling:call:ended", by, call)
        await store.save(tx, call)
        return call

    async def _note(self, tx: Tx, action: str, who: UserId | None, call: Called) -> None:
        facts: dict[str, str | int | bool | None] = {"conversation_id": call.conversation_id}
        if action == "signaling:call:ended":
            facts |= {"state": call.state, "duration_s": call.duration_s}
        await audit.record(
            tx,
            action=action,
            actor=who,
            subject=call.call_id,
            facts=facts,
            now_us=self._db.now_us(),
        )

    def _done_if_any(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            self.done(outcome)

    def done(self, outcome: Outcome) -> Called:
        """After its commit: tell."""
        for told in outcome.told:
            if told.to:
                self.tell(told)
            told.then()
        if outcome.call.is_over and outcome.told:
            ENDED[outcome.call.state].inc()
        return outcome.call


async def _require_seat(tx: Tx, caller: UserId, conversation: ConversationId) -> store.Seat:
    seat = await store.seat(tx, conversation, caller)
    if seat is None:
        raise NotFound(denial="denied:conversation", subject=conversation)
    return seat


async def _seen(tx: Tx, caller: UserId, call_id: CallId, call: Called | None) -> Called:
    """Raises NotFound unless the caller is in its conversation, and sees what was there before they came."""
    seat = None if call is None else await store.seat(tx, call.conversation_id, caller)
    if (
        call is None
        or seat is None
        or not (seat.sees_past or (call.ended_us or seat.joined_us) >= seat.joined_us)
    ):
        raise NotFound(denial="denied:call", subject=call_id)
    return call
