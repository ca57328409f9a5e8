"""Tallies: how many messages each person sent, block of messages by block, so that unread ones need not be
counted one by one.

A block is tallied by the append that fills it, and its tally never changes: what was deleted since is taken
off by whoever counts (`store.UNREAD`). So nothing that happens later, in whatever order, makes it wrong; and
where a program that knows nothing of tallies has appended, blocks are counted one by one until an append here
comes by.
"""

from __future__ import annotations

from ..deps.contracts import Tx
from ..identity import ConversationId
from .store import BLOCK, NO_ID

BLOCKS = 16  # tallied by one append at most, where earlier ones have left them

_TALLY = (
    "INSERT INTO message_tallies (conversation_id, sender_id, seq, messages)"  # noqa: S608
    f" SELECT conversation_id, sender_id, (seq + {BLOCK - 1}) / {BLOCK} * {BLOCK}, COUNT(*) FROM messages"
    " WHERE conversation_id = $1 AND seq > $2 AND seq <= $3 AND message_type <> 'system'"
    " GROUP BY 1, 2, 3 ON CONFLICT DO NOTHING"
)
_TALLY_ALL = (
    "INSERT INTO message_tallies (conversation_id, sender_id, seq, messages)"  # noqa: S608
    f" SELECT conversation_id, '{NO_ID}', (seq + {BLOCK - 1}) / {BLOCK} * {BLOCK}, COUNT(*) FROM messages"
    " WHERE conversation_id = $1 AND seq > $2 AND seq <= $3 AND message_type <> 'system'"
    " GROUP BY 1, 3 ON CONFLICT DO NOTHING"
)
_DROP = "DELETE FROM message_tallies WHERE conversation_id = $1 AND seq < $2"


async def take(tx: Tx, conversation: ConversationId, tallied_seq: int, last_seq: int) -> int:
    """Tally the blocks that are full. Returns up to where it is done by now. The conversation is locked."""
    until = min(last_seq // BLOCK, tallied_seq // BLOCK + BLOCKS) * BLOCK
    if until > tallied_seq:
        await tx.run(_TALLY, conversation, tallied_seq, until)
        await tx.run(_TALLY_ALL, conversation, tallied_seq, until)
    return until


async def drop_before(tx: Tx, conversation: ConversationId, first_seq: int) -> None:
    """Of blocks that are gone altogether."""
    await tx.run(_DROP, conversation, first_seq)
