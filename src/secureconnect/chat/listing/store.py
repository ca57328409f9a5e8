"""The SQL of a page of conversations: who is in the direct ones, and what was said last in some."""

from __future__ import annotations

from collections.abc import Sequence

from ...deps.contracts import Tx
from ...identity import ConversationId, UserId
from ..store import MESSAGE, NO_ID, PAGE, PERSON, Member, Message, Participant, Person, message_of

NEWEST = 100  # messages of one conversation, at most: what `first_sync_messages` may be
# The ids of a page; the places of fewer are filled up.
_THESE = ", ".join(f"${number}" for number in range(3, PAGE + 3))
_APART = (
    "EXISTS (SELECT 1 FROM blocks b WHERE (b.user_id = $1 AND b.blocked_id = m.user_id)"
    " OR (b.user_id = m.user_id AND b.blocked_id = $1))"
)
_PEOPLE = (
    f"SELECT m.conversation_id, {_APART}, {PERSON}, m.user_id, m.role, m.joined_at,"  # noqa: S608
    f" m.visible_from_seq, CASE WHEN m.user_id = $1 OR (u.sends_read_receipts AND NOT {_APART})"
    " THEN m.last_read_seq ELSE 0 END FROM members m JOIN users u ON u.user_id = m.user_id"
    f" WHERE m.conversation_id IN ({_THESE}) ORDER BY m.conversation_id, m.user_id LIMIT $2"
)
_OF_THESE = f"WHERE m.user_id = $1 AND m.conversation_id IN ({_THESE}) ORDER BY g.conversation_id, g.seq"
_NEWEST = {
    "sqlite": (
        f"SELECT {MESSAGE} FROM members m JOIN conversations c ON c.conversation_id = m.conversation_id"  # noqa: S608
        " JOIN messages g ON g.conversation_id = c.conversation_id AND g.seq > c.last_seq - $2"
        f" AND g.seq >= m.visible_from_seq {_OF_THESE}"
    ),
    # It expects a third of all messages beyond any number, and reads them all for that: unless each
    # conversation is looked at by itself, and from its end.
    "postgres": (
        "SELECT g.* FROM members m JOIN conversations c ON c.conversation_id = m.conversation_id"  # noqa: S608
        f" CROSS JOIN LATERAL (SELECT {MESSAGE} FROM messages g"
        " WHERE g.conversation_id = c.conversation_id AND g.seq > c.last_seq - $2"
        f" AND g.seq >= m.visible_from_seq ORDER BY g.seq DESC LIMIT {NEWEST}) g {_OF_THESE}"
    ),
}
_P = 2 + len(Person._fields)


async def pairs(
    tx: Tx, viewer: UserId, conversations: Sequence[ConversationId]
) -> dict[ConversationId, list[Participant]]:
    """Both people of each of these direct conversations, PAGE of them at most, as `viewer` sees them."""
    found: dict[ConversationId, list[Participant]] = {}
    if conversations:
        for row in await tx.all(_PEOPLE, viewer, 2 * PAGE, *_filled(conversations)):
            participant = Participant(Person._make(row[2:_P]), Member(*row[_P:]), bool(row[1]))
            found.setdefault(row[0], []).append(participant)
    return found


async def newest(
    tx: Tx, viewer: UserId, conversations: Sequence[ConversationId], limit: int, now_us: int
) -> list[Message]:
    """Of each of these, PAGE of them at most, the last `limit` messages as far as they are for `viewer`,
    ascending."""
    if not conversations:
        return []
    rows = await tx.all(_NEWEST[tx.dialect], viewer, limit, *_filled(conversations))
    return [message_of(row, now_us) for row in rows]


def _filled(conversations: Sequence[ConversationId]) -> list[str]:
    return [*conversations, *[NO_ID] * (PAGE - len(conversations))]
