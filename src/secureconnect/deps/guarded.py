"""The protocols of `contracts` behind a guard; where it is safe, with their twin to fall back on.

Memory stands in for what can be lost (counters, hints), never for what a person was told is stored.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import trio

from ..errors import Unavailable
from .contracts import (
    Allowance,
    Backlog,
    Bus,
    Cache,
    Database,
    Delivery,
    Mail,
    Mailer,
    Objects,
    Place,
    StoredObject,
    Unit,
)
from .guard import Guard
from .memory import MemoryBacklog, MemoryCache, Subscribers

T = TypeVar("T")
P = ParamSpec("P")

RETURN_S = 1.0  # between two attempts to subscribe again


class GuardedDatabase:
    """contracts.Database with a breaker alone: the pool is the bulkhead, the statements have their limit, and
    a transaction is never begun again from outside."""

    def __init__(self, inner: Database, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard

    async def write(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._guard.counted():
            return await self._inner.write(unit, *args, **kwargs)

    async def relieve(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._guard.counted():
            return await self._inner.relieve(unit, *args, **kwargs)

    async def read(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._guard.counted():
            return await self._inner.read(unit, *args, **kwargs)

    def now_us(self) -> int:
        return self._inner.now_us()


class GuardedMailer:
    """contracts.Mailer behind a breaker, and within the time of one mail. No stand-in: mail waits."""

    def __init__(self, inner: Mailer, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard

    @property
    def is_away(self) -> bool:
        return not self._guard.is_up

    async def send(self, mail: Mail) -> None:
        await self._guard.call(self._inner.send, mail)


class FallbackCache:
    """contracts.Cache that never fails because its server does: the call that fails, and all while it is
    away, go to this process's memory, whose content is dropped, not merged, once the server is back.

    Limits are then counted by every node for itself, so each allows its share: limit / nodes, at least 1.
    A key deleted meanwhile may come back with the server, until its time ends.

    make: an empty stand-in.  nodes: how many nodes share the server.
    """

    def __init__(
        self, real: Cache, make: Callable[[], MemoryCache], guard: Guard, nodes: Callable[[], int]
    ) -> None:
        self._real = real
        self._make = make
        self._guard = guard
        self._nodes = nodes
        self._memory: MemoryCache | None = None
        guard.observe(self._returned)

    async def get(self, key: str) -> bytes | None:
        return await self._first(lambda: self._real.get(key), lambda memory: memory.get(key))

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        await self._first(
            lambda: self._real.put(key, value, ttl_s), lambda memory: memory.put(key, value, ttl_s)
        )

    async def delete(self, key: str) -> None:
        await self._first(lambda: self._real.delete(key), lambda memory: memory.delete(key))

    async def take(self, key: str, limit: int, window_s: float) -> Allowance:
        return await self._first(
            lambda: self._real.take(key, limit, window_s),
            lambda memory: memory.take(key, self._share(limit), window_s),
        )

    async def take_each(self, keys: Sequence[str], limit: int, window_s: float) -> list[Allowance]:
        return await self._first(
            lambda: self._real.take_each(keys, limit, window_s),
            lambda memory: memory.take_each(keys, self._share(limit), window_s),
        )

    def _share(self, limit: int) -> int:
        return max(1, limit // max(1, self._nodes()))

    async def _first(
        self, ask: Callable[[], Awaitable[T]], instead: Callable[[MemoryCache], Awaitable[T]]
    ) -> T:
        # never made again: memory answers at once
        try:
            answer = await self._guard.call(ask)
        except Unavailable:
            if self._memory is None:
                self._memory = self._make()
            return await instead(self._memory)
        if self._guard.is_up:
            self._memory = None
        return answer

    def _returned(self, is_up: bool) -> None:
        if is_up:
            self._memory = None


class FallbackBus:
    """contracts.Bus that never fails because its server does: what cannot be published is delivered in this
    process, marked `only_here`. A publication whose answer was lost may arrive both ways.

    Once the server is back, and after every new subscription, `Backlog.lost` grows: what other nodes said
    meanwhile must be looked up.

    backlog: deliveries that may wait for one subscriber.
    """

    is_alone = False

    def __init__(self, real: Bus, guard: Guard, backlog: int) -> None:
        self._real = real
        self._guard = guard
        self._subscribers = Subscribers(backlog)
        self._back = trio.Event()
        guard.observe(self._changed)

    async def publish(self, channel: str, payload: bytes) -> None:
        try:
            await self._guard.call(self._real.publish, channel, payload)
        except Unavailable:
            self._subscribers.offer(Delivery(channel, payload, only_here=True))

    @asynccontextmanager
    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[MemoryBacklog]:
        failure: BaseException | None = None
        with self._subscribers.joined(channels) as backlog:
            async with trio.open_nursery() as nursery:
                settled = trio.Event()
                nursery.start_soon(self._listen, channels, backlog, settled)
                try:
                    await settled.wait()
                    yield backlog
                except BaseException as exc:
                    failure = exc  # raised below as it is: the nursery would wrap it in a group
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _listen(self, channels: Sequence[str], backlog: MemoryBacklog, settled: trio.Event) -> None:
        """Hand on what the server delivers; subscribe again whenever that ends.

        settled: set once subscribed, or when it turns out that there is nobody to subscribe to.
        """
        while True:
            if self._guard.is_up:
                try:
                    async with self._real.subscribe(channels) as real:
                        backlog.lost += settled.is_set()
                        settled.set()
                        await _hand_on(real, backlog)
                except Unavailable:
                    pass
            settled.set()
            with trio.move_on_after(RETURN_S):
                await self._back.wait()

    def _changed(self, is_up: bool) -> None:
        if not is_up:
            return
        self._back.set()
        self._back = trio.Event()
        for backlog in self._subscribers.all():
            backlog.lost += 1


async def _hand_on(real: Backlog, backlog: MemoryBacklog) -> None:
    lost = real.lost
    async for delivery in real:
        backlog.offer(delivery)
        backlog.lost += real.lost - lost
        lost = real.lost


class _Source:
    """Chunks on their way to the store.  failure: what broke on our side."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self.failure: Exception | None = None
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as exc:
            self.failure = exc
            raise


