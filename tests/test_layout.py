"""The house rules that a reader cannot see in one file: who imports whom, who writes which table."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from secureconnect.audit import ACTIONS

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "secureconnect"
LONGEST = 600

GROUND = {
    "errors",
    "identity",
    "edge",
    "clock",
    "config",
    "config_file",
    "durable",
    "settings",
    "log",
    "metrics",
    "periodic",
    "tracing",
}
GROUND |= {"supervise", "systemd"}
BETWEEN = {"audit", "outbox", "idempotency", "node"}
ROOMS = {"auth", "chat", "signaling", "storage"}
DOOR = {"app", "cli", "client", "backup", "bench", "doctor", "move", "__main__"}

# what only these may import; "deps" is the folder, "deps/sqlite" the file
ONLY = {
    # of settings; of all else a start would define, too, each takes fifty times as long as a msgspec.Struct
    "dataclasses": {"config", "config_file", "settings", "deps/policy", "deps/upgrade", *DOOR},
    "asyncio": {"deps/asyncio_bridge"},
    "trio_asyncio": {"deps/asyncio_bridge"},
    "sqlite3": {f"deps/sqlite{each}" for each in ("", "_copies", "_log", "_snapshot", "_unit")},
    "asyncpg": {"deps/postgres", "deps/postgres_unit", "doctor"},
    "aiosmtplib": {"deps/smtp", "doctor"},
    "redis": {"deps/redis", "deps/redis_feed", "doctor"},
    "miniopy_async": {"deps/minio", "deps/minio_bucket", "deps/minio_calls", "deps/minio_presign", "doctor"},
    "aiohttp": {"deps/minio_calls", "deps/minio_presign", "doctor"},
    "quart": {"gateway"},
    "quart_trio": {"gateway"},
    "hypercorn": {"gateway"},
    "httptools": {"gateway"},
    "wsproto": {"gateway"},
    "websockets": {"gateway/framing"},
    "prometheus_client": {"metrics"},
    "httpx": {"client", "cli", "doctor"},
    "trio_websocket": {"client", "cli"},
    "typer": {"cli"},
    "rich": {"cli"},
    "argon2": {"auth"},
    "pyotp": {"auth"},
    "jwt": {"auth", "deps/fcm", "deps/webpush"},
    "httpcore": {"deps/outward"},
    "opentelemetry": {"deps/otlp"},
}

# runs text or bytes as a program, makes objects of any kind of them, or fetches what an address names
DANGEROUS = {"eval", "exec", "compile", "__import__", "ctypes", "runpy", "os.system", "os.popen", "pty"}
DANGEROUS |= {"subprocess", "multiprocessing", "trio.run_process", "pickle", "marshal", "shelve", "yaml"}
DANGEROUS |= {"urllib.request", "http.client"}

# one writer for each table
OWNERS = {
    "node": {"meta", "nodes", "secrets"},
    "audit": {"audit", "audit_anchor", "audit_head"},
    "idempotency": {"idempotency"},
    "outbox": {"outbox"},
    "deps": {"schema_migrations", "signals"},
    "auth": {
        *("users", "blocks", "friends", "devices", "sessions", "refresh_tokens", "revocations", "tickets"),
        *("lockouts", "totps", "recovery_codes", "invites", "bans", "reports", "announcements"),
        *("device_keys", "one_time_keys", "fallback_keys", "key_claims", "key_changes", "key_departures"),
        *("inboxes", "inbox_messages", "inbox_sendings", "cross_signing_keys", "key_signatures"),
        *("backups", "backup_keys"),
        *("mail_tokens", "registrations"),
    },
    "chat": {
        "conversations",
        "members",
        "messages",
        "message_tallies",
        "last_seen",
        "changes",
        "reactions",
        "message_versions",
        "mentions",
        "polls",
        "poll_options",
        "poll_votes",
        "search_positions",
        "search_entries",
        "search_upkeep",
        "pins",
        "deleted_conversations",
        "deleted_members",
        *("notifications", "notified", "notification_preferences", "push_devices", "pushes", "announced"),
    },
    "storage": {"files", "quotas", "file_shares"},
    "signaling": {
        *("recordings", "recording_consents", "recording_parts"),
        *("calls", "call_people", "call_peers"),
    },
}
PUBLISHED = {"users", "blocks", "conversations", "members", "file_shares", "nodes"}


@dataclass(frozen=True)
class Source:
    """One file.  name: `chat/store`.  owner: its room, or the file itself at the top."""

    path: Path
    name: str
    tree: ast.Module

    @property
    def owner(self) -> str:
        return self.name.partition("/")[0]

    def imports(self) -> Iterator[tuple[str, int]]:
        """Absolute names, those for type checkers and those inside functions too, with their lines."""
        package = ["secureconnect", *self.name.split("/")[:-1]]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((each.name, node.lineno) for each in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*above, *([node.module] if node.module else [])])
                for each in node.names:
                    yield f"{module}.{each.name}", node.lineno

    def calls(self) -> Iterator[tuple[str, int]]:
        """`open` and `os.open`, as they are written."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                yield ast.unparse(node.func), node.lineno

    def texts(self) -> Iterator[tuple[str, int]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value, node.lineno


@cache
def sources() -> list[Source]:
    return [
        Source(path, path.relative_to(SRC).with_suffix("").as_posix(), ast.parse(path.read_text("utf-8")))
        for path in sorted(SRC.rglob("*.py"))
    ]


def ours(imported: str) -> str | None:
    """`deps/contracts` for `secureconnect.deps.contracts.Database`; None for what is not ours."""
    root, _, rest = imported.partition(".")
    if root != "secureconnect":
        return None
    parts = rest.split(".")
    if (SRC / parts[0]).is_dir():
        if len(parts) > 1 and (SRC / parts[0] / f"{parts[1]}.py").exists():
            return "/".join(parts[:2])
        return parts[0]
    return parts[0] if (SRC / f"{parts[0]}.py").exists() else ""


def may_import(importer: Source, imported: str) -> bool:
    """imported: as `ours` names it; "" is the package itself (its version)."""
    target = imported.partition("/")[0]
    if importer.owner in DOOR or importer.name == "__init__" or imported == "" or target in GROUND:
        return True
    if target == importer.owner:
        return True
    if imported == "deps/contracts":
        return importer.owner not in GROUND
    if importer.owner == "gateway":
        return target in {"audit", "node"}
    return importer.owner in ROOMS and target in BETWEEN


def test_every_file_has_a_place() -> None:
    known = GROUND | BETWEEN | ROOMS | DOOR | {"deps", "gateway", "__init__"}
    assert {source.owner for source in sources()} <= known


def test_who_imports_whom() -> None:
    broken = [
        f"{source.name}:{line} imports {imported}"
        for source in sources()
        for imported, line in source.imports()
        if (target := ours(imported)) is not None and not may_import(source, target)
    ]
    assert not broken


def test_what_is_imported_in_one_place_only() -> None:
    broken = [
        f"{source.name}:{line} imports {imported}"
        for source in sources()
        for imported, line in source.imports()
        if (allowed := ONLY.get(imported.partition(".")[0])) is not None
        and not allowed & {source.name, source.owner}
    ]
    assert not broken


def test_nothing_can_run_revive_or_fetch_what_people_send() -> None:
    broken = [
        f"{source.name}:{line} has {name}"
        for source in sources()
        for name, line in (*source.imports(), *source.calls())
        if any(f"{name}.".startswith(f"{each}.") for each in DANGEROUS)
    ]
    assert not broken


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("errors", "edge", True),
        ("errors", "deps/contracts", False),
        ("errors", "audit", False),
        ("deps/sqlite", "errors", True),
        ("deps/sqlite", "node", False),
        ("audit", "deps/contracts", True),
        ("audit", "deps/sqlite", False),
        ("audit", "node", False),
        ("gateway/rest", "audit", True),
        ("gateway/rest", "auth", False),
        ("gateway/rest", "deps/policy", False),
        ("chat/hub", "node", True),
        ("chat/hub", "auth", False),
        ("chat/hub", "auth/keys", False),
        ("chat/hub", "gateway/rest", False),
        ("chat/hub", "app", False),
        ("app", "chat/hub", True),
        ("cli/keys", "auth/keys", True),
    ],
)
def test_the_rule_itself(importer: str, imported: str, allowed: bool) -> None:
    assert may_import(Source(SRC, importer, ast.Module([], [])), imported) is allowed


