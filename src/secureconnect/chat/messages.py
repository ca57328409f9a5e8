"""Rules for messages: what may be sent, read, edited and deleted, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from .. import audit
from ..config import ChatConfig
from ..deps.contracts import Database, Tx
from ..errors import AccountDeleted, E2eeRequired, Forbidden, Invalid, MessageDeleted, NotFound
from ..identity import ConversationId, MessageId, UserId, is_id, new_id
from . import archive, changes, permissions, store
from .append import Draft, Stored
from .attachments import Attachments, no_such_file
from .changes import Event
from .conversations import require_seat
from .mentions.mentions import mention_anew, mentioned
from .pages import Asked, Kept, Pages
from .pledges import Accepted
from .reactions import store as reactions
from .store import Message, Seat
from .versions import store as versions
from .writer import Done, Writer

METADATA_BYTES = 16_384
METADATA_DEPTH = 16
SMALLEST = 1e-18  # number in metadata, but for 0
_document = msgspec.json.Decoder(dict[str, Any] | None)


class Messages:
    def __init__(
        self,
        config: ChatConfig,
        db: Database,
        writer: Writer,
        pages: Pages,
        attachments: Attachments,
    ) -> None:
        self._config = config
        self._db = db
        self._writer = writer
        self._pages = pages
        self._attachments = attachments

    # sending

    def draft(
        self,
        sender: UserId,
        conversation: str,
        content: str,
        *,
        message_type: str = "text",
        client_message_id: str | None = None,
        is_encrypted: bool = False,
        reply_to: str | None = None,
        file_ids: Sequence[str] = (),
        metadata: msgspec.Raw | None = None,
    ) -> Draft:
        """A message fit to be stored, as far as that can be said without the database. Raises Invalid."""
        self._check_content(content, is_encrypted, message_type == "text" and not file_ids)
        document = _document_of(metadata)
        return Draft(
            MessageId(new_id()),
            ConversationId(conversation),
            sender,
            client_message_id or new_id(),
            message_type,
            content,
            is_encrypted,
            MessageId(reply_to) if reply_to else None,
            self._file_ids(file_ids),
            _kept(document),
            mentioned(document, sender) if document else (),
        )

    async def send(self, draft: Draft) -> Stored | Accepted:
        """Store it, or find what an earlier send of the same client_message_id has stored; or accept it while
        the database is away."""
        return await self._writer.store(draft)

    def _file_ids(self, given: Sequence[str]) -> str:
        """The JSON to keep; each file once."""
        if not given:
            return "[]"
        if len(given) > self._config.max_files:
            raise Invalid(
                f"A message carries at most {self._config.max_files} files.", details={"field": "file_ids"}
            )
        if not all(map(is_id, given)):
            raise no_such_file()
        return msgspec.json.encode(list(dict.fromkeys(given))).decode()

    def _check_content(self, content: str, is_encrypted: bool, is_all: bool) -> None:
        """is_all: the message says nothing else. Raises Invalid."""
        if is_all and not content:
            raise Invalid("A message needs some content.", details={"field": "content"})
        if "\0" in content:
            raise Invalid("U+0000 is not allowed.", details={"field": "content"})
        if is_encrypted:
            if len(content.encode()) > self._config.max_encrypted_bytes:
                raise Invalid("The encrypted message is too long.", details={"field": "content"})
        elif len(content) > self._config.max_message_chars:
            raise Invalid(
                f"A message has at most {self._config.max_message_chars} characters.",
                details={"field": "content"},
            )

    # reading

    async def get(self, caller: UserId, message: MessageId) -> Message:
        return await self._db.read(self._get, caller, message)

    async def _get(self, tx: Tx, caller: UserId, message: MessageId) -> Message:
        found = await require_visible(tx, caller, message, self._db.now_us())
        return (await reactions.with_reactions(tx, [found], caller))[0]

    async def page(self, caller: UserId, asked: Asked) -> msgspec.Raw:
        """The `MessageList`."""
        with self._pages.reading(asked.conversation) as reading:
            seat, found = await self._db.read(self._page, caller, asked, self._pages.get(asked))
            return self._pages.answer(asked, reading, seat, found)

    async def _page(
        self, tx: Tx, caller: UserId, asked: Asked, kept: Kept | None
    ) -> tuple[Seat, msgspec.Raw | list[Message]]:
        conversation, limit, before_seq, after_seq = asked
        seat = await require_seat(tx, conversation, caller)
        now_us = self._db.now_us()
        if kept is not None and kept.is_right(seat, now_us):
            return seat, kept.data
        visible_from = seat.member.visible_from_seq
        if after_seq is not None:
            after = max(visible_from - 1, after_seq)
            found = await archive.oldest_after(tx, conversation, after, limit, now_us)
        else:
            before = seat.conversation.last_seq + 1 if before_seq is None else before_seq
            found = await archive.newest_before(tx, conversation, visible_from, before, limit, now_us)
        return seat, await reactions.with_reactions(tx, found, caller)

    # changing

    async def edit(
        self,
        caller: UserId,
        message: MessageId,
        content: str,
        is_encrypted: bool | None = None,
        metadata: msgspec.Raw | None = None,
    ) -> Message:
        """is_encrypted, metadata: None keeps what it was. Editing twice is editing once."""
        self._writer.require_settled(message)
        return await self._writer.change(self._edit, caller, message, content, is_encrypted, metadata)

    async def _edit(
        self,
        tx: Tx,
        caller: UserId,
        message_id: MessageId,
        content: str,
        is_encrypted: bool | None,
        metadata: msgspec.Raw | None,
    ) -> Done[Message]:
        seat, message = await lock_message(tx, caller, message_id, self._db.now_us)
        conversation = seat.conversation
        if message.sender_id != caller:
            raise Forbidden(denial="denied:forbidden", subject=message_id)
        require_said(message)
        if message.deleted_us is not None:
            raise MessageDeleted
        encrypted = message.is_encrypted if is_encrypted is None else is_encrypted
        if conversation.is_e2ee_enabled and not encrypted:
            raise E2eeRequired
        self._check_content(content, encrypted, message.message_type == "text" and message.file_ids == "[]")
        await require_unblocked(tx, seat)
        before = None if message.metadata is None else msgspec.json.decode(message.metadata)
        document = before if metadata is None else _document_of(metadata)
        if (content, encrypted) == (message.content, message.is_encrypted) and _is_same(document, before):
            return Done((await reactions.with_reactions(tx, [message], caller))[0])
        now_us = self._db.now_us()
        edited = message._replace(
            content=content, is_encrypted=encrypted, metadata=_kept(document), edited_us=now_us
        )
        added: tuple[UserId, ...] = ()
        if metadata is not None:
            added = await mention_anew(tx, message, mentioned(document or {}, caller))
        change = await changes.number(tx, conversation.conversation_id, now_us)
        await versions.keep(tx, message, self._config.versions_kept)
        await archive.edit(tx, message_id, content, encrypted, edited.metadata, now_us)
        [seen] = await reactions.with_reactions(tx, [edited], caller)
        event = Event(
            "message_edited",
            conversation.conversation_id,
            change,
            now_us,
            message.seq,
            message_id,
            seen._replace(change=change),
            mentioned=added or None,
        )
        await self._record(tx, event, caller, "chat:message:edited")
        return Done(seen, [event])

    async def delete(self, caller: UserId, message: MessageId) -> Message:
        """Leave a tombstone. Deleting twice is deleting once."""
        self._writer.require_settled(message)
        return await self._writer.relieve(self._delete, caller, message)

    async def _delete(self, tx: Tx, caller: UserId, message_id: MessageId) -> Done[Message]:
        seat, message = await lock_message(tx, caller, message_id, self._db.now_us)
        if message.sender_id != caller:
            permissions.require(seat, "delete_others", message_id)
        require_said(message)
        if message.deleted_us is not None:
            return Done(message)
        now_us = self._db.now_us()
        change = await changes.number(tx, message.conversation_id, now_us)
        await archive.delete(tx, [message], [now_us])
        if message.file_ids != "[]":
            await self._attachments.detach(
                tx, message.conversation_id, message.seq, message_id, caller, now_us
            )
        event = Event(
            "message_deleted",
            message.conversation_id,
            change,
            now_us,
            message.seq,
            message_id,
            deleted_us=now_us,
        )
        await self._record(tx, event, caller, "chat:message:deleted")
        return Done(store.tombstone(message, now_us), [event])

    @staticmethod
    async def _record(tx: Tx, event: Event, caller: UserId, action: str) -> None:
        await changes.record(tx, event, caller)
        await audit.record(tx, action=action, actor=caller, subject=event.message_id, now_us=event.stored_us)


async def lock_message(
    tx: Tx, caller: UserId, message_id: MessageId, now_us: Callable[[], int]
) -> tuple[Seat, Message]:
    """Hold its conversation; what is returned stays true until the transaction ends. Raises NotFound."""
    conversation = (await require_visible(tx, caller, message_id, now_us())).conversation_id
    await store.lock(tx, conversation)
    seat = await require_seat(tx, conversation, caller)
    return seat, await require_visible(tx, caller, message_id, now_us())


def require_said(message: Message) -> None:
    """Raises Forbidden for what nobody said: a notice stays as it is."""
    if message.message_type == "system":
        raise Forbidden(denial="denied:forbidden", subject=message.message_id)


async def require_unblocked(tx: Tx, seat: Seat) -> None:
    """Of a direct conversation: that neither of the two has blocked the other, and that both are there.
    Raises Forbidden, AccountDeleted."""
    conversation, caller = seat.conversation, seat.member.user_id
    if conversation.type != "direct":
        return
    for other in await store.viewers(tx, conversation.conversation_id):
        is_apart = other != caller and await store.are_apart(tx, caller, other)
        if is_apart is None:
            raise AccountDeleted
        if is_apart:
            raise Forbidden(denial="denied:forbidden", subject=conversation.conversation_id)


async def require_visible(tx: Tx, caller: UserId, message: MessageId, now_us: int) -> Message:
    """Raises NotFound."""
    found = await archive.get_visible(tx, message, caller, now_us)
    if found is None:
        raise NotFound(denial="denied:conversation", subject=message)
    return found


def _document_of(given: msgspec.Raw | None) -> dict[str, Any] | None:
    """The metadata to keep. It must stay readable wherever it is told: flat enough, and without U+0000.

    It is not read before its size is known: a megabyte of brackets would stop everybody else for 0.2 s.
    """
    if given is None:
        return None
    if len(given) > METADATA_BYTES:
        raise Invalid(f"Metadata has at most {METADATA_BYTES} bytes.", details={"field": "metadata"})
    try:
        document: dict[str, Any] | None = _document.decode(given)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise Invalid("Metadata is a JSON object.", details={"field": "metadata"}) from exc
    if document is None:
        return None
    waiting: list[tuple[Any, int]] = [(document, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > METADATA_DEPTH:
            raise Invalid(f"Metadata nests at most {METADATA_DEPTH} deep.", details={"field": "metadata"})
        if isinstance(value, dict):
            waiting += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list):
            waiting += [(part, depth + 1) for part in value]
        elif isinstance(value, str) and "\0" in value:
            raise Invalid("U+0000 is not allowed.", details={"field": "metadata"})
        elif isinstance(value, int | float) and not _is_plain(value):
            raise Invalid("A number is too large, or too small.", details={"field": "metadata"})
    return document


def _is_plain(number: float) -> bool:
    """Whether it stays short where it is written without an exponent, as by PostgreSQL: 1e300 has 301 digits
    then, and metadata has room for thousands of those."""
    return number == 0 or (-(2**63) <= number < 2**63 and abs(number) >= SMALLEST)


def _kept(document: dict[str, Any] | None) -> str | None:
    """As it is written into the table."""
    return None if document is None else msgspec.json.encode(document).decode()


def _is_same(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """In whatever order, and 1 is not true."""
    return msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
