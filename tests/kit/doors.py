"""Two ways into one service, and the raw sockets that are opened at them."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import trio

from kit.fixtures import StartServer
from kit.server import Server
from secureconnect.client import Client
from secureconnect.client.wire import Lost, Wire, connect

ENDED_S = 5.0  # five times what is promised of a session that ends


def two_doors(start_server: StartServer, **settings: str) -> tuple[Server, Server]:
    """Two nodes where they can share what they stand on; an embedded server, which is alone, twice."""
    shared = {"AUTH__MASTER_KEY": base64.b64encode(os.urandom(32)).decode()} | settings
    first = start_server(**shared)
    return first, start_server(**first.settings) if "POSTGRES__URL" in first.settings else first


@asynccontextmanager
async def socket(server: Server, client: Client, conversation_id: str = "") -> AsyncIterator[Wire]:
    """Of that person's session, on that node; it does not come back by itself as a stream does.

    conversation_id: the one it carries; else all of them.
    """
    query = f"?{urlencode({'conversation_id': conversation_id})}" if conversation_id else ""
    headers = [(b"authorization", f"Bearer {client.me.access_token}".encode())]
    async with connect(f"ws{server.url.removeprefix('http')}/v1/ws/chat{query}", headers) as wire:
        yield wire


async def end_of(wire: Wire) -> int:
    """The close code, passing over what comes before. Raises TooSlowError when it stays open."""
    with trio.fail_after(ENDED_S):
        try:
            while True:
                await wire.receive()
        except Lost as lost:
            return lost.code