def test_no_room_looks_back() -> None:
    """Inside a room: routes, rules, store. SQL knows no rule, and no rule knows JSON. The SQL of a part of a
    room may know the rows of the room."""
    broken = [
        f"{source.name}:{line} imports {imported}"
        for source in sources()
        for imported, line in source.imports()
        if source.owner in ROOMS
        and source.name.endswith("/store")
        and (ours(imported) or "").startswith(f"{source.owner}/")
        and ours(imported) != f"{source.owner}/store"
    ] + [
        f"{source.name}:{line} imports {imported}"
        for source in sources()
        for imported, line in source.imports()
        if source.owner in ROOMS
        and not source.name.endswith(("/routes", "/__init__"))
        and ours(imported) == f"{source.owner}/routes"
    ]
    assert not broken


# tables

WRITTEN = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM)\s+(\w+)")
READ = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)")
CREATED = re.compile(r"^\s*CREATE TABLE (?:IF NOT EXISTS )?(\w+)", re.MULTILINE)
TABLES = set().union(*OWNERS.values())


def test_every_table_has_an_owner() -> None:
    created: dict[str, list[str]] = {"sqlite": [], "postgres": []}
    for path in sorted((ROOT / "migrations").glob("*.sql")):
        native = path.name.split(".")[1]
        for dialect in [native] if native in created else created:
            created[dialect] += CREATED.findall(path.read_text("utf-8"))
    assert all(len(names) == len(set(names)) for names in created.values())
    assert set().union(*created.values()) == TABLES - {"schema_migrations"}
    assert sum(map(len, OWNERS.values())) == len(TABLES), "a table has two owners"


