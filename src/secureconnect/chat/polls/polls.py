"""The rules of polls: who may ask, vote, close and delete."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import structlog
import trio

from ... import audit
from ...clock import SECOND_US
from ...config import ChatConfig
from ...deps.contracts import Database, Tx
from ...errors import (
    AlreadyVoted,
    Conflict,
    E2eeRequired,
    Invalid,
    NotFound,
    OutcomeUnknown,
    PollClosed,
    Problem,
    Unavailable,
)
from ...idempotency import Attempt
from ...identity import ConversationId, PollId, UserId, new_id
from ...periodic import every
from .. import changes, permissions
from .. import store as conversations
from ..changes import Event, Kind
from ..conversations import not_found, require_seat
from ..messages import require_unblocked
from ..store import Seat
from ..writer import Done, Writer
from . import store
from .store import Option, Poll, PollType

log = structlog.get_logger(module="chat")

TOGETHER = 200  # votes counted at the same time
ALWAYS = 0  # before any poll disappears
DUE = 100  # closed or deleted before the next look


class Question(NamedTuple):
    """What is asked.  expires_us: when it closes by itself."""

    question: str
    options: Sequence[str]
    poll_type: PollType
    allow_vote_change: bool
    expires_us: int | None


class Seen(NamedTuple):
    """A poll as one person sees it."""

    poll: Poll
    mine: frozenset[str]


class Ballot:
    """One person's vote on its way."""

    __slots__ = ("_answer", "caller", "counted", "options")

    def __init__(self, caller: UserId, options: frozenset[str]) -> None:
        self.caller = caller
        self.options = options
        self.counted = trio.Event()
        self._answer: Seen | Exception = OutcomeUnknown()

    def settle(self, answer: Seen | Exception) -> None:
        """The first time, or it changes nothing."""
        if not self.counted.is_set():
            self._answer = answer
            self.counted.set()

    def outcome(self) -> Seen:
        """Once it is counted. Raises what refused it."""
        if isinstance(self._answer, Seen):
            return self._answer
        raise self._answer


