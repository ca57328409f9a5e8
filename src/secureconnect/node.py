"""This node: its id and lease, what the whole installation shares (history id, server name), and the secrets
that are kept sealed in the database.

Everything secret hangs on one master key of 32 bytes: the setting `auth.master_key`, or the file `master.key`
in the data folder, made at the first start. Lost, it cannot be replaced: what it sealed stays sealed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from . import __version__
from .clock import SECOND_US
from .deps.contracts import Database, Row, Tx
from .durable import create_file, replace_file
from .errors import Problem
from .identity import NodeId, is_id, new_id
from .settings import MASK, BadSetting

log = structlog.get_logger(module="node")

KEY_BYTES = 32
NONCE_BYTES = 12
MOVE = "move"  # in `meta`: how far the move into this database is
RESTORE = "restore"  # in `meta`: which backup is being restored into this database
BACKUP = "backup"  # in `meta`: whose turn it is to make one, and when the last was made
SNAPSHOT = "node.snapshot"
FORMAT = b"secureconnect-node-1"
RENEW_S = 1.0
LEASE_S = 30

_PUT_META = "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING"
_MOVE_META = "UPDATE meta SET value = $3 WHERE key = $1 AND value = $2"
_ADVANCE_META = "UPDATE meta SET value = $3 WHERE key = $1 AND value = $2 RETURNING value"
_GET_META = "SELECT value FROM meta WHERE key = $1"
_RENEW = (
    "INSERT INTO nodes (node_id, version, started_at, renewed_at, lease_ends_at) VALUES ($1, $2, $3, $4, $5)"
    " ON CONFLICT (node_id) DO UPDATE SET version = excluded.version, started_at = excluded.started_at,"
    " renewed_at = excluded.renewed_at, lease_ends_at = excluded.lease_ends_at"
)
_OTHER = (
    "SELECT node_id, lease_ends_at FROM nodes WHERE node_id <> $1 AND lease_ends_at > $2"
    " ORDER BY lease_ends_at DESC LIMIT 1"
)
_ADD = (
    "INSERT INTO secrets (name, version, sealed, key_id, created_at, active_at)"
    " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name, version) DO NOTHING RETURNING version"
)
_LIST = "SELECT version, sealed, created_at, active_at FROM secrets WHERE name = $1 ORDER BY version"
_ALL = "SELECT name, version, sealed, key_id FROM secrets ORDER BY name, version"
_DROP_VERSIONS = "DELETE FROM secrets WHERE name = $1"
_DROP_META = "DELETE FROM meta WHERE key = $1"
_SET_META = (
    "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)


class SecretDamaged(Exception):
    """A stored secret does not open with the master key: the row was changed outside this program."""


class Secret(msgspec.Struct, frozen=True):
    """One version of a stored secret.  active_us: from when on it is to be used."""

    version: int
    value: bytes
    created_us: int
    active_us: int


class Secrets:
    """Keys derived from the master key, and secrets sealed with it in table `secrets`.

    key_id: names the master key without telling anything about it; 16 hexadecimal digits.
    """

    def __init__(self, master: bytes) -> None:
        self._master = master
        self._aead = AESGCM(self.derive("secrets"))
        self.key_id = self.derive("key-id")[:8].hex()

    @classmethod
    async def open(cls, db: Database, data_dir: Path, master_key: str) -> Secrets:
        """The secrets of this installation; makes `data_dir/master.key` if there is nothing to open yet.

        master_key: the setting; empty: the file.  Raises BadSetting, one line, when the key is malformed,
        open to others, missing, or not the one that sealed what is stored.
        """
        stored = await db.read(_all_secrets)
        secrets = await cls._with_master(data_dir, master_key, may_make=not stored)
        for name, version, sealed, key_id in stored:
            secrets._require_sealed_by(key_id, data_dir)
            try:
                secrets._unseal(name, version, sealed)
            except SecretDamaged as exc:
                raise BadSetting(str(exc)) from None
        return secrets

    @classmethod
    async def reopen(cls, data_dir: Path, master_key: str, key_id: str) -> Secrets:
        """`open` without the database.  key_id: as it was at an earlier start.  Raises BadSetting."""
        secrets = await cls._with_master(data_dir, master_key, may_make=False)
        secrets._require_sealed_by(key_id, data_dir)
        return secrets

    @classmethod
    async def _with_master(cls, data_dir: Path, master_key: str, *, may_make: bool) -> Secrets:
        if master_key:
            return cls(_from_setting(master_key))
        return cls(await trio.to_thread.run_sync(_from_file, data_dir / "master.key", may_make))

    def _require_sealed_by(self, key_id: str, data_dir: Path) -> None:
        if key_id != self.key_id:
            raise BadSetting(
                f"the master key {self.key_id} is not the one that sealed the stored secrets"
                f" ({key_id}): set auth.master_key or restore {data_dir / 'master.key'}"
            )

    def derive(self, label: str) -> bytes:
        """32 bytes that depend on the master key and `label` alone (HKDF-SHA256, RFC 5869)."""
        hkdf = HKDF(SHA256(), KEY_BYTES, salt=None, info=f"secureconnect:{label}".encode())
        return hkdf.derive(self._master)

    @property
    def master(self) -> str:
        """The key everything hangs on, as `auth.master_key` and `master.key` say it."""
        return base64.b64encode(self._master).decode()

    async def replace(self, tx: Tx, name: str, value: bytes, now_us: int) -> None:
        """All versions by another one, which is used at once."""
        known = await tx.all(_LIST, name)
        await tx.run(_DROP_VERSIONS, name)
        version = known[-1][0] + 1 if known else 1
        await self.add(tx, name, version, value, active_us=now_us, now_us=now_us)

    async def list(self, tx: Tx, name: str) -> list[Secret]:
        """Every version, oldest first. Raises SecretDamaged."""
        return [
            Secret(version, self._unseal(name, version, sealed), created_us, active_us)
            for version, sealed, created_us, active_us in await tx.all(_LIST, name)
        ]

    async def add(
        self, tx: Tx, name: str, version: int, value: bytes, *, active_us: int, now_us: int
    ) -> bool:
        """Store a version. False, and nothing is stored, when this version exists: another node was first."""
        sealed = self.seal(_place(name, version), value)
        row = await tx.one(_ADD, name, version, sealed, self.key_id, now_us, active_us)
        return row is not None

    async def get_or_make(self, db: Database, name: str, make: Callable[[], bytes]) -> bytes:
        """The newest version of a secret, made at its first use; every node gets the same."""

        async def unit(tx: Tx) -> bytes:
            now_us = db.now_us()
            await self.add(tx, name, 1, value, active_us=now_us, now_us=now_us)
            return (await self.list(tx, name))[-1].value

        known = await db.read(self.list, name)
        if known:
            return known[-1].value
        value = make()
        return await db.write(unit)

    def seal(self, place: str, value: bytes) -> bytes:
        """For a row of another table.  place: names that row, so that sealed values cannot be swapped."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, value, place.encode())

    def unseal(self, place: str, sealed: bytes) -> bytes:
        """The inverse of `seal`. Raises SecretDamaged."""
        try:
            return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError) as exc:
            raise SecretDamaged(f"what is sealed for {place} does not open") from exc

    def _unseal(self, name: str, version: int, sealed: bytes) -> bytes:
        try:
            return self.unseal(_place(name, version), sealed)
        except SecretDamaged as exc:
            raise SecretDamaged(f"the stored secret {name} version {version} does not open") from exc


