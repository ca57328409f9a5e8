"""One request to a site, that may be left unfinished, and its answer.

An HTTP client sends a body to its end before it looks for an answer; here that to a beginning is wanted.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import h11
import trio

from ..client.wire import alongside

ANSWER_S = 10.0
BLOCK = 65_536
MOST_BYTES = 1_048_576  # of an answer


@dataclass(frozen=True, slots=True)
class Site:
    """What a URL names."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Site:
        """url: http or https, checked before."""
        parts = urlsplit(url)
        return cls(parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def envelope(self) -> dict[str, Any]:
        """Ours; empty if this is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) and "meta" in found else {}

    @property
    def code(self) -> str:
        """Of the server's refusal; empty if these are the words of something else."""
        return str(self.envelope.get("error", {}).get("code", ""))


class NoAnswer(Exception):
    """Nothing came, or no HTTP."""


async def ask(
    site: Site,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    content: bytes = b"",
    size: int | None = None,
    kind: str = "application/octet-stream",
    within_s: float = ANSWER_S,
) -> Answer:
    """size: of the body that is announced, where `content` is only its beginning. Raises NoAnswer."""
    sent = {"host": site.authority, "user-agent": "secureconnect-doctor", **(headers or {})}
    if headers is None:
        sent["connection"] = "close"
    if content:
        sent |= {"content-length": str(len(content) if size is None else size), "content-type": kind}
    try:
        with trio.fail_after(within_s):
            stream = await dialled(site)
            try:
                return await _exchange(
                    stream, h11.Request(method=method, target=path, headers=[*sent.items()]), content, size
                )
            finally:
                await trio.aclose_forcefully(stream)
    except trio.TooSlowError:
        raise NoAnswer(f"nothing within {within_s:g} s") from None
    except (OSError, ssl.SSLError, trio.BrokenResourceError, h11.RemoteProtocolError) as exc:
        raise NoAnswer(str(exc) or type(exc).__name__) from None


async def _exchange(
    stream: trio.abc.Stream, request: h11.Request, content: bytes, size: int | None
) -> Answer:
    http = h11.Connection(h11.CLIENT)
    await stream.send_all(http.send(request) or b"")
    async with alongside() as nursery:
        nursery.start_soon(_send, stream, http, content, size is None)
        return await _hear(stream, http)


async def _send(stream: trio.abc.Stream, http: h11.Connection, content: bytes, is_whole: bool) -> None:
    """Whoever answers before all of it has come need not take the rest."""
    try:
        if content:
            await stream.send_all(http.send(h11.Data(data=content)) or b"")
        if is_whole:
            await stream.send_all(http.send(h11.EndOfMessage()) or b"")
    except (trio.BrokenResourceError, h11.LocalProtocolError):
        pass


async def _hear(stream: trio.abc.Stream, http: h11.Connection) -> Answer:
    head: h11.Response | None = None
    body = b""
    while True:
        event = http.next_event()
        match event:
            case h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some(BLOCK)))
            case h11.Response():
                head = event
            case h11.Data():
                body += event.data
                if len(body) > MOST_BYTES:
                    raise NoAnswer("the answer is too long")
            case h11.EndOfMessage() | h11.PAUSED if head is not None:
                headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
                return Answer(head.status_code, headers, body)
            case h11.ConnectionClosed():
                raise NoAnswer("the connection was closed")


async def dialled(site: Site) -> Any:
    """A stream to it, past the TLS handshake. Raises OSError, ssl.SSLError, BrokenResourceError."""
    stream = await trio.open_tcp_stream(site.host, site.port)
    if site.scheme == "http":
        return stream
    context = ssl.create_default_context()
    secured = trio.SSLStream(stream, context, server_hostname=site.host, https_compatible=True)
    try:
        await secured.do_handshake()
    except BaseException as exc:
        await trio.aclose_forcefully(stream)
        if isinstance(exc, trio.BrokenResourceError) and exc.__cause__ is not None:
            raise exc.__cause__ from None
        raise
    return secured
