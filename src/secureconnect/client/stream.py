"""The WebSocket half of the client: one stream of events over as many connections as it takes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

import httpx
import msgspec
import trio

from ..edge import Close
from ..errors import TABLE
from ..identity import new_id
from .answers import ApiError
from .held import Entry, Event, Outbox, Positions
from .wire import Lost, Refused, Wire, alongside, connect

if TYPE_CHECKING:
    from .http import Client

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 15.0
HOLD_S = 1.0  # before a message is sent again that the server was too busy for
PONG_S = 10.0
ASK_S = 35.0
SILENCE_S = 35.0  # more than the server's own pings are apart
FATAL = frozenset({Close.TOO_BIG, Close.BAD_FRAME, Close.FORBIDDEN, Close.NOT_FOUND})


class ConnectionLost(Exception):
    """The connection went before the answer came: what was asked may have happened or not."""


class StreamEnded(Exception):
    """The server will not have us back: signed out, no access, or it does not understand us.

    code: the close code, or the HTTP status of the refusal.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class Stream:
    """Events in, messages out.

    Iterate it for the events: those of the protocol, each durable one once and in the order of its
    conversation, and four of its own: `online {}` when everything missed has been replayed (while the
    server's database is away `resuming` comes first, and what has to wait for it may take long),
    `offline {reason, retry_in_s}`, `left {conversation_id}` when a conversation is ours no longer, and
    `reread {conversation_id, messages}` after a gap: forget what you hold of the conversation, this is what
    there is. While the server's database is away messages come as `chat` with `provisional: true`: each is
    followed by the `chat` that replaces it (same sender_id and client_message_id), or by `message_withdrawn`;
    at every reconnect those of others are withdrawn. Iteration raises StreamEnded when the server will not
    have us back.

    Someone has to read the events: what is not read holds up the connection, acknowledgements included. A
    stream opened with `events=0` throws them away instead.
    """

    def __init__(
        self,
        client: Client,
        auth: Literal["header", "ticket"],
        conversation_id: str | None,
        outbox: int,
        events: int,
        reread: int,
    ) -> None:
        self.positions = Positions()
        self.is_online = False
        self._client = client
        self._auth = auth
        self._conversation_id = conversation_id
        self._outbox = Outbox(outbox)
        self._reread = reread
        self._deliver, self._events = trio.open_memory_channel[Event](events)
        self._drops_events = events == 0
        self._settled: dict[str, trio.Event] = {}
        self._asked: dict[str, _Question] = {}
        self._room = trio.Event()
        self._return_after_s: float | None = None
        self._work = trio.Event()
        self._hold_s = 0.0
        self._wire: Wire | None = None
        self._connected = trio.Event()
        self._heard_at = 0.0
        self._failures = 0
        self._ended: StreamEnded | None = None

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self._events.receive()
        except trio.EndOfChannel:
            raise self._ended or StopAsyncIteration from None

    # messages

    def post(self, conversation_id: str, content: str, **fields: Any) -> Entry:
        """Put a message in the outbox; it is sent, and sent again, until it is settled. Raises OutboxFull.

        fields: further fields of the `chat` frame; `client_message_id` is made unless it is among them.
        """
        if self._ended is not None:
            raise self._ended
        client_message_id = fields.pop("client_message_id", None) or new_id()
        frame = {
            "type": "chat",
            "ref": client_message_id,
            "conversation_id": conversation_id,
            "client_message_id": client_message_id,
            "content": content,
            "message_type": "text",
            **fields,
        }
        entry = self._outbox.add(frame)
        self._settled[client_message_id] = trio.Event()
        self._work.set()
        return entry

    async def stored(self, entry: Entry) -> Event:
        """Wait until the server has stored the message; returns the `ack`, or `stored` if it was accepted
        before. Raises ApiError if it was refused or returned.

        A cancelled wait does not take the message back.
        """
        if entry.answer is None:
            await self._settled[entry.client_message_id].wait()
        if entry.answer is None:
            raise self._ended or StreamEnded(Close.NORMAL, "closed")
        if entry.answer["type"] in ("error", "rejected"):
            raise _refusal(entry.answer)
        return entry.answer

    async def send(self, conversation_id: str, content: str, **fields: Any) -> Event:
        """`post`, waiting for room in the outbox, then `stored`."""
        while self._outbox.is_full and self._ended is None:
            await self._room.wait()
        return await self.stored(self.post(conversation_id, content, **fields))

    async def drained(self) -> None:
        """Wait until no message of ours is waiting, or the stream has ended."""
        while len(self._outbox) and self._ended is None:
            await self._room.wait()

    # other frames

    async def ask(self, kind: str, **fields: Any) -> Event:
        """Send a frame, once there is a connection, and wait for its `ack`.

        Raises ApiError; ConnectionLost: the connection went before the answer came; StreamEnded.
        """
        ref = new_id()
        try:
            with trio.fail_after(ASK_S):
                while (wire := self._wire) is None:
                    if self._ended is not None:
                        raise self._ended
                    await self._connected.wait()
                question = self._asked[ref] = _Question()
                await wire.send(_text({"type": kind, "ref": ref, **fields}))
                await question.answered.wait()
        except trio.TooSlowError:
            raise ConnectionLost from None
        except Lost:
            if self._wire is wire:  # the receiving task has yet to hear of it
                self._disconnected()
            raise ConnectionLost from None
        finally:
            self._asked.pop(ref, None)
        if question.answer is None:
            raise ConnectionLost
        if question.answer["type"] == "error":
            raise _refusal(question.answer)
        return question.answer

    async def edit(self, message_id: str, content: str) -> Event:
        return await self.ask("edit", message_id=message_id, content=content)

    async def delete(self, message_id: str) -> Event:
        return await self.ask("delete", message_id=message_id)

    async def tell(self, kind: str, **fields: Any) -> None:
        """Send a frame that may be lost: typing, read, presence. Nothing happens while offline."""
        if self._wire is not None:
            try:
                await self._wire.send(_text({"type": kind, **fields}))
            except Lost:
                return

    # the connections

    async def run(self) -> None:
        """Connect again and again, until the server will not have us back."""
        try:
            while True:
                reason, pause_s = await self._connection()
                self._failures += 1
                await self._emit({"type": "offline", "reason": reason, "retry_in_s": pause_s})
                await trio.sleep(pause_s)
        except StreamEnded as ended:
            self._ended = ended
        finally:
            self._deliver.close()
            for settled in self._settled.values():
                settled.set()
            self._room.set()
            self._connected.set()

    async def _connection(self) -> tuple[str, float]:
        """One connection, from handshake to end. Returns why it ended, and the seconds to stay away."""
        self._return_after_s = None
        if self._client.credentials is None:
            raise StreamEnded(Close.UNAUTHENTICATED, "signed out")
        try:
            async with connect(*await self._address()) as wire, alongside() as nursery:
                self._outbox.send_again()
                self._heard_at = trio.current_time()
                nursery.start_soon(self._watch, wire)
                while True:
                    frame = msgspec.json.decode(await wire.receive())
                    self._heard_at = trio.current_time()
                    await self._take(frame, wire, nursery)
                    self._heard_at = trio.current_time()
        except Lost as lost:
            return await self._after(lost)
        except Refused as refusal:
            error = ApiError.of_reply(refusal.status, refusal.headers, refusal.body)
            return await self._after_refusal(error)
        except ApiError as error:
            return await self._after_refusal(error)
        except httpx.TransportError as exc:
            return type(exc).__name__, self._pause_s()
        finally:
            self.is_online = False
            self._disconnected()
            for question in self._asked.values():
                question.answered.set()

    def _disconnected(self) -> None:
        self._wire = None
        if self._connected.is_set():  # or those who wait on it would wait for ever
            self._connected = trio.Event()

    async def _address(self) -> tuple[str, list[tuple[bytes, bytes]]]:
        query = {"resume": "1"}
        headers = []
        if self._conversation_id is not None:
            query["conversation_id"] = self._conversation_id
        if self._auth == "ticket":
            query["ticket"] = await self._client.ws_ticket()
        else:
            headers.append((b"authorization", f"Bearer {await self._client.access_token()}".encode()))
        base = "ws" + self._client.server.removeprefix("http")
        return f"{base}/v1/ws/chat?{urlencode(query)}", headers

    async def _after(self, lost: Lost) -> tuple[str, float]:
        if lost.code in FATAL or self._client.credentials is None:
            raise StreamEnded(lost.code, lost.reason)
        if lost.code == Close.UNAUTHENTICATED:
            return await self._after_refusal(ApiError(401, "TOKEN_EXPIRED", lost.reason))
        pause_s = self._pause_s() if self._return_after_s is None else self._return_after_s
        return str(lost), pause_s

    async def _after_refusal(self, error: ApiError) -> tuple[str, float]:
        """Refused the handshake, or a call on the way."""
        if error.status == 401 and self._client.credentials is not None:
            try:
                await self._client.refresh()
            except ApiError as refused:
                if refused.status not in (429, 503):
                    raise StreamEnded(Close.UNAUTHENTICATED, refused.message) from refused
            except httpx.TransportError:
                pass
        elif error.status < 500 and error.status not in (408, 429):
            raise StreamEnded(error.status, error.message)
        return error.code, max(error.retry_after_s or 0.0, self._pause_s())

    def _pause_s(self) -> float:
        """Exponential, with full jitter: a server that comes back is not met by everybody at once."""
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 10))
        return random.uniform(0, longest)  # noqa: S311  (spreads load, guards nothing)

    # frames

    async def _take(self, frame: Event, wire: Wire, nursery: trio.Nursery) -> None:
        match frame["type"]:
            case "hello":
                for withdrawn in self.positions.discard(self._client.me.user_id):
                    await self._emit(withdrawn)
                for resume in self.positions.resume(frame["history_id"]):
                    await wire.send(_text(resume))
                self._wire = wire
                self._connected.set()
                nursery.start_soon(self._send_outbox, wire)
            case "ack" | "stored" | "error":
                self._answered(frame)
            case "rejected":
                self._answered(frame)
                me = self._client.me.user_id
                if taken := self.positions.take_away(me, frame["client_message_id"]):
                    await self._emit(taken)
            case "gap":
                await self._read_again(frame)
            case "resumed":
                for lost in self.positions.resumed(frame, whole=self._conversation_id is None):
                    await self._emit({"type": "left", "conversation_id": lost})
                await self._emit(frame)
                if not frame.get("more"):
                    self.is_online, self._failures = True, 0
                    await self._emit({"type": "online"})
            case "resuming":
                self._failures = 0
                await self._emit(frame)
            case "token_expiring":
                nursery.start_soon(self._renew_token, wire)
            case "going_away":
                self._return_after_s = frame["reconnect_after_ms"] / 1000
            case _ if self.positions.admit(frame):
                await self._emit(frame)

    async def _emit(self, event: Event) -> None:
        if not self._drops_events:
            await self._deliver.send(event)

    def _answered(self, frame: Event) -> None:
        ref = frame.get("ref")
        if ref in self._asked:
            question = self._asked[ref]
            question.answer = frame
            question.answered.set()
            return
        entry = self._outbox.settle(frame)
        if entry is None:
            if frame["type"] == "error":
                self._hold_s = HOLD_S
                self._work.set()
            return
        self._settled.pop(entry.client_message_id).set()
        self._room.set()
        self._room = trio.Event()

    async def _read_again(self, gap: Event) -> None:
        """More was missed than is replayed: read the conversation afresh."""
        conversation_id = gap["conversation_id"]
        try:
            messages = await self._client.history(conversation_id, self._reread)
        except ApiError as refusal:
            if refusal.status != 404:
                raise
            self.positions.forget(conversation_id)
            await self._emit({"type": "left", "conversation_id": conversation_id})
            return
        self.positions.reset(conversation_id, gap["change"], messages)
        await self._emit({"type": "reread", "conversation_id": conversation_id, "messages": messages})

    async def _send_outbox(self, wire: Wire) -> None:
        """Send what is not sent yet, oldest first; a lost connection is the receiving side's to notice."""
        while True:
            if self._hold_s:
                pause_s, self._hold_s = self._hold_s, 0.0
                await trio.sleep(pause_s)
            entry = self._outbox.next()
            if entry is None:
                self._work = trio.Event()
                await self._work.wait()
                continue
            entry.sent = True
            try:
                await wire.send(_text(entry.frame))
            except Lost:
                return

    async def _renew_token(self, wire: Wire) -> None:
        try:
            await self._client.refresh()
            await self.ask("auth", token=self._client.me.access_token)
        except (ApiError, ConnectionLost, httpx.TransportError):
            await wire.cut()  # come back with whatever the next handshake makes of it

    async def _watch(self, wire: Wire) -> None:
        """Notice a silent server: ask for a sign of life, and cut a connection that gives none."""
        while True:
            silent_s = trio.current_time() - self._heard_at
            if silent_s < SILENCE_S:
                await trio.sleep(SILENCE_S - silent_s)
                continue
            with trio.move_on_after(PONG_S) as limit:
                try:
                    await wire.ping()
                except Lost:
                    return
            if limit.cancelled_caught:
                await wire.cut()
                return
            self._heard_at = trio.current_time()


class _Question:
    """A frame whose answer someone waits for."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: Event | None = None


@asynccontextmanager
async def follow(
    client: Client,
    *,
    auth: Literal["header", "ticket"],
    conversation_id: str | None,
    outbox: int = 256,
    events: int = 1_000,
    reread: int = 1_000,
) -> AsyncIterator[Stream]:
    """outbox: messages that may wait to be stored.  events: events that may wait to be read.
    reread: newest messages read again after a gap."""
    stream = Stream(client, auth, conversation_id, outbox, events, reread)
    async with alongside() as nursery:
        nursery.start_soon(stream.run)
        yield stream


def _text(frame: Mapping[str, Any]) -> str:
    return msgspec.json.encode(frame).decode()


def _refusal(frame: Event) -> ApiError:
    known = TABLE.get(frame["code"])
    return ApiError(known.status if known else 0, frame["code"], frame["message"])
