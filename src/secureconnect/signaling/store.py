"""The SQL of calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ..clock import SECOND_US
from ..deps.contracts import Tx
from ..identity import CallId, ConversationId, DeviceId, NodeId, PeerId, UserId

State = Literal["ringing", "active", "recovering", "ended", "missed", "declined", "busy", "failed"]
CallType = Literal["audio", "video"]
PersonState = Literal["ringing", "joined", "left", "declined", "missed", "busy"]
# ended: for everybody, by somebody.  left: nobody was left to talk to.  cancelled: by its caller, or whoever
# ends it for everybody, before an answer.  unanswered: for as long as it rings.  lost: the caller's device
# vanished.
EndReason = Literal["ended", "left", "cancelled", "unanswered", "declined", "busy", "lost"]
Flag = Literal["audio", "video", "screen"]

LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


class Person(NamedTuple):
    """Somebody who was called, or came.  device_id: on which they are, or were, in it."""

    user_id: UserId
    state: PersonState
    device_id: DeviceId | None = None
    joined_us: int | None = None
    left_us: int | None = None


class Called(NamedTuple):
    """A call.  ring_until_us: None once nobody rings.  people: by id."""

    call_id: CallId
    conversation_id: ConversationId
    caller_id: UserId
    call_type: CallType
    state: State
    topology: Literal["mesh"]
    epoch: int
    started_us: int
    ring_until_us: int | None
    answered_us: int | None = None
    ended_us: int | None = None
    ended_by: UserId | None = None
    people: tuple[Person, ...] = ()

    @property
    def is_over(self) -> bool:
        return self.ended_us is not None

    def person(self, user: UserId) -> Person | None:
        return next((each for each in self.people if each.user_id == user), None)

    @property
    def everybody(self) -> list[UserId]:
        return [each.user_id for each in self.people]

    @property
    def joined(self) -> list[UserId]:
        return [each.user_id for each in self.people if each.state == "joined"]

    @property
    def ringing(self) -> list[UserId]:
        return [each.user_id for each in self.people if each.state == "ringing"]

    @property
    def end_reason(self) -> EndReason | None:
        """None while it is under way."""
        match self.state:
            case "ended":
                return "left" if self.ended_by is None else "ended"
            case "missed":
                return "unanswered" if self.ended_by is None else "cancelled"
            case "declined" | "busy":
                return self.state
            case "failed":
                return "lost"
            case _:
                return None

    @property
    def duration_s(self) -> int:
        """Whole seconds from the answer to the end; 0 of one that nobody answered."""
        if self.answered_us is None or self.ended_us is None:
            return 0
        return max(0, (self.ended_us - self.answered_us) // SECOND_US)


class Seat(NamedTuple):
    """A member of a conversation.  is_apart: it is a direct one, and either has blocked the other.
    sees_past: what was there before they came, too."""

    role: Literal["owner", "admin", "member"]
    is_direct: bool
    is_apart: bool
    joined_us: int
    sees_past: bool


class Peer(NamedTuple):
    """A device in a call.  lost_us: since when it has no socket.  turn: how often it has come; what is known
    of an earlier turn says nothing of a later one."""

    peer_id: PeerId
    call_id: CallId
    user_id: UserId
    device_id: DeviceId
    instance_id: str
    node_id: NodeId
    life: str
    token_hash: bytes
    audio: bool
    video: bool
    screen: bool
    joined_us: int
    lost_us: int | None = None
    turn: int = 1

    def showing(self, flag: Flag, *, is_on: bool) -> Peer:
        match flag:
            case "audio":
                return self._replace(audio=is_on)
            case "video":
                return self._replace(video=is_on)
            case "screen":
                return self._replace(screen=is_on)


_CALL = (
    "c.call_id, c.conversation_id, c.caller_id, c.call_type, c.state, c.topology, c.epoch, c.started_at,"
    " c.ring_until, c.answered_at, c.ended_at, c.ended_by"
)
_PERSON = "user_id, state, device_id, joined_at, left_at"
_PEER = (
    "p.peer_id, p.call_id, p.user_id, p.device_id, p.instance_id, p.node_id, p.life, p.token_hash, p.audio,"
    " p.video, p.screen, p.joined_at, p.lost_at, p.turn"
)

# who may call whom

_SEAT = (
    "SELECT m.role, c.type, CASE WHEN c.type = 'direct' AND EXISTS (SELECT 1 FROM members other JOIN blocks b"
    " ON (b.user_id = $2 AND b.blocked_id = other.user_id)"
    " OR (b.user_id = other.user_id AND b.blocked_id = $2)"
    " WHERE other.conversation_id = $1 AND other.user_id <> $2) THEN 1 ELSE 0 END,"
    " m.joined_at, m.visible_from_seq FROM members m"
    " JOIN conversations c ON c.conversation_id = m.conversation_id"
    " WHERE m.conversation_id = $1 AND m.user_id = $2"
)
_OTHERS = (
    "SELECT m.user_id, CASE WHEN EXISTS (SELECT 1 FROM blocks b"
    " WHERE (b.user_id = $2 AND b.blocked_id = m.user_id)"
    " OR (b.user_id = m.user_id AND b.blocked_id = $2)) THEN 1 ELSE 0 END"
    " FROM members m JOIN users u ON u.user_id = m.user_id"
    " WHERE m.conversation_id = $1 AND m.user_id <> $2 AND u.erased_at IS NULL"
)
_SOME_OTHERS = f"{_OTHERS} ORDER BY m.user_id LIMIT $3"
_OTHER = f"{_OTHERS} AND m.user_id = $3"
_ENGAGED = (
    "SELECT c.call_id FROM call_people p JOIN calls c ON c.call_id = p.call_id"
    " WHERE p.user_id = $1 AND p.state = 'joined' AND c.ended_at IS NULL"
)


async def seat(tx: Tx, conversation: ConversationId, user: UserId) -> Seat | None:
    row = await tx.one(_SEAT, conversation, user)
    return None if row is None else Seat(row[0], row[1] == "direct", bool(row[2]), row[3], row[4] <= 1)


async def some_others(
    tx: Tx, conversation: ConversationId, user: UserId, limit: int
) -> list[tuple[UserId, bool]]:
    """Other members who have an account, and whether there is a block between each and `user`; by id."""
    return [(row[0], bool(row[1])) for row in await tx.all(_SOME_OTHERS, conversation, user, limit)]


async def is_blocked(tx: Tx, conversation: ConversationId, user: UserId, other: UserId) -> bool | None:
    """Whether there is a block between two members. None: the other is none, or has no account any more."""
    row = await tx.one(_OTHER, conversation, user, other)
    return None if row is None else bool(row[1])


async def engaged_in(tx: Tx, user: UserId) -> CallId | None:
    """The call they are in."""
    row = await tx.one(_ENGAGED, user)
    return None if row is None else row[0]


_IN_OR_RUNG = (
    "SELECT p.call_id FROM call_people p WHERE p.user_id = $1 AND p.state IN ('joined', 'ringing')"
    " ORDER BY p.call_id"
)
_FORGET_DEVICES = "UPDATE call_people SET device_id = NULL WHERE user_id = $1 AND device_id IS NOT NULL"


async def in_or_rung(tx: Tx, user: UserId) -> list[CallId]:
    """Calls they are in, and those that ring for them."""
    return [row[0] for row in await tx.all(_IN_OR_RUNG, user)]


async def forget_devices(tx: Tx, user: UserId) -> None:
    """On which of theirs they were in calls."""
    await tx.run(_FORGET_DEVICES, user)


_CALLED = (
    "SELECT c.conversation_id FROM call_people p JOIN calls c ON c.call_id = p.call_id"
    " WHERE p.call_id = $1 AND p.user_id = $2 AND p.state = 'ringing' AND c.ring_until > $3"
)


async def is_called(tx: Tx, user: UserId, call: CallId, now_us: int) -> ConversationId | None:
    """The conversation of a call that rings for them at that time; None: it does not."""
    row = await tx.one(_CALLED, call, user, now_us)
    return None if row is None else row[0]


# calls

_ADD = (
    "INSERT INTO calls (call_id, conversation_id, caller_id, call_type, state, topology, epoch, started_at,"
    " ring_until, answered_at, ended_at, ended_by)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING"
)
_UNDER_WAY = f"SELECT {_CALL} FROM calls c WHERE c.conversation_id = $1 AND c.ended_at IS NULL"  # noqa: S608
_GET = f"SELECT {_CALL} FROM calls c WHERE c.call_id = $1"  # noqa: S608
_LOCK = "UPDATE calls SET epoch = epoch WHERE call_id = $1 RETURNING 1"
_PEOPLE = f"SELECT {_PERSON} FROM call_people WHERE call_id = $1 ORDER BY user_id"  # noqa: S608
_SAVE = (
    "UPDATE calls SET state = $2, epoch = $3, ring_until = $4, answered_at = $5, ended_at = $6, ended_by = $7"
    " WHERE call_id = $1"
)
_SAVE_PERSON = (
    "INSERT INTO call_people (call_id, user_id, state, device_id, joined_at, left_at)"
    " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (call_id, user_id) DO UPDATE SET state = excluded.state,"
    " device_id = excluded.device_id, joined_at = excluded.joined_at, left_at = excluded.left_at"
)
_RUNG_OUT = "SELECT call_id FROM calls WHERE ring_until <= $1 ORDER BY ring_until LIMIT $2"
_MINE = (
    "SELECT c.call_id FROM call_people mine JOIN calls c ON c.call_id = mine.call_id"
    " JOIN members m ON m.conversation_id = c.conversation_id AND m.user_id = mine.user_id"
    " WHERE mine.user_id = $1 AND mine.call_id < $2 ORDER BY mine.call_id DESC LIMIT $3"
)
_RINGING = (
    "SELECT c.call_id FROM call_people mine JOIN calls c ON c.call_id = mine.call_id"
    " JOIN members m ON m.conversation_id = c.conversation_id AND m.user_id = mine.user_id"
    " WHERE mine.user_id = $1 AND mine.call_id < $2"
    " AND mine.state IN ('joined', 'ringing') AND mine.state = 'ringing'"  # as the index has it
    " ORDER BY mine.call_id DESC LIMIT $3"
)
_EVER = "SELECT call_id FROM call_people WHERE user_id = $1 AND call_id < $2 ORDER BY call_id DESC LIMIT $3"
# not what was over before they came, unless they see the past of the conversation
_OF = (
    "SELECT c.call_id FROM calls c JOIN members m ON m.conversation_id = c.conversation_id"
    " WHERE c.conversation_id = $1 AND c.call_id < $2 AND m.user_id = $4"
    " AND (c.ended_at IS NULL OR c.ended_at >= m.joined_at OR m.visible_from_seq <= 1)"
    " ORDER BY c.call_id DESC LIMIT $3"
)


def _whole_of(some: str) -> tuple[str, str]:
    """The calls that a question finds, the newest first, and their people."""
    return (
        f"SELECT {_CALL} FROM ({some}) s JOIN calls c ON c.call_id = s.call_id"  # noqa: S608
        " ORDER BY c.call_id DESC",
        "SELECT p.call_id, p.user_id, p.state, p.device_id, p.joined_at, p.left_at"  # noqa: S608
        f" FROM ({some}) s JOIN call_people p ON p.call_id = s.call_id ORDER BY p.call_id, p.user_id",
    )


_HISTORY, _HISTORY_PEOPLE = _whole_of(_MINE)
_RING, _RING_PEOPLE = _whole_of(_RINGING)
_ALL, _ALL_PEOPLE = _whole_of(_EVER)
_HISTORY_OF, _HISTORY_OF_PEOPLE = _whole_of(_OF)


async def add(tx: Tx, new: Called) -> bool:
    """False, and nothing is stored, while another call is under way in the conversation."""
    return await tx.run(_ADD, *new[:12]) == 1


async def under_way(tx: Tx, conversation: ConversationId) -> Called | None:
    row = await tx.one(_UNDER_WAY, conversation)
    return None if row is None else await _whole(tx, Called(*row))


async def get(tx: Tx, call: CallId) -> Called | None:
    row = await tx.one(_GET, call)
    return None if row is None else await _whole(tx, Called(*row))


async def lock(tx: Tx, call: CallId) -> Called | None:
    """As `get`; nobody else changes it, or its people or peers, before this transaction ends."""
    return await get(tx, call) if await tx.one(_LOCK, call) else None


async def _whole(tx: Tx, call: Called) -> Called:
    people = tuple(Person(*row) for row in await tx.all(_PEOPLE, call.call_id))
    return call._replace(people=people)


async def save(tx: Tx, call: Called) -> None:
    """How the call itself stands."""
    await tx.run(
        _SAVE,
        call.call_id,
        call.state,
        call.epoch,
        call.ring_until_us,
        call.answered_us,
        call.ended_us,
        call.ended_by,
    )


async def save_people(tx: Tx, call: CallId, people: Sequence[Person]) -> None:
    await tx.many(_SAVE_PERSON, [(call, *person) for person in people])


async def rung_out(tx: Tx, now_us: int, limit: int) -> list[CallId]:
    """Calls in which somebody has rung for long enough, the longest first."""
    return [row[0] for row in await tx.all(_RUNG_OUT, now_us, limit)]


async def history(tx: Tx, user: UserId, before: str, limit: int) -> list[Called]:
    """Of conversations they are in: calls they were called to, or came to; the newest first."""
    return await _some(tx, _HISTORY, _HISTORY_PEOPLE, user, before, limit)


async def ringing(tx: Tx, user: UserId, before: str, limit: int) -> list[Called]:
    """Of those the ones to which they are being called."""
    return await _some(tx, _RING, _RING_PEOPLE, user, before, limit)


async def ever(tx: Tx, user: UserId, before: str, limit: int) -> list[Called]:
    """As `history`, of conversations they have left, too."""
    return await _some(tx, _ALL, _ALL_PEOPLE, user, before, limit)


async def history_of(
    tx: Tx, conversation: ConversationId, before: str, limit: int, viewer: UserId
) -> list[Called]:
    """What a member may see of a conversation's."""
    return await _some(tx, _HISTORY_OF, _HISTORY_OF_PEOPLE, conversation, before, limit, viewer)


