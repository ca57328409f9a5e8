"""The chat room's SQL: conversations and their members, and the rows of the room.

Messages being appended have SQL of their own, in `append.py`; reading them for history, in `archive.py`; the
log of what happened, in `changes.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from ..clock import HOUR_US
from ..deps.contracts import Row, Tx
from ..identity import ConversationId, MessageId, UserId

ConversationType = Literal["direct", "group"]
MemberRole = Literal["owner", "admin", "member"]


class Conversation(NamedTuple):
    """message_retention_days: 0 keeps for as long as the server does.  disappear_after_s: 0 keeps, too."""

    conversation_id: ConversationId
    type: ConversationType
    title: str | None
    avatar_url: str | None
    created_by: UserId
    created_us: int
    updated_us: int
    last_seq: int
    last_change: int
    touched_us: int
    first_seq: int
    min_change: int
    is_e2ee_enabled: bool
    recording_enabled: bool
    message_retention_days: int
    history_visible: bool
    disappear_after_s: int = 0


FOREVER_US = 253_402_300_799_000_000  # the last second of the calendar


class Member(NamedTuple):
    """visible_from_seq: messages before it are not theirs to see, and visible_from_change: nor is what else
    happened before that; both are 0 where nothing is hidden.  muted_until_us: FOREVER_US without an end."""

    user_id: UserId
    role: MemberRole
    joined_us: int
    visible_from_seq: int
    last_read_seq: int
    muted_until_us: int | None = None
    visible_from_change: int = 0


class Counts(NamedTuple):
    """moderators: members who are owners or admins."""

    members: int
    moderators: int
    owners: int


class Seat(NamedTuple):
    """A conversation as one of its members stands in it."""

    conversation: Conversation
    member: Member


class Person(NamedTuple):
    user_id: UserId
    username: str
    display_name: str
    avatar_url: str | None


class Participant(NamedTuple):
    """As one viewer sees them.  is_apart: one of the two has blocked the other.  member: its last_read_seq is
    0 where they do not tell others, and what they have muted is not told."""

    person: Person
    member: Member
    is_apart: bool = False


class Reacted(NamedTuple):
    """mine: whether the viewer is among them; None where it is told to more than one."""

    emoji: str
    people: int
    mine: bool | None = None


def in_order(reactions: Iterable[Reacted]) -> tuple[Reacted, ...]:
    """As they are told: what most people say first."""
    return tuple(sorted(reactions, key=lambda each: (-each.people, each.emoji)))


class Message(NamedTuple):
    """file_ids: a JSON list.  metadata: a JSON object, or None.  expires_us: when it disappears.
    reactions: empty unless somebody has looked (`reactions.store`); their number is always known."""

    message_id: MessageId
    conversation_id: ConversationId
    seq: int
    change: int
    sender_id: UserId
    client_message_id: str
    message_type: str
    content: str
    is_encrypted: bool
    reply_to: MessageId | None
    file_ids: str
    metadata: str | None
    sent_us: int
    edited_us: int | None
    deleted_us: int | None
    expires_us: int | None = None
    reaction_count: int = 0
    reactions: tuple[Reacted, ...] = ()


def tombstone(message: Message, deleted_us: int) -> Message:
    """What its deletion leaves: that there was one."""
    return message._replace(
        content="", metadata=None, file_ids="[]", deleted_us=deleted_us, reaction_count=0, reactions=()
    )


def as_shown(message: Message, now_us: int) -> Message:
    """Past its end a message is shown as its deletion will leave it."""
    end_us = message.expires_us
    if end_us is None or end_us > now_us or message.deleted_us is not None:
        return message
    return tombstone(message, end_us)


class Page(NamedTuple):
    """Messages in a row.  change: of their conversation, when it was just so."""

    messages: list[Message]
    change: int


class Head(NamedTuple):
    """How far a conversation is, and since when."""

    conversation_id: ConversationId
    change: int
    touched_us: int


class Standing(NamedTuple):
    """How somebody stands in a conversation of theirs: of both what resuming needs, and nothing else, for it
    reads all of them.  visible_from_seq, visible_from_change, muted_until_us: as in `Member`."""

    conversation_id: ConversationId
    last_seq: int
    last_change: int
    touched_us: int
    first_seq: int
    min_change: int
    visible_from_seq: int
    visible_from_change: int
    last_read_seq: int
    muted_until_us: int | None
    unread_count: int
    unread_mentions: int


class Place(NamedTuple):
    """Of a conversation in somebody's list, which goes from the greatest down.  hour: as it stands beside the
    member; what was last said then says the rest."""

    hour: int
    active_us: int
    conversation_id: ConversationId


class Summary(NamedTuple):
    """A line of somebody's list of conversations."""

    seat: Seat
    unread_count: int
    unread_mentions: int
    last_message: Message | None
    active_hour: int

    @property
    def place(self) -> Place:
        conversation, last = self.seat.conversation, self.last_message
        active_us = last.sent_us if last else conversation.created_us
        return Place(self.active_hour, active_us, conversation.conversation_id)


