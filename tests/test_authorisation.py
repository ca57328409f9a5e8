"""Who may call what: every route, tried by everybody, against what its audience promises."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import replace
from typing import Any, Literal, get_args
from urllib.parse import urlencode

import httpx
import pyotp
import trio

from kit.asks import CONTENT, FRAME_HOW, HOW, PART, SOCKET_HOW, Ask, Tried, World, ask, of_nothing
from kit.command import succeeds
from kit.document import Document
from kit.fixtures import StartServer
from kit.http import plain
from kit.olm import OlmDevice, server_name
from kit.people import PASSWORD, begin_upload, download_url, group, people, put, unique, upload
from kit.recordings import allow_recordings, finish, record, send_part
from kit.routes import ROUTES
from kit.server import Server
from kit.wait import until
from secureconnect.auth.routes import ROUTES as AUTH_ROUTES
from secureconnect.chat.inbound import Inbound
from secureconnect.chat.routes import SOCKETS as CHAT
from secureconnect.client import ApiError, Client
from secureconnect.client.wire import Lost, Refused, Wire, connect
from secureconnect.edge import Audience, Route
from secureconnect.errors import TABLE
from secureconnect.identity import new_id
from secureconnect.signaling import SOCKETS as SIGNALING

TOTP = "/v1/auth/totp"
ANSWER_S = 30
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


def about_a_file(route: Route) -> bool:
    return "/storage/" in route.path and ("{" in route.path or route.audience is Audience.OWNER)


def about_keys(route: Route) -> bool:
    return route.path.startswith(("/v1/keys/", "/v1/e2ee/"))


def about_mail(route: Route) -> bool:
    return "/email" in route.path or "/password-reset" in route.path


def about_friends(route: Route) -> bool:
    return route.path.startswith("/v1/users/me/friends/")


def ends_sessions(route: Route) -> bool:
    """Every session of the caller, or every other."""
    return (route.method, route.path) in {
        ("POST", "/v1/auth/logout-all"),
        ("POST", "/v1/users/me/password"),
        ("POST", f"{TOTP}/confirm"),
        ("POST", f"{TOTP}/recovery-codes"),
        ("DELETE", "/v1/users/me"),
    }


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


class Cast:
    """Everybody on one server.  tokens: that were good once.  facts: the same in every world.
    document: what the server says of its answers."""

    def __init__(
        self,
        server: Server,
        everybody: list[Client],
        tokens: dict[str, str],
        facts: dict[str, str],
        document: Document,
        http: httpx.AsyncClient,
    ) -> None:
        self.server = server
        self.everybody = everybody
        self.owner, self.member, self.third, self.former, self.late, *others = everybody
        self.stranger, self.blocked, self.returned, self.admin = others
        self.tokens = tokens
        self.facts = facts
        self.document = document
        self.http = http
        self._devices: dict[str, OlmDevice] = {}

    async def sign_in(self) -> None:
        for client in self.everybody:
            await client.login(client.me.username, PASSWORD)

    @asynccontextmanager
    async def world(
        self,
        caller: str,
        *,
        files: bool = False,
        friends: bool = False,
        totp: Literal["begun", "on"] | None = None,
        keys: bool = False,
        mail: bool = False,
        polls: bool = False,
        notified: bool = False,
        calls: Literal["over", "rings"] | None = None,
        recorded: bool = False,
        room: bool = True,
        sessions: bool = True,
    ) -> AsyncIterator[Tried]:
        """A fresh world, and the token of who calls. Their session is a fresh one too: a route may end it.

        files: the owner has some.  friends: the third has asked the owner.
        totp: the second factor of the caller, who has begun to set it up or has it; turned off afterwards.
        keys: the owner's device and the caller's are published, and the caller has a backup.
        mail: tokens were mailed, to someone new and to the caller.
        polls: the owner has asked something.  notified: of something.
        calls: the third has called the others.  recorded: the owner has answered, and records; if it is over,
        that is kept.
        room: a fresh one; else there is none.  sessions: the owner has another one.
        """
        named = ("stranger", "blocked", "returned", "member", "admin", "former", "late")
        callers = {name: getattr(self, name) for name in named}
        who = (callers | {"entitled": self.owner}).get(caller)
        async with Client(self.server.url) as own, Client(self.server.url) as spare:
            world = World(
                self.owner, self.member, who, *(await self._room() if room else (new_id(), new_id()))
            )
            people = {"third_id": self.third.me.user_id, "newcomer_id": self.stranger.me.user_id}
            world.facts = self.facts | people
            if sessions:
                await spare.login(self.owner.me.username, PASSWORD)
                world.facts["session_id"] = spare.me.session_id
                world.facts["refresh_token"] = spare.me.refresh_token
            if friends:
                await self._befriend()
            if files:
                world.facts |= await self._files(world.room)
            if polls:
                asked = {"conversation_id": world.room, "question": "When?", "options": ["now", "later"]}
                world.facts["poll_id"] = (await self.owner.call("POST", "/v1/polls", asked))["poll_id"]
            if notified:
                world.facts["notification_id"] = await self._notified(world.message_id)
            if room:
                late = {"user_id": self.late.me.user_id}
                await self.owner.call("POST", f"/v1/conversations/{world.room}/participants", late)
            if calls is not None:
                world.facts |= await self._called(world.room, calls, recorded=recorded)
            token = self.tokens.get(caller)
            if who is not None:
                await own.login(who.me.username, PASSWORD)
                token = own.me.access_token
            if mail:
                world.facts |= await self._mailed(who)
            if keys:
                await self._publish(self.owner)
                world.facts["backup"] = await self._backup(self.owner if who is None else own)
                world.own = None if who is None else await self._publish(own)
            world.facts["access_token"] = token or ""
            if totp is None or who is None:
                yield world, token
                if room:
                    await self._hang_up(world.room)
                return
            app = pyotp.TOTP((await own.call("POST", f"{TOTP}/enroll", {"password": PASSWORD}))["secret"])
            at_s = int(time.time())
            world.facts["totp_code"] = app.at(at_s)
            if totp == "on":
                codes = await own.call("POST", f"{TOTP}/confirm", {"code": app.at(at_s)})
                world.facts["totp_code"] = codes["recovery_codes"][0]
            yield world, token
            await own.call("DELETE", TOTP, {"password": PASSWORD, "totp_code": app.at(at_s + 30)})

    async def _called(self, room: str, calls: Literal["over", "rings"], *, recorded: bool) -> dict[str, str]:
        callees = [each.me.user_id for each in (self.owner, self.member, self.late)]
        asked = {"conversation_id": room, "call_type": "video", "callee_ids": callees}
        facts = {"call_id": (await self.third.call("POST", "/v1/calls/initiate", asked))["call_id"]}
        path = f"/v1/calls/{facts['call_id']}"
        if recorded:
            facts["recording_id"] = await self._recorded(room, path)
            if calls == "over":
                await finish(self.owner, path, facts["recording_id"], 1)
        if calls == "over":
            await self.third.call("POST", f"{path}/end")
        return facts

    async def _recorded(self, room: str, path: str) -> str:
        await allow_recordings(self.owner, room)
        await self.owner.call("POST", f"{path}/join")
        name = await record(self.owner, path, self.third)
        assert (await send_part(self.owner, path, name, 1, PART)).status_code == 204
        return name

    async def _hang_up(self, room: str) -> None:
        """Nobody is in two calls: the next world may have its own."""
        for client in (self.owner, self.third):
            with suppress(ApiError):  # a try may have taken them out of the room
                listed = await client.call("GET", "/v1/calls", query={"conversation_id": room})
                for call in listed["calls"]:
                    await client.call("POST", f"/v1/calls/{call['call_id']}/end")

    async def _room(self) -> tuple[str, str]:
        """A group which one has left, and the id of what the owner has said in it."""
        room = await group(self.owner, self.member, self.third, self.former)
        former = f"/v1/conversations/{room}/participants/{self.former.me.user_id}"
        await self.owner.call("DELETE", former)
        sent = await self.owner.send_message(room, "hello", new_id())
        return room, str(sent["message_id"])

    async def _notified(self, message_id: str) -> str:
        """Of a reaction to that; once is enough."""

        async def list_them() -> list[dict[str, str]]:
            answer = await self.owner.call("GET", "/v1/notifications")
            return list(answer["notifications"])

        async def is_told() -> bool:
            return bool(await list_them())

        if not await list_them():
            await self.member.call("PUT", f"/v1/messages/{message_id}/reactions/+")
        await until(is_told)
        return (await list_them())[0]["notification_id"]

    async def _publish(self, client: Client) -> OlmDevice:
        """The device that the client is, with keys."""
        device_id = client.me.device_id
        if device_id not in self._devices:
            device = OlmDevice(client.me.user_id, device_id, await server_name(client))
            await client.call("POST", "/v1/keys/upload", device.bundle())
            self._devices[device_id] = device
        return self._devices[device_id]

    async def _backup(self, client: Client) -> str:
        """The latest version of theirs."""
        try:
            latest = await client.call("GET", "/v1/e2ee/backup/version")
        except ApiError:
            begin = {"algorithm": "m.x", "auth_data": {}}
            latest = await client.call("POST", "/v1/e2ee/backup/version", begin)
        return str(latest["version"])

    async def _mailed(self, who: Client | None) -> dict[str, str]:
        name = unique("mailed")
        email, other = f"{name}@example.org", f"{unique('changed')}@example.org"
        async with Client(self.server.url) as client:
            await client.register(name, PASSWORD, email, name)
            await client.call("POST", "/v1/auth/email/verify/request", {"email": email})
            await client.call("POST", "/v1/auth/password-reset/request", {"email": email})
        facts = {"email": email}
        if who is not None:
            await who.call("POST", "/v1/users/me/email", {"email": other, "password": PASSWORD})
            facts["change_token"] = await self._token(other, "Confirm")
        facts["verify_token"] = await self._token(email, "Confirm")
        facts["reset_token"] = await self._token(email, "Set a new password")
        return facts

    async def _token(self, to: str, subject: str) -> str:
        """Mailed to someone: without a mail server mail is a file."""

        def arrived() -> str | None:
            for path in (self.server.data_dir / "mail").glob("*.eml"):
                text = path.read_text()
                if f"To: {to}" in text and f"Subject: {subject}" in text:
                    return str(re.findall(r"should your app ask for it:\n(\S+)", text)[0])
            return None

        await until(lambda: arrived() is not None)
        return str(arrived())

    async def _befriend(self) -> None:
        them = f"/v1/users/me/friends/{self.third.me.user_id}"
        with suppress(ApiError):  # as an earlier try has left it
            await self.owner.call("DELETE", them)
        await self.third.call("POST", f"/v1/users/{self.owner.me.user_id}/friend")

    async def _files(self, room: str) -> dict[str, str]:
        """One that a message in the room carries, one that has arrived and is not completed, and one that is
        to be sent."""
        file_id = await upload(self.owner, CONTENT)
        shared = {"conversation_id": room, "content": "", "message_type": "file", "file_ids": [file_id]}
        await self.owner.call("POST", "/v1/messages", shared)
        arrived_id, url = await begin_upload(self.owner, CONTENT)
        await put(url, CONTENT)
        begun_id, upload_url = await begin_upload(self.owner, CONTENT)
        return {
            "file_id": file_id,
            "arrived_id": arrived_id,
            "begun_id": begun_id,
            "upload_url": upload_url,
            "download_url": await download_url(self.owner, file_id),
            "node_id": (self.server.data_dir / "node.id").read_text().strip(),
        }


@asynccontextmanager
async def everybody(start_server: StartServer) -> AsyncIterator[Cast]:
    """Short-lived tokens first: one has expired by the time a second start gives out long ones."""
    server = start_server(
        AUTH__ACCESS_TTL_S="5",
        STORAGE__MAX_UNFINISHED="1000",
        AUTH__MAIL_PAUSE_S="0",
        OUTBOX__POLL_S="0.05",
    )
    names = ("owner", "member", "third", "former", "late", "stranger", "blocked", "returned", "admin")
    async with (
        people(server.url, *names, "banned", "leaving", "deputy") as (*clients, banned, leaving, deputy),
        plain(base_url=server.url, timeout=ANSWER_S) as http,
    ):
        *_, blocked, returned, admin = clients
        await trio.to_thread.run_sync(prepare, server, clients[0], blocked, admin, deputy)
        expired = clients[0].me.access_token
        server.settings["AUTH__ACCESS_TTL_S"] = "900"
        await trio.to_thread.run_sync(server.restart)
        await admin.login(admin.me.username, PASSWORD)  # with the role
        for client in (*clients, banned, leaving):
            await client.refresh()
        for client in (returned, leaving):
            await client.call("DELETE", "/v1/users/me", {"password": PASSWORD})
        await returned.login(returned.me.username, PASSWORD)
        await admin.call("POST", f"/v1/admin/users/{banned.me.user_id}/ban", {})
        async with Client(server.url) as leaver:
            await leaver.login(clients[0].me.username, PASSWORD)
            revoked = leaver.me.access_token
            await leaver.logout()

        async def has_expired() -> bool:
            return (await ask(http, "GET", "/v1/auth/profile", Ask(), expired)).status_code == 401

        await until(has_expired, within_s=10)
        tokens = {"expired": expired, "revoked": revoked}
        tokens |= {"banned": banned.me.access_token, "leaving": leaving.me.access_token}
        facts = await begin(clients[0], admin, server)
        yield Cast(server, clients, tokens, facts, await document_of(server), http)


def prepare(server: Server, owner: Client, blocked: Client, admin: Client, deputy: Client) -> None:
    """What no route does: administrators are made at the command line. There are two: one may leave."""
    succeeds("user", "promote", admin.me.username, "--data-dir", server.data_dir, cwd=server.data_dir)
    with closing(sqlite3.connect(server.data_dir / "secureconnect.db", timeout=10)) as db, db:
        db.execute("UPDATE users SET role = 'admin' WHERE user_id = ?", (deputy.me.user_id,))
        db.execute("INSERT INTO blocks VALUES (?, ?, ?)", (owner.me.user_id, blocked.me.user_id, 0))


async def begin(owner: Client, admin: Client, server: Server) -> dict[str, str]:
    """Somebody to be reported and banned, a report, and an invite."""
    async with people(server.url, "victim") as (victim,):
        body = {"user_id": victim.me.user_id, "reason": "other"}
        made = await owner.call("POST", "/v1/reports", body)
        invite = await admin.call("POST", "/v1/admin/invites", {})
        return {
            "victim_id": victim.me.user_id,
            "report_id": made["report_id"],
            "invite_id": invite["invite_id"],
        }


async def document_of(server: Server) -> Document:
    async with plain(base_url=server.url) as http:
        return Document((await http.get("/openapi.json")).json())


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
            "files": about_a_file(route),
            "friends": about_friends(route),
            "keys": about_keys(route),
            "mail": about_mail(route),
            "polls": "{poll_id}" in route.path,
            "notified": "{notification_id}" in route.path,
            "calls": "rings" if "{call_id}" in route.path else None,
            "recorded": "/recording" in route.path,
            "room": route not in AUTH_ROUTES,
            "sessions": route in AUTH_ROUTES,
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
                    caller, files=True, keys=True, polls=True, notified=True, calls="over", recorded=True
                )
            )
            for caller in CALLERS
        }
        for method, path, audience in MISTAKEN:  # what is not as promised shows
            route = next(each for each in ROUTES if (each.method, each.path) == (method, path))
            for caller in CALLERS:
                await look(replace(route, audience=audience), caller, still)
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
