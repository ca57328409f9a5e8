"""The rules of searching: who finds what, in which order, and how much of it at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import trio

from ... import metrics
from ...config import ChatConfig
from ...deps.contracts import Database, Tx
from ...errors import DeadlineExceeded, Invalid, Overloaded
from ...identity import ConversationId, UserId
from ..conversations import require_seat
from ..reactions import store as reactions
from ..store import Message
from . import store
from .question import BEST, Found, Snippet, Term, find, snippet

SEARCH_S = metrics.histogram(
    "secureconnect_chat_search_seconds", "How long a search took, its wait included."
)

WINDOW = 100  # messages that are ranked among each other
WINDOWS = 5  # looked at for one page
WINDOW_CHARS = 500_000  # of a window's messages; one with more is smaller
PLACES = 64  # conversations that the index is asked for by name; whoever is in more is asked for all


class Asked(NamedTuple):
    """conversation: None looks in all that the caller is in.  after_us, before_us: when it was sent."""

    terms: tuple[Term, ...]
    conversation: ConversationId | None
    sender: UserId | None
    after_us: int | None
    before_us: int | None
    limit: int


class Position(NamedTuple):
    """After which hit a page begins.  last: the newest entry of the window it stands in."""

    last: int
    rank: int
    entry_id: int


class Hit(NamedTuple):
    message: Message
    found: Found
    snippet: Snippet


class Results(NamedTuple):
    """next: None when there are no more."""

    hits: Sequence[Hit]
    next: Position | None


class _Ranked(NamedTuple):
    rank: int
    entry_id: int
    hit: Hit

    @property
    def order(self) -> tuple[int, int]:
        """The best first, then the newest."""
        return -self.rank, -self.entry_id


class Search:
    def __init__(self, config: ChatConfig, db: Database) -> None:
        self._config = config
        self._db = db
        self._turns = trio.CapacityLimiter(config.searches_at_once)
        self._ranking = trio.CapacityLimiter(config.searches_at_once)

    async def find(self, caller: UserId, asked: Asked, after: Position | None) -> Results:
        """The newest hundred that have all the terms, the best of them first; then those before.

        Raises NotFound for strangers to the conversation; Overloaded when too many search; DeadlineExceeded.
        """
        if self._turns.statistics().tasks_waiting >= self._config.searches_waiting:
            raise Overloaded("Too many people search at the same time.", retry_after_s=1)
        began = trio.current_time()
        with trio.move_on_after(self._config.search_s):
            try:
                async with self._turns:
                    return await self._find(caller, asked, after)
            finally:
                SEARCH_S.observe(trio.current_time() - began)
        raise DeadlineExceeded("The search took too long: ask for more words, or in one conversation.")

    async def _find(self, caller: UserId, asked: Asked, after: Position | None) -> Results:
        hits: list[_Ranked] = []
        last = store.LAST_ENTRY if after is None else after.last
        for _ in range(WINDOWS):
            window, is_cut = _cut(await self._db.read(self._window, caller, asked, last))
            ranked = await trio.to_thread.run_sync(_rank, asked.terms, window, limiter=self._ranking)
            if window and last == store.LAST_ENTRY:
                last = window[0][0]  # what is said from now on does not move the pages
            if after is not None and after.last == last:
                ranked = [each for each in ranked if each.order > (-after.rank, -after.entry_id)]
            room = asked.limit - len(hits)
            hits += ranked[:room]
            if len(ranked) > room:
                return await self._page(caller, hits, Position(last, hits[-1].rank, hits[-1].entry_id))
            if not is_cut:
                return await self._page(caller, hits, None)
            last = window[-1][0] - 1
            if len(hits) == asked.limit:
                break
        return await self._page(caller, hits, Position(last, BEST, store.LAST_ENTRY))

    async def _window(self, tx: Tx, caller: UserId, asked: Asked, last: int) -> list[tuple[int, Message]]:
        if asked.conversation is not None:
            seat = await require_seat(tx, asked.conversation, caller)
            places = [] if seat.conversation.is_e2ee_enabled else [asked.conversation]
        else:
            places = await store.plain_conversations(tx, caller, PLACES + 1)
        if not places:
            return []
        first = 0 if asked.after_us is None else store.entry_at(asked.after_us)
        if asked.before_us is not None:
            last = min(last, store.entry_at(asked.before_us) - 1)
        few = places if len(places) <= PLACES else []
        return await store.find(
            tx, caller, asked.terms, few, first, last, asked.sender, WINDOW, self._db.now_us()
        )

    async def _page(self, caller: UserId, hits: Sequence[_Ranked], after: Position | None) -> Results:
        found = [each.hit for each in hits]
        if any(each.message.reaction_count for each in found):
            found = await self._db.read(_with_reactions, found, caller)
        return Results(found, after)


def read_position(text: str) -> Position:
    """Raises Invalid."""
    numbers = text.split(".")
    if len(numbers) != len(Position._fields) or not all(
        each.isascii() and each.isdigit() and len(each) < 20 and int(each) <= store.LAST_ENTRY
        for each in numbers
    ):
        raise Invalid("This cursor is not one of ours.", details={"field": "cursor"})
    return Position(*map(int, numbers))


def write_position(position: Position) -> str:
    return ".".join(map(str, position))


def _cut(rows: Sequence[tuple[int, Message]]) -> tuple[Sequence[tuple[int, Message]], bool]:
    """What is ranked together, and whether there may be more before it."""
    room = WINDOW_CHARS
    for count, (_, message) in enumerate(rows):
        room -= len(message.content)
        if room < 0 and count:
            return rows[:count], True
    return rows, len(rows) == WINDOW


def _rank(terms: Sequence[Term], window: Sequence[tuple[int, Message]]) -> list[_Ranked]:
    """The best first, then the newest. What was edited a moment ago may have none of the words any more."""
    ranked = [
        _Ranked(found.rank, entry_id, Hit(message, found, snippet(message.content, found.ranges)))
        for entry_id, message in window
        if (found := find(terms, message.content)) is not None
    ]
    ranked.sort(key=lambda each: each.order)
    return ranked


async def _with_reactions(tx: Tx, hits: Sequence[Hit], viewer: UserId) -> list[Hit]:
    messages = await reactions.with_reactions(tx, [each.message for each in hits], viewer)
    return [each._replace(message=message) for each, message in zip(hits, messages, strict=True)]
