"""What contracts.Mailer promises, whoever stands behind it."""

from __future__ import annotations

from collections.abc import Callable
from email.message import EmailMessage

import pytest

from secureconnect.deps.contracts import Mail, Mailer, Undeliverable
from secureconnect.identity import new_id

from .conftest import SENDER

World = tuple[Mailer, Callable[[], list[EmailMessage]]]


def mail(to: str = "ann@example.org", subject: str = "Hello") -> Mail:
    return Mail(new_id(), to, subject, "Chào Ann,\n.\nbye\n", "<p>Chào <b>Ann</b></p>\n")


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


async def test_text_and_html_arrive_as_they_were(mailer: World) -> None:
    send, arrived = mailer[0].send, mailer[1]
    sent = mail(subject="Xác nhận địa chỉ")
    assert not mailer[0].is_away
    await send(sent)
    [message] = arrived()
    assert (message["From"], message["To"], message["Subject"]) == (SENDER, sent.to, sent.subject)
    assert message["Message-ID"] == f"<{sent.mail_id}@chat.example.org>"
    assert message["Date"]
    assert body(message, "plain") == sent.text
    assert body(message, "html") == sent.html


@pytest.mark.parametrize(
    ("to", "on_the_wire"),
    [("bob@bücher.example", "bob@xn--bcher-kva.example"), ("đỗ@example.org", "đỗ@example.org")],
)
async def test_addresses_of_any_alphabet(mailer: World, to: str, on_the_wire: str) -> None:
    await mailer[0].send(mail(to))
    [message] = mailer[1]()
    assert str(message["To"]).encode(errors="surrogateescape").decode() == on_the_wire


@pytest.mark.parametrize(
    "wrong",
    [
        mail(subject="Hello\r\nBcc: eve@example.org"),
        mail(to="ann@example.org\r\nBcc: eve@example.org"),
        mail(to="ann@example.org\nRCPT TO:<eve@example.org>"),
        mail(to="ann@example.org, eve@example.org"),
        mail(to=""),
        mail(to="nobody"),
    ],
)
async def test_no_header_can_be_smuggled_in(mailer: World, wrong: Mail) -> None:
    with pytest.raises(Undeliverable):
        await mailer[0].send(wrong)
    assert mailer[1]() == []
