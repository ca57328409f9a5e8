"""A mail server, over the bridge to asyncio. A connection for each mail: none goes stale."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.message import EmailMessage
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote, urlsplit

import aiosmtplib
from aiosmtplib import SMTP

from ..config import SmtpConfig
from ..errors import Unavailable
from .asyncio_bridge import Bridge, breathe
from .contracts import Deferred, Mail, Undeliverable
from .mail import message_of, wire_address

QUIT_S = 1.0
SERVICE_ENDS = 421  # RFC 5321, section 3.8: of any command, and of the server, not of the mail
# what aiosmtplib, TLS and the parsing of nonsense raise
_ERRORS = (aiosmtplib.SMTPException, OSError, EOFError, ValueError)


class SmtpMailer:
    """contracts.Mailer. No time limit for a mail as a whole: its guard has one.

    host: what we call ourselves.  A password goes over TLS alone, unless the server is on this machine.
    """

    is_away = False

    def __init__(self, config: SmtpConfig, sender: str, host: str, bridge: Bridge) -> None:
        self._config = config
        self._sender = sender
        self._host = host
        self._bridge = bridge
        self._tls = ssl.create_default_context()

    async def send(self, mail: Mail) -> None:
        await self._bridge.run(self._send, wire_address(mail.to), message_of(mail, self._sender))

    async def probe(self) -> None:
        """Whether it lets us in. Raises Unavailable."""
        await self._bridge.run(self._probe)

    # on the asyncio side

    async def _send(self, to: str, message: EmailMessage) -> None:
        async with connected(self._config, self._host, self._tls) as client:
            try:
                await client.send_message(message, sender=self._sender, recipients=[to])
            except _ERRORS as exc:
                raise _refusal(exc) from exc

    async def _probe(self) -> None:
        async with connected(self._config, self._host, self._tls) as client:
            try:
                await client.noop()
            except _ERRORS as exc:
                raise Unavailable() from exc


class _Client(SMTP):
    """Hangs up at once: nothing is said any more, and a frozen server does not hear a good-bye of TLS."""

    def close(self) -> None:
        transport: Any = self.transport  # asyncio has no type for those one can write to
        super().close()
        if transport is not None:
            transport.abort()


@asynccontextmanager
async def connected(config: SmtpConfig, host: str, tls: ssl.SSLContext) -> AsyncIterator[SMTP]:
    """On the asyncio side: a server that has let us in. Raises Unavailable, whose cause says why not.

    Nothing is waited for when the block fails: a frozen server would not take our good-bye either.
    """
    parts = urlsplit(config.url)
    password = None if parts.password is None else unquote(parts.password)
    server = parts.hostname or ""
    is_tls = parts.scheme == "smtps"
    must_upgrade = password is not None and not _is_here(server)
    client = _Client(
        hostname=server,
        port=parts.port or (465 if is_tls else 587),
        username=None if parts.username is None else unquote(parts.username),
        password=password,
        local_hostname=host,
        use_tls=is_tls,
        start_tls=False if is_tls else True if must_upgrade else None,
        tls_context=tls,
        timeout=config.call_s,
    )
    try:
        try:
            await client.connect(timeout=config.connect_s)
        except _ERRORS as exc:
            raise Unavailable() from exc
        yield client
        with suppress(*_ERRORS):  # the mail is sent, whatever it says now
            await client.quit(timeout=QUIT_S)
    finally:
        client.close()
        await breathe()  # only then is the socket closed


def _is_here(server: str) -> bool:
    try:
        return server == "localhost" or ip_address(server).is_loopback
    except ValueError:
        return False


def _refusal(error: Exception) -> Exception:
    """What an error of `send_message` means: the one table.  Source: RFC 5321, section 4.2.1."""
    match error:
        case aiosmtplib.SMTPRecipientsRefused():
            return _of_code(error.recipients[0].code)
        case aiosmtplib.SMTPSenderRefused():
            return Unavailable()  # it is us whom it does not like
        case aiosmtplib.SMTPResponseException():
            return _of_code(error.code)
        case UnicodeDecodeError():
            return Unavailable()
        case aiosmtplib.SMTPNotSupported() | ValueError():
            return Undeliverable("no mail server takes this address")
    return Unavailable()


def _of_code(code: int) -> Exception:
    if 500 <= code < 600:
        return Undeliverable(f"refused with {code}")
    if 400 <= code < 500 and code != SERVICE_ENDS:
        return Deferred(f"put off with {code}")
    return Unavailable()
