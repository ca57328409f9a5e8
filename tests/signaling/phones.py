"""Devices in calls on real servers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from kit.people import direct
from secureconnect.client import Client
from secureconnect.client.wire import Wire, connect

Json = dict[str, Any]

ANSWER_S = 15.0


class Phone:
    """A device in a call, by its socket."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.peer_id = ""

    async def join(self) -> None:
        await self.say("join", instance_id="page")
        self.peer_id = (await self.next("peers"))["peer_id"]

    async def say(self, kind: str, **fields: Any) -> None:
        await self.wire.send(json.dumps({"type": kind, **fields}))

    async def next(self, kind: str, **fields: Any) -> Json:
        """The next frame of this type with these fields; others are passed over."""
        with trio.fail_after(ANSWER_S):
            while True:
                frame: Json = json.loads(await self.wire.receive())
                if frame["type"] == kind and all(frame.get(key) == value for key, value in fields.items()):
                    return frame


@asynccontextmanager
async def dialled(client: Client, call_id: str) -> AsyncIterator[Phone]:
    """A socket that has said nothing. Raises Refused."""
    url = f"ws{client.server.removeprefix('http')}/v1/ws/signaling?call_id={call_id}"
    headers = [(b"authorization", f"Bearer {client.me.access_token}".encode())]
    async with connect(url, headers) as wire:
        yield Phone(wire)


async def call_of(caller: Client, callee: Client) -> str:
    """Both have joined."""
    where = await direct(caller, callee)
    asked = {"conversation_id": where, "call_type": "audio"}
    call_id = str((await caller.call("POST", "/v1/calls/initiate", asked))["call_id"])
    await callee.call("POST", f"/v1/calls/{call_id}/join")
    return call_id


@asynccontextmanager
async def talking(caller: Client, callee: Client) -> AsyncIterator[tuple[Phone, Phone]]:
    """Two in a call, who know of each other."""
    call_id = await call_of(caller, callee)
    async with dialled(caller, call_id) as one, dialled(callee, call_id) as other:
        await one.join()
        await other.join()
        await one.next("join")
        yield one, other
