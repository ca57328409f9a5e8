"""What the chat tests work with: people in the database, rooms that run, sockets in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import trio

from secureconnect.chat import Chat, PushParts
from secureconnect.chat.append import Draft, Stored
from secureconnect.chat.attachments import Attachments
from secureconnect.chat.conversations import require_seat
from secureconnect.chat.pages import Asked, encoded
from secureconnect.chat.sockets import ChatQuery, serve_chat
from secureconnect.chat.store import Message, Page
from secureconnect.clock import HOUR_US, now_us
from secureconnect.config import ChatConfig, JournalConfig, MemoryConfig, SignalsConfig
from secureconnect.deps.contracts import Bus, Database, Journal, Tx
from secureconnect.deps.memory import MemorySignals
from secureconnect.edge import Call, Close, Crowd, Frame, Run, Socket, SocketClosed
from secureconnect.identity import (
    ConversationId,
    DeviceId,
    NodeId,
    Principal,
    SessionId,
    UserId,
    new_id,
)

HISTORY = "history-1"
WAIT_S = 5

Json = dict[str, Any]


async def make_people(db: Database, *names: str) -> list[UserId]:
    """Rows in `users`, as auth writes them."""
    people = [UserId(new_id()) for _ in names]

    async def insert(tx: Tx) -> None:
        await tx.many(
            "INSERT INTO users (user_id, username, username_key, email, email_key, display_name, avatar_url,"
            " role, password_hash, created_at, updated_at)"
            " VALUES ($1, $2, $2, $3, $3, $2, NULL, 'user', '', $4, $4)",
            [(user, name, f"{name}@example.org", now_us()) for user, name in zip(people, names, strict=True)],
        )

    await db.write(insert)
    return people


async def make_person(db: Database, name: str) -> UserId:
    return (await make_people(db, name))[0]


async def block(db: Database, one: UserId, other: UserId) -> None:
    async def insert(tx: Tx) -> None:
        await tx.run("INSERT INTO blocks VALUES ($1, $2, $3)", one, other, now_us())

    await db.write(insert)


def principal_of(user: UserId) -> Principal:
    return Principal(user, SessionId(new_id()), DeviceId(new_id()), "user", now_us() + HOUR_US)


_signals: WeakKeyDictionary[Bus, MemorySignals] = WeakKeyDictionary()


def signals_beside(bus: Bus) -> MemorySignals:
    """Rooms that share a bus share these, too."""
    return _signals.setdefault(bus, MemorySignals(MemoryConfig(), SignalsConfig().payload_bytes))


@asynccontextmanager
async def running(
    db: Database,
    bus: Bus,
    config: ChatConfig | None = None,
    journal: Journal | None = None,
    journal_config: JournalConfig | None = None,
    attachments: Attachments | None = None,
    push: PushParts | None = None,
    node: NodeId | None = None,
) -> AsyncIterator[Chat]:
    """A room that runs for as long as the block lasts."""
    room = Chat(
        config or ChatConfig(),
        db,
        bus,
        signals_beside(bus),
        HISTORY,
        node or NodeId(new_id()),
        journal,
        journal_config,
        attachments=attachments,
        push=push,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: room.run(task_status=task_status))
        yield room
        nursery.cancel_scope.cancel()


async def make_group(room: Chat, owner: UserId, *members: UserId) -> ConversationId:
    conversation, _ = await room.conversations.create(owner, "group", "a group", members, False)
    return conversation


async def say(
    room: Chat, sender: UserId, conversation: str, text: str, client_message_id: str | None = None
) -> Stored:
    draft = room.messages.draft(sender, conversation, text, client_message_id=client_message_id)
    return await store(room, draft)


async def store(room: Chat, draft: Draft) -> Stored:
    """Send it, and see that it is stored."""
    answer = await room.messages.send(draft)
    assert isinstance(answer, Stored)
    return answer


async def read_page(
    room: Chat,
    caller: UserId,
    conversation: ConversationId,
    limit: int,
    before_seq: int | None = None,
    after_seq: int | None = None,
) -> Page:
    """As it is in the table; and what REST tells of it, perhaps again, is the very same."""
    asked = Asked(conversation, limit, before_seq, after_seq)
    told = []
    for _ in range(2):
        head = (await room._db.read(require_seat, conversation, caller)).conversation
        told.append((head, bytes(await room.messages.page(caller, asked))))
    seat, found = await room._db.read(room.messages._page, caller, asked, None)
    assert isinstance(found, list)
    page = Page(found, seat.conversation.last_change)
    for head, data in told:
        if head == seat.conversation:  # nothing has happened meanwhile
            assert data == bytes(encoded(asked, page))
    return page


async def history(room: Chat, caller: UserId, conversation: ConversationId) -> list[Message]:
    """All that the caller may see."""
    await read_page(room, caller, conversation, 100)
    found: list[Message] = []
    while True:
        page = await read_page(room, caller, conversation, 100, None, found[-1].seq if found else 0)
        if not page.messages:
            return found
        found += page.messages


class _Crowd:
    """edge.Crowd of sockets without a network."""

    def __init__(self, sockets: Sequence[Socket]) -> None:
        self._sockets = sockets

    def offer(self, frame: Frame) -> Sequence[int]:
        return [place for place, socket in enumerate(self._sockets) if not socket.offer(frame)]

    def offer_run(self, run: Run) -> Sequence[int]:
        return [place for place, socket in enumerate(self._sockets) if not socket.offer_run(run)]


class MemorySocket:
    """edge.Socket without a network.

    seen: the frames that arrived, decoded.  room: frames the outbox takes before the socket is closed 1013.
    """

    def __init__(self, principal: Principal, room: int = 1_000_000) -> None:
        self.id = new_id()
        self.principal = principal
        self.seen: list[Json] = []
        self.room = room
        self.code: Close | None = None
        self.gate = trio.Event()  # what `send` waits for: a client that does not read
        self.gate.set()
        self._moved = trio.Event()
        self._inlet, self._outlet = trio.open_memory_channel[bytes](1_000)

    async def receive(self) -> bytes:
        try:
            return await self._outlet.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise SocketClosed from None

    def offer(self, frame: Frame) -> bool:
        if self.code is not None:
            return False
        if len(self.seen) >= self.room:
            self.close(Close.TOO_SLOW, "too slow")
            return False
        self._take(frame)
        return True

    def offer_run(self, run: Run) -> bool:
        return all(self.offer(frame) for frame in run.frames)

    def gather(self, sockets: Sequence[Socket]) -> Crowd:
        return _Crowd(sockets)

    @property
    def is_behind(self) -> bool:
        return len(self.seen) * 2 > self.room

    async def send(self, frame: Frame) -> None:
        await trio.lowlevel.checkpoint()
        await self.gate.wait()
        if self.code is not None:
            raise SocketClosed
        self._take(frame)

    def close(self, code: Close, reason: str) -> None:
        if self.code is None:
            self.code = code
            self._inlet.close()
            self._move()

    def renew(self, principal: Principal) -> None:
        self.principal = principal

    def _take(self, frame: Frame) -> None:
        self.seen.append(msgspec.json.decode(frame.data))
        self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    # the client's side

    def tell(self, kind: str, **fields: Any) -> None:
        self.tell_raw(msgspec.json.encode({"type": kind, **fields}))

    def tell_raw(self, data: bytes) -> None:
        self._inlet.send_nowait(data)

    def of(self, *kinds: str) -> list[Json]:
        return [frame for frame in self.seen if frame["type"] in kinds]

    async def wait_for(self, kind: str, count: int = 1) -> Json:
        """The `count`-th frame of this type."""
        with trio.fail_after(WAIT_S):
            while len(self.of(kind)) < count:
                await self._moved.wait()
        return self.of(kind)[count - 1]

    async def wait_changes(self, conversation: str, last: int) -> list[int]:
        """The changes of a conversation that arrived, once `last` has."""
        with trio.fail_after(WAIT_S):
            while last not in self.changes(conversation):
                await self._moved.wait()
        return self.changes(conversation)

    async def wait_moved(self) -> None:
        """Until one more frame arrives, or the socket closes."""
        await self._moved.wait()

    async def wait_closed(self) -> Close:
        with trio.fail_after(WAIT_S):
            while self.code is None:
                await self._moved.wait()
        return self.code

    def changes(self, conversation: str) -> list[int]:
        return [
            frame["change"]
            for frame in self.seen
            if "change" in frame
            and frame["type"] != "gap"
            and (frame.get("conversation_id") or frame["conversation"]["conversation_id"]) == conversation
        ]


def dial(
    nursery: trio.Nursery,
    room: Chat,
    user: UserId | Principal,
    *,
    only: str | None = None,
    resume: bool = False,
    outbox: int = 1_000_000,
) -> MemorySocket:
    """Open a socket on the room; it lasts until it closes or the nursery ends."""
    principal = user if isinstance(user, Principal) else principal_of(user)
    socket = MemorySocket(principal, outbox)
    call = Call("request", "127.0.0.1", float("inf"), principal, query=ChatQuery(only, resume))

    async def serve() -> None:
        with suppress(SocketClosed):
            await serve_chat(room, call, socket)
        socket.close(Close.NORMAL, "")

    nursery.start_soon(serve)
    return socket


async def dialled(
    nursery: trio.Nursery, room: Chat, user: UserId | Principal, **options: Any
) -> MemorySocket:
    """The same, once it is live."""
    socket = dial(nursery, room, user, **options)
    await socket.wait_for("hello")
    return socket


def resume_from(socket: MemorySocket, positions: dict[str, int], history_id: str = HISTORY) -> None:
    socket.tell("resume", history_id=history_id, conversations=positions)


async def back(
    nursery: trio.Nursery, room: Chat, user: UserId, positions: dict[str, int], history_id: str = HISTORY
) -> MemorySocket:
    """A socket that has resumed."""
    socket = dial(nursery, room, user, resume=True)
    resume_from(socket, positions, history_id)
    await socket.wait_for("resumed")
    return socket


def seqs(messages: Sequence[Message]) -> list[int]:
    return [message.seq for message in messages]
