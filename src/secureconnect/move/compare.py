"""Whether both sides hold the same rows: counted, summed, and walked side by side in the order of the key."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from .. import node
from ..deps.contracts import Database, Row, Tx
from .tables import Table, order

NAMED = 5  # rows of a table that are named; all are counted
_MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class Sum:
    """checksum: of all rows, whatever their order; 64 hexadecimal digits."""

    rows: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Difference:
    """rows: some of those that differ, in words."""

    table: str
    source: Sum
    target: Sum
    rows: tuple[str, ...]


class _Adding:
    def __init__(self) -> None:
        self._rows = 0
        self._sum = 0

    def add(self, digest: int) -> None:
        self._rows += 1
        self._sum = (self._sum + digest) % _MODULUS

    def sum(self) -> Sum:
        return Sum(self._rows, f"{self._sum:064x}")


async def read_page(tx: Tx, table: Table, after: tuple[Any, ...] | None, rows: int) -> list[Row]:
    """The next rows in the key's order."""
    return await tx.all(table.page(tx.dialect, rows, first=after is None), *(after or ()))


async def sum_of(db: Database, table: Table, page_rows: int) -> Sum:
    total = _Adding()
    async with aclosing(_rows(db, table, page_rows)) as rows:
        async for row in rows:
            total.add(table.digest(row))
    return total.sum()


async def compare(
    source: Database, target: Database, table: Table, page_rows: int, tell: Callable[[int], None]
) -> tuple[Sum, Difference | None]:
    """The sum of the source, and what differs.  tell: called now and then with the rows compared so far."""
    here, there = _Adding(), _Adding()
    named: list[str] = []
    compared = 0

    def note(word: str, row: Row) -> None:
        if len(named) < NAMED:
            named.append(f"{word} {shown(table.key_of(row))}")

    async with (
        aclosing(_rows(source, table, page_rows)) as ours,
        aclosing(_rows(target, table, page_rows)) as theirs,
    ):
        one, other = await anext(ours, None), await anext(theirs, None)
        while one is not None or other is not None:
            left = None if one is None else order(table.key_of(one))
            right = None if other is None else order(table.key_of(other))
            if other is None or (left is not None and right is not None and left < right):
                assert one is not None
                here.add(table.digest(one))
                note("missing", one)
                one = await anext(ours, None)
            elif one is None or left != right:
                there.add(table.digest(other))
                note("too many", other)
                other = await anext(theirs, None)
            else:
                digests = table.digest(one), table.digest(other)
                here.add(digests[0])
                there.add(digests[1])
                if digests[0] != digests[1]:
                    note("changed", one)
                one, other = await anext(ours, None), await anext(theirs, None)
            compared += 1
            if compared % page_rows == 0:
                tell(compared)
    tell(compared)
    sums = here.sum(), there.sum()
    return sums[0], None if sums[0] == sums[1] else Difference(table.name, *sums, tuple(named))


def shown(key: tuple[Any, ...]) -> str:
    """A key in words."""
    return ", ".join(part.hex() if isinstance(part, bytes) else str(part) for part in key)


async def _rows(db: Database, table: Table, page_rows: int) -> AsyncGenerator[Row, None]:
    """All, in the key's order, one page in memory; without the note of the move itself."""
    after: tuple[Any, ...] | None = None
    while True:
        page = await db.read(read_page, table, after, page_rows)
        for row in page:
            if not node.is_note(table.name, row):
                yield row
        if len(page) < page_rows:
            return
        after = table.key_of(page[-1])
