"""The SQL of search. The room's second with a text per database: full text is where the two have nothing in
common but what they find.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ...clock import from_iso
from ...deps.contracts import Tx
from ...identity import ConversationId, UserId
from ..store import MESSAGE, Message, message_of
from .question import Term

# An entry's id: 41 bits of milliseconds, which from then last until 2089, 10 of microseconds, and 12 more.
_FIRST_MS = from_iso("2020-01-01T00:00:00Z") // 1000
_MOST_MS = 2**41 - 1
_APART = 2**12
LAST_ENTRY = 2**63 - 1
LAST_SEQ = 2**62  # after every other


class Said(NamedTuple):
    """What is to be indexed of a message."""

    seq: int
    sent_us: int
    content: str


class Behind(NamedTuple):
    """A conversation that the index has not followed to its end."""

    conversation_id: ConversationId
    touched_us: int
    position: int


class News(NamedTuple):
    """What the index is to take in.  seqs: messages of which it forgets what it knew.  said: what they say
    now, where that may be searched.  upto: its position after that.  is_all: nothing is after it."""

    conversation_id: ConversationId
    position: int
    upto: int
    seqs: Sequence[int]
    said: Sequence[Said]
    is_all: bool


class Entry(NamedTuple):
    entry_id: int
    conversation_id: ConversationId
    seq: int
    words: Sequence[str]


def entry_at(us: int) -> int:
    """The lowest id of an entry for what was sent at that time or later."""
    ms, micros = divmod(us, 1000)
    return (min(max(ms - _FIRST_MS, 0), _MOST_MS) * 1024 + micros) * _APART


def entry_of(conversation: ConversationId, seq: int, sent_us: int) -> int:
    """Of a message. They grow as messages are sent; of what is stored together, and so sent at one time, each
    conversation's stand in their order, and two conversations seldom come to the same."""
    return entry_at(sent_us) + (int(conversation[-3:], 16) + seq) % _APART


# How far the index is

_BEHIND = (
    "SELECT c.conversation_id, c.touched_at, COALESCE(p.change, 0) FROM conversations c"
    " LEFT JOIN search_positions p ON p.conversation_id = c.conversation_id"
    " WHERE (c.touched_at, c.conversation_id) > ($1, $2) AND c.last_change > COALESCE(p.change, 0)"
    " ORDER BY c.touched_at, c.conversation_id LIMIT $3"
)
_LOCK = (
    "INSERT INTO search_positions (conversation_id, change) VALUES ($1, 0)"
    " ON CONFLICT (conversation_id) DO UPDATE SET change = search_positions.change RETURNING change"
)
_MOVE = "UPDATE search_positions SET change = $2 WHERE conversation_id = $1"
_FORGET = "DELETE FROM search_positions WHERE conversation_id = $1"


async def behind(tx: Tx, since_us: int, after: str, limit: int) -> list[Behind]:
    """Touched since and not followed to the end, the longest ago first, from after (`since_us`, `after`)."""
    return [Behind._make(row) for row in await tx.all(_BEHIND, since_us, after, limit)]


async def lock(tx: Tx, conversation: ConversationId) -> int:
    """Its position, which is held until the transaction ends. One that is new begins at 0."""
    row = await tx.one(_LOCK, conversation)
    assert row is not None
    return int(row[0])


async def move(tx: Tx, conversation: ConversationId, change: int) -> None:
    await tx.run(_MOVE, conversation, change)


async def forget(tx: Tx, conversation: ConversationId) -> None:
    await tx.run(_FORGET, conversation)


async def clear(tx: Tx, conversation: ConversationId, limit: int, now_us: int) -> bool:
    """Of a conversation that is deleted: what the index has not yet let go, `limit` entries at a time, then
    its position. Whether nothing is left."""
    await lock(tx, conversation)
    if not await drop_before(tx, conversation, LAST_SEQ, limit, now_us):
        return False
    await forget(tx, conversation)
    return True


# What it is to take in

