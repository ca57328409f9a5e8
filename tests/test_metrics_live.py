"""Every metric that operators are promised exists on a running server, and moves when the thing happens."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from kit.doors import socket
from kit.fixtures import StartServer
from kit.http import plain
from kit.people import PASSWORD, download_url, group, next_event, people, unique, upload
from kit.recordings import allow_recordings, finish, record, send_part
from kit.scrape import Deeds, exposition, scrape
from kit.server import Server
from kit.wait import until
from kit.worlds import embedded_alone
from secureconnect.client import ApiError, Client, Stream
from secureconnect.identity import new_id
from signaling.phones import dialled

OLD_S = 100 * 3600
WEBM = b"\x1a\x45\xdf\xa3"


@dataclass
class Scene:
    """Ann and Bob, who share a conversation; Ann has a socket."""

    server: Server
    ann: Client
    bob: Client
    room: str
    at_ann: Stream

    async def database(self, *statements: str) -> None:
        """As nobody but a test does: beside the server."""

        def act() -> None:
            with closing(sqlite3.connect(self.server.data_dir / "secureconnect.db")) as file, file:
                for statement in statements:
                    file.execute(statement)

        await trio.to_thread.run_sync(act)

    async def raw(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.server.port)


DEEDS = Deeds[Scene]()


async def refused(call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(ApiError):
        await call()


# the gateway


def answered(method: str, route: str, service: str, status: int) -> str:
    return (
        f'http_requests_total{{method="{method}",route="{route}",service="{service}-service",'
        f'status="{status}"}}'
    )


@DEEDS.moves(
    answered("POST", "/v1/auth/login", "auth", 200),
    answered("POST", "/v1/auth/login", "auth", 401),
    'http_request_duration_seconds_count{method="POST",route="/v1/auth/login",service="auth-service"}',
    'auth_attempts_total{kind="login"}',
    'auth_success_total{kind="login"}',
    'auth_failures_total{kind="login",reason="credentials"}',
)
async def somebody_signs_in(scene: Scene) -> AsyncIterator[None]:
    async with Client(scene.server.url) as stranger:
        await stranger.register(name := unique("cid"), PASSWORD, f"{name}@example.org", "Cid")
        await stranger.login(name, PASSWORD)
        await refused(lambda: stranger.login(name, "wrong " + PASSWORD))
    yield


@DEEDS.moves("websocket_connections_active", 'secureconnect_chat_resumes_total{result="whole"}')
async def a_socket_opens(scene: Scene) -> AsyncIterator[None]:
    async with scene.bob.stream() as stream:
        await next_event(stream, "online")
        yield


@DEEDS.moves("secureconnect_gateway_connections_open")
async def a_connection_opens(scene: Scene) -> AsyncIterator[None]:
    async with await scene.raw():
        yield


@DEEDS.moves("secureconnect_gateway_requests_unread_total")
async def no_http_comes(scene: Scene) -> AsyncIterator[None]:
    async with await scene.raw() as stream:
        await stream.send_all(b"good morning\r\n\r\n")
        assert b" 400 " in await stream.receive_some()
    yield


@DEEDS.moves("http_requests_in_flight", 'db_connections_active{role="writer"}')
async def a_request_waits_for_the_database(scene: Scene) -> AsyncIterator[None]:
    """Which somebody else has locked."""
    with closing(sqlite3.connect(scene.server.data_dir / "secureconnect.db", isolation_level=None)) as file:
        file.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_again_and_again, scene.ann)
            yield
            file.execute("ROLLBACK")
            nursery.cancel_scope.cancel()


async def _again_and_again(ann: Client) -> None:
    while True:
        with suppress(ApiError):  # it waited too long
            await group(ann)


@DEEDS.moves("db_connections_waiting", "secureconnect_gateway_requests_abandoned_total")
async def clients_leave_before_it_is_their_turn(scene: Scene) -> AsyncIterator[None]:
    with closing(sqlite3.connect(scene.server.data_dir / "secureconnect.db", isolation_level=None)) as file:
        file.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(_again_and_again, scene.ann)
            await until(lambda: _metric_is(scene.server, "db_connections_waiting"))
            nursery.cancel_scope.cancel()
        yield
        file.execute("ROLLBACK")


async def _metric_is(server: Server, name: str) -> bool:
    return await server.metric(name) > 0


# messages


@DEEDS.moves(
    'messages_total{result="stored",type="text"}',
    'websocket_messages_total{direction="in"}',
    'websocket_messages_total{direction="out"}',
    "secureconnect_chat_deliveries_total",
    "secureconnect_chat_batch_messages_count",
    "secureconnect_chat_recent_bytes",
    "secureconnect_chat_indexed_total",
    'db_query_duration_seconds_count{kind="read"}',
    'db_query_duration_seconds_count{kind="write"}',
    "secureconnect_db_group_units_count",
)
async def a_message_is_sent(scene: Scene) -> AsyncIterator[None]:
    await scene.at_ann.send(scene.room, "hello")
    yield


@DEEDS.moves(
    'secureconnect_chat_pages_total{result="read"}',
    'secureconnect_chat_pages_total{result="kept"}',
    "secureconnect_chat_pages_bytes",
)
async def a_page_is_read_twice(scene: Scene) -> AsyncIterator[None]:
    where = await group(scene.ann, scene.bob)
    await scene.at_ann.send(where, "hello")
    for _ in range(3):  # what is told on sockets meanwhile takes it away again
        await scene.ann.call("GET", "/v1/messages", query={"conversation_id": where})
    yield


@DEEDS.moves('secureconnect_chat_notifications_total{kind="added"}')
async def somebody_is_added(scene: Scene) -> AsyncIterator[None]:
    await group(scene.ann, scene.bob)
    yield


@DEEDS.moves("secureconnect_chat_search_seconds_count")
async def somebody_searches(scene: Scene) -> AsyncIterator[None]:
    await scene.ann.call("GET", "/v1/messages/search", query={"q": "hello"})
    yield


# accounts, and what is noted of them


@DEEDS.moves('secureconnect_auth_device_messages_total{result="dropped"}')
async def a_device_that_is_not_there_is_written_to(scene: Scene) -> AsyncIterator[None]:
    server_name = (await scene.ann.call("GET", "/v1/server"))["server_name"]
    messages = {f"@{scene.bob.me.user_id}:{server_name}": {new_id(): {"a": "b"}}}
    await scene.ann.call("PUT", f"/v1/e2ee/to-device/m.test/{new_id()}", {"messages": messages})
    yield


@DEEDS.moves("secureconnect_audit_sealed_total", 'secureconnect_audit_denials_total{result="kept"}')
async def somebody_may_not(scene: Scene) -> AsyncIterator[None]:
    await refused(lambda: scene.ann.call("GET", "/v1/admin/users"))
    yield


@DEEDS.moves("secureconnect_auth_erased_total")
async def an_account_is_deleted(scene: Scene) -> AsyncIterator[None]:
    async with people(scene.server.url, "dee") as (dee,):
        await dee.call("DELETE", "/v1/users/me", {"password": PASSWORD})
    yield


# files


@DEEDS.moves(
    'secureconnect_storage_uploads_total{place="folder"}',
    'secureconnect_storage_uploads_ended_total{result="completed"}',
    'secureconnect_storage_downloads_total{place="folder"}',
    "secureconnect_storage_received_bytes_total",
    "secureconnect_storage_sent_bytes_total",
)
async def a_file_comes_and_goes(scene: Scene) -> AsyncIterator[None]:
    url = await download_url(scene.ann, await upload(scene.ann, b"content"))
    async with plain() as http:
        assert (await http.get(url)).content == b"content"
    yield


@DEEDS.moves('secureconnect_storage_swept_total{result="removed"}')
async def a_file_is_deleted(scene: Scene) -> AsyncIterator[None]:
    await scene.ann.call("DELETE", f"/v1/storage/files/{await upload(scene.ann, b'content')}")
    yield


@DEEDS.moves("secureconnect_storage_orphans_removed_total", "secureconnect_storage_quotas_corrected_total")
async def somebody_meddles_with_files(scene: Scene) -> AsyncIterator[None]:
    scene.server.expect_error("quota_differed")
    await upload(scene.ann, b"content")
    await scene.database("UPDATE quotas SET used_bytes = used_bytes + 1")
    await trio.to_thread.run_sync(_leave_orphan, scene.server.data_dir / "objects")
    yield


def _leave_orphan(objects: Path) -> None:
    """A copy of a file under a name no row has, of long ago."""
    [known, *_] = (path for path in (objects / "files").rglob("*") if path.is_file())
    name = new_id().replace("-", "")
    orphan = known.with_name(name + known.name[len(name) :])
    orphan.write_bytes(known.read_bytes())
    long_ago = orphan.stat().st_mtime - OLD_S
    os.utime(orphan, (long_ago, long_ago))


# calls


@asynccontextmanager
async def video_call(scene: Scene) -> AsyncIterator[str]:
    """Its path. Both have joined."""
    asked = {"conversation_id": scene.room, "call_type": "video"}
    call = f"/v1/calls/{(await scene.ann.call('POST', '/v1/calls/initiate', asked))['call_id']}"
    await scene.bob.call("POST", f"{call}/join")
    yield call
    for each in (scene.ann, scene.bob):
        with suppress(ApiError):  # it is over
            await each.call("POST", f"{call}/leave")


@DEEDS.moves(
    'calls_total{call_type="video"}',
    "calls_active",
    "video_rooms_active",
    "secureconnect_calls_joined_total",
    "secureconnect_signaling_sockets",
    'secureconnect_signaling_relayed_total{way="here"}',
)
async def two_talk(scene: Scene) -> AsyncIterator[None]:
    async with (
        video_call(scene) as call,
        dialled(scene.ann, call.rpartition("/")[2]) as one,
        dialled(scene.bob, call.rpartition("/")[2]) as other,
    ):
        await one.join()
        await other.join()
        await one.next("join")
        await other.say("offer", target_id=one.peer_id, sdp="v=0")
        await one.next("offer")
        yield


@DEEDS.moves(
    'secureconnect_calls_devices_lost_total{how="socket"}',
    "secureconnect_calls_devices_back_total",
    'secureconnect_calls_ended_total{state="ended"}',
)
async def a_device_loses_its_connection_and_comes_back(scene: Scene) -> AsyncIterator[None]:
    async with video_call(scene) as call:
        name = call.rpartition("/")[2]
        async with dialled(scene.ann, name) as phone:
            await phone.say("join", instance_id="page")
            token = (await phone.next("peers"))["resume_token"]
            await phone.wire.cut()
        async with dialled(scene.ann, name) as phone:
            await phone.say("resume", resume_token=token, instance_id="page")
            await phone.next("resumed")
    yield


@DEEDS.moves(
    "secureconnect_recordings_bytes_total",
    'secureconnect_recordings_ended_total{state="completed"}',
)
async def a_call_is_recorded(scene: Scene) -> AsyncIterator[None]:
    await allow_recordings(scene.ann, scene.room)
    async with video_call(scene) as call:
        name = await record(scene.ann, call, scene.bob)
        assert (await send_part(scene.ann, call, name, 1, WEBM)).is_success
        await finish(scene.ann, call, name, 1)
    yield


# the process


@DEEDS.moves("secureconnect_loop_lag_seconds_count", "process_cpu_seconds_total")
async def time_passes(_: Scene) -> AsyncIterator[None]:
    yield


@DEEDS.moves("secureconnect_disk_free_bytes")
async def something_large_is_written(scene: Scene) -> AsyncIterator[None]:
    large = scene.server.data_dir.parent / "large"
    large.write_bytes(os.urandom(4_000_000))
    yield
    large.unlink()


@embedded_alone
async def test_each_promised_metric_moves(start_server: StartServer) -> None:
    server = start_server(
        AUTH__DELETION_GRACE_DAYS="0",
        AUDIT__SEAL_MS="50",
        STORAGE__SWEEP_S="0.1",
        STORAGE__ORPHANS_S="1",
        STORAGE__RECOUNT_S="1",
    )
    async with people(server.url, "ann", "bob") as (ann, bob), ann.stream(events=0) as at_ann:
        await DEEDS.each_shows(Scene(server, ann, bob, await group(ann, bob), at_ann), server)
    rooms = [each for each in (await scrape(server)).items() if each[0].startswith("secureconnect_room_up{")]
    assert len(rooms) > 4
    assert {value for _, value in rooms} == {1.0}, "what is switched off is not down"
    assert await server.metric("db_connections_limit") == 1 + server.config.sqlite.readers
    assert await server.metric("secureconnect_disk_size_bytes") >= shutil.disk_usage(server.data_dir).total


async def test_no_label_is_what_somebody_has_sent(server: Server) -> None:
    """However much of it comes, there are no more series than after the first time."""
    async with people(server.url, "ann", "bob") as (ann, bob):
        room = await group(ann, bob)
        words: list[str] = []
        seen = []
        await exposition(server)  # the first of them is a series of its own
        for _ in range(2):
            for _ in range(3):
                words.append(f"word{new_id()}")
                await say_everywhere(server, ann, room, words[-1])
            text = await exposition(server)
            assert not [word for word in words if word in text.lower()]
            seen.append({line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")})
    assert seen[1] - seen[0] == set()


async def say_everywhere(server: Server, ann: Client, room: str, word: str) -> None:
    """Wherever people say anything, say this."""
    own = {"Authorization": f"Bearer {ann.me.access_token}"}
    said = {"User-Agent": word, "X-Request-ID": word, "X-Forwarded-For": word, "Origin": f"http://{word}"}
    async with plain(base_url=server.url) as http:
        for path in (
            "",
            "v1/",
            "v1/messages/",
            "v1/users/",
            "v1/calls/",
            "v1/conversations/",
            "health/",
            "docs/",
        ):
            for method in ("GET", "POST", "PROPFIND", word.upper()):
                await http.request(method, f"/{path}{word}", headers=own)
        await http.get(f"/v1/messages/search?q={word}&{word}={word}", headers=own)
        await http.get("/v1/server", headers=said)
        await http.post("/v1/auth/login", json={"username": word, "password": word})
        await http.post("/v1/auth/refresh", json={"refresh_token": word})
        await http.post("/v1/calls/initiate", json={"conversation_id": room, "call_type": word}, headers=own)
        file = {"file_name": word, "file_size": 1, "content_type": f"{word}/{word}"}
        await http.post("/v1/storage/upload-url", json=file, headers=own)
        message = {"conversation_id": room, "content": word, "message_type": word, "client_message_id": word}
        await http.post("/v1/messages", json=message, headers=own)
        await http.put(
            f"/v1/e2ee/to-device/{word}/{word}", json={"messages": {word: {word: {}}}}, headers=own
        )
    async with socket(server, ann) as wire:
        await wire.send(json.dumps({"type": word}))
        await wire.send(json.dumps({"type": "presence", "status": word}))
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(f"{word} / {word}\r\n\r\n".encode())
        assert b" 400 " in await stream.receive_some()
