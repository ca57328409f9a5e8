"""Calls that are over: each is a line of its conversation, and goes with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog

from ..config import SignalingConfig
from ..deps.contracts import Database
from ..identity import CallId, ConversationId, UserId
from ..periodic import every
from . import store
from .store import Called

log = structlog.get_logger(module="signaling")

BATCH = 100  # calls in one look
FIRST = CallId("00000000-0000-0000-0000-000000000000")

Facts = Mapping[str, str | int]
WriteDown = Callable[[ConversationId, UserId, Facts], Awaitable[None]]


async def _write_nothing(_: ConversationId, __: UserId, ___: Facts) -> None:
    """Nobody keeps conversations."""


def facts_of(call: Called) -> Facts:
    """What the conversation is told of one that is over."""
    assert call.end_reason is not None
    return {
        "call_id": call.call_id,
        "call_type": call.call_type,
        "status": call.state,
        "end_reason": call.end_reason,
        "duration_s": call.duration_s,
    }


class Past:
    """write_down: adds to what was said in a conversation that this person called there, and what came of it;
    once however often it is asked of the same call."""

    def __init__(self, config: SignalingConfig, db: Database) -> None:
        self._config = config
        self._db = db
        self.write_down: WriteDown = _write_nothing

    async def write_forever(self) -> None:
        await every(self._config.pass_s, self.write_once, log, "calls_not_written_down")

    async def write_once(self) -> None:
        """Safe to repeat, and on every node."""
        for call in await self._db.read(store.unwritten, BATCH):
            await self.write_down(call.conversation_id, call.caller_id, facts_of(call))
            await self._db.relieve(store.written, call.call_id, self._db.now_us())

    async def sweep_forever(self) -> None:
        await every(self._config.sweep_s, self.sweep_once, log, "calls_not_swept")

    async def sweep_once(self) -> int:
        """Take away the calls of conversations that are gone. Returns how many. Safe to repeat, and on every
        node."""
        swept, after = 0, FIRST
        while page := await self._db.read(store.past_after, after, BATCH):
            for call_id, is_orphan in page:
                if is_orphan:
                    await self._db.relieve(store.drop, call_id)
                    swept += 1
            after = page[-1][0]
        return swept
