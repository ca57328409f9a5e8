"""What stands behind each protocol, and with which breaker, bulkhead, time limit and stand-in: the one place.

Opened in order and closed in reverse. Adapters are imported when their setting says that they are used.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog
import trio

from .. import clock, tracing
from ..config import Config
from ..durable import sync_folder
from ..errors import Problem
from ..metrics import gauge
from ..settings import BadSetting
from . import migrate
from .contracts import (
    Bus,
    Cache,
    Database,
    Dependency,
    DependencyStatus,
    Deps,
    Kind,
    Mailer,
    Objects,
    Presigner,
    Pusher,
    Ready,
    RevocationFeed,
    Signals,
    Snapshot,
    T,
    Tx,
    all_are_let_in,
)
from .files import FolderObjects
from .guard import Guard, Probe
from .guarded import FallbackBus, FallbackCache, GuardedDatabase, GuardedMailer, GuardedObjects
from .journal import FileJournal
from .mail import FolderMailer
from .memory import MemoryBus, MemoryCache, MemorySignals
from .meters import show_pool
from .push import PushServices, SilentPusher, contact_of
from .spool import SpooledObjects
from .sqlite import Sqlite
from .sqlite_snapshot import SqliteSnapshot
from .upgrade import CopyTables, upgrade_postgres, upgrade_sqlite

if TYPE_CHECKING:
    from .asyncio_bridge import Bridge
    from .minio import MinioObjects

log = structlog.get_logger(module="deps")

NODES = gauge("secureconnect_nodes", "Live nodes on this database, as last counted; 0 where nobody counts.")

DATABASE = "secureconnect.db"
OBJECTS = "objects"
JOURNAL = "journal"
SPOOL = "spool"
MAIL = "mail"
LOCK = "lock"
COUNT_NODES_S = 1.0
SWEEP_S = 600.0
HOUR_S = 3600


class DataFolderBusy(Exception):
    """Another server holds the data folder: one line for the person who starts this one."""


class NotReady(Exception):
    """The database is missing or its schema is behind: one line for the person at the terminal."""


# What clients are told does not work as usual while a dependency is away.
AFFECTED: dict[Dependency, tuple[str, ...]] = {
    "postgres": ("sign_in", "messages", "history", "settings"),
    "redis": ("presence", "typing", "delivery_between_nodes"),
    "minio": ("uploads", "downloads"),
    "smtp": ("mail",),
    "push": ("push",),
}

_LIVE_NODES = "SELECT count(*) FROM nodes WHERE lease_ends_at > $1"


@asynccontextmanager
async def open_deps(config: Config, copy_tables: CopyTables | None = None) -> AsyncIterator[Deps]:
    """Everything outside, for the one server of the data folder.

    copy_tables: what copies those of Postgres before its schema is brought up to date; None: nothing does.

    A real backend may be away: what needs it raises Unavailable until it is there. Raises DataFolderBusy,
    BadSetting (the folder cannot be used, a URL makes no sense); with the embedded database, whose schema is
    brought up to date first, also migrate.MigrationError and Unavailable.
    """
    folder = Path(config.data_dir)
    with _naming(folder):
        lock = await trio.to_thread.run_sync(_lock, folder)
    try:
        async with AsyncExitStack() as stack:
            yield await _Wiring(config, stack, copy_tables).deps()
    finally:
        os.close(lock)


class _Wiring:
    """Puts the real thing behind a protocol where its setting says where it is, the twin where it does not.

    Real things are opened in this order: the bridge to asyncio, the adapters, the probes; closed in reverse.
    """

    _snapshot: Callable[[], AbstractAsyncContextManager[Snapshot]]

    def __init__(self, config: Config, stack: AsyncExitStack, copy_tables: CopyTables | None) -> None:
        self._config = config
        self._copy_tables = copy_tables
        self._stack = stack
        self._since_us = clock.now_us()
        self._bridge: Bridge | None = None
        self._guards: list[tuple[Guard, Probe]] = []
        self._unprobed: list[Guard] = []  # asked in another way, if at all
        self._status: list[Callable[[], DependencyStatus]] = []
        self._ready: Ready | None = None
        self._hold_back: Callable[[], None] = all_are_let_in
        self._nodes = 1
        self._has_schema = trio.Event()
        self._passes: list[Callable[[], Awaitable[None]]] = []

    async def deps(self) -> Deps:
        await self._tracing()
        db = await self._database()
        if tracing.is_on():
            from .traced import TracedDatabase

            db = TracedDatabase(db)
        cache, bus = await self._cache_and_bus()
        signals = self._signals(bus, db)
        objects, presigner = await self._objects()
        mailer = await self._mailer()
        pusher = await self._pusher()
        journal = await self._stack.enter_async_context(_journal(self._config))
        await self._start_probes(db)
        return Deps(
            db=db,
            snapshot=self._snapshot,
            cache=cache,
            bus=bus,
            signals=signals,
            objects=objects,
            drafts=objects,
            journal=journal,
            mailer=mailer,
            pusher=pusher,
            status=lambda: [status() for status in self._status],
            ready=self._ready or _at_once(db),
            observe=self._observe,
            revocations=await self._revocations(),
            presigner=presigner,
            hold_back=self._hold_back,
        )

    # one for each dependency

    async def _tracing(self) -> None:
        """Before all others: the last spans are theirs."""
        if not self._config.tracing.endpoint:
            return
        from .otlp import Collector

        collector = Collector(self._config.tracing)
        self._stack.push_async_callback(collector.close)
        self._stack.enter_context(tracing.recording(collector))
        self._passes.append(collector.run)

    async def _database(self) -> Database:
        config = self._config
        if not config.postgres.url:
            path = Path(config.data_dir) / DATABASE
            await upgrade_sqlite(config, path)
            self._embedded("postgres", "sqlite")
            self._snapshot = partial(SqliteSnapshot.open, path)
            db = await self._stack.enter_async_context(Sqlite.open(path, config.sqlite))
            show_pool(1 + config.sqlite.readers, db.waiting)
            return db
        from .postgres import Postgres
        from .postgres_snapshot import PostgresSnapshot

        bridge = await self._bridged()
        real = await self._stack.enter_async_context(Postgres.open(config.postgres, bridge))
        show_pool(config.postgres.connections, real.waiting)
        # its pool is the bulkhead, and limits the time
        guard = self._guard("postgres", real.probe, abandon=real.abandon)

        async def ready(first: Callable[[Database], Awaitable[T]]) -> T:
            await guard.wait_admitting()
            if await migrate.missing(real):  # which gives up as soon as the server is found away again
                await upgrade_postgres(config, bridge, self._copy_tables)
            self._has_schema.set()
            result = await first(real)
            guard.admit()
            return result

        self._ready, self._hold_back = ready, guard.hold_back
        self._snapshot = partial(PostgresSnapshot.open, real, bridge)
        return GuardedDatabase(real, guard)

    async def _cache_and_bus(self) -> tuple[Cache, Bus]:
        config, memory = self._config.redis, self._config.memory
        if not config.url:
            self._embedded("redis", "memory")
            bus = MemoryBus(memory, only_here=bool(self._config.postgres.url), is_alone=True)
            return MemoryCache(memory), bus
        from .redis import open_redis

        real = await self._stack.enter_async_context(open_redis(config, await self._bridged()))
        guard = self._guard("redis", real.probe)  # its lanes are the bulkhead, and limit the time
        there: tuple[Cache, Bus] = (real.cache, real.bus)
        if tracing.is_on():
            from .traced import TracedBus, TracedCache

            there = TracedCache(real.cache), TracedBus(real.bus)
        cache = FallbackCache(there[0], lambda: MemoryCache(memory), guard, lambda: self._nodes)
        return cache, FallbackBus(there[1], guard, memory.bus_backlog)

    def _signals(self, bus: Bus, db: Database) -> Signals:
        config, waiting = self._config.signals, self._config.memory.bus_backlog
        guards = {guard.name: guard for guard, _ in self._guards}
        if "postgres" not in guards:
            return MemorySignals(self._config.memory, config.payload_bytes)
        from .signals import NodeSignals

        signals = NodeSignals(config, bus, guards.get("redis"), db, guards["postgres"], waiting)

        async def carry() -> None:
            await self._has_schema.wait()
            await signals.run()

        self._passes.append(carry)
        return signals

    async def _revocations(self) -> RevocationFeed | None:
        config = self._config
        if not config.redis.url:
            return None
        from .redis_feed import open_feed

        # as long as a token may pass that was valid when the database went away
        kept_s = config.auth.access_ttl_s + config.auth.outage_grace_s + HOUR_S
        bridge = await self._bridged()
        return await self._stack.enter_async_context(open_feed(bridge, config.redis, kept_s=kept_s))

    async def _objects(self) -> tuple[FolderObjects | SpooledObjects, Presigner | None]:
        reserve_mb = self._config.sqlite.disk_reserve_mb
        config = self._config.minio
        if not config.endpoint:
            folder = Path(self._config.data_dir)
            if await trio.to_thread.run_sync(SpooledObjects.is_left, folder / SPOOL):
                raise BadSetting(
                    f"{folder / SPOOL} holds files that MinIO has yet to get: set minio.endpoint again, or"
                    " remove that folder, and the files with it"
                )
            self._embedded("minio", "files")
            with _naming(folder):
                open_folder = partial(FolderObjects, folder / OBJECTS, reserve_mb=reserve_mb)
                return await trio.to_thread.run_sync(open_folder), None
        if self._config.storage.upload_parts_s > config.unfinished_h * 3600:
            raise BadSetting("storage.upload_parts_s is longer than minio.unfinished_h, which ends uploads")
        from .minio import MinioObjects

        real = await self._stack.enter_async_context(MinioObjects.open(config, await self._bridged()))
        guard = self._guard(
            "minio",
            real.probe,
            calls=config.connections,
            waiting=config.waiting,
            limit_s=config.call_s,
            abandon=real.abandon,
        )
        with _naming(Path(self._config.data_dir)):
            spool = await SpooledObjects.open(
                GuardedObjects(real, guard),
                Path(self._config.data_dir) / SPOOL,
                lambda: not guard.is_up,
                config,
                reserve_mb=reserve_mb,
            )
        self._passes += [spool.pass_forever, partial(_sweep_forever, real)]
        return spool, real

    async def _mailer(self) -> Mailer:
        config = self._config.smtp
        host = urlsplit(self._config.gateway.public_url).hostname or "localhost"
        sender = config.sender or f"no-reply@{host}"
        if not config.url:
            self._embedded("smtp", "files")
            return FolderMailer(Path(self._config.data_dir) / MAIL, sender, config.kept_files)
        from .smtp import SmtpMailer

        real = SmtpMailer(config, sender, host, await self._bridged())
        # one failed call is enough: it says more than a probe, and there are few of them
        breaker = replace(self._config.breaker, failures=1)
        guard = Guard("smtp", breaker, affects=AFFECTED["smtp"], limit_s=config.call_s)
        self._status.append(guard.status)
        self._unprobed.append(guard)
        self._passes.append(
            partial(
                guard.probe_while_away,
                real.probe,
                limit_s=config.call_s,
                first_s=config.first_pause_s,
                longest_s=config.longest_pause_s,
            )
        )
        return GuardedMailer(real, guard)

    async def _pusher(self) -> Pusher:
        config, public_url = self._config.push, self._config.gateway.public_url
        if not config.enabled:
            self._embedded("push", "none")
            return SilentPusher()

        guard = Guard("push", self._config.breaker, affects=AFFECTED["push"])
        self._status.append(guard.status)
        self._unprobed.append(guard)
        pusher = PushServices(config, contact_of(config, public_url), guard)
        self._stack.push_async_callback(pusher.close)
        self._passes.append(pusher.forget_forever)
        return pusher

    # what they have in common

    def _embedded(self, name: Dependency, kind: Kind) -> None:
        status = DependencyStatus(name, kind, "up", self._since_us)
        self._status.append(lambda: status)

    def _guard(self, name: Dependency, probe: Probe, **limits: Any) -> Guard:
        guard = Guard(name, self._config.breaker, affects=AFFECTED[name], **limits)
        self._guards.append((guard, probe))
        self._status.append(guard.status)
        return guard

    async def _bridged(self) -> Bridge:
        if self._bridge is None:
            from .asyncio_bridge import open_bridge

            self._bridge = await self._stack.enter_async_context(open_bridge())
        return self._bridge

    async def _start_probes(self, db: Database) -> None:
        """Returns once each dependency has been asked whether it is there."""
        if not self._guards and not self._passes:
            return
        nursery = await self._stack.enter_async_context(trio.open_nursery())
        self._stack.callback(nursery.cancel_scope.cancel)
        async with trio.open_nursery() as first:
            for guard, probe in self._guards:
                first.start_soon(nursery.start, guard.probe_forever, probe)
        for each in self._passes:
            nursery.start_soon(each)
        if self._config.postgres.url and self._config.redis.url:
            nursery.start_soon(self._count_nodes, db)

    async def _count_nodes(self, db: Database) -> None:
        """Know how many nodes share what is away, by the last look at the database."""
        await self._has_schema.wait()
        while True:
            try:
                self._nodes = await db.read(_live_nodes, db.now_us())
                NODES.set(self._nodes)
            except Problem as problem:
                log.debug("nodes_not_counted", code=problem.code)
            await trio.sleep(COUNT_NODES_S)

    def _observe(self, told: Callable[[], None]) -> None:
        for guard in (*(guard for guard, _ in self._guards), *self._unprobed):
            guard.observe(lambda _: told())


def _at_once(db: Database) -> Ready:
    """Of a database that was brought up to date when it was opened."""

    async def ready(first: Callable[[Database], Awaitable[T]]) -> T:
        return await first(db)

    return ready


async def _sweep_forever(store: MinioObjects) -> None:
    """What was begun long ago and never finished is removed, little by little."""
    while True:
        await trio.sleep(SWEEP_S)
        try:
            await store.sweep_once()
        except Problem as problem:
            log.debug("objects_not_swept", code=problem.code)


async def _live_nodes(tx: Tx, now_us: int) -> int:
    row = await tx.one(_LIVE_NODES, now_us)
    return int(row[0]) if row else 1


@asynccontextmanager
async def open_database(
    config: Config, *, bring_up_to_date: bool = False, copy_tables: CopyTables | None = None
) -> AsyncIterator[Database]:
    """The database alone, for the command line; a server may be running on it.

    bring_up_to_date: make what is missing; copy_tables as for `open_deps`. Otherwise raises NotReady if the
    database is missing or its schema is behind.
    """
    open_it = partial(_postgres, copy_tables=copy_tables) if config.postgres.url else _sqlite
    async with open_it(config, bring_up_to_date) as db:
        if not bring_up_to_date and (missing := await migrate.missing(db)):
            raise NotReady(f"the database lacks {', '.join(missing)}: run `secureconnect migrate` first")
        yield db


@asynccontextmanager
async def _postgres(config: Config, make: bool, copy_tables: CopyTables | None) -> AsyncIterator[Database]:
    from .asyncio_bridge import open_bridge
    from .postgres import Postgres

    folder = Path(config.data_dir)
    if make:
        with _naming(folder):
            await trio.to_thread.run_sync(_make, folder)
    async with open_bridge() as bridge:
        if make:
            await upgrade_postgres(config, bridge, copy_tables)
        async with Postgres.open(config.postgres, bridge) as db:
            yield db


@asynccontextmanager
async def _sqlite(config: Config, make: bool) -> AsyncIterator[Database]:
    path = Path(config.data_dir) / DATABASE
    if make:
        with _naming(path.parent):
            await trio.to_thread.run_sync(_make, path.parent)
        await upgrade_sqlite(config, path)
    elif not await trio.to_thread.run_sync(path.exists):
        raise NotReady(
            f"there is no database in {config.data_dir}: start the server once, or give --data-dir"
        )
    async with Sqlite.open(path, config.sqlite) as db:
        yield db


@asynccontextmanager
async def open_snapshot(config: Config) -> AsyncIterator[Snapshot]:
    """The database at this moment, for the command line; a server may be running on it. Raises
    Unavailable."""
    if not config.postgres.url:
        async with SqliteSnapshot.open(Path(config.data_dir) / DATABASE) as snapshot:
            yield snapshot
        return
    from .asyncio_bridge import open_bridge
    from .postgres import Postgres
    from .postgres_snapshot import PostgresSnapshot

    async with (
        open_bridge() as bridge,
        Postgres.open(config.postgres, bridge) as db,
        PostgresSnapshot.open(db, bridge) as held,
    ):
        yield held


@asynccontextmanager
async def open_objects(config: Config, *, reads_only: bool) -> AsyncIterator[Objects]:
    """The files alone, for the command line.  reads_only: a server may be running on them."""
    if not config.minio.endpoint:
        with _naming(Path(config.data_dir)):
            open_folder = partial(FolderObjects, Path(config.data_dir) / OBJECTS, reads_only=reads_only)
            yield await trio.to_thread.run_sync(open_folder)
        return
    from .asyncio_bridge import open_bridge
    from .minio import MinioObjects

    async with open_bridge() as bridge, MinioObjects.open(config.minio, bridge) as store:
        await store.probe()
        yield store


@asynccontextmanager
async def _journal(config: Config) -> AsyncIterator[FileJournal]:
    async with AsyncExitStack() as stack:
        folder = Path(config.data_dir)
        with _naming(folder):
            journal = await stack.enter_async_context(FileJournal.open(folder / JOURNAL, config.journal))
        yield journal


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """The system's refusals name the setting."""
    try:
        yield
    except OSError as exc:
        why = str(exc.strerror).lower()
        raise BadSetting(f"data_dir = {str(folder)!r} cannot be used: {why} ({exc.filename})") from exc


def _make(folder: Path) -> None:
    """The folder and those above it, durably: what is synced in a folder that a crash takes is lost too."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def _lock(folder: Path) -> int:
    """Descriptor of the lock file; the lock ends with it, and with the process however that dies."""
    _make(folder)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        raise DataFolderBusy(
            f"the data folder {folder} is in use by another server (process {holder or 'unknown'})"
        ) from None
    with suppress(OSError):  # a full disk: the number only stands in the refusal above
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
    return lock


@asynccontextmanager
async def hold_folder(config: Config) -> AsyncIterator[None]:
    """Keep servers away from the data folder. Raises DataFolderBusy, or BadSetting."""
    folder = Path(config.data_dir)
    with _naming(folder):
        lock = await trio.to_thread.run_sync(_lock, folder)
    try:
        yield
    finally:
        os.close(lock)
