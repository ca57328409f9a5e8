"""The files: from the folder to the store that several nodes share."""

from __future__ import annotations

from collections.abc import Callable

from ..deps.contracts import Objects
from ..errors import NotFound


async def carry_files(source: Objects, target: Objects, tell: Callable[[int], None]) -> tuple[int, list[str]]:
    """Copy what is not there yet, and look at each once more. Returns how many there are, and those that
    differ. Safe to repeat.

    tell: called with the number of files done so far.
    """
    done, wrong = 0, []
    async for key in source.list(""):
        here = await source.stat(key)
        if not await _is_there(target, key, here.sha256, here.size_bytes):
            await target.put(key, source.get(key), limit_bytes=here.size_bytes)
            if not await _is_there(target, key, here.sha256, here.size_bytes):
                wrong.append(key)
        done += 1
        tell(done)
    return done, wrong


async def _is_there(target: Objects, key: str, sha256: str, size_bytes: int) -> bool:
    try:
        found = await target.stat(key)
    except NotFound:
        return False
    return (found.sha256, found.size_bytes) == (sha256, size_bytes)
