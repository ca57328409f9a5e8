"""What is past its term leaves the audit log, and the rest can still be checked.

A prefix of the sealed rows is removed, never the last one, and an anchor says where the chain begins from
then on. What is removed is checked first: evidence of tampering stays where it is.
"""

from __future__ import annotations

import hmac

import msgspec

from ..deps.contracts import Tx
from .chain import HEAD, PAGE_ROWS, START, Anchor, Head, anchor_of, last_of, page, seal_of

_DELETE = "DELETE FROM audit WHERE position IS NOT NULL AND position <= $1"
_MOVE_ANCHOR = (
    "INSERT INTO audit_anchor (name, position, seal, cut_at, key_id, proof) VALUES ($1, $2, $3, $4, $5, $6)"
    " ON CONFLICT (name) DO UPDATE SET position = excluded.position, seal = excluded.seal,"
    " cut_at = excluded.cut_at, key_id = excluded.key_id, proof = excluded.proof"
)


class Cut(msgspec.Struct, frozen=True):
    """head: the last row removed, or where the chain began before.  fault: why nothing was removed."""

    head: Head
    removed: int = 0
    fault: str | None = None

    @property
    def is_full(self) -> bool:
        """Whether there may be more to remove."""
        return self.removed == PAGE_ROWS


async def cut(tx: Tx, key: bytes, key_id: str, before_us: int, now_us: int) -> Cut:
    """Remove rows recorded before, up to the first that was not; PAGE_ROWS at most. The caller holds the lock
    on the head."""
    anchor, last = await anchor_of(tx), await last_of(tx)
    if anchor is not None and not (anchor.key_id == key_id and anchor.is_proved(key)):
        return Cut(anchor.head, fault="the beginning of the chain was not said with this key")
    begin = START if anchor is None else anchor.head
    end = begin
    for row in await page(tx, begin.count):
        fields, (position, row_key_id, seal) = row[:7], row[7:10]
        if fields[1] >= before_us or position >= last.count:
            break
        expected = seal_of(key, row_key_id, position, end.seal, fields)
        if (
            position != end.count + 1
            or row_key_id != key_id
            or not hmac.compare_digest(seal or b"", expected)
        ):
            return Cut(begin, fault=f"row {position} is past its term, and is not as it was sealed")
        end = Head(position, seal)
    if end == begin:
        return Cut(begin)
    await tx.run(_DELETE, end.count)
    new = Anchor.made(key, key_id, end, now_us)
    await tx.run(_MOVE_ANCHOR, HEAD, end.count, end.seal, now_us, key_id, new.proof)
    return Cut(end, end.count - begin.count)
