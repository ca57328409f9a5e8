"""Recent: the latest of each conversation, in memory, for while the database is away.

The hub hands over every durable event as it tells it: in order, and encoded already; all that costs is a
place in a list. What people read of a history while the database was there is kept below. Nothing is decoded
before it is asked for; `recall` decides who may have it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from .. import metrics
from ..identity import ConversationId, MessageId, PollId, UserId
from .live import Live
from .retold import CHANGES, RETOLD, UNCHANGED, Changes, blotted, first_seq_in, message_now
from .store import Conversation, Message

BYTES = metrics.gauge("secureconnect_chat_recent_bytes", "Memory for what conversations had lately.")

AROUND_BYTES = 700  # of the objects around a text


class Past:
    """One conversation's latest: all that happened after change `start`, up to change `head`.

    lives: those events.  rows: messages below those of `lives`, without a hole between; what has happened to
    them after they were read is among `lives`.  first_seq: the first message there was when they were read.
    """

    __slots__ = ("first_seq", "head", "lives", "rows", "size")

    def __init__(self, head: int) -> None:
        self.head = head
        self.lives: deque[Live] = deque()
        self.rows: dict[int, Message] = {}
        self.first_seq = 1
        self.size = 0

    @property
    def start(self) -> int:
        return self.head - len(self.lives)

    def since(self, change: int) -> Iterator[Live]:
        return islice(self.lives, change - self.start, None)

    def first_kept_seq(self) -> int:
        """The first message that retention has left, as far as is known."""
        for live in reversed(self.lives):
            if live.kind == "conversation_updated":
                return max(self.first_seq, first_seq_in(live))
        return self.first_seq

    def changes(self) -> dict[int, Changes]:
        """By seq, of each message that was changed."""
        found: dict[int, Changes] = {}
        for live in self.lives:
            if live.seq is not None and live.kind in CHANGES:
                found[live.seq] = found.get(live.seq, UNCHANGED).then(live)
        return found

    def joined(self, user: UserId) -> int:
        """The change that made somebody a member; 0 when that is longer ago than what is held."""
        mine = (live for live in self.lives if live.kind == "user_joined" and live.user_id == user)
        return max((live.change for live in mine), default=0)

    def polls(self) -> dict[PollId, Live]:
        """What was last told of each poll."""
        return {live.poll_id: live for live in self.lives if live.poll_id is not None}

    def messages(self) -> dict[int, Live | Message]:
        """By seq, ascending and dense: each as it was first told or read."""
        held: dict[int, Live | Message] = {seq: self.rows[seq] for seq in sorted(self.rows)}
        held |= {live.seq: live for live in self.lives if live.kind == "chat" and live.seq is not None}
        return held

    def lowest(self, last_seq: int) -> int:
        """The lowest message held; the one after `last_seq` without any."""
        if self.rows:
            return min(self.rows)
        return next(
            (live.seq for live in self.lives if live.kind == "chat" and live.seq is not None), last_seq + 1
        )


class Recent:
    """limit_bytes: in all; the oldest goes first of what nothing has happened in, nor was read, for longest.
    changes: kept of one conversation, those below that were read among them."""

    def __init__(self, limit_bytes: int, changes: int) -> None:
        self._limit_bytes = limit_bytes
        self._changes = changes
        self._pasts: OrderedDict[ConversationId, Past] = OrderedDict()
        self._where: dict[MessageId, ConversationId] = {}
        self._bytes = 0

    def past(self, conversation: ConversationId) -> Past | None:
        return self._pasts.get(conversation)

    def conversation_of(self, message: MessageId) -> ConversationId | None:
        """Where a message is held."""
        return self._where.get(message)

    def take(self, live: Live) -> None:
        """Keep a durable event, as the hub tells it."""
        conversation = live.conversation_id
        if live.kind == "conversation_deleted":
            self._drop(conversation)
            return
        past = self._pasts.get(conversation)
        if past is None or live.change != past.head + 1:
            past = self._begin(conversation, live.change - 1)
        else:
            self._pasts.move_to_end(conversation)
        past.head = live.change
        if live.kind == "message_deleted":
            self._blot(past, live)
        past.lives.append(live)
        if live.kind == "chat" and live.message_id is not None:
            self._where[live.message_id] = conversation
        self._grow(past, _size(live))
        if len(past.lives) > self._changes:
            self._leave_rows(past)
            self._leave_first(past)
        while self._bytes > self._limit_bytes:
            self._shrink()

    def _blot(self, past: Past, deletion: Live) -> None:
        """Nothing of a message that is deleted is kept."""
        about = [
            (at, live)
            for at, live in enumerate(past.lives)
            if live.seq == deletion.seq and live.kind in RETOLD
        ]
        changes = Changes(deleted=deletion)
        for _, live in about:
            if live.kind == "message_edited":
                changes = changes._replace(edited=live)  # when that was is still told
        for at, live in about:
            past.lives[at] = blotted(live, changes)
            self._grow(past, _size(past.lives[at]) - _size(live))
        row = past.rows.get(deletion.seq or 0)
        if row is not None:
            past.rows[row.seq] = message_now(row, changes, 0)
            self._grow(past, _size(past.rows[row.seq]) - _size(row))

    def keep(self, conversation: Conversation, rows: Sequence[Message]) -> None:
        """Keep what was read: messages in a row, ascending, and their conversation as it was just then.

        Of no use where our events do not go on from there, or would leave a hole above.
        """
        name, head = conversation.conversation_id, conversation.last_change
        past = self._pasts.get(name) or self._begin(name, head)
        if not past.start <= head <= past.head:
            return
        past.first_seq = max(past.first_seq, conversation.first_seq)
        new = self._new(past, conversation, rows[0].seq, rows[-1].seq) if rows else ()
        if not new:  # they are here already, as most often
            return
        self._pasts.move_to_end(name)  # or it would be let go of again at once
        for row in rows:
            if row.seq in new:
                past.rows[row.seq] = row
                self._where[row.message_id] = name
                self._grow(past, _size(row))
        while self._bytes > self._limit_bytes:
            self._shrink()

    def lacks(self, conversation: Conversation, first_seq: int, last_seq: int) -> bool:
        """Whether `keep` would take any of these messages, read when their conversation was just so."""
        past = self._pasts.get(conversation.conversation_id)
        if past is None:
            return self._limit_bytes > 0
        if not past.start <= conversation.last_change <= past.head:
            return False
        return bool(self._new(past, conversation, first_seq, last_seq))

    def _new(self, past: Past, conversation: Conversation, first_seq: int, last_seq: int) -> range:
        """Of messages in a row, those below what is held, without a hole, that there is room for."""
        lowest = past.lowest(conversation.last_seq)
        if last_seq < lowest - 1:
            return range(0)
        left = self._changes - len(past.lives) - len(past.rows)
        return range(max(first_seq, lowest - left), lowest)

    def _begin(self, conversation: ConversationId, head: int) -> Past:
        """From here on, in the place of what was held."""
        self._drop(conversation)
        past = self._pasts[conversation] = Past(head)
        self._grow(past, AROUND_BYTES)
        return past

    def _shrink(self) -> None:
        """Let go of the beginning of the conversation that was quiet for longest."""
        conversation, past = next(iter(self._pasts.items()))
        if past.rows:
            self._leave_rows(past)
        elif len(past.lives) > 1:
            self._leave_first(past)
        else:
            self._drop(conversation)

    def _drop(self, conversation: ConversationId) -> None:
        past = self._pasts.pop(conversation, None)
        if past is None:
            return
        self._forget(live.message_id for live in past.lives if live.kind == "chat")
        self._forget(row.message_id for row in past.rows.values())
        self._grow(past, -past.size)

    def _leave_first(self, past: Past) -> None:
        gone = past.lives.popleft()
        if gone.kind == "chat":
            self._forget([gone.message_id])
        self._grow(past, -_size(gone))

    def _leave_rows(self, past: Past) -> None:
        """They do not reach up to what is kept any more, or lack a change to them."""
        if past.rows:
            self._forget(row.message_id for row in past.rows.values())
            self._grow(past, -sum(map(_size, past.rows.values())))
            past.rows = {}

    def _forget(self, messages: Iterable[MessageId | None]) -> None:
        for message in messages:
            if message is not None:
                self._where.pop(message, None)

    def _grow(self, past: Past, by: int) -> None:
        past.size += by
        self._bytes += by

    def tell_size(self) -> None:
        BYTES.set(self._bytes)


def _size(held: Live | Message) -> int:
    if isinstance(held, Message):
        return AROUND_BYTES + len(held.content) + len(held.metadata or "")
    return AROUND_BYTES + 2 * len(held.frame.data)  # once more as it went over the network
