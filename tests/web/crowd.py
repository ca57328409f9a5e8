"""Somebody with a great many conversations, and what it costs their page."""

from __future__ import annotations

from dataclasses import dataclass

import playwright.sync_api as playwright
import trio

from kit.server import Server
from secureconnect.chat import store, tallies
from secureconnect.clock import now_us
from secureconnect.deps.contracts import Tx
from secureconnect.deps.policy import open_database
from secureconnect.identity import ConversationId, UserId, new_id

from .people import Account, People, Person

CONVERSATIONS = 1_000
LINES = 20  # in each of the busy ones
BUSY = 10
LONG = 10_000  # lines of the longest

_MESSAGE = (
    "INSERT INTO messages (message_id, conversation_id, seq, change, sender_id, client_message_id,"
    " message_type, content, is_encrypted, file_ids, sent_at)"
    " VALUES ($1, $2, $3, $3, $4, $1, 'text', $5, $6, '[]', $7)"
)
_HEAD = (
    "UPDATE conversations SET last_seq = $2, last_change = $2, touched_at = $3, tallied_seq = $4"
    " WHERE conversation_id = $1"
)

# When the first rows of the list came, in milliseconds since the page was asked for.
WATCH_LIST = """new MutationObserver((_, observer) => {
  if (document.querySelectorAll('nav a[href^="/c/"]').length < 10) return;
  window.listedMs = performance.now();
  observer.disconnect();
}).observe(document, { childList: true, subtree: true })"""


@dataclass
class Crowd:
    """ann: who has them.  busy: some with messages in them, all read.  long: one with very many."""

    server: Server
    ann: Account
    busy: list[str]
    long: str


def gather(server: Server, ann: Account, bob: Account, long: int = LONG) -> Crowd:
    """Written into the database beside the running server, which has not heard of these conversations.

    long: so many lines has the longest.
    """
    groups = [new_id() for _ in range(CONVERSATIONS)]
    lines = dict.fromkeys(groups[:BUSY], LINES) | {groups[-1]: long}

    async def unit(tx: Tx) -> None:
        for number, group in enumerate(groups):
            await _make(tx, ConversationId(group), f"group {number}", [ann, bob], lines.get(group, 0))

    async def write() -> None:
        async with open_database(server.config) as db:
            await db.write(unit)

    trio.run(write)
    return Crowd(server, ann, groups[:BUSY], groups[-1])


async def _make(tx: Tx, where: ConversationId, title: str, people: list[Account], lines: int) -> None:
    users = [UserId(each.user_id) for each in people]
    new = store.Conversation(
        where,
        "group",
        title,
        None,
        users[0],
        now_us(),
        now_us(),
        0,
        0,
        now_us(),
        1,
        0,
        False,
        False,
        0,
        False,
    )
    await store.create(tx, new, None)
    await store.join(tx, where, [store.Member(user, "member", now_us(), 1, lines) for user in users])
    said = range(1, lines + 1)
    rows = [(new_id(), where, seq, users[1], f"line {seq} of {title}", False, now_us()) for seq in said]
    await tx.many(_MESSAGE, rows)
    tallied = 0
    while (until := await tallies.take(tx, where, tallied, lines)) > tallied:
        tallied = until
    await tx.run(_HEAD, where, lines, now_us(), tallied)


def listed_s(person: Person) -> float:
    """How long the list took to be there since the page was asked for; with WATCH_LIST as an init script."""
    assert person.waits(lambda: person.page.evaluate("window.listedMs !== undefined"))
    return float(person.page.evaluate("window.listedMs")) / 1_000


def in_use(debugger: playwright.CDPSession) -> dict[str, int]:
    """Bytes, nodes and listeners that are left after a collection."""
    for _ in range(2):
        debugger.send("HeapProfiler.collectGarbage")
    counted = debugger.send("Memory.getDOMCounters")
    heap = debugger.send("Runtime.getHeapUsage")["usedSize"]
    return {"heap": heap, "nodes": counted["nodes"], "listeners": counted["jsEventListeners"]}


def arrives(people: People, crowd: Crowd) -> Person:
    """At a device that knows nothing yet; returns when it knows all conversations."""
    ann = people.device(crowd.server, crowd.ann)
    ann.context.add_init_script(WATCH_LIST)
    ann.at("/").comes_to(f"app.state.order.peek().length === {CONVERSATIONS}")
    return ann
