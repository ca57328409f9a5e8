"""Content on its way in: counted, and neither more nor less than was announced."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

from ..errors import UploadMismatch
from ..metrics import counter

RECEIVED = counter("secureconnect_storage_received_bytes_total", "Bytes of files taken in by this process.")

Read = Callable[[], Awaitable[bytes]]


async def exactly(read: Read, size: int, what: str = "file") -> AsyncGenerator[bytes, None]:
    """What is read. Raises UploadMismatch at an end that comes too early or too late."""
    left = size
    while data := await read():
        left -= len(data)
        if left < 0:
            raise mismatch(size, what)
        RECEIVED.inc(len(data))
        yield data
    if left:
        raise mismatch(size, what)


def mismatch(size: int, what: str = "file") -> UploadMismatch:
    return UploadMismatch(f"This {what} has {size} bytes.", details={"field": "file_size"})
