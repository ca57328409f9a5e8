"""Who may take keys of whom, how often, and the same claim made again."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence

from ...clock import SECOND_US
from ...config import KeysConfig
from ...deps.contracts import Cache, Tx
from ...errors import IdempotencyKeyReused, RateLimited, Unavailable
from ...identity import DeviceId, UserId
from . import store

MINUTE_S = 60.0


class Claims:
    """cache: counts them for all nodes; while it is away the rate of all requests is the only limit."""

    def __init__(self, config: KeysConfig, cache: Cache) -> None:
        self._config = config
        self._cache = cache

    async def allowed(self, caller: UserId, targets: Sequence[UserId]) -> set[UserId]:
        """Those of whom the caller may take keys now. Raises RateLimited if that is none of some."""
        names = [f"keys:{caller}:{target}" for target in targets]
        try:
            taken = await self._cache.take_each(names, self._config.claims, MINUTE_S)
        except Unavailable:
            return set(targets)
        allowed = {target for target, each in zip(targets, taken, strict=True) if each.allowed}
        if taken and not allowed:
            retry_after_s = min(each.retry_after_s for each in taken)
            raise RateLimited("Too many keys of this person were claimed.", retry_after_s=retry_after_s)
        return allowed

    async def once(
        self,
        tx: Tx,
        device: DeviceId,
        claim_key: str | None,
        asked: str,
        answer: Callable[[], Awaitable[str]],
        now_us: int,
    ) -> str:
        """What `answer` gives, or gave to this device under the same key. Raises IdempotencyKeyReused when
        that was asked something else."""
        if claim_key is None:
            return await answer()
        digest = hashlib.sha256(asked.encode()).digest()
        since_us = now_us - self._config.claim_repeat_s * SECOND_US
        was, given = await store.begin_claim(tx, device, claim_key, digest, now_us=now_us, since_us=since_us)
        if was != digest:
            raise IdempotencyKeyReused
        if not given:
            given = await answer()
            await store.keep_answer(tx, device, claim_key, given)
        return given
