"""Accepts connections, and finds out for each what it speaks: PROXY protocol, TLS, HTTP/2 or HTTP/1.1.

Every accepted connection is ours first, and one task of its own: limits, its address, its handshake, the time
its first request may take. `http1` serves it then; HTTP/2 goes to Hypercorn (`http2`).
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import structlog
import trio

from ..edge import subscriber_of
from ..errors import Overloaded, Problem, RateLimited
from ..metrics import counter, gauge
from . import proxy
from .faults import note
from .http1 import Http1, Site, unread
from .seam import Seam
from .tls import Certificates, TlsTransport
from .transport import Transport

if TYPE_CHECKING:
    from .http2 import Http2

log = structlog.get_logger(module="gateway")

OPEN = gauge("secureconnect_gateway_connections_open", "Open connections.")
# reason: OVERLOADED, RATE_LIMITED
REFUSED = counter("secureconnect_gateway_connections_refused_total", "Connections not let in.", ["reason"])
# step: tls, proxy_header
FAILED = counter("secureconnect_gateway_connections_failed_total", "Connections never opened.", ["step"])

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # what a client begins with that speaks HTTP/2
UNSENT_BYTES = 65_536  # of one connection in the kernel's buffer
ACCEPTS_A_TURN = 64
REFUSING = 100  # refused connections that are told so at a time; more are closed unanswered
ACCEPT_PAUSE_S = 0.1
WATCH_S = 1.0
LOOKS_A_TURN = 256
_SHORT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_OUR_FAULT = {errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK}


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
    """All open connections, and the loops that accept them.

    seam: serves what comes by HTTP/2.
    """

    def __init__(self, site: Site, seam: Seam, certificates: Certificates) -> None:
        self.site = site
        self.seam = seam
        self.certificates = certificates
        self._config = site.config
        self._heralds = [ip_network(each, strict=False) for each in site.config.proxy_protocol_from]
        self._open: set[Connection] = set()
        self._held: dict[str, int] = {}  # connections of each subscriber
        self._refusing = 0
        self._listening: list[socket.socket] = []
        self._empty = trio.Event()

    async def accept(self, listening: socket.socket, connections: trio.Nursery) -> None:
        """Accept until `stop`; connections are served in the nursery `connections`."""
        self._listening.append(listening)
        with listening:
            while listening.fileno() >= 0:
                try:
                    await trio.lowlevel.wait_readable(listening)
                    for _ in range(ACCEPTS_A_TURN):
                        sock, peer = listening.accept()
                        self._take(sock, str(peer[0]), connections)
                except (BlockingIOError, ConnectionAbortedError, trio.ClosedResourceError):
                    continue
                except OSError as exc:  # Linux tells errors of the network here, too; a firewall its own
                    if listening.fileno() < 0:  # `stop` came between the client and us
                        return
                    if exc.errno in _OUR_FAULT:
                        raise
                    log.warning("accept_failed", error=errno.errorcode.get(exc.errno or 0))
                    if exc.errno in _SHORT_OF:
                        await trio.sleep(ACCEPT_PAUSE_S)

    def _take(self, sock: socket.socket, address: str, connections: trio.Nursery) -> None:
        sock.setblocking(False)
        problem = self.refusal_of(address)
        if problem is None:
            connection = Connection(sock, address, self)
            self._open.add(connection)
            self.count(address, 1)
            connections.start_soon(self._serve, connection)
            return
        REFUSED.labels(problem.code).inc()
        if self._refusing < REFUSING and self.certificates.context is None:
            self._refusing += 1
            connections.start_soon(self._refuse, Transport(sock, address, self._config), problem)
        else:
            sock.close()

    def refusal_of(self, address: str) -> Problem | None:
        """Why no more connections are taken from `address`. A proxy of ours may hold any number."""
        if len(self._open) >= self._config.max_connections:
            return Overloaded()
        return self.excess_of(address)

    def excess_of(self, address: str) -> Problem | None:
        if self._held.get(subscriber_of(address), 0) < self._config.max_connections_per_address:
            return None
        if is_loopback(address) or self.site.gate.is_trusted(address) or self.is_herald(address):
            return None
        return RateLimited("There are too many connections from this address.")

    def is_herald(self, address: str) -> bool:
        """Whether connections from there begin with a PROXY header."""
        if not self._heralds:
            return False
        parsed = ip_address(address.partition("%")[0])
        mapped = getattr(parsed, "ipv4_mapped", None)
        return any((mapped or parsed) in network for network in self._heralds)

    def count(self, address: str, change: int) -> None:
        subscriber = subscriber_of(address)
        held = self._held.pop(subscriber, 0) + change
        if held:
            self._held[subscriber] = held

    async def _serve(self, connection: Connection) -> None:
        OPEN.inc()
        try:
            await connection.serve()
        except Exception:
            note("connection_failed")
        finally:
            OPEN.dec()
            self._open.discard(connection)
            self.count(connection.address, -1)
            if not self._open:
                self._empty.set()

    async def _refuse(self, transport: Transport, problem: Problem) -> None:
        try:
            transport.send(unread(problem, self.site.gate))
            transport.end()
            await transport.linger(self._config.close_timeout_s)
        finally:
            self._refusing -= 1
            transport.close()

    async def watch(self) -> None:
        """End what clients have left or let wait for too long, for ever."""
        config = self._config
        while True:
            await trio.sleep(min(WATCH_S, config.header_timeout_s / 4, config.keep_alive_s / 4))
            for number, connection in enumerate(tuple(self._open), 1):
                try:
                    connection.look(trio.current_time())
                except Exception:  # one connection never ends the look at all others
                    note("look_failed")
                if not number % LOOKS_A_TURN:
                    await trio.lowlevel.checkpoint()

    def stop(self) -> None:
        """Accept no more, and close what is idle."""
        self.site.closing = True
        for listening in self._listening:
            if listening.fileno() >= 0:
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
    """One client, from accept to close.

    address: the client's; before its PROXY header, the proxy's.
    """

    __slots__ = ("_config", "_engine", "_listener", "_opening", "_sock", "_transport", "address")

    def __init__(self, sock: socket.socket, address: str, listener: Listener) -> None:
        self.address = address
        self._sock = sock
        self._listener = listener
        self._config = listener.site.config
        self._transport = Transport(sock, address, self._config)
        self._engine: Http1 | Http2 | None = None
        self._opening = trio.CancelScope(deadline=trio.current_time() + self._config.header_timeout_s)

    async def serve(self) -> None:
        """Serve until either side ends it; afterwards the socket is closed."""
        try:
            with self._opening:
                first = await self._open()
                if first is not None:
                    self._engine = await self._engine_for(first)
                first = None  # or it would stay for as long as the connection does
            if self._engine is not None:
                await self._engine.serve(self._opening.deadline)
        finally:
            self._transport.close()

    async def _open(self) -> bytes | None:
        """Take the PROXY header and agree on TLS, where they are expected. Returns the first bytes of HTTP as
        far as they tell its version, or None when there is nobody to serve."""
        listener, first = self._listener, b""
        if listener.is_herald(self.address):
            try:
                first = await self._take_proxy_header()
            except proxy.BadHeader as exc:
                log.warning("proxy_header_refused", peer=self.address, error=str(exc))
                FAILED.labels("proxy_header").inc()
                return None
            except Problem as problem:
                REFUSED.labels(problem.code).inc()
                if listener.certificates.context is None:
                    self._transport.send(unread(problem, listener.site.gate))
                    self._transport.end()
                    await self._transport.linger(self._config.close_timeout_s)
                return None
        context = listener.certificates.context
        if context is not None:
            self._transport = tls = TlsTransport(self._sock, self.address, self._config, context)
            await tls.handshake(first)
            if not tls.gone:
                return b""
            FAILED.labels("tls").inc()
            return None
        while not first or (first != PREFACE and PREFACE.startswith(first)):
            part = await self._transport.receive()
            if not part:
                return first or None
            first += part
        return first

    async def _take_proxy_header(self) -> bytes:
        """Be the client that the header names. Returns what came behind it. Raises BadHeader, and RateLimited
        if that client has too many connections."""
        data = b""
        while (header := proxy.parse(data)) is None:
            part = await self._transport.receive()
            if not part:
                raise proxy.BadHeader("the connection ended before its header")
            data += part
        if header.source is not None:
            problem = self._listener.excess_of(header.source)
            if problem is not None:
                raise problem
            self._listener.count(self.address, -1)
            self.address = self._transport.address = header.source
            self._listener.count(self.address, 1)
        return data[header.size :]

    async def _engine_for(self, first: bytes) -> Http1 | Http2:
        transport, listener = self._transport, self._listener
        agreed = isinstance(transport, TlsTransport) and transport.alpn == "h2"
        if agreed or (not transport.is_secure and first.startswith(PREFACE)):
            return await listener.seam.http2(transport, first)
        return Http1(transport, first, listener.site)

    def look(self, now: float) -> None:
        if self._engine is not None:
            self._engine.look(now)

    def end_by(self, deadline: float) -> None:
        """Whatever the client does, the connection is over by `deadline` (trio's time)."""
        self._opening.deadline = min(self._opening.deadline, deadline)
        self._transport.end_by(deadline)
        if self._engine is not None:
            self._engine.end_by(deadline)

    def end_if_idle(self) -> None:
        if self._engine is not None:
            self._engine.end_if_idle()
        else:
            self._opening.cancel()


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1")
