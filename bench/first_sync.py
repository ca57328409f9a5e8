"""First sync: what a client that holds nothing asks first; 1 000 conversations, 1 000 000 messages.

    PYTHONPATH=src python bench/first_sync.py                          # SQLite, in a fresh folder
    PYTHONPATH=src python bench/first_sync.py postgres://user@host/db  # an empty database

In this process, without HTTP: from the call of the rule to the bytes of the answer. Whoever asks has read
nothing (`unread`), everything (`read`), or none of a million messages of one conversation (`one`). Beside it,
what a socket that resumes costs: how all conversations stand.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import trio

from secureconnect.chat import shapes, store
from secureconnect.chat.listing.listing import Listing
from secureconnect.clock import now_us
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.identity import ConversationId, UserId
from seed import ROWS, Said, advance, analyse, begin, opened, people, put

CONVERSATIONS = 1_000
MESSAGES = 1_000  # of each
ROUNDS = 50
TEXT = "a message of a common length, such as people write them"


async def say(tx: Tx, where: ConversationId, senders: Sequence[UserId], first: int, count: int) -> None:
    now, said = now_us(), range(first, first + count)
    await put(tx, (Said(where, seq, senders[seq % len(senders)], TEXT, now) for seq in said))
    await advance(tx, where, said[-1], now)


async def fill(db: Database) -> tuple[UserId, UserId, UserId]:
    """Who has read nothing, who everything, and who one conversation of as many messages."""
    idle, keen, lone, *others = await db.write(people, 503)
    for number in range(CONVERSATIONS):
        friend = others[number % len(others)]
        members = [idle, friend] if number % 2 and number < len(others) else [idle, keen, friend]
        where = await db.write(begin, "direct" if len(members) == 2 else "group", members, now_us())
        await db.write(say, where, members[1:], 1, MESSAGES)
    where = await db.write(begin, "group", [lone, others[0], others[1]], now_us())
    for start in range(0, CONVERSATIONS * MESSAGES, ROWS):
        await db.write(say, where, others[:2], start + 1, ROWS)
    await db.write(read_all, keen)
    return idle, keen, lone


async def read_all(tx: Tx, user: UserId) -> None:
    await tx.run("UPDATE members SET last_read_seq = $2 WHERE user_id = $1", user, MESSAGES)


async def first_sync(listing: Listing, user: UserId) -> int:
    """Bytes of the answer."""
    lines = await listing.page(user, store.TOP, 100, first_sync=True)
    told = []
    for line in lines:
        shape = shapes.summary_shape(line.summary)
        shape.participants = [shapes.participant_shape(each, "offline") for each in line.people or ()]
        shape.messages = [shapes.message_shape(each) for each in line.newest or ()]
        told.append(shape)
    return len(msgspec.json.encode(told))


async def measure(name: str, act: Callable[[], Awaitable[int]]) -> None:
    took = []
    size = 0
    burnt = time.process_time()
    for _ in range(ROUNDS):
        began = time.perf_counter()
        size = await act()
        took.append((time.perf_counter() - began) * 1000)
    burnt = (time.process_time() - burnt) * 1000 / ROUNDS
    took.sort()
    half, least, most = took[ROUNDS // 2], took[0], took[-1]
    print(f"{name:<24} p50 {half:6.1f} ({least:.1f}–{most:.1f}) ms  CPU here {burnt:5.1f} ms  {size:>9,}")


async def main(url: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with opened(url, Path(folder)) as db:
            idle, keen, lone = await fill(db)
            if url is not None:
                await db.write(analyse)
            listing = Listing(ChatConfig(), db)
            for name, user in (("unread", idle), ("read", keen), ("one", lone)):

                async def sync(user: UserId = user) -> int:
                    return await first_sync(listing, user)

                async def stand(user: UserId = user) -> int:
                    return sum(each.unread_count for each in await db.read(store.standings, user))

                await measure(f"{name}: first sync, bytes", sync)
                await measure(f"{name}: standings, unread", stand)


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else None)
