"""A creating request that comes twice makes one thing: what it made is kept under its Idempotency-Key.

The key is claimed first in the very transaction that makes the thing, so that of many requests with one key,
on whatever node, one makes it and the others wait for that and are told the same. What is kept is the rule's
own result, ids for the most part: the answer is made of it anew, so no token or address is ever stored, and
nobody is shown what they may no longer see. A refusal keeps nothing: the same key may be tried again.
"""

from __future__ import annotations

import hashlib
from typing import Any, Generic, ParamSpec, TypeVar

import msgspec
import structlog
import trio

from .clock import HOUR_US
from .config import IdempotencyConfig
from .deps.contracts import Database, Tx, Unit
from .edge import Call
from .errors import IdempotencyKeyInUse, IdempotencyKeyReused, PoolExhausted
from .identity import UserId
from .periodic import every

log = structlog.get_logger(module="idempotency")

RESULT_CHARS = 16_384  # of JSON; a result is made of fields that are bounded themselves
BATCH = 1_000

T = TypeVar("T")
P = ParamSpec("P")

_CLAIM = (
    "INSERT INTO idempotency (user_id, route, key, fingerprint, made_at) VALUES ($1, $2, $3, $4, $5)"
    " ON CONFLICT (user_id, route, key) DO NOTHING RETURNING route"
)
_RECALL = "SELECT fingerprint, result FROM idempotency WHERE user_id = $1 AND route = $2 AND key = $3"
_KEEP = "UPDATE idempotency SET result = $4 WHERE user_id = $1 AND route = $2 AND key = $3"
_FORGET = "DELETE FROM idempotency WHERE user_id = $1"
_PRUNE = (
    "DELETE FROM idempotency WHERE (user_id, route, key) IN"  # noqa: S608
    f" (SELECT user_id, route, key FROM idempotency WHERE made_at < $1 ORDER BY made_at LIMIT {BATCH})"
)


class Attempt(msgspec.Struct, frozen=True):
    """One attempt at a request that may come again.  fingerprint: SHA-256 of what is asked, path and body."""

    user_id: UserId
    route: str
    key: str
    fingerprint: bytes


class Kept(msgspec.Struct, Generic[T], frozen=True):
    """What an earlier attempt made."""

    value: T


def attempt_of(call: Call) -> Attempt | None:
    """None without a key. Two bodies that say the same in other words (order, spaces) are one."""
    if call.idempotency_key is None:
        return None
    asked = msgspec.json.encode([dict(call.path), call.body], order="deterministic")
    return Attempt(call.caller.user_id, call.route, call.idempotency_key, hashlib.sha256(asked).digest())


async def once(
    db: Database, attempt: Attempt | None, kind: Any, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """`db.write` of `unit`, or what it returned to an earlier attempt.  kind: of the result, as msgspec reads
    it. Raises IdempotencyKeyReused, IdempotencyKeyInUse."""

    async def claimed(tx: Tx, attempt: Attempt) -> T:
        kept: Kept[T] | None = await recall(tx, attempt, kind, db.now_us())
        if kept is not None:
            return kept.value
        value = await unit(tx, *args, **kwargs)
        await keep(tx, attempt, value)
        return value

    if attempt is None:
        return await db.write(unit, *args, **kwargs)
    return await db.write(claimed, attempt)


async def recall(tx: Tx, attempt: Attempt, kind: Any, now_us: int) -> Kept[Any] | None:
    """What an earlier attempt made; waits for one that is under way. None: this is the first, and the key is
    claimed: call `keep` before the transaction ends. The first thing a unit does."""
    key = (attempt.user_id, attempt.route, attempt.key)
    try:
        if await tx.one(_CLAIM, *key, attempt.fingerprint, now_us) is not None:
            return None
    except PoolExhausted as exc:  # the limit on waiting for a lock has passed
        raise IdempotencyKeyInUse from exc
    row = await tx.one(_RECALL, *key)
    if row is None:  # pruned just now
        raise IdempotencyKeyInUse
    fingerprint, result = row
    if fingerprint != attempt.fingerprint:
        raise IdempotencyKeyReused
    return Kept(msgspec.json.decode(result, type=kind))


async def keep(tx: Tx, attempt: Attempt, value: object) -> None:
    """Keep what this attempt has made, in the transaction that made it."""
    result = msgspec.json.encode(value).decode()
    if len(result) > RESULT_CHARS:
        raise ValueError(f"the result of {attempt.route} has {len(result)} characters: keep ids")
    await tx.run(_KEEP, attempt.user_id, attempt.route, attempt.key, result)


async def forget(tx: Tx, user: UserId) -> None:
    """Of a person whose account is erased."""
    await tx.run(_FORGET, user)


class Idempotency:
    """Forgets what was kept long enough. Every node runs one."""

    def __init__(self, config: IdempotencyConfig, db: Database) -> None:
        self._config = config
        self._db = db

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await every(self._config.prune_s, self.pass_once, log, "idempotency_not_pruned")

    async def pass_once(self) -> int:
        """Returns how many keys were forgotten."""
        before_us = self._db.now_us() - self._config.kept_h * HOUR_US
        pruned = 0
        while batch := await self._db.relieve(_prune, before_us):
            pruned += batch
        return pruned


async def _prune(tx: Tx, before_us: int) -> int:
    return await tx.run(_PRUNE, before_us)
