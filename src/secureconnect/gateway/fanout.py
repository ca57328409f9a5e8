"""What is on its way to WebSockets: encoded once, queued for each, and sent by one task for all of them.

A frame offered to a thousand sockets is one bytes object in a thousand outboxes. One flusher, woken when
something was offered, joins each outbox into one send that never waits; only a socket whose client does not
keep up gets a task of its own, until it does. An outbox that would grow past its bound closes its socket
(1013); the client comes back and resumes. What is not durable is left out before that: typing first, then
presence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

import trio

from ..config import GatewayConfig
from ..edge import Frame, Run, Weight
from ..metrics import counter, gauge
from . import framing
from .transport import SEND_BYTES, Transport

MESSAGES = counter("websocket_messages_total", "WebSocket messages.", ["direction"])  # in, out
SHED = counter(
    "secureconnect_gateway_frames_shed_total",
    "Frames left out under load.",
    ["weight"],  # typing, presence
)
BLOCKED = gauge("secureconnect_gateway_sockets_blocked", "WebSockets whose client does not keep up.")
HELD = gauge("secureconnect_gateway_outbox_bytes", "Bytes kept for WebSockets whose client does not keep up.")
_OUT = MESSAGES.labels("out")
_SHED = {weight: SHED.labels(weight.name.lower()) for weight in (Weight.TYPING, Weight.PRESENCE)}

SOCKETS_A_TURN = 256  # flushed before other tasks get theirs
# A frame of this weight is left out when an outbox, or all of them together, are fuller than this share of
# their bound, or when the flusher is later than this.
SHARES = {Weight.TYPING: 0.25, Weight.PRESENCE: 0.5, Weight.DURABLE: 1.0}
LATE_S = {Weight.TYPING: 0.25, Weight.PRESENCE: 1.0}


class Outbox:
    """What waits to be sent on one connection.

    size: bytes.  deflates: its client takes compressed frames.
    is_clear: it is known to be open with nothing waiting in it: what is offered has only to be noted.
    overflow: closes the socket, because this outbox holds too much, or all together and this one most.
    """

    __slots__ = (
        "_fanout",
        "_flushed",
        "_frames",
        "_is_blocked",
        "_is_dirty",
        "_is_shut",
        "_joined",
        "_only",
        "_transport",
        "deflates",
        "is_clear",
        "overflow",
        "size",
    )

    def __init__(
        self, transport: Transport, fanout: Fanout, deflates: bool, overflow: Callable[[], None]
    ) -> None:
        self.size = 0
        self.deflates = deflates
        self.is_clear = True
        self.overflow = overflow
        self._transport = transport
        self._fanout = fanout
        self._only: bytes | None = None  # all that waits, where that is one piece of what a crowd was offered
        self._frames: list[bytes] = []
        self._joined = 0  # how many more frames these are than are counted there
        self._is_dirty = False  # somebody will look at it: the flusher, or its own task
        self._is_blocked = False  # its client does not keep up: `drain` runs
        self._is_shut = False
        self._flushed: trio.Event | None = None  # somebody waits for it to be empty

    def offer(self, frame: Frame) -> bool:
        """Queue a frame, or leave it out if its weight allows that. False when it is shut, also just now for
        want of room."""
        if self._is_shut:
            return False
        data = encoded(frame, self.deflates)
        if self.size + len(data) <= self._fanout.limits[frame.weight]:
            self.put(data)
            return not self._is_shut  # all outboxes together may have been too full
        if frame.weight is Weight.DURABLE:
            self.overflow()
            return False
        _SHED[frame.weight].inc()
        return True

    def offer_run(self, run: Run) -> bool:
        """The same with all frames of a run, queued as one."""
        if self._is_shut:
            return False
        data = joined(run, self.deflates)
        if len(data) > SEND_BYTES:  # what a slow client has begun to take stays small
            return all(self.offer(frame) for frame in run.frames)
        if self.size + len(data) > self._fanout.limits[Weight.DURABLE]:
            self.overflow()
            return False
        self._joined += len(run.frames) - 1
        self.put(data)
        return not self._is_shut

    def answer(self, data: bytes) -> None:
        """Queue what a client asks for by itself."""
        if self.size + len(data) > self._fanout.limits[Weight.DURABLE]:
            self.overflow()
        else:
            self.put(data)

    def shut(self) -> None:
        """Take no more offers."""
        self._is_shut = True
        self.is_clear = False
        if self._only is not None:
            self._unfold()  # or it would be clear again once that is sent

    def put(self, data: bytes) -> None:
        """Queue bytes that have to be sent."""
        if self._only is not None:
            self._unfold()
        self._frames.append(data)
        self.size += len(data)
        self.is_clear = False
        if not self._is_dirty:
            self._is_dirty = True
            self._fanout.mark([self])
        elif self._is_blocked:
            self._fanout.hold(len(data))

    async def send(self, frame: Frame) -> None:
        """Queue a frame, and wait until everything queued so far was handed to the network, or nothing can be
        any more."""
        self.put(encoded(frame, self.deflates))
        await self.emptied()

    async def emptied(self) -> None:
        self.flush()
        if self._is_blocked:
            if self._flushed is None:
                self._flushed = trio.Event()
            await self._flushed.wait()
        else:
            await trio.lowlevel.checkpoint()

    def drop(self) -> None:
        """Forget what has not been sent."""
        self._only = None
        self._frames.clear()
        self._joined = 0
        self._shrink(self.size)

    def flush(self) -> None:
        """Send what can be sent now."""
        if self._is_blocked:
            return
        if self._only is not None:
            self._unfold()
        self._is_dirty = False
        frames, taken = self._frames, True
        if self.size > SEND_BYTES:
            taken = self._send_some()
        elif frames:
            self._fanout.sent += len(frames) + self._joined
            self._joined = self.size = 0
            data = frames[0] if len(frames) == 1 else b"".join(frames)
            frames.clear()
            taken = self._transport.send(data)
        if taken:
            self.is_clear = not self._is_shut
        else:
            self._block()

    async def drain(self) -> None:
        """Send at the pace of a client that does not keep up, until it does."""
        try:
            while not self._transport.gone:
                await self._transport.drain()
                if not self._frames:
                    break
                self._send_some()
        finally:
            if self._transport.gone:
                self.drop()
            self._is_blocked = self._is_dirty = False
            self._fanout.unblock(self)
            if self._flushed is not None:
                self._flushed.set()
                self._flushed = None

    def _unfold(self) -> None:
        """What a crowd was offered waits like anything else."""
        assert self._only is not None
        self._frames.append(self._only)
        self._only = None

    def _block(self) -> None:
        self._is_blocked = self._is_dirty = True
        self._fanout.block(self)

    def _send_some(self) -> bool:
        """Send until the socket takes no more, in parts, so that what it has begun to take stays small. False
        if it did not take all."""
        frames, transport = self._frames, self._transport
        at, taken = 0, True
        while at < len(frames) and taken:
            first, size = at, 0
            while at < len(frames) and (not size or size + len(frames[at]) <= SEND_BYTES):
                size += len(frames[at])
                at += 1
            self._shrink(size)
            taken = transport.send(b"".join(frames[first:at]))
        del frames[:at]
        self._fanout.sent += at + self._joined
        self._joined = 0
        return taken

    def _shrink(self, size: int) -> None:
        self.size -= size
        if self._is_blocked:
            self._fanout.hold(-size)


def encoded(frame: Frame, deflates: bool) -> bytes:
    """As it goes over the network; kept in the frame for the next socket."""
    if deflates:
        frame.deflated = frame.deflated or framing.deflated(frame.data)
        return frame.deflated
    frame.wire = frame.wire or framing.text(frame.data)
    return frame.wire


def joined(run: Run, deflates: bool) -> bytes:
    """The same of a run."""
    if deflates:
        run.deflated = run.deflated or b"".join(encoded(frame, True) for frame in run.frames)
        return run.deflated
    run.wire = run.wire or b"".join(encoded(frame, False) for frame in run.frames)
    return run.wire


class OutboxCrowd:
    """`edge.Crowd`: what is offered is noted in outboxes that are clear, as nearly all are. The others are
    offered it one by one."""

    __slots__ = ("_fanout", "_parts")

    def __init__(self, outboxes: Sequence[Outbox]) -> None:
        """Some, all of one fanout."""
        self._fanout = outboxes[0]._fanout
        self._parts: list[tuple[bool, Sequence[int], Sequence[Outbox]]] = []
        for deflates in (False, True):
            places = [place for place, outbox in enumerate(outboxes) if outbox.deflates == deflates]
            if len(places) == len(outboxes):
                self._parts.append((deflates, range(len(places)), tuple(outboxes)))  # as nearly always
            elif places:
                self._parts.append((deflates, places, tuple(outboxes[place] for place in places)))

    def offer(self, frame: Frame) -> list[int]:
        lost: list[int] = []
        for deflates, places, outboxes in self._parts:
            rest = self._note(outboxes, encoded(frame, deflates), 1, frame.weight)
            lost += [places[each] for each in rest if not outboxes[each].offer(frame)]
        return lost

    def offer_run(self, run: Run) -> list[int]:
        lost: list[int] = []
        for deflates, places, outboxes in self._parts:
            rest = self._note(outboxes, joined(run, deflates), len(run.frames), Weight.DURABLE)
            lost += [places[each] for each in rest if not outboxes[each].offer_run(run)]
        return lost

    def _note(self, outboxes: Sequence[Outbox], data: bytes, frames: int, weight: Weight) -> Sequence[int]:
        """Returns which have to be offered it. A thousand turns for each message to a large group."""
        size, more = len(data), frames - 1
        if size > min(SEND_BYTES, self._fanout.limits[weight]):
            return range(len(outboxes))
        noted: list[Outbox] = []
        rest: list[int] = []
        for number, outbox in enumerate(outboxes):
            if outbox.is_clear:
                outbox.is_clear = False
                outbox._is_dirty = True
                outbox._only = data
                outbox.size = size
                outbox._joined = more
                noted.append(outbox)
            else:
                rest.append(number)
        if noted:
            self._fanout.mark(noted)
        return rest


class Fanout:
    """The flusher of all outboxes.

    limits: how full an outbox may become with a frame of each weight; less than nothing: it is left out.
    sent: frames handed on and not counted yet.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._calm_limits = tuple(int(SHARES[weight] * config.ws_outbox_bytes) for weight in Weight)
        self.limits = self._calm_limits
        self.sent = 0
        self._total_limit = config.ws_outboxes_bytes
        self._dirty: list[Outbox] = []
        self._wake = trio.Event()
        self._since = 0.0  # when the first of the dirty became so
        self._flushing_since: float | None = None  # the same of those that are being flushed
        self._blocked: set[Outbox] = set()
        self._held = 0  # bytes in blocked outboxes

    def mark(self, outboxes: Sequence[Outbox]) -> None:
        """Something was queued in outboxes that were clean."""
        if not self._dirty:
            self._since = perf_counter()
            self._wake.set()
        self._dirty += outboxes

    def block(self, outbox: Outbox) -> None:
        """Drain it in a task of its own."""
        self._blocked.add(outbox)
        self.hold(outbox.size)
        self._drains.start_soon(outbox.drain)

    def unblock(self, outbox: Outbox) -> None:
        self._blocked.discard(outbox)
        self._held -= outbox.size

    def hold(self, size: int) -> None:
        """Blocked outboxes have grown by so many bytes. The largest gives way if that is too much."""
        self._held += size
        if size > 0 and self._held > self._total_limit:
            max(self._blocked, key=lambda each: each.size).overflow()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Flush for ever."""
        async with trio.open_nursery() as self._drains:
            task_status.started()
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                self._flushing_since = since = self._since
                dirty, self._dirty = self._dirty, []
                for start in range(0, len(dirty), SOCKETS_A_TURN):
                    self._flush(dirty[start : start + SOCKETS_A_TURN])
                    if start + SOCKETS_A_TURN <= len(dirty):
                        await trio.lowlevel.checkpoint()
                self._count(perf_counter() - since)

    def _flush(self, outboxes: Sequence[Outbox]) -> None:
        """Of what a crowd was offered, `Outbox.flush` without a call for each."""
        sent = 0
        for outbox in outboxes:
            only = outbox._only
            if only is None:
                outbox.flush()
                continue
            sent += 1 + outbox._joined
            outbox._only = None
            outbox._joined = outbox.size = 0
            outbox._is_dirty = False
            outbox.is_clear = True
            if not outbox._transport.send(only):
                outbox.is_clear = False
                outbox._block()
        self.sent += sent

    def _count(self, late_s: float) -> None:
        _OUT.inc(self.sent)
        self.sent = 0
        self._flushing_since = None
        self.weigh(late_s)

    def look(self) -> None:
        """Called about every second, whether something is flushed or not."""
        since = self._flushing_since or (self._since if self._dirty else None)
        self.weigh(0.0 if since is None else perf_counter() - since)

    def weigh(self, late_s: float) -> None:
        """Decide what is left out from now on.  late_s: how long frames have waited."""
        BLOCKED.set(len(self._blocked))
        HELD.set(self._held)
        share = self._held / self._total_limit
        limits = list(self._calm_limits)
        for weight, limit_s in LATE_S.items():
            if late_s > limit_s or share > SHARES[weight]:
                limits[weight] = -1
        self.limits = tuple(limits)
