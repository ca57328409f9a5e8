"""Mail as people find it: at a mail server, or among the files of a server that has none."""

from __future__ import annotations

import email
import email.policy
import re
from email.message import EmailMessage

from kit.server import Server
from kit.smtp import SmtpServer
from kit.wait import until

PUBLIC = "https://chat.example.org"


class Postbox:
    """smtp: None for files.  settings: of the servers whose mail it gets."""

    def __init__(self, smtp: SmtpServer | None) -> None:
        self._smtp = smtp
        self.settings = {"GATEWAY__PUBLIC_URL": PUBLIC, "OUTBOX__POLL_S": "0.1"}
        if smtp is not None:
            self.settings["SMTP__URL"] = smtp.url

    def letters(self, *servers: Server) -> list[EmailMessage]:
        """servers: that may have written the files."""
        if self._smtp is not None:
            return [each.message for each in self._smtp.mails()]
        paths = {path for server in servers for path in (server.data_dir / "mail").glob("*.eml")}
        read = (email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in paths)
        return [message for message in read if isinstance(message, EmailMessage)]

    async def token(self, subject: str, *servers: Server) -> str:
        """What stands behind the link of the one letter with that subject, once it has come."""
        found: list[EmailMessage] = []

        def has_come() -> bool:
            found[:] = [each for each in self.letters(*servers) if each["Subject"] == subject]
            return bool(found)

        await until(has_come)
        (letter,) = found
        body = letter.get_body(("plain",))
        assert body is not None
        link = re.search(rf"{PUBLIC}/[a-z]+#[a-z]+=(\S+)", body.get_content())
        assert link is not None, body.get_content()
        return link[1]
