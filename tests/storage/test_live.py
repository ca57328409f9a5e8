"""Files over HTTP, on a real server with nothing beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import trio

from kit.people import begin_upload, download_url, people, put, upload
from kit.server import Server

MB = 1024 * 1024
BIG_MB = 48
GROWTH_BYTES = 16 * MB  # a third of what passes through


def resident_bytes(server: Server) -> int:
    return int((Path("/proc") / str(server.pid) / "statm").read_text().split()[1]) * 4096


async def test_nothing_of_a_file_runs_on_our_origin(server: Server) -> None:
    page = b"<script>alert(1)</script>"
    announced = {"file_name": "Präsentation.html", "file_size": len(page), "content_type": "text/html"}
    async with people(server.url, "ann") as [ann]:
        begun = await ann.call("POST", "/v1/storage/upload-url", announced)
        assert begun["upload_url"].startswith("/v1/storage/objects/"), "a path, without a public URL"
        assert (begun["method"], begun["expires_in"], begun["file"]["status"]) == ("PUT", 900, "uploading")
        await put(ann.server + begun["upload_url"], page)
        completed = await ann.call("POST", "/v1/storage/upload-complete", {"file_id": begun["file_id"]})
        assert completed | {"checksum_sha256": None} == begun["file"] | {"status": "completed"}
        url = await download_url(ann, begun["file_id"])
        async with httpx.AsyncClient(trust_env=False) as http:
            answer, head = await http.get(url), await http.head(url)
    assert answer.content == page
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(page)))
    told = {
        "content-type": "text/html",
        "content-disposition": "attachment; filename*=UTF-8''Pr%C3%A4sentation.html",
        "content-security-policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }
    assert told == {name: answer.headers[name] for name in told}


async def test_lists_and_quota(server: Server) -> None:
    async with people(server.url, "ann") as [ann]:
        made = [await upload(ann, b"x" * n, f"{n}.txt") for n in range(3)]
        first = await ann.call("GET", "/v1/storage/files", query={"limit": 2})
        rest = await ann.call("GET", "/v1/storage/files", query={"cursor": first["next_cursor"]})
        assert [file["file_id"] for file in first["files"] + rest["files"]] == made[::-1]
        assert rest["next_cursor"] is None
        assert (await ann.call("DELETE", f"/v1/storage/files/{made[2]}"))["status"] == "deleted"
        quota = await ann.call("GET", "/v1/storage/quota")
        assert (quota["quota_bytes"], quota["used_bytes"], quota["reserved_bytes"]) == (10_240 * MB, 1, 0)
        limits = (await ann.call("GET", "/v1/server", signed=False))["limits"]
    assert (limits["file_bytes"], limits["part_bytes"]) == (5_120 * MB, 64 * MB)
    async with httpx.AsyncClient(trust_env=False, base_url=server.url) as http:
        assert (await http.get("/health")).json()["modules"]["storage"] == "healthy"
        assert (await http.get("/health/storage")).json()["service"] == "storage-service"


async def test_a_wrong_length_is_refused_before_the_first_byte(server: Server) -> None:
    async with people(server.url, "ann") as [ann]:
        _, url = await begin_upload(ann, b"x" * 100)
    where = urlsplit(url)
    for length in (99, 101, 10**9, 10**13):
        stream = await trio.open_tcp_stream("127.0.0.1", where.port or 0)
        async with stream:
            head = f"PUT {where.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
            await stream.send_all(head.encode())
            with trio.fail_after(5):
                answer = (await stream.receive_some(10_000)).decode()
        expected = ("422", "UPLOAD_MISMATCH") if length < 10**12 else ("413", "PAYLOAD_TOO_LARGE")
        assert (answer[9:12], expected[1] in answer) == (expected[0], True)
    await put(url, b"x" * 100)


async def test_memory_stays_flat(server: Server) -> None:
    piece = bytes(range(256)) * 1024

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(BIG_MB * MB // len(piece)):
            yield piece

    async with people(server.url, "ann") as [ann]:
        await upload(ann, piece)  # so that everything is loaded
        announced = {"file_name": "big", "file_size": BIG_MB * MB, "content_type": "video/mp4"}
        begun = await ann.call("POST", "/v1/storage/upload-url", announced)
        before = resident_bytes(server)
        async with httpx.AsyncClient(trust_env=False, timeout=60, base_url=server.url) as http:
            answer = await http.put(begun["upload_url"], content=pieces())
            assert answer.status_code == 204
            await ann.call("POST", "/v1/storage/upload-complete", {"file_id": begun["file_id"]})
            received = 0
            async with http.stream("GET", await download_url(ann, begun["file_id"])) as download:
                async for chunk in download.aiter_raw():
                    received += len(chunk)
        assert received == BIG_MB * MB
        assert resident_bytes(server) - before < GROWTH_BYTES
        await ann.call("DELETE", f"/v1/storage/files/{begun['file_id']}")
