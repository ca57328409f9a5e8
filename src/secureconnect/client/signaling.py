"""One device in one call: frames in and out, over as many connections as it takes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import trio

from ..edge import Close
from ..identity import new_id
from .answers import ApiError
from .held import Event
from .stream import StreamEnded
from .wire import Lost, Refused, Wire, alongside, connect

if TYPE_CHECKING:
    from .http import Client

LONGEST_PAUSE_S = 1.0  # those one talks to are told that one is missed
EVENTS = 1_000
FOR_GOOD = frozenset({Close.NORMAL, Close.TOO_BIG, Close.BAD_FRAME, Close.FORBIDDEN, Close.NOT_FOUND})


class Signaling:
    """Iterate it for the frames of the protocol, and `offline {reason}`, after which `resumed` follows by
    itself. Raises StreamEnded when the call is over for this device. Someone has to read them.

    peer_id, epoch: as the server told last; empty and 0 before it has.
    """

    def __init__(self, client: Client, call_id: str, instance_id: str) -> None:
        self.call_id = call_id
        self.instance_id = instance_id
        self.peer_id = ""
        self.epoch = 0
        self._client = client
        self._resume_token = ""
        self._begins_anew = False
        self._wire: Wire | None = None
        self._deliver, self._events = trio.open_memory_channel[Event](EVENTS)
        self._ended = StreamEnded(Close.NORMAL, "closed")

    def __aiter__(self) -> Signaling:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self._events.receive()
        except trio.EndOfChannel:
            raise self._ended from None

    async def tell(self, kind: str, **fields: Any) -> bool:
        """Send a frame of this epoch. False while there is no connection: it is not sent later."""
        if self._wire is None:
            return False
        frame = {"type": kind, "epoch": self.epoch, **fields}
        try:
            await self._wire.send(msgspec.json.encode(frame).decode())
        except Lost:
            return False
        return True

    async def cut(self) -> None:
        """End the connection without a word, as a network does."""
        if self._wire is not None:
            await self._wire.cut()

    async def run(self) -> None:
        """Connect again and again, until the server will not have us back."""
        try:
            while True:
                reason = await self._connection()
                await self._deliver.send({"type": "offline", "reason": reason})
                await trio.sleep(random.uniform(0.1, 1) * LONGEST_PAUSE_S)  # noqa: S311  (spreads load)
        except StreamEnded as ended:
            self._ended = ended
        finally:
            self._deliver.close()

    async def _connection(self) -> str:
        """From handshake to end. Returns why it ended."""
        address = f"ws{self._client.server.removeprefix('http')}/v1/ws/signaling?call_id={self.call_id}"
        try:
            token = await self._client.access_token()
            async with (
                connect(address, [(b"authorization", f"Bearer {token}".encode())]) as wire,
                alongside() as nursery,
            ):
                await wire.send(msgspec.json.encode(self._first()).decode())
                while True:
                    await self._take(msgspec.json.decode(await wire.receive()), wire, nursery)
        except Lost as lost:
            if lost.code in FOR_GOOD and not self._begins_anew:
                raise StreamEnded(lost.code, lost.reason) from None
            return str(lost)
        except Refused as refusal:
            return await self._after(ApiError.of_reply(refusal.status, refusal.headers, refusal.body))
        except ApiError as error:
            return await self._after(error)
        except httpx.TransportError as exc:
            return type(exc).__name__
        finally:
            self._wire = None

    def _first(self) -> Event:
        self._begins_anew = False
        if self._resume_token:
            return {"type": "resume", "resume_token": self._resume_token, "instance_id": self.instance_id}
        return {"type": "join", "instance_id": self.instance_id}

    async def _take(self, frame: Event, wire: Wire, nursery: trio.Nursery) -> None:
        self.epoch = max(self.epoch, frame.get("epoch", 0))
        match frame["type"]:
            case "peers" | "resumed":
                self.peer_id, self._resume_token = frame["peer_id"], frame["resume_token"]
                self._wire = wire
            case "error" if frame["code"] == "INVALID_TOKEN" and self._wire is None:
                self._resume_token, self._begins_anew = "", True  # spent, its answer lost; or given up
            case "token_expiring":
                nursery.start_soon(self._renew)
        await self._deliver.send(frame)

    async def _renew(self) -> None:
        try:
            await self._client.refresh()
        except (ApiError, httpx.TransportError):
            return  # the next handshake sees
        await self.tell("auth", token=self._client.me.access_token)

    async def _after(self, error: ApiError) -> str:
        """Refused the handshake, or a token for it."""
        if error.status == 401 and self._client.credentials is not None:
            try:
                await self._client.refresh()
            except (ApiError, httpx.TransportError) as exc:
                if isinstance(exc, ApiError) and exc.status not in (429, 503):
                    raise StreamEnded(Close.UNAUTHENTICATED, error.message) from exc
        elif error.status < 500 and error.status not in (408, 429):
            raise StreamEnded(error.status, error.message) from error
        return error.code


@asynccontextmanager
async def in_call(client: Client, call_id: str, instance_id: str) -> AsyncIterator[Signaling]:
    """instance_id: of the page that this is; empty for a new one."""
    signaling = Signaling(client, call_id, instance_id or new_id())
    async with alongside() as nursery:
        nursery.start_soon(signaling.run)
        yield signaling
