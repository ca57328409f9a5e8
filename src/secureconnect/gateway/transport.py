"""The bytes of one connection: taken from and given to a socket, every wait for its client bounded.

`send` never waits; what the socket would not take waits in the transport, in order, for whoever awaits
`drain`. A client that takes nothing for `write_timeout_s` is cut. Only `Cancelled` is ever raised: a client
that has gone reads as the end, and is sent nothing more.
"""

from __future__ import annotations

import math
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

import trio

from ..config import GatewayConfig

RECEIVE_BYTES = 65_536
SEND_BYTES = 65_536  # each gets `write_timeout_s`, so that a large answer may take long on a slow link
FILE_BYTES = 1_048_576  # of a file at a time
DISK = trio.CapacityLimiter(8)  # threads that send files
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once


class Transport:
    """Plain TCP; `tls.TlsTransport` is the same through TLS.

    address: of the client.  last_read: trio's time of the last byte received.
    gone: nothing can be sent any more.  on_gone: called once that is so, without a wait.
    end_at: trio's time by which the connection is over, whatever its client does.
    """

    __slots__ = (
        "_config",
        "_draining",
        "_sock",
        "_waiting",
        "address",
        "end_at",
        "ended",
        "gone",
        "hung_up",
        "last_read",
        "on_gone",
    )

    is_secure = False

    def __init__(self, sock: socket.socket, address: str, config: GatewayConfig) -> None:
        self.address = address
        self.last_read = trio.current_time()
        self.gone = False
        self.on_gone: Callable[[], None] | None = None
        self.end_at = math.inf
        self.hung_up = False  # the client has sent FIN, or is cut
        self.ended = False  # we have
        self._sock = sock
        self._config = config
        self._waiting: list[memoryview] = []  # what the socket would not take; an empty deque is 760 bytes
        self._draining: trio.CancelScope | None = None

    # reading

    async def receive(self) -> bytes:
        """The next bytes; b"" when the client has hung up, or this was interrupted. One reader at a time."""
        while not self.hung_up:
            try:
                await trio.lowlevel.wait_readable(self._sock)
                data = self._sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:  # closed, or interrupted
                return b""
            except OSError:
                self.lose()
                return b""
            if not data:
                self.hung_up = True
            else:
                self.last_read = trio.current_time()
            return data
        return b""

    def interrupt(self) -> None:
        """Let whoever waits in `receive` return without anything. A cancel scope for each wait would do it,
        too, at the price of half of what a short message costs."""
        trio.lowlevel.notify_closing(self._sock)

    def look(self) -> None:
        """Note whether the client is still there, without taking what it sent: for when nobody reads."""
        try:
            if self._sock.recv(1, socket.MSG_PEEK):
                self.last_read = trio.current_time()
            else:
                self.hung_up = True
        except BlockingIOError:
            pass
        except OSError:
            self.lose()

    # writing

    @property
    def is_blocked(self) -> bool:
        """Whether something sent waits for the client."""
        return bool(self._waiting)

    def send(self, data: bytes | memoryview) -> bool:
        """Send now what can be sent; never waits. False if some of it waits for `drain`."""
        if self.gone or self.ended:
            return True
        if self._waiting:
            self._waiting.append(memoryview(data))
            return False
        try:
            taken = self._sock.send(data)
        except BlockingIOError:
            taken = 0
        except OSError:
            self.lose()
            return True
        if taken == len(data):
            return True
        self._waiting.append(memoryview(data)[taken:])
        return False

    async def drain(self) -> None:
        """Wait until everything was handed to the network, or the client is cut. One waiter at a time."""
        while self._waiting and not self.gone:
            due = min(trio.current_time() + self._config.write_timeout_s, self.end_at)
            with trio.CancelScope(deadline=due) as self._draining:
                await self._take_away(SEND_BYTES)
            expired, self._draining = self._draining.cancelled_caught, None
            if expired:
                self.cut()

    async def send_all(self, data: bytes) -> None:
        """Send and wait; large data in parts, so that it is not copied for each client that reads slowly."""
        if len(data) <= SEND_BYTES:
            if not self.send(data):
                await self.drain()
            return
        view = memoryview(data)
        for start in range(0, len(data), SEND_BYTES):
            if self.gone:
                return
            if not self.send(view[start : start + SEND_BYTES]):
                await self.drain()

    async def send_file(
        self, file: BinaryIO, start: int, size: int, sent: Callable[[int], None] | None = None
    ) -> None:
        """Send `size` bytes of an open file from `start` on, without copying them through this process. A
        file that turns out to be shorter ends the connection.  sent: as in `edge.File`."""
        await self.drain()
        while size and not self.gone:
            due = min(trio.current_time() + self._config.write_timeout_s, self.end_at)
            with trio.CancelScope(deadline=due) as self._draining:
                taken = await self._send_piece(file, start, min(size, FILE_BYTES))
                start, size = start + taken, size - taken
                if sent is not None:
                    sent(taken)
            expired, self._draining = self._draining.cancelled_caught, None
            if expired:
                self.cut()

    async def _send_piece(self, file: BinaryIO, start: int, size: int) -> int:
        """In a thread: the disk may be slow."""
        try:
            await trio.lowlevel.wait_writable(self._sock)
            taken = await trio.to_thread.run_sync(
                os.sendfile, self._sock.fileno(), file.fileno(), start, size, limiter=DISK
            )
        except (BlockingIOError, trio.ClosedResourceError):
            return 0
        except OSError:
            self.lose()
            return 0
        if not taken:
            self.cut()
        return taken

    async def _take_away(self, size: int) -> None:
        """Hand `size` bytes of what waits to the socket, or all of it if that is less."""
        while self._waiting and size > 0:
            try:
                await trio.lowlevel.wait_writable(self._sock)
                if self.gone:  # the reader found out meanwhile
                    return
                taken = self._sock.send(self._waiting[0])
            except (BlockingIOError, trio.ClosedResourceError):  # the latter when the reader was interrupted
                continue
            except OSError:
                self.lose()
                return
            size -= taken
            if taken == len(self._waiting[0]):
                del self._waiting[0]
            else:
                self._waiting[0] = self._waiting[0][taken:]

    # ending

    def end_by(self, deadline: float) -> None:
        """Whatever the client does, nothing waits for it after `deadline` (trio's time)."""
        self.end_at = min(self.end_at, deadline)
        if self._draining is not None:
            self._draining.deadline = min(self._draining.deadline, deadline)

    def end(self) -> None:
        """Say that nothing more comes (FIN); never waits."""
        if not self.ended:
            self.ended = True
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Close now, and drop what the client has not taken."""
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()

    def close(self) -> None:
        self.hung_up = True
        with suppress(OSError):
            trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        self.lose()

    def lose(self) -> None:
        """Nothing can be sent any more."""
        self.hung_up = True
        if not self.gone:
            self.gone = True
            self._waiting.clear()
            if self.on_gone is not None:
                self.on_gone()

    async def linger(self, within_s: float) -> None:
        """Read and throw away until the client hangs up: closing with unread bytes would reset the
        connection, and with it the answer the client has not read yet."""
        with trio.CancelScope(deadline=min(trio.current_time() + within_s, self.end_at)):
            while await self.receive():
                pass
