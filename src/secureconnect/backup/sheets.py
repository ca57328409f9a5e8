"""Rows in a file of a backup: pages of them, each packed and compressed, behind its length."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..deps.contracts import Row
from .streams import Damaged, Writer, Written, read

ROWS = 500  # of a page
LENGTH_BYTES = 4
MOST_BYTES = 256 * 1024 * 1024  # of a page; what claims more is damaged
LEVEL = 1  # compresses as fast as rows are read


class SheetWriter:
    def __init__(self, path: Path, key: bytes | None, label: str) -> None:
        self._writer = Writer(path, key, label)
        self.rows = 0

    def add(self, page: Sequence[Row]) -> None:
        """Booleans as 0 and 1, as one of the two databases has them."""
        plain = [[int(each) if isinstance(each, bool) else each for each in row] for row in page]
        packed = zlib.compress(msgspec.msgpack.encode(plain), LEVEL)
        self._writer.write(len(packed).to_bytes(LENGTH_BYTES, "big") + packed)
        self.rows += len(page)

    def finish(self) -> Written:
        return self._writer.finish()

    def discard(self) -> None:
        self._writer.discard()


def pages(path: Path, key: bytes | None, label: str) -> Iterator[list[list[Any]]]:
    """The rows, a page at a time; as `streams.read` to be taken for true only at the end. Raises Damaged."""
    held = bytearray()
    for chunk in read(path, key, label):
        held += chunk
        while (page := _taken(path, held)) is not None:
            yield page
    if held:
        raise Damaged(f"{path} is damaged: it ends within a page")


def _taken(path: Path, held: bytearray) -> list[list[Any]] | None:
    """The page that `held` begins with, taken from it, if it is there whole."""
    length = int.from_bytes(held[:LENGTH_BYTES], "big")
    if length > MOST_BYTES:
        raise Damaged(f"{path} is damaged: a page of {length} bytes")
    if len(held) < LENGTH_BYTES + length:
        return None
    packed = bytes(held[LENGTH_BYTES : LENGTH_BYTES + length])
    del held[: LENGTH_BYTES + length]
    try:
        opened = zlib.decompressobj()
        content = opened.decompress(packed, MOST_BYTES)
        if not opened.eof:
            raise Damaged(f"{path} is damaged: a page that is too large")
        return msgspec.msgpack.decode(content, type=list[list[Any]])
    except (zlib.error, msgspec.DecodeError):
        raise Damaged(f"{path} is damaged: a page that cannot be read") from None