async def _some(tx: Tx, which: str, people: str, *asked: str | int) -> list[Called]:
    found: dict[str, list[Person]] = {}
    calls = [Called(*row) for row in await tx.all(which, *asked)]
    for call_id, *person in await tx.all(people, *asked):
        found.setdefault(call_id, []).append(Person(*person))
    return [each._replace(people=tuple(found.get(each.call_id, ()))) for each in calls]


# calls that are over

_UNWRITTEN, _UNWRITTEN_PEOPLE = _whole_of(
    "SELECT call_id FROM calls WHERE ended_at IS NOT NULL AND written_at IS NULL ORDER BY call_id LIMIT $1"
)
_WRITTEN = "UPDATE calls SET written_at = $2 WHERE call_id = $1"
_PAST_AFTER = (
    "SELECT c.call_id, CASE WHEN o.conversation_id IS NULL THEN 1 ELSE 0 END FROM calls c"
    " LEFT JOIN conversations o ON o.conversation_id = c.conversation_id"
    " WHERE c.call_id > $1 AND c.ended_at IS NOT NULL ORDER BY c.call_id LIMIT $2"
)
_DROP = (
    "DELETE FROM call_people WHERE call_id = $1",
    "DELETE FROM calls WHERE call_id = $1",
)


async def unwritten(tx: Tx, limit: int) -> list[Called]:
    """Those that their conversation does not tell of yet."""
    return await _some(tx, _UNWRITTEN, _UNWRITTEN_PEOPLE, limit)


