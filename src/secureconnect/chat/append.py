"""Append: one transaction that stores a batch of messages (DATA.md, section 3).

The conversations are locked in id order; then, in new statements, resends are dropped, permissions looked at
again, what is left is numbered and inserted. The only SQL of the room with a text per database: it takes its
keys as one JSON parameter, so that a batch costs the same few statements whatever its size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from ..clock import HOUR_US, SECOND_US
from ..deps.contracts import Tx
from ..errors import (
    AccountDeleted,
    ClientMessageIdReused,
    E2eeRequired,
    Forbidden,
    Invalid,
    NotFound,
    Problem,
)
from ..identity import ConversationId, FileId, MessageId, UserId
from . import tallies
from .attachments import Attachments, NoFiles
from .mentions import store as mentions
from .mentions.mentions import strangers
from .reactions import store as reactions
from .store import BLOCK, MESSAGE, Message, activate, message_of


class Draft(NamedTuple):
    """A message that is not stored yet. message_id is made before the first attempt and kept.

    mentions: whom its metadata names. What is added later stands at the end and has a default: it lies in
    journals.
    """

    message_id: MessageId
    conversation_id: ConversationId
    sender_id: UserId
    client_message_id: str
    message_type: str
    content: str
    is_encrypted: bool
    reply_to: MessageId | None
    file_ids: str
    metadata: str | None
    mentions: tuple[UserId, ...] = ()


class Stored(NamedTuple):
    """fresh: False when this is the message an earlier send had stored."""

    message: Message
    fresh: bool


Outcome = Stored | Problem


class _Texts(msgspec.Struct, frozen=True):
    """heads: locks, in id order.  others: who else is in a direct conversation, whether that account is
    erased, and whether either has blocked the other.  All take one JSON list: of ids, or of pairs."""

    heads: str
    resends: str
    seats: str
    others: str
    replied: str


_SQL: dict[str, _Texts] = {
    "sqlite": _Texts(
        # The whole database is locked: one writer.
        heads=(
            "SELECT conversation_id, type, last_seq, last_change, is_e2ee_enabled, tallied_seq,"
            " disappear_after_s, active_hour FROM conversations"
            " WHERE conversation_id IN (SELECT value FROM json_each($1)) ORDER BY conversation_id"
        ),
        resends=(
            f"SELECT {MESSAGE} FROM json_each($1) k JOIN messages g ON g.sender_id = k.value->>0"  # noqa: S608
            " AND g.client_message_id = k.value->>1"
        ),
        seats=(
            "SELECT m.conversation_id, m.user_id, m.visible_from_seq FROM json_each($1) k JOIN members m"
            " ON m.conversation_id = k.value->>0 AND m.user_id = k.value->>1"
        ),
        others=(
            "SELECT k.value->>0, k.value->>1, u.erased_at, EXISTS (SELECT 1 FROM blocks b"
            " WHERE (b.user_id = other.user_id AND b.blocked_id = k.value->>1)"
            " OR (b.user_id = k.value->>1 AND b.blocked_id = other.user_id))"
            " FROM json_each($1) k JOIN members other"
            " ON other.conversation_id = k.value->>0 AND other.user_id <> k.value->>1"
            " JOIN users u ON u.user_id = other.user_id"
        ),
        replied=(
            "SELECT message_id, conversation_id, seq FROM messages WHERE message_type <> 'system'"
            " AND message_id IN (SELECT value FROM json_each($1))"
        ),
    ),
    # Another node waits at `heads`, and its next statements see what this one has stored. The keys become an
    # array first, or each is looked up by itself (LATERAL with a LIMIT), so that no plan reads a whole table
    # however long the list: Postgres expects a hundred keys, and for so many would rather read a table of
    # thousands from end to end, with each message.
    "postgres": _Texts(
        heads=(
            "SELECT conversation_id, type, last_seq, last_change, is_e2ee_enabled, tallied_seq,"
            " disappear_after_s, active_hour FROM conversations"
            " WHERE conversation_id = ANY (ARRAY(SELECT k::uuid FROM jsonb_array_elements_text($1) k))"
            " ORDER BY conversation_id FOR UPDATE"
        ),
        resends=(
            "SELECT g.* FROM jsonb_array_elements($1) k(value)"  # noqa: S608
            f" CROSS JOIN LATERAL (SELECT {MESSAGE} FROM messages g"
            " WHERE g.sender_id = (k.value->>0)::uuid AND g.client_message_id = k.value->>1 LIMIT 1) g"
        ),
        seats=(
            "SELECT m.* FROM jsonb_array_elements($1) k(value)"
            " CROSS JOIN LATERAL (SELECT conversation_id, user_id, visible_from_seq FROM members"
            " WHERE conversation_id = (k.value->>0)::uuid AND user_id = (k.value->>1)::uuid LIMIT 1) m"
        ),
        others=(
            "SELECT k.value->>0, k.value->>1, u.erased_at, EXISTS (SELECT 1 FROM blocks b"
            " WHERE (b.user_id = u.user_id AND b.blocked_id = (k.value->>1)::uuid)"
            " OR (b.user_id = (k.value->>1)::uuid AND b.blocked_id = u.user_id))"
            " FROM jsonb_array_elements($1) k(value) CROSS JOIN LATERAL (SELECT u.user_id, u.erased_at"
            " FROM members other JOIN users u ON u.user_id = other.user_id"
            " WHERE other.conversation_id = (k.value->>0)::uuid"
            " AND other.user_id <> (k.value->>1)::uuid LIMIT 1) u"
        ),
        replied=(
            "SELECT message_id, conversation_id, seq FROM messages WHERE message_type <> 'system'"
            " AND message_id = ANY (ARRAY(SELECT k::uuid FROM jsonb_array_elements_text($1) k))"
        ),
    ),
}
_INSERT = (
    "INSERT INTO messages (message_id, conversation_id, seq, change, sender_id, client_message_id,"
    " message_type, content, is_encrypted, reply_to, file_ids, metadata, sent_at, expires_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
)
_ADVANCE = (
    "UPDATE conversations SET last_seq = $2, last_change = $3, touched_at = $4, tallied_seq = $5"
    " WHERE conversation_id = $1"
)
_INSERTED = 13
NO_FILES = NoFiles()
_file_ids = msgspec.json.Decoder(list[FileId])


class _Head:
    """The numbers of one conversation while the batch is being numbered."""

    __slots__ = ("change", "hour", "is_direct", "is_e2ee", "lasts_us", "moved", "seq", "tallied")

    def __init__(
        self,
        kind: str,
        seq: int,
        change: int,
        is_e2ee: bool,
        tallied: int,
        disappear_after_s: int,
        active_hour: int,
    ) -> None:
        self.is_direct = kind == "direct"
        self.is_e2ee = is_e2ee
        self.seq = seq
        self.change = change
        self.tallied = tallied
        self.lasts_us = disappear_after_s * SECOND_US
        self.hour = active_hour
        self.moved = False

    def end_us(self, stored_us: int) -> int | None:
        """Of a message that is stored then."""
        return stored_us + self.lasts_us if self.lasts_us else None


async def append(
    tx: Tx, drafts: Sequence[Draft], now_us: Callable[[], int], attachments: Attachments = NO_FILES
) -> list[Outcome]:
    """Store what may be stored. Returns what became of each draft, in their order."""
    sql = _SQL[tx.dialect]
    conversations = _json(sorted({draft.conversation_id for draft in drafts}))
    heads = {row[0]: _Head(*row[1:]) for row in await tx.all(sql.heads, conversations)}
    stored_us = now_us()  # after the lock, so that it never lies before a change made earlier
    pairs = {(draft.conversation_id, draft.sender_id) for draft in drafts}
    named = {(draft.conversation_id, user) for draft in drafts for user in draft.mentions}
    seats = {(row[0], row[1]): row[2] for row in await tx.all(sql.seats, _json([*pairs, *(named - pairs)]))}
    known = await _sent_before(tx, drafts, seats, stored_us)
    direct = [pair for pair in pairs if pair[0] in heads and heads[pair[0]].is_direct]
    others = await tx.all(sql.others, _json(direct)) if direct else []
    shut = {(row[0], row[1]): row[2] is not None for row in others if row[2] is not None or row[3]}
    answered = [draft.reply_to for draft in drafts if draft.reply_to is not None]
    replied: dict[str, tuple[str, int]] = (
        {row[0]: (row[1], row[2]) for row in await tx.all(sql.replied, _json(answered))} if answered else {}
    )

    outcomes: list[Outcome] = []
    rows: list[Message] = []
    noted: list[tuple[UserId, ConversationId, int]] = []
    for draft in drafts:
        key = (draft.sender_id, draft.client_message_id)
        if first := known.get(key):
            same = first.conversation_id == draft.conversation_id
            outcomes.append(Stored(first, fresh=False) if same else ClientMessageIdReused())
            continue
        head = heads.get(draft.conversation_id)
        if head is None or (draft.conversation_id, draft.sender_id) not in seats:
            outcomes.append(NotFound(denial="denied:conversation", subject=draft.conversation_id))
            continue
        refusal = _refusal(draft, head, seats, shut, replied)
        if refusal is None and draft.file_ids != "[]":
            refusal = await attachments.attach(
                tx,
                _file_ids.decode(draft.file_ids),
                sender=draft.sender_id,
                conversation=draft.conversation_id,
                seq=head.seq + 1,
                message=draft.message_id,
                is_e2ee=head.is_e2ee,
                now_us=stored_us,
                ends_us=head.end_us(stored_us),
            )
        if refusal is not None:
            outcomes.append(refusal)
            continue
        head.seq += 1
        head.change += 1
        head.moved = True
        message = _numbered(draft, head, stored_us)
        known[key] = message
        replied[draft.message_id] = draft.conversation_id, head.seq  # both may have waited for the database
        rows.append(message)
        noted += [(user, draft.conversation_id, head.seq) for user in draft.mentions]
        outcomes.append(Stored(message, fresh=True))
    if rows:
        await insert(tx, rows)
        moved = {name: head for name, head in heads.items() if head.moved}
        for name, head in moved.items():
            if head.seq - head.tallied >= BLOCK:
                head.tallied = await tallies.take(tx, name, head.tallied, head.seq)
        await tx.many(
            _ADVANCE,
            [(name, head.seq, head.change, stored_us, head.tallied) for name, head in moved.items()],
        )
        hour = stored_us // HOUR_US
        if quiet := [(ConversationId(name), hour) for name, head in moved.items() if head.hour < hour]:
            await activate(tx, quiet)
    if noted:
        await mentions.add(tx, noted)
    return outcomes


async def _sent_before(
    tx: Tx, drafts: Sequence[Draft], seats: dict[tuple[str, str], int], now_us: int
) -> dict[tuple[UserId, str], Message]:
    """By sender and client_message_id, those of these that are stored, each as its sender sees it."""
    wanted = _json([(draft.sender_id, draft.client_message_id) for draft in drafts])
    found: dict[tuple[UserId, str], Message] = {}
    for row in await tx.all(_SQL[tx.dialect].resends, wanted):
        message = message_of(row, now_us)
        visible_from = seats.get((message.conversation_id, message.sender_id))
        if visible_from is not None and visible_from <= message.seq:
            [message] = await reactions.with_reactions(tx, [message], message.sender_id)
        found[message.sender_id, message.client_message_id] = message
    return found


async def insert(tx: Tx, messages: Sequence[Message]) -> None:
    rows: list[tuple[Any, ...]] = [(*message[:_INSERTED], message.expires_us) for message in messages]
    await tx.many(_INSERT, rows)


def _refusal(
    draft: Draft,
    head: _Head,
    seats: dict[tuple[str, str], int],
    shut: dict[tuple[str, str], bool],
    replied: dict[str, tuple[str, int]],
) -> Problem | None:
    """seats: of its sender and of whom it mentions.  shut: where this sender cannot write: True where the
    other is erased, False where there is a block."""
    is_gone = shut.get((draft.conversation_id, draft.sender_id))
    if is_gone:
        return AccountDeleted()
    if is_gone is False:
        return Forbidden(denial="denied:forbidden", subject=draft.conversation_id)
    if head.is_e2ee and not draft.is_encrypted:
        return E2eeRequired()
    if draft.reply_to is not None:
        conversation, seq = replied.get(draft.reply_to, ("", 0))
        if conversation != draft.conversation_id or seq < seats[conversation, draft.sender_id]:
            return Invalid("There is no such message to reply to.", details={"field": "reply_to"})
    if draft.mentions and not all((draft.conversation_id, user) in seats for user in draft.mentions):
        return strangers()
    return None


def _numbered(draft: Draft, head: _Head, stored_us: int) -> Message:
    return Message(
        draft.message_id,
        draft.conversation_id,
        head.seq,
        head.change,
        draft.sender_id,
        draft.client_message_id,
        draft.message_type,
        draft.content,
        draft.is_encrypted,
        draft.reply_to,
        draft.file_ids,
        draft.metadata,
        stored_us,
        None,
        None,
        head.end_us(stored_us),
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
