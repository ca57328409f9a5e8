"""Who may call what: every route, tried by everybody, against what its audience promises."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Literal, get_args
from urllib.parse import urlencode

import msgspec

from kit.asks import FRAME_HOW, HOW, SOCKET_HOW, Ask, Tried, World, ask, of_nothing
from kit.cast import TOTP, Cast, document_of, everybody
from kit.fixtures import StartServer
from kit.routes import ROUTES
from kit.server import Server
from secureconnect.auth.routes import ROUTES as AUTH_ROUTES
from secureconnect.chat.inbound import Inbound
from secureconnect.chat.routes import SOCKETS as CHAT
from secureconnect.client.wire import Lost, Refused, Wire, connect
from secureconnect.edge import Audience, Route
from secureconnect.errors import TABLE
from secureconnect.identity import new_id
from secureconnect.signaling import SOCKETS as SIGNALING

NOT_IN_ROOMS = {("GET", "/v1/server")}  # the gateway's own, for anyone

# blocked: a stranger whom the owner has blocked.  banned, leaving: with a token from before the ban, or from
# before they asked to be deleted.  returned: signed in again before that is done.  admin: of the server, and
# a stranger to the room.  former: was in the room.  late: joined it when everything had been said.
# entitled: the owner, who is an ordinary user of the server
CALLERS = (
    "anonymous",
    "expired",
    "revoked",
    "banned",
    "leaving",
    "stranger",
    "blocked",
    "returned",
    "admin",
    "former",
    "late",
    "member",
    "entitled",  # last: it may end the sessions on which the worlds stand
)
TOKENLESS = {
    "anonymous": (401, "UNAUTHENTICATED"),
    "expired": (401, "TOKEN_EXPIRED"),
    "revoked": (401, "TOKEN_REVOKED"),
    "banned": (401, "TOKEN_REVOKED"),
    "leaving": (401, "TOKEN_REVOKED"),
}
SIGNED_IN: dict[Audience, dict[str, int]] = {
    Audience.USER: {"stranger": 200, "member": 200, "entitled": 200},
    Audience.OWNER: {"stranger": 404, "member": 404, "entitled": 200},
    Audience.MEMBER: {"stranger": 404, "member": 200, "entitled": 200},
    Audience.MODERATOR: {"stranger": 404, "member": 403, "entitled": 200},
    Audience.AUTHOR: {"stranger": 404, "member": 403, "entitled": 200},
    Audience.ADMIN: {"stranger": 403, "member": 403, "entitled": 403, "admin": 200},
}
SOCKETS = CHAT + SIGNALING
STRANGERS = {"blocked", "returned", "admin", "former"}  # where nothing else is said, they are as a stranger
SAID_BEFORE = ("{message_id}", "{poll_id}", "{file_id}")  # what is late for whoever comes late
NOT_IN_CALL = {"member": 409, "late": 409}
ELSE = {
    ("POST", "/v1/conversations"): {"blocked": 403},  # it is to be with the owner
    # those in the call are, with another device than asks; the journey of a recording is told elsewhere
    ("POST", "/v1/calls/{call_id}/recording/start"): NOT_IN_CALL | {"entitled": 409},
    ("POST", "/v1/calls/{call_id}/recording/consent"): NOT_IN_CALL,
}
MISTAKEN = (
    ("GET", "/v1/auth/profile", Audience.ANYONE),
    ("GET", "/v1/admin/stats", Audience.USER),
    ("GET", "/v1/announcements", Audience.ADMIN),
    ("GET", "/v1/messages/{message_id}", Audience.USER),
    ("GET", "/v1/storage/files/{file_id}", Audience.OWNER),
    ("GET", "/v1/messages/{message_id}", Audience.AUTHOR),
)


def about_an_address(route: Route) -> bool:
    """Where content is, whoever has it."""
    return "{token}" in route.path


def about_a_file(route: Route) -> bool:
    return "/storage/" in route.path and ("{" in route.path or route.audience is Audience.OWNER)


def about_keys(route: Route) -> bool:
    return route.path.startswith(("/v1/keys/", "/v1/e2ee/"))


def about_mail(route: Route) -> bool:
    """It takes a token that was mailed."""
    return route.path.endswith(("/email/verify", "/password-reset/confirm"))


def about_friends(route: Route) -> bool:
    return route.path.startswith("/v1/users/me/friends/")


def about_calls(route: Route) -> Literal["rings", "begins"] | None:
    if "{call_id}" in route.path:
        return "rings"
    return "begins" if route.path == "/v1/calls/initiate" else None


def ends_sessions(route: Route) -> bool:
    """Every session of the caller, or every other."""
    return (route.method, route.path) in {
        ("POST", "/v1/auth/logout-all"),
        ("POST", "/v1/users/me/password"),
        ("POST", f"{TOTP}/confirm"),
        ("POST", f"{TOTP}/recovery-codes"),
        ("DELETE", "/v1/users/me"),
    }


def needs_own_session(route: Route) -> bool:
    """It ends that of the caller, or is for another device than the one in the call."""
    return ends_sessions(route) or route.path in ("/v1/auth/logout", "/v1/calls/{call_id}/recording/start")


def about_a_session(route: Route) -> bool:
    """Another one of the owner's."""
    return "{session_id}" in route.path or route.path == "/v1/auth/refresh"