async def written(tx: Tx, call: CallId, now_us: int) -> None:
    await tx.run(_WRITTEN, call, now_us)


async def past_after(tx: Tx, call: CallId, limit: int) -> list[tuple[CallId, bool]]:
    """Those after that one, by id, and whether their conversation is gone."""
    return [(row[0], bool(row[1])) for row in await tx.all(_PAST_AFTER, call, limit)]


async def drop(tx: Tx, call: CallId) -> None:
    for statement in _DROP:
        await tx.run(statement, call)


# peers

_PEERS = f"SELECT {_PEER} FROM call_peers p WHERE p.call_id = $1 ORDER BY p.peer_id"  # noqa: S608
_OF_NODE = (
    f"SELECT c.epoch, {_PEER} FROM call_peers p JOIN calls c ON c.call_id = p.call_id"  # noqa: S608
    " WHERE p.call_id IN (SELECT call_id FROM call_peers WHERE node_id = $1) ORDER BY p.peer_id"
)
_ADD_PEER = (
    "INSERT INTO call_peers (peer_id, call_id, user_id, device_id, instance_id, node_id, life, token_hash,"
    " audio, video, screen, joined_at, lost_at, turn)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
)
_SAVE_PEER = (
    "UPDATE call_peers SET instance_id = $2, node_id = $3, life = $4, token_hash = $5, audio = $6,"
    " video = $7, screen = $8, lost_at = $9, turn = $10 WHERE peer_id = $1 AND turn <= $10"
)
_DROP_PEERS_OF = "DELETE FROM call_peers WHERE call_id = $1 AND user_id = $2"
_DROP_PEERS = "DELETE FROM call_peers WHERE call_id = $1"


