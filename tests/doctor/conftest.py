"""An installation, and servers that may be broken in every way."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kit.postgres import PostgresServer
from kit.server import Server
from secureconnect.config import Config, GatewayConfig, PostgresConfig
from secureconnect.doctor import Finding, examine

PASSWORD = "hush-hush/1"
QUOTED = "hush-hush%2F1"
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


class Findings(list[Finding]):
    """What the doctor found, looked up by name."""

    def of(self, name: str) -> Finding:
        """The worst of this name."""
        found = [each for each in self if each.name == name]
        assert found, f"nothing named {name} among {[each.name for each in self]}"
        return max(found, key=lambda each: ("ok", "warning", "failed").index(each.status))

    @property
    def failed(self) -> dict[str, str]:
        return {each.name: each.found for each in self if each.status == "failed"}

    @property
    def warned(self) -> set[str]:
        return {each.name for each in self if each.status == "warning"}


async def look(config: Config, secrets: Sequence[str] = ()) -> Findings:
    """Whatever is not ok says how to mend it, and nothing says a secret."""
    told: list[Finding] = []
    found = Findings(await examine(config, told.append))
    assert told == found
    for each in found:
        assert (each.mend is None) == (each.status == "ok"), each
        for secret in (PASSWORD, QUOTED, *secrets):
            assert secret not in f"{each.found} {each.mend}", each
    return found


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    server = Server(tmp_path_factory.mktemp("installed") / "data")
    try:
        server.start()
        assert server.terminate() == 0
    finally:
        server.close()
    return server.data_dir


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """The folder of a server that was started once."""
    return Path(shutil.copytree(template, tmp_path / "data"))


@pytest.fixture
def config(folder: Path) -> Config:
    """Of an embedded installation in which nothing is wrong."""
    return Config(data_dir=str(folder), gateway=GatewayConfig(port=0, max_connections=200))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server that keeps what it is told, with a role `strict` that needs PASSWORD and owns databases."""
    server = PostgresServer(**DURABLE)
    try:
        server.start()
        hba = Path(server.sql("SHOW hba_file"))
        hba.write_text(f"host all strict 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
        server.sql("SELECT pg_reload_conf()")
        server.sql(f"CREATE ROLE strict LOGIN PASSWORD '{PASSWORD}'")
        yield server
    finally:
        server.close()


@pytest.fixture
def name(postgres: PostgresServer) -> Iterator[str]:
    """Of an empty database that `strict` owns."""
    name = postgres.create()
    postgres.sql(f"ALTER DATABASE {name} OWNER TO strict")
    yield name
    postgres.drop(name)


@pytest.fixture
def on_postgres(config: Config, postgres: PostgresServer, name: str) -> Config:
    return replace(config, postgres=PostgresConfig(url=url(postgres.port, name)))


def url(port: int, database: str, password: str = QUOTED) -> str:
    return f"postgres://strict:{password}@127.0.0.1:{port}/{database}"
