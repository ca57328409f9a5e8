"""From a registration to the first message, by mail; and with the mail server away in the middle."""

from __future__ import annotations

import re

import pytest

from kit.fixtures import StartServer
from kit.http import plain
from kit.people import PASSWORD, direct, people
from kit.smtp import SmtpServer
from kit.wait import until
from kit.worlds import embedded_alone
from secureconnect.client import ApiError, Client

PUBLIC = "https://chat.example.org"


async def health(url: str) -> dict[str, str]:
    async with plain() as http:
        answer = await http.get(f"{url}/health")
    assert answer.status_code == 200
    said: dict[str, str] = answer.json()["dependencies"]["smtp"]
    return said


async def test_a_newcomer_confirms_an_address_and_mail_outlives_the_server(
    start_server: StartServer, smtp_server: SmtpServer
) -> None:
    server = start_server(
        SMTP__URL=smtp_server.url,
        GATEWAY__PUBLIC_URL=PUBLIC,
        SMTP__FIRST_PAUSE_S="0.2",
        SMTP__LONGEST_PAUSE_S="0.4",
        OUTBOX__POLL_S="0.1",
        OUTBOX__RETRY_S="0.2",
    )
    await until(lambda: up(server.url))
    async with Client(server.url) as ann:
        assert await ann.register("ann", PASSWORD, "ann@example.org", "Ann") is None
        with pytest.raises(ApiError, match="INVALID_CREDENTIALS"):
            await ann.login("ann", PASSWORD)
        await until(lambda: len(smtp_server.mails()) == 1)
        [mail] = smtp_server.mails()
        assert mail.recipients == ["ann@example.org"]
        assert mail.sender == "no-reply@chat.example.org"
        await ann.call("POST", "/v1/auth/email/verify", {"token": token_of(mail.text)}, signed=False)
        await ann.login("ann", PASSWORD)
        assert (await ann.profile())["email_verified"]
        smtp_server.kill()
        await ann.call("POST", "/v1/auth/password-reset/request", {"email": "ann@example.org"}, signed=False)
        await until(lambda: away(server.url))
        assert (await ann.profile())["username"] == "ann", "nothing else needs it"
        server.kill()
        server.start()
        smtp_server.start()
        await until(lambda: len(smtp_server.mails()) == 2, within_s=20)
        mail = smtp_server.mails()[1]
        body = {"token": token_of(mail.text), "new_password": "another long password"}
        await ann.call("POST", "/v1/auth/password-reset/confirm", body, signed=False)
        with pytest.raises(ApiError):
            await ann.profile()
        await ann.login("ann", "another long password")
    await until(lambda: len(smtp_server.mails()) == 4, within_s=20)
    subjects = sorted(each.message["Subject"] for each in smtp_server.mails()[2:])
    assert subjects == ["A new device has signed in", "Your password has been changed"]
    said = "\n".join(server.output)
    assert "ann@example.org" not in said, "addresses are not logged"
    assert body["token"] not in said


def token_of(text: str) -> str:
    found = re.search(rf"{PUBLIC}/[a-z]+#[a-z]+=(\S+)", text)
    assert found is not None, text
    return found[1]


async def up(url: str) -> bool:
    return (await health(url))["status"] == "up"


async def away(url: str) -> bool:
    return (await health(url))["status"] == "down"


@embedded_alone  # where mail goes has to do with none of the others
async def test_without_a_mail_server_mail_is_a_file(start_server: StartServer) -> None:
    server = start_server(OUTBOX__POLL_S="0.1")
    async with people(server.url, "ann", "bob") as (ann, bob):
        assert await direct(ann, bob)
        email = (await ann.profile())["email"]
        await ann.call("POST", "/v1/auth/email/verify/request", {"email": email})
        folder = server.data_dir / "mail"
        await until(lambda: len(list(folder.glob("*.eml"))) == 1)
        [path] = folder.glob("*.eml")
        assert path.stat().st_mode & 0o777 == 0o600
        await until(
            lambda: any(
                line["msg"] == "mail_written" and line["path"].endswith(path.name) for line in server.logs()
            )
        )