_NEW = (
    "SELECT change, seq, sent_at, content, is_encrypted OR deleted_at IS NOT NULL OR message_type = 'system'"
    " FROM messages WHERE conversation_id = $1 AND change > $2 ORDER BY change LIMIT $3"
)
_CHANGED = (
    "SELECT h.change, h.seq, g.sent_at, g.content,"
    " g.is_encrypted OR g.deleted_at IS NOT NULL OR g.message_type = 'system',"
    " h.kind IN ('message_edited', 'message_deleted')"
    " FROM changes h LEFT JOIN messages g ON g.message_id = h.ref AND h.kind = 'message_edited'"
    " WHERE h.conversation_id = $1 AND h.change > $2 ORDER BY h.change LIMIT $3"
)
_HEAD = "SELECT last_change, is_e2ee_enabled FROM conversations WHERE conversation_id = $1"


async def news(tx: Tx, behind: Behind, limit: int) -> News:
    """What happened to messages after the position: at most `limit` new ones, and as many other changes."""
    conversation, position = behind.conversation_id, behind.position
    row = await tx.one(_HEAD, conversation)  # first: what is read after it is at least as new
    if row is None or row[1]:
        return News(conversation, position, position, (), (), True)
    head = upto = int(row[0])
    new = await tx.all(_NEW, conversation, position, limit)
    changed = await tx.all(_CHANGED, conversation, position, limit)
    for rows in (new, changed):
        if len(rows) == limit:
            upto = min(upto, rows[-1][0])
    seqs: dict[int, None] = {}
    said: dict[int, Said] = {}
    of_messages = [each[:-1] for each in changed if each[-1] and each[1] is not None]
    for change, seq, sent_us, content, is_silent in (*new, *of_messages):
        if change <= upto:
            seqs[seq] = None
            if content is not None and not is_silent:
                said[seq] = Said(seq, sent_us, content)
    return News(conversation, position, upto, tuple(seqs), tuple(said.values()), upto == head)


# The entries, and finding them


class _Texts(msgspec.Struct, frozen=True):
    """taken, of_seqs: take a JSON list.  put, remove: for each entry, one after the other.
    find: a question in the database's own language; who asks; the first and last entry wanted; who said it,
    or NULL; how many."""

    taken: str
    of_seqs: str
    put: tuple[str, ...]
    remove: tuple[str, ...]
    find: str


