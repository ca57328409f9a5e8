"""Files that are there: who may see one, where it is to be had, and how it goes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import cast

from .. import audit
from ..clock import SECOND_US
from ..config import StorageConfig
from ..deps.contracts import Database, Objects, Presigner, Tx
from ..errors import FileOnAwayNode, NotFound, Unavailable, UploadMissing
from ..identity import ConversationId, FileId, NodeId, UserId
from ..metrics import counter
from . import store
from .addresses import Addresses, Grant
from .sharing import store as shares
from .sharing.sharing import require_seat
from .sharing.store import Place
from .store import File, Quota

# place: store, spool, folder
HANDED_OUT = counter("secureconnect_storage_downloads_total", "Addresses given out for downloads.", ["place"])
_STORE, _SPOOL, _FOLDER = (HANDED_OUT.labels(place) for place in ("store", "spool", "folder"))
SENT = counter("secureconnect_storage_sent_bytes_total", "Bytes of files sent by this process.")


TOLD_PLACES = 100  # conversations that are told at once of what became of a file
Tell = Callable[[File, Sequence[Place]], None]


def _untold(_: File, __: Sequence[Place]) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Content:
    """What is sent of a file by this process: its bytes, or the address in the store where it is now."""

    file: File
    chunks: AsyncGenerator[bytes, None] | None = None
    elsewhere: str | None = None


class Files:
    """presigner, is_store_away: as in Uploads.
    tell: hears what became of a file, and where that is to be told."""

    def __init__(
        self,
        config: StorageConfig,
        db: Database,
        objects: Objects,
        presigner: Presigner | None,
        is_store_away: Callable[[], bool],
        addresses: Addresses,
        node_id: NodeId,
    ) -> None:
        self.may_be_spooled = presigner is not None  # some row names this node, as far as is known
        self._config = config
        self._db = db
        self._objects = objects
        self._presigner = presigner
        self._is_store_away = is_store_away
        self._addresses = addresses
        self._node_id = node_id
        self.tell: Tell = _untold

    # who sees what

    async def own(self, caller: UserId, file_id: FileId) -> File:
        """Raises NotFound for what is not the caller's."""
        return _required(await self._db.read(store.get, file_id), caller)

    async def visible(self, caller: UserId, file_id: FileId) -> File:
        """Raises NotFound for what the caller may not see."""
        return await self._db.read(self._visible, caller, file_id)

    async def _visible(self, tx: Tx, caller: UserId, file_id: FileId) -> File:
        """The one rule of who may see a file: its owner; and once it is complete, whoever may see what
        carries it."""
        file = await store.get(tx, file_id)
        is_others = file is not None and file.owner_id != caller and file.status == "completed"
        if file is not None and is_others and await shares.may_see(tx, file_id, caller):
            return file
        return _required(file, caller)

    async def list_of(self, owner: UserId, before: str | None, limit: int) -> list[File]:
        """One more than `limit`, if there are more; the newest first."""
        return await self._db.read(store.list_of, owner, before or store.LAST_ID, limit + 1)

    async def list_shared(
        self, caller: UserId, conversation: ConversationId, before: str | None, limit: int
    ) -> list[File]:
        """Those of a conversation that the caller may see, as `list_of`. Raises NotFound for strangers."""
        return await self._db.read(
            self._list_shared, caller, conversation, before or store.LAST_ID, limit + 1
        )

    async def _list_shared(
        self, tx: Tx, caller: UserId, conversation: ConversationId, before: str, limit: int
    ) -> list[File]:
        seat = await require_seat(tx, caller, conversation)
        return await store.list_shared(tx, conversation, seat.visible_from_seq, before, limit)

    async def places(self, file_id: FileId) -> Sequence[Place]:
        """Where it is shared, or some of that."""
        return await self._db.read(shares.places, file_id, TOLD_PLACES)

    async def quota(self, user: UserId) -> Quota:
        return await self._db.read(store.quota, user)

    # getting one

    async def address(self, caller: UserId, file_id: FileId, client: str) -> str:
        """Where the content is to be had for `download_url_s`.  client: whose network address is audited."""
        # relieve: files can be fetched when the disk is nearly full
        file = await self._db.relieve(self._hand_out, caller, file_id, client)
        if file.node_id is None and self._presigner is not None:
            _STORE.inc()
            return await self._stored_at(self._presigner, file)
        (_FOLDER if file.node_id is None else _SPOOL).inc()
        expires_us = self._db.now_us() + self._config.download_url_s * SECOND_US
        return self._addresses.of(Grant("GET", file.file_id, file.file_size, expires_us), file.node_id)

    async def _hand_out(self, tx: Tx, caller: UserId, file_id: FileId, client: str) -> File:
        file = await self._visible(tx, caller, file_id)
        if file.status != "completed":
            raise UploadMissing
        now_us = self._db.now_us()
        if file.node_id is None:
            self._require_store()
        elif file.node_id != self._node_id and not await store.lives(tx, file.node_id, now_us):
            raise FileOnAwayNode
        await audit.record(
            tx,
            action="storage:file:downloaded",
            actor=caller,
            subject=file_id,
            address=client,
            now_us=now_us,
        )
        return file

    async def content(self, token: str) -> Content:
        """What an address of ours stands for."""
        grant = self._addresses.read(token, "GET", self._db.now_us())
        file = await self._db.read(store.get, grant.file_id)
        if file is None or file.status != "completed":
            raise NotFound
        if file.node_id not in (None, self._node_id):
            raise FileOnAwayNode
        if self._presigner is not None and self._objects.where(file.key) == "store":
            self._require_store()
            return Content(file, elsewhere=await self._stored_at(self._presigner, file))
        found = await self._objects.stat(file.key)
        if found.size_bytes != file.file_size:
            raise Unavailable
        return Content(file, chunks=self._counted(file))

    async def _counted(self, file: File) -> AsyncGenerator[bytes, None]:
        chunks = cast("AsyncGenerator[bytes, None]", self._objects.get(file.key))
        try:
            async for chunk in chunks:
                SENT.inc(len(chunk))
                yield chunk
        finally:
            await chunks.aclose()

    async def _stored_at(self, presigner: Presigner, file: File) -> str:
        return await presigner.download_url(
            file.key,
            self._config.download_url_s,
            file_name=file.file_name,
            content_type=file.content_type,
        )

    def _require_store(self) -> None:
        if self._presigner is not None and self._is_store_away():
            raise Unavailable("The file store is not available right now.", details={"dependency": "minio"})

    # deleting, and moving

    async def delete(self, caller: UserId, file_id: FileId, client: str) -> File:
        """Gone for everybody at once, and its room is free. The content is for the sweeper."""
        file, places = await self._db.relieve(self._delete, caller, file_id, client)
        self.tell(file, places)
        return file

    async def _delete(
        self, tx: Tx, caller: UserId, file_id: FileId, client: str
    ) -> tuple[File, Sequence[Place]]:
        file = _required(await store.lock(tx, file_id), caller)
        places = await shares.places(tx, file_id, TOLD_PLACES)
        now_us = self._db.now_us()
        await store.delete(tx, file, now_us)
        await audit.record(
            tx,
            action="storage:file:deleted",
            actor=caller,
            subject=file_id,
            address=client,
            facts={"size_bytes": file.file_size},
            now_us=now_us,
        )
        gone = file._replace(status="deleted", file_name="", encryption_metadata=None, checksum_sha256=None)
        return gone, places

    async def completed(self, file: File) -> None:
        """Tell that it is there."""
        self.tell(file, await self.places(file.file_id) if file.conversation_id else ())

    def noticed_in(self, file: File | None) -> None:
        """One more that may lie in this node's spool."""
        if file is not None and file.node_id is not None:
            self.may_be_spooled = True


def _required(file: File | None, caller: UserId) -> File:
    """An owner's file. To all others it looks like none."""
    if file is None or file.status == "deleted":
        raise NotFound
    if file.owner_id != caller:
        raise NotFound(denial="denied:file", subject=file.file_id)
    return file
