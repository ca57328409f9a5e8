"""The SQL of this room: tables files and quotas.

A file is `uploading` until its owner says that it is complete; while somebody verifies what arrived, it is
claimed and `verifying`; one in parts is that as soon as somebody asks for it. `failed` and `deleted` ones
wait for their content to be removed; then the row goes. Whoever changes both tables changes the file first.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from ..deps.contracts import Row, Tx
from ..identity import ConversationId, FileId, NodeId, UserId

Status = Literal["uploading", "verifying", "completed", "deleted", "failed"]

FIRST_ID = "00000000-0000-0000-0000-000000000000"  # before every other
LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


class File(NamedTuple):
    """encryption_metadata: a JSON object, or None.  conversation_id: into which it is uploaded.
    incoming: random, and known only to whoever got an address in the store.
    media_type: as what its content may be shown; None: it is not known, or safe as nothing.
    asked_from: the network address of whoever asked for it to be verified."""

    file_id: FileId
    owner_id: UserId
    file_name: str
    file_size: int
    content_type: str
    is_encrypted: bool
    encryption_metadata: str | None
    checksum_sha256: str | None
    status: Status
    created_us: int
    incoming: str
    upload_ends_us: int
    received_us: int | None
    claimed_until_us: int | None
    node_id: NodeId | None
    conversation_id: ConversationId | None = None
    media_type: str | None = None
    part_size: int | None = None
    upload_id: str | None = None
    asked_from: str | None = None

    @property
    def incoming_key(self) -> str:
        return f"incoming/{self.incoming}"

    @property
    def key(self) -> str:
        return key_of(self.incoming)


def key_of(place: str) -> str:
    """Of the content of a file; not its id: at an address for sending, MinIO copies whatever it is told the
    name of."""
    return f"files/{place}"


def part_key(place: str, number: int) -> str:
    """Of a part of what grows there."""
    return f"recordings/{place}/{number}"


class Quota(NamedTuple):
    """reserved_bytes, uploads: of what is not completed yet."""

    used_bytes: int
    reserved_bytes: int
    uploads: int


_FILE = (
    "file_id, owner_id, file_name, file_size, content_type, is_encrypted, encryption_metadata,"
    " checksum_sha256, status, created_at, incoming, upload_ends_at, received_at, claimed_until, node_id,"
    " conversation_id, media_type, part_size, upload_id, asked_from"
)


def _file(row: Row) -> File:
    return File._make((*row[:5], bool(row[5]), *row[6:]))


# quotas

_OPEN = (
    "INSERT INTO quotas (user_id, used_bytes, reserved_bytes, uploads) VALUES ($1, 0, 0, 0)"
    " ON CONFLICT (user_id) DO NOTHING"
)
_RESERVE = (
    "UPDATE quotas SET reserved_bytes = reserved_bytes + $2, uploads = uploads + 1"
    " WHERE user_id = $1 AND used_bytes + reserved_bytes + $2 <= $3 AND uploads < $4 RETURNING uploads"
)
_RELEASE = "UPDATE quotas SET reserved_bytes = reserved_bytes - $2, uploads = uploads - 1 WHERE user_id = $1"
_USE = (
    "UPDATE quotas SET reserved_bytes = reserved_bytes - $2, uploads = uploads - 1,"
    " used_bytes = used_bytes + $2 WHERE user_id = $1"
)
_GROW_QUOTA = (
    "UPDATE quotas SET reserved_bytes = reserved_bytes + $2"
    " WHERE user_id = $1 AND ($2 <= 0 OR used_bytes + reserved_bytes + $2 <= $3) RETURNING 1"
)
_GROW = "UPDATE files SET file_size = file_size + $2 WHERE file_id = $1"
_GIVE_BACK = "UPDATE quotas SET used_bytes = used_bytes - $2 WHERE user_id = $1"
_FIGURES = (
    "SELECT (SELECT COUNT(*) FROM files WHERE status = 'completed'),"
    " (SELECT CAST(COALESCE(SUM(used_bytes), 0) AS bigint) FROM quotas)"
)
_COUNT = (
    "SELECT COUNT(*) FROM (SELECT 1 FROM files WHERE owner_id = $1"
    " AND status IN ('uploading', 'verifying', 'completed') LIMIT $2) counted"
)
_ACCOUNTS = "SELECT user_id FROM quotas WHERE user_id > $1 ORDER BY user_id LIMIT $2"
_COUNTED = (
    "SELECT CAST(COALESCE(SUM(CASE WHEN status = 'completed' THEN file_size END), 0) AS bigint) AS used,"
    " CAST(COALESCE(SUM(CASE WHEN status <> 'completed' THEN file_size END), 0) AS bigint) AS reserved,"
    " COUNT(CASE WHEN status <> 'completed' THEN 1 END) AS uploads"
    " FROM files WHERE owner_id = $1 AND status IN ('uploading', 'verifying', 'completed')"
)
_DIFFERS = (
    f"SELECT 1 FROM quotas q, ({_COUNTED}) c WHERE q.user_id = $1"  # noqa: S608
    " AND (q.used_bytes <> c.used OR q.reserved_bytes <> c.reserved OR q.uploads <> c.uploads)"
)
_HOLD_QUOTA = "UPDATE quotas SET uploads = uploads WHERE user_id = $1"
_SET_QUOTA = "UPDATE quotas SET used_bytes = $2, reserved_bytes = $3, uploads = $4 WHERE user_id = $1"
_FORGET_QUOTA = "DELETE FROM quotas WHERE user_id = $1"
_QUOTA = "SELECT used_bytes, reserved_bytes, uploads FROM quotas WHERE user_id = $1"


async def reserve(tx: Tx, user: UserId, size: int, limit_bytes: int, most_uploads: int) -> bool:
    """Room for one more file. False: there is none; `quota` tells of what."""
    await tx.run(_OPEN, user)
    return await tx.one(_RESERVE, user, size, limit_bytes, most_uploads) is not None


async def grow(tx: Tx, file: File, size: int, limit_bytes: int) -> bool:
    """Room for so many more bytes of a file that is coming, or for fewer.  file: as `lock` gave it.
    False: there is none, and nothing has changed."""
    if await tx.one(_GROW_QUOTA, file.owner_id, size, limit_bytes) is None:
        return False
    await tx.run(_GROW, file.file_id, size)
    return True


async def count(tx: Tx, user: UserId, most: int) -> int:
    """Of the files they keep or are uploading, counted up to `most`. Exact for whoever has reserved."""
    row = await tx.one(_COUNT, user, most)
    return 0 if row is None else row[0]


async def accounts(tx: Tx, after: str, limit: int) -> list[UserId]:
    """Whose quota is counted, by id, from after that one on."""
    return [row[0] for row in await tx.all(_ACCOUNTS, after, limit)]


async def differs(tx: Tx, user: UserId) -> bool:
    """Whether the counter says something else than the files do. One statement, so that it sees both at the
    same moment."""
    return await tx.one(_DIFFERS, user) is not None


async def recount(tx: Tx, user: UserId) -> None:
    """Set the counter right."""
    await tx.run(_HOLD_QUOTA, user)  # nobody's change of a file commits between the next two
    row = await tx.one(_COUNTED, user)
    assert row is not None, "sums of nothing are 0"
    await tx.run(_SET_QUOTA, user, *row)


async def forget_quota(tx: Tx, user: UserId) -> None:
    """Of somebody who has no file left."""
    await tx.run(_FORGET_QUOTA, user)


async def quota(tx: Tx, user: UserId) -> Quota:
    row = await tx.one(_QUOTA, user)
    return Quota(0, 0, 0) if row is None else Quota._make(row)


async def figures(tx: Tx) -> tuple[int, int]:
    """How many files are stored, and how many bytes."""
    row = await tx.one(_FIGURES)
    return (0, 0) if row is None else (row[0], row[1])


# uploads

_ADD = (
    f"INSERT INTO files ({_FILE}, sweep_at)"  # noqa: S608
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $12)"
)
_CLAIM = (
    "UPDATE files SET status = 'verifying', claimed_until = $3"  # noqa: S608
    " WHERE file_id = $1 AND received_at IS NULL"
    " AND (status = 'uploading' OR (status = 'verifying' AND claimed_until <= $2))"
    f" RETURNING {_FILE}"
)
_ASK = (
    "UPDATE files SET status = 'verifying', claimed_until = $2, asked_at = $2, asked_from = $3, sweep_at = $4"
    " WHERE file_id = $1 AND status = 'uploading' AND received_at IS NULL"
)
_UNVERIFIED = (
    "SELECT file_id FROM files WHERE asked_at IS NOT NULL AND claimed_until <= $1 AND status = 'verifying'"
    " AND (node_id IS NULL OR node_id = $2) ORDER BY claimed_until LIMIT $3"
)
_EXTEND = (
    "UPDATE files SET claimed_until = $3 WHERE file_id = $1 AND status = 'verifying' AND claimed_until = $2"
)
_UNCLAIM = (
    "UPDATE files SET status = 'uploading', claimed_until = NULL, asked_at = NULL, asked_from = NULL"
    " WHERE file_id = $1 AND status = 'verifying' AND claimed_until = $2"
)
_KEEP = (
    "UPDATE files SET status = 'uploading', claimed_until = NULL, received_at = $3,"  # noqa: S608
    " checksum_sha256 = $4, node_id = $5, asked_at = NULL, asked_from = NULL"
    " WHERE file_id = $1 AND status = 'verifying' AND claimed_until = $2"
    f" RETURNING {_FILE}"
)
_COMPLETE = (
    "UPDATE files SET status = 'completed' WHERE file_id = $1 AND status = 'uploading'"  # noqa: S608
    f" AND received_at IS NOT NULL RETURNING {_FILE}"
)
_FAIL = (
    "UPDATE files SET status = 'failed', claimed_until = NULL, sweep_at = $3"
    " WHERE file_id = $1 AND status = 'verifying' AND claimed_until = $2 RETURNING owner_id, file_size"
)


async def add(tx: Tx, file: File) -> None:
    await tx.run(_ADD, *file)


async def claim(tx: Tx, file_id: FileId, now_us: int, until_us: int) -> File | None:
    """Begin to verify what arrived. None: somebody is at it or has done it, or the upload is over.

    until_us: names the claim; past it another may take its place.
    """
    row = await tx.one(_CLAIM, file_id, now_us, until_us)
    return None if row is None else _file(row)


async def ask(tx: Tx, file_id: FileId, now_us: int, address: str, ends_us: int) -> None:
    """It is to be verified, by whoever gets to it, and given up then. Nothing, if somebody has asked before,
    or it is over."""
    await tx.run(_ASK, file_id, now_us, address, ends_us)


async def unverified(tx: Tx, node_id: NodeId, now_us: int, limit: int) -> list[FileId]:
    """Asked for and not claimed, within reach of this node, the longest waiting first."""
    return [FileId(row[0]) for row in await tx.all(_UNVERIFIED, now_us, node_id, limit)]


async def extend(tx: Tx, file_id: FileId, until_us: int, new_until_us: int) -> bool:
    """Hold the claim until then. False: it was lost."""
    return await tx.run(_EXTEND, file_id, until_us, new_until_us) > 0


async def unclaim(tx: Tx, file_id: FileId, until_us: int) -> None:
    await tx.run(_UNCLAIM, file_id, until_us)


async def keep(
    tx: Tx, file_id: FileId, until_us: int, now_us: int, checksum: str | None, node_id: NodeId | None
) -> File | None:
    """What arrived is verified, and lies at its key. None: the claim was lost."""
    row = await tx.one(_KEEP, file_id, until_us, now_us, checksum, node_id)
    return None if row is None else _file(row)


async def complete(tx: Tx, file_id: FileId) -> File | None:
    """None: it was no upload that has arrived."""
    row = await tx.one(_COMPLETE, file_id)
    if row is None:
        return None
    file = _file(row)
    await tx.run(_USE, file.owner_id, file.file_size)
    return file


async def fail(tx: Tx, file_id: FileId, until_us: int, now_us: int) -> None:
    """What arrived was not what was announced."""
    row = await tx.one(_FAIL, file_id, until_us, now_us)
    if row is not None:
        await tx.run(_RELEASE, *row)


# files

_GET = f"SELECT {_FILE} FROM files WHERE file_id = $1"  # noqa: S608
_LIST = (
    f"SELECT {_FILE} FROM files WHERE owner_id = $1 AND file_id < $2 AND status <> 'deleted'"  # noqa: S608
    " ORDER BY file_id DESC LIMIT $3"
)
_LIST_SHARED = (
    f"SELECT {_FILE} FROM files WHERE file_id IN (SELECT DISTINCT file_id FROM file_shares"  # noqa: S608
    " WHERE conversation_id = $1 AND file_id < $2 AND seq >= $3 AND (ends_at IS NULL OR ends_at > $4)"
    " ORDER BY file_id DESC LIMIT $5)"
    " ORDER BY file_id DESC"
)
_UNSHARE = "DELETE FROM file_shares WHERE file_id = $1"
_NOTE_TYPE = "UPDATE files SET media_type = $2 WHERE file_id = $1"
_LOCK = f"UPDATE files SET status = status WHERE file_id = $1 RETURNING {_FILE}"  # noqa: S608
_DELETE = (
    "UPDATE files SET status = 'deleted', sweep_at = $2, file_name = '', encryption_metadata = NULL,"
    " checksum_sha256 = NULL, asked_from = NULL WHERE file_id = $1"
)
_LIVES = "SELECT node_id FROM nodes WHERE node_id = $1 AND lease_ends_at > $2"


async def get(tx: Tx, file_id: FileId) -> File | None:
    row = await tx.one(_GET, file_id)
    return None if row is None else _file(row)


async def lock(tx: Tx, file_id: FileId) -> File | None:
    """`get`, and what it says stays true until the transaction ends."""
    row = await tx.one(_LOCK, file_id)
    return None if row is None else _file(row)


async def list_of(tx: Tx, owner: UserId, before: str, limit: int) -> list[File]:
    """The newest first, those being uploaded included."""
    return [_file(row) for row in await tx.all(_LIST, owner, before, limit)]


async def list_shared(
    tx: Tx, conversation: ConversationId, from_seq: int, now_us: int, before: str, limit: int
) -> list[File]:
    """Those shared there from message `from_seq` on, unless that has ended, the newest first."""
    return [_file(row) for row in await tx.all(_LIST_SHARED, conversation, before, from_seq, now_us, limit)]


async def delete(tx: Tx, file: File, now_us: int) -> None:
    """Its room is free, nobody reads it and what described it is gone at once; its content goes with the next
    sweep, and the row once nothing can arrive any more.  file: as `lock` gave it."""
    await tx.run(_DELETE, file.file_id, now_us)
    await tx.run(_UNSHARE, file.file_id)
    if file.status == "completed":
        await tx.run(_GIVE_BACK, file.owner_id, file.file_size)
    elif file.status in ("uploading", "verifying"):
        await tx.run(_RELEASE, file.owner_id, file.file_size)


async def note_type(tx: Tx, file_id: FileId, media_type: str) -> None:
    """As what its content may be shown."""
    await tx.run(_NOTE_TYPE, file_id, media_type)


async def lives(tx: Tx, node_id: NodeId, now_us: int) -> bool:
    return await tx.one(_LIVES, node_id, now_us) is not None


# sweeping

_OVERDUE = (
    "SELECT file_id FROM files WHERE sweep_at <= $1 AND (status = 'uploading'"
    " OR (status = 'verifying' AND claimed_until <= $1)) ORDER BY sweep_at LIMIT $2"
)
_EXPIRE = (
    "UPDATE files SET status = 'failed', claimed_until = NULL WHERE file_id = $1 AND sweep_at <= $2"
    " AND (status = 'uploading' OR (status = 'verifying' AND claimed_until <= $2))"
    " RETURNING owner_id, file_size"
)
_DUE = (
    f"SELECT {_FILE} FROM files f WHERE sweep_at <= $1 AND status IN ('completed', 'deleted', 'failed')"  # noqa: S608
    " AND (node_id IS NULL OR node_id = $2 OR (status <> 'completed' AND sweep_at <= $3 AND NOT EXISTS"
    " (SELECT 1 FROM nodes n WHERE n.node_id = f.node_id AND n.lease_ends_at > $1)))"
    " ORDER BY sweep_at, file_id LIMIT $4"
)
_SWEPT = "UPDATE files SET sweep_at = NULL WHERE file_id = $1 AND status = 'completed' AND sweep_at <= $2"
_FORGET = (
    "DELETE FROM files WHERE file_id = $1 AND status IN ('deleted', 'failed') AND upload_ends_at <= $2"
    " AND (claimed_until IS NULL OR claimed_until <= $2)"
)
_HAS = "SELECT 1 FROM files WHERE incoming = $1"
# what arrives once the sweep has passed, by an address that ended while it was being sent, is nobody's
_HAS_INCOMING = "SELECT 1 FROM files WHERE incoming = $1 AND sweep_at IS NOT NULL"
_KEYS = re.compile(r"(files|incoming)/[0-9a-f]{32}|recordings/[0-9a-f]{32}/[0-9]{1,7}")
_POSTPONE = "UPDATE files SET sweep_at = $2 WHERE file_id = $1"
_SPOOLED = (
    f"SELECT {_FILE} FROM files WHERE node_id = $1 AND file_id > $2"  # noqa: S608
    " AND received_at IS NOT NULL ORDER BY file_id LIMIT $3"
)
_MOVED = "UPDATE files SET node_id = NULL WHERE file_id = $1 AND node_id = $2"


async def overdue(tx: Tx, now_us: int, limit: int) -> list[FileId]:
    """Uploads whose time is over."""
    return [FileId(row[0]) for row in await tx.all(_OVERDUE, now_us, limit)]


async def expire(tx: Tx, file_id: FileId, now_us: int) -> bool:
    """Give up an upload. False: there was nothing to give up."""
    row = await tx.one(_EXPIRE, file_id, now_us)
    if row is not None:
        await tx.run(_RELEASE, *row)
    return row is not None


async def due(tx: Tx, node_id: NodeId, now_us: int, lost_us: int, limit: int) -> list[File]:
    """Those with something to remove that this node can reach, the longest overdue first; and those to be
    removed before `lost_us` by a node that is gone."""
    return [_file(row) for row in await tx.all(_DUE, now_us, node_id, lost_us, limit)]


async def swept(tx: Tx, file: File, now_us: int) -> None:
    """What there was of it is removed: forget it, unless something may still arrive."""
    if file.status == "completed":
        await tx.run(_SWEPT, file.file_id, now_us)
    elif not await tx.run(_FORGET, file.file_id, now_us):
        await tx.run(_POSTPONE, file.file_id, max(file.upload_ends_us, file.claimed_until_us or 0))


def is_key(key: str) -> bool:
    """Whether a file of this room may lie at it, or a part of one that grows."""
    return _KEYS.fullmatch(key) is not None


async def unknown(tx: Tx, keys: list[str]) -> list[str]:
    """Of these keys, those at which nothing of a file lies or may still arrive, whatever has become of it."""
    return [key for key in keys if await tx.one(*_owner_of(key)) is None]


def _owner_of(key: str) -> tuple[str, str]:
    kind, _, name = key.partition("/")
    return (_HAS_INCOMING if kind == "incoming" else _HAS), name.partition("/")[0]


async def postpone(tx: Tx, file_id: FileId, until_us: int) -> None:
    """The others first."""
    await tx.run(_POSTPONE, file_id, until_us)


async def spooled(tx: Tx, node_id: NodeId, after: str, limit: int) -> list[File]:
    """Files that lie in the spool of a node as far as is known."""
    return [_file(row) for row in await tx.all(_SPOOLED, node_id, after, limit)]


async def moved(tx: Tx, file_ids: list[FileId], node_id: NodeId) -> None:
    """They lie in the store now, where every node reaches them."""
    for file_id in file_ids:
        await tx.run(_MOVED, file_id, node_id)