async def peers(tx: Tx, call: CallId) -> list[Peer]:
    return [_peer(row) for row in await tx.all(_PEERS, call)]


async def peers_of_node(tx: Tx, node: NodeId) -> dict[CallId, tuple[int, list[Peer]]]:
    """Of each call in which this node has devices, or had until just now: its epoch, and all devices."""
    found: dict[CallId, tuple[int, list[Peer]]] = {}
    for epoch, *row in await tx.all(_OF_NODE, node):
        peer = _peer(row)
        found.setdefault(peer.call_id, (epoch, []))[1].append(peer)
    return found


def _peer(row: Sequence[object]) -> Peer:
    peer = Peer(*row)  # type: ignore[arg-type]
    return peer._replace(
        token_hash=bytes(peer.token_hash),
        audio=bool(peer.audio),
        video=bool(peer.video),
        screen=bool(peer.screen),
    )


async def add_peer(tx: Tx, peer: Peer) -> None:
    """In the place of whatever device of theirs was in the call."""
    await tx.run(_DROP_PEERS_OF, peer.call_id, peer.user_id)
    await tx.run(_ADD_PEER, *peer)


async def save_peer(tx: Tx, peer: Peer) -> None:
    """As it is now, unless it has come anew since."""
    await tx.run(
        _SAVE_PEER,
        peer.peer_id,
        peer.instance_id,
        peer.node_id,
        peer.life,
        peer.token_hash,
        peer.audio,
        peer.video,
        peer.screen,
        peer.lost_us,
        peer.turn,
    )


