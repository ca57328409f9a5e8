"""HTTPS to addresses that users name: a server that goes where it is told must not be sent to its neighbours.

A name is resolved once, all its addresses must be public, and the connection goes to one of those. Redirects
are not followed, answers are read up to a bound.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpcore
import msgspec
import trio

from ..errors import Unavailable
from .contracts import Deferred, Undeliverable, Unregistered
from .public import is_public

ANSWER_BYTES = 16_384
RESOLVING = 64  # names at a time; a resolver that hangs holds a thread for as long as it likes
TRIED = 3  # addresses of one name
KEPT_S = 60.0  # a connection nobody uses
LONGEST_WAIT_S = 86_400.0  # that a service may ask for: by then a push is of no use

_ERRORS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError)


class Answer(msgspec.Struct, frozen=True):
    """headers: names in lower case.  body: its beginning."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Outward:
    """connections: open at a time.  only_public: refuse addresses of this machine and of private networks."""

    def __init__(
        self, *, connections: int, connect_s: float, trusted: ssl.SSLContext, only_public: bool
    ) -> None:
        self._timeouts = {"connect": connect_s, "pool": connect_s}
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=trusted,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=KEPT_S,
            network_backend=_Public() if only_public else None,
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """No time limit as a whole: the caller has one. Raises Undeliverable for where it must not go,
        Unavailable when nobody answers there, or nothing that is HTTP."""
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        try:
            async with self._pool.stream(
                "POST", url, headers=sent, content=body, extensions={"timeout": self._timeouts}
            ) as response:
                said = await _beginning_of(response)
        except (httpcore.UnsupportedProtocol, UnicodeError) as exc:  # the latter: what can be no name
            raise Undeliverable("no https address") from exc
        except _ERRORS as exc:
            raise Unavailable("It does not answer.", retry_after_s=0) from exc
        named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return Answer(response.status, named, said)

    async def hand_over(self, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """`post` of what must be taken: raises `require_taken`'s refusals, too."""
        require_taken(await self.post(url, headers, body))

    async def close(self) -> None:
        await self._pool.aclose()


async def _beginning_of(response: httpcore.Response) -> bytes:
    said = b""
    try:
        async for chunk in response.aiter_stream():
            said += chunk
            if len(said) > ANSWER_BYTES:  # the loop ends by that, and so does everything it reads from
                await response.extensions["network_stream"].aclose()
    except _ERRORS:
        if len(said) <= ANSWER_BYTES:
            raise
    return said[:ANSWER_BYTES]


def require_taken(answer: Answer) -> None:
    """Raises what an answer of no success means: Unregistered, Deferred, Unavailable, Undeliverable."""
    status, retry_after_s = answer.status, _retry_after_s(answer)
    if 200 <= status < 300:
        return
    if status in (404, 410):
        raise Unregistered(f"gone: {status}")
    if status == 429:
        raise Deferred("too much at once", retry_after_s)
    if status >= 500:
        raise Unavailable("It fails.", retry_after_s=retry_after_s)
    raise Undeliverable(f"refused with {status}")


def _retry_after_s(answer: Answer) -> float:
    """0 where nothing is said, or nothing that makes sense; a day at most.

    Source: RFC 9110, section 10.2.3.
    """
    said = answer.headers.get("retry-after", "")
    if said.isascii() and said.isdigit() and len(said) < 10:
        return min(float(said), LONGEST_WAIT_S)
    try:
        at = parsedate_to_datetime(said)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    if at.tzinfo is None:
        return 0.0
    return min(max(0.0, (at - datetime.now(UTC)).total_seconds()), LONGEST_WAIT_S)


class _Public(httpcore.AsyncNetworkBackend):
    """Connects to public addresses alone."""

    def __init__(self) -> None:
        self._trio = httpcore.TrioBackend()
        self._threads = trio.CapacityLimiter(RESOLVING)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  (httpcore's signature)
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        *others, last = (await self._resolve(host, port))[:TRIED]
        for address in others:
            try:
                return await self._trio.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._trio.connect_tcp(last, port, timeout, local_address, socket_options)

    async def _resolve(self, host: str, port: int) -> list[str]:
        """Raises Undeliverable, and OSError when there is no such name."""
        found = await trio.to_thread.run_sync(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
            limiter=self._threads,
            abandon_on_cancel=True,
        )
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not addresses or not all(is_public(each) for each in addresses):
            raise Undeliverable("its address is not public")
        return addresses
