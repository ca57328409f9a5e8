"""Everybody who may call a server, and worlds in which they try it."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Literal

import httpx
import pyotp
import trio

from kit.asks import CONTENT, PART, Ask, Tried, World, ask
from kit.command import succeeds
from kit.document import Document
from kit.fixtures import StartServer
from kit.http import plain
from kit.olm import OlmDevice, server_name
from kit.people import PASSWORD, begin_upload, download_url, group, people, put, unique, upload
from kit.recordings import allow_recordings, finish, record, send_part
from kit.server import Server
from kit.wait import until
from secureconnect.client import ApiError, Client, Credentials
from secureconnect.identity import new_id

TOTP = "/v1/auth/totp"
ANSWER_S = 30


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
        self._mails: dict[Path, str] = {}

    async def sign_in(self) -> None:
        for client in self.everybody:
            await client.login(client.me.username, PASSWORD)

    @asynccontextmanager
    async def world(
        self,
        caller: str,
        *,
        files: bool = False,
        address: bool = False,
        friends: bool = False,
        totp: Literal["begun", "on"] | None = None,
        keys: bool = False,
        mail: bool = False,
        polls: bool = False,
        notified: bool = False,
        calls: Literal["over", "rings", "begins"] | None = None,
        recorded: bool = False,
        room: bool = True,
        other_session: bool = False,
        own_session: bool = False,
    ) -> AsyncIterator[Tried]:
        """A fresh world, and the token of who calls.

        files: the owner has some.  address: of content that the owner is to send.
        friends: the third has asked the owner.
        totp: the second factor of the caller, who has begun to set it up or has it; turned off afterwards.
        keys: the owner's device and the caller's are published, and the caller has a backup.
        mail: tokens were mailed, to someone new and to the caller.
        polls: the owner has asked something.  notified: of something.
        calls: the third has called the others, or somebody is to.  recorded: the owner has answered, and
        records; if it is over, that is kept.
        room: a fresh one; else there is none.  other_session: the owner has another one.
        own_session: that of who calls is a fresh one, too.
        """
        named = ("stranger", "blocked", "returned", "member", "admin", "former", "late")
        callers = {name: getattr(self, name) for name in named}
        who = (callers | {"entitled": self.owner}).get(caller)
        world = World(self.owner, self.member, who, *(await self._room() if room else (new_id(), new_id())))
        people = {"third_id": self.third.me.user_id, "newcomer_id": self.stranger.me.user_id}
        world.facts = self.facts | people
        if other_session:
            other = await self._signed_in(self.owner)
            world.facts["session_id"] = other.session_id
            world.facts["refresh_token"] = other.refresh_token
        if friends:
            await self._befriend()
        if files:
            world.facts |= await self._files(world.room)
        if address:
            world.facts |= await self._address()
        if polls:
            asked = {"conversation_id": world.room, "question": "When?", "options": ["now", "later"]}
            world.facts["poll_id"] = (await self.owner.call("POST", "/v1/polls", asked))["poll_id"]
        if notified:
            world.facts["notification_id"] = await self._notified(world.message_id)
        if room:
            late = {"user_id": self.late.me.user_id}
            await self.owner.call("POST", f"/v1/conversations/{world.room}/participants", late)
        if calls in ("over", "rings"):
            world.facts |= await self._called(world.room, calls, recorded=recorded)
        async with AsyncExitStack() as stack:
            own = who
            if who is not None and own_session:
                own = await stack.enter_async_context(Client(self.server.url, await self._signed_in(who)))
            if mail:
                world.facts |= await self._mailed(who)
            if keys:
                await self._publish(self.owner)
                world.facts["backup"] = await self._backup(own or self.owner)
                world.own = None if own is None else await self._publish(own)
            token = self.tokens.get(caller) if own is None else own.me.access_token
            world.facts["access_token"] = token or ""
            if totp is None or own is None:
                yield world, token
                if calls in ("rings", "begins"):
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

    async def _signed_in(self, who: Client) -> Credentials:
        """A further session of theirs."""
        async with Client(self.server.url) as client:
            await client.login(who.me.username, PASSWORD)
            return client.me

    async def _called(self, room: str, calls: str, *, recorded: bool) -> dict[str, str]:
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
            for path in set((self.server.data_dir / "mail").glob("*.eml")) - set(self._mails):
                self._mails[path] = path.read_text()
            for text in self._mails.values():
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
        files = {"file_id": file_id, "arrived_id": arrived_id}
        return files | {"download_url": await download_url(self.owner, file_id)} | await self._address()

    async def _address(self) -> dict[str, str]:
        begun_id, upload_url = await begin_upload(self.owner, CONTENT)
        node_id = (self.server.data_dir / "node.id").read_text().strip()
        return {"begun_id": begun_id, "upload_url": upload_url, "node_id": node_id}


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
            "email": f"{victim.me.username}@example.org",
            "report_id": made["report_id"],
            "invite_id": invite["invite_id"],
        }


async def document_of(server: Server) -> Document:
    async with plain(base_url=server.url) as http:
        return Document((await http.get("/openapi.json")).json())
