"""The SQL of polls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from ...deps.contracts import Row, Tx
from ...identity import ConversationId, PollId, UserId

PollType = Literal["single", "multi"]


class Option(NamedTuple):
    option_id: str
    text: str
    vote_count: int


class Poll(NamedTuple):
    """seq: of the message that came next when it was made: who may see that may see it.  change: of what last
    happened to it.  options: in their order."""

    poll_id: PollId
    conversation_id: ConversationId
    seq: int
    change: int
    question: str
    poll_type: PollType
    allow_vote_change: bool
    voter_count: int
    created_by: UserId
    created_us: int
    expires_us: int | None
    closed_us: int | None
    options: tuple[Option, ...]

    def is_over(self, now_us: int) -> bool:
        return self.closed_us is not None or (self.expires_us is not None and self.expires_us <= now_us)


class Vote(NamedTuple):
    poll_id: PollId
    option_id: str
    voted_us: int


_POLL = (
    "p.poll_id, p.conversation_id, p.seq, p.change, p.question, p.poll_type, p.allow_vote_change,"
    " p.voter_count, p.created_by, p.created_at, p.expires_at, p.closed_at"
)
_GET = f"SELECT {_POLL} FROM polls p WHERE p.poll_id = $1"  # noqa: S608
_LIST = (
    f"SELECT {_POLL} FROM polls p WHERE p.conversation_id = $1 AND p.seq >= $2 AND p.poll_id < $3"  # noqa: S608
    " ORDER BY p.poll_id DESC LIMIT $4"
)
_LIST_ACTIVE = (
    f"SELECT {_POLL} FROM polls p WHERE p.conversation_id = $1 AND p.seq >= $2 AND p.poll_id < $3"  # noqa: S608
    " AND p.closed_at IS NULL AND (p.expires_at IS NULL OR p.expires_at > $5)"
    " ORDER BY p.poll_id DESC LIMIT $4"
)
_OPEN = (
    "SELECT COUNT(*) FROM polls WHERE conversation_id = $1 AND closed_at IS NULL"
    " AND (expires_at IS NULL OR expires_at > $2)"
)
_OPTIONS = "SELECT option_id, text, vote_count FROM poll_options WHERE poll_id = $1 ORDER BY place"
_ADD = (
    "INSERT INTO polls (poll_id, conversation_id, seq, change, question, poll_type, allow_vote_change,"
    " voter_count, created_by, created_at, expires_at, closed_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
)
_ADD_OPTION = (
    "INSERT INTO poll_options (poll_id, place, option_id, text, vote_count) VALUES ($1, $2, $3, $4, $5)"
)
_VOTES_OF = "SELECT option_id FROM poll_votes WHERE poll_id = $1 AND user_id = $2"
_VOTE = "INSERT INTO poll_votes (poll_id, user_id, option_id, voted_at) VALUES ($1, $2, $3, $4)"
_UNVOTE = "DELETE FROM poll_votes WHERE poll_id = $1 AND user_id = $2 AND option_id = $3"
_COUNT = "UPDATE poll_options SET vote_count = vote_count + $3 WHERE poll_id = $1 AND option_id = $2"
_MOVE = "UPDATE polls SET change = $2, voter_count = voter_count + $3 WHERE poll_id = $1"
_CLOSE = "UPDATE polls SET change = $2, closed_at = $3 WHERE poll_id = $1"
_EXPIRED = (
    "SELECT poll_id FROM polls WHERE closed_at IS NULL AND expires_at <= $1 ORDER BY expires_at LIMIT $2"
)
_DELETE = (
    "DELETE FROM poll_votes WHERE poll_id = $1",
    "DELETE FROM poll_options WHERE poll_id = $1",
    "DELETE FROM polls WHERE poll_id = $1",
)
_DROP = tuple(
    f"DELETE FROM {table} WHERE poll_id IN"  # noqa: S608
    " (SELECT poll_id FROM polls WHERE conversation_id = $1 AND seq < $2)"
    for table in ("poll_votes", "poll_options", "polls")
)
_MADE_BY = (
    f"SELECT {_POLL} FROM polls p WHERE p.created_by = $1 AND p.poll_id > $2 ORDER BY p.poll_id LIMIT $3"  # noqa: S608
)
_CAST_BY = (
    "SELECT poll_id, option_id, voted_at FROM poll_votes"
    " WHERE user_id = $1 AND (poll_id, option_id) > ($2, $3) ORDER BY poll_id, option_id LIMIT $4"
)


async def _whole(tx: Tx, row: Row) -> Poll:
    options = tuple(Option._make(each) for each in await tx.all(_OPTIONS, row[0]))
    return Poll._make((*row[:6], bool(row[6]), *row[7:12], options))


async def get(tx: Tx, poll: PollId) -> Poll | None:
    row = await tx.one(_GET, poll)
    return await _whole(tx, row) if row else None


async def list_of(
    tx: Tx, conversation: ConversationId, from_seq: int, before: PollId, limit: int, active_at_us: int | None
) -> list[Poll]:
    """The newest first.  active_at_us: only those that one could vote in then."""
    if active_at_us is None:
        rows = await tx.all(_LIST, conversation, from_seq, before, limit)
    else:
        rows = await tx.all(_LIST_ACTIVE, conversation, from_seq, before, limit, active_at_us)
    return [await _whole(tx, row) for row in rows]


async def count_open(tx: Tx, conversation: ConversationId, now_us: int) -> int:
    row = await tx.one(_OPEN, conversation, now_us)
    return int(row[0]) if row else 0


async def add(tx: Tx, poll: Poll) -> None:
    await tx.run(_ADD, *poll[:12])
    await tx.many(_ADD_OPTION, [(poll.poll_id, place, *each) for place, each in enumerate(poll.options)])


async def votes_of(tx: Tx, poll: PollId, user: UserId) -> frozenset[str]:
    return frozenset(row[0] for row in await tx.all(_VOTES_OF, poll, user))


async def change_votes(
    tx: Tx,
    poll: PollId,
    before: Mapping[UserId, frozenset[str]],
    after: Mapping[UserId, frozenset[str]],
    now_us: int,
) -> None:
    """before, after: the options of each of the same people."""
    gone = [(user, option) for user in before for option in before[user] - after[user]]
    new = [(user, option) for user in after for option in after[user] - before[user]]
    counts = Counter(option for _, option in new)
    counts.subtract(option for _, option in gone)
    await tx.many(_UNVOTE, [(poll, user, option) for user, option in gone])
    await tx.many(_VOTE, [(poll, user, option, now_us) for user, option in new])
    await tx.many(_COUNT, [(poll, option, count) for option, count in counts.items() if count])


async def move(tx: Tx, poll: PollId, change: int, voters: int) -> None:
    """Something happened to it.  voters: how many more."""
    await tx.run(_MOVE, poll, change, voters)


async def close(tx: Tx, poll: PollId, change: int, now_us: int) -> None:
    await tx.run(_CLOSE, poll, change, now_us)


async def expired(tx: Tx, now_us: int, limit: int) -> list[PollId]:
    """Those past their end that nobody has closed, the longest first."""
    return [row[0] for row in await tx.all(_EXPIRED, now_us, limit)]


async def delete(tx: Tx, poll: PollId) -> None:
    for statement in _DELETE:
        await tx.run(statement, poll)


async def drop_before(tx: Tx, conversation: ConversationId, seq: int) -> None:
    """Those that go with the messages before `seq`."""
    for statement in _DROP:
        await tx.run(statement, conversation, seq)


async def made_by(tx: Tx, user: UserId, after: PollId, limit: int) -> list[Poll]:
    return [await _whole(tx, row) for row in await tx.all(_MADE_BY, user, after, limit)]


async def cast_by(tx: Tx, user: UserId, after: tuple[PollId, str], limit: int) -> Sequence[Vote]:
    return [Vote._make(row) for row in await tx.all(_CAST_BY, user, *after, limit)]
