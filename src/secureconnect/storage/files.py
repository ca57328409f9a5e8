"""Files that are there: who may see one, where it is to be had, and how it goes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import cast

import msgspec

from .. import audit
from ..clock import SECOND_US
from ..config import StorageConfig
from ..deps.contracts import Database, Objects, Presigner, Tx
from ..errors import AddressExpired, FileOnAwayNode, NotFound, Unavailable, UploadMissing
from ..identity import ConversationId, FileId, NodeId, UserId
from ..metrics import counter
from . import store
from .accesses import Access, Accesses
from .addresses import Addresses, Grant
from .serving import ANYTHING, HEAD_BYTES, disposition, media_type_of
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
IsBanned = Callable[[Tx, UserId, int], Awaitable[bool]]
IsShown = Callable[[Tx, FileId, UserId], Awaitable[bool]]


def _untold(_: File, __: Sequence[Place]) -> None:
    """Nobody listens."""


async def _nobody_is(_: Tx, __: UserId, ___: int) -> bool:
    return False


async def _to_nobody(_: Tx, __: FileId, ___: UserId) -> bool:
    return False


class Content(msgspec.Struct, frozen=True):
    """What is sent of a file by this process: where its bytes lie here, or the address in the store where it
    is now."""

    file: File
    path: Path | None = None
    elsewhere: str | None = None


class Files:
    """presigner, is_store_away: as in Uploads.
    tell: hears what became of a file, and where that is to be told.
    is_banned: asked of who got an address; the last is the time, microseconds UTC.
    is_shown: asked of files that no message carries to somebody."""

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
        self.is_banned: IsBanned = _nobody_is
        self.is_shown: IsShown = _to_nobody
        self._accesses = Accesses(config.accesses_kept)

    # who sees what

    async def own(self, caller: UserId, file_id: FileId) -> File:
        """Raises NotFound for what is not the caller's."""
        return _required(await self._db.read(store.get, file_id), caller)

    async def visible(self, caller: UserId, file_id: FileId) -> File:
        """Raises NotFound for what the caller may not see."""
        return await self._db.read(self._visible, caller, file_id)

    async def _visible(self, tx: Tx, caller: UserId, file_id: FileId) -> File:
        """The one rule of who may see a file: its owner; and once it is complete, whoever may see what
        carries it, or was in reach of the call of which it is a recording."""
        file = await store.get(tx, file_id)
        is_others = file is not None and file.owner_id != caller and file.status == "completed"
        if file is not None and is_others:
            if await shares.may_see(tx, file_id, caller, self._db.now_us()):
                return file
            if await self.is_shown(tx, file_id, caller):
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
        now_us = self._db.now_us()
        return await store.list_shared(tx, conversation, seat.visible_from_seq, now_us, before, limit)

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
            return self._stored_at(self._presigner, await self._typed(file), self._config.download_url_s)
        (_FOLDER if file.node_id is None else _SPOOL).inc()
        expires_us = self._db.now_us() + self._config.download_url_s * SECOND_US
        grant = Grant("GET", file.file_id, file.file_size, expires_us, caller)
        return self._addresses.of(grant, file.node_id)

    async def _hand_out(self, tx: Tx, caller: UserId, file_id: FileId, client: str) -> File:
        file = await self._visible(tx, caller, file_id)
        if file.status != "completed":
            raise UploadMissing
        now_us = self._db.now_us()
        if file.node_id is None:
            self._require_store()
        elif file.node_id != self._node_id and not await store.lives(tx, file.node_id, now_us):
            raise FileOnAwayNode
        await self._note(tx, "storage:file:downloaded", caller, file_id, client)
        return file

    async def _note(self, tx: Tx, action: str, caller: UserId, file_id: FileId, client: str) -> None:
        await audit.record(
            tx, action=action, actor=caller, subject=file_id, address=client, now_us=self._db.now_us()
        )

    async def content(self, token: str, client: str) -> Content:
        """What an address of ours stands for, as long as whoever asked for it may see the file.

        client: as in `address`."""
        grant = self._addresses.read(token, "GET", self._db.now_us())
        file = await self._db.read(self._stands_for, grant)
        if file.status != "completed":
            raise NotFound
        if file.node_id not in (None, self._node_id):
            raise FileOnAwayNode
        if self._objects.path_of(file.key) is None:
            self._require_store()
        elif (await self._objects.stat(file.key)).size_bytes != file.file_size:
            raise Unavailable
        access = Access(grant.user_id, grant.file_id, client)
        if self._accesses.is_news(access, self._db.now_us()):
            await self._db.relieve(self._note, "storage:file:served", *access)
            self._accesses.note(access, self._db.now_us())
        file = await self._typed(file)
        path = self._objects.path_of(file.key)
        if path is not None or self._presigner is None:
            return Content(file, path=path)
        # or moved just now; for as long as the address that led here
        left_s = max(1, (grant.expires_us - self._db.now_us()) // SECOND_US)
        return Content(file, elsewhere=self._stored_at(self._presigner, file, left_s))

    async def _stands_for(self, tx: Tx, grant: Grant) -> File:
        if await self.is_banned(tx, grant.user_id, self._db.now_us()):
            raise AddressExpired
        return await self._visible(tx, grant.user_id, grant.file_id)

    async def _typed(self, file: File) -> File:
        """With what its content may be shown as, which is looked at once; never if it is encrypted."""
        if file.media_type is not None or file.is_encrypted:
            return file
        chunks = cast("AsyncGenerator[bytes, None]", self._objects.get(file.key, 0, HEAD_BYTES))
        async with aclosing(chunks):
            head = b"".join([chunk async for chunk in chunks])
        media_type = media_type_of(head, file.content_type)
        await self._db.relieve(store.note_type, file.file_id, media_type)
        return file._replace(media_type=media_type)

    @staticmethod
    def _stored_at(presigner: Presigner, file: File, expires_s: int) -> str:
        return presigner.download_url(
            file.key,
            expires_s,
            disposition=disposition(file.file_name),
            content_type=file.media_type or ANYTHING,
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

    def node_of(self, file: File) -> NodeId | None:
        """In whose spool it lies: this node's, or nobody's."""
        return self._node_id if self._objects.where(file.key) == "spool" else None

    @contextmanager
    def noticing(self, node_id: NodeId | None) -> Iterator[None]:
        """A row that names the node is written in the block: however that ends, it may have been."""
        try:
            yield
        finally:
            self.may_be_spooled |= node_id is not None


def _required(file: File | None, caller: UserId) -> File:
    """An owner's file. To all others it looks like none."""
    if file is None or file.status == "deleted":
        raise NotFound
    if file.owner_id != caller:
        raise NotFound(denial="denied:file", subject=file.file_id)
    return file
