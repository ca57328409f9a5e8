"""The REST half of the client: calls, tokens, and the errors a server answers with."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self

import httpx
import msgspec
import trio

from ..identity import new_id
from .answers import ApiError
from .signaling import Signaling, in_call
from .stream import Stream, follow

TIMEOUT_S = 35.0  # above the server's own deadline, so that its answer tells what happened
RENEW_BEFORE_S = 30.0
REFRESH_S = 5.0
CREATE_PAUSES_S = (0.5, 2.0)  # before what may have been done is asked for again
CONNECTIONS = 100
PAGE = 100

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a signed-in device keeps.

    expires_at: when the access token ends; renew_at: when to exchange it. Unix seconds by our own clock.
    """

    user_id: str
    username: str
    access_token: str
    refresh_token: str
    expires_at: float
    renew_at: float
    session_id: str
    device_id: str
    device_secret: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, session {self.session_id})"


class Client:
    """One device of one person, against one server.

    server: its URL.  on_credentials: called with the new credentials whenever they change, None after a
    logout; whoever keeps them must keep every change, since a refresh token is spent by its use.
    """

    def __init__(
        self,
        server: str,
        credentials: Credentials | None = None,
        *,
        on_credentials: Callable[[Credentials | None], None] | None = None,
    ) -> None:
        self.server = server.rstrip("/")
        self.credentials = credentials
        self._on_credentials = on_credentials
        self._refreshing = trio.Lock()
        self._http = httpx.AsyncClient(
            base_url=self.server,
            timeout=TIMEOUT_S,
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
            trust_env=False,
            verify=self.server.startswith("https:"),  # loading the authorities costs 20 ms: not for http
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.move_on_after(2, shield=True):
            await self._http.aclose()

    @property
    def me(self) -> Credentials:
        """Raises RuntimeError when nobody is signed in."""
        if self.credentials is None:
            raise RuntimeError("sign in first")
        return self.credentials

    # signing in and out

    async def register(
        self,
        username: str,
        password: str,
        email: str,
        display_name: str | None = None,
        *,
        invite_code: str = "",
    ) -> Json | None:
        """Returns the user; the client is signed in afterwards. None: a mail was sent, and the account begins
        once its address is confirmed."""
        body = {"username": username, "password": password, "email": email}
        if invite_code:
            body["invite_code"] = invite_code
        if display_name is not None:
            body["display_name"] = display_name
        answer = await self.call("POST", "/v1/auth/register", body, signed=False)
        return self._sign_in(answer) if "user" in answer else None

    async def login(
        self,
        name: str,
        password: str,
        *,
        device_id: str = "",
        device_secret: str = "",
        device_name: str = "",
        totp_code: str = "",
    ) -> Json:
        """name: username, or e-mail address.  device_id, device_secret: of this device's earlier login.
        totp_code: where that was refused with TOTP_REQUIRED."""
        body = {"email" if "@" in name else "username": name, "password": password}
        given = {"device_id": device_id, "device_secret": device_secret, "device_name": device_name}
        given["totp_code"] = totp_code
        body.update({key: value for key, value in given.items() if value})
        return self._sign_in(await self.call("POST", "/v1/auth/login", body, signed=False), device_secret)

    async def refresh(self, stale: str | None = None) -> None:
        """Exchange the refresh token. Callers that find the same access token `stale` share one exchange."""
        stale = stale or self.me.access_token
        async with self._refreshing:
            if self.me.access_token != stale:
                return
            body = {"refresh_token": self.me.refresh_token}
            # A client that ended between the answer and keeping it could not come back after the grace.
            with trio.move_on_after(REFRESH_S, shield=True) as limit:
                answer = await self.call("POST", "/v1/auth/refresh", body, signed=False)
                expires_at, renew_at = _times(answer["expires_in"])
                self._keep(
                    replace(
                        self.me,
                        access_token=answer["access_token"],
                        refresh_token=answer["refresh_token"],
                        expires_at=expires_at,
                        renew_at=renew_at,
                    )
                )
            if limit.cancelled_caught:
                raise httpx.ReadTimeout("the server does not answer")

    async def access_token(self) -> str:
        """A token that is good for a while yet; or the one there is, if the server has no other now, which
        may take that past its end while its database is away."""
        if time.time() >= self.me.renew_at:
            try:
                await self.refresh(self.me.access_token)
            except ApiError as refusal:
                if refusal.status != 503:
                    raise
        return self.me.access_token

    async def logout(self, *, everywhere: bool = False) -> None:
        await self.call("POST", "/v1/auth/logout-all" if everywhere else "/v1/auth/logout")
        self._keep(None)

    async def profile(self) -> Json:
        return _object(await self.call("GET", "/v1/auth/profile"))

    async def sessions(self) -> list[Json]:
        return await self._list("/v1/auth/sessions", "sessions")

    async def ws_ticket(self) -> str:
        answer = await self.call("POST", "/v1/auth/ws-ticket")
        return str(answer["ticket"])

    # people and conversations

    async def search_users(self, query: str) -> list[Json]:
        answer = await self.call("GET", "/v1/users/search", query={"q": query})
        return list(answer["users"])

    async def user(self, user_id: str) -> Json:
        return _object(await self.call("GET", f"/v1/users/{user_id}"))

    async def open_direct(self, user_id: str) -> Json:
        """The conversation with one other person, made if there is none."""
        return await self.create("/v1/conversations", {"type": "direct", "participant_ids": [user_id]})

    async def create_group(self, title: str, user_ids: Sequence[str]) -> Json:
        body = {"type": "group", "title": title, "participant_ids": list(user_ids)}
        return await self.create("/v1/conversations", body)

    async def conversations(self) -> list[Json]:
        return await self._list("/v1/conversations", "conversations")

    async def conversation(self, conversation_id: str) -> Json:
        return _object(await self.call("GET", f"/v1/conversations/{conversation_id}"))

    async def participants(self, conversation_id: str) -> list[Json]:
        return await self._list(f"/v1/conversations/{conversation_id}/participants", "participants")

    async def mark_read(self, conversation_id: str, seq: int) -> None:
        await self.call("POST", f"/v1/conversations/{conversation_id}/read", {"seq": seq})

    # messages

    async def send_message(self, conversation_id: str, content: str, client_message_id: str) -> Json:
        """Repeat it with the same `client_message_id` when the outcome is not known: it is stored once."""
        body = {
            "conversation_id": conversation_id,
            "content": content,
            "client_message_id": client_message_id,
            "message_type": "text",
        }
        return _object(await self.call("POST", "/v1/messages", body))

    async def messages(
        self,
        conversation_id: str,
        *,
        limit: int = PAGE,
        before_seq: int | None = None,
        after_seq: int | None = None,
    ) -> list[Json]:
        """At most 100, ascending by `seq`; without a bound the newest."""
        query: dict[str, str | int] = {"conversation_id": conversation_id, "limit": limit}
        if before_seq is not None:
            query["before_seq"] = before_seq
        if after_seq is not None:
            query["after_seq"] = after_seq
        answer = await self.call("GET", "/v1/messages", query=query)
        return list(answer["messages"])

    async def history(self, conversation_id: str, limit: int) -> list[Json]:
        """The newest `limit` messages, ascending."""
        found: list[Json] = []
        while len(found) < limit:
            before = found[0]["seq"] if found else None
            page = await self.messages(
                conversation_id, limit=min(PAGE, limit - len(found)), before_seq=before
            )
            found = page + found
            if len(page) < PAGE:
                break
        return found

    async def edit_message(self, message_id: str, content: str) -> Json:
        return _object(await self.call("PATCH", f"/v1/messages/{message_id}", {"content": content}))

    async def delete_message(self, message_id: str) -> None:
        await self.call("DELETE", f"/v1/messages/{message_id}")

    # the socket, and the call beneath it all

    def stream(
        self,
        *,
        auth: Literal["header", "ticket"] = "header",
        conversation_id: str | None = None,
        **limits: int,
    ) -> AbstractAsyncContextManager[Stream]:
        """The WebSocket, for as long as the block lasts: see `Stream`, also for `limits`.

        auth: how the handshake proves who we are; browsers can only use a ticket.
        conversation_id: follow this conversation alone.
        """
        return follow(self, auth=auth, conversation_id=conversation_id, **limits)

    def signaling(self, call_id: str, instance_id: str = "") -> AbstractAsyncContextManager[Signaling]:
        """This device in a call it has joined, for as long as the block lasts: see `Signaling`.

        instance_id: of an earlier block, to come back as what it was.
        """
        return in_call(self, call_id, instance_id)

    async def create(self, path: str, body: Any = None) -> Json:
        """Make something by a POST that takes an Idempotency-Key: where an answer is lost on its way the
        request is sent again, and what it makes is made once. Raises as `call`."""
        key = new_id()
        for pause_s in CREATE_PAUSES_S:
            try:
                return _object(await self.call("POST", path, body, idempotency_key=key))
            except httpx.TransportError:
                await trio.sleep(pause_s)
            except ApiError as refusal:
                if refusal.code != "IDEMPOTENCY_KEY_IN_USE":
                    raise
                await trio.sleep(pause_s)
        return _object(await self.call("POST", path, body, idempotency_key=key))

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str | int] | None = None,
        signed: bool = True,
        idempotency_key: str | None = None,
    ) -> Any:
        """The `data` of the answer. Raises ApiError, and httpx.TransportError when there is no answer."""
        reply = await self.reply(
            method, path, body, query=query, signed=signed, idempotency_key=idempotency_key
        )
        return msgspec.json.decode(reply.content)["data"]

    async def reply(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str | int] | None = None,
        signed: bool = True,
        idempotency_key: str | None = None,
    ) -> httpx.Response:
        """The same, with status and headers. An expired token is renewed, once, and the call made again."""
        token = await self.access_token() if signed else None
        try:
            return await self._exchange(method, path, body, query, token, idempotency_key)
        except ApiError as refusal:
            if token is None or refusal.code != "TOKEN_EXPIRED":
                raise
        await self.refresh(token)
        return await self._exchange(method, path, body, query, self.me.access_token, idempotency_key)

    async def _exchange(
        self,
        method: str,
        path: str,
        body: Any,
        query: Mapping[str, str | int] | None,
        token: str | None,
        idempotency_key: str | None,
    ) -> httpx.Response:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        content = None if body is None else msgspec.json.encode(body)
        reply = await self._http.request(method, path, params=query, content=content, headers=headers)
        if not reply.is_success:
            raise ApiError.of_reply(reply.status_code, reply.headers, reply.content)
        return reply

    async def _pages(self, path: str, noun: str) -> AsyncIterator[Json]:
        cursor: str | None = None
        while True:
            query: dict[str, str | int] = {"limit": PAGE}
            if cursor is not None:
                query["cursor"] = cursor
            answer = await self.call("GET", path, query=query)
            for item in answer[noun]:
                yield item
            cursor = answer["next_cursor"]
            if cursor is None:
                return

    async def _list(self, path: str, noun: str) -> list[Json]:
        return [item async for item in self._pages(path, noun)]

    def _sign_in(self, answer: Json, device_secret: str = "") -> Json:
        user: Json = answer["user"]
        expires_at, renew_at = _times(answer["expires_in"])
        self._keep(
            Credentials(
                user["user_id"],
                user["username"],
                answer["access_token"],
                answer["refresh_token"],
                expires_at,
                renew_at,
                answer["session_id"],
                answer["device_id"],
                answer.get("device_secret") or device_secret,
            )
        )
        return user

    def _keep(self, credentials: Credentials | None) -> None:
        self.credentials = credentials
        if self._on_credentials is not None:
            self._on_credentials(credentials)


def _times(expires_in_s: int) -> tuple[float, float]:
    """When a token of this life ends, and when to renew it."""
    now = time.time()
    return now + expires_in_s, now + expires_in_s - min(RENEW_BEFORE_S, expires_in_s / 4)


def _object(answer: Any) -> Json:
    if not isinstance(answer, dict):
        raise TypeError(f"expected an object, got {type(answer).__name__}")
    return answer
