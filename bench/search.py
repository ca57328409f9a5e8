"""Search over many messages: how fast they are indexed, how long questions take, how large the index is.

    PYTHONPATH=src python bench/search.py [postgres://user@127.0.0.1:5432/empty] [messages]

Without an address: SQLite in a folder that is removed afterwards. The database must be empty. Words are drawn
as in a language: few are in most messages, most in few.
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio

from secureconnect.chat.search.index import Index
from secureconnect.chat.search.question import parse
from secureconnect.chat.search.search import Asked, Search
from secureconnect.clock import SECOND_US, now_us
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.identity import ConversationId, UserId
from seed import FILE, ROWS, Said, advance, analyse, begin, opened, people, put

CONVERSATIONS = 1_000
PEOPLE_CONVERSATIONS = (1, 20, 1_000)  # how many each of those who ask is in
VOCABULARY = 30_000
WORDS = 12  # of a message
QUESTIONS = 200  # of each kind

dice = random.Random(1)
SYLLABLES = [a + b for a in "bdfgklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "ou")]


def vocabulary() -> list[str]:
    """The most frequent first, the frequent ones short."""
    sizes = itertools.chain(itertools.repeat(2, 200), itertools.repeat(3, 3_000), itertools.repeat(4))
    made: dict[str, None] = {}
    while len(made) < VOCABULARY:
        made["".join(dice.choices(SYLLABLES, k=next(sizes)))] = None
    return list(made)


WORDS_OF = vocabulary()
WEIGHTS = list(itertools.accumulate(1 / (rank + 3) for rank in range(VOCABULARY)))


def text() -> str:
    return " ".join(dice.choices(WORDS_OF, cum_weights=WEIGHTS, k=WORDS))


def rank(low: int, high: int) -> str:
    """A word that is neither more nor less frequent than those."""
    return WORDS_OF[dice.randrange(low, high)]


KINDS: dict[str, Callable[[], str]] = {
    "in every third": lambda: f'"{rank(0, 3)}"',
    "usual": lambda: f'"{rank(50, 500)}"',
    "rare": lambda: f'"{rank(10_000, 30_000)}"',
    "two usual": lambda: f"{rank(50, 500)} {rank(50, 500)}",
    "in a row": lambda: f'"{rank(0, 50)} {rank(0, 50)}"',
    "begun, 2 letters": lambda: rank(50, 500)[:2],
    "begun, 4 letters": lambda: rank(500, 30_000)[:4],
    "nowhere": lambda: "zzz",
}


async def fill(db: Database, messages: int) -> tuple[list[ConversationId], list[UserId]]:
    members = await db.write(people, len(PEOPLE_CONVERSATIONS))
    conversations = await db.write(_converse, members)
    began_us = now_us() - messages * SECOND_US

    def line(number: int) -> Said:
        round_, place = divmod(number, CONVERSATIONS)
        return Said(conversations[place], round_ + 1, members[-1], text(), began_us + number * SECOND_US)

    for start in range(0, messages, ROWS):
        await db.write(put, [line(number) for number in range(start, min(start + ROWS, messages))])
    for where in conversations:
        await db.write(advance, where, messages // CONVERSATIONS, now_us())
    return conversations, members


async def _converse(tx: Tx, who: list[UserId]) -> list[ConversationId]:
    """Each of them is in as many as PEOPLE_CONVERSATIONS says, of the same ones."""
    now = now_us()
    members = list(zip(who, PEOPLE_CONVERSATIONS, strict=True))
    return [
        await begin(tx, "group", [user for user, count in members if number < count], now)
        for number in range(CONVERSATIONS)
    ]


async def sizes(tx: Tx) -> None:
    if tx.dialect == "sqlite":
        return
    for name in ("messages", "search_entries", "search_index", "search_positions"):
        row = await tx.one("SELECT pg_total_relation_size(CAST(CAST($1 AS text) AS regclass))", name)
        assert row is not None
        print(f"{name:<20} {row[0] / 1e6:>8.0f} MB")


async def question(search: Search, caller: UserId, where: ConversationId | None, kind: str) -> None:
    took: list[float] = []
    hits = 0
    for _ in range(QUESTIONS):
        asked = Asked(parse(KINDS[kind]()), where, None, None, None, 20)
        began = time.perf_counter()
        hits += len((await search.find(caller, asked, None)).hits)
        took.append(time.perf_counter() - began)
    took.sort()
    half, most = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
    print(f"{kind:<18} {hits / QUESTIONS:>5.1f} hits  p50 {half:>7.1f} ms  p99 {most:>7.1f} ms", flush=True)


def megabytes(folder: Path) -> float:
    """Of SQLite's database there, and of its log."""
    return sum(each.stat().st_size for each in folder.glob(f"{FILE}*")) / 1e6


async def main(url: str | None, messages: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with opened(url, folder) as db:
            await measure(db, folder, messages)


async def measure(db: Database, folder: Path, messages: int) -> None:
    config = ChatConfig()
    began = time.perf_counter()
    conversations, members = await fill(db, messages)
    print(f"{messages} messages put in: {messages / (time.perf_counter() - began):.0f}/s", flush=True)
    before, began = megabytes(folder), time.perf_counter()
    burnt = time.process_time()
    index = Index(config, db, lambda: 0)
    while not await index.pass_once():
        pass
    took, burnt = time.perf_counter() - began, time.process_time() - burnt
    print(f"indexed: {messages / took:.0f}/s, CPU of this process {burnt / messages * 1e6:.0f} us each")
    await db.write(analyse)
    print(f"without the index {before:.0f} MB, with it {megabytes(folder):.0f} MB")
    await db.read(sizes)
    search = Search(config, db)
    for person, count in zip(members, PEOPLE_CONVERSATIONS, strict=True):
        print(f"\nin all of one's {count} conversations")
        for kind in KINDS:
            await question(search, person, None, kind)
    print("\nin one of them")
    for kind in KINDS:
        await question(search, members[-1], conversations[7], kind)


if __name__ == "__main__":
    address = next((each for each in sys.argv[1:] if "://" in each), None)
    count = next((int(each) for each in sys.argv[1:] if each.isdigit()), 1_000_000)
    trio.run(main, address, count)
