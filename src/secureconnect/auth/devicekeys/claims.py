"""Who may take keys of whom, how often, and the same claim made again."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable

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

    async def allowed(self, caller: UserId, targets: Iterable[UserId]) -> set[UserId]:
        """Those of whom the caller may take keys now. Raises RateLimited if there is none."""
        allowed: set[UserId] = set()
        retry_after_s = 0.0
        for target in dict.fromkeys(targets):
            try:
                taken = await self._cache.take(f"keys:{caller}:{target}", self._config.claims, MINUTE_S)
            except Unavailable:
                allowed.add(target)
                continue
            if taken.allowed:
                allowed.add(target)
            else:
                retry_after_s = max(retry_after_s, taken.retry_after_s)
        if retry_after_s and not allowed:
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