async def drop_peer_of(tx: Tx, call: CallId, user: UserId) -> None:
    await tx.run(_DROP_PEERS_OF, call, user)


async def drop_peers(tx: Tx, call: CallId) -> None:
    await tx.run(_DROP_PEERS, call)


# what is out of order

_ORPHANED = (
    " FROM call_peers p LEFT JOIN nodes n ON n.node_id = p.node_id WHERE p.lost_at IS NULL AND"
    " ((p.node_id = $1 AND p.life <> $2) OR (p.node_id <> $1"
    " AND (n.node_id IS NULL OR n.renewed_at <= $3 OR n.lease_ends_at <= n.renewed_at)))"
)
_ORPHANS = f"SELECT p.peer_id {_ORPHANED} AND p.call_id = $4"
_WITH_ORPHANS = f"SELECT DISTINCT p.call_id {_ORPHANED} LIMIT $4"
_WITH_LOST = "SELECT DISTINCT call_id FROM call_peers WHERE lost_at <= $1 LIMIT $2"
_UNSEEN = (
    " FROM call_people p JOIN calls c ON c.call_id = p.call_id WHERE p.state = 'joined' AND p.joined_at <= $1"
    " AND c.answered_at <= $1 AND NOT EXISTS (SELECT 1 FROM call_peers r WHERE r.call_id = p.call_id"
    " AND r.user_id = p.user_id)"
)
_UNSEEN_IN = f"SELECT p.user_id {_UNSEEN} AND p.call_id = $2"
_WITH_UNSEEN = f"SELECT DISTINCT p.call_id {_UNSEEN} LIMIT $2"
_STRANGE = (
    " FROM calls c JOIN call_people p ON p.call_id = c.call_id AND p.state IN ('joined', 'ringing')"
    " WHERE c.ended_at IS NULL AND NOT EXISTS (SELECT 1 FROM members m"
    " WHERE m.conversation_id = c.conversation_id AND m.user_id = p.user_id)"
)
_STRANGERS_IN = f"SELECT p.user_id {_STRANGE} AND c.call_id = $1"
# no DISTINCT: SQLite would go along all calls there ever were
_WITH_STRANGERS = f"SELECT c.call_id {_STRANGE} LIMIT $1"


async def orphans(tx: Tx, call: CallId, node: NodeId, life: str, silent_us: int) -> set[PeerId]:
    """Devices whose socket ended with its process: an earlier life of this node, or a node that has given its
    lease back, or renewed none since `silent_us`."""
    return {row[0] for row in await tx.all(_ORPHANS, node, life, silent_us, call)}


async def calls_with_orphans(tx: Tx, node: NodeId, life: str, silent_us: int, limit: int) -> list[CallId]:
    return [row[0] for row in await tx.all(_WITH_ORPHANS, node, life, silent_us, limit)]


async def calls_with_lost(tx: Tx, lost_us: int, limit: int) -> list[CallId]:
    """That wait for a device since then or longer."""
    return [row[0] for row in await tx.all(_WITH_LOST, lost_us, limit)]


async def unseen(tx: Tx, call: CallId, since_us: int) -> set[UserId]:
    """Who is in it since then or longer, and has no device there."""
    return {row[0] for row in await tx.all(_UNSEEN_IN, since_us, call)}


async def calls_with_unseen(tx: Tx, since_us: int, limit: int) -> list[CallId]:
    return [row[0] for row in await tx.all(_WITH_UNSEEN, since_us, limit)]


async def strangers(tx: Tx, call: CallId) -> set[UserId]:
    """Who is in it, or called to it, and not in its conversation any more."""
    return {row[0] for row in await tx.all(_STRANGERS_IN, call)}


async def calls_with_strangers(tx: Tx, limit: int) -> list[CallId]:
    return list(dict.fromkeys(row[0] for row in await tx.all(_WITH_STRANGERS, limit)))
