"""How to call each route well, so that only who asks can be what is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from kit.olm import OlmDevice
from kit.people import PASSWORD, unique
from kit.pushservice import Browser
from secureconnect.client import Client
from secureconnect.edge import Audience
from secureconnect.identity import is_id, new_id

CONTENT = b"what is in it"
PART = b"what was said"
RECORDING = "/v1/calls/{call_id}/recordings/{recording_id}"
FILE = {"file_name": "a.txt", "file_size": len(CONTENT), "content_type": "text/plain"}


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


async def ask(http: httpx.AsyncClient, method: str, path: str, how: Ask, token: str | None) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    body = {} if how.body is None else {"content" if isinstance(how.body, bytes) else "json": how.body}
    return await http.request(method, path.format(**how.path), params=how.query, headers=headers, **body)


def of_nothing(asked: Any) -> Any:
    """The same, with ids that nobody has given to anything."""
    if isinstance(asked, dict):
        return {name: of_nothing(each) for name, each in asked.items()}
    if isinstance(asked, list):
        return [of_nothing(each) for each in asked]
    return new_id() if isinstance(asked, str) and is_id(asked) else asked


def in_room(world: World, body: Any = None, **path: str) -> Ask:
    return Ask({"conversation_id": world.room, **path}, body=body)


def about_message(world: World, body: Any = None) -> Ask:
    return Ask({"message_id": world.message_id}, body=body)


def reaction(world: World) -> Ask:
    return Ask({"message_id": world.message_id, "emoji": "\N{THUMBS UP SIGN}"})


def new_poll(world: World) -> Ask:
    return Ask(body={"conversation_id": world.room, "question": "When?", "options": ["now", "later"]})


def about_poll(world: World, body: Any = None) -> Ask:
    return Ask({"poll_id": world.facts["poll_id"]}, body=body)


def new_call(world: World) -> Ask:
    """To somebody in the room who is in no call."""
    return Ask(
        body={
            "conversation_id": world.room,
            "call_type": "audio",
            "callee_ids": [world.facts["third_id"]],
        }
    )


def about_call(world: World) -> Ask:
    return Ask({"call_id": world.facts["call_id"]})


def about_recording(world: World, body: Any = None) -> Ask:
    """Any of that call."""
    return replace(about_call(world), body=body)


def that_recording(world: World, body: Any = None, **path: str) -> Ask:
    """Of which the owner has sent one part."""
    named = {"call_id": world.facts["call_id"], "recording_id": world.facts["recording_id"]}
    return Ask(named | path, body=body)


def recording_part(world: World) -> Ask:
    """The first, again."""
    return replace(
        that_recording(world, PART, number="1"), query={"sha256": hashlib.sha256(PART).hexdigest()}
    )


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


def mailed(world: World, token: str, **more: str) -> Ask:
    return Ask(body={"token": world.facts.get(token, "none")} | more)


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
    ("POST", "/v1/auth/email/verify/request"): lambda w: Ask(body={"email": w.facts["email"]}),
    ("POST", "/v1/auth/email/verify"): lambda w: mailed(w, "verify_token"),
    ("POST", "/v1/auth/password-reset/request"): lambda w: Ask(body={"email": w.facts["email"]}),
    ("POST", "/v1/auth/password-reset/confirm"): lambda w: mailed(w, "reset_token", new_password=PASSWORD),
    ("POST", "/v1/users/me/email"): lambda _: Ask(
        body={"email": f"{unique('other')}@example.org", "password": PASSWORD}
    ),
    ("POST", "/v1/users/me/email/verify"): lambda w: mailed(w, "change_token"),
    ("POST", "/v1/auth/totp/enroll"): lambda _: Ask(body={"password": PASSWORD}),
    ("POST", "/v1/auth/totp/confirm"): confirmation,
    ("POST", "/v1/auth/totp/recovery-codes"): lambda w: Ask(
        body={"password": PASSWORD, "totp_code": w.facts.get("totp_code")}
    ),
    ("GET", "/v1/auth/totp"): lambda _: Ask(),
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
    ("POST", "/v1/admin/users/{user_id}/unlock"): about_victim,
    ("DELETE", "/v1/admin/users/{user_id}/totp"): about_victim,
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
    ("GET", "/v1/e2ee/backup/versions"): lambda _: Ask(),
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
    ("DELETE", "/v1/conversations/{conversation_id}"): in_room,
    ("POST", "/v1/conversations/{conversation_id}/mute"): lambda w: in_room(w, {}),
    ("GET", "/v1/conversations/{conversation_id}/notifications"): in_room,
    ("PUT", "/v1/conversations/{conversation_id}/notifications"): lambda w: in_room(w, {"notify": "all"}),
    ("DELETE", "/v1/conversations/{conversation_id}/mute"): in_room,
    ("GET", "/v1/conversations/{conversation_id}/pins"): in_room,
    ("POST", "/v1/conversations/{conversation_id}/pins/{message_id}"): lambda w: in_room(
        w, message_id=w.message_id
    ),
    ("DELETE", "/v1/conversations/{conversation_id}/pins/{message_id}"): lambda w: in_room(
        w, message_id=w.message_id
    ),
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
        user_id=w.caller.me.user_id if w.caller and w.caller is not w.owner else w.facts["third_id"],
    ),
    ("PATCH", "/v1/conversations/{conversation_id}/participants/{user_id}"): lambda w: in_room(
        w, {"role": "admin"}, user_id=w.facts["third_id"]
    ),
    ("POST", "/v1/conversations/{conversation_id}/read"): lambda w: in_room(w, {"seq": 1}),
    ("POST", "/v1/messages"): lambda w: Ask(
        body={"conversation_id": w.room, "content": "hi", "client_message_id": new_id()}
    ),
    ("GET", "/v1/messages"): lambda w: Ask(query={"conversation_id": w.room}),
    ("GET", "/v1/messages/search"): lambda w: Ask(query={"q": "hi", "conversation_id": w.room}),
    ("GET", "/v1/messages/{message_id}"): about_message,
    ("PATCH", "/v1/messages/{message_id}"): lambda w: about_message(w, {"content": "other"}),
    ("DELETE", "/v1/messages/{message_id}"): about_message,
    ("GET", "/v1/messages/{message_id}/history"): about_message,
    ("POST", "/v1/messages/{message_id}/forward"): lambda w: about_message(w, {"conversation_ids": [w.room]}),
    ("PUT", "/v1/messages/{message_id}/reactions/{emoji}"): reaction,
    ("DELETE", "/v1/messages/{message_id}/reactions/{emoji}"): reaction,
    ("POST", "/v1/polls"): new_poll,
    ("GET", "/v1/polls"): lambda w: Ask(query={"conversation_id": w.room}),
    ("GET", "/v1/polls/{poll_id}"): about_poll,
    ("POST", "/v1/polls/{poll_id}/vote"): lambda w: about_poll(w, {"option_ids": []}),
    ("POST", "/v1/polls/{poll_id}/close"): about_poll,
    ("DELETE", "/v1/polls/{poll_id}"): about_poll,
    ("POST", "/v1/calls/initiate"): new_call,
    ("GET", "/v1/calls/ice-servers"): lambda _: Ask(),
    ("GET", "/v1/calls"): lambda w: Ask(query={"conversation_id": w.room}),
    ("GET", "/v1/calls/{call_id}"): about_call,
    ("POST", "/v1/calls/{call_id}/join"): about_call,
    ("POST", "/v1/calls/{call_id}/decline"): about_call,
    ("POST", "/v1/calls/{call_id}/leave"): about_call,
    ("POST", "/v1/calls/{call_id}/end"): about_call,
    ("POST", "/v1/calls/{call_id}/recording/start"): lambda w: about_recording(w, {}),
    ("POST", "/v1/calls/{call_id}/recording/consent"): lambda w: about_recording(
        w, {"recording_id": w.facts["recording_id"], "consent": True}
    ),
    ("POST", "/v1/calls/{call_id}/recording/stop"): lambda w: about_recording(
        w, {"recording_id": w.facts["recording_id"]}
    ),
    ("GET", "/v1/calls/{call_id}/recordings"): about_call,
    ("PUT", f"{RECORDING}/parts/{{number}}"): recording_part,
    ("POST", f"{RECORDING}/complete"): lambda w: that_recording(w, {"parts": 1}),
    ("GET", f"{RECORDING}/download-url"): that_recording,
    ("DELETE", RECORDING): that_recording,
    ("GET", "/v1/notifications"): lambda _: Ask(),
    ("POST", "/v1/notifications/{notification_id}/read"): lambda w: Ask(
        {"notification_id": w.facts["notification_id"]}
    ),
    ("POST", "/v1/notifications/read-all"): lambda _: Ask(body={}),
    ("POST", "/v1/notifications/devices"): lambda _: Ask(
        body=Browser("https://push.example.org/a").subscription
    ),
    ("DELETE", "/v1/notifications/devices"): lambda _: Ask(),
    ("GET", "/v1/notifications/preferences"): lambda _: Ask(),
    ("PUT", "/v1/notifications/preferences"): lambda _: Ask(body={"kinds": {"reaction": "off"}}),
    ("POST", "/v1/presence"): lambda _: Ask(body={"status": "away"}),
    ("GET", "/v1/presence"): lambda w: Ask(query={"user_ids": w.owner.me.user_id}),
    ("POST", "/v1/storage/upload-url"): lambda _: Ask(body=FILE),
    ("POST", "/v1/storage/upload-complete"): lambda w: Ask(body={"file_id": w.facts["arrived_id"]}),
    ("GET", "/v1/storage/uploads/{file_id}"): lambda w: Ask({"file_id": w.facts["begun_id"]}),
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
FRAME_HOW: dict[str, tuple[Audience, Callable[[World], dict[str, Any]]]] = {
    "chat": (Audience.MEMBER, lambda w: {"conversation_id": w.room, "content": "hi"}),
    "react": (Audience.MEMBER, lambda w: {"message_id": w.message_id, "emoji": "+"}),
    "read": (Audience.MEMBER, lambda w: {"conversation_id": w.room, "seq": 1}),
    "typing": (Audience.MEMBER, lambda w: {"conversation_id": w.room, "is_typing": True}),
    "edit": (Audience.AUTHOR, lambda w: {"message_id": w.message_id, "content": "other"}),
    "delete": (Audience.AUTHOR, lambda w: {"message_id": w.message_id}),
    "presence": (Audience.USER, lambda _: {"status": "away"}),
    "auth": (Audience.USER, lambda w: {"token": w.facts["access_token"]}),
    "ping": (Audience.USER, lambda _: {}),
}
SOCKET_HOW: dict[str, Callable[[World], dict[str, str]]] = {
    "/v1/ws/chat": lambda w: {"conversation_id": w.room},
    "/v1/ws/signaling": lambda w: {"call_id": w.facts["call_id"]},
}