_SEEN = (
    " AND e.seq >= m.visible_from_seq AND g.deleted_at IS NULL AND NOT g.is_encrypted"
    " AND g.message_type <> 'system' AND NOT c.is_e2ee_enabled"
)
_SQL: dict[str, _Texts] = {
    "sqlite": _Texts(
        taken="SELECT entry_id FROM search_entries WHERE entry_id IN (SELECT value FROM json_each($1))",
        of_seqs=(
            "SELECT entry_id FROM search_entries WHERE conversation_id = $1"
            " AND seq IN (SELECT value FROM json_each($2))"
        ),
        put=(
            "INSERT INTO search_entries (entry_id, conversation_id, seq) VALUES ($1, $2, $3)",
            "INSERT INTO search_index (rowid, place, words) VALUES ($1, $2, $3)",
        ),
        remove=(
            "DELETE FROM search_index WHERE rowid = $1",
            "DELETE FROM search_entries WHERE entry_id = $1",
        ),
        # in this order, whatever the planner thinks: the index gives the newest first, and few are wanted
        find=(
            f"SELECT e.entry_id, {MESSAGE} FROM search_index"  # noqa: S608
            " CROSS JOIN search_entries e ON e.entry_id = search_index.rowid"
            " CROSS JOIN members m ON m.conversation_id = e.conversation_id AND m.user_id = $2"
            " CROSS JOIN conversations c ON c.conversation_id = e.conversation_id"
            " CROSS JOIN messages g ON g.conversation_id = e.conversation_id AND g.seq = e.seq"
            " WHERE search_index MATCH $1 AND search_index.rowid BETWEEN $3 AND $4"
            f"{_SEEN} AND g.sender_id = COALESCE($5, g.sender_id) ORDER BY search_index.rowid DESC LIMIT $6"
        ),
    ),
    "postgres": _Texts(
        taken=(
            "SELECT entry_id FROM search_entries"
            " WHERE entry_id = ANY (ARRAY(SELECT k::bigint FROM jsonb_array_elements_text($1) k))"
        ),
        of_seqs=(
            "SELECT entry_id FROM search_entries WHERE conversation_id = $1"
            " AND seq = ANY (ARRAY(SELECT k::bigint FROM jsonb_array_elements_text($2) k))"
        ),
        put=(
            "INSERT INTO search_entries (entry_id, conversation_id, seq, words)"
            " VALUES ($1, $2, $3, $4::text::tsvector)",
        ),
        remove=("DELETE FROM search_entries WHERE entry_id = $1",),
        find=(
            f"SELECT e.entry_id, {MESSAGE} FROM search_entries e"  # noqa: S608
            " JOIN members m ON m.conversation_id = e.conversation_id AND m.user_id = $2"
            " JOIN conversations c ON c.conversation_id = e.conversation_id"
            " JOIN messages g ON g.conversation_id = e.conversation_id AND g.seq = e.seq"
            " WHERE e.words @@ $1::text::tsquery AND e.entry_id BETWEEN $3 AND $4"
            f"{_SEEN} AND g.sender_id = COALESCE($5, g.sender_id) ORDER BY e.entry_id DESC LIMIT $6"
        ),
    ),
}
# For this transaction: one plan for rare and frequent words alike reads all messages with a frequent one.
_PLAN = {"postgres": "SELECT set_config('plan_cache_mode', 'force_custom_plan', true)"}
_BEFORE = "SELECT entry_id FROM search_entries WHERE conversation_id = $1 AND seq < $2 ORDER BY seq LIMIT $3"
_PLAIN = (
    "SELECT m.conversation_id FROM members m JOIN conversations c ON c.conversation_id = m.conversation_id"
    " WHERE m.user_id = $1 AND NOT c.is_e2ee_enabled LIMIT $2"
)


async def drop_before(tx: Tx, conversation: ConversationId, seq: int, limit: int, now_us: int) -> bool:
    """Remove the entries of messages before that one, `limit` at a time. Whether none is left."""
    surplus = [row[0] for row in await tx.all(_BEFORE, conversation, seq, limit)]
    await remove(tx, surplus, now_us)
    return len(surplus) < limit


async def of_seqs(tx: Tx, conversation: ConversationId, seqs: Sequence[int]) -> list[int]:
    """Entries of these messages."""
    return [row[0] for row in await tx.all(_SQL[tx.dialect].of_seqs, conversation, _json(seqs))]


async def remove(tx: Tx, entries: Sequence[int], now_us: int) -> None:
    if not entries:
        return
    for statement in _SQL[tx.dialect].remove:
        await tx.many(statement, [(each,) for each in entries])
    if tx.dialect == "sqlite":
        await tx.run(_REMOVED["sqlite"], now_us)


async def put(tx: Tx, entries: Sequence[Entry]) -> None:
    """None of these messages has one. An id that is taken is counted up."""
    if not entries:
        return
    sql = _SQL[tx.dialect]
    free: dict[int, Entry] = {}
    waiting = list(entries)
    while waiting:
        asked = _json([each.entry_id for each in waiting])
        taken = {row[0] for row in await tx.all(sql.taken, asked)}
        later = []
        for each in waiting:
            if each.entry_id in taken or each.entry_id in free:
                later.append(each._replace(entry_id=each.entry_id + 1))
            else:
                free[each.entry_id] = each
        waiting = later
    if tx.dialect == "sqlite":
        await tx.many(sql.put[0], [each[:3] for each in free.values()])
        texts = [
            (each.entry_id, _place(each.conversation_id), " ".join(each.words)) for each in free.values()
        ]
        await tx.many(sql.put[1], texts)
    else:
        rows = [(*each[:3], _vector(each.conversation_id, each.words)) for each in free.values()]
        await tx.many(sql.put[0], rows)


async def plain_conversations(tx: Tx, user: UserId, limit: int) -> list[ConversationId]:
    """Some of theirs that are not encrypted."""
    return [row[0] for row in await tx.all(_PLAIN, user, limit)]


