"""A TCP proxy that passes, delays, stalls, refuses, cuts and garbles."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import trio


class Toll:
    """Stands before a server. The faults can be changed at any time; new and open connections obey them."""

    def __init__(self, target: str, seed: int) -> None:
        self.url = ""
        self.delay_s = 0.0  # before each chunk
        self.refuses = False
        self.garbles = False  # what the server says arrives as noise of the same length
        self._target = urlsplit(target)
        self._random = random.Random(seed)
        self._open: set[trio.CancelScope] = set()
        self._flow = trio.Event()
        self._flow.set()
        self._stalls_half_way = False
        self._stall_in: int | None = None

    def stall(self, *, half_way: bool = False) -> None:
        """Keep every connection open and move nothing.  half_way: except the first half of the next chunk, so
        that whoever waits for the rest has begun to read."""
        self._flow = trio.Event()
        self._stalls_half_way = half_way

    def stall_after(self, count: int) -> None:
        """Stall by itself once this many bytes more have come, in both directions together."""
        self._stall_in = count

    @property
    def stalls(self) -> bool:
        return not self._flow.is_set()

    def flow(self) -> None:
        self._stall_in = None
        self._flow.set()

    def cut(self, share: float = 1.0) -> int:
        """End each open connection with this probability. Returns how many."""
        doomed = [scope for scope in self._open if self._random.random() < share]
        for scope in doomed:
            scope.cancel()
        return len(doomed)

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    async def serve(self, client: trio.SocketStream) -> None:
        if self.refuses:
            client.socket.close()
            return
        try:
            server = await trio.open_tcp_stream(self._target.hostname or "", self._target.port or 0)
        except OSError:
            client.socket.close()
            return
        try:
            async with trio.open_nursery() as nursery:
                self._open.add(nursery.cancel_scope)
                nursery.start_soon(self._carry, client, server, nursery.cancel_scope, False)
                nursery.start_soon(self._carry, server, client, nursery.cancel_scope, True)
        finally:
            self._open.discard(nursery.cancel_scope)
            client.socket.close()
            server.socket.close()

    async def _carry(
        self, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope, is_answer: bool
    ) -> None:
        try:
            async for received in source:
                chunk = bytes(received)
                self._count(len(chunk))
                if not self._flow.is_set():
                    half = len(chunk) // 2 if self._stalls_half_way else 0
                    await sink.send_all(chunk[:half])
                    chunk = chunk[half:]
                    await self._flow.wait()
                if self.delay_s:
                    await trio.sleep(self.delay_s)
                if self.garbles and is_answer:
                    chunk = self._random.randbytes(len(chunk))
                await sink.send_all(chunk)
        except trio.BrokenResourceError:
            pass
        both.cancel()

    def _count(self, size: int) -> None:
        if self._stall_in is not None:
            self._stall_in -= size
            if self._stall_in <= 0:
                self._stall_in = None
                self.stall()


@asynccontextmanager
async def toll_before(url: str, seed: int = 1) -> AsyncIterator[Toll]:
    """A toll on a free port of the loopback, before the server at `url`."""
    toll = Toll(url, seed)
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, toll.serve, 0, host="127.0.0.1"))
        toll.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        yield toll
        nursery.cancel_scope.cancel()
