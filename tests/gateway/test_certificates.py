"""The certificate: what it is made of, and how it is changed while the server runs."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs

from kit.scrape import value
from secureconnect.config import GatewayConfig
from secureconnect.gateway.tls import Certificates, TlsTransport
from secureconnect.settings import BadSetting

from .port import Client, authority


@pytest.fixture
def config(tmp_path: Path) -> GatewayConfig:
    return authority().issue(tmp_path)


def test_without_tls_there_is_no_context() -> None:
    assert Certificates(GatewayConfig()).context is None


def test_the_certificates_end_is_a_metric(config: GatewayConfig) -> None:
    Certificates(config)
    issued = ssl._ssl._test_decode_cert(config.tls_certificate)  # type: ignore[attr-defined]
    assert value("secureconnect_gateway_certificate_expires_seconds") == ssl.cert_time_to_seconds(
        issued["notAfter"]
    )


def test_the_key_may_be_in_the_certificates_file(config: GatewayConfig, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(Path(config.tls_key).read_bytes() + Path(config.tls_certificate).read_bytes())
    assert Certificates(GatewayConfig(tls_certificate=str(both))).context is not None


def _missing(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _rubbish(path: Path) -> None:
    path.write_bytes(b"\xff rubbish")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _halved(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _of_another(path: Path) -> None:
    folder = path.parent / "another"
    folder.mkdir()
    path.write_bytes(Path(authority().issue(folder).tls_key).read_bytes())


def _locked(path: Path) -> None:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret")))


@pytest.mark.parametrize(
    ("key", "damage", "reason"),
    [
        ("tls_certificate", _missing, "No such file or directory"),
        ("tls_certificate", _folder, "Is a directory"),
        ("tls_certificate", _rubbish, "no certificate in PEM"),
        ("tls_certificate", _empty, "no certificate in PEM"),
        ("tls_certificate", _halved, "no certificate in PEM"),
        ("tls_key", _missing, "No such file or directory"),
        ("tls_key", _rubbish, "OpenSSL refuses it"),
        ("tls_key", _empty, "OpenSSL refuses it"),
        ("tls_key", _of_another, "it is not the certificate's key"),
        ("tls_key", _locked, "OpenSSL refuses it"),
    ],
)
def test_files_that_cannot_be_used_end_the_start(
    config: GatewayConfig, key: str, damage: Callable[[Path], None], reason: str
) -> None:
    path = getattr(config, key)
    damage(Path(path))
    with pytest.raises(BadSetting) as caught:
        Certificates(config)
    line = str(caught.value)
    assert f"gateway.{key} = {path!r}" in line
    assert reason in line
    assert "\n" not in line


def test_a_key_without_a_certificate_ends_the_start(config: GatewayConfig) -> None:
    with pytest.raises(BadSetting, match=r"gateway\.tls_certificate"):
        Certificates(GatewayConfig(tls_key=config.tls_key))


async def test_new_connections_get_a_certificate_that_was_reloaded(config: GatewayConfig) -> None:
    certificates = Certificates(config)

    async def shown() -> bytes | None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.setblocking(False)
            assert certificates.context is not None
            transport = TlsTransport(theirs, "127.0.0.1", config, certificates.context)
            ours.setblocking(False)
            client = Client(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.handshake, b"")
                await client.shake()
            return client.tls.getpeercert(binary_form=True)

    first = await shown()
    folder = Path(config.tls_certificate).parent
    authority().issue(folder)  # in the place of the old files
    assert await shown() == first
    await certificates.reload()
    second = await shown()
    assert second != first
    _rubbish(Path(config.tls_key))
    with capture_logs() as logged:
        await certificates.reload()
    assert [(line["event"], line["log_level"]) for line in logged] == [("certificate_not_reloaded", "error")]
    assert f"gateway.tls_key = {config.tls_key!r}" in logged[0]["error"]
    assert await shown() == second
