"""What the audit chain is made of: its seals, its end, and the file that names the end.

A seal is an HMAC over a row and the seal before it. The end of the chain stands in the table
`audit_head`, and in `audit.head` in the data folder, so that a cut end shows as well.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..deps.contracts import Row, Tx
from ..durable import replace_file

HEAD = "head"
RESTORED = "audit:log:restored"
PAGE_ROWS = 1_000
ROW = "audit_id, recorded_at, action, actor_id, subject, facts, commitment"  # what a seal covers

_GET_HEAD = "SELECT count, seal FROM audit_head WHERE name = $1"
_LAST = "SELECT position, seal FROM audit WHERE position IS NOT NULL ORDER BY position DESC LIMIT 1"
_GET_ANCHOR = "SELECT position, seal, cut_at, key_id, proof FROM audit_anchor WHERE name = $1"
_PAGE = (
    f"SELECT {ROW}, position, key_id, seal, salt, personal FROM audit"  # noqa: S608
    f" WHERE position > $1 ORDER BY position LIMIT {PAGE_ROWS}"
)


class Head(msgspec.Struct, frozen=True):
    """The end of the chain: how many rows are sealed, and the seal of the last one."""

    count: int
    seal: bytes

    def __str__(self) -> str:
        return f"{self.count} {self.seal.hex()}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """The inverse of str(). Raises ValueError."""
        count, seal = text.split()
        head = cls(int(count), bytes.fromhex(seal))
        if not 0 <= head.count < 2**63:
            raise ValueError("not a number of rows")
        return head


START = Head(0, bytes(32))


class Anchor(msgspec.Struct, frozen=True):
    """Where the chain begins, once rows are past their term: after `head`, the last one removed.

    proof: an HMAC of the rest, which nobody makes without the key.
    """

    head: Head
    cut_us: int
    key_id: str
    proof: bytes

    @classmethod
    def made(cls, key: bytes, key_id: str, head: Head, cut_us: int) -> Anchor:
        return cls(head, cut_us, key_id, _proof_of(key, key_id, head, cut_us))

    def is_proved(self, key: bytes) -> bool:
        return hmac.compare_digest(self.proof, _proof_of(key, self.key_id, self.head, self.cut_us))


def _proof_of(key: bytes, key_id: str, head: Head, cut_us: int) -> bytes:
    """With a key of its own, so that no seal is ever a proof."""
    own = hmac.digest(key, b"audit anchor", "sha256")
    return hmac.digest(own, msgspec.json.encode([key_id, str(head), cut_us]), "sha256")


def seal_of(key: bytes, key_id: str, position: int, before: bytes, fields: Sequence[Any]) -> bytes:
    """The seal of one row: HMAC-SHA256 over the seal before it and the row.

    fields: audit_id, recorded_us, action, actor_id, subject, facts, commitment.

    After a restore the chain begins anew: what came after that row once, and is lost, fits nowhere behind it.
    The row itself names the end of what was restored (`follows`).
    """
    if fields[2] == RESTORED:
        before = START.seal
    text = msgspec.json.encode([key_id, position, *fields])
    return hmac.digest(key, before + text, "sha256")


def follows(facts: str, before: Head) -> bool:
    """Whether the facts of a restore name the row before it as the end of what was restored."""
    try:
        told = msgspec.json.decode(facts, type=dict[str, Any])
    except msgspec.DecodeError:
        return False
    return (told.get("rows"), told.get("seal")) == (before.count, before.seal.hex())


def read_head(path: Path) -> Head | None:
    """None without a file. Raises ValueError when it does not say a head."""
    try:
        return Head.parse(path.read_text("ascii"))
    except FileNotFoundError:
        return None


def write_head(path: Path, head: Head) -> None:
    replace_file(path, f"{head}\n".encode())


def commitment_of(salt: bytes, personal: str) -> bytes:
    return hashlib.sha256(salt + personal.encode()).digest()


async def head_of(tx: Tx) -> Head:
    row = await tx.one(_GET_HEAD, HEAD)
    return Head(*row) if row else START


async def last_of(tx: Tx) -> Head:
    row = await tx.one(_LAST)
    return Head(row[0], row[1] or b"") if row else START  # a seal can be taken away


async def anchor_of(tx: Tx) -> Anchor | None:
    """None as long as nothing was removed."""
    row = await tx.one(_GET_ANCHOR, HEAD)
    return Anchor(Head(row[0], row[1]), *row[2:]) if row else None


async def page(tx: Tx, after: int) -> list[Row]:
    """The next sealed rows: ROW, position, key_id, seal, salt, personal."""
    return await tx.all(_PAGE, after)


async def page_and_anchor(tx: Tx, after: int) -> tuple[list[Row], Anchor | None]:
    """The next rows, and where the chain begins at that moment."""
    return await page(tx, after), await anchor_of(tx)
