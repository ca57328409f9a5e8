"""Reference: FastAPI on uvicorn with uvloop and httptools, without an access log.

uvicorn_fastapi.py [CERTIFICATE KEY]
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from answers import envelope


@dataclass
class Note:
    title: str
    text: str
    tags: list[str] = field(default_factory=list)


members: set[WebSocket] = set()


async def ping() -> dict[str, object]:
    return envelope({"pong": True})


async def note(body: Note) -> dict[str, object]:
    return envelope({"title": body.title, "length": len(body.text)})


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(await websocket.receive_text())


async def room(websocket: WebSocket) -> None:
    await websocket.accept()
    members.add(websocket)
    try:
        while True:
            text = await websocket.receive_text()
            for member in list(members):
                with suppress(WebSocketDisconnect, RuntimeError):  # it is leaving
                    await member.send_text(text)
    except WebSocketDisconnect:
        pass
    finally:
        members.discard(websocket)


def main(certificate: str | None = None, key: str | None = None) -> None:
    app = FastAPI()
    app.add_api_route("/v1/ping", ping)
    app.add_api_route("/v1/note", note, methods=["POST"], status_code=201)
    app.add_api_websocket_route("/v1/ws/echo", echo)
    app.add_api_websocket_route("/v1/ws/room", room)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=600,
        timeout_graceful_shutdown=1,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
