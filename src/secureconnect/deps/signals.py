"""Signals between nodes: by the bus while it works, by a table of the database as well while it may not.

Every signal of the last seconds is kept here (`signal_order.Kept`). As soon as anything says that one may
have been lost, this node *doubts* the bus: it writes what it has kept, and what it sends from then on, into
the table, and reads there what the others wrote; and it goes on publishing, for the bus may work for some.
What comes both ways is told once, by its number; what is missing is waited for until the table has been read.
Without doubt the table is looked at now and then only, for the word of a node that alone has lost the bus.

A node that has a reason for doubt sends an alarm, itself a signal by both ways, which makes the others doubt
too. Doubt ends when there has been no reason for `kept_s`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import msgspec
import structlog
import trio
from msgspec import Struct

from .. import metrics
from ..clock import SECOND_US
from ..config import SignalsConfig
from ..errors import Problem, TooLarge, Unavailable
from ..identity import new_id_at
from .contracts import Backlog, Bus, Database, Delivery, Tx
from .guard import Guard
from .memory import MemoryBacklog, Subscribers
from .signal_order import HOLD_S, Kept, Others, Signal

log = structlog.get_logger(module="deps")

# way: bus, table
SENT = metrics.counter("secureconnect_signals_sent_total", "Signals that left this node.", ["way"])

CHANNEL = "signals"
ALARM = ""  # the channel of a signal to the nodes themselves
LIFE_S = 60.0  # of a row
SWEEP_S = 10.0
PAUSE_S = 0.25  # after the database refused
GATHER_S = 0.05  # between two writes: what comes meanwhile goes together
PAGE = 200  # rows of one sender read together

_KEEP = (
    "INSERT INTO signals (sender, number, channel, payload, sent_at) VALUES ($1, $2, $3, $4, $5)"
    " ON CONFLICT (sender, number) DO NOTHING"
)
_HEADS = "SELECT sender, max(number) FROM signals GROUP BY sender"
_AFTER = (
    "SELECT number, channel, payload, sent_at FROM signals WHERE sender = $1 AND number >= $2"
    " ORDER BY number LIMIT $3"
)
_SWEEP = "DELETE FROM signals WHERE sent_at < $1"


class _Parcel(Struct, array_like=True):
    sender: str
    signals: list[Signal]


_parcels = msgspec.msgpack.Decoder(_Parcel)


class NodeSignals:
    """contracts.Signals over a bus that never fails, which `bus_guard` watches, and the database.

    bus_guard: None where no bus joins the nodes.  waiting: deliveries that may wait for one subscriber.
    `run` carries them between the nodes; without it this node alone hears them.
    """

    def __init__(
        self,
        config: SignalsConfig,
        bus: Bus,
        bus_guard: Guard | None,
        db: Database,
        db_guard: Guard,
        waiting: int,
    ) -> None:
        self._config = config
        self._bus = bus
        self._bus_guard = bus_guard
        self._db = db
        self._db_guard = db_guard
        self._began_us = db.now_us()
        self._id = new_id_at(self._began_us)
        self._kept = Kept(config.kept_s, config.kept_mb * 1_048_576)
        self._others = Others(self._id, self._began_us, self._tell)
        self._subscribers = Subscribers(waiting)
        self._published = 0  # numbers up to which they have gone to the bus, and into the table
        self._written = 0
        self._gone = 0  # what has gone one way at least
        self._doubts_until = 0.0
        self._next_alarm = 0.0
        self._next_look = 0.0
        self._next_sweep = 0.0
        self._moved = trio.lowlevel.ParkingLot()  # for what the two writers wait for
        self._look_now = trio.Event()
        if bus_guard is not None:
            bus_guard.observe(lambda _: self._find_reason())
        self._encoder = msgspec.msgpack.Encoder()

    def send(self, channel: str, payload: bytes) -> None:
        if len(payload) > self._config.payload_bytes:
            raise TooLarge(f"A signal has {self._config.payload_bytes} bytes at most.")
        self._subscribers.offer(Delivery(channel, payload))
        if not self._is_bus_up() and not self._db_guard.is_up:
            missing = (self._bus_guard or self._db_guard).name
            raise Unavailable("Other nodes cannot be reached right now.", details={"dependency": missing})
        self._keep(channel, payload)

    def subscribe(self, channels: Sequence[str]) -> AbstractContextManager[MemoryBacklog]:
        return self._subscribers.joined(channels)

    async def run(self) -> None:
        """For ever; not before the table is there."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._publish_forever)
            nursery.start_soon(self._write_forever)
            nursery.start_soon(self._hear_forever, nursery)

    # doubt

    def _is_bus_up(self) -> bool:
        return self._bus_guard is not None and self._bus_guard.is_up

    def _doubts(self) -> bool:
        return not self._is_bus_up() or trio.current_time() < self._doubts_until

    def _find_reason(self) -> None:
        """Something says that signals may have been lost on the bus: doubt it, and tell the others."""
        self._doubt()
        now = trio.current_time()
        if now >= self._next_alarm:
            self._next_alarm = now + self._config.kept_s / 2
            try:
                self._keep(ALARM, b"")
            except Problem as problem:  # so much waits that they will doubt by themselves
                log.debug("alarm_not_sent", code=problem.code)

    def _doubt(self) -> None:
        now = trio.current_time()
        if now >= self._doubts_until:
            self._look_now.set()
        self._doubts_until = now + self._config.kept_s
        self._moved.unpark_all()

    # to the others

    def _keep(self, channel: str, payload: bytes) -> None:
        self._kept.add(channel, payload, self._db.now_us(), self._gone)
        self._moved.unpark_all()

    async def _publish_forever(self) -> None:
        while True:
            while self._published >= self._kept.last:
                await self._moved.park()
            signals = self._kept.after(self._published)
            last = signals[-1].number if signals else self._kept.last
            if signals and self._is_bus_up():
                try:
                    await self._bus.publish(CHANNEL, self._encoder.encode(_Parcel(self._id, signals)))
                    SENT.labels("bus").inc(len(signals))
                    self._gone = max(self._gone, last)
                except Problem:
                    self._find_reason()
            self._published = last

    async def _write_forever(self) -> None:
        """One write after the other: numbers ascend in the order of the commits."""
        while True:
            while self._written >= self._kept.last or not self._doubts():
                await self._moved.park()
            signals = self._kept.after(self._written)
            last = signals[-1].number if signals else self._kept.last
            try:
                if signals:
                    await self._db.write(_write, self._id, signals)
            except Problem as problem:
                log.debug("signals_not_written", code=problem.code)
                await trio.sleep(PAUSE_S)
            else:
                SENT.labels("table").inc(len(signals))
                self._written = last
                self._gone = max(self._gone, last)
                await trio.sleep(GATHER_S)

    # from the others

    async def _hear_forever(self, nursery: trio.Nursery) -> None:
        async with self._bus.subscribe([CHANNEL]) as backlog:
            nursery.start_soon(self._look_forever, backlog)
            async for delivery in backlog:
                try:
                    parcel = _parcels.decode(delivery.payload)
                except msgspec.DecodeError:
                    log.warning("signals_unreadable")
                    continue
                if parcel.sender != self._id:
                    self._hear(parcel)
                elif delivery.only_here and self._is_bus_up():
                    self._find_reason()  # it could not be published, and the breaker has yet to say so

    def _hear(self, parcel: _Parcel) -> None:
        if parcel.signals and not self._others.hear(parcel.sender, parcel.signals):
            self._find_reason()

    async def _look_forever(self, backlog: Backlog) -> None:
        """Look whether the bus has lost something, and into the table when that is due."""
        lost = backlog.lost
        while True:
            with trio.move_on_after(self._config.poll_ms / 1000):
                await self._look_now.wait()
            self._look_now = trio.Event()
            if backlog.lost != lost or not self._is_bus_up():
                lost = backlog.lost
                self._find_reason()
            if self._doubts() or trio.current_time() >= self._next_look:
                await self._try_look()
            self._others.give_up(trio.current_time() - HOLD_S)

    async def _try_look(self) -> None:
        self._next_look = trio.current_time() + self._config.kept_s / 2
        try:
            await self.pass_once()
        except Problem as problem:
            log.debug("signals_not_read", code=problem.code)

    async def pass_once(self) -> None:
        """Tell what the table holds and this node has not heard; delete what is old."""
        heads = await self._db.read(_read_heads)
        for sender, head in heads.items():
            first = self._others.next_of(sender)
            while sender != self._id and first <= head:
                signals = await self._db.read(_read, sender, first)
                self._others.read(sender, signals)
                first = signals[-1].number + 1 if signals else head + 1
        now = trio.current_time()
        if heads and now >= self._next_sweep:
            self._next_sweep = now + SWEEP_S
            await self._db.relieve(_sweep, self._db.now_us() - int(LIFE_S * SECOND_US))

    def _tell(self, signal: Signal) -> None:
        if signal.channel == ALARM:
            self._doubt()
        else:
            self._subscribers.offer(Delivery(signal.channel, signal.payload))


async def _write(tx: Tx, sender: str, signals: list[Signal]) -> None:
    await tx.many(
        _KEEP, [(sender, each.number, each.channel, each.payload, each.sent_us) for each in signals]
    )


async def _read_heads(tx: Tx) -> Mapping[str, int]:
    """The highest number of each sender that has one there."""
    return dict(await tx.all(_HEADS))


async def _read(tx: Tx, sender: str, first: int) -> list[Signal]:
    return [Signal(*row) for row in await tx.all(_AFTER, sender, first, PAGE)]


async def _sweep(tx: Tx, before_us: int) -> None:
    await tx.run(_SWEEP, before_us)
