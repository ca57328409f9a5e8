"""A start without the database: the process listens, says what it waits for, and becomes ready by itself."""

from __future__ import annotations

import gc
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from kit.http import plain
from kit.wait import until
from secureconnect.app import Service
from secureconnect.auth.kept import SNAPSHOT as REVOKED
from secureconnect.clock import MINUTE_US, SECOND_US
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
from secureconnect.deps.contracts import Database, Deps, P, T, Tx, Unit
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.guard import Guard
from secureconnect.deps.guarded import GuardedDatabase
from secureconnect.deps.journal import FileJournal
from secureconnect.deps.mail import FolderMailer
from secureconnect.deps.memory import MemoryBus, MemoryCache, MemorySignals
from secureconnect.deps.push import SilentPusher
from secureconnect.deps.sqlite import Sqlite
from secureconnect.deps.sqlite_snapshot import SqliteSnapshot
from secureconnect.errors import Unavailable
from secureconnect.identity import new_id
from secureconnect.node import SNAPSHOT as KNOWN
from secureconnect.node import Node
from secureconnect.settings import BadSetting

PASSWORD = "correct horse battery"
OTHER = new_id()
TOLD = ("dependency_away", "dependency_back", "started", "whole", "history_is_another")


@pytest.fixture(autouse=True)
def _garbage_as_before() -> Iterator[None]:
    """A start settles it for the process, which here goes on."""
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


