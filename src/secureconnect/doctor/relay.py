"""A client of STUN and TURN servers, as much of one as it takes to see that they work. Source: RFC 8656.

Whoever calls limits the time: an answer that does not come is waited for.
"""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol

import trio

from ..settings import ICE_URL
from ..signaling.ice import Credentials
from ..signaling.stun.wire import (
    HEADER_BYTES,
    TRANSACTION_BYTES,
    Address,
    Attribute,
    Kind,
    Message,
    Method,
    address_of,
    decode,
    encode,
    error_code,
    long_term_key,
)

FIRST_WAIT_S = 0.5  # before a datagram is sent again, doubled each time
DATAGRAM_BYTES = 65_536
TRIES = 3  # without a login, with one, and with a new nonce
UDP = b"\x11\0\0\0"  # the protocol between relay and peers


class Refused(Exception):
    """The server says no.  code: of RFC 8656, section 19; 401 the login, 403 the peer, 486 the quota."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(f"{code} {words}".strip())
        self.code = code


class NotTurn(Exception):
    """What answers speaks something else."""


class Place(NamedTuple):
    """What a URL says.  transport: udp, tcp or tls."""

    host: str
    port: int
    transport: str


def place_of(url: str) -> Place:
    """url: as `settings.TURN_URLS` or `STUN_URLS` allow."""
    found = ICE_URL.fullmatch(url)
    if found is None:
        raise ValueError(f"not an address of a TURN server: {url}")
    is_tls = found["scheme"].endswith("s")
    port = int(found["port"] or (5349 if is_tls else 3478))
    return Place(found["host"].strip("[]"), port, "tls" if is_tls else found["transport"] or "udp")


class Way(Protocol):
    """Messages to a server and back.  wait_s: after which a request is sent again."""

    wait_s: float

    async def send(self, data: bytes) -> None: ...
    async def receive(self) -> bytes: ...


class Datagrams:
    wait_s = FIRST_WAIT_S

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        await self._socket.send(data)

    async def receive(self) -> bytes:
        return await self._socket.recv(DATAGRAM_BYTES)


class Stream:
    wait_s = math.inf

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._read = bytearray()

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        await self._fill(HEADER_BYTES)
        if self._read[0] >> 6:
            raise NotTurn(bytes(self._read[:HEADER_BYTES]).decode("ascii", "replace"))
        whole = HEADER_BYTES + int.from_bytes(self._read[2:4])
        await self._fill(whole)
        message = bytes(self._read[:whole])
        del self._read[:whole]
        return message

    async def _fill(self, size: int) -> None:
        while len(self._read) < size:
            if not (chunk := await self._stream.receive_some(DATAGRAM_BYTES)):
                raise ConnectionResetError("it hung up")
            self._read += chunk


@asynccontextmanager
async def way_to(place: Place, host: str) -> AsyncIterator[Way]:
    """host: an address of the place.  Raises OSError, ssl.SSLError, trio.BrokenResourceError."""
    family = trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET
    is_udp = place.transport == "udp"
    kind = trio.socket.SOCK_DGRAM if is_udp else trio.socket.SOCK_STREAM
    with trio.socket.socket(family, kind) as socket:
        await socket.connect((host, place.port))
        if is_udp:
            yield Datagrams(socket)
            return
        stream: trio.abc.Stream = trio.SocketStream(socket)
        if place.transport == "tls":
            context = ssl.create_default_context()
            stream = trio.SSLStream(stream, context, server_hostname=place.host, https_compatible=True)
        yield Stream(stream)


class Client:
    """login: None asks without any."""

    def __init__(self, way: Way, login: Credentials | None = None) -> None:
        self._way = way
        self._login = login
        self._realm = b""
        self._nonce = b""

    @property
    def is_known(self) -> bool:
        """Whether it was asked for the login."""
        return bool(self._nonce)

    async def mapped(self) -> Address:
        """This machine as a STUN server sees it."""
        return _address(await self._ask(Method.BINDING), Attribute.XOR_MAPPED_ADDRESS)

    async def allocate(self) -> Address:
        """Have a port of the relay for ten minutes. Raises Refused."""
        told = await self._ask(Method.ALLOCATE, (Attribute.REQUESTED_TRANSPORT, UDP))
        return _address(told, Attribute.XOR_RELAYED_ADDRESS)

    async def permit(self, peer: Address) -> None:
        """Let a peer send to the port. Raises Refused."""
        await self._ask(Method.CREATE_PERMISSION, (Attribute.XOR_PEER_ADDRESS, peer))

    async def echo(self, relayed: Address, data: bytes) -> None:
        """Have the relay send to the port it gave, until that has come back."""
        sent = (Attribute.XOR_PEER_ADDRESS, relayed), (Attribute.DATA, data)
        while True:
            await self._way.send(encode(Method.SEND, Kind.INDICATION, os.urandom(TRANSACTION_BYTES), sent))
            with trio.move_on_after(FIRST_WAIT_S):
                while (await self._heard()).get(Attribute.DATA) != data:
                    pass
                return

    async def release(self) -> None:
        """Give the port back. Raises Refused."""
        await self._ask(Method.REFRESH, (Attribute.LIFETIME, bytes(4)))

    async def _ask(self, method: Method, *attributes: tuple[int, bytes | Address]) -> Message:
        for _ in range(TRIES):
            told = await self._exchange(method, attributes)
            if told.kind is Kind.SUCCESS:
                return told
            code, words = error_code(told.get(Attribute.ERROR_CODE))
            nonce = told.get(Attribute.NONCE)
            is_challenge = code == 438 or (code == 401 and not self._nonce)
            if self._login is None or nonce is None or not is_challenge:
                break
            self._realm, self._nonce = told.get(Attribute.REALM) or self._realm, nonce
        raise Refused(code, words)

    async def _exchange(self, method: Method, attributes: Sequence[tuple[int, bytes | Address]]) -> Message:
        transaction = os.urandom(TRANSACTION_BYTES)
        key = None
        if self._login is not None and self._nonce:
            name, password = self._login
            key = long_term_key(name, self._realm.decode("utf-8", "replace"), password)
            who = (Attribute.USERNAME, name.encode()), (Attribute.REALM, self._realm)
            attributes = [*attributes, *who, (Attribute.NONCE, self._nonce)]
        request = encode(method, Kind.REQUEST, transaction, attributes, key=key)
        wait_s = self._way.wait_s
        while True:
            await self._way.send(request)
            with trio.move_on_after(wait_s):
                while (told := await self._heard()).transaction != transaction:
                    pass
                return told
            wait_s *= 2

    async def _heard(self) -> Message:
        try:
            return decode(await self._way.receive())
        except ValueError as exc:
            raise NotTurn(str(exc)) from exc


def _address(told: Message, attribute: Attribute) -> Address:
    try:
        return address_of(told.get(attribute) or b"", told.transaction)
    except ValueError as exc:
        raise NotTurn("no address in the answer") from exc
