"""What is on its way to WebSockets: encoded once, queued for each, and sent by one task for all of them.

A frame offered to a thousand sockets is one bytes object in a thousand outboxes. One flusher, woken when
something was offered, joins each outbox into one send that never waits; only a socket whose client does not
keep up gets a task of its own, until it does. An outbox that would grow past its bound closes its socket
(1013); the client comes back and resumes. What is not durable is left out before that: typing first, then
presence.
"""

from __future__ import annotations

from collections.abc import Callable
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
    evict: closes the socket, because all outboxes together hold too much and this one most.
    """

    __slots__ = (
        "_fanout",
        "_flushed",
        "_frames",
        "_is_blocked",
        "_is_dirty",
        "_joined",
        "_transport",
        "deflates",
        "evict",
        "size",
    )

    def __init__(
        self, transport: Transport, fanout: Fanout, deflates: bool, evict: Callable[[], None]
    ) -> None:
        self.size = 0
        self.deflates = deflates
        self.evict = evict
        self._transport = transport
        self._fanout = fanout
        self._frames: list[bytes] = []
        self._joined = 0  # how many more frames these are than are counted there
        self._is_dirty = False  # somebody will look at it: the flusher, or its own task
        self._is_blocked = False  # its client does not keep up: `drain` runs
        self._flushed: trio.Event | None = None  # somebody waits for it to be empty

    def offer(self, frame: Frame) -> bool:
        """Queue a frame, or leave it out if its weight allows that. False when there is no room for it."""
        data = (frame.deflated if self.deflates else frame.wire) or self._encode(frame)
        if self.size + len(data) <= self._fanout.limits[frame.weight]:
            self.put(data)
            return True
        if frame.weight is Weight.DURABLE:
            return False
        _SHED[frame.weight].inc()
        return True

    def offer_run(self, run: Run) -> bool:
        """Queue all frames of a run as one. False when there is no room for them."""
        data = (run.deflated if self.deflates else run.wire) or self._join(run)
        if len(data) > SEND_BYTES:  # what a slow client has begun to take stays small
            return all(self.offer(frame) for frame in run.frames)
        if self.size + len(data) > self._fanout.limits[Weight.DURABLE]:
            return False
        self._joined += len(run.frames) - 1
        self.put(data)
        return True

    def answer(self, data: bytes) -> bool:
        """Queue what a client asks for by itself. False when there is no room for it."""
        if self.size + len(data) > self._fanout.limits[Weight.DURABLE]:
            return False
        self.put(data)
        return True

    def put(self, data: bytes) -> None:
        """Queue bytes that have to be sent."""
        self._frames.append(data)
        self.size += len(data)
        if not self._is_dirty:
            self._is_dirty = True
            self._fanout.mark(self)
        elif self._is_blocked:
            self._fanout.hold(len(data))

    async def send(self, frame: Frame) -> None:
        """Queue a frame, and wait until everything queued so far was handed to the network, or nothing can be
        any more."""
        self.put((frame.deflated if self.deflates else frame.wire) or self._encode(frame))
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
        self._frames.clear()
        self._joined = 0
        self._shrink(self.size)

    def flush(self) -> None:
        """Send what can be sent now."""
        if self._is_blocked:
            return
        self._is_dirty = False
        frames = self._frames
        if not frames:
            return
        if self.size <= SEND_BYTES:  # as nearly always: a thousand times for each message to a large group
            self._fanout.sent += len(frames) + self._joined
            self._joined = 0
            data = frames[0] if len(frames) == 1 else b"".join(frames)
            frames.clear()
            self.size = 0
            taken = self._transport.send(data)
        else:
            taken = self._send_some()
        if not taken:
            self._is_blocked = self._is_dirty = True
            self._fanout.block(self)

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

    def _encode(self, frame: Frame) -> bytes:
        """As it goes over the network; kept in the frame for the next socket."""
        if self.deflates:
            frame.deflated = framing.deflated(frame.data)
            return frame.deflated
        frame.wire = framing.text(frame.data)
        return frame.wire

    def _join(self, run: Run) -> bytes:
        """The same for a run."""
        if self.deflates:
            run.deflated = b"".join(frame.deflated or self._encode(frame) for frame in run.frames)
            return run.deflated
        run.wire = b"".join(frame.wire or self._encode(frame) for frame in run.frames)
        return run.wire

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

    def mark(self, outbox: Outbox) -> None:
        """Something was queued in an outbox that was clean."""
        if not self._dirty:
            self._since = perf_counter()
            self._wake.set()
        self._dirty.append(outbox)

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
            max(self._blocked, key=lambda each: each.size).evict()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Flush for ever."""
        async with trio.open_nursery() as self._drains:
            task_status.started()
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                self._flushing_since = since = self._since
                dirty, self._dirty = self._dirty, []
                for number, outbox in enumerate(dirty, 1):
                    outbox.flush()
                    if not number % SOCKETS_A_TURN:
                        await trio.lowlevel.checkpoint()
                self._count(perf_counter() - since)

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
