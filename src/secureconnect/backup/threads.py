"""What blocks on a disk is done in threads, a few at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TypeVar

import trio

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *args: object) -> T:
    return await trio.to_thread.run_sync(work, *args)


async def in_threads(items: Iterator[T]) -> AsyncGenerator[T, None]:
    """Each item made in a thread."""
    while True:
        found = await in_thread(_next, items)
        if not found:
            return
        yield found[0]


def _next(items: Iterator[T]) -> list[T]:
    for item in items:
        return [item]
    return []
