"""Accepts connections, and finds out for each what it speaks: PROXY protocol, TLS, HTTP/2 or HTTP/1.1.

Every accepted connection is ours first, and one task of its own: limits, its address, its handshake, the time
its first request may take. `http1` serves it then; HTTP/2 goes to Hypercorn (`http2`).
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress

import structlog
import trio

from ..errors import Overloaded, Problem, RateLimited
from ..metrics import counter, gauge
from .admission import subscriber_of
from .http1 import Http1, Site, unread
from .transport import Transport

log = structlog.get_logger(module="gateway")

OPEN = gauge("secureconnect_gateway_connections_open", "Open connections.")
# refused: full, address, proxy.  failed: tls, proxy_header
REFUSED = counter("secureconnect_gateway_connections_refused_total", "Connections not let in.", ["reason"])

UNSENT_BYTES = 65_536  # of one connection in the kernel's buffer
ACCEPTS_A_TURN = 64
REFUSING = 100  # refused connections that are told so at a time; more are closed unanswered
ACCEPT_PAUSE_S = 0.1
WATCH_S = 1.0
LOOKS_A_TURN = 256
_SHORT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_GONE_ALREADY = {errno.ECONNABORTED, errno.EPERM, errno.EPROTO}


async def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen; what they accept inherits their options. Raises OSError."""
    listening = []
    for opened in await trio.open_tcp_listeners(port, host=host):
        opened.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # or the kernel would take megabytes for a client that does not read, and nobody would know
        opened.socket.setsockopt(socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        listening.append(socket.socket(fileno=opened.socket.detach()))
    return listening


class Listener:
    """All open connections, and the loops that accept them."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._config = site.config
        self._open: set[Connection] = set()
        self._held: dict[str, int] = {}  # connections of each subscriber
        self._refusing = 0
        self._listening: list[socket.socket] = []
        self._empty = trio.Event()

    async def accept(self, listening: socket.socket, connections: trio.Nursery) -> None:
        """Accept until `stop`; connections are served in the nursery `connections`."""
        self._listening.append(listening)
        with listening:
            while True:
                try:
                    await trio.lowlevel.wait_readable(listening)
                    for _ in range(ACCEPTS_A_TURN):
                        sock, peer = listening.accept()
                        self._take(sock, str(peer[0]), connections)
                except BlockingIOError:
                    continue
                except (trio.ClosedResourceError, ValueError):
                    return
                except OSError as exc:
                    if exc.errno in _GONE_ALREADY:
                        continue
                    if listening.fileno() < 0:
                        return
                    if exc.errno not in _SHORT_OF:
                        raise
                    log.warning("accept_failed", error=errno.errorcode[exc.errno])
                    await trio.sleep(ACCEPT_PAUSE_S)

    def _take(self, sock: socket.socket, address: str, connections: trio.Nursery) -> None:
        sock.setblocking(False)
        problem = self.refusal_of(address)
        if problem is None:
            connection = Connection(Transport(sock, address, self._config), self)
            self._open.add(connection)
            self.count(address, 1)
            connections.start_soon(self._serve, connection)
            return
        REFUSED.labels(problem.code.lower()).inc()
        if self._refusing < REFUSING:
            self._refusing += 1
            connections.start_soon(self._refuse, Transport(sock, address, self._config), problem)
        else:
            sock.close()

    def refusal_of(self, address: str) -> Problem | None:
        """Why no more connections are taken from `address`. A proxy of ours may hold any number."""
        if len(self._open) >= self._config.max_connections:
            return Overloaded()
        if self._held.get(subscriber_of(address), 0) < self._config.max_connections_per_address:
            return None
        if is_loopback(address) or self._site.gate.is_trusted(address):
            return None
        return RateLimited("There are too many connections from this address.")

    def count(self, address: str, change: int) -> None:
        subscriber = subscriber_of(address)
        held = self._held.pop(subscriber, 0) + change
        if held:
            self._held[subscriber] = held

    async def _serve(self, connection: Connection) -> None:
        address = connection.transport.address
        try:
            await connection.serve()
        except Exception:
            log.exception("connection_failed")
        finally:
            connection.transport.close()
            self._open.discard(connection)
            self.count(address, -1)
            if not self._open:
                self._empty.set()

    async def _refuse(self, transport: Transport, problem: Problem) -> None:
        try:
            transport.send(unread(problem, self._site.gate))
            transport.end()
            await transport.linger(self._config.close_timeout_s)
        finally:
            self._refusing -= 1
            transport.close()

    async def watch(self) -> None:
        """End the requests of clients that have left, for ever."""
        while True:
            await trio.sleep(WATCH_S)
            for number, connection in enumerate(tuple(self._open), 1):
                connection.look()
                if not number % LOOKS_A_TURN:
                    await trio.lowlevel.checkpoint()

    def stop(self) -> None:
        """Accept no more, and close what is idle."""
        self._site.closing = True
        for listening in self._listening:
            with suppress(OSError):
                trio.lowlevel.notify_closing(listening)
            listening.close()
        for connection in tuple(self._open):
            connection.end_if_idle()

    def end_all_by(self, deadline: float) -> None:
        for connection in tuple(self._open):
            connection.end_by(deadline)

    async def wait_empty(self) -> None:
        while self._open:
            self._empty = trio.Event()
            await self._empty.wait()


class Connection:
    """One client, from accept to close."""

    def __init__(self, transport: Transport, listener: Listener) -> None:
        self.transport = transport
        self._site = listener._site
        self._listener = listener
        self._http: Http1 | None = None
        self._opening = trio.CancelScope()

    async def serve(self) -> None:
        due = trio.current_time() + self._site.config.header_timeout_s
        self._opening.deadline = min(due, self.transport.end_at)
        with self._opening:
            first = await self.transport.receive()
        if self._opening.cancelled_caught or not first:
            return
        self._http = Http1(self.transport, self._site)
        await self._http.serve(first, due)

    def look(self) -> None:
        if self._http is not None:
            self._http.look()

    def end_by(self, deadline: float) -> None:
        """Whatever the client does, the connection is over by `deadline` (trio's time)."""
        self.transport.end_by(deadline)
        self._opening.deadline = min(self._opening.deadline, deadline)
        if self._http is not None:
            self._http.end_by(deadline)

    def end_if_idle(self) -> None:
        if self._http is None:
            self._opening.cancel()
        elif self._http.is_idle:
            self._http.end_if_idle()


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1")
