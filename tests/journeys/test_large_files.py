"""A large file, sent in parts to a server that dies in the middle of it, twice."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from kit.fixtures import StartServer
from kit.http import plain
from kit.people import download_url, people, put, whole
from kit.wait import until
from secureconnect.client import ApiError, Client

MB = 1024 * 1024
PART = 5 * MB
CONTENT = hashlib.sha256(b"large").digest() * (11 * MB // 32)  # two parts and a bit
DONE_S = 20.0  # many times what it takes


def part(number: int) -> bytes:
    return CONTENT[(number - 1) * PART : number * PART]


async def progress(client: Client, file_id: str) -> tuple[list[int], dict[int, str]]:
    """Which parts are there, and where the others are to be put."""
    told = await client.call("GET", f"/v1/storage/uploads/{file_id}")
    return [each["number"] for each in told["parts_done"]], _addresses(client, told)


def _addresses(client: Client, told: dict[str, Any]) -> dict[int, str]:
    return {each["number"]: whole(client, each["upload_url"]) for each in told["parts"]}


async def half_of(url: str, content: bytes) -> trio.SocketStream:
    """A connection on which the rest never comes."""
    where = urlsplit(url)
    stream = await trio.open_tcp_stream("127.0.0.1", where.port or 0)
    target = f"{where.path}?{where.query}" if where.query else where.path
    head = f"PUT {target} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: {len(content)}\r\n\r\n"
    await stream.send_all(head.encode() + content[: len(content) // 2])
    return stream


async def test_what_had_arrived_is_not_sent_again(start_server: StartServer) -> None:
    server = start_server(
        STORAGE__PART_MB="5",
        STORAGE__VERIFY_WAIT_S="0",
        STORAGE__VERIFY_LEASE_S="1",
        STORAGE__VERIFY_POLL_S="0.1",
    )
    draft = server.data_dir / "objects" / "=parts"
    announced = {
        "file_name": "large.mp4",
        "file_size": len(CONTENT),
        "content_type": "video/mp4",
        "checksum_sha256": hashlib.sha256(CONTENT).hexdigest(),
    }
    async with people(server.url, "ann") as [ann]:
        begun = await ann.call("POST", "/v1/storage/upload-url", announced)
        file_id, addresses = begun["file_id"], _addresses(ann, begun)
        assert (begun["upload_url"], begun["part_size"], list(addresses)) == (None, PART, [1, 2, 3])
        await put(addresses[3], part(3))
        await put(addresses[1], part(1))
        async with await half_of(addresses[2], part(2)):
            if addresses[2].startswith(server.url):  # the store's own business otherwise
                await until(lambda: _has(draft, part(2)[:1000]))
            await trio.to_thread.run_sync(server.kill)
        await trio.to_thread.run_sync(server.start)

        done, addresses = await progress(ann, file_id)
        assert (done, list(addresses)) == ([1, 3], [2])
        with pytest.raises(ApiError) as refusal:
            await ann.call("POST", "/v1/storage/upload-complete", {"file_id": file_id})
        assert (refusal.value.status, refusal.value.code) == (409, "UPLOAD_MISSING")
        await put(addresses[2], part(2))
        asked = await ann.call("POST", "/v1/storage/upload-complete", {"file_id": file_id})
        assert asked["status"] == "verifying"
        await trio.to_thread.run_sync(server.kill)
        await trio.to_thread.run_sync(server.start)

        async def is_completed() -> bool:
            file = await ann.call("GET", f"/v1/storage/files/{file_id}")
            return bool(file["status"] == "completed")

        await until(is_completed, DONE_S)
        async with plain(timeout=30) as http:
            answer = await http.get(await download_url(ann, file_id))
        assert answer.content == CONTENT
        quota = await ann.call("GET", "/v1/storage/quota")
        assert (quota["used_bytes"], quota["reserved_bytes"]) == (len(CONTENT), 0)
    assert not draft.exists() or list(draft.iterdir()) == []


async def _has(folder: Any, piece: bytes) -> bool:
    """Whether some of the second part is on its way to the disk."""
    for path in folder.iterdir():
        with path.open("rb") as content:
            content.seek(PART)
            if content.read(len(piece)) == piece:
                return True
    return False
