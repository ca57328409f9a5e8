"""A seeded storm over everything at once, against a simple model of what each client must hold in the end.

Two rooms on one database, a bus that loses parcels, a database that fails before and after its commits, rooms
that crash; people write, edit, delete, read, join and leave; clients are cut off and come back anywhere. Then
all is quiet, and what each client put together from its sockets is compared with the tables.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.pledges import TOPIC, Accepted
from secureconnect.chat.sockets import ChatQuery, serve_chat
from secureconnect.clock import DAY_US, now_us
from secureconnect.config import ChatConfig, JournalConfig
from secureconnect.deps.contracts import Bus, Database, Tx
from secureconnect.deps.journal import FileJournal
from secureconnect.deps.memory import MemoryBus
from secureconnect.edge import Call, Close, Frame, SocketClosed
from secureconnect.errors import NotFound, OutcomeUnknown, Problem, Unavailable
from secureconnect.identity import ConversationId, MessageId, NodeId, UserId, new_id

from .rig import (
    HISTORY,
    Json,
    MemorySocket,
    history,
    make_group,
    make_people,
    principal_of,
    resume_from,
    signals_beside,
)
from .test_nodes import LossyBus

STEPS = 60  # of each person
MOST_STEPS = 600  # until everything that can befall a message has befallen one
QUIET_S = 30  # until everybody holds everything, once nothing happens any more
JOURNAL = JournalConfig(retry_s=0.02)
CONFIG = ChatConfig(append_batch=8, catch_up_ms=100, resume_changes=30, resume_total=100, resume_held=4)

_LOG = {
    "sqlite": (
        "CREATE TABLE log (conversation_id, change, kind, ref, seq, data)",
        "CREATE TRIGGER log_message AFTER INSERT ON messages BEGIN INSERT INTO log VALUES"
        " (new.conversation_id, new.change, 'chat', new.message_id, new.seq, NULL); END",
        "CREATE TRIGGER log_change AFTER INSERT ON changes BEGIN INSERT INTO log VALUES"
        " (new.conversation_id, new.change, new.kind, new.ref, new.seq, new.data); END",
    ),
    "postgres": (
        "CREATE TABLE log (conversation_id uuid, change bigint, kind text, ref uuid, seq bigint, data jsonb)",
        "CREATE FUNCTION log_message() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES"
        " (new.conversation_id, new.change, 'chat', new.message_id, new.seq, NULL); RETURN new; END $$",
        "CREATE FUNCTION log_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES"
        " (new.conversation_id, new.change, new.kind, new.ref, new.seq, new.data); RETURN new; END $$",
        "CREATE TRIGGER log_message AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION log_message()",
        "CREATE TRIGGER log_change AFTER INSERT ON changes FOR EACH ROW EXECUTE FUNCTION log_change()",
    ),
}


class FlakyDb:
    """A database that is away now and then, sometimes just after it has committed.  loss: how often."""

    def __init__(self, inner: Database, chance: random.Random) -> None:
        self._inner = inner
        self._chance = chance
        self._spell = 0
        self.loss = 0.0

    def now_us(self) -> int:
        return self._inner.now_us()

    async def write(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._fail(Unavailable)
        value = await self._inner.write(unit, *args, **kwargs)
        self._fail(OutcomeUnknown)
        return value

    relieve = write

    async def read(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._fail(Unavailable)
        return await self._inner.read(unit, *args, **kwargs)

    def _fail(self, problem: type[Problem]) -> None:
        if self._chance.random() < self.loss:
            self._spell = self._chance.randrange(40)  # calls that find it still away
            raise problem
        if self._spell > 0 and self.loss:
            self._spell -= 1
            raise Unavailable


class Place:
    """A node on which a room runs, crashes, and runs again."""

    def __init__(self, db: FlakyDb, bus: Bus, journal: FileJournal) -> None:
        self.db = db
        self.journal = journal
        self._bus = bus
        self._room: Chat | None = None
        self._up = trio.Event()
        self._crash = trio.CancelScope()
        self._sockets: list[MemorySocket] = []

    async def run(self) -> None:
        while True:
            signals = signals_beside(self._bus)
            room = Chat(CONFIG, self.db, self._bus, signals, HISTORY, NodeId(new_id()), self.journal, JOURNAL)
            with trio.CancelScope() as self._crash:
                async with trio.open_nursery() as nursery:
                    with suppress(Unavailable):  # the database was away at the start
                        await nursery.start(_runner(room))
                        self._room = room
                        self._up.set()
                        await trio.sleep_forever()
            if self._room is not None:
                self._room, self._up = None, trio.Event()
            for socket in self._sockets:
                socket.close(Close.RESTART, "come back")
            self._sockets = []

    def crash(self) -> None:
        self._crash.cancel()

    async def room(self) -> Chat:
        """The one that runs, once one does."""
        while self._room is None:
            await self._up.wait()
        return self._room

    def dial(self, nursery: trio.Nursery, room: Chat, socket: MemorySocket) -> None:
        """Serve a socket that must resume."""
        self._sockets.append(socket)
        call = Call("request", "", float("inf"), socket.principal, query=ChatQuery(resume=True))

        async def serve() -> None:
            with suppress(SocketClosed, Problem):
                await serve_chat(room, call, socket)
            socket.close(Close.NORMAL, "")

        nursery.start_soon(serve)


class SlowSocket(MemorySocket):
    """One that may take its time with what it is sent, so that much happens meanwhile."""

    def __init__(self, user: UserId, place: Place, chance: random.Random) -> None:
        super().__init__(principal_of(user))
        self._place = place
        self._chance = chance
        self._most = chance.choice((0, 7))  # that it lets pass before it takes the next

    async def send(self, frame: Frame) -> None:
        for _ in range(self._chance.randint(0, self._most)):
            await self._place.db.read(_nothing)
        await super().send(frame)


async def _nothing(_: Tx) -> None:
    """Takes a while."""


def _runner(room: Chat) -> Callable[..., Any]:
    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await room.run(task_status=task_status)

    return run


class Held:
    """What a client holds of a conversation.  base: where it read everything; changes: what came since."""

    def __init__(self, base: int, messages: dict[int, tuple[str, bool]]) -> None:
        self.base = base
        self.position = base
        self.changes: list[int] = []
        self.messages = messages


class Client:
    """One device: it follows its conversations wherever it can reach a room."""

    def __init__(self, user: UserId, places: list[Place], chance: random.Random) -> None:
        self.user = user
        self.held: dict[str, Held] = {}
        self.heard: list[tuple[str, int, int | None]] = []  # (conversation, change, seq), as they came
        self.resumed: Mapping[str, Json] | None = None
        self.provisional = 0
        self._places = places
        self._chance = chance

    async def follow(self, storm: trio.CancelScope) -> None:
        """Be cut off and come back until the storm is over; then stay, for as long as one can."""
        while True:
            frames = self._chance.randrange(120)

            def is_enough(seen: int, frames: int = frames) -> bool:
                return seen >= frames and not storm.cancel_called

            await self._connect(is_enough)

    async def look(self) -> None:
        """Come back once more."""
        self.resumed = None
        await self._connect(lambda _: self.resumed is not None)

    async def _connect(self, is_enough: Callable[[int], bool]) -> None:
        """One connection, until it closes or is enough.  is_enough: is given the number of frames seen."""
        place = self._chance.choice(self._places)
        room = await place.room()
        async with trio.open_nursery() as nursery:
            socket = SlowSocket(self.user, place, self._chance)
            place.dial(nursery, room, socket)
            resume_from(socket, {name: each.position for name, each in self.held.items()})
            seen = 0
            last: dict[str, int] = {}
            while seen < len(socket.seen) or (socket.code is None and not is_enough(seen)):
                if seen < len(socket.seen):
                    await self._take(socket.seen[seen], room, last)
                    seen += 1
                else:
                    await socket.wait_moved()
            nursery.cancel_scope.cancel()

    async def _take(self, frame: Json, room: Chat, last: dict[str, int]) -> None:
        kind = frame["type"]
        if kind == "gap":
            last[frame["conversation_id"]] = frame["change"]
            await self._read_again(room, frame["conversation_id"], frame["change"])
        elif kind == "resumed":
            self.resumed = frame["conversations"]
            for name in set(self.held) - set(frame["conversations"]):
                del self.held[name]
            for name, head in frame["conversations"].items():
                if name not in self.held:
                    await self._read_again(room, name, head["change"])
                elif head["change"] > self.held[name].position:
                    self.held[name].position = head["change"]
        elif kind == "chat" and frame.get("provisional"):
            self.provisional += 1
        elif "change" in frame:
            name = frame.get("conversation_id") or frame["conversation"]["conversation_id"]
            change = frame["change"]
            assert change > last.get(name, 0), f"{kind} {change} came twice or out of order"
            last[name] = change
            await self._apply(frame, room, name, change)

    async def _apply(self, frame: Json, room: Chat, name: str, change: int) -> None:
        kind = frame["type"]
        self.heard.append((name, change, frame.get("seq")))
        mine = kind in ("user_joined", "user_left") and frame["user"]["user_id"] == self.user
        if mine and kind == "user_left":
            self.held.pop(name, None)
            return
        held = self.held.get(name)
        if held is None or mine:
            await self._read_again(room, name, change)
            return
        assert change > held.position, f"{kind} {change} came though {held.position} was held"
        held.position = change
        held.changes.append(change)
        if kind in ("chat", "message_edited"):
            held.messages[frame["seq"]] = (frame["content"], frame["deleted_at"] is not None)
        elif kind == "message_deleted":
            held.messages[frame["seq"]] = ("", True)

    async def _read_again(self, room: Chat, name: str, base: int) -> None:
        self.held.pop(name, None)
        while True:
            try:
                found = await history(room, self.user, ConversationId(name))
            except NotFound:
                return
            except Unavailable:
                continue
            self.held[name] = Held(
                base, {each.seq: (each.content, each.deleted_us is not None) for each in found}
            )
            return


class Stay(NamedTuple):
    """One membership.  joined, left: changes between which it lasted."""

    joined: int
    visible_from: int
    left: float


class Truth:
    """What the tables say."""

    def __init__(self) -> None:
        self.log: dict[str, list[tuple[Any, ...]]] = {}
        self.stays: dict[tuple[str, str], list[Stay]] = {}
        self.messages: dict[str, dict[int, tuple[Any, ...]]] = {}
        self.heads: dict[str, tuple[int, int, int]] = {}
        self.members: dict[tuple[str, str], tuple[int, int]] = {}

    @classmethod
    async def read(cls, db: Database, founders: Mapping[ConversationId, list[UserId]]) -> Truth:
        truth = cls()
        for founded, users in founders.items():
            for user in users:
                truth.stays[founded, user] = [Stay(0, 1, float("inf"))]

        async def unit(tx: Tx) -> None:
            for row in await tx.all(
                "SELECT conversation_id, change, kind, ref, seq,"
                " CAST(data->>'visible_from_seq' AS bigint) FROM log"
                " ORDER BY conversation_id, change"
            ):
                truth.log.setdefault(row[0], []).append(row[1:])
            for row in await tx.all(
                "SELECT conversation_id, seq, content, deleted_at IS NOT NULL, sender_id, message_type"
                " FROM messages"
            ):
                truth.messages.setdefault(row[0], {})[row[1]] = row[2:]
            for row in await tx.all(
                "SELECT conversation_id, last_seq, last_change, first_seq FROM conversations"
            ):
                truth.heads[row[0]] = (row[1], row[2], row[3])
            for row in await tx.all(
                "SELECT conversation_id, user_id, visible_from_seq, last_read_seq FROM members"
            ):
                truth.members[row[0], row[1]] = (row[2], row[3])

        await db.read(unit)
        for name, rows in truth.log.items():
            for change, kind, ref, _, visible_from in rows:
                stays = truth.stays.setdefault((name, ref), []) if kind.startswith("user_") else []
                if kind == "user_joined":
                    stays.append(Stay(change, visible_from, float("inf")))
                elif kind == "user_left":
                    stays[-1] = stays[-1]._replace(left=change)
        return truth

    def lacks(self, client: Client) -> str | None:
        """What the client holds wrongly, or not yet."""
        mine = {name for name, user in self.members if user == client.user}
        if set(client.held) != mine:
            return f"it holds {set(client.held)}, and is a member of {mine}"
        for name, held in client.held.items():
            visible_from, _ = self.members[name, client.user]
            wanted = [
                change
                for change, _, _, seq, _ in self.log[name]
                if change > held.base and (seq is None or seq >= visible_from)
            ]
            if held.changes != wanted:
                lost, extra = set(wanted) - set(held.changes), set(held.changes) - set(wanted)
                return f"{name}: after {held.base} it lacks {lost} of {wanted[-1:]}, and has {extra} too many"
            first = max(visible_from, self.heads[name][2])
            kept = {seq: row[:2] for seq, row in self.messages.get(name, {}).items() if seq >= first}
            seen = {seq: (text, int(gone)) for seq, (text, gone) in held.messages.items() if seq >= first}
            if seen != kept:
                return f"{name}: it shows {seen}, not {kept}"
        return None

    def may_see(self, user: UserId, name: str, change: int, seq: int | None) -> bool:
        return any(
            change <= stay.left and (seq is None or seq >= stay.visible_from)
            for stay in self.stays.get((name, user), ())
        )

    def unread(self, name: str, user: UserId) -> int:
        visible_from, read = self.members[name, user]
        return sum(
            seq > read and seq >= visible_from and not gone and sender != user and kind != "system"
            for seq, (_, gone, sender, kind) in self.messages.get(name, {}).items()
        )


class Storm:
    """What the people do, and what befalls the rooms."""

    def __init__(
        self, db: Database, people: list[UserId], places: list[Place], chance: random.Random
    ) -> None:
        self.people = people
        self._db = db
        self.acked: dict[str, tuple[MessageId, int]] = {}
        self.accepted = 0
        self._places = places
        self._chance = chance

    async def live(
        self, me: UserId, conversations: list[ConversationId], is_whole: Callable[[], bool]
    ) -> None:
        mine: list[MessageId] = []
        for number in range(MOST_STEPS):
            if number >= STEPS and is_whole():
                break
            where = self._chance.choice(conversations)
            try:
                await self._act(me, where, mine, number)
            except Problem:
                await trio.lowlevel.checkpoint()

    async def _act(self, me: UserId, where: ConversationId, mine: list[MessageId], number: int) -> None:
        room = await self.room()
        lot = self._chance.random()
        if lot < 0.50:
            await self._say(me, where, mine, str(number))
        elif lot < 0.58 and mine:
            await room.messages.edit(me, self._chance.choice(mine), f"{number}, edited")
        elif lot < 0.63 and mine:
            await room.messages.delete(me, self._chance.choice(mine))
        elif lot < 0.70:
            await room.conversations.mark_read(me, where, self._chance.randrange(200))
        elif lot < 0.75:
            await room.conversations.describe(me, where, {"title": str(number)})
        elif lot < 0.77:
            await room.conversations.configure(me, where, {"history_visible": self._chance.random() < 0.5})
        elif lot < 0.85:
            await room.conversations.remove(self.people[0], where, self._chance.choice(self.people[1:]))
        elif lot < 0.97:
            await room.conversations.add(self.people[0], where, self._chance.choice(self.people), "member")
        elif lot < 0.98:
            await _age(self._db, where)
            await room.retention.pass_once()
        else:
            self._chance.choice(self._places).crash()

    async def _say(self, me: UserId, where: ConversationId, mine: list[MessageId], text: str) -> None:
        """Again and again until it is known what became of it, as a client's outbox does."""
        mark = new_id()
        while True:
            room = await self.room()
            try:
                answer = await room.messages.send(
                    room.messages.draft(me, where, text, client_message_id=mark)
                )
            except (Unavailable, OutcomeUnknown):
                await trio.lowlevel.checkpoint()
                continue
            if isinstance(answer, Accepted):  # on one node or the other, or both
                self.accepted += 1
                await trio.lowlevel.checkpoint()
                continue
            self.acked[mark] = (answer.message.message_id, answer.message.seq)
            mine.append(answer.message.message_id)
            return

    async def room(self) -> Chat:
        return await self._chance.choice(self._places).room()


