"""What HTTP sees of search."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ...clock import from_iso
from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import Invalid, NotFound
from ...identity import ConversationId, UserId
from ..room import Chat
from ..shapes import Id, MessageShape, message_shape
from .question import Range, parse
from .search import Asked, Hit, read_position, write_position

LATEST_US = 253_402_300_800_000_000  # the year 10000, which no text of ours can say

Time = Annotated[str, Meta(max_length=40)]


class SearchQuery(Struct, frozen=True):
    """q: words that must all be there; those in quotes in a row; the last may be the beginning of one.
    Without conversation_id: in all of the caller's.  after, before: when it was sent, ISO-8601, UTC."""

    q: Annotated[str, Meta(min_length=1, max_length=200)]
    conversation_id: Id | None = None
    sender_id: Id | None = None
    after: Time | None = None
    before: Time | None = None
    limit: Annotated[int, Meta(ge=1, le=50)] = 20
    cursor: Annotated[str, Meta(max_length=200)] | None = None


class RangeShape(Struct):
    """In characters (code points), from 0; `end` is the first after it."""

    start: int
    end: int


class SnippetShape(Struct):
    """The part of the message around what was found.  ranges: in `text`."""

    text: str
    ranges: list[RangeShape]


class HitShape(Struct):
    """ranges: where in the message's content the words are, the first 50."""

    message: MessageShape
    ranges: list[RangeShape]
    snippet: SnippetShape


class HitList(Struct, frozen=True):
    """The best of the newest hundred first, then those before. There may be fewer than asked for, and more to
    come: next_cursor tells."""

    hits: list[HitShape]
    next_cursor: str | None


async def search_messages(room: Chat, call: Call) -> Reply:
    query: SearchQuery = call.query
    asked = Asked(
        parse(query.q),
        None if query.conversation_id is None else ConversationId(query.conversation_id),
        None if query.sender_id is None else UserId(query.sender_id),
        _time(query.after, "after"),
        _time(query.before, "before"),
        query.limit,
    )
    position = None if query.cursor is None else read_position(query.cursor)
    found = await room.search.find(call.caller.user_id, asked, position)
    cursor = None if found.next is None else write_position(found.next)
    return Reply(HitList([_hit(each) for each in found.hits], cursor))


def _time(text: str | None, field: str) -> int | None:
    if text is None:
        return None
    try:
        at_us = from_iso(text)
    except ValueError:
        raise Invalid("Give a time like 2026-01-19T05:25:00Z.", details={"field": field}) from None
    if not 0 <= at_us < LATEST_US:
        raise Invalid("That is too far away.", details={"field": field})
    return at_us


def _hit(hit: Hit) -> HitShape:
    shown = SnippetShape(hit.snippet.text, _ranges(hit.snippet.ranges))
    return HitShape(message_shape(hit.message), _ranges(hit.found.ranges), shown)


def _ranges(ranges: tuple[Range, ...]) -> list[RangeShape]:
    return [RangeShape(*each) for each in ranges]


ROUTES: tuple[Route, ...] = (
    Route(
        "GET", "/v1/messages/search", search_messages, Audience.MEMBER, Rate.SEARCH,
        "Messages by their words; encrypted conversations are not searched",
        query=SearchQuery, answer=HitList, errors=(NotFound,),
    ),
)  # fmt: skip
