"""Postgres: whether it can be reached, is what we need, and keeps what it is told."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg

from ..config import Config
from ..deps.asyncio_bridge import Bridge, open_bridge
from ..deps.postgres import Postgres
from ..errors import Problem
from ..settings import POSTGRES_URL
from .findings import Report, count, latency

CALL_S = 5.0  # for each thing asked
ROUND_TRIPS = 20
SLOW_S = 0.01
SKEW_S = 0.5
OLDEST = 140_000  # as server_version_num counts

_FACTS = """
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS number,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('fsync') AS fsync,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('default_transaction_isolation') AS isolation,
       current_setting('default_transaction_read_only') AS read_only,
       current_setting('server_encoding') AS encoding,
       current_setting('max_connections')::int AS max_connections,
       current_setting('superuser_reserved_connections')::int AS reserved,
       pg_is_in_recovery() AS standby,
       pg_backend_pid() AS backend,
       current_database() AS database,
       current_user AS role,
       current_schema() AS schema,
       current_schema() IS NOT NULL AND has_schema_privilege(current_schema(), 'CREATE') AS may_create,
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database_limit,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role_limit,
       (SELECT count(*) FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND datid IS NOT NULL AND usesysid IS NOT NULL
          -- of other roles' connections not even this may be seen
          AND COALESCE(backend_type, 'client backend') = 'client backend'
          AND COALESCE(application_name, '') <> 'secureconnect')::int AS others
"""
_FOREIGN = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = to_regnamespace(current_schema()) AND c.relkind IN ('r', 'p')
  AND NOT pg_has_role(c.relowner, 'USAGE')
ORDER BY 1
"""
_HAS_NODES = "SELECT to_regclass('nodes') IS NOT NULL"
_NODES = "SELECT count(*) FROM nodes WHERE lease_ends_at > clock_timestamp()"
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"


@dataclass(frozen=True, slots=True)
class _Seen:
    facts: Mapping[str, Any]
    times_s: list[float]
    ahead_s: float  # the server's clock, of ours
    uncertain_s: float
    nodes: int
    foreign: list[str]  # tables that belong to another role
    is_pooled: bool  # another process answers than the one that took the connection


@asynccontextmanager
async def opened(config: Config, report: Report) -> AsyncIterator[Postgres | None]:
    """The database as the server uses it, once it was found fit; else None."""
    async with open_bridge() as bridge:
        seen = await _look(config, report, bridge)
        if seen is None:
            yield None
            return
        _judge(seen, config, report)
        async with Postgres.open(config.postgres, bridge) as db:
            try:
                await db.probe()
            except Problem as problem:
                report.fail(
                    "postgres.probe",
                    f"the server would find it away: {report.said(problem)}",
                    "mend what is said of it above",
                )
                yield None
            else:
                yield db


async def _look(config: Config, report: Report, bridge: Bridge) -> _Seen | None:
    try:
        if not POSTGRES_URL.fits(config.postgres.url):
            raise ValueError
        return await bridge.run(_ask, config.postgres.url)
    except Exception as exc:
        where = _where(config.postgres.url)
        found, mend = _reason(exc, where, report)
        report.fail("postgres", found, mend)
        return None


async def _ask(url: str) -> _Seen:
    """On the asyncio side, on one connection, each step within CALL_S."""
    connection: Any = await asyncpg.connect(
        url, timeout=CALL_S, command_timeout=CALL_S, statement_cache_size=0
    )
    try:
        facts = await connection.fetchrow(_FACTS)
        times = []
        for _ in range(ROUND_TRIPS):
            began = time.perf_counter()
            await connection.execute("SELECT 1")
            times.append(time.perf_counter() - began)
        began, asked = time.perf_counter(), time.time()
        there = await connection.fetchval(_CLOCK)
        took = time.perf_counter() - began
        nodes = await connection.fetchval(_NODES) if await connection.fetchval(_HAS_NODES) else 0
        foreign = [name for (name,) in await connection.fetch(_FOREIGN)]
        is_pooled = facts["backend"] != connection.get_server_pid()
        return _Seen(dict(facts), times, there - asked - took / 2, took / 2, nodes, foreign, is_pooled)
    finally:
        connection.terminate()  # at once: a server that is frozen never says goodbye


def _where(url: str) -> str:
    """Host, port and database; never a user or a password."""
    try:
        parts = urlsplit(url)
        return (
            f"{parts.hostname or 'localhost'} port {parts.port or 5432}, database {unquote(parts.path[1:])}"
        )
    except ValueError:
        return "what postgres.url names"


def _reason(exc: Exception, where: str, report: Report) -> tuple[str, str]:
    """What happened and how to mend it: the one table."""
    said = report.said(exc)
    match exc:
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return (
                f"{where}: it refuses the user or the password: {said}",
                "set user and password in postgres.url (percent-encoded), and allow this host in pg_hba.conf",
            )
        case asyncpg.InvalidCatalogNameError():
            return f"{where}: {said}", "create the database (createdb), or name another in postgres.url"
        case asyncpg.TooManyConnectionsError():
            return f"{where}: {said}", "raise max_connections there, or lower postgres.connections"
        case asyncpg.CannotConnectNowError():
            return f"{where}: {said}", "wait until it has started, or look at its log if it does not"
        case asyncpg.InsufficientPrivilegeError():
            return f"{where}: {said}", "GRANT the user of postgres.url what it says is lacking"
        case TimeoutError():
            return (
                f"{where}: no answer within {CALL_S:g} s",
                "it accepts nothing or is frozen: look at its log, and at the firewall between",
            )
        case FileNotFoundError():
            return f"{where}: a file of postgres.url: {said}", "correct sslrootcert in postgres.url"
        case ssl.SSLError() | asyncpg.ClientConfigurationError() if "certificate" in said:
            return (
                f"{where}: {said}",
                "name the file of the authority that signed its certificate: sslrootcert in postgres.url",
            )
        case OSError():
            return (
                f"{where}: cannot be reached: {said}",
                "start it, or correct host and port in postgres.url; it must listen there (listen_addresses)",
            )
        case ValueError() | asyncpg.InterfaceError():
            return (
                f"postgres.url is not understood ({type(exc).__name__})",
                "write it as postgres://user:password@host:port/database, the password percent-encoded",
            )
    return f"{where}: {type(exc).__name__}: {said}", "look at the log of Postgres"


