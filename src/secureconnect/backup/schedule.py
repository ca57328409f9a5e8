"""Backups that the server makes by itself: by one of its nodes, however many there are.

Whose turn it is and when the last one was made stands in the database, so that neither a restart nor another
node begins one too early. What goes wrong is told and tried again; it never ends the server.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio

from .. import metrics, node
from ..clock import SECOND_US
from ..config import BackupConfig, Config
from ..deps.contracts import Database, Deps, Tx
from ..errors import Problem
from ..identity import NodeId
from ..move import Batch
from ..node import Node
from ..periodic import every, modestly
from .folder import Folder, Refused, read_passphrase
from .keep import prune
from .make import Made, Source, make
from .streams import Damaged
from .threads import in_thread

log = structlog.get_logger(module="backup")

LAST = metrics.gauge(
    "secureconnect_backup_last_success_timestamp_seconds",
    "When the last backup was made; 0: none is known.",
)
DUE = metrics.gauge(
    "secureconnect_backup_due_timestamp_seconds",
    "When the next backup is due, whether or not one was ever made; 0: the server makes none by itself.",
)
TOOK = metrics.gauge("secureconnect_backup_duration_seconds", "How long the last one took, if made here.")
SIZE = metrics.gauge("secureconnect_backup_bytes", "What is in it, in bytes, files included.")
LOST = metrics.gauge("secureconnect_backup_files_lost", "Files whose content the store did not have then.")
FAILED = metrics.counter("secureconnect_backup_failures_total", "Backups that could not be made.")

LOOK_S = 10.0  # between two looks at whose turn it is
LEASE_S = 60.0
RETRY_S = 600.0  # after a failure, or every_s if that is less
CLEAN_UP_S = 2.0


class Turn(msgspec.Struct, frozen=True):
    """As it stands in `meta`.  holder: the node that makes one, until that time.  made_us: when the last one
    was.  since_us: when the first was due.  next_us: not before that, after a failure.  All times are the
    database's."""

    holder: str = ""
    until_us: int = 0
    made_us: int = 0
    next_us: int = 0
    since_us: int = 0


def scheduled(config: Config, deps: Deps, here: Node) -> Backups:
    """As the settings say, of what this node stands on."""

    async def master(_: str) -> str:
        return here.secrets.master

    names = "postgres" if config.postgres.url else "sqlite", "s3" if config.minio.endpoint else "folder"
    return Backups(config.backup, Source(deps.snapshot, deps.db, deps.objects, names, master), here.id)


class Backups:
    """source: what is backed up.  node_id: of this process.  lease_s: after which another node may begin if
    this one does not renew its turn."""

    def __init__(
        self, config: BackupConfig, source: Source, node_id: NodeId, lease_s: float = LEASE_S
    ) -> None:
        self._lease_s = lease_s
        self._config = config
        self._source = source
        self._db: Database = source.db
        self._node_id = node_id
        self._every_us = int(config.every_s * SECOND_US)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        look_s = min(LOOK_S, self._config.every_s / 4)
        await every(look_s, self.pass_once, log, "backup_not_looked_for")

    async def pass_once(self) -> Made | None:
        """Make one if it is time and nobody else does. None: it was not, or it failed. Safe to repeat, and on
        every node."""
        turn = await self._db.write(self._take)
        if turn is None:
            return None
        made: Made | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hold, nursery.cancel_scope)
                made = await self._make()
                nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(CLEAN_UP_S, shield=True), suppress(Problem):
                await self._db.relieve(self._give_back, made)
        return made

    async def _make(self) -> Made | None:
        began = trio.current_time()
        try:
            passphrase = await in_thread(_passphrase, self._config.passphrase_file)
            folder = await in_thread(Folder.make, Path(self._config.folder), passphrase)
            with ExitStack() as stack:
                await in_thread(stack.enter_context, folder.held())
                made = await make(self._source, folder, _to_nobody, partial(modestly, self._config.share))
                removed = await in_thread(prune, folder, self._config.keep)
        except (Refused, Damaged, OSError, Problem) as exc:
            FAILED.inc()
            log.error("backup_failed", reason=str(exc), folder=self._config.folder)
            return None
        files = made.manifest.files
        TOOK.set(trio.current_time() - began)
        SIZE.set(files.size_bytes + sum(each.sheet.size_bytes for each in made.manifest.tables.values()))
        LOST.set(files.lost)
        LAST.set(made.manifest.at_us / SECOND_US)
        DUE.set((made.manifest.at_us + self._every_us) / SECOND_US)
        log.info(
            "backup_made",
            backup=made.path.name,
            rows=made.manifest.rows,
            files=files.sheet.rows,
            copied=files.copied,
            removed=len(removed),
        )
        if files.lost:
            log.error("backup_lacks_files", backup=made.path.name, files=files.lost)
        return made

    async def _hold(self, scope: trio.CancelScope) -> None:
        """Keep the turn, and leave off if it is lost: another node may have begun."""
        ends = trio.current_time() + self._lease_s
        while trio.current_time() < ends:
            await trio.sleep(self._lease_s / 4)
            with suppress(Problem):
                began = trio.current_time()
                if not await self._db.relieve(self._renew):
                    break
                ends = began + self._lease_s
        log.warning("backup_turn_lost")
        scope.cancel()

    # units

    async def _take(self, tx: Tx) -> Turn | None:
        """The turn, if it is to be had."""
        now_us = self._db.now_us()
        old, turn = await _read(tx)
        since_us = turn.since_us or now_us
        due_us = turn.made_us + self._every_us if turn.made_us else since_us
        LAST.set(turn.made_us / SECOND_US)
        DUE.set(due_us / SECOND_US)
        if turn.until_us > now_us or turn.next_us > now_us or due_us > now_us:
            return None
        retry_us = int(min(RETRY_S, self._config.every_s) * SECOND_US)
        ends_us = now_us + int(self._lease_s * SECOND_US)
        taken = Turn(self._node_id, ends_us, turn.made_us, now_us + retry_us, since_us)
        return taken if await node.change_note(tx, node.BACKUP, old, _text(taken)) else None

    async def _renew(self, tx: Tx) -> bool:
        now_us = self._db.now_us()
        old, turn = await _read(tx)
        if turn.holder != self._node_id or turn.until_us <= now_us:
            return False
        longer = msgspec.structs.replace(turn, until_us=now_us + int(self._lease_s * SECOND_US))
        return await node.change_note(tx, node.BACKUP, old, _text(longer))

    async def _give_back(self, tx: Tx, made: Made | None) -> None:
        old, turn = await _read(tx)
        if turn.holder != self._node_id:
            return
        free = msgspec.structs.replace(turn, holder="", until_us=0)
        if made is not None:
            free = msgspec.structs.replace(free, made_us=made.manifest.at_us, next_us=0)
        await node.change_note(tx, node.BACKUP, old, _text(free))


async def _read(tx: Tx) -> tuple[str | None, Turn]:
    """As it stands there, and what that says."""
    text = await node.read_note(tx, node.BACKUP)
    return text, Turn() if text is None else msgspec.json.decode(text, type=Turn)


def _text(turn: Turn) -> str:
    return msgspec.json.encode(turn).decode()


def _passphrase(path: str) -> bytes | None:
    return read_passphrase(Path(path)) if path else None


def _to_nobody(_: Batch) -> None:
    """The log says when it is made."""