def about_a_room(route: Route) -> bool:
    """Or what was said in one."""
    return route not in AUTH_ROUTES and route.audience not in (Audience.ANYONE, Audience.USER)


def turn(route: Route) -> int:
    """When it is tried: after what needs something that it takes away."""
    takes_away = {("DELETE", "/v1/admin/users/{user_id}"), ("POST", "/v1/users/me/restore")}
    return 2 if ends_sessions(route) else (route.method, route.path) in takes_away


def expected(route: Route, caller: str) -> tuple[int, str | None]:
    """The status, 200 for any success; and the code of a refused token."""
    if route.audience is Audience.ANYONE:
        return 200, None
    if caller in TOKENLESS:
        return TOKENLESS[caller]
    otherwise = ELSE.get((route.method, route.path), {})
    is_past = any(part in route.path for part in SAID_BEFORE)
    return otherwise.get(caller, status_of(route.audience, caller, is_past=is_past)), None


def status_of(audience: Audience, caller: str, *, is_past: bool = False) -> int:
    """is_past: it is about something that was said before the late one came."""
    known = SIGNED_IN[audience]
    if caller == "late":
        caller = "stranger" if is_past else "member"
    return known["stranger"] if caller in STRANGERS and caller not in known else known[caller]


def test_every_route_is_in_the_table() -> None:
    assert {(route.method, route.path) for route in ROUTES} == set(HOW)
    assert {socket.path for socket in SOCKETS} == set(SOCKET_HOW)
    frames = {kind.__struct_config__.tag for kind in get_args(Inbound)}
    assert frames == set(FRAME_HOW) | {"resume"}, "which opens a socket"


async def test_the_document_names_no_other_route(server: Server) -> None:
    named = (await document_of(server)).operations
    versioned = {pair for pair in named if pair[1].startswith("/v1/") and pair[1] not in SOCKET_HOW}
    assert versioned == set(HOW) | NOT_IN_ROOMS


async def test_everybody_tries_everything(start_server: StartServer) -> None:
    async with everybody(start_server) as cast:
        wrong = await try_sockets(cast) + await try_routes(cast)  # these end sessions
    assert not wrong, "\n".join(wrong)


async def try_routes(cast: Cast) -> list[str]:
    """What is not as promised. Every answer, too, is as the document of the server says."""
    wrong: list[str] = []

    async def look(route: Route, caller: str, still: Mapping[str, Tried]) -> None:
        """still: a world for each caller that nobody changes, for whoever only looks or is refused."""
        status, code = expected(route, caller)
        needs: dict[str, Any] = {
            "files": about_a_file(route) and not about_an_address(route),
            "address": about_an_address(route),
            "friends": about_friends(route),
            "keys": about_keys(route),
            "mail": about_mail(route),
            "polls": "{poll_id}" in route.path,
            "notified": "{notification_id}" in route.path,
            "calls": about_calls(route),
            "recorded": "/recording" in route.path,
            "room": about_a_room(route),
            "other_session": about_a_session(route),
            "own_session": needs_own_session(route),
            "totp": {f"{TOTP}/confirm": "begun", f"{TOTP}/recovery-codes": "on"}.get(route.path),
        }
        has_all = not (needs["friends"] or needs["mail"] or needs["totp"])
        async with AsyncExitStack() as stack:
            if route.method == "GET" or status in (401, 403) or (status == 404 and has_all):
                world, token = still[caller]
            else:
                world, token = await stack.enter_async_context(cast.world(caller, **needs))
            if (route.method, route.path) == ("DELETE", "/v1/users/me/friends/{user_id}"):
                await world.owner.call("POST", f"/v1/users/{world.facts['third_id']}/friend")
            how = HOW[route.method, route.path](world)
            answer = await ask(cast.http, route.method, route.path, how, token)
        got = 200 if answer.is_success else answer.status_code
        said = None if answer.is_success else answer.json()["error"]["code"]
        if got != status or (code is not None and said != code):
            told = f"{answer.status_code} {said}, not {status} {code or ''}"
            wrong.append(f"{route.method} {route.path} by {caller}: {told}")
        if caller == "stranger" and got == status == 404:
            nothing = Ask(of_nothing(how.path), of_nothing(how.query), of_nothing(how.body))
            unknown = await ask(cast.http, route.method, route.path, nothing, token)
            if (unknown.status_code, unknown.json()["error"]) != (404, answer.json()["error"]):
                wrong.append(
                    f"{route.method} {route.path}: {answer.text} of what is, {unknown.text} of what is not"
                )
        if fault := cast.document.fault(route.method, route.path, answer):
            wrong.append(f"{route.method} {route.path} by {caller}: {answer.status_code}, {fault}")

    async with AsyncExitStack() as stack:
        still = {
            caller: await stack.enter_async_context(
                cast.world(
                    caller,
                    files=True,
                    keys=True,
                    polls=True,
                    notified=True,
                    calls="over",
                    recorded=True,
                    other_session=True,
                )
            )
            for caller in CALLERS
        }
        for method, path, audience in MISTAKEN:  # what is not as promised shows
            route = next(each for each in ROUTES if (each.method, each.path) == (method, path))
            for caller in CALLERS:
                await look(msgspec.structs.replace(route, audience=audience), caller, still)
            assert wrong, f"{method} {path} passes as one for {audience}"
            wrong.clear()
        for route in sorted(ROUTES, key=turn):
            about_rooms = route.audience in (Audience.MEMBER, Audience.MODERATOR, Audience.AUTHOR)
            for caller in CALLERS:
                if about_rooms or about_a_file(route) or caller not in ("former", "late"):
                    await look(route, caller, still)
            if ends_sessions(route):
                await cast.sign_in()
    return wrong


