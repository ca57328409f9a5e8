"""Signals in order, without an await: those this node has sent, and those it hears of other nodes.

Each sender numbers its signals from 1, without holes. So whoever hears them tells what came twice, by the bus
and by the table, and what is missing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import trio
from msgspec import Struct

from .. import metrics
from ..errors import Overloaded

LOST = metrics.counter("secureconnect_signals_lost_total", "Signals of other nodes that never came.")

PARCEL = 200  # signals that go together
PARCEL_BYTES = 1_048_576
OBJECT_BYTES = 300  # what a signal takes in memory beside its payload
HELD = 1_000  # of one sender, waiting for one before them
HOLD_S = 3.0  # which is then given up: the sender hears that it is missed, and writes it into the table
SENDERS = 1_000  # those last heard are remembered; each start of a node is one more


class Signal(Struct, array_like=True, frozen=True):
    """sent_us: in the database's time."""

    number: int
    channel: str
    payload: bytes
    sent_us: int


class Kept:
    """This node's own signals of the last `kept_s`, up to `limit_bytes`.

    last: the number of the latest, 0 before there is one.
    """

    def __init__(self, kept_s: float, limit_bytes: int) -> None:
        self.last = 0
        self._kept_s = kept_s
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._signals: OrderedDict[int, tuple[float, Signal]] = OrderedDict()  # with when they end here

    def add(self, channel: str, payload: bytes, sent_us: int, gone: int) -> None:
        """gone: the highest number that has left this node: what is above makes room for nothing. Raises
        Overloaded."""
        self._expire()
        while self._bytes + len(payload) + OBJECT_BYTES > self._limit_bytes:
            number, _ = next(iter(self._signals.items()))
            if number > gone:
                raise Overloaded("Too much waits to be told to other nodes.", retry_after_s=1)
            self._drop_first()
        self.last += 1
        ends = trio.current_time() + self._kept_s
        self._signals[self.last] = (ends, Signal(self.last, channel, payload, sent_us))
        self._bytes += len(payload) + OBJECT_BYTES

    def after(self, number: int) -> list[Signal]:
        """Some of those that follow, in order; none if all of them have ended."""
        self._expire()
        found: list[Signal] = []
        size = 0
        at = max(number + 1, next(iter(self._signals), self.last + 1))
        while at <= self.last and len(found) < PARCEL and size < PARCEL_BYTES:
            _, signal = self._signals[at]
            found.append(signal)
            size += len(signal.payload)
            at += 1
        return found

    def _expire(self) -> None:
        now = trio.current_time()
        while self._signals and next(iter(self._signals.values()))[0] <= now:
            self._drop_first()

    def _drop_first(self) -> None:
        _, (_, signal) = self._signals.popitem(last=False)
        self._bytes -= len(signal.payload) + OBJECT_BYTES


class _Sender:
    """next: the number to be told next.  held: what came before its turn.  since: when that began."""

    __slots__ = ("held", "next", "since")

    def __init__(self, first: int) -> None:
        self.next = first
        self.held: dict[int, Signal] = {}
        self.since: float | None = None


class Others:
    """What is heard of the other nodes, whichever way it comes; told once, in each sender's order.

    own: this process as a sender. Ids carry their time: one that is greater began later, and is heard from
    its first signal on; another from the first that comes.  began_us: nothing sent before is told.
    """

    def __init__(self, own: str, began_us: int, tell: Callable[[Signal], None]) -> None:
        self._own = own
        self._began_us = began_us
        self._tell = tell
        self._senders: OrderedDict[str, _Sender] = OrderedDict()

    def next_of(self, sender: str) -> int:
        """The first number not told yet."""
        known = self._senders.get(sender)
        return 1 if known is None else known.next

    def hear(self, sender: str, signals: Sequence[Signal]) -> bool:
        """They came by the bus. False: one before them is missing, and they are held until it is there."""
        known = self._senders.get(sender)
        if known is None:
            known = self._remember(sender, 1 if sender > self._own else signals[0].number)
        self._senders.move_to_end(sender)
        for signal in signals:
            if signal.number == known.next:
                self._next(known, signal)
            elif signal.number > known.next:
                known.held[signal.number] = signal
        self._tell_held(known)
        if len(known.held) > HELD:
            self._give_up(known, max(known.held))
        return not known.held

    def read(self, sender: str, signals: Sequence[Signal]) -> None:
        """They stand in the table, in the order they were written in: what is missing before one of them
        will not be written any more."""
        known = self._senders.get(sender)
        if known is None:
            signals = [each for each in signals if each.sent_us >= self._began_us]
            if not signals:
                return
            known = self._remember(sender, signals[0].number)
        self._senders.move_to_end(sender)
        known.held.update((each.number, each) for each in signals if each.number >= known.next)
        self._give_up(known, signals[-1].number)

    def give_up(self, before: float) -> None:
        """Miss no longer what others wait for since then."""
        for known in self._senders.values():
            if known.since is not None and known.since <= before:
                self._give_up(known, max(known.held))

    def _remember(self, sender: str, first: int) -> _Sender:
        known = self._senders[sender] = _Sender(first)
        while len(self._senders) > SENDERS:
            self._senders.popitem(last=False)
        return known

    def _give_up(self, known: _Sender, last: int) -> None:
        """Tell what is there up to `last`, and what follows it."""
        for number in sorted(number for number in known.held if number <= last):
            LOST.inc(number - known.next)
            self._next(known, known.held.pop(number))
        self._tell_held(known)

    def _tell_held(self, known: _Sender) -> None:
        while (signal := known.held.pop(known.next, None)) is not None:
            self._next(known, signal)
        if not known.held:
            known.since = None
        elif known.since is None:
            known.since = trio.current_time()

    def _next(self, known: _Sender, signal: Signal) -> None:
        known.next = signal.number + 1
        self._tell(signal)
