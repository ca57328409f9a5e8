"""What the doctor says of real mail servers, healthy and broken."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from kit.smtp import SmtpServer
from kit.toll import toll_before
from secureconnect.config import Config, GatewayConfig, SmtpConfig
from secureconnect.doctor import smtp
from secureconnect.doctor.findings import Finding, Report

from .conftest import PASSWORD, QUOTED


async def look(url: str) -> dict[str, Finding]:
    config = Config(gateway=GatewayConfig(public_url="https://chat.example.org"), smtp=SmtpConfig(url=url))
    told: list[Finding] = []
    report = Report(config, told.append)
    await smtp.check(config, report)
    for each in told:
        assert (each.mend is None) == (each.status == "ok"), each
        for secret in (PASSWORD, QUOTED):
            assert secret not in f"{each.found} {each.mend}", each
    return {each.name: each for each in told}


async def test_none(data_dir: Path) -> None:
    assert (await look(""))["smtp"].status == "ok"


@pytest.mark.parametrize("way", ["starttls", "tls"])
async def test_it_is_reached_by_tls_and_lets_us_in(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    certificate = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    server = SmtpServer(tmp_path / "inbox", way, str(certificate), "us", PASSWORD)
    server.start()
    try:
        scheme = "smtps" if way == "tls" else "smtp"
        url = f"{scheme}://us:{QUOTED}@127.0.0.1:{server.port}"
        found = await look(url)
        assert found["smtp"].status == "failed"
        assert "CERTIFICATE" in found["smtp"].found.upper()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        found = await look(url)
        assert [each.status for each in found.values()] == ["ok", "ok"]
        assert "signed in" in found["smtp"].found
        wrong = (await look(url.replace(QUOTED, "wrong")))["smtp"]
        assert wrong.status == "failed"
        assert "refuses the user or the password" in wrong.found
    finally:
        server.kill()


async def test_one_without_tls(smtp_server: SmtpServer) -> None:
    found = await look(smtp_server.url)
    assert found["smtp"].status == "ok"
    assert found["smtp.tls"].status == "warning"


async def test_one_that_is_frozen_or_gone(smtp_server: SmtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "CALL_S", 0.5)
    async with toll_before(smtp_server.url) as toll:
        toll.stall()
        frozen = (await look(f"smtp://127.0.0.1:{toll.port}"))["smtp"]
    assert "no answer within 0.5 s" in frozen.found
    smtp_server.kill()
    gone = (await look(smtp_server.url))["smtp"]
    assert "cannot be reached" in gone.found