async def try_sockets(cast: Cast) -> list[str]:
    """What is not as promised of them, and of every frame on them."""
    wrong: list[str] = []
    base = f"ws{cast.server.url.removeprefix('http')}"

    async def look(path: str, caller: str, token: str | None, status: int) -> None:
        headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        try:
            async with connect(base + path, headers) as wire:
                if path.startswith("/v1/ws/signaling"):
                    await wire.send('{"type": "join", "instance_id": "page"}')
                heard = json.loads(await wire.receive())
                got = 200 if heard["type"] in ("hello", "peers") else 0
        except Refused as refusal:
            got = refusal.status
        except Lost as lost:
            got = lost.code
        if got != status:
            wrong.append(f"{path} by {caller}: {got}, not {status}")

    async def say(wire: Wire, frame: dict[str, Any]) -> tuple[int, str | None]:
        """The status that its answer would have over HTTP, and the message of a refusal."""
        ref = new_id()
        await wire.send(json.dumps(frame | {"ref": ref}))
        while (heard := json.loads(await wire.receive())).get("ref") != ref:
            pass
        return (TABLE[heard["code"]].status, heard["message"]) if heard["type"] == "error" else (200, None)

    async def talk(caller: str, world: World) -> None:
        token = world.facts["access_token"]
        async with connect(f"{base}/v1/ws/chat", [(b"authorization", f"Bearer {token}".encode())]) as wire:
            for kind, (audience, how) in FRAME_HOW.items():
                frame = how(world) | {"type": kind}
                got, said = await say(wire, frame)
                is_past = "message_id" in frame
                if got != (status := status_of(audience, caller, is_past=is_past)):
                    wrong.append(f"{kind} by {caller}: {got}, not {status}")
                if audience is not Audience.USER:
                    unknown = await say(wire, of_nothing(frame))
                    if unknown[0] != 404 or (got == 404 and unknown[1] != said):
                        wrong.append(
                            f"{kind} by {caller}: {(got, said)} of what is, {unknown} of what is not"
                        )

    for caller in CALLERS:
        refused = caller in TOKENLESS
        async with cast.world(caller, calls="rings") as (world, token):
            for socket in CHAT:
                await look(socket.path, caller, token, 401 if refused else 200)
            if caller == "entitled":
                join = HOW["POST", "/v1/calls/{call_id}/join"](world)
                await ask(cast.http, "POST", "/v1/calls/{call_id}/join", join, token)
            for socket in SOCKETS:
                narrowed = f"{socket.path}?{urlencode(SOCKET_HOW[socket.path](world))}"
                status = 401 if refused else status_of(Audience.MEMBER, caller)
                if socket in SIGNALING and status == 200 and caller != "entitled":
                    status = 409  # called, and not in it
                await look(narrowed, caller, token, status)
            if not refused:
                await look(f"/v1/ws/signaling?call_id={new_id()}", caller, token, 404)
            if not refused:
                await talk(caller, world)
    return wrong
