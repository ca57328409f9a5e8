"""The SQL of notifications."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ...deps.contracts import Tx
from ...identity import ConversationId, NotificationId, UserId
from ..store import NO_ID

Kind = Literal["message", "mention", "reply", "reaction", "added", "announcement", "missed_call"]
Notify = Literal["all", "mentions", "none"]
Notable = Literal[
    "reaction",
    "message_edited",
    "message_deleted",
    "user_joined",
    "user_left",
    "conversation_updated",
    "conversation_deleted",
]


class Notification(NamedTuple):
    """ref: the message it is about; of `added` the conversation, of the others what they name.  seq: of the
    message.  actor_id: whose doing it is."""

    notification_id: NotificationId
    user_id: UserId
    kind: Kind
    conversation_id: ConversationId | None
    ref: str
    seq: int | None
    actor_id: UserId | None
    created_us: int
    read_us: int | None = None


class Announced(NamedTuple):
    """An announcement that people up to this one have been notified of."""

    announcement_id: str
    made_by: UserId
    told_up_to: UserId


class Said(NamedTuple):
    """A message, as far as it says who is to be notified.  replied_to: whose message it answers."""

    change: int
    message_id: str
    seq: int
    sender_id: UserId
    metadata: str | None
    replied_to: UserId | None


class Happened(NamedTuple):
    """Another change.  author_id: of the message it is about.  holds: of a reaction, whether who did that
    still reacts to the message."""

    change: int
    kind: Notable
    ref: str | None
    seq: int | None
    actor_id: UserId | None
    data: str | None
    author_id: UserId | None
    holds: bool


class Reader(NamedTuple):
    """What decides whether a member is notified.  notify: None: nothing was chosen."""

    visible_from_seq: int
    last_read_seq: int
    muted_until_us: int | None
    notify: Notify | None

    def wants(self, kind: Kind, now_us: int) -> bool:
        """Whether they want to know of such a thing there."""
        if self.notify == "none" or (self.notify == "mentions" and kind == "message"):
            return False
        return kind == "mention" or (self.muted_until_us or 0) <= now_us


_NOTIFICATION = "notification_id, user_id, kind, conversation_id, ref, seq, actor_id, created_at, read_at"

# following what happens

_POSITION = "UPDATE notified SET change = change WHERE conversation_id = $1 RETURNING change"
_SET_OUT = (
    "INSERT INTO notified (conversation_id, change) VALUES ($1, $2)"
    " ON CONFLICT (conversation_id) DO UPDATE SET change = notified.change RETURNING change"
)
_MOVE = "UPDATE notified SET change = $2 WHERE conversation_id = $1"
_BEHIND = (
    "SELECT c.conversation_id FROM conversations c"
    " LEFT JOIN notified n ON n.conversation_id = c.conversation_id"
    " WHERE c.touched_at >= $1 AND (n.change IS NULL OR n.change < c.last_change)"
    " ORDER BY c.touched_at LIMIT $2"
)
_SAID = (
    "SELECT g.change, g.message_id, g.seq, g.sender_id, g.metadata, r.sender_id FROM messages g"
    " LEFT JOIN messages r ON r.message_id = g.reply_to"
    " WHERE g.conversation_id = $1 AND g.change > $2 AND g.change <= $3"
    " AND g.message_type <> 'system' AND g.deleted_at IS NULL"
    " AND (g.metadata IS NOT NULL OR g.reply_to IS NOT NULL OR g.change IN (SELECT MAX(o.change)"
    " FROM messages o WHERE o.conversation_id = $1 AND o.change > $2 AND o.change <= $3"
    " AND o.message_type <> 'system' AND o.deleted_at IS NULL GROUP BY o.sender_id))"
    " ORDER BY g.change"
)
_HAPPENED = (
    "SELECT h.change, h.kind, h.ref, h.seq, h.actor_id, h.data, g.sender_id,"
    " EXISTS (SELECT 1 FROM reactions r WHERE r.user_id = h.actor_id AND r.message_id = h.ref) FROM changes h"
    " LEFT JOIN messages g ON g.message_id = h.ref AND g.deleted_at IS NULL"
    " WHERE h.conversation_id = $1 AND h.change > $2 AND h.change <= $3"
    " AND h.kind IN ('reaction', 'message_deleted', 'user_joined', 'user_left',"
    " 'conversation_updated', 'conversation_deleted', 'message_edited')"
    " AND (h.kind <> 'message_edited' OR h.data IS NOT NULL)"  # most name nobody
    " ORDER BY h.change"
)
_READER = (
    "UPDATE members SET last_read_seq = last_read_seq WHERE conversation_id = $1 AND user_id = $2"
    " RETURNING visible_from_seq, last_read_seq, muted_until, notify"
)


async def position(tx: Tx, conversation: ConversationId) -> int | None:
    """How far it has been looked through; held by this transaction. None: it never was."""
    row = await tx.one(_POSITION, conversation)
    return int(row[0]) if row else None


async def set_out(tx: Tx, conversation: ConversationId, change: int) -> int:
    """The same for one that had none: from `change` on, unless somebody else was first."""
    row = await tx.one(_SET_OUT, conversation, change)
    assert row is not None
    return int(row[0])


async def move(tx: Tx, conversation: ConversationId, change: int) -> None:
    await tx.run(_MOVE, conversation, change)


async def behind(tx: Tx, since_us: int, limit: int) -> list[ConversationId]:
    """Conversations touched since in which something has not been looked at, the longest ago first."""
    return [row[0] for row in await tx.all(_BEHIND, since_us, limit)]


async def said(tx: Tx, conversation: ConversationId, after: int, until: int) -> list[Said]:
    """Of the messages with after < change ≤ until those that may call somebody, and the last of each sender:
    it takes the place of the others."""
    return [Said._make(row) for row in await tx.all(_SAID, conversation, after, until)]


async def happened(tx: Tx, conversation: ConversationId, after: int, until: int) -> list[Happened]:
    """What else happened there, as far as it matters here; edits that name somebody anew among it."""
    rows = await tx.all(_HAPPENED, conversation, after, until)
    return [Happened._make((*row[:7], bool(row[7]))) for row in rows]


async def reader(tx: Tx, conversation: ConversationId, user: UserId) -> Reader | None:
    """A member, whose read mark stands still until this transaction ends. None: they are none."""
    row = await tx.one(_READER, conversation, user)
    return Reader._make(row) if row else None


_LISTENER = (
    "SELECT visible_from_seq, last_read_seq, muted_until, notify FROM members"
    " WHERE conversation_id = $1 AND user_id = $2"
)


async def listener(tx: Tx, conversation: ConversationId, user: UserId) -> Reader | None:
    """As `reader`, for what has nothing to do with how far they have read."""
    row = await tx.one(_LISTENER, conversation, user)
    return Reader._make(row) if row else None


_IS_TOLD = "SELECT 1 FROM notifications WHERE conversation_id = $1 AND user_id = $2 AND ref = $3 LIMIT 1"


async def is_told(tx: Tx, conversation: ConversationId, user: UserId, ref: str) -> bool:
    """Whether they have a notification about it, read or not."""
    return await tx.one(_IS_TOLD, conversation, user, ref) is not None


# making and taking away

_ADD = f"INSERT INTO notifications ({_NOTIFICATION}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"  # noqa: S608
_REPLACE = (
    "DELETE FROM notifications WHERE conversation_id = $1 AND user_id = $2 AND kind = $3 AND read_at IS NULL"
)
_REPLACE_ABOUT = f"{_REPLACE} AND ref = $4"
_TRIM = (
    "DELETE FROM notifications WHERE user_id = $1 AND notification_id <= (SELECT notification_id"
    " FROM notifications WHERE user_id = $1 ORDER BY notification_id DESC LIMIT 1 OFFSET $2)"
)
_DROP_ABOUT = "DELETE FROM notifications WHERE conversation_id = $1 AND ref = $2"
_DROP_REACTION = f"{_DROP_ABOUT} AND actor_id = $3 AND kind = 'reaction'"
_DROP_LEFT = "DELETE FROM notifications WHERE conversation_id = $1 AND user_id = $2"
_DROP_ALL = "DELETE FROM notifications WHERE conversation_id = $1"
_DROP_BEFORE = "DELETE FROM notifications WHERE conversation_id = $1 AND seq < $2"
_FORGET = (
    "DELETE FROM notifications WHERE user_id = $1",
    "DELETE FROM notification_preferences WHERE user_id = $1",
)


async def add(tx: Tx, new: Notification, kept: int) -> None:
    """A message takes the place of what is unread of its conversation, anything else of the same about the
    same.  kept: how many a person has at most; the oldest go."""
    if new.kind == "message":
        await tx.run(_REPLACE, new.conversation_id, new.user_id, new.kind)
    else:
        await tx.run(_REPLACE_ABOUT, new.conversation_id, new.user_id, new.kind, new.ref)
    await tx.run(_ADD, *new)
    await tx.run(_TRIM, new.user_id, kept)


async def drop_about(tx: Tx, conversation: ConversationId, ref: str) -> None:
    """Of a message that is deleted."""
    await tx.run(_DROP_ABOUT, conversation, ref)


async def drop_reaction(tx: Tx, conversation: ConversationId, ref: str, actor: UserId) -> None:
    """Of one that is taken back."""
    await tx.run(_DROP_REACTION, conversation, ref, actor)


async def drop_left(tx: Tx, conversation: ConversationId, user: UserId) -> None:
    """Of a conversation they are no longer in."""
    await tx.run(_DROP_LEFT, conversation, user)


async def drop_all(tx: Tx, conversation: ConversationId) -> None:
    """Of one that is deleted."""
    await tx.run(_DROP_ALL, conversation)


async def drop_before(tx: Tx, conversation: ConversationId, seq: int) -> None:
    """Those that go with the messages before `seq`."""
    await tx.run(_DROP_BEFORE, conversation, seq)


async def forget(tx: Tx, user: UserId) -> None:
    for statement in _FORGET:
        await tx.run(statement, user)


# seeing and reading

_LIST = (
    f"SELECT {_NOTIFICATION} FROM notifications WHERE user_id = $1 AND notification_id < $2"  # noqa: S608
    " ORDER BY notification_id DESC LIMIT $3"
)
_LIST_UNREAD = (
    f"SELECT {_NOTIFICATION} FROM notifications WHERE user_id = $1 AND notification_id < $2"  # noqa: S608
    " AND read_at IS NULL ORDER BY notification_id DESC LIMIT $3"
)
_GET = f"SELECT {_NOTIFICATION} FROM notifications WHERE notification_id = $1 AND user_id = $2"  # noqa: S608
_COUNT_UNREAD = "SELECT COUNT(*) FROM notifications WHERE user_id = $1 AND read_at IS NULL"
_READ = (
    "UPDATE notifications SET read_at = $3 WHERE notification_id = $1 AND user_id = $2 AND read_at IS NULL"
)
_READ_ALL = (
    "UPDATE notifications SET read_at = $3 WHERE user_id = $1 AND notification_id <= $2 AND read_at IS NULL"
)
_READ_UP_TO = (
    "UPDATE notifications SET read_at = $4"
    " WHERE conversation_id = $1 AND user_id = $2 AND seq <= $3 AND read_at IS NULL AND kind <> 'reaction'"
)


async def page(
    tx: Tx, user: UserId, before: NotificationId, limit: int, *, only_unread: bool
) -> list[Notification]:
    """The newest first."""
    rows = await tx.all(_LIST_UNREAD if only_unread else _LIST, user, before, limit)
    return [Notification._make(row) for row in rows]


async def get(tx: Tx, user: UserId, notification: NotificationId) -> Notification | None:
    row = await tx.one(_GET, notification, user)
    return Notification._make(row) if row else None


async def count_unread(tx: Tx, user: UserId) -> int:
    row = await tx.one(_COUNT_UNREAD, user)
    return int(row[0]) if row else 0


async def read(tx: Tx, user: UserId, notification: NotificationId, now_us: int) -> bool:
    """False when it was read before."""
    return await tx.run(_READ, notification, user, now_us) > 0


async def read_all(tx: Tx, user: UserId, up_to: NotificationId, now_us: int) -> int:
    """How many that were."""
    return await tx.run(_READ_ALL, user, up_to, now_us)


async def read_up_to(tx: Tx, conversation: ConversationId, user: UserId, seq: int, now_us: int) -> None:
    """They have read that far of the conversation itself; how people react to that they may not have seen."""
    await tx.run(_READ_UP_TO, conversation, user, seq, now_us)


# announcements

_NOTE = "INSERT INTO announced (announcement_id, made_by, told_up_to) VALUES ($1, $2, $3)"
_NEXT = (
    "UPDATE announced SET told_up_to = told_up_to WHERE announcement_id ="
    " (SELECT announcement_id FROM announced ORDER BY announcement_id LIMIT 1)"
    " RETURNING announcement_id, made_by, told_up_to"
)
_PEOPLE = "SELECT user_id FROM users WHERE user_id > $1 AND erased_at IS NULL ORDER BY user_id LIMIT $2"
_ANNOUNCE_ON = "UPDATE announced SET told_up_to = $2 WHERE announcement_id = $1"
_ALL_ANNOUNCED = "DELETE FROM announced WHERE announcement_id = $1"


async def note_announcement(tx: Tx, announcement_id: str, made_by: UserId) -> None:
    await tx.run(_NOTE, announcement_id, made_by, NO_ID)


async def next_announced(tx: Tx) -> Announced | None:
    """The oldest that not everybody is told of; held by this transaction."""
    row = await tx.one(_NEXT)
    return Announced._make(row) if row else None


async def people_after(tx: Tx, user: UserId, limit: int) -> list[UserId]:
    """By id."""
    return [row[0] for row in await tx.all(_PEOPLE, user, limit)]


async def announce_on(tx: Tx, announcement_id: str, told_up_to: UserId) -> None:
    await tx.run(_ANNOUNCE_ON, announcement_id, told_up_to)


async def all_announced(tx: Tx, announcement_id: str) -> None:
    await tx.run(_ALL_ANNOUNCED, announcement_id)


# what people want

_GET_CHOSEN = "SELECT chosen FROM notification_preferences WHERE user_id = $1"
_CHOOSE = (
    "INSERT INTO notification_preferences (user_id, chosen, updated_at) VALUES ($1, $2, $3)"
    " ON CONFLICT (user_id) DO UPDATE SET chosen = excluded.chosen, updated_at = excluded.updated_at"
)


async def chosen(tx: Tx, user: UserId) -> str | None:
    """A JSON object."""
    row = await tx.one(_GET_CHOSEN, user)
    return str(row[0]) if row else None


async def choose(tx: Tx, user: UserId, chosen: str, now_us: int) -> None:
    await tx.run(_CHOOSE, user, chosen, now_us)


# and of one conversation

_NOTIFY = "SELECT notify FROM members WHERE conversation_id = $1 AND user_id = $2"
_SET_NOTIFY = (
    "UPDATE members SET notify = $3 WHERE conversation_id = $1 AND user_id = $2 RETURNING conversation_id"
)
_ALL_NOTIFY = (
    "SELECT conversation_id, notify FROM members"
    " WHERE user_id = $1 AND conversation_id > $2 AND notify IS NOT NULL ORDER BY conversation_id LIMIT $3"
)


class Choice(NamedTuple):
    """What a member is told of a conversation; None: nothing was chosen."""

    conversation_id: ConversationId
    notify: Notify | None


async def notify(tx: Tx, conversation: ConversationId, user: UserId) -> Choice | None:
    """None: they are no member."""
    row = await tx.one(_NOTIFY, conversation, user)
    return Choice(conversation, row[0]) if row else None


async def set_notify(tx: Tx, conversation: ConversationId, user: UserId, notify: Notify | None) -> bool:
    """False: they are no member."""
    return await tx.one(_SET_NOTIFY, conversation, user, notify) is not None


async def choices(tx: Tx, user: UserId, after: ConversationId, limit: int) -> list[Choice]:
    """Where they chose something, by conversation, after that one."""
    return [Choice._make(row) for row in await tx.all(_ALL_NOTIFY, user, after, limit)]
