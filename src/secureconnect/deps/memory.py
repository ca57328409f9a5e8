"""Redis's twin: the cache, the bus and the signals of a single process, in its memory."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from heapq import heapify, heappop, heappush

import trio

from ..clock import SECOND_US
from ..config import MemoryConfig
from ..errors import TooLarge
from .contracts import Allowance, Delivery, Revoked

ROUNDING_S = 1e-6  # sums of fractions of a window miss it by this much at most
STRIDE = 32  # deliveries handed out without letting other tasks run


class _Entry:
    """value: bytes of `put`, or of `take` the theoretical arrival time.  listed: its time in the heap, never
    later than `ends`."""

    __slots__ = ("ends", "listed", "value")

    def __init__(self, value: bytes | float, ends: float) -> None:
        self.value = value
        self.ends = self.listed = ends


class MemoryCache:
    """contracts.Cache on trio's clock."""

    def __init__(self, config: MemoryConfig) -> None:
        self._limit = config.cache_entries
        self._entries: dict[str, _Entry] = {}
        self._ends: list[tuple[float, str]] = []  # a heap; items that differ from `listed` are void

    async def get(self, key: str) -> bytes | None:
        await trio.lowlevel.checkpoint_if_cancelled()
        entry = self._live(key, trio.current_time())
        return entry.value if entry is not None and isinstance(entry.value, bytes) else None

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        now = trio.current_time()
        self._set(key, value, now + ttl_s, now)

    async def delete(self, key: str) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._entries.pop(key, None)

    async def take(self, key: str, limit: int, window_s: float) -> Allowance:
        await trio.lowlevel.checkpoint_if_cancelled()
        now = trio.current_time()
        entry = self._live(key, now)
        arrival = now
        if entry is not None:
            if isinstance(entry.value, bytes):
                raise TypeError(f"{key.partition(':')[0]}: a key is for values or for take, not for both")
            arrival = max(entry.value, now)
        step_s = window_s / limit
        wait_s = arrival + step_s - window_s - now
        if wait_s > ROUNDING_S:
            return Allowance(False, 0, wait_s, arrival - now)
        arrival += step_s
        self._set(key, arrival, arrival, now)
        remaining = int((window_s - (arrival - now) + ROUNDING_S) / step_s)
        return Allowance(True, remaining, 0.0, arrival - now)

    async def take_each(self, keys: Sequence[str], limit: int, window_s: float) -> list[Allowance]:
        return [await self.take(key, limit, window_s) for key in keys]

    def _live(self, key: str, now: float) -> _Entry | None:
        entry = self._entries.get(key)
        return entry if entry is not None and entry.ends > now else None

    def _set(self, key: str, value: bytes | float, ends: float, now: float) -> None:
        entry = self._entries.get(key)
        if entry is None:
            self._drop(now)
            self._entries[key] = _Entry(value, ends)
            heappush(self._ends, (ends, key))
            return
        entry.value, entry.ends = value, ends
        if ends < entry.listed:  # a later end is noticed when the listed one comes up
            entry.listed = ends
            heappush(self._ends, (ends, key))

    def _drop(self, now: float) -> None:
        """What has ended and, if there is no room for one more, what ends next."""
        if len(self._ends) > 2 * len(self._entries) + 64:
            for entry in self._entries.values():
                entry.listed = entry.ends
            self._ends = [(entry.ends, key) for key, entry in self._entries.items()]
            heapify(self._ends)
        while self._ends and (self._ends[0][0] <= now or len(self._entries) >= self._limit):
            listed, key = heappop(self._ends)
            found = self._entries.get(key)
            if found is None or found.listed != listed:
                continue
            if found.ends > listed:
                found.listed = found.ends
                heappush(self._ends, (found.ends, key))
            else:
                del self._entries[key]