async def find(
    tx: Tx,
    user: UserId,
    terms: Sequence[Term],
    places: Sequence[ConversationId],
    first: int,
    last: int,
    sender: UserId | None,
    limit: int,
    now_us: int,
) -> list[tuple[int, Message]]:
    """Messages that `user` may see and that have all the terms, the newest first, each with its entry,
    as they are shown now.  places: the conversations looked in; none: all.  first, last: of the entries."""
    if tx.dialect == "postgres":
        await tx.one(_PLAN["postgres"])
    question = (_match if tx.dialect == "sqlite" else _tsquery)(terms, places)
    rows = await tx.all(_SQL[tx.dialect].find, question, user, first, last, sender, limit)
    return [(row[0], message_of(row[1:], now_us)) for row in rows]


# SQLite's language. Words are letters and digits alone, so that nothing in them has a meaning.


def _place(conversation: ConversationId) -> str:
    return conversation.replace("-", "")


def _match(terms: Sequence[Term], places: Sequence[ConversationId]) -> str:
    asked = " AND ".join(f'"{" ".join(term.words)}"{" *" if term.is_begun else ""}' for term in terms)
    where = " OR ".join(f'"{_place(each)}"' for each in places)
    return f"words : ({asked})" + (f" AND place : ({where})" if where else "")


# That of PostgreSQL. A conversation is a word that no text has.


def _lexeme(conversation: ConversationId) -> str:
    return f"'@{_place(conversation)}'"


def _vector(conversation: ConversationId, words: Sequence[str]) -> str:
    places: dict[str, list[int]] = {}
    for number, word in enumerate(words, 1):
        places.setdefault(word, []).append(number)
    said = (f"'{word}':{','.join(map(str, found))}" for word, found in places.items())
    return " ".join([_lexeme(conversation), *said])


def _tsquery(terms: Sequence[Term], places: Sequence[ConversationId]) -> str:
    asked = []
    for term in terms:
        lexemes = [f"'{word}'" for word in term.words]
        lexemes[-1] += ":*" if term.is_begun else ""
        asked.append(f"({' <-> '.join(lexemes)})")
    if places:
        asked.append(f"({' | '.join(map(_lexeme, places))})")
    return " & ".join(asked)


# What SQLite leaves of deleted words goes when the parts of its index are merged, some pages at a time

_REMOVED = {"sqlite": "UPDATE search_upkeep SET removed_at = COALESCE(removed_at, $1)"}
_UPKEEP = {"sqlite": "SELECT removed_at, is_merging FROM search_upkeep"}
_MERGING = {"sqlite": "UPDATE search_upkeep SET removed_at = $1, is_merging = $2"}
_MERGE = {"sqlite": "INSERT INTO search_index (search_index, rank) VALUES ('merge', $1)"}
_WORKED = {"sqlite": "SELECT total_changes()"}
_NOTHING_DONE = 2  # changes counted of a merge that had nothing to do are fewer


async def merge(tx: Tx, before_us: int, pages: int) -> bool:
    """Go on merging so many pages, or begin if something was removed before that time. False: nothing is left
    to do. Postgres looks after itself."""
    if tx.dialect == "postgres":
        return False
    row = await tx.one(_UPKEEP["sqlite"])
    assert row is not None
    removed_us, is_merging = row
    if not is_merging:
        if removed_us is None or removed_us > before_us:
            return False
        await tx.run(_MERGING["sqlite"], None, 1)
        await tx.run(_MERGE["sqlite"], -pages)  # all the parts there are become one
        return True
    had = await tx.one(_WORKED["sqlite"])
    await tx.run(_MERGE["sqlite"], pages)
    has = await tx.one(_WORKED["sqlite"])
    assert had is not None
    assert has is not None
    if has[0] - had[0] < _NOTHING_DONE:
        await tx.run(_MERGING["sqlite"], removed_us, 0)
    return True


def _json(value: Sequence[int]) -> str:
    return msgspec.json.encode(value).decode()