def test_tables_are_written_by_their_owner_and_read_by_others_only_if_published() -> None:
    broken = []
    for source in sources():
        own = OWNERS.get(source.owner, set())
        for text, line in source.texts():
            written = set(WRITTEN.findall(text)) & TABLES
            read = set(READ.findall(text)) & TABLES - written
            broken += [f"{source.name}:{line} writes {name}" for name in written - own]
            broken += [f"{source.name}:{line} reads {name}" for name in read - own - PUBLISHED]
    assert not broken


def test_every_owner_writes_its_tables() -> None:
    """Or the test above would look at the wrong words."""
    for owner, tables in OWNERS.items():
        texts = " ".join(text for source in sources() if source.owner == owner for text, _ in source.texts())
        unused = tables - set(WRITTEN.findall(texts))
        assert not unused, owner


# the rest


def test_except_star_stands_where_nurseries_end() -> None:
    found = {
        source.name for source in sources() for node in ast.walk(source.tree) if isinstance(node, ast.TryStar)
    }
    assert found <= {"supervise", "gateway/replies"}


def test_audit_actions_are_known() -> None:
    """A misspelt action would otherwise show when the deed is done."""
    used = [
        (node.value.value, f"{source.name}:{node.value.lineno}")
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.keyword)
        and node.arg in ("action", "denial")
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    assert used
    assert not [(action, place) for action, place in used if action not in ACTIONS]


def test_no_file_grows_past_reading() -> None:
    paths = [*SRC.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    lengths = {path.relative_to(ROOT): len(path.read_text("utf-8").splitlines()) for path in paths}
    assert not {path: length for path, length in lengths.items() if length > LONGEST}
