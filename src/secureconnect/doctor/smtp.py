"""The mail server: reached, by TLS, and let in."""

from __future__ import annotations

import ssl
from dataclasses import replace
from urllib.parse import urlsplit

from aiosmtplib import SMTPAuthenticationError, SMTPException

from ..config import Config, SmtpConfig
from ..deps.asyncio_bridge import open_bridge
from ..deps.smtp import connected
from ..errors import Unavailable
from ..settings import SMTP_URL
from .findings import Report

CALL_S = 5.0


async def check(config: Config, report: Report) -> None:
    """Says hello and good-bye; no mail is sent."""
    at = replace(config.smtp, connect_s=CALL_S, call_s=CALL_S)
    if not at.url:
        report.ok("smtp", "none: mail is written into files, and addresses are not confirmed")
        return
    if not SMTP_URL.fits(at.url):
        report.fail("smtp", "smtp.url is not understood", "write it as smtp://user:password@host:587")
        return
    parts = urlsplit(at.url)
    where = f"{parts.hostname} port {parts.port or (465 if parts.scheme == 'smtps' else 587)}"
    host = urlsplit(config.gateway.public_url).hostname or "localhost"
    async with open_bridge() as bridge:
        try:
            is_tls = await bridge.run(_ask, at, host)
        except Unavailable as exc:
            found, mend = _reason(exc.__cause__ or exc, report)
            report.fail("smtp", f"{where}: {found}", mend)
            return
    report.ok("smtp", f"{where}: reached" + (", and signed in" if parts.username else ""))
    if is_tls:
        report.ok("smtp.tls", "what is said to it is encrypted")
    else:
        report.warn(
            "smtp.tls",
            "it offers no TLS: links that set passwords pass readable",
            "use a server with STARTTLS, or smtps://",
        )


async def _ask(at: SmtpConfig, host: str) -> bool:
    """On the asyncio side: whether it speaks TLS, once it has let us in."""
    async with connected(at, host, ssl.create_default_context()) as client:
        return client.get_transport_info("ssl_object") is not None


def _reason(error: BaseException, report: Report) -> tuple[str, str]:
    """What happened and how to mend it: the one table."""
    said = report.said(error)
    match error:
        case SMTPAuthenticationError():
            return (
                f"it refuses the user or the password: {said}",
                "correct user and password in smtp.url, percent-encoded",
            )
        case ssl.SSLError():
            return (
                f"no TLS: {said}",
                "correct the scheme and the port of smtp.url, or have the certificate renewed",
            )
        case TimeoutError():
            return (
                f"no answer within {CALL_S:g} s",
                "it is frozen or cut off: look at its log, and at the firewall between",
            )
        case ConnectionError() | OSError():
            return f"cannot be reached: {said}", "start it, or correct host and port in smtp.url"
        case SMTPException():
            return (
                f"it does not let us in: {said}",
                "look at its log; a password wants TLS, so use a port that has it",
            )
    return f"{type(error).__name__}: {said}", "look at its log"
