"""The writer: the one task through which everything durable of the room goes.

Whoever asked may be gone when the commit returns, so it is the writer, never the request, that learns of the
outcome, answers, and hands on what happened. It works in rounds: all messages waiting are appended in one
transaction; other changes are transactions of their own beside it, which share its commit.

While the database is away messages are accepted into the journal (`pledges`). Until that is empty again all
of them go there, so that they stay in order; and it is emptied between rounds, so that nothing passes it, a
few batches at a time, so that nobody waits for all of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar

import structlog
import trio

from .. import metrics, tracing
from ..deps.contracts import ConstraintViolation, Database, Tx, UniqueViolation
from ..errors import Internal, OutcomeUnknown, Problem, Unavailable, is_away
from ..idempotency import Attempt, keep, recall
from ..identity import ConversationId, MessageId, UserId
from .append import Draft, Outcome, Stored, append
from .attachments import Attachments
from .changes import Event
from .pledges import Accepted, Answer, Pledges

log = structlog.get_logger(module="chat")

# type: text, image, video, audio, file; result: stored, again (a resend), accepted, refused, failed
MESSAGES = metrics.counter("messages_total", "Messages asked to be stored.", ["type", "result"])
BATCH = metrics.histogram(
    "secureconnect_chat_batch_messages",
    "Messages in one append.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
_COUNTED = {
    (kind, result): MESSAGES.labels(kind, result)
    for kind in ("text", "image", "video", "audio", "file")
    for result in ("stored", "again", "accepted", "refused", "failed")
}

LOAD_PAUSE_S = 1.0
PAGES = 4  # batches of accepted messages that are stored before others have a turn, which adds one at most

T = TypeVar("T")
P = ParamSpec("P")


class ReadMark(NamedTuple):
    """Somebody has read up to `seq`. Stored, yet no event of the log: `resumed` tells it again.
    is_private: only their own sockets are told."""

    conversation_id: ConversationId
    user_id: UserId
    seq: int
    is_private: bool = False


class MuteMark(NamedTuple):
    """Somebody has muted a conversation until then; None: no more. Their own sockets are told."""

    conversation_id: ConversationId
    user_id: UserId
    until_us: int | None


Mark = ReadMark | MuteMark


class Done(NamedTuple, Generic[T]):
    """What a unit of change returns.  value: for who asked.  events, marks: for everybody they concern."""

    value: T
    events: Sequence[Event] = ()
    marks: Sequence[Mark] = ()


Change = Callable[Concatenate[Tx, P], Awaitable[Done[T]]]
Tell = Callable[[Sequence[Event], Sequence[Mark]], None]


class _Send:
    """A message on its way, and who is told what became of it.  span: from here to the answer."""

    __slots__ = ("_done", "draft", "settled", "span")

    def __init__(self, draft: Draft, done: Callable[[Answer], None]) -> None:
        self.draft = draft
        self.settled = False
        self.span = tracing.span("store message")
        self._done = done

    def settle(self, answer: Answer) -> None:
        if not self.settled:
            self.settled = True
            self._done(answer)
            if isinstance(answer, Problem):
                self.span.failed_by(answer)
            self.span.end()


class _Changing:
    """A unit of change and whoever waits for it.  write: the way of the database that runs it.  span: from
    here to its end."""

    __slots__ = ("args", "error", "finished", "kwargs", "result", "span", "unit", "write")

    def __init__(
        self,
        write: Callable[..., Awaitable[Any]],
        unit: Callable[..., Awaitable[Done[Any]]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.write = write
        self.unit = unit
        self.args = args
        self.kwargs = kwargs
        self.span = tracing.span("store change")
        self.finished = trio.Event()
        self.result: Done[Any] | None = None
        self.error: Exception | None = None


class Writer:
    """tell: takes what was committed, in the order of each conversation; must not fail.

    rounds: how many there were, for those who stand back while there are more.
    """

    def __init__(
        self,
        db: Database,
        waiting: int,
        batch: int,
        tell: Tell,
        pledges: Pledges,
        attachments: Attachments,
    ) -> None:
        self._db = db
        self._attachments = attachments
        self._batch = batch
        self._tell = tell
        self._pledges = pledges
        self._inlet, self._outlet = trio.open_memory_channel[_Send | _Changing](waiting)
        self._under_way: list[_Send | _Changing] = []
        self.rounds = 0
        self._redeemed = 0  # number of the last record of the journal that has been dealt with

    def send(self, draft: Draft, done: Callable[[Answer], None]) -> None:
        """Queue a message; `done` is called once, by the writer. Raises Unavailable when too many wait."""
        self._queue(_Send(draft, done))

    async def store(self, draft: Draft) -> Stored | Accepted:
        """Queue a message and wait. Cancelled or not, it is stored or accepted. Raises what refused it."""
        finished = trio.Event()
        answers: list[Answer] = []

        def done(answer: Answer) -> None:
            answers.append(answer)
            finished.set()

        self.send(draft, done)
        await finished.wait()
        if isinstance(answers[0], Problem):
            raise answers[0]
        return answers[0]

    def require_settled(self, message: MessageId) -> None:
        """Raises Unavailable for a message that is accepted and not stored yet."""
        if self._pledges.holds(message):
            raise Unavailable("This message is not stored yet; try again when it is.", retry_after_s=1)

    async def change(self, unit: Change[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit of change and wait. Cancelled or not, it is run, and what happened is told."""
        value: T = await self._change(_Changing(self._db.write, unit, args, kwargs))
        return value

    async def change_once(
        self,
        attempt: Attempt | None,
        kind: type[T],
        unit: Change[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`change`, or what it returned to an earlier attempt at the same request: then nothing happens.
        kind: of the value, as msgspec reads it."""

        async def claimed(tx: Tx, attempt: Attempt) -> Done[T]:
            kept = await recall(tx, attempt, kind, self._db.now_us())
            if kept is not None:
                return Done(kept.value)
            done = await unit(tx, *args, **kwargs)
            await keep(tx, attempt, done.value)
            return done

        if attempt is None:
            return await self.change(unit, *args, **kwargs)
        return await self.change(claimed, attempt)

    async def relieve(self, unit: Change[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for what frees space, and goes on when the disk is nearly full."""
        value: T = await self._change(_Changing(self._db.relieve, unit, args, kwargs))
        return value

    async def _change(self, job: _Changing) -> Any:
        self._queue(job)
        await job.finished.wait()
        if job.error is not None:
            raise job.error
        assert job.result is not None
        return job.result.value

    def _queue(self, job: _Send | _Changing) -> None:
        try:
            self._inlet.send_nowait(job)
        except trio.WouldBlock:
            raise Unavailable("Too many messages are waiting to be stored.", retry_after_s=1) from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Unavailable("The chat module is restarting.", retry_after_s=1) from None

    async def run(self) -> None:
        """Write until cancelled. Whoever still waits then is told so."""
        try:
            await self._load()
            while True:
                await self._receive()
                while 0 < len(self._under_way) < self._batch and self._take_waiting():
                    pass
                if self._under_way:
                    await self._round()
                    self._under_way = []
        finally:
            self._give_up()

    async def _load(self) -> None:
        """What an earlier run accepted comes first."""
        while True:
            try:
                await self._pledges.load()
            except Unavailable as problem:
                log.warning("journal_not_read", code=problem.code)
                await trio.sleep(LOAD_PAUSE_S)
            else:
                return

    async def _receive(self) -> None:
        """Wait for something to do. Whenever it is due meanwhile, empty the journal first, or some of it."""
        pledges = self._pledges
        while not pledges.is_empty:
            if trio.current_time() >= pledges.due:
                await self._redeem()
                if self._take_waiting():
                    return
                continue
            with trio.move_on_at(pledges.due):
                self._under_way.append(await self._outlet.receive())
                return
        self._under_way.append(await self._outlet.receive())

    def _take_waiting(self) -> bool:
        """One job more, if one waits."""
        try:
            self._under_way.append(self._outlet.receive_nowait())
        except trio.WouldBlock:
            return False
        return True

    async def _redeem(self) -> None:
        """Store what was accepted, PAGES at most, as far as the database takes it; in order, and safe to
        repeat."""
        try:
            for _ in range(PAGES):
                page = await self._pledges.page(self._redeemed, self._batch)
                if not page:
                    if not self._pledges.is_empty:  # gone from the journal under us
                        log.error("journal_lost_records")
                        self._pledges.forget()
                    return
                outcomes = await self._store([pledge.draft for _, pledge in page])
                # The disk is full, or no connection is free: no reason to return anything to its sender.
                taken = [outcome for outcome in outcomes if not isinstance(outcome, Unavailable)]
                events = [_happened(outcome) for outcome in taken if isinstance(outcome, Stored)]
                if events:  # also those not stored just now: an attempt that ended unknown told nobody
                    events.sort(key=_by_change)
                    self._tell(events, ())
                if taken:
                    await self._pledges.settle(page[: len(taken)], taken)
                if len(taken) < len(outcomes):
                    break
                self._redeemed = page[-1][0]
            else:
                return
        except Unavailable as problem:
            log.warning("journal_not_read", code=problem.code)
        self._pledges.put_off()

    async def _round(self) -> None:
        self.rounds += 1
        sends = [job for job in self._under_way if isinstance(job, _Send)]
        changes = [job for job in self._under_way if isinstance(job, _Changing)]
        events: list[Event] = []
        if not changes:
            await self._append(sends, events)
        else:
            async with trio.open_nursery() as nursery:
                if sends:
                    nursery.start_soon(self._append, sends, events)
                for change in changes:
                    nursery.start_soon(self._run_change, change)
        marks: list[Mark] = []
        for change in changes:
            change.finished.set()
            if change.result is not None:
                events += _traced(change.result.events, change.span.traceparent)
                marks += change.result.marks
        if changes:
            events.sort(key=_by_change)
        if events or marks:
            self._tell(events, marks)

    async def _run_change(self, job: _Changing) -> None:
        try:
            with job.span:
                job.result = await job.write(job.unit, *job.args, **job.kwargs)
        except Exception as exc:
            job.error = exc  # raised where it was asked for

    async def _append(self, sends: Sequence[_Send], events: list[Event]) -> None:
        BATCH.observe(len(sends))
        with tracing.together(send.span for send in sends):
            answers = await self._answers([send.draft for send in sends])
        for send, answer in zip(sends, answers, strict=True):
            _COUNTED[send.draft.message_type, _result(answer)].inc()
            if isinstance(answer, Stored) and answer.fresh:
                events.append(_happened(answer, send.span.traceparent))
            send.settle(answer)

    async def _answers(self, drafts: Sequence[Draft]) -> Sequence[Answer]:
        if not self._pledges.is_empty:
            return await self._pledges.take(drafts, Unavailable())
        outcomes = await self._store(drafts)
        last = outcomes[-1]
        if not isinstance(last, Problem) or not is_away(last):
            return outcomes
        stored = [outcome for outcome in outcomes if outcome is not last]
        return [*stored, *await self._pledges.take(drafts[len(stored) :], last)]

    async def _store(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """What becomes of each. If one meets a database that is away, full or busy, all behind it do."""
        try:
            return await self._append_all(drafts)
        except Problem as problem:
            return [problem] * len(drafts)
        except Exception as exc:
            if len(drafts) == 1:
                return [await self._append_one(drafts[0], exc)]
        middle = len(drafts) // 2
        first = await self._store(drafts[:middle])
        if isinstance(first[-1], Unavailable):
            return first + [first[-1]] * (len(drafts) - middle)
        return first + await self._store(drafts[middle:])

    async def _append_all(self, drafts: Sequence[Draft]) -> list[Outcome]:
        return await self._db.write(append, drafts, self._db.now_us, self._attachments)

    async def _append_one(self, draft: Draft, failure: Exception) -> Outcome:
        """What becomes of a message the database refused."""
        if isinstance(failure, UniqueViolation):
            # Another node stored the same client_message_id meanwhile: now it can be seen.
            try:
                return (await self._append_all([draft]))[0]
            except Problem as problem:
                return problem
            except Exception as exc:
                failure = exc
        if not isinstance(failure, ConstraintViolation) and not await self._is_fit():
            return Unavailable()
        log.error("message_not_storable", message_id=draft.message_id, exc_info=failure)
        return Internal()

    async def _is_fit(self) -> bool:
        """Whether the database takes a batch of none: if not, a table is missing, say, and nothing is wrong
        with any message."""
        try:
            await self._append_all(())
        except Problem:
            return False
        except Exception as exc:
            log.error("database_unfit", exc_info=exc)
            return False
        return True

    def _give_up(self) -> None:
        """Answer whoever waits: their outcome is unknown if their round had begun, else it is none."""
        self._inlet.close()
        for job in self._under_way:
            _fail(job, OutcomeUnknown())
        while True:
            try:
                job = self._outlet.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            _fail(job, Unavailable("The chat module is restarting.", retry_after_s=1))
        self._outlet.close()


def _fail(job: _Send | _Changing, problem: Problem) -> None:
    if isinstance(job, _Send):
        job.settle(problem)
    elif not job.finished.is_set():
        job.error = problem
        job.finished.set()


def _happened(stored: Stored, trace: str | None = None) -> Event:
    message = stored.message
    return Event(
        "chat",
        message.conversation_id,
        message.change,
        message.sent_us,
        message.seq,
        message.message_id,
        message,
        trace=trace,
    )


def _traced(events: Sequence[Event], trace: str | None) -> Sequence[Event]:
    return events if trace is None else [event._replace(trace=trace) for event in events]


def _by_change(event: Event) -> tuple[str, int]:
    return event.conversation_id, event.change


def _result(answer: Answer) -> str:
    if isinstance(answer, Stored):
        return "stored" if answer.fresh else "again"
    if isinstance(answer, Accepted):
        return "accepted"
    return "failed" if answer.status >= 500 else "refused"
