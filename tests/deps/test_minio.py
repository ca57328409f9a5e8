"""What is peculiar to objects in MinIO: large ones, signed addresses, TLS."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from kit.objects import LIMIT, MB, PART_MB, keys, left_behind, opened, pieces, put, whole
from kit.tls import tls_before
from kit.wait import until
from secureconnect.config import MinioConfig
from secureconnect.deps.contracts import UploadedPart
from secureconnect.deps.minio_bucket import SHA256, Body
from secureconnect.deps.minio_presign import Keys, presigned
from secureconnect.errors import Conflict, NotFound, Unavailable

LARGE = hashlib.sha256(b"seed").digest() * (12 * MB // 32) + b"and a bit"  # three parts
SMALL = b"small"


# large objects


async def test_large_objects_come_back_and_leave_nothing_else(minio_config: MinioConfig) -> None:
    async with opened(minio_config) as objects:
        stored = await put(objects, "files/large", LARGE)
        assert (stored.size_bytes, stored.sha256) == (len(LARGE), hashlib.sha256(LARGE).hexdigest())
        assert await objects.stat("files/large") == stored
        chunks = [chunk async for chunk in objects.get("files/large")]
        assert b"".join(chunks) == LARGE
        assert max(map(len, chunks)) <= MB
        got = [chunk async for chunk in objects.get("files/large", 3 * MB - 5, 7 * MB + 1)]
        assert b"".join(got) == LARGE[3 * MB - 5 : 7 * MB + 1]
        assert await keys(objects) == ["files/large"]
        assert await left_behind(objects) == ([], [])


@pytest.mark.parametrize("size", [PART_MB * MB, PART_MB * MB + 1, 2 * PART_MB * MB])
async def test_sizes_around_a_part(minio_config: MinioConfig, size: int) -> None:
    content = LARGE[:size]
    async with opened(minio_config) as objects:
        assert (await put(objects, "a", content)).sha256 == hashlib.sha256(content).hexdigest()
        assert await whole(objects, "a") == content


async def test_memory_is_bounded_by_parts_not_by_objects(minio_config: MinioConfig) -> None:
    async def many() -> AsyncGenerator[bytes, None]:
        for number in range(50):
            yield bytes([number]) * MB

    async with opened(minio_config) as objects, aclosing(many()) as chunks:
        tracemalloc.start()
        try:
            await objects.put("a", chunks, limit_bytes=LIMIT)
            size = 0
            async for chunk in objects.get("a"):
                size += len(chunk)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert size == 50 * MB
        assert peak < 5 * PART_MB * MB


async def test_a_copy_keeps_the_checksum(minio_config: MinioConfig) -> None:
    async with opened(minio_config) as objects:
        stored = await put(objects, "incoming/a", LARGE)
        copied = await objects.copy("incoming/a", "files/a", version=stored.version)
        assert (copied.size_bytes, copied.sha256) == (stored.size_bytes, stored.sha256)
        assert await whole(objects, "files/a") == LARGE


async def test_a_put_that_breaks_after_some_parts_leaves_nothing(minio_config: MinioConfig) -> None:
    async def breaking() -> AsyncGenerator[bytes, None]:
        yield LARGE
        raise KeyError("x")

    async with opened(minio_config) as objects:
        async with aclosing(breaking()) as chunks:
            with pytest.raises(KeyError, match="x"):
                await objects.put("a", chunks, limit_bytes=LIMIT)
        assert await left_behind(objects) == ([], [])
        assert await keys(objects) == []


async def test_a_cancelled_put_leaves_nothing(minio_config: MinioConfig) -> None:
    async with opened(minio_config) as objects:
        with trio.CancelScope() as scope:

            async def leaving() -> AsyncGenerator[bytes, None]:
                yield LARGE
                scope.cancel()
                yield LARGE

            async with aclosing(leaving()) as chunks:
                await objects.put("a", chunks, limit_bytes=LIMIT)
        assert scope.cancelled_caught
        assert await left_behind(objects) == ([], [])
        assert await keys(objects) == []


async def test_a_reader_never_gets_parts_of_two_objects(minio_config: MinioConfig) -> None:
    async with opened(minio_config) as objects:
        await put(objects, "a", LARGE)
        reader = objects.get("a")
        assert await anext(reader) == LARGE[:MB]
        await put(objects, "a", LARGE[::-1])
        with pytest.raises(Unavailable):
            await anext(reader)
        await put(objects, "b", LARGE)
        reader = objects.get("b")
        await anext(reader)
        await objects.delete("b")
        with pytest.raises(Unavailable):
            await anext(reader)


async def test_a_slow_reader_holds_no_connection(minio_config: MinioConfig) -> None:
    async with opened(minio_config, connections=1, waiting=1) as objects:
        await put(objects, "a", LARGE)
        readers = [objects.get("a") for _ in range(3)]
        for reader in readers:
            await anext(reader)
        assert (await objects.stat("a")).size_bytes == len(LARGE)
        for reader in readers:
            await reader.aclose()  # type: ignore[attr-defined]


async def test_what_was_never_finished_is_swept(minio_config: MinioConfig) -> None:
    async with opened(minio_config) as objects:
        upload = await objects.begin_parts("files/a")
        await objects._calls.run(objects._there.put, "=incoming/left", Body(SMALL))
        await put(objects, "kept", SMALL)
        assert await objects.sweep_once() == 0
        objects._unfinished_us = -10_000_000  # ten seconds from now
        assert await objects.sweep_once() == 2
        assert await left_behind(objects) == ([], [])
        with pytest.raises(NotFound):
            await objects.list_parts("files/a", upload)
        assert await keys(objects) == ["kept"]
        assert await objects.sweep_once() == 0


# signed addresses


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        yield client


async def test_a_client_uploads_and_downloads_by_itself(
    minio_config: MinioConfig, http: httpx.AsyncClient
) -> None:
    async with opened(minio_config) as objects:
        await objects.probe()  # the bucket is there
        url = objects.upload_url("incoming/a", len(LARGE), 60)
        assert (await http.put(url, content=LARGE)).status_code == 200
        stored = await objects.stat("incoming/a")
        assert (stored.size_bytes, stored.sha256) == (len(LARGE), "")
        assert (await objects.copy("incoming/a", "files/a", version=stored.version)).size_bytes == len(LARGE)

        named = "attachment; filename=\"Gr__e.txt\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe.txt"
        url = objects.download_url("files/a", 60, disposition=named, content_type="text/plain")
        answer = await http.get(url)
        assert answer.content == LARGE
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["content-disposition"] == named
        part = await http.get(url, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, LARGE[10:20])


async def test_what_changed_after_it_was_looked_at_is_not_copied(
    minio_config: MinioConfig, http: httpx.AsyncClient
) -> None:
    async with opened(minio_config) as objects:
        await objects.probe()
        url = objects.upload_url("incoming/a", 8, 60)
        await http.put(url, content=b"harmless")
        looked_at = await objects.stat("incoming/a")
        await http.put(url, content=b"harmful!")
        with pytest.raises(Conflict):
            await objects.copy("incoming/a", "files/a", version=looked_at.version)
        assert await keys(objects) == ["incoming/a"]


async def test_addresses_are_good_for_what_they_say_only(
    minio_config: MinioConfig, http: httpx.AsyncClient
) -> None:
    async with opened(minio_config) as objects:
        await put(objects, "files/a", b"mine")
        await put(objects, "files/b", b"another's")
        download = objects.download_url("files/a", 60, disposition="attachment", content_type="text/plain")
        upload = objects.upload_url("files/c", 1, 60)
        part = objects.part_url("files/d", await objects.begin_parts("files/d"), 1, 1, 60)
        signature = download.rpartition("=")[2]
        refused = [
            await http.get(download.replace("files/a", "files/b")),
            await http.get(download.replace("text%2Fplain", "text%2Fhtml")),
            await http.get(download.replace("X-Amz-Expires=60", "X-Amz-Expires=6000")),
            await http.get(download.replace(signature, "0" * len(signature))),
            await http.put(download, content=b"x"),
            await http.get(upload),
            await http.put(upload.replace("files/c", "files/a"), content=b"x"),
            await http.get(download.partition("?")[0]),
            await http.put(upload, content=b"xx"),
            await http.put(upload, content=b""),
            await http.put(part, content=b"xx"),
            await http.put(part, content=b""),
            await http.put(upload, content=pieces(b"xx")),
            await http.put(upload.replace("content-length%3Bhost", "host"), content=b"xx"),
        ]
        assert [answer.status_code for answer in refused] == [403] * len(refused)
        assert await whole(objects, "files/a") == b"mine"
        assert (await http.put(upload, content=b"x")).status_code == 200
        short = objects.download_url("files/a", 1, disposition="attachment", content_type="text/plain")

        async def refuses() -> bool:
            return (await http.get(short)).status_code == 403

        await until(refuses)
        for expires_s in (0, -1, 8 * 24 * 3600):
            with pytest.raises(ValueError, match="seconds"):
                objects.upload_url("a", 1, expires_s)
        with pytest.raises(ValueError, match="key"):
            objects.upload_url("../a", 1, 60)


async def test_what_a_sender_says_beside_the_content_is_not_believed(minio_config: MinioConfig) -> None:
    """Some stores keep with an object whatever headers came with it: also what looks like our own note."""
    async with opened(minio_config) as objects:
        known = await put(objects, "files/known", b"known")
        calls = objects._calls
        for note in (known.sha256, calls.bucket._sealed("files/known=", known.sha256)):

            async def send(_: object, note: str = note) -> None:
                client, bucket = calls.bucket._client, minio_config.bucket
                await client._put_object(bucket, "incoming/a=", b"other", {SHA256: note})

            await calls.run(send)
            assert (await objects.stat("incoming/a")).sha256 == ""
            assert (await objects.copy("incoming/a", "files/a")).sha256 == ""


async def test_addresses_name_the_public_endpoint_and_need_no_store() -> None:
    config = MinioConfig(
        endpoint="127.0.0.1:1",
        access_key="k",
        secret_key="secret",
        public_endpoint="https://files.example.org",
        bucket="b-b",
    )
    async with opened(config) as objects:
        url = httpx.URL(objects.upload_url("files/a", 1, 900))
        assert (url.scheme, url.host, url.path) == ("https", "files.example.org", "/b-b/files/a=")
        assert url.params["X-Amz-Expires"] == "900"
    async with opened(replace(config, public_endpoint="files.example.org:9000")) as objects:
        assert objects.upload_url("a", 1, 1).startswith("http://files.example.org:9000/b-b/a%3D?")


def test_addresses_are_signed_as_the_description_of_s3_has_it() -> None:
    """Its own example. Source: docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html"""
    keys = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
    url = urlsplit("https://examplebucket.s3.amazonaws.com/test.txt")
    signed = presigned(keys, "GET", url, {}, datetime(2013, 5, 24, tzinfo=UTC), 86_400)
    assert signed.rpartition("=")[2] == "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"


async def test_a_client_uploads_in_parts(minio_config: MinioConfig, http: httpx.AsyncClient) -> None:
    async with opened(minio_config) as objects:
        upload = await objects.begin_parts("incoming/a")
        assert await objects.list_parts("incoming/a", upload) == []
        contents = [LARGE[: 5 * MB], LARGE[5 * MB : 10 * MB], LARGE[10 * MB :]]
        for number, content in reversed(list(enumerate(contents, 1))):
            url = objects.part_url("incoming/a", upload, number, len(content), 60)
            assert (await http.put(url, content=content)).status_code == 200
        parts = await objects.list_parts("incoming/a", upload)
        assert [(part.number, part.size_bytes) for part in parts] == [
            (number, len(content)) for number, content in enumerate(contents, 1)
        ]
        with pytest.raises(NotFound):
            await objects.stat("incoming/a")
        with pytest.raises(Conflict):
            await objects.finish_parts("incoming/a", upload, [UploadedPart(1, "0" * 32, 5 * MB)])
        assert (await objects.finish_parts("incoming/a", upload, parts)).size_bytes == len(LARGE)
        assert await whole(objects, "incoming/a") == LARGE

        upload = await objects.begin_parts("incoming/b")
        for _ in range(2):
            await objects.abandon_parts("incoming/b", upload)
        assert await left_behind(objects) == ([], [])


async def test_over_tls(minio_config: MinioConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with tls_before(minio_config.endpoint, tmp_path / "ca.pem") as endpoint:
        async with opened(minio_config, endpoint=endpoint, secure=True) as objects:
            for content in (b"", SMALL, LARGE):
                await put(objects, "a", content)
                assert await whole(objects, "a") == content
            assert objects.upload_url("a", 1, 1).startswith(f"https://{endpoint}/")
            assert await left_behind(objects) == ([], [])
        monkeypatch.delenv("SSL_CERT_FILE")
        async with opened(minio_config, endpoint=endpoint, secure=True) as objects:
            with pytest.raises(Unavailable):  # a certificate of nobody we know
                await objects.probe()