@pytest.mark.parametrize("seed", range(8))
async def test_everybody_holds_what_the_tables_say(
    db: Database, bus: MemoryBus, data_dir: Path, seed: int
) -> None:
    async with (
        FileJournal.open(data_dir / "journal-0", JOURNAL) as one,
        FileJournal.open(data_dir / "journal-1", JOURNAL) as other,
    ):
        await _storm(db, bus, [one, other], seed)
        assert not await _is_owing([one, other]), "all that was accepted is settled"


async def _storm(db: Database, bus: MemoryBus, journals: list[FileJournal], seed: int) -> None:
    chance = random.Random(seed)

    async def keep_a_log(tx: Tx) -> None:
        for statement in _LOG[tx.dialect]:
            await tx.run(statement)

    await db.write(keep_a_log)
    people = await make_people(db, "ann", "bob", "cid", "dee", "eve")
    flaky = FlakyDb(db, chance)
    lossy = LossyBus(bus, chance, loss=0.2, spare="chat.nodes")
    places = [Place(flaky, lossy, journal) for journal in journals]
    storm = Storm(db, people, places, chance)
    clients = [Client(user, places, chance) for user in (*people, *people)]

    def is_whole() -> bool:
        return storm.accepted > 0 and any(client.provisional for client in clients)

    async with trio.open_nursery() as nursery:
        for place in places:
            nursery.start_soon(place.run)
        room = await storm.room()
        founders = {await make_group(room, *people[:count]): people[:count] for count in (3, 4, 5)}
        founded = list(founders)
        await room.conversations.configure(people[0], founded[0], {"message_retention_days": 1})
        async with trio.open_nursery() as followers:
            with trio.CancelScope() as raging:
                for client in clients:
                    followers.start_soon(client.follow, raging)
                flaky.loss = 0.02
                async with trio.open_nursery() as actors:
                    for person in people:
                        actors.start_soon(storm.live, person, founded, is_whole)
                raging.cancel()
            flaky.loss = 0.0
            truth = Truth()

            async def is_quiet() -> bool:
                nonlocal truth  # a last pass of retention may still be on its way
                truth = await Truth.read(db, founders)
                return not any(truth.lacks(client) for client in clients) and not await _is_owing(journals)

            with suppress(trio.TooSlowError):  # what is lacking is said below
                await until(is_quiet, QUIET_S)
            for client in clients:
                assert truth.lacks(client) is None
            followers.cancel_scope.cancel()
        with trio.fail_after(QUIET_S):
            while await _tell_more(clients, truth):  # since then retention, say, has made a pass
                truth = await Truth.read(db, founders)
        nursery.cancel_scope.cancel()
    _check(truth, storm, clients)
    assert is_whole(), "some were accepted before they were stored, and shown so"


