"""Files over HTTP, on a real server with nothing beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import trio

from kit.http import plain
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
        async with plain() as http:
            answer, head = await http.get(url), await http.head(url)
    assert answer.content == page
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(page)))
    told = {
        "content-type": "text/plain; charset=utf-8",
        "content-disposition": 'attachment; filename="Pr_sentation.html";'
        " filename*=UTF-8''Pr%C3%A4sentation.html",
        "content-security-policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }
    assert told == {name: answer.headers[name] for name in told}


async def test_pieces_and_what_is_held_already(server: Server) -> None:
    """As RFC 9110 has it; and all of that is one line of the audit log."""
    content = bytes(range(250)) * 40
    last = len(content) - 1
    async with people(server.url, "ann") as [ann], plain() as http:
        file_id = await upload(ann, content)
        url = await download_url(ann, file_id)
        whole = await http.get(url)
        etag, modified = whole.headers["etag"], whole.headers["last-modified"]
        assert (whole.content, whole.headers["accept-ranges"]) == (content, "bytes")
        assert not etag.startswith("W/")
        ranges = {
            "bytes=0-0": (0, 0),
            "bytes=100-": (100, last),
            "Bytes=100-109": (100, 109),
            "bytes=-7": (last - 6, last),
            f"bytes=-{10**9}": (0, last),
            f"bytes=9000-{10**9}": (9000, last),
        }
        for asked, (first, end) in ranges.items():
            for valid in ({}, {"If-Range": etag}, {"If-Range": modified}):
                part = await http.get(url, headers={"Range": asked} | valid)
                assert (part.status_code, part.content) == (206, content[first : end + 1])
                assert part.headers["content-range"] == f"bytes {first}-{end}/{len(content)}"
                assert part.headers["content-length"] == str(end - first + 1)
        epoch = "Thu, 01 Jan 1970 00:00:00 GMT"
        for headers in (
            {"Range": "bytes=0-1,5-6"},
            {"Range": "lines=1-2"},
            {"Range": "bytes=5-2"},
            {"Range": "bytes=0-0", "If-Range": f"W/{etag}"},
            {"Range": "bytes=0-0", "If-Range": '"other"'},
            {"Range": "bytes=0-0", "If-Range": epoch},
            {"If-Modified-Since": epoch},
            {"If-Modified-Since": "-1"},
            {"If-None-Match": '"x"', "If-Modified-Since": modified},
        ):
            answer = await http.get(url, headers=headers)
            assert (answer.status_code, answer.content) == (200, content)
        for asked in (f"bytes={last + 1}-", "bytes=-0"):
            refused = await http.get(url, headers={"Range": asked})
            assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{last + 1}")
            assert refused.json()["error"]["code"] == "RANGE_NOT_SATISFIABLE"
        for held in ({"If-None-Match": f'"x", {etag}'}, {"If-Modified-Since": modified}):
            for method in ("GET", "HEAD"):
                answer = await http.request(method, url, headers={"Range": "bytes=0-0"} | held)
                assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
        head = await http.head(url, headers={"Range": "bytes=0-0"})
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(content)))
    with closing(sqlite3.connect(server.data_dir / "secureconnect.db")) as db:
        sql = "SELECT actor_id FROM audit WHERE action = 'storage:file:served' AND subject = ?"
        assert db.execute(sql, (file_id,)).fetchall() == [(ann.me.user_id,)]


async def test_an_encrypted_file_is_never_looked_into(server: Server) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + b"x" * 50
    async with people(server.url, "ann") as [ann], plain() as http:
        for is_encrypted, served in ((True, "application/octet-stream"), (False, "image/png")):
            announced = {"file_name": "a.png", "file_size": len(picture), "content_type": "image/png"}
            announced["is_encrypted"] = is_encrypted
            begun = await ann.call("POST", "/v1/storage/upload-url", announced)
            await put(ann.server + begun["upload_url"], picture)
            await ann.call("POST", "/v1/storage/upload-complete", {"file_id": begun["file_id"]})
            answer = await http.get(await download_url(ann, begun["file_id"]))
            assert (answer.content, answer.headers["content-type"]) == (picture, served)


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
        assert (quota["max_files"], quota["max_unfinished"]) == (20_000, 100)
        limits = (await ann.call("GET", "/v1/server", signed=False))["limits"]
    assert (limits["file_bytes"], limits["part_bytes"]) == (5_120 * MB, 64 * MB)
    assert (quota["file_bytes"], limits["message_files"]) == (limits["file_bytes"], 20)
    async with plain(base_url=server.url) as http:
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
        async with plain(timeout=60, base_url=server.url) as http:
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