class Known(msgspec.Struct, frozen=True):
    """What a start without the database needs of it, kept in the data folder by an earlier one. Nothing of it
    is secret.  key_id: of the master key that sealed the secrets."""

    key_id: str
    history_id: str
    server_name: str


class Node:
    """What this process is to the others.

    history_id: changes when stored history went back (a restore): clients then read everything again.
    server_name: made at the first start, never changes; it stands in signed device keys.
    """

    def __init__(
        self, db: Database, node_id: NodeId, history_id: str, server_name: str, secrets: Secrets
    ) -> None:
        self.id = node_id
        self.history_id = history_id
        self.server_name = server_name
        self.secrets = secrets
        self._db = db
        self._started_us = db.now_us()

    @classmethod
    async def open(
        cls,
        db: Database,
        data_dir: Path,
        master_key: str,
        server_name: str,
        node_id: str = "",
        *,
        later: Database | None = None,
    ) -> Node:
        """server_name: taken at the very first start alone.  node_id: the setting.  later: what it lives on
        from then on, if not `db`.  Raises BadSetting (see Secrets.open; or the database is half of another
        one, see `move`; or the data folder is another node's)."""
        if is_unfinished(await db.read(read_move)):
            raise BadSetting(
                "postgres.url names a database that an installation is being moved into:"
                " run `secureconnect move` to its end first"
            )
        if await db.read(read_restore) is not None:
            raise BadSetting(
                "this installation is not whole: a backup is being restored into it;"
                " run `secureconnect restore` to its end first"
            )
        secrets = await Secrets.open(db, data_dir, master_key)
        own_id = await trio.to_thread.run_sync(_node_id, data_dir / "node.id", node_id)
        # relieve: a server whose disk is nearly full can be started again
        history_id = await db.relieve(_keep_meta, "history_id", new_id())
        kept_name = await db.relieve(_keep_meta, "server_name", server_name)
        return cls(later or db, own_id, history_id, kept_name, secrets)

    @classmethod
    async def reopen(cls, db: Database, data_dir: Path, master_key: str, node_id: str = "") -> Node | None:
        """The node as the last start with a database left it, none being asked now. None if there was none,
        or what it kept is not whole and private.  Raises BadSetting (see Secrets.open)."""
        known = await trio.to_thread.run_sync(_read_known, data_dir / SNAPSHOT)
        if known is None:
            return None
        secrets = await Secrets.reopen(data_dir, master_key, known.key_id)
        own_id = await trio.to_thread.run_sync(_node_id, data_dir / "node.id", node_id)
        return cls(db, own_id, known.history_id, known.server_name, secrets)

    async def keep(self, data_dir: Path) -> None:
        """Keep what `reopen` needs. A disk that refuses stops nothing: it says so."""
        known = Known(self.secrets.key_id, self.history_id, self.server_name)
        try:
            await trio.to_thread.run_sync(_write_known, data_dir / SNAPSHOT, known)
        except OSError as exc:
            log.warning("node_not_kept", reason=exc.strerror)

    def take_over(self, read: Node) -> bool:
        """What was kept gives way to what was read since. Whether clients must read everything again."""
        is_other = read.history_id != self.history_id
        if is_other:
            log.warning("history_is_another", history_id=read.history_id, kept=self.history_id)
        self.history_id, self.server_name = read.history_id, read.server_name
        return is_other

    async def begin_history(self, lost: str) -> None:
        """The database has gone back to an earlier state: whoever follows history `lost` must read all again.
        One node's word counts for all of them."""
        self.history_id = await self._db.write(_move_meta, "history_id", lost, new_id())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Renew this node's lease each second until cancelled, then give it back.  started: after the first
        attempt."""
        missed = 0
        try:
            while True:
                try:
                    await self.pass_once()
                except Problem as problem:
                    missed += 1
                    if missed == 1:
                        log.warning("lease_not_renewed", node_id=self.id, code=problem.code)
                else:
                    if missed:
                        log.info("lease_renewed", node_id=self.id, missed=missed)
                    missed = 0
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await trio.sleep(RENEW_S)
        finally:
            with trio.move_on_after(2, shield=True):
                try:
                    await self._db.relieve(self._renew, 0)
                except Problem as problem:
                    log.warning("lease_not_ended", node_id=self.id, code=problem.code)

    async def find_other(self) -> tuple[NodeId, float] | None:
        """Another live node on the same database, and the seconds its lease still runs. Of two that ask at
        the same time one at least finds the other."""
        await self.pass_once()
        now_us = self._db.now_us()
        row = await self._db.read(_other, self.id, now_us)
        return None if row is None else (NodeId(row[0]), (row[1] - now_us) / SECOND_US)

    async def pass_once(self) -> None:
        """Renew the lease."""
        await self._db.relieve(self._renew, LEASE_S * SECOND_US)

    async def _renew(self, tx: Tx, lasts_us: int) -> None:
        now_us = self._db.now_us()
        await tx.run(_RENEW, self.id, __version__, self._started_us, now_us, now_us + lasts_us)


async def _other(tx: Tx, node_id: NodeId, now_us: int) -> Row | None:
    return await tx.one(_OTHER, node_id, now_us)


async def read_history_id(tx: Tx) -> str | None:
    """None before the first start."""
    row = await tx.one(_GET_META, "history_id")
    return None if row is None else str(row[0])


async def read_move(tx: Tx) -> str | None:
    """How far the move into this database is: a JSON object of `move`. None if there never was one."""
    return await read_note(tx, MOVE)


async def begin_move(tx: Tx, state: str) -> bool:
    """False, and nothing is written, if one has begun."""
    return await change_note(tx, MOVE, None, state)


async def advance_move(tx: Tx, old: str, new: str) -> bool:
    """False, and nothing is written, unless it stands as `old` says."""
    return await change_note(tx, MOVE, old, new)


async def read_restore(tx: Tx) -> str | None:
    """The id of the backup that is being restored into this database. None if none is."""
    return await read_note(tx, RESTORE)


async def begin_restore(tx: Tx, backup_id: str) -> None:
    await tx.run(_SET_META, RESTORE, backup_id)


async def end_restore(tx: Tx) -> str:
    """What stands here is another history from now on: its id."""
    history_id = new_id()
    await tx.run(_SET_META, "history_id", history_id)
    await tx.run(_DROP_META, RESTORE)
    return history_id


async def read_names(tx: Tx) -> tuple[str, str, str] | None:
    """The history, the server's name, and the id of the master key. None before the first start."""
    history_id, name = await tx.one(_GET_META, "history_id"), await tx.one(_GET_META, "server_name")
    secrets = await _all_secrets(tx)
    if history_id is None or name is None or not secrets:
        return None
    return str(history_id[0]), str(name[0]), secrets[-1][3]


