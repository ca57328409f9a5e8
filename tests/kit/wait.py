"""Waiting for a state that nobody announces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

LOOK_S = 0.02


async def until(holds: Callable[[], bool | Awaitable[bool]], within_s: float = 10) -> None:
    """Look again and again until it holds. Raises TooSlowError."""
    with trio.fail_after(within_s):
        while True:
            held = holds()
            if held if isinstance(held, bool) else await held:
                return
            await trio.sleep(LOOK_S)
