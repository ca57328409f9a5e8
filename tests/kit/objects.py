"""Objects put and read in one go, and MinIO's adapter as a test wants it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from secureconnect.config import MinioConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Objects, StoredObject
from secureconnect.deps.minio import MinioObjects

MB = 1024 * 1024
LIMIT = 100 * MB
PART_MB = 5


async def pieces(content: bytes, size: int = 700_000) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def put(objects: Objects, key: str, content: bytes, limit: int = LIMIT) -> StoredObject:
    async with aclosing(pieces(content)) as chunks:
        return await objects.put(key, chunks, limit_bytes=limit)


async def whole(objects: Objects, key: str) -> bytes:
    return b"".join([chunk async for chunk in objects.get(key)])


async def keys(objects: Objects) -> list[str]:
    return sorted([key async for key in objects.list("")])


async def left_behind(objects: MinioObjects) -> tuple[list[str], list[tuple[str, str]]]:
    """Temporary objects and unfinished uploads, as the store tells."""
    calls = objects._calls
    return await calls.run(calls.bucket.unfinished, 2**62)


@asynccontextmanager
async def opened(config: MinioConfig, **settings: Any) -> AsyncIterator[MinioObjects]:
    config = replace(config, **{"part_mb": PART_MB} | settings)
    async with open_bridge() as bridge, MinioObjects.open(config, bridge) as objects:
        yield objects
