"""The gateway alone, with one small room: what `bench/edge.py` compares with the references.

    edge_server.py [CERTIFICATE KEY]    # says `listening on …` on stderr; its log goes to stdout

Of the settings, only those are other than the defaults that would end a load: pings, silence, rates, counts.
"""

from __future__ import annotations

import sys
from functools import cache

import msgspec
import trio

from secureconnect import log
from secureconnect.app import settle_garbage
from secureconnect.clock import SECOND_US, now_us
from secureconnect.config import Config, GatewayConfig, RateLimitsConfig
from secureconnect.deps.memory import MemoryCache
from secureconnect.edge import Audience, Call, Frame, Rate, Reply, Route, Socket, SocketRoute
from secureconnect.errors import InvalidToken
from secureconnect.gateway import Gateway, Mount
from secureconnect.identity import DeviceId, Principal, SessionId, UserId
from secureconnect.supervise import Handle

DAY_US = 86_400 * SECOND_US


class Note(msgspec.Struct, frozen=True):
    title: str
    text: str
    tags: list[str] = []


class Pong(msgspec.Struct, frozen=True):
    pong: bool


class Noted(msgspec.Struct, frozen=True):
    title: str
    length: int


class Tokens:
    """An authenticator to whom every token is a person's name."""

    def known(self, token: str, *, outage: bool = False) -> Principal | None:  # noqa: ARG002
        return _person(token)

    async def authenticate(self, token: str, *, outage: bool = False) -> Principal:  # noqa: ARG002
        return _person(token)

    def has_ended(self, principal: Principal) -> bool:  # noqa: ARG002
        return False

    def left_us(self, principal: Principal) -> tuple[int, bool]:
        return principal.expires_us - now_us(), True

    async def redeem(self, ticket: str) -> Principal:  # noqa: ARG002
        raise InvalidToken


@cache
def _person(name: str) -> Principal:
    return Principal(
        UserId(f"user-{name}"),
        SessionId(f"session-{name}"),
        DeviceId(f"device-{name}"),
        "user",
        now_us() + DAY_US,
    )


class Room:
    def __init__(self) -> None:
        self.members: set[Socket] = set()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()


async def _ping(_: Room, __: Call) -> Reply:
    return Reply(Pong(pong=True))


async def _note(_: Room, call: Call) -> Reply:
    return Reply(Noted(call.body.title, len(call.body.text)))


async def _echo(_: Room, __: Call, socket: Socket) -> None:
    while True:
        socket.offer(Frame(await socket.receive()))


async def _room(room: Room, _: Call, socket: Socket) -> None:
    room.members.add(socket)
    try:
        while True:
            frame = Frame(await socket.receive())
            for member in room.members:
                member.offer(frame)
    finally:
        room.members.discard(socket)


ROUTES = (
    Route("GET", "/v1/ping", _ping, Audience.ANYONE, Rate.NONE, "A small answer", answer=Pong),
    Route(
        "POST", "/v1/note", _note, Audience.ANYONE, Rate.NONE, "A note", body=Note, answer=Noted, status=201
    ),
)
SOCKETS = (
    SocketRoute("/v1/ws/echo", _echo, Audience.USER, "Echo"),
    SocketRoute("/v1/ws/room", _room, Audience.USER, "One room"),
)


async def main(*files: str) -> None:
    certificate, key = files or ("", "")
    config = Config(
        gateway=GatewayConfig(
            port=0,
            tls_certificate=certificate,
            tls_key=key,
            max_connections=20_000,
            keep_alive_s=600,
            ws_ping_s=300,
            ws_silence_s=600,
            ws_frames_per_10s=1_000_000,
        ),
        rate_limits=RateLimitsConfig(enabled=False),
    )
    log.set_up(config.log)
    room, tokens = Handle("chat", Room), Tokens()
    gateway = Gateway(
        config,
        [Mount(room, ROUTES, SOCKETS)],
        lambda: tokens,
        MemoryCache(config.memory),
        list,
        [room],
        lambda *_: None,
        lambda: "bench",
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(room.run)
        urls = await nursery.start(gateway.run)
        settle_garbage()
        for url in urls:
            print(f"listening on {url}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
