"""Redis's twin: the cache and the bus of a single process, in its memory."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from heapq import heapify, heappop, heappush

import trio

from ..clock import SECOND_US
from ..config import MemoryConfig
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


class MemoryBus:
    """contracts.Bus within this process.

    only_here: other nodes share the database, and hear nothing of what is published: each delivery says so,
    and nobody takes hearing himself for a bus that joins the nodes.
    """

    def __init__(self, config: MemoryConfig, *, only_here: bool = False) -> None:
        self._limit = config.bus_backlog
        self._only_here = only_here
        self._subscribers: dict[str, set[MemoryBacklog]] = {}

    async def publish(self, channel: str, payload: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        delivery = Delivery(channel, payload, self._only_here)
        for backlog in self._subscribers.get(channel, ()):
            backlog.offer(delivery)

    @asynccontextmanager
    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[MemoryBacklog]:
        backlog = MemoryBacklog(self._limit)
        for channel in channels:
            self._subscribers.setdefault(channel, set()).add(backlog)
        try:
            yield backlog
        finally:
            for channel in set(channels):
                self._subscribers[channel].discard(backlog)
                if not self._subscribers[channel]:
                    del self._subscribers[channel]
            backlog.close()


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
