"""Quotas are counters, which change with the files they count, whatever happens in between."""

from __future__ import annotations

import random
from contextlib import suppress

import trio
from structlog.testing import capture_logs

from kit.objects import put
from secureconnect.deps.contracts import Tx
from secureconnect.errors import Problem
from secureconnect.identity import UserId
from secureconnect.storage import store
from secureconnect.storage.store import File

from .rig import CONFIG, Node, World

SMALL = b"small"
TASKS = 3
STEPS = {"embedded": 25, "servers": 10}
LEAVES_AFTER_S = (0, 0.003, 10, 10, 10)
DEEDS = ("begin", "send", "send wrong", "complete", "delete", "expire")
COUNTED = {"complete", "delete"}  # go on until both have happened
WEIGHTS = (5, 6, 1, 8, 3, 1)
CHECKSUMS = {"embedded": (None, None, None, "0" * 64), "servers": (None,)}  # to read it back takes its time


async def test_they_are_exact_whatever_happens(world: World, node: Node, ann: UserId) -> None:
    """Several clients with the same files leave at any moment, while the store comes and goes."""
    chance = random.Random(6)
    begun: list[tuple[File, str]] = []
    done: set[str] = set()

    async def step() -> None:
        deed = chance.choices(DEEDS, WEIGHTS)[0] if begun else "begin"
        if deed == "begin":
            begun.append(await node.begin(ann, SMALL, checksum_sha256=chance.choice(CHECKSUMS[world.kind])))
            return
        file, url = chance.choice(begun[-3:])
        if deed == "complete":
            await node.complete(file)
        elif deed == "delete":
            await node.room.files.delete(ann, file.file_id, "")
        elif deed == "expire":
            node.forward(CONFIG.upload_s / 3)
            await node.room.sweeper.pass_once()
        elif deed == "send":
            await node.send(url, SMALL)
        else:
            await put(world.store.inner, file.incoming_key, b"other")
        done.add(deed)

    async def client() -> None:
        for number in range(10 * STEPS[world.kind]):
            if number >= STEPS[world.kind] and done >= COUNTED:
                break
            world.store.is_away = world.minio is None and chance.random() < 0.05
            with trio.move_on_after(chance.choice(LEAVES_AFTER_S)):
                with suppress(Problem):
                    await step()

    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(client)
    world.store.is_away = False
    assert done >= COUNTED, "there was something to count"
    assert not await node.db.read(store.differs, ann)
    node.forward(CONFIG.upload_s)
    await node.room.sweeper.pass_once()
    assert not await node.db.read(store.differs, ann)
    assert (await node.quota(ann))[1:] == (0, 0)


async def test_one_that_differs_is_set_right(node: Node, ann: UserId, bob: UserId) -> None:
    await node.uploaded(ann, SMALL)
    await node.begin(ann, SMALL)
    await node.uploaded(bob, SMALL)
    for user, wrong in ((ann, "used_bytes = 7"), (ann, "reserved_bytes = 0"), (bob, "uploads = 1")):
        await node.db.write(_change, user, wrong)
        with capture_logs() as logs:
            await node.room.recount.pass_once()
        assert [(line["event"], line["user_id"]) for line in logs] == [("quota_differed", user)]
        assert await node.quota(ann) == (len(SMALL), len(SMALL), 1)
        assert await node.quota(bob) == (len(SMALL), 0, 0)
    with capture_logs() as logs:
        await node.room.recount.pass_once()
    assert logs == []


async def _change(tx: Tx, user: UserId, wrong: str) -> None:
    await tx.run(f"UPDATE quotas SET {wrong} WHERE user_id = $1", user)