class GuardedObjects:
    """contracts.Objects behind breaker and bulkhead. What moves bytes takes the time that people and sizes
    need, and has no limit as a whole: the adapter bounds the time without a byte."""

    def __init__(self, inner: Objects, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> StoredObject:
        source = _Source(chunks)
        async with self._guard.slot():
            with self._guard.counted() as call:
                try:
                    return await self._inner.put(key, source, limit_bytes=limit_bytes)
                finally:
                    call.innocent = source.failure

    def get(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        return self._each(self._inner.get(key, start, end))

    async def stat(self, key: str) -> StoredObject:
        return await self._guard.call_safely(self._inner.stat, key)

    async def copy(self, source: str, target: str, *, version: str | None = None) -> StoredObject:
        async with self._guard.slot():
            with self._guard.counted():
                return await self._inner.copy(source, target, version=version)

    async def delete(self, key: str) -> None:
        await self._guard.call_safely(self._inner.delete, key)

    def list(self, prefix: str) -> AsyncIterator[str]:
        return self._each(self._inner.list(prefix))

    def path_of(self, key: str) -> Path | None:
        return self._inner.path_of(key)

    def where(self, key: str) -> Place:
        return self._inner.where(key)

    async def _each(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """A place and a call for each step: a reader who takes his time keeps nobody from the store."""
        stream = cast("AsyncGenerator[T, None]", items)  # what iterates over a network can be closed
        async with aclosing(stream):
            while True:
                async with self._guard.slot():
                    with self._guard.counted():
                        try:
                            item = await anext(stream)
                        except StopAsyncIteration:
                            return
                yield item
