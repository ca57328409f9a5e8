"""What the doctor says of settings, folder, key, descriptors, port, TLS, addresses and SQLite."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from kit import command
from kit.server import Server
from secureconnect.config import (
    AuthConfig,
    BackupConfig,
    Config,
    GatewayConfig,
    MinioConfig,
    PostgresConfig,
    SqliteConfig,
)
from secureconnect.doctor import Finding, examine, gateway

from .conftest import look

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
MASTER = "master.key"


def at(config: Config, **gateway: object) -> Config:
    return replace(config, gateway=replace(config.gateway, **gateway))  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_all_is_well(config: Config, folder: Path) -> None:
    before = names(folder)
    found = await look(config)
    assert (found.failed, found.warned) == ({}, set())
    assert found.of("settings").found.startswith("not default: data_dir = ")
    assert "journal_mode wal, synchronous FULL" in found.of("sqlite.durability").found
    assert "opens all that are stored" in found.of("sqlite.secrets").found
    assert names(folder) == before, "it left something behind"


async def test_nothing_is_there_yet(config: Config, tmp_path: Path) -> None:
    found = await look(replace(config, data_dir=str(tmp_path / "nowhere")))
    assert (found.failed, found.warned) == ({}, {"data_folder", "master_key", "sqlite"})
    assert names(tmp_path) == ["data"]


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"postgres": PostgresConfig(url="mysql://u:hush-hush/1@h/d")}, "no URL of Postgres"),
        ({"minio": MinioConfig(endpoint="http://h:9000", access_key="a", secret_key="b")}, "has a scheme"),
        ({"minio": MinioConfig(endpoint="127.0.0.1:1")}, "without its keys"),
    ],
)
async def test_settings_that_cannot_be(config: Config, changed: dict[str, object], word: str) -> None:
    found = await look(replace(config, **changed))  # type: ignore[arg-type]
    assert word in found.failed["settings"]


async def test_settings_that_contradict_each_other(config: Config) -> None:
    found = await look(at(config, body_limit_bytes=2048))
    assert found.of("settings").status == "warning"
    assert "gateway.body_limit_bytes is 2048" in found.of("settings").found
    found = await look(replace(config, auth=AuthConfig(access_ttl_s=900, refresh_ttl_s=600)))
    assert "auth.access_ttl_s" in found.of("settings").found


async def test_secret_settings_are_masked(config: Config) -> None:
    found = await look(replace(config, auth=AuthConfig(master_key=KEY)), [KEY])
    assert any("auth.master_key = ********" in each.found for each in found)


async def test_a_folder_open_to_others(config: Config, folder: Path) -> None:
    folder.chmod(0o755)  # noqa: ASYNC240
    found = await look(config)
    assert (found.of("data_folder").status, found.of("data_folder").mend) == (
        "warning",
        f"chmod 700 {folder}",
    )


async def test_a_file_for_a_folder(config: Config) -> None:
    found = await look(replace(config, data_dir=__file__))
    assert "is not a folder" in found.failed["data_folder"]


async def test_too_little_space(config: Config) -> None:
    found = await look(replace(config, sqlite=SqliteConfig(disk_reserve_mb=1_048_576)))
    assert "disk_space" in found.failed


@pytest.mark.parametrize(("mode", "word"), [(0o644, "open to others"), (0o640, "open to others")])
async def test_a_master_key_open_to_others(config: Config, folder: Path, mode: int, word: str) -> None:
    (folder / MASTER).chmod(mode)
    found = await look(config, [(folder / MASTER).read_text().strip()])
    assert word in found.failed["master_key"]
    assert found.of("master_key").mend == f"chmod 600 {folder / MASTER}"


async def test_master_keys_that_do_not_fit(config: Config, folder: Path) -> None:
    found = await look(replace(config, auth=AuthConfig(master_key="hush-hush/1")))
    assert "not 32 bytes in base64" in found.failed["master_key"]
    found = await look(replace(config, auth=AuthConfig(master_key=KEY)), [KEY])
    assert "is not the one that sealed" in found.failed["sqlite.secrets"]
    (folder / MASTER).unlink()
    found = await look(config)
    assert found.of("master_key").status == "warning"
    assert "no server starts" in found.failed["sqlite.secrets"], "stored secrets need the one that is lost"
    assert not (folder / MASTER).exists(), "it made a key"


async def test_too_few_descriptors(config: Config) -> None:
    found = await look(at(config, max_connections=1_000_000))
    assert found.of("file_descriptors").status == "warning"
    assert "ulimit -n 1000" in str(found.of("file_descriptors").mend)


async def test_beside_a_running_server(config: Config, folder: Path) -> None:
    server = Server(folder)
    try:
        server.start()
        found = await look(at(config, port=server.port))
        assert (found.failed, found.warned) == ({}, set())
        assert "a running server, which answers /livez" in found.of("port").found
        assert f"the running server (process {server.pid})" in found.of("file_descriptors").found
        assert server.terminate() == 0
        server.check()
    finally:
        server.close()


async def test_ports_that_cannot_be_had(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "LIVEZ_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as other:
        found = await look(at(config, port=other.getsockname()[1]))
    assert "does not answer /livez" in found.failed["port"]
    found = await look(at(config, host="192.0.2.1", port=8080))
    assert "is not an address of this machine" in found.failed["port"]


def certificate(folder: Path, *names: str, days: float = 90) -> GatewayConfig:
    issued = trustme.CA().issue_cert(*names, not_after=datetime.now(UTC) + timedelta(days=days))
    pem, key = folder / "server.pem", folder / "server.key"
    pem.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return GatewayConfig(port=0, max_connections=200, tls_certificate=str(pem), tls_key=str(key))


@pytest.mark.parametrize(("days", "status"), [(90, "ok"), (5, "warning"), (-1.5, "failed")])
async def test_how_long_a_certificate_lasts(config: Config, tmp_path: Path, days: float, status: str) -> None:
    gateway = certificate(tmp_path, "chat.example.org", days=days)
    found = await look(replace(config, gateway=replace(gateway, public_url="https://chat.example.org")))
    assert found.of("tls").status == status
    assert "tls.name" not in found.failed


async def test_certificates_that_do_not_fit(config: Config, tmp_path: Path) -> None:
    gateway = certificate(tmp_path, "*.example.org")
    named = replace(gateway, public_url="https://chat.example.org")
    assert "tls.name" not in (await look(replace(config, gateway=named))).failed
    named = replace(gateway, public_url="https://chat.example.net")
    assert "chat.example.net" in (await look(replace(config, gateway=named))).failed["tls.name"]
    other = tmp_path / "other"
    other.mkdir()
    mixed = replace(gateway, tls_key=certificate(other, "x.example.org").tls_key)
    assert "is not the certificate's key" in (await look(replace(config, gateway=mixed))).failed["tls"]
    missing = replace(gateway, tls_certificate=str(tmp_path / "nowhere.pem"))
    assert "cannot be read" in (await look(replace(config, gateway=missing))).failed["tls"]


@pytest.mark.parametrize(
    ("gateway", "word"),
    [
        ({"public_url": "https://chat.example.org"}, "no proxy is trusted"),
        ({"public_url": "http://chat.example.org"}, "cross the network readable"),
        ({"host": "0.0.0.0"}, "gateway.public_url is empty"),
        ({"trusted_proxies": ("0.0.0.0/0",)}, "claim to be anybody"),
    ],
)
async def test_addresses_that_cannot_be_meant(config: Config, gateway: dict[str, object], word: str) -> None:
    found = await look(at(config, **gateway))
    assert any(word in each.found for each in found if each.name == "addresses" and each.status == "warning")


async def test_a_proxy_that_is_named_is_well(config: Config) -> None:
    found = await look(at(config, public_url="https://chat.example.org", trusted_proxies=("10.0.0.2",)))
    assert found.of("addresses").status == "ok"


async def test_sqlite_lacks_migrations(config: Config, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "secureconnect.db")) as file, file:
        file.execute("DELETE FROM schema_migrations WHERE number >= 3")
    found = await look(config)
    assert (found.of("sqlite.migrations").status, "0003_chat" in found.of("sqlite.migrations").found) == (
        "warning", True,
    )  # fmt: skip


async def test_sqlite_is_damaged(config: Config, folder: Path) -> None:
    path = folder / "secureconnect.db"
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xa5" * 8 * 4096)
    assert "sqlite.integrity" in (await look(config)).failed
    path.write_bytes(b"no database at all" * 1000)
    shutil.rmtree(folder / "objects")
    assert "cannot be opened" in (await look(config)).failed["sqlite"]


@pytest.mark.parametrize(
    ("url", "status", "word"),
    [
        ("", "ok", "no name"),
        ("http://127.0.0.1:8080", "ok", "no name"),
        ("https://localhost", "ok", "localhost is 127.0.0.1"),
        ("https://chat.invalid", "failed", "chat.invalid, of gateway.public_url, has no address"),
    ],
)
async def test_the_name_people_use(config: Config, url: str, status: str, word: str) -> None:
    told: list[Finding] = []
    (found,) = await examine(at(config, public_url=url), told.append, "dns")
    assert (found.status, word in found.found) == (status, True), found


async def test_backups_that_are_made_and_that_fail(config: Config, folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    secured = replace(config, backup=BackupConfig(folder=str(kept)))

    async def look_at(config: Config) -> Finding:
        told: list[Finding] = []
        (found,) = await examine(config, told.append, "backup")
        return found

    assert (await look_at(config)).status == "ok"
    assert "does not exist yet" in (await look_at(secured)).found
    made = command.run("backup", kept, "--data-dir", folder, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    found = await look_at(secured)
    assert (found.status, "1 backup in" in found.found, "0 hours old" in found.found) == ("ok", True, True)
    [whole] = kept.glob("20*")
    whole.rename(kept / "2026-01-19T052500.000000Z")
    assert "days old" in (await look_at(secured)).found
    assert (await look_at(secured)).status == "warning"
    secret = tmp_path / "secret"
    secret.write_text("correct horse battery\n")
    secret.chmod(0o600)
    found = await look_at(replace(config, backup=BackupConfig(folder=str(kept), passphrase_file=str(secret))))
    assert (found.status, "without a passphrase" in found.found) == ("failed", True)
