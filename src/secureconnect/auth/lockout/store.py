"""The SQL of the lock-out: table lockouts."""

from __future__ import annotations

import msgspec

from ...deps.contracts import Tx

PRUNE_ROWS = 1_000  # as many as auth/store.py deletes in one transaction

_LOCK = (
    "INSERT INTO lockouts (counter, failures, expires_at) VALUES ($1, '[]', $2)"
    " ON CONFLICT (counter) DO UPDATE SET expires_at = lockouts.expires_at RETURNING failures"
)
_GET = "SELECT failures FROM lockouts WHERE counter = $1"
_BEGIN = (
    "INSERT INTO lockouts (counter, failures, expires_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
    " RETURNING counter"
)
_PUT = "UPDATE lockouts SET failures = $2, expires_at = $3 WHERE counter = $1"
_DELETE = "DELETE FROM lockouts WHERE counter = $1"
_END = "DELETE FROM lockouts WHERE counter = $1 AND failures = $2"
_PRUNE = (
    f"DELETE FROM lockouts WHERE expires_at <= $1 AND counter IN"  # noqa: S608
    f" (SELECT counter FROM lockouts WHERE expires_at <= $1 LIMIT {PRUNE_ROWS})"
)


async def lock(tx: Tx, counter: bytes, now_us: int) -> list[int]:
    """The times of the failures counted, and nobody else changes them before this transaction ends."""
    row = await tx.one(_LOCK, counter, now_us)
    return _times(row[0]) if row else []


async def get(tx: Tx, counter: bytes) -> list[int]:
    """The same without the lock."""
    row = await tx.one(_GET, counter)
    return _times(row[0]) if row else []


async def begin(tx: Tx, counter: bytes, failure_us: int, expires_us: int) -> bool:
    """Count the first failure. False if others are counted already, or have been."""
    return await tx.one(_BEGIN, counter, _text([failure_us]), expires_us) is not None


async def end(tx: Tx, counter: bytes, failure_us: int) -> bool:
    """Uncount the only failure. False if it is not the only one."""
    return await tx.run(_END, counter, _text([failure_us])) > 0


async def put(tx: Tx, counter: bytes, failures: list[int], expires_us: int) -> None:
    """Under the lock."""
    if failures:
        await tx.run(_PUT, counter, _text(failures), expires_us)
    else:
        await tx.run(_DELETE, counter)


async def delete(tx: Tx, counters: list[bytes]) -> None:
    await tx.many(_DELETE, [(counter,) for counter in sorted(counters)])


async def prune(tx: Tx, now_us: int) -> int:
    """Delete up to PRUNE_ROWS counters that mean nothing any more. Returns how many."""
    return await tx.run(_PRUNE, now_us)


def _text(failures: list[int]) -> str:
    return msgspec.json.encode(failures).decode()


def _times(text: str) -> list[int]:
    return msgspec.json.decode(text, type=list[int])
