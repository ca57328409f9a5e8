"""The SQL of whose keys a person may have, and of who must learn that keys have changed."""

from __future__ import annotations

from collections.abc import Sequence

from ...deps.contracts import Tx
from ...identity import ConversationId, DeviceId, UserId

# whom one shares a conversation with, a direct one only where neither has blocked the other; and friends
_MEMBERS = (
    "SELECT other.user_id FROM members me JOIN members other"
    " ON other.conversation_id = me.conversation_id AND other.user_id <> me.user_id"
    " WHERE me.user_id = $1 AND (other.user_id NOT IN (SELECT blocked_id FROM blocks WHERE user_id = $1"
    " UNION SELECT user_id FROM blocks WHERE blocked_id = $1)"
    " OR EXISTS (SELECT 1 FROM conversations c"
    " WHERE c.conversation_id = me.conversation_id AND c.type = 'group'))"
)
_FRIENDS = (
    "SELECT f.friend_id FROM friends f JOIN friends back"
    " ON back.user_id = f.friend_id AND back.friend_id = f.user_id WHERE f.user_id = $1"
)
_COMPANY = f"{_MEMBERS} UNION {_FRIENDS}"
_MEETS = f"{_MEMBERS} AND other.user_id = $2 UNION ALL {_FRIENDS} AND f.friend_id = $2 LIMIT 1"
_COMPANY_OF = "SELECT user_id FROM members WHERE conversation_id = $1"

_NOTE = (
    "INSERT INTO key_changes (device_id, user_id, changed_at) VALUES ($1, $2, $3)"
    " ON CONFLICT (device_id) DO UPDATE SET changed_at = excluded.changed_at"
)
_CHANGED_DEVICES = "SELECT device_id FROM key_changes WHERE user_id = $1 AND changed_at >= $2"
# under a person's own id as conversation_id: with whom something has changed between the two
_DEPART = (
    "INSERT INTO key_departures (conversation_id, user_id, left_at) VALUES ($1, $2, $3)"
    " ON CONFLICT (conversation_id, user_id) DO UPDATE SET left_at = excluded.left_at"
)
# of people in company: new keys, or only now in it; and of oneself
_CHANGED = (
    f"SELECT company.user_id FROM ({_COMPANY}) AS company WHERE EXISTS"  # noqa: S608
    " (SELECT 1 FROM key_changes k WHERE k.user_id = company.user_id AND k.changed_at >= $2)"
    " OR company.user_id IN (SELECT other.user_id FROM members me JOIN members other"
    " ON other.conversation_id = me.conversation_id"
    " WHERE me.user_id = $1 AND (me.joined_at >= $2 OR other.joined_at >= $2))"
    " OR company.user_id IN (SELECT d.user_id FROM key_departures d"
    " WHERE d.conversation_id = $1 AND d.left_at >= $2)"
    " UNION SELECT user_id FROM key_changes WHERE user_id = $1 AND changed_at >= $2 LIMIT $3"
)
# who left a conversation of mine, who is in one that I left or left that before or with me, and with whom
# something has changed; without those still in company
_LEFT = (
    "SELECT gone.user_id FROM (SELECT d.user_id FROM key_departures d"  # noqa: S608
    " JOIN members me ON me.conversation_id = d.conversation_id AND me.user_id = $1 WHERE d.left_at >= $2"
    " UNION SELECT other.user_id FROM key_departures d"
    " JOIN members other ON other.conversation_id = d.conversation_id"
    " WHERE d.user_id = $1 AND d.left_at >= $2"
    " UNION SELECT other.user_id FROM key_departures d"
    " JOIN key_departures other ON other.conversation_id = d.conversation_id AND other.left_at <= d.left_at"
    " WHERE d.user_id = $1 AND other.left_at >= $2"
    " AND NOT EXISTS (SELECT 1 FROM users u WHERE u.user_id = d.conversation_id)"
    " UNION SELECT d.user_id FROM key_departures d WHERE d.conversation_id = $1 AND d.left_at >= $2) AS gone"
    f" WHERE gone.user_id <> $1 AND gone.user_id NOT IN ({_COMPANY}) LIMIT $3"
)
_DEPARTED = "SELECT user_id FROM key_departures WHERE conversation_id = $1 AND left_at >= $2"


async def meets(tx: Tx, one: UserId, other: UserId) -> bool:
    """Whether each may have the other's keys, and send to their devices."""
    return await tx.one(_MEETS, one, other) is not None


async def company(tx: Tx, user: UserId) -> list[UserId]:
    """Everyone whom they meet."""
    return [UserId(row[0]) for row in await tx.all(_COMPANY, user)]


async def company_of(tx: Tx, conversation: ConversationId) -> list[UserId]:
    return [UserId(row[0]) for row in await tx.all(_COMPANY_OF, conversation)]


async def note_change(tx: Tx, device: DeviceId | UserId, user: UserId, now_us: int) -> None:
    """device: or the person, for what is theirs on all devices."""
    await tx.run(_NOTE, device, user, now_us)


async def changed_devices(tx: Tx, user: UserId, since_us: int) -> list[str]:
    return [row[0] for row in await tx.all(_CHANGED_DEVICES, user, since_us)]


async def note_departures(tx: Tx, conversation: ConversationId, users: Sequence[UserId], now_us: int) -> None:
    """In the unit in which somebody leaves a conversation, or all do because it is deleted."""
    await tx.many(_DEPART, [(conversation, user, now_us) for user in users])


async def departed(tx: Tx, conversation: ConversationId, since_us: int) -> list[UserId]:
    return [UserId(row[0]) for row in await tx.all(_DEPARTED, conversation, since_us)]


async def note_relation(tx: Tx, one: UserId, other: UserId, now_us: int, *, quietly: bool = False) -> None:
    """In the unit in which two people become friends or are none any more, or a block begins or ends.
    quietly: `other` is not told."""
    await tx.run(_DEPART, one, other, now_us)
    if not quietly:
        await tx.run(_DEPART, other, one, now_us)


async def changed(tx: Tx, user: UserId, since_us: int, limit: int) -> list[UserId]:
    """People whose keys `user` must ask for again, by id."""
    return sorted([UserId(row[0]) for row in await tx.all(_CHANGED, user, since_us, limit)])


async def left(tx: Tx, user: UserId, since_us: int, limit: int) -> list[UserId]:
    """People whose keys `user` may not have any more, by id."""
    return sorted([UserId(row[0]) for row in await tx.all(_LEFT, user, since_us, limit)])
