"""The room itself: its parts put together, and its periodic work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import trio

from ..config import StorageConfig
from ..deps.contracts import Database, Drafts, Objects, Presigner
from ..errors import NotFound
from ..identity import ConversationId, FileId, NodeId, UserId
from . import store
from .addresses import Addresses
from .files import Files, IsBanned, IsShown
from .growing import Growing
from .orphans import Orphans
from .parts import Parts
from .recount import Recount
from .shapes import file_shape, file_updated
from .sharing.store import Place
from .store import File
from .sweeper import Sweeper
from .uploads import Uploads
from .verifying import Verifier

EXPORT_PAGE = 200
FORGET_PAGE = 200


TellFile = Callable[[UserId, Sequence[tuple[ConversationId, int]], bytes], None]
"""Owner; conversations, each with the message from which on it is to be told; the event for sockets."""


def _never() -> bool:
    return False


class Storage:
    """key: that addresses are signed with, equal on every node.  public_url: as the setting.
    drafts: where parts arrive that come through here.  presigner: None where files lie in a folder.
    is_store_away: as this node knows it."""

    def __init__(
        self,
        config: StorageConfig,
        db: Database,
        objects: Objects,
        node_id: NodeId,
        *,
        key: bytes,
        public_url: str = "",
        drafts: Drafts,
        presigner: Presigner | None = None,
        is_store_away: Callable[[], bool] = _never,
    ) -> None:
        self.config = config
        self._db = db
        addresses = Addresses(key, public_url)
        self.files = Files(config, db, objects, presigner, is_store_away, addresses, node_id)
        parts = Parts(config, db, objects, drafts, presigner, addresses, node_id)
        self.verifier = Verifier(config, db, objects, parts, self.files, node_id)
        self.uploads = Uploads(
            config,
            db,
            objects,
            presigner,
            is_store_away,
            addresses,
            self.files,
            parts,
            self.verifier,
            node_id,
        )
        self.growing = Growing(config, db, objects, self.files, is_store_away)
        self.orphans = Orphans(config, db, objects, drafts)
        self.recount = Recount(config, db)
        self.sweeper = Sweeper(config, db, objects, self.files, parts, node_id)

    def connect(self, *, tell_file: TellFile, is_banned: IsBanned, is_shown: IsShown) -> None:
        """What this room needs of its neighbours.

        tell_file: is told what became of a file. Never waits.
        is_banned: whether somebody is, for addresses that ask for no session.
        is_shown: whether a neighbour lets somebody see a file that no message carries.
        """

        def tell(file: File, places: Sequence[Place]) -> None:
            tell_file(file.owner_id, places, file_updated(file))

        self.files.tell = tell
        self.files.is_banned = is_banned
        self.files.is_shown = is_shown

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.sweeper.pass_forever)
            nursery.start_soon(self.sweeper.settle_forever)
            nursery.start_soon(self.orphans.pass_forever)
            nursery.start_soon(self.recount.pass_forever)
            for _ in range(self.config.verify_at_once):
                nursery.start_soon(self.verifier.work_forever)
            task_status.started()

    async def delete(self, caller: UserId, file_id: FileId, client: str) -> File:
        file = await self.files.delete(caller, file_id, client)
        self.sweeper.hurry()
        return file

    async def figures(self) -> tuple[int, int]:
        """How many files are stored, and how many bytes."""
        return await self._db.read(store.figures)

    async def forget(self, user: UserId) -> None:
        """Delete every file of a person; the sweeper removes what they hold. Safe to repeat."""
        while page := await self._db.read(store.list_of, user, store.LAST_ID, FORGET_PAGE):
            for file in page:
                with suppress(NotFound):  # deleted meanwhile
                    await self.files.delete(user, file.file_id, "")
        await self._db.relieve(store.forget_quota, user)
        self.sweeper.hurry()

    async def export_of(self, user: UserId) -> AsyncIterator[dict[str, Any]]:
        """What is known of each file of a person, the newest first."""
        before = store.LAST_ID
        while page := await self._db.read(store.list_of, user, before, EXPORT_PAGE):
            for file in page:
                places = await self.files.places(file.file_id)
                told = msgspec.to_builtins(file_shape(file))
                yield {"kind": "file", **told, "shared_in": [each.conversation_id for each in places]}
            before = page[-1].file_id
