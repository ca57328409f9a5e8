"""Keeps SQLite's log of commits short, and its file no larger than it needs to be."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable

import structlog
import trio

from ..errors import Problem
from .contracts import Tx

log = structlog.get_logger(module="sqlite")

CHECKPOINT_S = 1.0
LOG_FRAMES = 16_384  # pages in the log before it is begun anew: 64 MB
KEPT_PAGES = 1024  # free pages the file keeps for what comes next, or a tenth of it if that is more
GIVEN_BACK_PAGES = 128  # free pages given back in one unit, which holds the writer for 8 ms
GIVEN_BACK_UNITS = 16  # such units after one checkpoint: 8 MB


class CommitLog:
    """connection: its own, beside the writer's.  cut_s: between two cuts.  commits: how many there were.
    relieve: of the database (`contracts.Database`)."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        cut_s: float,
        commits: Callable[[], int],
        relieve: Callable[[Callable[[Tx], Awaitable[None]]], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._cut_s = cut_s
        self._commits = commits
        self._relieve = relieve
        self._alone = trio.CapacityLimiter(1)

    async def keep_forever(self) -> None:
        done, cut, cut_at = 0, 0, trio.current_time()
        while True:
            await trio.sleep(CHECKPOINT_S)
            commits = self._commits()
            cuts = cut < commits and trio.current_time() >= cut_at + self._cut_s
            if done == commits and not cuts:
                continue
            done = commits
            try:
                surplus, is_cut = await trio.to_thread.run_sync(self._checkpoint, cuts, limiter=self._alone)
                if is_cut:
                    cut, cut_at = done, trio.current_time()
                for _ in range(min(surplus // GIVEN_BACK_PAGES, GIVEN_BACK_UNITS)):
                    await self._relieve(_give_back)
            except (sqlite3.Error, OSError, Problem) as exc:
                log.warning("checkpoint_failed", error=repr(exc))

    def _checkpoint(self, cuts: bool) -> tuple[int, bool]:
        """Move committed pages from the log into the database, beside the writer. Returns how many free pages
        the file has beyond those it keeps, and whether the log was cut.

        Under constant writing the log never ends and only grows, and what was deleted lives on in it. Past
        its limit it is begun anew, for which the writer waits some milliseconds, as the pass before leaves
        little to do; now and then it is cut as well, which takes ten times as long.
        """
        _, frames, _ = self._ask("wal_checkpoint(PASSIVE)")
        if cuts:
            cuts = self._ask("wal_checkpoint(TRUNCATE)")[0] == 0
        elif frames > LOG_FRAMES:
            self._ask("wal_checkpoint(RESTART)")
        (free,), (pages,) = self._ask("freelist_count"), self._ask("page_count")
        return free - max(KEPT_PAGES, pages // 10), cuts

    def _ask(self, pragma: str) -> tuple[int, ...]:
        numbers: tuple[int, ...] = self._connection.execute(f"PRAGMA {pragma}").fetchone()
        return numbers


async def _give_back(tx: Tx) -> None:
    """Make the file smaller by some of its free pages."""
    for _ in range(GIVEN_BACK_PAGES):
        await tx.run("PRAGMA incremental_vacuum(1)")  # sqlite3 takes one step of it, whatever number it says
