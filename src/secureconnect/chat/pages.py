"""Pages: histories as REST answers them. Of a conversation the newest one, of as many messages as were last
asked for, is kept as bytes while nothing happens there. Those with a bound are read each time: who scrolls
back seldom asks what somebody else has asked, and would drive out what everybody asks.

Whoever asks is looked up each time, in one snapshot with the conversation (`Messages.page`): who is no member
learns nothing, and a page is told again only while the row of the conversation is what it was when the page
was read. That is right on every node, for it is the database that is asked, and whatever a page shows changes
in a unit that moves `last_change` in that row:

- a message is stored, or a notice given (`append`, `notices`); it is edited, or deleted, by people or by its
  end (`messages`, `disappearing`); retention takes a prefix (`retention`). Nothing else writes into the table
  of messages, but for reactions, which are not kept.
- pins, votes, names, blocks, mentions and what people have read are in no page; of a file there is only which
  it is, and of somebody who is erased the id, as before.
- `touched_us`, in the same row, tells apart two heads of one number: of a database that went back, and on.

What else it depends on is looked at before it is told again, too:

- the viewer: which messages are theirs to see (`_alike`), and which reactions. Pages with reactions are not
  kept; they would not always be right, either: retention takes many of those before it moves the head.
- the time: a message that is to disappear is shown until then.

Provisional messages are in no page. While the database is away nothing is told from here, for nobody can be
looked up: that is for `recall`. So that it has as much as if every page were read, one is read again that
`recent` has lost, or could not take yet. And as there, nothing is left of what is deleted once this node has
heard of it: each event takes the page away, and what is being read just then is not kept (`heard`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from .. import metrics
from ..identity import ConversationId
from .recent import Recent
from .shapes import MessageShape, message_shape
from .store import FOREVER_US, Conversation, Message, Page, Seat

# result: kept, read (from the table)
PAGES = metrics.counter("secureconnect_chat_pages_total", "Pages of messages told.", ["result"])
BYTES = metrics.gauge("secureconnect_chat_pages_bytes", "Memory for pages that were told.")
_KEPT, _READ = PAGES.labels("kept"), PAGES.labels("read")

AROUND_BYTES = 1_500  # of the objects around the bytes of a page


class MessageList(Struct, frozen=True):
    """Ascending by `seq`.  change: all that happened up to it is in; an event that is older is none."""

    messages: list[MessageShape]
    change: int
    next_cursor: str | None


class Asked(NamedTuple):
    """At most one bound; without one the newest `limit` messages."""

    conversation: ConversationId
    limit: int
    before_seq: int | None = None
    after_seq: int | None = None

    @property
    def is_newest(self) -> bool:
        return self.before_seq is None and self.after_seq is None


_encode = msgspec.json.Encoder().encode


def encoded(asked: Asked, page: Page) -> Raw:
    """The `MessageList`, as it is told."""
    messages, cursor = page.messages, None
    if len(messages) == asked.limit:
        is_onward = asked.after_seq is not None
        cursor = f"after:{messages[-1].seq}" if is_onward else f"before:{messages[0].seq}"
    shapes = [message_shape(each) for each in messages]
    return Raw(_encode(MessageList(shapes, page.change, cursor)))


class Kept(NamedTuple):
    """A page, and when it is right.  conversation: as it was.  first_seq, last_seq: of the page.
    least, greatest: visible_from_seq of whoever is shown the same.  until_us: when that ends."""

    data: Raw
    limit: int
    conversation: Conversation
    first_seq: int
    last_seq: int
    least: int
    greatest: int
    until_us: int

    def is_right(self, seat: Seat, now_us: int) -> bool:
        """For whoever sits there, now."""
        return (
            self.conversation == seat.conversation
            and self.least <= seat.member.visible_from_seq <= self.greatest
            and now_us < self.until_us
        )


class Reading:
    """is_overtaken: something has happened there since it began."""

    __slots__ = ("is_overtaken",)

    def __init__(self) -> None:
        self.is_overtaken = False


class Pages:
    """limit_bytes: in all; what was not asked for for longest goes first.  recent: takes what is read."""

    def __init__(self, limit_bytes: int, recent: Recent) -> None:
        self._limit_bytes = limit_bytes
        self._recent = recent
        self._kept: OrderedDict[ConversationId, Kept] = OrderedDict()
        self._bytes = 0
        self._readings: dict[ConversationId, list[Reading]] = {}

    @contextmanager
    def reading(self, conversation: ConversationId) -> Iterator[Reading]:
        """For as long as a page of it is being read."""
        reading = Reading()
        others = self._readings.setdefault(conversation, [])
        others.append(reading)
        try:
            yield reading
        finally:
            others.remove(reading)
            if not others:
                del self._readings[conversation]

    def get(self, asked: Asked) -> Kept | None:
        """What may be told again, if it is right."""
        kept = self._kept.get(asked.conversation)
        if kept is None or kept.limit != asked.limit or not asked.is_newest:
            return None
        if self._recent.lacks(kept.conversation, kept.first_seq, kept.last_seq):
            return None
        self._kept.move_to_end(asked.conversation)
        return kept

    def answer(self, asked: Asked, reading: Reading, seat: Seat, found: Raw | list[Message]) -> Raw:
        """found: what was kept, and is right; or what was read, to be kept."""
        if isinstance(found, Raw):
            _KEPT.inc()
            return found
        _READ.inc()
        data = encoded(asked, Page(found, seat.conversation.last_change))
        if not reading.is_overtaken:
            self._recent.keep(seat.conversation, found)
            if found and asked.is_newest:
                self._keep(asked, seat, found, data)
        return data

    def _keep(self, asked: Asked, seat: Seat, found: Sequence[Message], data: Raw) -> None:
        """In the place of what was kept."""
        conversation, until_us = asked.conversation, _until_us(found)
        self._forget(conversation)
        size = AROUND_BYTES + len(data)
        if size > self._limit_bytes or until_us is None:
            return
        alike = _alike(asked, seat.member.visible_from_seq, found)
        first_seq, last_seq = found[0].seq, found[-1].seq
        self._kept[conversation] = Kept(
            data, asked.limit, seat.conversation, first_seq, last_seq, *alike, until_us
        )
        self._bytes += size
        while self._bytes > self._limit_bytes:
            self._forget(next(iter(self._kept)))

    def heard(self, conversation: ConversationId) -> None:
        """Something has happened there."""
        for reading in self._readings.get(conversation, ()):
            reading.is_overtaken = True
        self._forget(conversation)

    def _forget(self, conversation: ConversationId) -> None:
        kept = self._kept.pop(conversation, None)
        if kept is not None:
            self._bytes -= AROUND_BYTES + len(kept.data)

    def tell_size(self) -> None:
        BYTES.set(self._bytes)


def _alike(asked: Asked, visible_from: int, found: Sequence[Message]) -> tuple[int, int]:
    """The least and the greatest visible_from_seq of whoever is shown what somebody of this one was."""
    if len(found) == asked.limit:  # it does not reach back to what is hidden
        return 0, found[0].seq
    return visible_from, visible_from


def _until_us(messages: Sequence[Message]) -> int | None:
    """When the first of them disappears. None: somebody reacts to one, and sees it otherwise than others."""
    until_us = FOREVER_US
    for message in messages:
        if message.reaction_count:
            return None
        if message.expires_us is not None and message.deleted_us is None:
            until_us = min(until_us, message.expires_us)
    return until_us