class MemoryBacklog:
    """contracts.Backlog; iteration ends with the subscription."""

    def __init__(self, limit: int) -> None:
        self.lost = 0
        self._limit = limit
        self._waiting: deque[Delivery] = deque()
        self._arrived = trio.lowlevel.ParkingLot()
        self._closed = False
        self._handed_out = 0

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self

    async def __anext__(self) -> Delivery:
        self._handed_out += 1
        if self._handed_out % STRIDE == 0:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            await self._arrived.park()
        return self._waiting.popleft()

    def offer(self, delivery: Delivery) -> None:
        if len(self._waiting) >= self._limit:
            self.lost += 1
            return
        self._waiting.append(delivery)
        self._arrived.unpark()

    def close(self) -> None:
        self._closed = True
        self._waiting.clear()
        self._arrived.unpark_all()


class Subscribers:
    """Who in this process listens to which channel.  limit: deliveries that may wait for one of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_channel: dict[str, set[MemoryBacklog]] = {}

    def of(self, channel: str) -> Collection[MemoryBacklog]:
        return self._by_channel.get(channel, ())

    def offer(self, delivery: Delivery) -> None:
        for backlog in self.of(delivery.channel):
            backlog.offer(delivery)

    def all(self) -> set[MemoryBacklog]:
        return {backlog for some in self._by_channel.values() for backlog in some}

    @contextmanager
    def joined(self, channels: Sequence[str]) -> Iterator[MemoryBacklog]:
        """One more, until the end of the block."""
        backlog = MemoryBacklog(self._limit)
        for channel in channels:
            self._by_channel.setdefault(channel, set()).add(backlog)
        try:
            yield backlog
        finally:
            for channel in set(channels):
                self._by_channel[channel].discard(backlog)
                if not self._by_channel[channel]:
                    del self._by_channel[channel]
            backlog.close()


class MemoryBus:
    """contracts.Bus within this process.

    only_here: other nodes share the database, and hear nothing of what is published: each delivery says so,
    and nobody takes hearing himself for a bus that joins the nodes.
    is_alone: of a server; tests join nodes by one of these.
    """

    def __init__(self, config: MemoryConfig, *, only_here: bool = False, is_alone: bool = False) -> None:
        self.is_alone = is_alone
        self._only_here = only_here
        self._subscribers = Subscribers(config.bus_backlog)

    async def publish(self, channel: str, payload: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._subscribers.offer(Delivery(channel, payload, self._only_here))

    @asynccontextmanager
    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[MemoryBacklog]:
        with self._subscribers.joined(channels) as backlog:
            yield backlog


class MemorySignals:
    """contracts.Signals where there is one process alone.  payload_bytes: of the largest one."""

    def __init__(self, config: MemoryConfig, payload_bytes: int) -> None:
        self._payload_bytes = payload_bytes
        self._subscribers = Subscribers(config.bus_backlog)

    def send(self, channel: str, payload: bytes) -> None:
        if len(payload) > self._payload_bytes:
            raise TooLarge(f"A signal has {self._payload_bytes} bytes at most.")
        self._subscribers.offer(Delivery(channel, payload))

    def subscribe(self, channels: Sequence[str]) -> AbstractContextManager[MemoryBacklog]:
        return self._subscribers.joined(channels)


class MemoryFeed:
    """contracts.RevocationFeed for rooms of one process: for tests, since it tells no other node.

    kept_s: how long an entry is kept.
    """

    def __init__(self, kept_s: float) -> None:
        self._kept_us = int(kept_s * SECOND_US)
        self._told_us: dict[Revoked, int] = {}

    async def add(self, revoked: Sequence[Revoked], now_us: int) -> None:
        await trio.lowlevel.checkpoint()
        for each in revoked:
            self._told_us.setdefault(each, now_us)
        for each in [each for each, us in self._told_us.items() if us <= now_us - self._kept_us]:
            del self._told_us[each]

    async def since(self, us: int) -> list[Revoked]:
        await trio.lowlevel.checkpoint()
        return [each for each, told_us in self._told_us.items() if told_us >= us]
