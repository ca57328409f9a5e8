"""A start without the database: the process listens, says what it waits for, and becomes ready by itself."""

from __future__ import annotations

import gc
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from kit.wait import until
from secureconnect.app import Service
from secureconnect.clock import MINUTE_US
from secureconnect.config import (
    AuthConfig,
    BreakerConfig,
    Config,
    GatewayConfig,
    JournalConfig,
    MemoryConfig,
    PostgresConfig,
    SqliteConfig,
)
from secureconnect.deps import migrate
from secureconnect.deps.contracts import Deps, P, T, Tx, Unit
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.guard import Guard
from secureconnect.deps.guarded import GuardedDatabase
from secureconnect.deps.journal import FileJournal
from secureconnect.deps.memory import MemoryBus, MemoryCache, MemorySignals
from secureconnect.deps.sqlite import Sqlite
from secureconnect.errors import Unavailable
from secureconnect.identity import new_id
from secureconnect.settings import BadSetting

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _garbage_as_before() -> Iterator[None]:
    """A start settles it for the process, which here goes on."""
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


class Flaky:
    """contracts.Database that may be away."""

    def __init__(self, inner: Sqlite) -> None:
        self.is_away = True
        self._inner = inner

    async def probe(self) -> None:
        await trio.lowlevel.checkpoint()
        self._require()

    async def write(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._require()
        return await self._inner.write(unit, *args, **kwargs)

    async def relieve(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._require()
        return await self._inner.relieve(unit, *args, **kwargs)

    async def read(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._require()
        return await self._inner.read(unit, *args, **kwargs)

    def now_us(self) -> int:
        return self._inner.now_us()

    def _require(self) -> None:
        if self.is_away:
            raise Unavailable


class Start:
    """A service on the twins, with a database that is away at first."""

    def __init__(self, config: Config, db: Flaky, deps: Deps) -> None:
        self.db = db
        self.stop = trio.Event()
        self.ended = trio.Event()
        self.service = Service(config, deps)
        self.url = ""

    async def run(self) -> None:
        await self.service.run(self.stop)
        self.ended.set()

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as http:
            return await http.get(self.url + path)

    async def listen(self, output: pytest.CaptureFixture[str]) -> None:
        """Wait for the line that scripts wait for."""
        said = ""

        def listening() -> bool:
            nonlocal said
            said += output.readouterr().out
            return "listening on" in said

        await until(listening)
        found = re.search(r"listening on (\S+)", said)
        assert found
        self.url = found[1]


@asynccontextmanager
async def starting(folder: Path, *, away: bool = True) -> AsyncIterator[Start]:
    config = Config(
        data_dir=str(folder),
        gateway=GatewayConfig(port=0),
        auth=replace(AuthConfig(), argon2_memory_kib=64, argon2_time_cost=1),
        postgres=PostgresConfig(url="postgres://somewhere/else"),
        breaker=BreakerConfig(probe_ms=50),
    )
    async with (
        Sqlite.open(folder / "secureconnect.db", SqliteConfig()) as db,
        FileJournal.open(folder / "journal", JournalConfig()) as journal,
        trio.open_nursery() as nursery,
    ):
        flaky = Flaky(db)
        flaky.is_away = away
        guard = Guard("postgres", config.breaker)
        await nursery.start(guard.probe_forever, flaky.probe)

        async def ready() -> None:
            await guard.wait_admitting()
            flaky._require()
            await migrate.apply(db)

        deps = Deps(
            db=GuardedDatabase(flaky, guard),
            cache=MemoryCache(MemoryConfig()),
            bus=MemoryBus(MemoryConfig()),
            signals=MemorySignals(MemoryConfig(), config.signals.payload_bytes),
            objects=FolderObjects(folder / "objects"),
            journal=journal,
            status=lambda: [guard.status()],
            ready=ready,
            observe=lambda told: guard.observe(lambda _: told()),
        )
        yield Start(config, flaky, deps)
        nursery.cancel_scope.cancel()


async def test_it_listens_waits_and_becomes_ready_by_itself(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capture_logs() as lines:
        async with starting(data_dir) as start, trio.open_nursery() as nursery:
            nursery.start_soon(start.run)
            await start.listen(capsys)
            assert (await start.get("/livez")).status_code == 200
            ready = await start.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (503, "starting")
            health = (await start.get("/health")).json()
            assert health["dependencies"]["postgres"]["status"] == "down"
            assert health["dependencies"]["postgres"]["last_error"] == "unreachable"
            for path in ("/v1/server", "/v1/auth/profile", "/v1/ws/chat", "/docs", "/no/such/path"):
                refused = await start.get(path)
                error = refused.json()["error"]
                assert (refused.status_code, error["code"]) == (503, "UNAVAILABLE"), path
                assert error["details"] == {"dependency": "postgres"}
                assert int(refused.headers["retry-after"]) >= 1

            start.db.is_away = False

            async def is_ready() -> bool:
                return (await start.get("/readyz")).status_code == 200

            await until(is_ready)
            assert (await start.get("/v1/server")).json()["data"]["server_name"] == "secureconnect.local"
            assert (await start.get("/no/such/path")).status_code == 404
            assert (await start.get("/health")).json()["status"] == "healthy"
            async with httpx.AsyncClient(trust_env=False, base_url=start.url) as http:
                body = {"username": "ann", "email": "ann@example.org", "password": PASSWORD}
                assert (await http.post("/v1/auth/register", json=body)).status_code == 201
            start.stop.set()
    told = [line["event"] for line in lines if line["event"] in ("dependency_away", "dependency_back")]
    assert told == ["dependency_away", "dependency_back"]
    order = [line["event"] for line in lines if line["event"] in ("waiting", "started")]
    assert order == ["waiting", "started"]
    assert [line["dependency"] for line in lines if line["event"] == "waiting"] == ["postgres"]


async def test_told_to_stop_while_it_waits_it_ends(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with starting(data_dir) as start, trio.open_nursery() as nursery:
        nursery.start_soon(start.run)
        await start.listen(capsys)
        assert (await start.get("/livez")).status_code == 200
        start.stop.set()
        with trio.fail_after(5):
            await start.ended.wait()
        with pytest.raises(httpx.ConnectError):
            await start.get("/livez")


async def test_a_database_that_goes_away_in_the_middle_of_the_start_is_waited_for(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with starting(data_dir, away=False) as start, trio.open_nursery() as nursery:
        start.db.is_away = True  # its first probe was good
        nursery.start_soon(start.run)
        await start.listen(capsys)
        assert (await start.get("/readyz")).status_code == 503
        start.db.is_away = False

        async def is_ready() -> bool:
            return (await start.get("/readyz")).status_code == 200

        await until(is_ready)
        start.stop.set()


async def test_with_files_of_its_own_it_refuses_to_start_beside_another_node(data_dir: Path) -> None:
    other = new_id()

    async def rent(tx: Tx, ends_us: int) -> None:
        await tx.run("INSERT INTO nodes VALUES ($1, '0.1.0', $2, $2, $3)", other, ends_us - 1, ends_us)

    async with Sqlite.open(data_dir / "secureconnect.db", SqliteConfig()) as db:
        await migrate.apply(db)
        await db.write(rent, db.now_us() + MINUTE_US)
    refusal = pytest.RaisesExc(BadSetting, match=f"another server .*{other}")
    with pytest.RaisesGroup(refusal, flatten_subgroups=True):
        async with starting(data_dir, away=False) as start:
            with trio.fail_after(20):
                await start.run()


async def test_a_node_whose_lease_has_ended_is_in_nobodys_way(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def rent(tx: Tx, ends_us: int) -> None:
        await tx.run("INSERT INTO nodes VALUES ($1, '0.1.0', $2, $2, $3)", new_id(), ends_us - 1, ends_us)

    async with Sqlite.open(data_dir / "secureconnect.db", SqliteConfig()) as db:
        await migrate.apply(db)
        await db.write(rent, db.now_us() - 1)
    async with starting(data_dir, away=False) as start, trio.open_nursery() as nursery:
        nursery.start_soon(start.run)
        await start.listen(capsys)
        assert (await start.get("/readyz")).status_code == 200
        start.stop.set()
