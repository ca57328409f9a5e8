"""A real mail server: TLS and passwords; and one that is dead, frozen, cut off or talks nonsense."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from kit.smtp import SmtpServer
from kit.toll import Toll, toll_before
from kit.wait import until
from secureconnect.config import BreakerConfig, Config, GatewayConfig, SmtpConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Deferred, Mail, Undeliverable
from secureconnect.deps.guard import Guard
from secureconnect.deps.guarded import GuardedMailer
from secureconnect.deps.policy import open_deps
from secureconnect.deps.smtp import SmtpMailer
from secureconnect.errors import Unavailable
from secureconnect.identity import new_id

SENDER = "no-reply@chat.example.org"


def mail(to: str = "ann@example.org") -> Mail:
    return Mail(new_id(), to, "Hello", "Hello, Ann.\n", "<p>Hello, Ann.</p>")


@asynccontextmanager
async def mailer_at(url: str, **settings: Any) -> AsyncIterator[SmtpMailer]:
    async with open_bridge() as bridge:
        config = replace(SmtpConfig(url=url), **settings)
        yield SmtpMailer(config, SENDER, "chat.example.org", bridge)


# TLS and passwords


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of 127.0.0.1, by an authority that this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    path = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return path


@pytest.fixture(params=["starttls", "tls"])
def secured(request: pytest.FixtureRequest, tmp_path: Path, certificate: Path) -> Iterator[SmtpServer]:
    """It takes mail over TLS alone, from who signs in as `us` with `p@ss`."""
    server = SmtpServer(tmp_path / "inbox", request.param, str(certificate), "us", "p@ss")
    server.start()
    if request.param == "tls":
        server.url = server.url.replace("smtp:", "smtps:")
    yield server
    server.kill()


def with_login(url: str, login: str) -> str:
    return url.replace("://", f"://{login}@")


async def test_tls_and_a_password(secured: SmtpServer) -> None:
    async with mailer_at(with_login(secured.url, "us:p%40ss")) as mailer:
        await mailer.probe()
        await mailer.send(mail())
    [received] = secured.mails()
    assert (received.sender, received.recipients) == (SENDER, ["ann@example.org"])
    assert (received.tls, received.user) == (True, "us")
    assert received.text.strip() == "Hello, Ann."


async def test_a_wrong_password_makes_it_away(secured: SmtpServer) -> None:
    async with mailer_at(with_login(secured.url, "us:wrong")) as mailer:
        with pytest.raises(Unavailable):
            await mailer.probe()
        with pytest.raises(Unavailable):
            await mailer.send(mail())
    assert secured.mails() == []


async def test_a_certificate_nobody_vouches_for_is_refused(
    secured: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    async with mailer_at(with_login(secured.url, "us:p%40ss")) as mailer:
        with pytest.raises(Unavailable):
            await mailer.send(mail())
    assert secured.mails() == []


async def test_a_password_never_goes_in_the_clear(
    smtp_server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a server of another machine that offers no TLS."""
    monkeypatch.setattr("secureconnect.deps.smtp._is_here", lambda _: False)
    async with mailer_at(with_login(smtp_server.url, "us:secret")) as mailer:
        with pytest.raises(Unavailable) as caught:
            await mailer.send(mail())
    assert "starttls" in str(caught.value.__cause__).lower()
    assert smtp_server.mails() == []


# what it says of a mail


async def test_what_is_refused_for_good_and_what_is_put_off(smtp_server: SmtpServer) -> None:
    async with mailer_at(smtp_server.url) as mailer:
        with pytest.raises(Undeliverable):
            await mailer.send(mail("refused@example.org"))
        with pytest.raises(Deferred):
            await mailer.send(mail("later@example.org"))
        await mailer.send(mail())
    assert len(smtp_server.mails()) == 1


# when it is not well


@pytest.fixture
async def toll(smtp_server: SmtpServer) -> AsyncIterator[Toll]:
    async with toll_before(smtp_server.url) as toll:
        toll.url = toll.url.replace("http:", "smtp:")
        yield toll


async def test_dead_cut_off_and_nonsense_are_away(smtp_server: SmtpServer, toll: Toll) -> None:
    async with mailer_at(toll.url, call_s=0.5, connect_s=0.5) as mailer:
        await mailer.send(mail())
        toll.garbles = True
        with pytest.raises(Unavailable):
            await mailer.send(mail())
        toll.garbles, toll.refuses = False, True
        with pytest.raises(Unavailable):
            await mailer.send(mail())
        toll.refuses = False
        smtp_server.kill()
        with pytest.raises(Unavailable):
            await mailer.send(mail())
        smtp_server.start()
        await mailer.send(mail())
    assert len(smtp_server.mails()) == 2


