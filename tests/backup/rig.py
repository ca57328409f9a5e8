"""A small installation in a folder, without a server, and what makes backups of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from kit.databases import open_sqlite
from kit.objects import put
from secureconnect.auth.keys import rotate
from secureconnect.backup import Folder, Made, Opened, Source, make
from secureconnect.backup.make import make_of_tables
from secureconnect.config import AuthConfig, Config, SqliteConfig
from secureconnect.deps import migrate
from secureconnect.deps.contracts import Database, Objects, Snapshot, Tx
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.sqlite import Sqlite
from secureconnect.deps.sqlite_snapshot import SqliteSnapshot
from secureconnect.identity import FileId, new_id
from secureconnect.move import Batch
from secureconnect.move.compare import sum_of
from secureconnect.move.tables import Table
from secureconnect.node import Node, Secrets

PASSPHRASE = b"a passphrase for tests"
CONTENT = bytes(range(256)) * 2_000
JSON = '{"z":1.50,"a":[1e3,12345678901234567890123],"ü":null}'
MESSAGES = 1_200  # several pages
TIMES = (1_000_000, 2_000_000)  # when something was made, and when it changed or ends
SENT_US = 1_700_000_000_000_001
ANOTHER = {"meta", "secrets", "audit", "audit_head"}  # tables that a restore writes more into

_USER = (
    "INSERT INTO users (user_id, username, username_key, email, email_key, display_name, role, password_hash,"
    " created_at, updated_at, is_searchable, shows_last_seen, sends_read_receipts)"
    " VALUES ($1, $2, $2, $2, $2, 'Jö', 'user', 'x', $3, $4, true, false, true)"
)
_MESSAGE = (
    "INSERT INTO messages (message_id, conversation_id, seq, change, sender_id, client_message_id,"
    " message_type, content, is_encrypted, file_ids, metadata, sent_at, reaction_count)"
    " VALUES ($1, $2, $3, $3, $4, $8, 'text', $5, false, '[]', $6, $7, 0)"
)
FILE = (
    "INSERT INTO files (file_id, owner_id, file_name, file_size, content_type, is_encrypted,"
    " checksum_sha256, status, created_at, incoming, upload_ends_at)"
    " VALUES ($1, $2, 'a', $3, 'text/plain', false, $4, 'completed', $6, $5, $7)"
)
_QUOTA = "INSERT INTO quotas (user_id, used_bytes, reserved_bytes, uploads) VALUES ($1, $2, 0, 0)"


def private(folder: Path) -> Path:
    """Made."""
    folder.mkdir(0o700)
    return folder


def to_nobody(_: Batch) -> None:
    """Nobody waits for it."""


async def sums(db: Database, tables: Mapping[str, Table]) -> dict[str, object]:
    """What stands in them, by name."""
    return {name: await sum_of(db, table, 500) for name, table in tables.items()}


class Place:
    """data: its folder.  dest: of its backups.  user, file_id: of the one person, and of their one file."""

    def __init__(self, data: Path, dest: Path, db: Database, objects: Objects, secrets: Secrets) -> None:
        self.data = data
        self.dest = dest
        self.db = db
        self.objects = objects
        self.secrets = secrets
        self.user, self.file_id = new_id(), FileId(new_id())
        self.place = "0123456789abcdef" * 2

    @property
    def key(self) -> str:
        return f"files/{self.place}"

    async def fill(self) -> None:
        stored = await put(self.objects, self.key, CONTENT)
        conversation = new_id()

        async def unit(tx: Tx) -> None:
            await tx.run(_USER, self.user, "jo", *TIMES)
            await tx.many(
                _MESSAGE,
                [
                    (
                        new_id(),
                        conversation,
                        seq,
                        self.user,
                        f"Grüße 👋 {seq}",
                        JSON if seq % 2 else None,
                        SENT_US,
                        new_id(),
                    )
                    for seq in range(1, MESSAGES + 1)
                ],
            )
            await tx.run(FILE, self.file_id, self.user, len(CONTENT), stored.sha256, self.place, *TIMES)
            await tx.run(_QUOTA, self.user, len(CONTENT))

        await self.db.write(unit)

    async def make(
        self, passphrase: bytes | None = None, meanwhile: Callable[[], object] | None = None
    ) -> Made:
        """meanwhile: done, and awaited, between the database and the files."""

        async def master(_: str) -> str:
            return self.secrets.master

        @asynccontextmanager
        async def snapshot() -> AsyncIterator[Snapshot]:
            async with SqliteSnapshot.open(self.data / "secureconnect.db") as held:
                yield held
            if meanwhile is not None:
                await meanwhile()  # type: ignore[misc]

        source = Source(snapshot, self.db, self.objects, ("sqlite", "folder"), master)
        folder = Folder.make(self.dest, passphrase)
        with folder.held():
            return await make(source, folder, to_nobody)

    async def make_of_tables(self) -> None:
        """Whatever schema they have."""
        folder = Folder.make(self.dest, None)
        with folder.held():
            async with SqliteSnapshot.open(self.data / "secureconnect.db") as held:
                await make_of_tables(held, "sqlite", folder, to_nobody)

    def find(self, passphrase: bytes | None = None) -> Opened:
        return Opened.find(self.dest, passphrase)


@asynccontextmanager
async def open_earlier(folder: Path, up_to: int) -> AsyncIterator[Sqlite]:
    """As a program has left it that knew no migration after this one."""
    async with Sqlite.open(folder / "secureconnect.db", SqliteConfig()) as db:
        await migrate.apply(db, up_to=up_to)
        yield db


@asynccontextmanager
async def a_place(folder: Path, up_to: int | None = None) -> AsyncIterator[Place]:
    """up_to: the number of its last migration."""
    data = private(folder / "data")
    async with open_sqlite(data) if up_to is None else open_earlier(data, up_to) as db:
        node = await Node.open(db, data, "", "chat.example.org")
        await rotate(db, node.secrets, AuthConfig(), db.now_us())
        place = Place(data, folder / "backups", db, FolderObjects(data / "objects"), node.secrets)
        await place.fill()
        yield place


@asynccontextmanager
async def empty_place(folder: Path) -> AsyncIterator[tuple[Database, Objects, Config]]:
    """Where something can be restored."""
    private(folder)
    async with Sqlite.open(folder / "secureconnect.db", SqliteConfig()) as db:
        yield db, FolderObjects(folder / "objects"), Config(data_dir=str(folder))
