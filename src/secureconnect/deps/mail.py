"""Mail as it goes over the wire, and the twin of a mail server: files in the data folder."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path

import structlog
import trio

from ..durable import replace_file
from ..errors import Unavailable
from .contracts import Mail, Undeliverable

log = structlog.get_logger(module="deps")


# what needs no quotes (RFC 5322, section 3.2.3; RFC 6531: nor need it be ASCII), and so can say nothing else
_PLAIN = re.compile(r'([^\s@"(),:;<>\[\]\\]{1,64})@([^\s@"(),:;<>\[\]\\]{1,255})')


def wire_address(address: str) -> str:
    """As mail servers take it, with the domain in ASCII. Raises Undeliverable."""
    match = _PLAIN.fullmatch(address)
    if match is None or not address.isprintable():
        raise Undeliverable("no mail address")
    try:
        return f"{match[1]}@{match[2].encode('idna').decode()}"
    except UnicodeError as exc:
        raise Undeliverable("no domain") from exc


def message_of(mail: Mail, sender: str) -> EmailMessage:
    """Text and HTML of a mail under its headers, none of which can hold a line break.
    Raises Undeliverable for what makes no header."""
    message = EmailMessage(policy=SMTP)
    try:
        message["From"] = Address(addr_spec=sender)
        local, _, domain = wire_address(mail.to).rpartition("@")
        message["To"] = Address(username=local, domain=domain)
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = f"<{mail.mail_id}@{sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notices, please
        message.set_content(mail.text)
        message.add_alternative(mail.html, subtype="html")
    except (ValueError, IndexError) as exc:  # IndexError: of addresses the parser does not get to the end of
        raise Undeliverable("it makes no header") from exc
    return message


class FolderMailer:
    """contracts.Mailer whose mail people read as files: one `.eml` each, for the operator alone.

    kept: files; the oldest make room.
    """

    is_away = False

    def __init__(self, folder: Path, sender: str, kept: int) -> None:
        self._folder = folder
        self._sender = sender
        self._kept = kept
        self._thread = trio.CapacityLimiter(1)

    async def send(self, mail: Mail) -> None:
        content = message_of(mail, self._sender).as_bytes(policy=SMTP.clone(utf8=True))
        try:
            path = await trio.to_thread.run_sync(self._write, mail.mail_id, content, limiter=self._thread)
        except OSError as exc:
            raise Unavailable("The disk refuses to keep it.") from exc
        log.info("mail_written", path=str(path))

    def _write(self, mail_id: str, content: bytes) -> Path:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / f"{mail_id}.eml"
        replace_file(path, content)
        # their names are time-ordered
        for old in sorted(self._folder.glob("*.eml"))[: -self._kept]:
            old.unlink(missing_ok=True)
        return path