def keep_master(data_dir: Path, master: str) -> None:
    """As `master.key`, unless there is one. Blocking."""
    create_file(data_dir / "master.key", master.encode() + b"\n")


async def read_note(tx: Tx, key: str) -> str | None:
    row = await tx.one(_GET_META, key)
    return None if row is None else str(row[0])


async def change_note(tx: Tx, key: str, old: str | None, new: str) -> bool:
    """False, and nothing is written, unless it stands as `old` says; None: it is not there."""
    if old is None:
        return await tx.run(_PUT_META, key, new) == 1
    return await tx.one(_ADVANCE_META, key, old, new) is not None


def is_note(table: str, row: Row) -> bool:
    """Whether the row is about a move, a restore or a backup: no data of the installation."""
    return table == "meta" and row[0] in (MOVE, RESTORE, BACKUP)


def is_unfinished(state: str | None) -> bool:
    return state is not None and json.loads(state).get("finished_us") is None


async def _keep_meta(tx: Tx, key: str, value: str) -> str:
    """The value that stands in `meta`: the given one, unless another was first."""
    await tx.run(_PUT_META, key, value)
    return await _get_meta(tx, key)


async def _move_meta(tx: Tx, key: str, old: str, new: str) -> str:
    """The value that stands in `meta` now: the new one, unless another had replaced the old."""
    await tx.run(_MOVE_META, key, old, new)
    return await _get_meta(tx, key)