async def _tell_more(clients: list[Client], truth: Truth) -> bool:
    """Whether anybody who comes back hears of something, which must be later than `truth`."""
    more = False
    for client in clients:
        heard = len(client.heard)
        await client.look()
        for name, change, _ in client.heard[heard:]:
            assert change > truth.heads[name][1], "nothing was left to tell"
            more = True
    return more


async def _is_owing(journals: list[FileJournal]) -> bool:
    return any([await journal.read(TOPIC, 0, 1) for journal in journals])


async def _age(db: Database, where: ConversationId) -> None:
    """What was said so far, but the latest twenty, was said two days ago."""

    async def unit(tx: Tx) -> None:
        touch = "UPDATE conversations SET touched_at = $2 WHERE conversation_id = $1"
        await tx.run(touch, where, now_us())
        said = await tx.all(
            "SELECT message_id, sent_at FROM messages WHERE conversation_id = $1 AND seq <="
            " (SELECT last_seq - 20 FROM conversations WHERE conversation_id = $1) ORDER BY seq",
            where,
        )
        earlier = [(message, sent_us - 2 * DAY_US) for message, sent_us in said]
        await tx.many("UPDATE messages SET sent_at = $2 WHERE message_id = $1", earlier)

    await db.write(unit)


def _check(truth: Truth, storm: Storm, clients: list[Client]) -> None:
    for name, (last_seq, last_change, _) in truth.heads.items():
        log = truth.log[name]
        assert [row[0] for row in log] == list(range(1, last_change + 1)), "changes are dense"
        assert [row[3] for row in log if row[1] == "chat"] == list(range(1, last_seq + 1)), "so are messages"
    stored = {row[2]: row[3] for rows in truth.log.values() for row in rows if row[1] == "chat"}
    assert dict(storm.acked.values()).items() <= stored.items(), "all acknowledged is there"
    assert len({ref for ref, _ in storm.acked.values()}) == len(storm.acked), "each once"
    for client in clients:
        for name, change, seq in client.heard:
            assert truth.may_see(client.user, name, change, seq), f"{change} was not for {client.user}"
        assert client.resumed is not None
        for name, line in client.resumed.items():
            assert line["unread_count"] == truth.unread(name, client.user)
            assert line["last_read_seq"] == truth.members[name, client.user][1]
