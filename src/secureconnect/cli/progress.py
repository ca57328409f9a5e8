"""How far a long piece of work is, for the person who waits for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ..move import Batch

    Tell = Callable[[Batch], None]

SAY_EVERY_S = 5.0  # when the output is no terminal


@contextmanager
def progress() -> Iterator[Tell]:
    """A bar on a terminal; else a line for each table, and one now and then within a large one."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        bars: dict[tuple[str, str], TaskID] = {}

        def show(batch: Batch) -> None:
            name = batch.doing, batch.table
            if name not in bars:
                bars[name] = shown.add_task(f"{batch.doing} {batch.table}")
            shown.update(bars[name], completed=batch.rows, total=max(batch.total, batch.rows))

        yield show


class _Lines:
    def __init__(self) -> None:
        self._next = time.monotonic() + SAY_EVERY_S
        self._last: tuple[str, str] | None = None

    def __call__(self, batch: Batch) -> None:
        name = batch.doing, batch.table
        if name != self._last or time.monotonic() >= self._next:
            self._last, self._next = name, time.monotonic() + SAY_EVERY_S
            line = f"{batch.doing} {batch.table}: {batch.rows} of {batch.total}"
            print(line, file=sys.stderr, flush=True)
