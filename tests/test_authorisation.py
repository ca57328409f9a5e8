"""Who may call what: every route, tried by everybody, against what its audience promises."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
import pyotp
import pytest
import trio

from kit.command import succeeds
from kit.fixtures import StartServer
from kit.olm import OlmDevice, server_name
from kit.people import PASSWORD, begin_upload, direct, download_url, group, people, put, unique, upload
from kit.server import Server
from kit.wait import until
from secureconnect.auth.routes import ROUTES as AUTH_ROUTES
from secureconnect.chat.routes import ROUTES as CHAT_ROUTES
from secureconnect.chat.routes import SOCKETS
from secureconnect.client import ApiError, Client
from secureconnect.client.wire import Lost, Refused, connect
from secureconnect.edge import Audience, Route, SocketRoute
from secureconnect.identity import new_id
from secureconnect.storage.routes import ROUTES as STORAGE_ROUTES

ROUTES = (*AUTH_ROUTES, *CHAT_ROUTES, *STORAGE_ROUTES)
TOTP = "/v1/auth/totp"
CONTENT = b"what is in it"
FILE = {"file_name": "a.txt", "file_size": len(CONTENT), "content_type": "text/plain"}
NOT_IN_ROOMS = {("GET", "/v1/server")}  # the gateway's own, for anyone


@dataclass
class World:
    """One try: a group of owner and member with a message of the owner, and the one who calls."""

    owner: Client
    member: Client
    caller: Client | None
    room: str
    message_id: str
    facts: dict[str, str] = field(default_factory=dict)
    own: OlmDevice | None = None

    def device(self) -> OlmDevice:
        """The one that asks; whoever is not signed in has any."""
        return self.own or OlmDevice(new_id(), new_id(), "nowhere")


Tried = tuple[World, str | None]


@dataclass(frozen=True)
class Ask:
    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None  # bytes: as they are


# How to call each route well, so that only who asks can be what is wrong.


def in_room(world: World, body: Any = None, **path: str) -> Ask:
    return Ask({"conversation_id": world.room, **path}, body=body)


def about_message(world: World, body: Any = None) -> Ask:
    return Ask({"message_id": world.message_id}, body=body)


def registration(_: World) -> Ask:
    name = unique("new")
    return Ask(body={"username": name, "password": PASSWORD, "email": f"{name}@example.org"})


def own_file(world: World, **_: Any) -> Ask:
    return Ask({"file_id": world.facts["file_id"]})


def content(world: World, address: str, body: bytes | None = None) -> Ask:
    """An address is enough, whoever has it."""
    path = {"token": world.facts[address].rpartition("/")[2], "node_id": world.facts["node_id"]}
    return Ask(path, body=body)


def own_session(world: World, body: Any = None) -> Ask:
    return Ask({"session_id": world.facts["session_id"]}, body=body)


def about_victim(world: World, body: Any = None) -> Ask:
    return Ask({"user_id": world.facts["victim_id"]}, body=body)


def own_backup(world: World, body: Any = None) -> Ask:
    """The version stands in the path or in the query."""
    return Ask({"version": world.facts["backup"]}, {"version": world.facts["backup"]}, body)


def friend(world: World) -> Ask:
    """Somebody who has asked the owner."""
    return Ask({"user_id": world.facts["third_id"]})


def confirmation(world: World) -> Ask:
    return Ask(body={"code": world.facts.get("totp_code", "123456")})


HOW: dict[tuple[str, str], Callable[[World], Ask]] = {
    ("POST", "/v1/auth/register"): registration,
    ("POST", "/v1/auth/login"): lambda w: Ask(body={"username": w.member.me.username, "password": PASSWORD}),
    ("POST", "/v1/auth/refresh"): lambda w: Ask(body={"refresh_token": w.facts["refresh_token"]}),
    ("POST", "/v1/auth/logout"): lambda _: Ask(),
    ("POST", "/v1/auth/logout-all"): lambda _: Ask(),
    ("GET", "/v1/auth/profile"): lambda _: Ask(),
    ("GET", "/v1/auth/sessions"): lambda _: Ask(),
    ("PATCH", "/v1/auth/sessions/{session_id}"): lambda w: own_session(w, {"device_name": "phone"}),
    ("DELETE", "/v1/auth/sessions/{session_id}"): own_session,
    ("POST", "/v1/auth/ws-ticket"): lambda _: Ask(),
    ("POST", "/v1/auth/totp/enroll"): lambda _: Ask(body={"password": PASSWORD}),
    ("POST", "/v1/auth/totp/confirm"): confirmation,
    ("DELETE", "/v1/auth/totp"): lambda _: Ask(body={"password": PASSWORD}),
    ("GET", "/v1/admin/invites"): lambda _: Ask(),
    ("POST", "/v1/admin/invites"): lambda _: Ask(body={}),
    ("DELETE", "/v1/admin/invites/{invite_id}"): lambda w: Ask({"invite_id": w.facts["invite_id"]}),
    ("GET", "/v1/users/me"): lambda _: Ask(),
    ("PATCH", "/v1/users/me"): lambda _: Ask(body={"display_name": "Somebody"}),
    ("POST", "/v1/users/me/password"): lambda _: Ask(body={"password": PASSWORD, "new_password": PASSWORD}),
    ("GET", "/v1/users/me/privacy"): lambda _: Ask(),
    ("PUT", "/v1/users/me/privacy"): lambda _: Ask(body={"last_seen": False}),
    ("DELETE", "/v1/users/me"): lambda _: Ask(body={"password": PASSWORD}),
    ("POST", "/v1/users/me/restore"): lambda _: Ask(),
    ("GET", "/v1/users/me/export"): lambda _: Ask(),
    ("GET", "/v1/users/me/friends"): lambda _: Ask(),
    ("POST", "/v1/users/{user_id}/friend"): about_victim,
    ("POST", "/v1/users/me/friends/{user_id}/accept"): friend,
    ("DELETE", "/v1/users/me/friends/{user_id}/reject"): friend,
    ("DELETE", "/v1/users/me/friends/{user_id}"): friend,
    ("GET", "/v1/users/me/blocked"): lambda _: Ask(),
    ("POST", "/v1/users/{user_id}/block"): about_victim,
    ("DELETE", "/v1/users/{user_id}/block"): about_victim,
    ("GET", "/v1/users/search"): lambda _: Ask(query={"q": "someone"}),
    ("GET", "/v1/users/{user_id}"): lambda w: Ask({"user_id": w.owner.me.user_id}),
    ("POST", "/v1/reports"): lambda w: Ask(body={"user_id": w.facts["victim_id"], "reason": "spam"}),
    ("GET", "/v1/announcements"): lambda _: Ask(),
    ("GET", "/v1/admin/stats"): lambda _: Ask(),
    ("GET", "/v1/admin/health"): lambda _: Ask(),
    ("GET", "/v1/admin/users"): lambda _: Ask(query={"banned": "true"}),
    ("POST", "/v1/admin/users/{user_id}/ban"): lambda w: about_victim(w, {"reason": "spam"}),
    ("POST", "/v1/admin/users/{user_id}/unban"): about_victim,
    ("DELETE", "/v1/admin/users/{user_id}"): about_victim,
    ("GET", "/v1/admin/audit"): lambda _: Ask(query={"action": "admin:user:banned"}),
    ("GET", "/v1/admin/audit/export"): lambda _: Ask(),
    ("GET", "/v1/admin/reports"): lambda _: Ask(query={"state": "open"}),
    ("PATCH", "/v1/admin/reports/{report_id}"): lambda w: Ask(
        {"report_id": w.facts["report_id"]}, body={"note": "seen"}
    ),
    ("GET", "/v1/admin/announcements"): lambda _: Ask(),
    ("POST", "/v1/admin/announcements"): lambda _: Ask(body={"text": "hear"}),
    ("POST", "/v1/keys/upload"): lambda w: Ask(body=w.device().bundle()),
    ("POST", "/v1/keys/rotate"): lambda w: Ask(body={"signed_pre_key": w.device().pre_key()}),
    ("GET", "/v1/keys/count"): lambda _: Ask(),
    ("GET", "/v1/keys/{user_id}"): lambda w: Ask({"user_id": w.owner.me.user_id}),
    ("POST", "/v1/e2ee/keys/upload"): lambda w: Ask(body=w.device().upload()),
    ("POST", "/v1/e2ee/keys/query"): lambda _: Ask(body={"device_keys": {}}),
    ("POST", "/v1/e2ee/keys/claim"): lambda _: Ask(body={"one_time_keys": {}}),
    ("PUT", "/v1/e2ee/to-device/{type}/{txn}"): lambda _: Ask(
        {"type": "m.x", "txn": "1"}, body={"messages": {}}
    ),
    ("GET", "/v1/e2ee/sync"): lambda _: Ask(),
    ("POST", "/v1/e2ee/signing-keys"): lambda w: Ask(
        body={"password": PASSWORD, "master_key": w.device().master_key()}
    ),
    ("POST", "/v1/e2ee/signatures"): lambda _: Ask(body={"signatures": {}}),
    ("POST", "/v1/e2ee/backup/version"): lambda _: Ask(body={"algorithm": "m.x", "auth_data": {}}),
    ("GET", "/v1/e2ee/backup/version"): lambda _: Ask(),
    ("GET", "/v1/e2ee/backup/version/{version}"): own_backup,
    ("PUT", "/v1/e2ee/backup/version/{version}"): lambda w: own_backup(
        w, {"algorithm": "m.x", "auth_data": {}}
    ),
    ("DELETE", "/v1/e2ee/backup/version/{version}"): own_backup,
    ("PUT", "/v1/e2ee/backup/keys"): lambda w: own_backup(w, {"rooms": {}}),
    ("GET", "/v1/e2ee/backup/keys"): own_backup,
    ("DELETE", "/v1/e2ee/backup/keys"): own_backup,
    ("POST", "/v1/conversations"): lambda w: Ask(
        body={"type": "group", "title": "t", "participant_ids": [w.owner.me.user_id]}
    ),
    ("GET", "/v1/conversations"): lambda _: Ask(),
    ("GET", "/v1/conversations/{conversation_id}"): in_room,
    ("PATCH", "/v1/conversations/{conversation_id}"): lambda w: in_room(w, {"title": "other"}),
    ("PUT", "/v1/conversations/{conversation_id}/settings"): lambda w: in_room(
        w, {"message_retention_days": 7}
    ),
    ("GET", "/v1/conversations/{conversation_id}/participants"): in_room,
    ("POST", "/v1/conversations/{conversation_id}/participants"): lambda w: in_room(
        w, {"user_id": w.facts["newcomer_id"]}
    ),
    ("DELETE", "/v1/conversations/{conversation_id}/participants/{user_id}"): lambda w: in_room(
        w,
        # members may leave; only the owner may remove others, and cannot leave
        user_id=w.member.me.user_id if w.caller is w.member else w.facts["third_id"],
    ),
    ("PATCH", "/v1/conversations/{conversation_id}/participants/{user_id}"): lambda w: in_room(
        w, {"role": "admin"}, user_id=w.facts["third_id"]
    ),
    ("POST", "/v1/conversations/{conversation_id}/read"): lambda w: in_room(w, {"seq": 1}),
    ("POST", "/v1/messages"): lambda w: Ask(
        body={"conversation_id": w.room, "content": "hi", "client_message_id": new_id()}
    ),
    ("GET", "/v1/messages"): lambda w: Ask(query={"conversation_id": w.room}),
    ("GET", "/v1/messages/{message_id}"): about_message,
    ("PATCH", "/v1/messages/{message_id}"): lambda w: about_message(w, {"content": "other"}),
    ("DELETE", "/v1/messages/{message_id}"): about_message,
    ("POST", "/v1/presence"): lambda _: Ask(body={"status": "away"}),
    ("GET", "/v1/presence"): lambda w: Ask(query={"user_ids": w.owner.me.user_id}),
    ("POST", "/v1/storage/upload-url"): lambda _: Ask(body=FILE),
    ("POST", "/v1/storage/upload-complete"): lambda w: Ask(body={"file_id": w.facts["arrived_id"]}),
    ("GET", "/v1/storage/download-url/{file_id}"): own_file,
    ("GET", "/v1/storage/files"): lambda _: Ask(),
    ("GET", "/v1/storage/files/{file_id}"): own_file,
    ("DELETE", "/v1/storage/files/{file_id}"): own_file,
    ("GET", "/v1/storage/quota"): lambda _: Ask(),
    ("PUT", "/v1/storage/objects/{token}"): lambda w: content(w, "upload_url", CONTENT),
    ("GET", "/v1/storage/objects/{token}"): lambda w: content(w, "download_url"),
    ("PUT", "/v1/storage/spool/{node_id}/{token}"): lambda w: content(w, "upload_url", CONTENT),
    ("GET", "/v1/storage/spool/{node_id}/{token}"): lambda w: content(w, "download_url"),
}
SOCKET_HOW: dict[str, Callable[[World], dict[str, str]]] = {
    "/v1/ws/chat": lambda w: {"conversation_id": w.room}
}

# blocked: a stranger whom the owner has blocked.  banned: one with a token from before.  admin: of the
# server, and a stranger to the room.  entitled: the owner, who is an ordinary user of the server
CALLERS = (
    "anonymous",
    "expired",
    "revoked",
    "banned",
    "stranger",
    "blocked",
    "admin",
    "member",
    "entitled",  # last: it may end the sessions on which the worlds stand
)
TOKENLESS = {
    "anonymous": (401, "UNAUTHENTICATED"),
    "expired": (401, "TOKEN_EXPIRED"),
    "revoked": (401, "TOKEN_REVOKED"),
    "banned": (401, "TOKEN_REVOKED"),
}
SIGNED_IN: dict[Audience, dict[str, int]] = {
    Audience.USER: {"stranger": 200, "member": 200, "entitled": 200},
    Audience.OWNER: {"stranger": 404, "member": 404, "entitled": 200},
    Audience.MEMBER: {"stranger": 404, "member": 200, "entitled": 200},
    Audience.MODERATOR: {"stranger": 404, "member": 403, "entitled": 200},
    Audience.AUTHOR: {"stranger": 404, "member": 403, "entitled": 200},
    Audience.ADMIN: {"stranger": 403, "member": 403, "entitled": 403, "admin": 200},
}
STRANGERS = {"blocked", "admin"}  # where nothing else is said, they are what a stranger is


def about_a_file(route: Route) -> bool:
    return "/storage/" in route.path and ("{" in route.path or route.audience is Audience.OWNER)


def about_keys(route: Route) -> bool:
    return route.path.startswith(("/v1/keys/", "/v1/e2ee/"))


def about_friends(route: Route) -> bool:
    return route.path.startswith("/v1/users/me/friends/")


def ends_sessions(route: Route) -> bool:
    """Every session of the caller, or every other."""
    return (route.method, route.path) in {
        ("POST", "/v1/auth/logout-all"),
        ("POST", "/v1/users/me/password"),
        ("DELETE", "/v1/users/me"),
    }


def expected(audience: Audience, caller: str) -> tuple[int, str | None]:
    """The status, 200 for any success; and the code of a refused token."""
    if audience is Audience.ANYONE:
        return 200, None
    if caller in TOKENLESS:
        return TOKENLESS[caller]
    return status_of(audience, caller), None


def status_of(audience: Audience, caller: str) -> int:
    known = SIGNED_IN[audience]
    return known["stranger"] if caller in STRANGERS and caller not in known else known[caller]


class Cast:
    """Everybody on one server.  tokens: that were good once.  facts: the same in every world."""

    def __init__(
        self, server: Server, everybody: list[Client], tokens: dict[str, str], facts: dict[str, str]
    ) -> None:
        self.server = server
        self.owner, self.member, self.third, self.stranger, self.blocked, self.admin = everybody
        self.tokens = tokens
        self.facts = facts
        self._devices: dict[str, OlmDevice] = {}

    async def sign_in(self) -> None:
        for client in (self.owner, self.member, self.third, self.stranger, self.blocked, self.admin):
            await client.login(client.me.username, PASSWORD)

    @asynccontextmanager
    async def world(
        self,
        caller: str,
        *,
        files: bool = False,
        friends: bool = False,
        totp: bool = False,
        keys: bool = False,
    ) -> AsyncIterator[Tried]:
        """A fresh world, and the token of who calls. Their session is a fresh one too: a route may end it.

        files: the owner has some.  friends: the third has asked the owner.
        totp: the caller has begun to set up a second factor, which is turned off afterwards.
        keys: the owner's device and the caller's are published, and the caller has a backup.
        """
        callers = {name: getattr(self, name) for name in ("stranger", "blocked", "member", "admin")}
        who = (callers | {"entitled": self.owner}).get(caller)
        async with Client(self.server.url) as own, Client(self.server.url) as spare:
            room = await group(self.owner, self.member, self.third)
            sent = await self.owner.send_message(room, "hello", new_id())
            await spare.login(self.owner.me.username, PASSWORD)
            world = World(self.owner, self.member, who, room, sent["message_id"])
            world.facts = self.facts | {
                "session_id": spare.me.session_id,
                "refresh_token": spare.me.refresh_token,
                "third_id": self.third.me.user_id,
                "newcomer_id": self.stranger.me.user_id,
            }
            if friends:
                await self._befriend()
            if files:
                world.facts |= await self._files()
            token = self.tokens.get(caller)
            if who is not None:
                await own.login(who.me.username, PASSWORD)
                token = own.me.access_token
            if keys:
                await self._publish(self.owner)
                world.facts["backup"] = await self._backup(self.owner if who is None else own)
                world.own = None if who is None else await self._publish(own)
            if not totp or who is None:
                yield world, token
                return
            app = pyotp.TOTP((await own.call("POST", f"{TOTP}/enroll", {"password": PASSWORD}))["secret"])
            at_s = int(time.time())
            world.facts["totp_code"] = app.at(at_s)
            yield world, token
            await own.call("DELETE", TOTP, {"password": PASSWORD, "totp_code": app.at(at_s + 30)})

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

    async def _befriend(self) -> None:
        them = f"/v1/users/me/friends/{self.third.me.user_id}"
        with suppress(ApiError):  # as an earlier try has left it
            await self.owner.call("DELETE", them)
        await self.third.call("POST", f"/v1/users/{self.owner.me.user_id}/friend")

    async def _files(self) -> dict[str, str]:
        """One that is there, one that has arrived and is not completed, and one that is to be sent."""
        file_id = await upload(self.owner, CONTENT)
        arrived_id, url = await begin_upload(self.owner, CONTENT)
        await put(url, CONTENT)
        return {
            "file_id": file_id,
            "arrived_id": arrived_id,
            "upload_url": (await begin_upload(self.owner, CONTENT))[1],
            "download_url": await download_url(self.owner, file_id),
            "node_id": (self.server.data_dir / "node.id").read_text().strip(),
        }


@asynccontextmanager
async def everybody(start_server: StartServer) -> AsyncIterator[Cast]:
    """Short-lived tokens first: one has expired by the time a second start gives out long ones."""
    server = start_server(AUTH__ACCESS_TTL_S="5", STORAGE__MAX_UNFINISHED="1000")
    names = ("owner", "member", "third", "stranger", "blocked", "admin", "banned", "deputy")
    async with people(server.url, *names) as (*clients, banned, deputy):
        *_, blocked, admin = clients
        await trio.to_thread.run_sync(prepare, server, clients[0], blocked, admin, deputy)
        expired = clients[0].me.access_token
        server.settings["AUTH__ACCESS_TTL_S"] = "900"
        await trio.to_thread.run_sync(server.restart)
        await admin.login(admin.me.username, PASSWORD)  # with the role
        for client in (*clients, banned):
            await client.refresh()
        await admin.call("POST", f"/v1/admin/users/{banned.me.user_id}/ban", {})
        async with Client(server.url) as leaver:
            await leaver.login(clients[0].me.username, PASSWORD)
            revoked = leaver.me.access_token
            await leaver.logout()

        async def has_expired() -> bool:
            return (await ask(server, "GET", "/v1/auth/profile", Ask(), expired)).status_code == 401

        await until(has_expired, within_s=10)
        tokens = {"expired": expired, "revoked": revoked, "banned": banned.me.access_token}
        yield Cast(server, clients, tokens, await begin(clients[0], admin, server))


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


async def ask(server: Server, method: str, path: str, how: Ask, token: str | None) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, verify=False) as http:
        body = {} if how.body is None else {"content" if isinstance(how.body, bytes) else "json": how.body}
        return await http.request(method, path.format(**how.path), params=how.query, headers=headers, **body)


def test_every_route_is_in_the_table() -> None:
    assert {(route.method, route.path) for route in ROUTES} == set(HOW)
    assert {socket.path for socket in SOCKETS} == set(SOCKET_HOW)


async def test_the_document_names_no_other_route(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        document = (await http.get("/openapi.json")).json()
    named = {(verb.upper(), path) for path, verbs in document["paths"].items() for verb in verbs}
    versioned = {pair for pair in named if pair[1].startswith("/v1/") and pair[1] not in SOCKET_HOW}
    assert versioned == set(HOW) | NOT_IN_ROOMS


async def test_routes(start_server: StartServer) -> None:
    wrong: list[str] = []

    async def look(cast: Cast, route: Route, caller: str, still: Mapping[str, Tried]) -> None:
        """still: a world for each caller that nobody changes, for whoever only looks or is refused."""
        refused = route.audience is not Audience.ANYONE and expected(route.audience, caller)[0] in (401, 403)
        async with AsyncExitStack() as stack:
            if route.method == "GET" or refused:
                world, token = still[caller]
            else:
                needs = {
                    "files": about_a_file(route),
                    "friends": about_friends(route),
                    "keys": about_keys(route),
                    "totp": route.path == f"{TOTP}/confirm",
                }
                world, token = await stack.enter_async_context(cast.world(caller, **needs))
            if (route.method, route.path) == ("DELETE", "/v1/users/me/friends/{user_id}"):
                await world.owner.call("POST", f"/v1/users/{world.facts['third_id']}/friend")
            how = HOW[route.method, route.path](world)
            answer = await ask(cast.server, route.method, route.path, how, token)
        status, code = expected(route.audience, caller)
        got = 200 if answer.is_success else answer.status_code
        said = None if answer.is_success else answer.json()["error"]["code"]
        if got != status or (code is not None and said != code):
            told = f"{answer.status_code} {said}, not {status} {code or ''}"
            wrong.append(f"{route.method} {route.path} by {caller}: {told}")

    async with everybody(start_server) as cast, AsyncExitStack() as stack:
        still = {
            caller: await stack.enter_async_context(cast.world(caller, files=True, keys=True))
            for caller in CALLERS
        }
        for route in sorted(ROUTES, key=ends_sessions):
            for caller in CALLERS:
                await look(cast, route, caller, still)
            if ends_sessions(route):
                await cast.sign_in()
    assert not wrong, "\n".join(wrong)


async def test_sockets(start_server: StartServer) -> None:
    wrong: list[str] = []

    async def look(cast: Cast, socket: SocketRoute, caller: str, query: dict[str, str], status: int) -> None:
        async with cast.world(caller) as (_, token):
            headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
            url = f"ws{cast.server.url.removeprefix('http')}{socket.path}?{urlencode(query)}"
            try:
                async with connect(url, headers) as wire:
                    heard = json.loads(await wire.receive())
                    got = 200 if heard["type"] == "hello" else 0
            except Refused as refusal:
                got = refusal.status
            except Lost as lost:
                got = lost.code
        if got != status:
            wrong.append(f"{socket.path} {query} by {caller}: {got}, not {status}")

    async with everybody(start_server) as cast:
        async with cast.world("member") as (world, _):
            query = SOCKET_HOW["/v1/ws/chat"](world)
        for socket in SOCKETS:
            for caller in CALLERS:
                refused = caller in TOKENLESS
                await look(cast, socket, caller, {}, 401 if refused else 200)
                narrowed = 401 if refused else status_of(Audience.MEMBER, caller)
                await look(cast, socket, caller, query, narrowed)
    assert not wrong, "\n".join(wrong)


async def test_what_a_stranger_learns_of_a_room_is_what_nobody_knows(server: Server) -> None:
    """The same answer for what exists and what does not: no probing of ids."""
    async with people(server.url, "ann", "bob", "eve") as (ann, bob, eve):
        room = await direct(ann, bob)
        sent = await ann.send_message(room, "secret", new_id())
        probes: list[tuple[Callable[[str], Awaitable[Any]], str]] = [
            (eve.conversation, room),
            (eve.messages, room),
            (eve.delete_message, sent["message_id"]),
            (lambda key: eve.edit_message(key, "x"), sent["message_id"]),
            (lambda key: eve.send_message(key, "x", new_id()), room),
            (lambda key: eve.call("GET", f"/v1/storage/files/{key}"), await upload(ann, CONTENT)),
        ]
        for probe, there in probes:
            said = []
            for key in (there, new_id()):
                with pytest.raises(ApiError) as refusal:
                    await probe(key)
                said.append((refusal.value.status, refusal.value.code, refusal.value.message))
            assert said[0] == said[1]
            assert said[0][0] == 404