class Polls:
    def __init__(self, config: ChatConfig, db: Database, writer: Writer) -> None:
        self._config = config
        self._db = db
        self._writer = writer
        self._inlet, self._outlet = trio.open_memory_channel[tuple[PollId, Ballot]](config.votes_waiting)

    # asking

    async def create(
        self, caller: UserId, conversation: ConversationId, asked: Question, attempt: Attempt | None = None
    ) -> PollId:
        """Raises NotFound, Invalid; Forbidden between two of whom one has blocked the other; E2eeRequired;
        Conflict when as many are open as may be."""
        if asked.expires_us is not None and asked.expires_us <= self._db.now_us():
            raise Invalid("A poll ends in the future.", details={"field": "expires_at"})
        if len(set(asked.options)) < len(asked.options):
            raise Invalid("Two options are the same.", details={"field": "options"})
        poll = PollId(new_id())
        options = tuple(Option(new_id(), text, 0) for text in asked.options)
        return await self._writer.change_once(
            attempt, PollId, self._create, caller, conversation, poll, asked, options
        )

    async def _create(
        self,
        tx: Tx,
        caller: UserId,
        conversation: ConversationId,
        poll_id: PollId,
        asked: Question,
        options: tuple[Option, ...],
    ) -> Done[PollId]:
        await conversations.lock(tx, conversation)
        seat = await require_seat(tx, conversation, caller)
        if seat.conversation.is_e2ee_enabled:
            raise E2eeRequired
        await require_unblocked(tx, seat)
        now_us = self._db.now_us()
        if await store.count_open(tx, conversation, now_us) >= self._config.max_open_polls:
            raise Conflict(f"At most {self._config.max_open_polls} polls are open in a conversation.")
        after_s = seat.conversation.disappear_after_s
        poll = Poll(
            poll_id,
            conversation,
            seat.conversation.last_seq + 1,
            await changes.number(tx, conversation, now_us),
            asked.question,
            asked.poll_type,
            asked.allow_vote_change,
            0,
            caller,
            now_us,
            asked.expires_us,
            None,
            now_us + after_s * SECOND_US if after_s else None,
            options,
        )
        await store.add(tx, poll)
        return Done(poll_id, [await _happened(tx, "poll_created", poll, caller, now_us)])

    # seeing

    async def get(self, caller: UserId, poll: PollId) -> Seen:
        return await self._db.read(self._get, caller, poll)

    async def _get(self, tx: Tx, caller: UserId, poll: PollId) -> Seen:
        _, found = await self._require_visible(tx, caller, poll)
        return Seen(found, await store.votes_of(tx, poll, caller))

    async def page(
        self,
        caller: UserId,
        conversation: ConversationId,
        before: PollId,
        limit: int,
        *,
        only_active: bool,
    ) -> list[Seen]:
        """The newest first."""
        return await self._db.read(self._page, caller, conversation, before, limit, only_active)

    async def _page(
        self,
        tx: Tx,
        caller: UserId,
        conversation: ConversationId,
        before: PollId,
        limit: int,
        only_active: bool,
    ) -> list[Seen]:
        seat = await require_seat(tx, conversation, caller)
        seen_from, now_us = seat.member.visible_from_seq, self._db.now_us()
        found = await store.list_of(
            tx, conversation, seen_from, before, limit, now_us, only_active=only_active
        )
        votes = await store.votes_among(tx, found, caller)
        return [Seen(poll, votes.get(poll.poll_id, frozenset())) for poll in found]

    # voting

    async def vote(self, caller: UserId, poll: PollId, options: Sequence[str]) -> Seen:
        """These, in place of what the caller voted before; none takes a vote back. The same again changes
        nothing. Cancelled or not, it counts. Raises NotFound, Invalid, PollClosed, AlreadyVoted, Forbidden,
        Unavailable."""
        ballot = Ballot(caller, frozenset(options))
        try:
            self._inlet.send_nowait((poll, ballot))
        except trio.WouldBlock:
            raise Unavailable("Too many votes are waiting to be counted.", retry_after_s=1) from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise _restarting() from None
        await ballot.counted.wait()
        return ballot.outcome()

    async def count_forever(self) -> None:
        """Count what was voted, until cancelled: what came for one poll meanwhile is one unit of work, so
        that a crowd does not wait for each other's locks, and is told of once."""
        under_way: dict[PollId, list[Ballot]] = {}
        try:
            async for poll, ballot in self._outlet:
                under_way = {poll: [ballot]}
                for _ in range(TOGETHER):
                    try:
                        poll, ballot = self._outlet.receive_nowait()
                    except trio.WouldBlock:
                        break
                    under_way.setdefault(poll, []).append(ballot)
                async with trio.open_nursery() as nursery:
                    for each, ballots in under_way.items():
                        nursery.start_soon(self._count, each, ballots)
                under_way = {}
        finally:
            self._inlet.close()
            for ballots in under_way.values():
                for ballot in ballots:
                    ballot.settle(OutcomeUnknown())
            with suppress(trio.WouldBlock, trio.EndOfChannel):
                while True:
                    self._outlet.receive_nowait()[1].settle(_restarting())

    async def _count(self, poll: PollId, ballots: Sequence[Ballot]) -> None:
        answers: Sequence[Seen | Exception]
        try:
            answers = await self._writer.change(self._vote, poll, ballots)
        except Exception as exc:  # raised where it was asked for
            answers = [exc] * len(ballots)
        for ballot, answer in zip(ballots, answers, strict=True):
            ballot.settle(answer)

    async def _vote(
        self, tx: Tx, poll_id: PollId, ballots: Sequence[Ballot]
    ) -> Done[Sequence[Seen | Exception]]:
        """What becomes of each; the last of one person is what counts."""
        poll = await self._hold(tx, poll_id)
        if poll is None:
            return Done([NotFound()] * len(ballots))
        now_us = self._db.now_us()
        answers: list[frozenset[str] | Problem] = []
        before: dict[UserId, frozenset[str]] = {}
        after: dict[UserId, frozenset[str]] = {}
        for ballot in ballots:
            caller, wanted = ballot.caller, ballot.options
            try:
                seat = await _require_seat(tx, caller, poll)
                await require_unblocked(tx, seat)
                if caller not in before:
                    before[caller] = after[caller] = await store.votes_of(tx, poll_id, caller)
                _require_fit(poll, after[caller], wanted, now_us)
            except Problem as problem:
                answers.append(problem)
            else:
                after[caller] = wanted
                answers.append(wanted)
        has_changed = before != after
        if has_changed:
            await store.change_votes(tx, poll_id, before, after, now_us)
            voters = sum(map(bool, after.values())) - sum(map(bool, before.values()))
            await store.move(tx, poll_id, await changes.number(tx, poll.conversation_id, now_us), voters)
            poll = await store.get(tx, poll_id, ALWAYS) or poll
        told = [each if isinstance(each, Problem) else Seen(poll, each) for each in answers]
        if not has_changed:
            return Done(told)
        return Done(told, [await _happened(tx, "poll_voted", poll, None, now_us)])

    # ending

    async def close(self, caller: UserId, poll: PollId) -> Seen:
        """Whoever made it, or a moderator. Closing twice is closing once."""
        await self._writer.change(self._close, caller, poll)
        return await self.get(caller, poll)

    async def _close(self, tx: Tx, caller: UserId, poll_id: PollId) -> Done[None]:
        seat, poll = await self._lock(tx, caller, poll_id)
        _require_author(seat, poll)
        return Done(None, await self._end(tx, poll, caller))

    async def delete(self, caller: UserId, poll: PollId) -> None:
        """Whoever made it, or a moderator; its votes go, too."""
        await self._writer.relieve(self._delete, caller, poll)

    async def _delete(self, tx: Tx, caller: UserId, poll_id: PollId) -> Done[None]:
        seat, poll = await self._lock(tx, caller, poll_id)
        _require_author(seat, poll)
        now_us = self._db.now_us()
        gone = await _delete(tx, poll, caller, now_us)
        await audit.record(tx, action="chat:poll:deleted", actor=caller, subject=poll_id, now_us=now_us)
        return Done(None, [gone])

    async def pass_once(self) -> int:
        """Delete what is to disappear, and close what is past its end. Returns how many that were. Safe to
        repeat, and on every node."""
        ended = 0
        while due := await self._db.read(store.disappeared, self._db.now_us(), DUE):
            for poll in due:
                ended += await self._writer.relieve(self._disappear, poll)
        while due := await self._db.read(store.expired, self._db.now_us(), DUE):
            for poll in due:
                ended += await self._writer.change(self._expire, poll)
        return ended

    async def pass_forever(self) -> None:
        await every(self._config.poll_pass_s, self.pass_once, log, "polls_not_closed")

    async def _expire(self, tx: Tx, poll_id: PollId) -> Done[bool]:
        poll = await self._hold(tx, poll_id, ALWAYS)
        if poll is None or not poll.is_over(self._db.now_us()):
            return Done(False)
        ended = await self._end(tx, poll, None)
        return Done(bool(ended), ended)

    async def _disappear(self, tx: Tx, poll_id: PollId) -> Done[bool]:
        poll = await self._hold(tx, poll_id, ALWAYS)
        if poll is None:
            return Done(False)
        return Done(True, [await _delete(tx, poll, None, self._db.now_us())])

    async def _end(self, tx: Tx, poll: Poll, actor: UserId | None) -> list[Event]:
        if poll.closed_us is not None:
            return []
        now_us = self._db.now_us()
        change = await changes.number(tx, poll.conversation_id, now_us)
        await store.close(tx, poll.poll_id, change, now_us)
        closed = poll._replace(change=change, closed_us=now_us)
        return [await _happened(tx, "poll_closed", closed, actor, now_us)]

    # which

    async def _require_visible(self, tx: Tx, caller: UserId, poll_id: PollId) -> tuple[Seat, Poll]:
        poll = await store.get(tx, poll_id, self._db.now_us())
        if poll is None:
            raise NotFound
        return await _require_seat(tx, caller, poll), poll

    async def _lock(self, tx: Tx, caller: UserId, poll_id: PollId) -> tuple[Seat, Poll]:
        """Hold its conversation; what is returned stays true until the transaction ends."""
        _, poll = await self._require_visible(tx, caller, poll_id)
        await conversations.lock(tx, poll.conversation_id)
        return await self._require_visible(tx, caller, poll_id)

    async def _hold(self, tx: Tx, poll_id: PollId, at_us: int | None = None) -> Poll | None:
        """Hold its conversation until the transaction ends. None for one that is gone, by now or by then."""
        at_us = self._db.now_us() if at_us is None else at_us
        poll = await store.get(tx, poll_id, at_us)
        if poll is None:
            return None
        await conversations.lock(tx, poll.conversation_id)
        return await store.get(tx, poll_id, at_us)


