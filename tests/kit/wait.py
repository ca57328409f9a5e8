"""Waiting for a state that nobody announces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

LOOK_S = 0.05


async def until(holds: Callable[[], Awaitable[bool]], within_s: float) -> None:
    """Look again and again until it holds. Raises TooSlowError."""
    with trio.fail_after(within_s):
        while not await holds():  # noqa: ASYNC110  (another process cannot set an Event)
            await trio.sleep(LOOK_S)