def _judge(seen: _Seen, config: Config, report: Report) -> None:
    facts = seen.facts
    report.nodes = max(seen.nodes, 1)
    report.ok("postgres", f"{_where(config.postgres.url)}: reached, as role {facts['role']}")
    if facts["number"] < OLDEST:
        report.fail("postgres.version", f"version {facts['version']}", "upgrade it to version 14 or later")
    else:
        report.ok("postgres.version", f"version {facts['version']}")
    told = f"{ROUND_TRIPS} round trips: {latency(seen.times_s)}"
    if sorted(seen.times_s)[ROUND_TRIPS // 2] > SLOW_S:
        report.warn("postgres.latency", told, "bring it nearer: a message waits for several round trips")
    else:
        report.ok("postgres.latency", told)
    _judge_way(seen, report)
    _judge_clock(seen, report)
    _judge_promises(facts, report)
    _judge_connections(seen, config, report)
    _judge_rights(seen, report)


def _judge_way(seen: _Seen, report: Report) -> None:
    """A pooler drops or refuses what we ask of our connections: limits of time, prepared statements."""
    if seen.is_pooled:
        report.fail(
            "postgres.pooler",
            "a pooler (PgBouncer or the like) stands between: connections lose the settings they rely on",
            "name Postgres itself in postgres.url: this server pools its connections (postgres.connections)",
        )
    else:
        report.ok("postgres.pooler", "none stands between")


def _judge_clock(seen: _Seen, report: Report) -> None:
    way = "ahead of" if seen.ahead_s > 0 else "behind"
    told = (
        f"Postgres's is {abs(seen.ahead_s) * 1e3:.0f} ms {way} this machine's"
        f" (± {seen.uncertain_s * 1e3:.1f} ms)"
    )
    if abs(seen.ahead_s) - seen.uncertain_s > SKEW_S:
        report.warn("clock", told, "run NTP (chrony, systemd-timesyncd) on both machines")
    else:
        report.ok("clock", told)


def _judge_promises(facts: Mapping[str, Any], report: Report) -> None:
    """Whether what it says is stored is stored."""
    name = "postgres.durability"
    told = ", ".join(f"{key} {facts[key]}" for key in ("synchronous_commit", "fsync", "full_page_writes"))
    lax = [key for key in ("fsync", "full_page_writes") if facts[key] != "on"]
    if facts["synchronous_commit"] == "off":
        lax.append("synchronous_commit")
    if lax:
        report.fail(
            name, told, f"switch on {' and '.join(lax)}: a crash would lose messages that were acknowledged"
        )
    else:
        report.ok(name, told)
    if facts["standby"] or facts["read_only"] == "on":
        why = "a standby" if facts["standby"] else "read only (default_transaction_read_only)"
        report.fail("postgres.writable", f"it is {why}", "name the primary in postgres.url")
    if facts["encoding"] != "UTF8":
        report.fail(
            "postgres.encoding",
            f"the database's encoding is {facts['encoding']}",
            "create it anew: createdb --encoding UTF8 --template template0",
        )
    if facts["isolation"] == "read committed":
        report.ok("postgres.isolation", "read committed")
    else:
        report.warn(
            "postgres.isolation",
            f"the default is {facts['isolation']}; this program asks for read committed by itself",
            "set default_transaction_isolation back, if nothing else needs it",
        )


def _judge_connections(seen: _Seen, config: Config, report: Report) -> None:
    facts, nodes = seen.facts, report.nodes
    each = config.postgres.connections + 1  # and the probe's own
    limits = [facts["max_connections"] - facts["reserved"] - facts["others"]]
    limits += [
        limit for limit in (facts["database_limit"], facts["role_limit"]) if limit is not None and limit >= 0
    ]
    allowed, need = min(limits), each * nodes
    told = (
        f"{count(nodes, 'node')} with {each} need {need};"
        f" {allowed} are to be had (max_connections {facts['max_connections']},"
        f" {facts['others']} used by others)"
    )
    if need > allowed:
        report.fail(
            "postgres.connections",
            told,
            "raise max_connections or the limit of role or database there, or lower postgres.connections",
        )
    elif need + each > allowed:
        report.warn("postgres.connections", told, "raise max_connections there before another node comes")
    else:
        report.ok("postgres.connections", told)


def _judge_rights(seen: _Seen, report: Report) -> None:
    facts, name = seen.facts, "postgres.rights"
    if not facts["may_create"]:
        schema = facts["schema"] or "(none: its search_path is empty)"
        report.fail(
            name,
            f"role {facts['role']} may not create tables in schema {schema}",
            f"GRANT CREATE ON SCHEMA {facts['schema'] or 'public'} TO {facts['role']}",
        )
    elif seen.foreign:
        report.fail(
            name,
            f"of another role: {', '.join(seen.foreign[:5])}",
            f"let {facts['role']} own the tables: REASSIGN OWNED BY the other role",
        )
    else:
        report.ok(name, f"role {facts['role']} may create tables in schema {facts['schema']}")
