"""What people are written, as text and as HTML, in their language if we speak it.

A letter is a file of `mails`: its subject, then paragraphs. `[…] $link` is a link, and what stands in the
brackets its name. Facts come from us and from people: they make no paragraph and no link, and HTML gets them
escaped. Links begin with
`gateway.public_url`, and the token is behind the `#`, which no browser sends on: not to servers, not to logs.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from string import Template
from typing import Literal, get_args

from ...clock import to_iso
from ...deps.contracts import Tx
from ...identity import UserId, new_id
from ...outbox import Letter, Outbox
from ..sessions import Origin
from ..store import User

Kind = Literal[
    "verify",
    "reset",
    "taken",
    "change",
    "address_changed",
    "password",
    "password_changed",
    "device",
    "totp_on",
    "totp_off",
    "code_used",
    "codes_renewed",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
LANGUAGES = ("en", "vi")  # the first one for everybody else

_FOLDER = Path(__file__).parent / "mails"
_LINK = re.compile(r"\[(.+)\] \$link")
_BUTTON = (
    '<p style="margin:24px 0"><a href="{url}" style="background:#1f5eff;color:#fff;padding:12px 20px;'
    'border-radius:8px;text-decoration:none;font-weight:600">{name}</a></p>'
)


def language_of(accepted: str) -> str:
    """The first language of an Accept-Language header that there are letters in."""
    for each in accepted.split(","):
        primary = each.partition(";")[0].strip().lower().partition("-")[0]
        if primary in LANGUAGES:
            return primary
    return LANGUAGES[0]


class Letters:
    """public_url: what links begin with; empty: there are none, and people copy the token."""

    def __init__(self, outbox: Outbox, public_url: str) -> None:
        self._outbox = outbox
        self._public_url = public_url.rstrip("/")
        self._texts = {
            (kind, language): (_FOLDER / f"{kind}.{language}.txt").read_text("utf-8")
            for kind in KINDS
            for language in LANGUAGES
        }
        self._frame = Template((_FOLDER / "frame.html").read_text("utf-8"))

    def require_room(self) -> None:
        """Raises Unavailable when so much mail waits that no more is taken."""
        self._outbox.require_room()

    async def send_token(
        self,
        tx: Tx,
        user: UserId,
        kind: Kind,
        to: str,
        language: str,
        *,
        username: str,
        token: str,
        page: str,
        now_us: int,
        expires_us: int,
    ) -> None:
        """In the place of what still waits of this kind.  page: of the web client, where `token` is used,
        up to the token."""
        letter = self._write(
            kind, to, language, username=username, token=token, page=page, until=_moment(expires_us)
        )
        await self._outbox.add(tx, user, letter, now_us=now_us, expires_us=expires_us, replaces=True)

    async def send_nothing(
        self, tx: Tx, kind: Kind, to: str, language: str, *, token: str, now_us: int
    ) -> None:
        """The work of a letter, for nobody."""
        letter = self._write(
            kind, to, language, username="nobody", token=token, page="#", until=_moment(now_us)
        )
        await self._outbox.add_decoy(tx, UserId(new_id()), letter, now_us=now_us)

    async def notify(
        self, tx: Tx, user: UserId, kind: Kind, to: str, language: str, *, now_us: int, **facts: str
    ) -> None:
        letter = self._write(kind, to, language, time=_moment(now_us), **facts)
        await self._outbox.notify(tx, user, letter, now_us=now_us)

    async def warn(self, tx: Tx, user: User, kind: Kind, origin: Origin, now_us: int, **facts: str) -> None:
        """`notify` of what was done in somebody's name; not to an address that may be somebody else's."""
        if user.email_verified_us is not None:
            await self.notify(
                tx,
                user.user_id,
                kind,
                user.email,
                origin.language,
                now_us=now_us,
                username=user.username,
                address=origin.address,
                **facts,
            )

    async def forget(self, tx: Tx, user: UserId) -> None:
        await self._outbox.forget(tx, user)

    def _write(self, kind: Kind, to: str, language: str, *, page: str = "", **facts: str) -> Letter:
        facts["server"] = self._public_url or "SecureConnect"
        head, _, body = self._texts[kind, language_of(language)].partition("\n")
        subject, text, html = head.removeprefix("Subject: "), [], []
        for each in body.strip().split("\n\n"):
            if (found := _LINK.fullmatch(each)) is None:
                said = Template(each).substitute(facts)
                text.append(said)
                html.append(f"<p>{escape(said)}</p>".replace("\n", "<br>\n"))
            elif self._public_url:
                url = f"{self._public_url}/{page}={facts['token']}"
                text.append(f"{found[1]}:\n{url}")
                html.append(_BUTTON.format(name=escape(found[1]), url=escape(url)))
        whole = self._frame.substitute(title=escape(subject), body="\n".join(html))
        return Letter(kind, to, subject, "\n\n".join(text) + "\n", whole)


def _moment(us: int) -> str:
    """`2026-01-19 05:25 UTC`."""
    return f"{to_iso(us)[:16].replace('T', ' ')} UTC"
