"""A call is recorded: everybody is asked, and gets the whole of it as long as they belong there."""

from __future__ import annotations

import hashlib

import httpx
import pytest

from kit.fixtures import StartServer
from kit.http import plain
from kit.people import group, people, whole
from kit.recordings import allow_recordings, finish, record, send_part, state
from kit.worlds import World
from secureconnect.client import ApiError, Client

WEBM = b"\x1a\x45\xdf\xa3"
PIECES = [WEBM + b"\x01webm" * 30_000, b"b" * 1_000_000, b"c"]
OTHER = "0" * 64


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def fetch(client: Client, call: str, name: str, **headers: str) -> httpx.Response:
    told = await client.call("GET", f"{call}/recordings/{name}/download-url")
    async with plain(follow_redirects=True, timeout=30) as http:
        return await http.get(whole(client, told["download_url"]), headers=headers)


async def test_a_recording(start_server: StartServer, world: World) -> None:
    server = start_server(SIGNALING__RECORDING_PART_MB="1", **world())
    async with people(server.url, "ann", "bob", "cid") as (ann, bob, cid):
        room = await group(ann, bob, cid)
        begun = await ann.call("POST", "/v1/calls/initiate", {"conversation_id": room, "call_type": "video"})
        call = f"/v1/calls/{begun['call_id']}"
        await bob.call("POST", f"{call}/join")
        with pytest.raises(ApiError) as refused:
            await ann.call("POST", f"{call}/recording/start", {})
        assert (refused.value.status, refused.value.code) == (403, "RECORDING_DISABLED")
        await allow_recordings(ann, room)
        name = await record(ann, call)
        assert code_of(await send_part(ann, call, name, 1, PIECES[0])) == (409, "CONSENT_MISSING")
        await bob.call("POST", f"{call}/recording/consent", {"recording_id": name, "consent": True})
        for number in (1, 2, 2, 3):
            answer = await send_part(ann, call, name, number, PIECES[number - 1])
            assert answer.status_code == 204, answer.text
        assert code_of(await send_part(ann, call, name, 3, b"d")) == (409, "PART_DIFFERS")
        assert code_of(await send_part(ann, call, name, 4, b"d", OTHER)) == (422, "UPLOAD_MISMATCH")
        assert code_of(await send_part(ann, call, name, 4, b"d", "x")) == (422, "VALIDATION")
        assert code_of(await send_part(ann, call, name, 0, b"d")) == (404, "NOT_FOUND")
        assert code_of(await send_part(ann, call, name, 4, b"d" * 1_100_000)) == (
            413,
            "PAYLOAD_TOO_LARGE",
        )
        assert code_of(await send_part(bob, call, name, 4, b"d")) == (403, "FORBIDDEN")
        await finish(ann, call, name, 3)
        content = b"".join(PIECES)
        for each in (ann, bob, cid):
            got = await fetch(each, call, name)
            assert (got.status_code, hashlib.sha256(got.content).digest()) == (
                200,
                hashlib.sha256(content).digest(),
            )
        assert got.headers["content-type"] in ("video/webm", "application/octet-stream")
        part = await fetch(bob, call, name, Range="bytes=5-9")
        assert (part.status_code, part.content) == (206, content[5:10])
        quota = await ann.call("GET", "/v1/storage/quota")
        assert quota["used_bytes"] == len(content)

        other = await record(ann, call, bob)
        assert (await send_part(ann, call, other, 1, PIECES[0])).status_code == 204
        await bob.call("POST", f"{call}/recording/consent", {"recording_id": other, "consent": False})
        assert code_of(await send_part(ann, call, other, 2, PIECES[2])) == (409, "RECORDING_OVER")
        assert await state(bob, call, other) in ("finishing", "partial")

        await ann.call("DELETE", f"/v1/conversations/{room}/participants/{cid.me.user_id}")
        with pytest.raises(ApiError) as refused:
            await fetch(cid, call, name)
        assert refused.value.status == 404
        await ann.call("DELETE", f"{call}/recordings/{name}")
        with pytest.raises(ApiError) as refused:
            await fetch(bob, call, name)
        assert refused.value.status == 404