CONVERSATION = (
    "c.conversation_id, c.type, c.title, c.avatar_url, c.created_by, c.created_at, c.updated_at, c.last_seq,"
    " c.last_change, c.touched_at, c.first_seq, c.min_change, c.is_e2ee_enabled, c.recording_enabled,"
    " c.message_retention_days, c.history_visible, c.disappear_after_s"
)
MEMBER = (
    "m.user_id, m.role, m.joined_at, m.visible_from_seq, m.last_read_seq, m.muted_until,"
    " m.visible_from_change"
)
MESSAGE = (
    "g.message_id, g.conversation_id, g.seq, g.change, g.sender_id, g.client_message_id, g.message_type,"
    " g.content, g.is_encrypted, g.reply_to, g.file_ids, g.metadata, g.sent_at, g.edited_at, g.deleted_at,"
    " g.expires_at, g.reaction_count"
)
PERSON = "u.user_id, u.username, u.display_name, u.avatar_url"
_C = len(Conversation._fields)
_M = len(Member._fields)
_P = len(Person._fields)

NO_ID = "00000000-0000-0000-0000-000000000000"  # before every other
LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"  # after every other

TOP = Place(2**62 // HOUR_US, 2**62, ConversationId(LAST_ID))  # above every other

PAGE = 100  # conversations listed at once, at most
BLOCK = 128  # messages tallied together

# Of a member `m` of a conversation `c`: what they have read, and what was never theirs, ends with `seen`.
# Whole blocks, which `tallies` has counted, lie between `low` and `high`; what is around them is counted.
_SEEN = "CASE WHEN m.last_read_seq >= m.visible_from_seq THEN m.last_read_seq ELSE m.visible_from_seq - 1 END"
_UNREAD_FROM = f"CASE WHEN {_SEEN} >= c.first_seq THEN {_SEEN} ELSE c.first_seq - 1 END"
_OTHERS = (
    "(SELECT COUNT(*) FROM messages n WHERE n.conversation_id = m.conversation_id"
    " AND n.sender_id <> m.user_id AND n.message_type <> 'system'"
)
UNREAD = (
    f"(SELECT {_OTHERS} AND n.deleted_at IS NULL AND n.seq > k.seen AND n.seq <= k.low)"  # noqa: S608
    f" + {_OTHERS} AND n.deleted_at IS NULL AND n.seq > k.high)"
    f" - {_OTHERS} AND n.deleted_at IS NOT NULL AND n.seq > k.low AND n.seq <= k.high)"
    " + (SELECT CAST(COALESCE(SUM(CASE WHEN t.sender_id = m.user_id THEN -t.messages ELSE t.messages END), 0)"
    " AS bigint) FROM message_tallies t WHERE t.conversation_id = m.conversation_id"
    f" AND t.sender_id IN ('{NO_ID}', m.user_id) AND t.seq > k.low AND t.seq <= k.high)"
    " FROM (SELECT j.seen, j.low, CASE WHEN j.low < c.tallied_seq THEN c.tallied_seq ELSE j.low END AS high"
    f" FROM (SELECT {_SEEN} AS seen, ({_UNREAD_FROM} + {BLOCK - 1}) / {BLOCK} * {BLOCK} AS low) j) k)"
)
UNREAD_MENTIONS = (
    "(SELECT COUNT(*) FROM mentions n WHERE n.user_id = m.user_id AND n.conversation_id = m.conversation_id"
    " AND n.seq > m.last_read_seq AND n.seq >= m.visible_from_seq)"
)


def conversation_of(row: Row) -> Conversation:
    return Conversation._make((*row[:12], bool(row[12]), bool(row[13]), row[14], bool(row[15]), row[16]))


def message_of(row: Row, now_us: int) -> Message:
    """As it is to be shown now."""
    # `_make`, but for a call and a look at the length: pages have many of them
    message = tuple.__new__(Message, (*row[:8], bool(row[8]), *row[9:17], ()))
    return message if row[15] is None else as_shown(message, now_us)


def seat_of(row: Row) -> Seat:
    return Seat(conversation_of(row), Member._make(row[_C : _C + _M]))


# The head, and a person's seat


_IS_SENT = "SELECT 1 FROM messages WHERE sender_id = $1 AND client_message_id = $2"
_LOCK = "UPDATE conversations SET last_change = last_change WHERE conversation_id = $1"
_GET = f"SELECT {CONVERSATION} FROM conversations c WHERE c.conversation_id = $1"  # noqa: S608
_SEAT = (
    f"SELECT {CONVERSATION}, {MEMBER} FROM conversations c"  # noqa: S608
    " JOIN members m ON m.conversation_id = c.conversation_id WHERE c.conversation_id = $1 AND m.user_id = $2"
)


async def is_sent(tx: Tx, sender: UserId, client_message_id: str) -> bool:
    """Whether they have a message of that name."""
    return await tx.one(_IS_SENT, sender, client_message_id) is not None


async def lock(tx: Tx, conversation: ConversationId) -> None:
    """Hold the conversation's row until the transaction ends: what is read after this stays true."""
    await tx.run(_LOCK, conversation)


async def get(tx: Tx, conversation: ConversationId) -> Conversation | None:
    row = await tx.one(_GET, conversation)
    return conversation_of(row) if row else None


async def seat(tx: Tx, conversation: ConversationId, user: UserId) -> Seat | None:
    row = await tx.one(_SEAT, conversation, user)
    return seat_of(row) if row else None


# Making and changing conversations


_CREATE = (
    "INSERT INTO conversations (conversation_id, type, title, avatar_url, created_by, created_at, updated_at,"
    " last_seq, last_change, touched_at, first_seq, min_change, is_e2ee_enabled, recording_enabled,"
    " message_retention_days, history_visible, disappear_after_s, direct_key, active_hour)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)"
    " ON CONFLICT (direct_key) DO NOTHING RETURNING conversation_id"
)
_BY_DIRECT_KEY = f"SELECT {CONVERSATION} FROM conversations c WHERE c.direct_key = $1"  # noqa: S608
_DESCRIBE = (
    "UPDATE conversations SET title = $2, avatar_url = $3, updated_at = $4, is_e2ee_enabled = $5,"
    " recording_enabled = $6, message_retention_days = $7, history_visible = $8, disappear_after_s = $9"
    " WHERE conversation_id = $1"
)


async def create(tx: Tx, new: Conversation, direct_key: str | None) -> bool:
    """False when there is a conversation with this direct key."""
    return await tx.one(_CREATE, *new, direct_key, new.created_us // HOUR_US) is not None


async def by_direct_key(tx: Tx, direct_key: str) -> Conversation | None:
    row = await tx.one(_BY_DIRECT_KEY, direct_key)
    return conversation_of(row) if row else None


async def describe(tx: Tx, as_of: Conversation) -> None:
    """Write what people can change of a conversation."""
    await tx.run(
        _DESCRIBE,
        as_of.conversation_id,
        as_of.title,
        as_of.avatar_url,
        as_of.updated_us,
        as_of.is_e2ee_enabled,
        as_of.recording_enabled,
        as_of.message_retention_days,
        as_of.history_visible,
        as_of.disappear_after_s,
    )


# Members


_PEOPLE = f"SELECT {PERSON} FROM users u WHERE u.user_id = $1"  # noqa: S608
_APART = (
    "SELECT EXISTS (SELECT 1 FROM blocks WHERE (user_id = $1 AND blocked_id = $2)"
    " OR (user_id = $2 AND blocked_id = $1)) FROM users WHERE user_id = $2 AND erased_at IS NULL"
)
_UNCLEAR = (
    "SELECT 1 FROM blocks WHERE (user_id = $1 AND blocked_id = $2) OR (user_id = $2 AND blocked_id = $1)"
    " UNION ALL SELECT 1 FROM users WHERE user_id IN ($1, $2) AND erased_at IS NOT NULL LIMIT 1"
)
_PARTED = (
    "SELECT 1 FROM conversations c JOIN members other ON other.conversation_id = c.conversation_id"
    " AND other.user_id <> $2 JOIN blocks b ON (b.user_id = $2 AND b.blocked_id = other.user_id)"
    " OR (b.user_id = other.user_id AND b.blocked_id = $2)"
    " WHERE c.conversation_id = $1 AND c.type = 'direct'"
)
_JOIN = (
    "INSERT INTO members (conversation_id, user_id, role, joined_at, visible_from_seq, last_read_seq,"
    " visible_from_change, active_hour) VALUES ($1, $2, $3, $4, $5, $6, $7,"
    " COALESCE((SELECT active_hour FROM conversations WHERE conversation_id = $1), 0))"
)
_JOINED = 5  # fields of a member that come first
_LEAVE = "DELETE FROM members WHERE conversation_id = $1 AND user_id = $2"
_SET_ROLE = "UPDATE members SET role = $3 WHERE conversation_id = $1 AND user_id = $2"
_COUNT = (
    "SELECT COUNT(*), COALESCE(SUM(CASE WHEN role = 'member' THEN 0 ELSE 1 END), 0),"
    " COALESCE(SUM(CASE WHEN role = 'owner' THEN 1 ELSE 0 END), 0) FROM members WHERE conversation_id = $1"
)
_SEEN_BY = (  # members of $1, as $2 sees them
    f"SELECT {PERSON}, m.user_id, m.role, m.joined_at, m.visible_from_seq,"  # noqa: S608
    f" CASE WHEN m.user_id = $2 OR (u.sends_read_receipts AND NOT EXISTS ({_PARTED}))"
    " THEN m.last_read_seq ELSE 0 END, NULL, m.visible_from_change,"
    " EXISTS (SELECT 1 FROM blocks b WHERE (b.user_id = $2 AND b.blocked_id = m.user_id)"
    " OR (b.user_id = m.user_id AND b.blocked_id = $2))"
    " FROM members m JOIN users u ON u.user_id = m.user_id WHERE m.conversation_id = $1"
)
_PARTICIPANT = f"{_SEEN_BY} AND m.user_id = $3"
_PARTICIPANTS = f"{_SEEN_BY} AND m.user_id > $3 ORDER BY m.user_id LIMIT $4"
_GROUPS = (
    "SELECT m.conversation_id FROM members m JOIN conversations c ON c.conversation_id = m.conversation_id"
    " WHERE m.user_id = $1 AND c.type = 'group' LIMIT $2"
)
_DESERTED = (
    "SELECT m.conversation_id FROM members m JOIN conversations c ON c.conversation_id = m.conversation_id"
    " WHERE m.user_id = $1 AND c.type = 'direct' AND NOT EXISTS (SELECT 1 FROM members o"
    " JOIN users u ON u.user_id = o.user_id WHERE o.conversation_id = m.conversation_id"
    " AND u.erased_at IS NULL) LIMIT $2"
)
_HEIR = (
    f"SELECT {PERSON}, {MEMBER} FROM members m JOIN users u ON u.user_id = m.user_id"  # noqa: S608
    " WHERE m.conversation_id = $1 AND m.user_id <> $2 AND u.erased_at IS NULL"
    " ORDER BY CASE m.role WHEN 'owner' THEN 0 WHEN 'admin' THEN 1 ELSE 2 END, m.joined_at, m.user_id LIMIT 1"
)
_SENDS_RECEIPTS = f"SELECT 1 FROM users WHERE user_id = $2 AND sends_read_receipts AND NOT EXISTS ({_PARTED})"  # noqa: S608
_VIEWERS = "SELECT user_id, visible_from_seq FROM members WHERE conversation_id = $1"
_MARK_READ = (
    "UPDATE members SET last_read_seq = $3 WHERE conversation_id = $1 AND user_id = $2 AND last_read_seq < $3"
)
_MUTE = "UPDATE members SET muted_until = $3 WHERE conversation_id = $1 AND user_id = $2"


async def person(tx: Tx, user: UserId) -> Person | None:
    row = await tx.one(_PEOPLE, user)
    return Person._make(row) if row else None


async def are_apart(tx: Tx, one: UserId, other: UserId) -> bool | None:
    """Whether either has blocked the other. None: the other has no account, or none any more."""
    row = await tx.one(_APART, one, other)
    return bool(row[0]) if row else None


async def are_clear(tx: Tx, one: UserId, other: UserId) -> bool:
    """Whether the two may write to each other: neither has blocked the other, and neither is erased."""
    return await tx.one(_UNCLEAR, one, other) is None


async def is_parted(tx: Tx, conversation: ConversationId, user: UserId) -> bool:
    """Whether `user` shares it with one person alone, and either of the two has blocked the other."""
    return await tx.one(_PARTED, conversation, user) is not None


async def join(tx: Tx, conversation: ConversationId, members: Iterable[Member]) -> None:
    await tx.many(_JOIN, [(conversation, *each[:_JOINED], each.visible_from_change) for each in members])


async def leave(tx: Tx, conversation: ConversationId, user: UserId) -> None:
    await tx.run(_LEAVE, conversation, user)


async def set_role(tx: Tx, conversation: ConversationId, user: UserId, role: MemberRole) -> None:
    await tx.run(_SET_ROLE, conversation, user, role)


async def count_members(tx: Tx, conversation: ConversationId) -> Counts:
    row = await tx.one(_COUNT, conversation)
    assert row is not None
    return Counts(*map(int, row))


async def participants(
    tx: Tx, conversation: ConversationId, viewer: UserId, after: str = NO_ID, limit: int = 100_000
) -> list[Participant]:
    """As `viewer` sees them."""
    return [_participant(row) for row in await tx.all(_PARTICIPANTS, conversation, viewer, after, limit)]


async def participant(
    tx: Tx, conversation: ConversationId, viewer: UserId, user: UserId
) -> Participant | None:
    """As `viewer` sees them. None: they are no member."""
    row = await tx.one(_PARTICIPANT, conversation, viewer, user)
    return _participant(row) if row else None


def _participant(row: Row) -> Participant:
    return Participant(Person._make(row[:_P]), Member._make(row[_P : _P + _M]), bool(row[_P + _M]))


async def groups_of(tx: Tx, user: UserId, limit: int) -> list[ConversationId]:
    """Some of the groups that `user` is in."""
    return [row[0] for row in await tx.all(_GROUPS, user, limit)]


async def deserted(tx: Tx, user: UserId, limit: int) -> list[ConversationId]:
    """Some of the direct conversations of `user` in which everybody is erased."""
    return [row[0] for row in await tx.all(_DESERTED, user, limit)]


async def heir(tx: Tx, conversation: ConversationId, user: UserId) -> Participant | None:
    """Who is to look after a group when `user` goes: of the highest role, who has been there longest."""
    row = await tx.one(_HEIR, conversation, user)
    return Participant(Person._make(row[:_P]), Member._make(row[_P : _P + _M])) if row else None


async def viewers(tx: Tx, conversation: ConversationId) -> dict[UserId, int]:
    """User → visible_from_seq."""
    return {row[0]: row[1] for row in await tx.all(_VIEWERS, conversation)}


async def mark_read(tx: Tx, conversation: ConversationId, user: UserId, seq: int) -> bool:
    """False when they had read as far."""
    return await tx.run(_MARK_READ, conversation, user, seq) > 0


async def mute(tx: Tx, conversation: ConversationId, user: UserId, until_us: int | None) -> None:
    await tx.run(_MUTE, conversation, user, until_us)


async def sends_receipts(tx: Tx, conversation: ConversationId, user: UserId) -> bool:
    """Whether others there are told how far `user` has read."""
    return await tx.one(_SENDS_RECEIPTS, conversation, user) is not None


# Somebody's conversations


_ACTIVE_AT = "COALESCE(g.sent_at, c.created_at)"
_LAST = (
    " JOIN conversations c ON c.conversation_id = m.conversation_id"
    " LEFT JOIN messages g ON g.conversation_id = c.conversation_id AND g.seq = c.last_seq"
    " AND g.seq >= m.visible_from_seq"
)
_LINE = f"{CONVERSATION}, {MEMBER}, {UNREAD}, {UNREAD_MENTIONS}, m.active_hour, {MESSAGE}"
_IN_ORDER = "m.active_hour DESC, m.active_at DESC, m.conversation_id DESC"
_LIST = (  # only those on the page are counted
    # A constant bounds the page first: of a parameter Postgres expects a tenth of all there are, and reads
    # whole tables for so many.
    f"SELECT {_LINE} FROM (SELECT m.* FROM (SELECT m.*, {_ACTIVE_AT} AS active_at FROM members m{_LAST}"  # noqa: S608
    " WHERE m.user_id = $1 AND m.active_hour <= $2 AND (m.active_hour < $2"
    f" OR {_ACTIVE_AT} < $3 OR ({_ACTIVE_AT} = $3 AND m.conversation_id < $4))"
    f" ORDER BY m.active_hour DESC, active_at DESC, m.conversation_id DESC LIMIT {PAGE}) m"
    f" ORDER BY {_IN_ORDER} LIMIT $5) m{_LAST} ORDER BY {_IN_ORDER}"
)
_ONE = f"SELECT {_LINE} FROM members m{_LAST} WHERE m.user_id = $1 AND m.conversation_id = $2"  # noqa: S608
_STANDINGS = (
    "SELECT c.conversation_id, c.last_seq, c.last_change, c.touched_at, c.first_seq, c.min_change,"  # noqa: S608
    " m.visible_from_seq, m.visible_from_change, m.last_read_seq, m.muted_until,"
    f" {UNREAD}, {UNREAD_MENTIONS} FROM members m"
    " JOIN conversations c ON c.conversation_id = m.conversation_id WHERE m.user_id = $1"
)
_ACTIVE = (
    "UPDATE conversations SET active_hour = $2 WHERE conversation_id = $1",
    "UPDATE members SET active_hour = $2 WHERE conversation_id = $1",
)
_HEADS_SINCE = (
    "SELECT conversation_id, last_change, touched_at FROM conversations"
    " WHERE (touched_at, conversation_id) > ($1, $2) ORDER BY touched_at, conversation_id LIMIT $3"
)


def _summary(row: Row, now_us: int) -> Summary:
    unread, mentions, hour = row[_C + _M : _C + _M + 3]
    last = row[_C + _M + 3 :]
    said = message_of(last, now_us) if last[0] is not None else None
    return Summary(seat_of(row), unread, mentions, said, hour)


async def list_for(tx: Tx, user: UserId, below: Place, limit: int, now_us: int) -> list[Summary]:
    """The latest active first, of those below that place."""
    return [_summary(row, now_us) for row in await tx.all(_LIST, user, *below, limit)]


async def activate(tx: Tx, hours: Sequence[tuple[ConversationId, int]]) -> None:
    """Something is being said there, for the first time in that hour. The conversations are locked."""
    for sql in _ACTIVE:
        await tx.many(sql, hours)


async def summary(tx: Tx, conversation: ConversationId, user: UserId, now_us: int) -> Summary | None:
    row = await tx.one(_ONE, user, conversation)
    return _summary(row, now_us) if row else None


async def standings(tx: Tx, user: UserId) -> list[Standing]:
    """Of all conversations of `user`."""
    return [Standing._make(row) for row in await tx.all(_STANDINGS, user)]


async def heads_since(tx: Tx, since_us: int, after: str, limit: int) -> list[Head]:
    """Those touched since, the longest ago first, from after (`since_us`, `after`) on."""
    return [Head._make(row) for row in await tx.all(_HEADS_SINCE, since_us, after, limit)]
