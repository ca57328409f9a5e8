"""Reference: Quart on Hypercorn's Trio worker, without an access log.

hypercorn_quart.py [CERTIFICATE KEY]
"""

from __future__ import annotations

import socket
import sys
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import request, websocket
from quart_trio import QuartTrio

from answers import envelope

members: set[Any] = set()


async def ping() -> dict[str, object]:
    return envelope({"pong": True})


async def note() -> tuple[dict[str, object], int]:
    body = await request.get_json()
    return envelope({"title": body["title"], "length": len(body["text"])}), 201


async def echo() -> None:
    while True:
        await websocket.send(await websocket.receive())


async def room() -> None:
    mine = cast(Any, websocket)._get_current_object()  # itself, where `websocket` is whichever is served
    members.add(mine)
    try:
        while True:
            text = await websocket.receive()
            for member in list(members):
                await member.send(text)
    finally:
        members.discard(mine)


def main(certificate: str | None = None, key: str | None = None) -> None:
    app = QuartTrio(__name__)
    app.add_url_rule("/v1/ping", view_func=ping)
    app.add_url_rule("/v1/note", view_func=note, methods=["POST"])
    app.add_websocket("/v1/ws/echo", view_func=echo)
    app.add_websocket("/v1/ws/room", view_func=room)
    listener = socket.create_server(("127.0.0.1", 0))
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.loglevel = "WARNING"
    config.keep_alive_timeout = 600
    config.certfile, config.keyfile = certificate, key
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
    trio.run(serve, app, config)


if __name__ == "__main__":
    main(*sys.argv[1:])