async def _get_meta(tx: Tx, key: str) -> str:
    row = await tx.one(_GET_META, key)
    if row is None:
        raise RuntimeError(f"meta has no {key}")
    return str(row[0])


async def has_secrets(tx: Tx) -> bool:
    """Whether anything is sealed, so that a lost master key would be missed."""
    return bool(await _all_secrets(tx))


async def _all_secrets(tx: Tx) -> list[tuple[str, int, bytes, str]]:
    return [(name, version, sealed, key_id) for name, version, sealed, key_id in await tx.all(_ALL)]


def _place(name: str, version: int) -> str:
    """Bound to each sealed value, so that rows cannot be swapped."""
    return f"{name}:{version}"


def _decode(text: str) -> bytes | None:
    try:
        master = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return master if len(master) == KEY_BYTES else None


def _from_setting(text: str) -> bytes:
    master = _decode(text)
    if master is None:
        raise BadSetting(f"auth.master_key = {MASK} is not valid: expected {KEY_BYTES} bytes in base64")
    return master


def _from_file(path: Path, may_make: bool) -> bytes:
    """The key in `path`; made first if the file is missing and nothing depends on a lost one."""
    if not path.exists():
        if not may_make:
            raise BadSetting(f"{path} is missing, and the stored secrets need it: restore the file")
        create_file(path, base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
        log.info("master_key_made", path=str(path))
    try:
        mode = path.stat().st_mode & 0o777
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as exc:
        raise BadSetting(f"{path} cannot be read: {exc}") from None
    if mode & 0o077:
        raise BadSetting(f"{path} has mode {mode:04o} and is open to others: chmod 600 it")
    master = _decode(text)
    if master is None:
        raise BadSetting(f"{path} is not a master key: expected {KEY_BYTES} bytes in base64")
    return master


def _node_id(path: Path, wanted: str) -> NodeId:
    """The id of the node that lives in this data folder, so that its next start is recognised."""
    if not path.exists():
        create_file(path, (wanted or new_id()).encode() + b"\n")
    text = path.read_text("utf-8", "replace").strip()
    if not is_id(text):
        raise BadSetting(f"{path} is not a node id: remove the file to get a new one")
    if wanted and text != wanted:
        raise BadSetting(f"node_id = {wanted!r} is set, but {path.parent} is the data folder of node {text}")
    return NodeId(text)


def _read_known(path: Path) -> Known | None:
    """None if there is no such file, or it is damaged or open to others."""
    try:
        content, mode = path.read_bytes(), path.stat().st_mode & 0o777
    except FileNotFoundError:
        return None
    except OSError as exc:
        log.warning("node_snapshot_unreadable", reason=exc.strerror)
        return None
    head, _, body = content.partition(b"\n")
    try:
        if head != b"%s %s" % (FORMAT, hashlib.sha256(body).hexdigest().encode()):
            raise ValueError("another format or checksum")
        known = msgspec.json.decode(body, type=Known)
    except ValueError as exc:  # msgspec's errors are some, too
        log.warning("node_snapshot_damaged", reason=str(exc), size_bytes=len(content))
        return None
    if mode & 0o077:
        log.warning("node_snapshot_open_to_others", mode=f"{mode:04o}")
        return None
    return known


def _write_known(path: Path, known: Known) -> None:
    body = msgspec.json.encode(known)
    replace_file(path, b"%s %s\n%s" % (FORMAT, hashlib.sha256(body).hexdigest().encode(), body))
