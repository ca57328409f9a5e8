"""What time ends: ringing that nobody answers, and devices that do not come back."""

from __future__ import annotations

import structlog

from ..config import SignalingConfig
from ..periodic import every
from .calls import Calls
from .recovery import Recovery

log = structlog.get_logger(module="signaling")


class Reaper:
    def __init__(self, config: SignalingConfig, calls: Calls, recovery: Recovery) -> None:
        self._config = config
        self._calls = calls
        self._recovery = recovery

    async def pass_forever(self) -> None:
        await every(self._config.pass_s, self.pass_once, log, "calls_not_looked_after")

    async def pass_once(self) -> None:
        """Safe to repeat, and on every node."""
        await self._recovery.pass_once()  # first: it is to see whenever the database is away
        await self._calls.ring_out()
