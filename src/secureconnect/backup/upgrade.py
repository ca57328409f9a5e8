"""The tables of Postgres in a backup of their own, from before its schema is changed."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from .. import node
from ..deps.contracts import Snapshot
from ..deps.migrate import NotCopied
from ..deps.migrate import Tell as TellPart
from ..move import Batch
from ..move.tables import Strange
from .folder import ABOUT, Folder, Refused
from .keep import prune
from .make import make_folders, make_of_tables
from .streams import Damaged
from .threads import in_thread


async def copy_tables(snapshot: Snapshot, root: Path, keep: int, tell: TellPart) -> Path | None:
    """deps.upgrade.CopyTables: into a folder of backups in `root`, without a passphrase."""
    if await snapshot.read(node.read_names) is None:
        return None

    def told(batch: Batch) -> None:
        tell(batch.table, batch.rows, batch.total)

    try:
        folder = await in_thread(_open, root)
        with ExitStack() as stack:
            await in_thread(stack.enter_context, folder.held())
            made = await make_of_tables(snapshot, "postgres", folder, told)
            await in_thread(prune, folder, keep)
    except (Refused, Damaged, Strange, OSError, RuntimeError) as exc:
        # the last is what a table that may not be read is told by
        raise NotCopied(str(exc)) from exc
    return made.path


def _open(root: Path) -> Folder:
    make_folders(root / ABOUT)
    return Folder.make(root, None)