def _restarting() -> Unavailable:
    return Unavailable("The chat module is restarting.", retry_after_s=1)


def _require_fit(poll: Poll, had: frozenset[str], wanted: frozenset[str], now_us: int) -> None:
    """Raises what keeps somebody who voted `had` from voting so now."""
    if poll.is_over(now_us):
        raise PollClosed
    if not wanted <= {option.option_id for option in poll.options}:
        raise Invalid("This poll has no such option.", details={"field": "option_ids"})
    if len(wanted) > 1 and poll.poll_type == "single":
        raise Invalid("Choose one option.", details={"field": "option_ids"})
    if had and wanted != had and not poll.allow_vote_change:
        raise AlreadyVoted


async def _require_seat(tx: Tx, caller: UserId, poll: Poll) -> Seat:
    seat = await conversations.seat(tx, poll.conversation_id, caller)
    if seat is None or seat.member.visible_from_seq > poll.seen_from:
        raise not_found(poll.conversation_id)
    return seat


def _require_author(seat: Seat, poll: Poll) -> None:
    if poll.created_by != seat.member.user_id:
        permissions.require(seat, "end_polls", poll.poll_id)


async def drop(tx: Tx, conversation: ConversationId, before_us: int, limit: int, now_us: int) -> list[Event]:
    """Delete those that were made before, `limit` at most; the conversation is held."""
    overdue = await store.made_before(tx, conversation, before_us, limit)
    return [await _delete(tx, poll, None, now_us) for poll in overdue]


async def _delete(tx: Tx, poll: Poll, actor: UserId | None, now_us: int) -> Event:
    await store.delete(tx, poll.poll_id)
    gone = poll._replace(change=await changes.number(tx, poll.conversation_id, now_us))
    return await _happened(tx, "poll_deleted", gone, actor, now_us)


async def _happened(tx: Tx, kind: Kind, poll: Poll, actor: UserId | None, now_us: int) -> Event:
    """poll: as it is after this change."""
    event = Event(
        kind,
        poll.conversation_id,
        poll.change,
        now_us,
        poll.seen_from,
        poll_id=poll.poll_id,
        poll=poll,
        expires_us=poll.disappears_us,
    )
    await changes.record(tx, event, actor)
    return event