class Flaky:
    """contracts.Database that may be away.  probes: answered.  taken: the units that it has run."""

    def __init__(self, inner: Sqlite) -> None:
        self.is_away = True
        self.ahead_us = 0
        self.probes = 0
        self.taken: list[str] = []
        self._inner = inner

    async def probe(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise Unavailable
        self.probes += 1

    async def write(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._require(unit)
        return await self._inner.write(unit, *args, **kwargs)

    async def relieve(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._require(unit)
        return await self._inner.relieve(unit, *args, **kwargs)

    async def read(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._require(unit)
        return await self._inner.read(unit, *args, **kwargs)

    def now_us(self) -> int:
        return self._inner.now_us() + self.ahead_us

    def _require(self, unit: Callable[..., Any]) -> None:
        if self.is_away:
            raise Unavailable
        self.taken.append(unit.__qualname__)


class Start:
    """A service on the twins, with a database that is away at first.

    may_migrate: until it is set the schema is not brought up to date.
    """

    def __init__(self, config: Config, db: Flaky, deps: Deps, may_migrate: trio.Event) -> None:
        self.db = db
        self.may_migrate = may_migrate
        self.stop = trio.Event()
        self.ended = trio.Event()
        self.service = Service(config, deps)
        self.url = ""

    async def run(self) -> None:
        await self.service.run(self.stop)
        self.ended.set()

    async def get(self, path: str) -> httpx.Response:
        async with plain() as http:
            return await http.get(self.url + path)

    async def was_asked(self) -> None:
        """Wait until it has been found to be there, and time enough has passed for everybody to ask it."""
        await until(lambda: self.db.probes > 10)

    async def is_ready(self) -> bool:
        return (await self.get("/readyz")).status_code == 200

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


async def rent(tx: Tx, ends_us: int) -> None:
    """The lease of another node."""
    await tx.run("INSERT INTO nodes VALUES ($1, '0.1.0', $2, $2, $3)", OTHER, ends_us - 1, ends_us)


@asynccontextmanager
async def starting(folder: Path, *, away: bool = True, migrates: bool = True) -> AsyncIterator[Start]:
    """migrates: else only once `may_migrate` is set."""
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
        may_migrate = trio.Event()
        if migrates:
            may_migrate.set()
        await nursery.start(guard.probe_forever, flaky.probe)

        async def ready(first: Callable[[Database], Awaitable[Any]]) -> Any:
            await guard.wait_admitting()
            await may_migrate.wait()
            if flaky.is_away:
                raise Unavailable
            await migrate.apply(db)
            result = await first(flaky)
            guard.admit()
            return result

        objects = FolderObjects(folder / "objects")
        deps = Deps(
            db=GuardedDatabase(flaky, guard),
            snapshot=partial(SqliteSnapshot.open, folder / "secureconnect.db"),
            cache=MemoryCache(MemoryConfig()),
            bus=MemoryBus(MemoryConfig()),
            signals=MemorySignals(MemoryConfig(), config.signals.payload_bytes),
            objects=objects,
            drafts=objects,
            journal=journal,
            mailer=FolderMailer(folder / "mail", "a@example.org", 10),
            pusher=SilentPusher(),
            status=lambda: [guard.status()],
            ready=ready,
            observe=lambda told: guard.observe(lambda _: told()),
            hold_back=guard.hold_back,
        )
        yield Start(config, flaky, deps, may_migrate)
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
            assert health["waits_for"] == {"dependency": "postgres", "reason": "nothing_kept"}
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
            health = (await start.get("/health")).json()
            assert (health["status"], health["waits_for"]) == ("healthy", None)
            async with plain(base_url=start.url) as http:
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
    async with Sqlite.open(data_dir / "secureconnect.db", SqliteConfig()) as db:
        await migrate.apply(db)
        await db.write(rent, db.now_us() + MINUTE_US)
    refusal = pytest.RaisesExc(BadSetting, match=f"another server .*{OTHER}")
    with pytest.RaisesGroup(refusal, flatten_subgroups=True):
        async with starting(data_dir, away=False) as start:
            with trio.fail_after(20):
                await start.run()


async def test_a_node_whose_lease_has_ended_is_in_nobodys_way(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Sqlite.open(data_dir / "secureconnect.db", SqliteConfig()) as db:
        await migrate.apply(db)
        await db.write(rent, db.now_us() - 1)
    async with starting(data_dir, away=False) as start, trio.open_nursery() as nursery:
        nursery.start_soon(start.run)
        await start.listen(capsys)
        assert (await start.get("/readyz")).status_code == 200
        start.stop.set()


# a later start


async def has_run(folder: Path, output: pytest.CaptureFixture[str]) -> None:
    """A whole start and its end, with all that is kept for the next."""
    async with starting(folder, away=False) as start, trio.open_nursery() as nursery:
        nursery.start_soon(start.run)
        await start.listen(output)
        await until(lambda: (folder / KNOWN).exists() and (folder / REVOKED).exists())
        start.stop.set()
        await start.ended.wait()


async def test_a_later_start_serves_and_touches_nothing_before_it_has_looked(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written by what an earlier start knew: the schema may be behind, the history another."""
    await has_run(data_dir, capsys)
    async with Sqlite.open(data_dir / "secureconnect.db", SqliteConfig()) as db:
        elsewhere = await Node.open(db, data_dir, "", "x")
        kept = elsewhere.history_id
        await elsewhere.begin_history(kept)
    with capture_logs() as lines:
        async with starting(data_dir, migrates=False) as start, trio.open_nursery() as nursery:
            nursery.start_soon(start.run)
            await start.listen(capsys)
            assert await start.is_ready()
            health = (await start.get("/health")).json()
            assert (health["status"], health["waits_for"]) == ("degraded", None)
            first = start.service.chat.require()
            assert first.history_id == kept

            start.db.is_away = False
            await start.was_asked()
            assert start.db.taken == []
            assert (await start.get("/health")).json()["dependencies"]["postgres"]["status"] == "down"
            start.may_migrate.set()
            await until(lambda: any(line["event"] == "whole" for line in lines))
            await until(lambda: start.service.chat.state == "running")
            assert start.service.chat.require().history_id == elsewhere.history_id
            assert (await start.get("/health")).json()["status"] == "healthy"
            start.stop.set()
        told = [line["event"] for line in lines if line["event"] in TOLD]
        assert told == ["dependency_away", "started", "history_is_another", "dependency_back", "whole"]
    again = await Node.reopen(start.db, data_dir, "")
    assert again is not None
    assert again.history_id == elsewhere.history_id


async def test_what_was_kept_too_long_ago_is_waited_for(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await has_run(data_dir, capsys)
    with capture_logs() as lines:
        async with starting(data_dir) as start, trio.open_nursery() as nursery:
            start.db.ahead_us = AuthConfig().access_ttl_s * SECOND_US
            nursery.start_soon(start.run)
            await start.listen(capsys)
            assert not await start.is_ready()
            health = (await start.get("/health")).json()
            assert health["waits_for"] == {"dependency": "postgres", "reason": "kept_too_long_ago"}
            start.db.is_away = False
            await until(start.is_ready)
            start.stop.set()
    assert [line["reason"] for line in lines if line["event"] == "waiting"] == ["kept_too_long_ago"]
    assert [line["whole"] for line in lines if line["event"] == "started"] == [True]


async def test_without_what_the_node_knew_it_waits(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await has_run(data_dir, capsys)
    (data_dir / KNOWN).unlink()
    async with starting(data_dir) as start, trio.open_nursery() as nursery:
        nursery.start_soon(start.run)
        await start.listen(capsys)
        health = (await start.get("/health")).json()
        assert health["waits_for"] == {"dependency": "postgres", "reason": "nothing_kept"}
        start.stop.set()


async def test_a_later_start_ends_once_it_finds_another_node_beside_its_own_files(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await has_run(data_dir, capsys)
    async with Sqlite.open(data_dir / "secureconnect.db", SqliteConfig()) as db:
        await db.write(rent, db.now_us() + MINUTE_US)
    with pytest.RaisesGroup(pytest.RaisesExc(BadSetting, match="another server"), flatten_subgroups=True):
        async with starting(data_dir) as start, trio.open_nursery() as nursery:
            nursery.start_soon(start.run)
            await start.listen(capsys)
            assert await start.is_ready()
            start.db.is_away = False
            with trio.fail_after(20):
                await start.ended.wait()


async def test_a_later_start_ends_once_it_finds_the_schema_of_a_newer_program(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await has_run(data_dir, capsys)
    async with Sqlite.open(data_dir / "secureconnect.db", SqliteConfig()) as db:
        await db.write(_from_the_future)
    newer = pytest.RaisesExc(migrate.MigrationError, match=r"needs 99\.0\.0")
    with pytest.RaisesGroup(newer, flatten_subgroups=True):
        async with starting(data_dir) as start, trio.open_nursery() as nursery:
            nursery.start_soon(start.run)
            await start.listen(capsys)
            start.db.is_away = False
            with trio.fail_after(20):
                await start.ended.wait()


async def _from_the_future(tx: Tx) -> None:
    await tx.run("INSERT INTO schema_migrations VALUES (9999, '9999_later', '', 0, '99.0.0')")
