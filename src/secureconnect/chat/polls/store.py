"""The SQL of polls."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from ...deps.contracts import Row, Tx
from ...identity import ConversationId, PollId, UserId

PollType = Literal["single", "multi"]


class Option(NamedTuple):
    option_id: str
    text: str
    vote_count: int


class Poll(NamedTuple):
    """seq: of the message that came next when it was made.  change: of what last happened to it.
    expires_us: when it closes.  disappears_us: when it is gone.  options: in their order."""

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
    disappears_us: int | None
    options: tuple[Option, ...]

    @property
    def seen_from(self) -> int:
        """Who may see the message before it, if there was one, may see it: whoever joined after it was made
        sees of messages their own joining first, and that may be the next."""
        return self.seq - 1

    def is_over(self, now_us: int) -> bool:
        return self.closed_us is not None or (self.expires_us is not None and self.expires_us <= now_us)


class Vote(NamedTuple):
    poll_id: PollId
    option_id: str
    voted_us: int


_POLL = (
    "p.poll_id, p.conversation_id, p.seq, p.change, p.question, p.poll_type, p.allow_vote_change,"
    " p.voter_count, p.created_by, p.created_at, p.expires_at, p.closed_at, p.disappears_at"
)
_GET = (
    f"SELECT {_POLL} FROM polls p WHERE p.poll_id = $1"  # noqa: S608
    " AND (p.disappears_at IS NULL OR p.disappears_at > $2)"
)
_PAGE = (
    "FROM polls p WHERE p.conversation_id = $1 AND p.seq > $2 AND p.poll_id < $3"
    " AND (p.disappears_at IS NULL OR p.disappears_at > $5)"
)
_LIST = f"SELECT {_POLL} {_PAGE} ORDER BY p.poll_id DESC LIMIT $4"
_LIST_ACTIVE = (
    f"SELECT {_POLL} {_PAGE} AND p.closed_at IS NULL AND (p.expires_at IS NULL OR p.expires_at > $5)"
    " ORDER BY p.poll_id DESC LIMIT $4"
)
_OPEN = (
    "SELECT COUNT(*) FROM polls WHERE conversation_id = $1 AND closed_at IS NULL"
    " AND (expires_at IS NULL OR expires_at > $2)"
)
_OPTIONS = "SELECT option_id, text, vote_count FROM poll_options WHERE poll_id = $1 ORDER BY place"
_OPTIONS_AMONG = (
    "SELECT o.poll_id, o.option_id, o.text, o.vote_count FROM polls p"
    " JOIN poll_options o ON o.poll_id = p.poll_id"
    " WHERE p.conversation_id = $1 AND p.poll_id >= $2 AND p.poll_id <= $3 ORDER BY o.poll_id, o.place"
)
_ADD = (
    "INSERT INTO polls (poll_id, conversation_id, seq, change, question, poll_type, allow_vote_change,"
    " voter_count, created_by, created_at, expires_at, closed_at, disappears_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
)
_ADD_OPTION = (
    "INSERT INTO poll_options (poll_id, place, option_id, text, vote_count) VALUES ($1, $2, $3, $4, $5)"
)
_VOTES_OF = "SELECT option_id FROM poll_votes WHERE poll_id = $1 AND user_id = $2"
_VOTES_AMONG = (
    "SELECT poll_id, option_id FROM poll_votes WHERE user_id = $1 AND poll_id >= $2 AND poll_id <= $3"
)
_VOTE = "INSERT INTO poll_votes (poll_id, user_id, option_id, voted_at) VALUES ($1, $2, $3, $4)"
_UNVOTE = "DELETE FROM poll_votes WHERE poll_id = $1 AND user_id = $2 AND option_id = $3"
_COUNT = "UPDATE poll_options SET vote_count = vote_count + $3 WHERE poll_id = $1 AND option_id = $2"
_MOVE = "UPDATE polls SET change = $2, voter_count = voter_count + $3 WHERE poll_id = $1"
_CLOSE = "UPDATE polls SET change = $2, closed_at = $3 WHERE poll_id = $1"
_EXPIRED = (
    "SELECT poll_id FROM polls WHERE closed_at IS NULL AND expires_at <= $1 ORDER BY expires_at LIMIT $2"
)
_DISAPPEARED = "SELECT poll_id FROM polls WHERE disappears_at <= $1 ORDER BY disappears_at LIMIT $2"
_MADE_BEFORE = (
    f"SELECT {_POLL} FROM polls p WHERE p.conversation_id = $1 AND p.created_at < $2"  # noqa: S608
    " ORDER BY p.poll_id LIMIT $3"
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
    f"SELECT {_POLL} FROM polls p WHERE p.created_by = $1 AND p.poll_id > $2"  # noqa: S608
    " AND (p.disappears_at IS NULL OR p.disappears_at > $4) ORDER BY p.poll_id LIMIT $3"
)
_CAST_BY = (
    "SELECT poll_id, option_id, voted_at FROM poll_votes"
    " WHERE user_id = $1 AND (poll_id, option_id) > ($2, $3) ORDER BY poll_id, option_id LIMIT $4"
)


def _poll(row: Row, options: Iterable[Row]) -> Poll:
    return Poll._make((*row[:6], bool(row[6]), *row[7:13], tuple(map(Option._make, options))))


async def _whole(tx: Tx, row: Row) -> Poll:
    return _poll(row, await tx.all(_OPTIONS, row[0]))


async def get(tx: Tx, poll: PollId, now_us: int) -> Poll | None:
    """None also when it has disappeared by then."""
    row = await tx.one(_GET, poll, now_us)
    return await _whole(tx, row) if row else None


async def list_of(
    tx: Tx,
    conversation: ConversationId,
    seen_from: int,
    before: PollId,
    limit: int,
    now_us: int,
    *,
    only_active: bool,
) -> list[Poll]:
    """The newest first, of those that who sees messages from there on may see.  only_active: those that one
    can still vote in."""
    sql = _LIST_ACTIVE if only_active else _LIST
    rows = await tx.all(sql, conversation, seen_from, before, limit, now_us)
    if not rows:
        return []
    options: defaultdict[PollId, list[Row]] = defaultdict(list)
    for poll, *option in await tx.all(_OPTIONS_AMONG, conversation, rows[-1][0], rows[0][0]):
        options[poll].append(tuple(option))
    return [_poll(row, options[row[0]]) for row in rows]


async def count_open(tx: Tx, conversation: ConversationId, now_us: int) -> int:
    row = await tx.one(_OPEN, conversation, now_us)
    return int(row[0]) if row else 0


async def add(tx: Tx, poll: Poll) -> None:
    await tx.run(_ADD, *poll[:13])
    await tx.many(_ADD_OPTION, [(poll.poll_id, place, *each) for place, each in enumerate(poll.options)])


async def votes_of(tx: Tx, poll: PollId, user: UserId) -> frozenset[str]:
    return frozenset(row[0] for row in await tx.all(_VOTES_OF, poll, user))


async def votes_among(tx: Tx, listed: Sequence[Poll], user: UserId) -> Mapping[PollId, frozenset[str]]:
    """What `user` voted for in each of these, the newest first, in which they did."""
    if not listed:
        return {}
    votes: defaultdict[PollId, set[str]] = defaultdict(set)
    for poll, option in await tx.all(_VOTES_AMONG, user, listed[-1].poll_id, listed[0].poll_id):
        votes[poll].add(option)
    return {poll: frozenset(options) for poll, options in votes.items()}


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


async def disappeared(tx: Tx, now_us: int, limit: int) -> list[PollId]:
    """Those that are to be gone and are still there, the longest first."""
    return [row[0] for row in await tx.all(_DISAPPEARED, now_us, limit)]


async def made_before(tx: Tx, conversation: ConversationId, before_us: int, limit: int) -> list[Poll]:
    return [await _whole(tx, row) for row in await tx.all(_MADE_BEFORE, conversation, before_us, limit)]


async def delete(tx: Tx, poll: PollId) -> None:
    for statement in _DELETE:
        await tx.run(statement, poll)


async def drop_before(tx: Tx, conversation: ConversationId, seq: int) -> None:
    """Those that go with the messages before `seq`."""
    for statement in _DROP:
        await tx.run(statement, conversation, seq)


async def made_by(tx: Tx, user: UserId, after: PollId, limit: int, now_us: int) -> list[Poll]:
    return [await _whole(tx, row) for row in await tx.all(_MADE_BY, user, after, limit, now_us)]


async def cast_by(tx: Tx, user: UserId, after: tuple[PollId, str], limit: int) -> Sequence[Vote]:
    return [Vote._make(row) for row in await tx.all(_CAST_BY, user, *after, limit)]
