"""Keeps the index beside what is said: follows each conversation's changes, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
import trio

from ... import metrics
from ...clock import MINUTE_US, SECOND_US
from ...config import ChatConfig
from ...deps.contracts import Database, Tx, UniqueViolation
from ...identity import ConversationId
from ...periodic import every, modestly
from .. import store as conversations
from ..catchup import OVERLAP_US
from ..store import Conversation
from . import store
from .store import Behind, Entry, News
from .words import words

log = structlog.get_logger(module="chat")

INDEXED = metrics.counter("secureconnect_chat_indexed_total", "Messages put into the index that is searched.")

CONVERSATIONS = 50  # in one batch
IDLE_SHARE = 0.7  # of the time, while nothing is said
TIDY_EVERY_US = MINUTE_US
PAGES = 64  # of the index merged in one unit, which holds SQLite's writer for some milliseconds
MERGES = 16  # such units in one pass


class Index:
    """Every node does this; whoever comes second to a batch finds it done.

    rounds: how often this node's writer has stored something.
    """

    def __init__(self, config: ChatConfig, db: Database, rounds: Callable[[], int]) -> None:
        self._config = config
        self._db = db
        self._rounds = rounds
        self._since_us = 0  # at first every conversation is looked at
        self._page = (0, conversations.NO_ID)
        self._swept_us = 0
        self._is_left = False
        self._tidied_us = 0
        self._splitting = trio.CapacityLimiter(1)

    async def pass_forever(self) -> None:
        await every(self._config.search_pass_s, self.pass_once, log, "search_index_behind")

    async def pass_once(self) -> bool:
        """Take in what happened since, up to `search_units` batches, and tidy up after what is gone. False
        when something is left to do. Safe to repeat, and on every node."""
        try:
            is_whole = await self._follow()
        except UniqueViolation:  # two nodes took the same entry at the same moment: the next attempt sees it
            log.info("search_entry_taken")
            is_whole = False
        return is_whole and await self._tidy(self._db.now_us())

    async def _follow(self) -> bool:
        """Sweep over the conversations that moved. The next sweep begins where this one did, less an overlap,
        if nothing was left over; however much is said meanwhile."""
        since_us = min(self._since_us, self._db.now_us() - OVERLAP_US)  # a clock may have been set back
        start = (since_us, conversations.NO_ID)
        share, rounds = IDLE_SHARE, self._rounds()
        for _ in range(self._config.search_units):
            if self._page <= start:
                self._page, self._swept_us, self._is_left = start, self._db.now_us(), False
            if rounds != (rounds := self._rounds()):
                share = self._config.background_share
            if await modestly(share, self._go_on):
                continue
            self._page = (0, conversations.NO_ID)
            if not self._is_left:
                self._since_us = self._swept_us - OVERLAP_US
                return True
        return False

    async def _go_on(self) -> bool:
        """Take in the next batch of the sweep. False when it is at its end."""
        batch = await self._db.read(self._read, *self._page)
        if not batch:
            return False
        self._is_left |= not await self._take_in(batch)
        last = batch[-1][0]
        self._page = (last.touched_us, last.conversation_id)
        return True

    async def _read(self, tx: Tx, since_us: int, after: str) -> list[tuple[Behind, News]]:
        """What the next conversations that are behind have to take in, `search_batch` messages in all. One
        with more of them has its next turn when all others had theirs."""
        batch: list[tuple[Behind, News]] = []
        room = self._config.search_batch
        for each in await store.behind(tx, since_us, after, CONVERSATIONS):
            batch.append((each, await store.news(tx, each, room)))
            room -= len(batch[-1][1].seqs)
            if room <= 0:
                break
        return batch

    async def _take_in(self, batch: Sequence[tuple[Behind, News]]) -> bool:
        """Whether nothing of these conversations is left over."""
        prepared = await trio.to_thread.run_sync(_split, [news for _, news in batch], limiter=self._splitting)
        is_whole, added = await self._db.write(self._take, prepared)
        INDEXED.inc(added)
        return is_whole

    async def _take(self, tx: Tx, prepared: Sequence[tuple[News, Sequence[Entry]]]) -> tuple[bool, int]:
        """Whether nothing is left over, and how many messages were put in. Positions are held in the order of
        ids, as on every node."""
        is_whole, added = True, 0
        for news, entries in sorted(prepared):
            position = await store.lock(tx, news.conversation_id)
            conversation = await conversations.get(tx, news.conversation_id)
            if conversation is None:  # its deletion is done with
                await store.forget(tx, news.conversation_id)
            elif position != news.position:  # another node was here
                is_whole = False
            else:
                is_done, count = await self._take_one(tx, conversation, news, entries)
                is_whole &= is_done
                added += count
        return is_whole, added

    async def _take_one(
        self, tx: Tx, conversation: Conversation, news: News, entries: Sequence[Entry]
    ) -> tuple[bool, int]:
        """What is encrypted, or gone, has no entries; what is left of it goes a batch at a time."""
        name, batch, now_us = news.conversation_id, self._config.search_batch, self._db.now_us()
        first_seq = store.LAST_SEQ if conversation.is_e2ee_enabled else conversation.first_seq
        if not await store.drop_before(tx, name, first_seq, batch, now_us):
            return False, 0
        if conversation.is_e2ee_enabled:
            await store.move(tx, name, conversation.last_change)
            return True, 0
        await store.remove(tx, await store.of_seqs(tx, name, news.seqs), now_us)
        kept = [each for each in entries if each.seq >= first_seq]
        await store.put(tx, kept)
        await store.move(tx, name, news.upto)
        return news.is_all, len(kept)

    async def _tidy(self, now_us: int) -> bool:
        """What deleted words leave in the file, looked for once a minute."""
        purge_us = self._config.search_purge_s * SECOND_US
        if now_us - self._tidied_us < min(TIDY_EVERY_US, purge_us):
            return True
        for _ in range(MERGES):
            if not await self._db.write(store.merge, now_us - purge_us, PAGES):
                self._tidied_us = now_us
                return True
        return False


def _split(batch: Sequence[News]) -> list[tuple[News, Sequence[Entry]]]:
    return [(news, [_entry(news.conversation_id, *said) for said in news.said]) for news in batch]


def _entry(conversation: ConversationId, seq: int, sent_us: int, content: str) -> Entry:
    entry_id = store.entry_of(conversation, seq, sent_us)
    return Entry(entry_id, conversation, seq, [word.text for word in words(content)])
