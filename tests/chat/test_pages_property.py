"""Whatever happens, on whichever node: a page that is told again is the page that would be read."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import trio
from hypothesis import given, settings

from kit.databases import open_sqlite
from kit.outage import Interrupted
from secureconnect.clock import SECOND_US
from secureconnect.config import MemoryConfig
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import NotFound

from .rig import make_group, make_people, read_page, running
from .test_recall_property import LASTS_S, SMALL, Step, steps, take


@settings(max_examples=40, deadline=None)
@given(steps)
def test_what_is_told_again_is_what_would_be_read(happens: Sequence[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_compare, Path(folder), happens)


async def _compare(folder: Path, happens: Sequence[Step]) -> None:
    bus = MemoryBus(MemoryConfig())
    async with open_sqlite(folder) as inner:
        db = Interrupted(inner)
        async with running(db, bus, SMALL) as one, running(db, bus, SMALL) as other:
            people = await make_people(inner, "ann", "bob", "cid")
            group = await make_group(one, *people[:2])
            for kind, is_here, number in happens:
                await take(kind, one if is_here else other, inner, group, people, number)
                if kind == "end":
                    db.ahead_us += LASTS_S * SECOND_US
                for room in (one, other):
                    for user in people:
                        with suppress(NotFound):
                            await read_page(room, user, group, 1 + number % 3)
