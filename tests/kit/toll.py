"""A TCP proxy that passes, delays, stalls, refuses and cuts."""

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
        self._target = urlsplit(target)
        self._random = random.Random(seed)
        self._open: set[trio.CancelScope] = set()
        self._flow = trio.Event()
        self._flow.set()

    def stall(self) -> None:
        """Keep every connection open and move nothing."""
        self._flow = trio.Event()

    def flow(self) -> None:
        self._flow.set()

    def cut(self, share: float = 1.0) -> int:
        """End each open connection with this probability. Returns how many."""
        doomed = [scope for scope in self._open if self._random.random() < share]
        for scope in doomed:
            scope.cancel()
        return len(doomed)

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
                nursery.start_soon(self._carry, client, server, nursery.cancel_scope)
                nursery.start_soon(self._carry, server, client, nursery.cancel_scope)
        finally:
            self._open.discard(nursery.cancel_scope)
            client.socket.close()
            server.socket.close()

    async def _carry(
        self, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        try:
            async for chunk in source:
                await self._flow.wait()
                if self.delay_s:
                    await trio.sleep(self.delay_s)
                await sink.send_all(chunk)
        except trio.BrokenResourceError:
            pass
        both.cancel()


@asynccontextmanager
async def toll_before(url: str, seed: int = 1) -> AsyncIterator[Toll]:
    """A toll on a free port of the loopback, before the server at `url`."""
    toll = Toll(url, seed)
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, toll.serve, 0, host="127.0.0.1"))
        toll.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        yield toll
        nursery.cancel_scope.cancel()
