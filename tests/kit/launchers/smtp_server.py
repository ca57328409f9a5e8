"""A mail server for tests: aiosmtpd, a process of its own. What it takes it writes into its folder, one JSON
file a mail. It refuses people called `refused`, and puts off those called `later`.

Usage: smtp_server.py FOLDER PORT [plain|starttls|tls [CERTIFICATE [USER PASSWORD]]]
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session


class Inbox:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = len(list(folder.glob("*.json")))

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("refused"):
            return "550 no such mailbox"
        if address.startswith("later"):
            return "451 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content
        assert isinstance(content, bytes)
        told = {
            "sender": envelope.mail_from,
            "recipients": envelope.rcpt_tos,
            "content": content.decode("utf-8"),
            "tls": server.transport is not None and server.transport.get_extra_info("ssl_object") is not None,
            "user": session.auth_data,
        }
        self.count += 1
        draft = self.folder / f"{self.count:06d}.new"
        draft.write_text(json.dumps(told))
        draft.rename(draft.with_suffix(".json"))
        return "250 OK"


async def main(folder: Path, port: int, way: str = "plain", certificate: str = "", *login: str) -> None:
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    inbox = Inbox(folder)

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        right = [data.login.decode(), data.password.decode()] == list(login)
        return AuthResult(success=right, handled=False, auth_data=data.login.decode())

    def build() -> SMTP:
        return SMTP(
            inbox,
            hostname="mail.example.org",
            enable_SMTPUTF8=True,
            tls_context=context if way == "starttls" else None,
            require_starttls=way == "starttls",
            auth_required=bool(login),
            auth_require_tls=way == "starttls",
            authenticator=authenticate if login else None,
        )

    server = await asyncio.get_running_loop().create_server(
        build, "127.0.0.1", port, ssl=context if way == "tls" else None
    )
    print("ready", flush=True)  # noqa: T201  (whoever started it waits for this line)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