async def test_nonsense_at_any_moment_loses_no_mail(smtp_server: SmtpServer, toll: Toll) -> None:
    """An answer that makes no sense must not look like a refusal of the mail."""
    async with (
        mailer_at(toll.url, call_s=0.3, connect_s=0.3) as mailer,
        trio.open_nursery() as nursery,
    ):
        toll.delay_s = 0.01

        async def garble_later(pause_s: float) -> None:
            await trio.sleep(pause_s)
            toll.garbles = True

        for step in range(6):
            toll.garbles = False
            nursery.start_soon(garble_later, step * 0.012)
            with trio.fail_after(10):
                try:
                    await mailer.send(mail())
                except Unavailable:
                    continue


@asynccontextmanager
async def guarded(url: str, **settings: Any) -> AsyncIterator[tuple[GuardedMailer, Guard]]:
    config = SmtpConfig(url=url, first_pause_s=0.1, longest_pause_s=0.4)
    config = replace(config, **settings)
    async with open_bridge() as bridge, trio.open_nursery() as nursery:
        real = SmtpMailer(config, SENDER, "chat.example.org", bridge)
        guard = Guard("smtp", BreakerConfig(failures=1), limit_s=config.call_s)

        async def watch() -> None:
            await guard.probe_while_away(
                real.probe,
                limit_s=config.call_s,
                first_s=config.first_pause_s,
                longest_s=config.longest_pause_s,
            )

        nursery.start_soon(watch)
        yield GuardedMailer(real, guard), guard
        nursery.cancel_scope.cancel()


async def works(mailer: GuardedMailer) -> None:
    """By itself, before anything is sent again; on a busy machine half a second may not do for that."""

    async def is_sent() -> bool:
        try:
            await mailer.send(mail())
        except Unavailable:
            return False
        return True

    await until(lambda: not mailer.is_away)
    await until(is_sent)


async def test_a_frozen_server_is_away_within_its_time_and_comes_back_by_itself(
    smtp_server: SmtpServer,
) -> None:
    async with guarded(smtp_server.url, call_s=0.5) as (mailer, guard):
        await mailer.send(mail())
        smtp_server.freeze()
        began = trio.current_time()
        with pytest.raises(Unavailable):
            await mailer.send(mail())
        assert trio.current_time() - began < 2
        assert mailer.is_away
        assert guard.status().last_error == "timeout"
        began = trio.current_time()
        with pytest.raises(Unavailable):
            await mailer.send(mail())
        assert trio.current_time() - began < 0.3, "it was asked again"
        smtp_server.thaw()
        await works(mailer)


async def test_stalled_half_way(smtp_server: SmtpServer, toll: Toll) -> None:
    async with guarded(toll.url, call_s=0.5) as (mailer, _):
        toll.stall_after(300)  # in the middle of the mail
        with trio.fail_after(2), pytest.raises(Unavailable):
            await mailer.send(mail())
        assert mailer.is_away
        toll.flow()
        await works(mailer)


async def test_one_that_is_away_is_asked_less_and_less(autojump_clock: trio.testing.MockClock) -> None:
    asked: list[float] = []
    is_there = False

    async def probe() -> None:
        asked.append(trio.current_time())
        if not is_there:
            raise Unavailable

    guard = Guard("smtp", BreakerConfig(failures=1))
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            await guard.probe_while_away(probe, limit_s=1, first_s=1, longest_s=60)

        nursery.start_soon(watch)
        await trio.sleep(300)
        pauses = [round(later - earlier) for earlier, later in pairwise(asked)]
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        is_there = True
        await trio.sleep(70)
        assert guard.is_up
        count = len(asked)
        await trio.sleep(3600)
        assert len(asked) == count, "a server that is there is not asked"
        nursery.cancel_scope.cancel()


async def test_health_tells_of_it(data_dir: Path, smtp_server: SmtpServer) -> None:
    smtp_server.kill()
    config = Config(
        data_dir=str(data_dir),
        gateway=GatewayConfig(public_url="https://chat.example.org"),
        smtp=SmtpConfig(url=smtp_server.url, first_pause_s=0.1),
    )
    async with open_deps(config) as deps:
        [status] = [each for each in deps.status() if each.name == "smtp"]
        assert status.kind == "smtp"

        def breaker() -> str | None:
            return next(each.breaker for each in deps.status() if each.name == "smtp")

        await until(lambda: breaker() == "open")
        assert deps.mailer.is_away
        smtp_server.start()
        await until(lambda: breaker() == "closed")
        await deps.mailer.send(mail())
    assert len(smtp_server.mails()) == 1
