"""What everybody is told: each socket of each node once, whatever it carries and whatever it waits for."""

from __future__ import annotations

import trio

from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemoryBus

from .rig import dial, dialled, make_group, make_people, running


async def test_every_socket_of_every_node_hears_it_once(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    ann, bob, cid = await make_people(db, "ann", "bob", "cid")
    async with running(db, bus) as here, running(db, bus) as there:
        where = await make_group(here, ann, bob)
        sockets = [
            await dialled(nursery, here, ann),
            await dialled(nursery, there, bob, only=where),
            dial(nursery, there, cid, resume=True),
        ]
        await sockets[-1].wait_for("hello")
        here.announce("an-id", "maintenance at noon", 0, None)
        for socket in sockets:
            heard = await socket.wait_for("announcement")
            assert heard == {
                "type": "announcement",
                "announcement_id": "an-id",
                "text": "maintenance at noon",
                "created_at": "1970-01-01T00:00:00.000000Z",
                "until": None,
            }
        here.announce("another", "it is over", 0, None)
        for socket in sockets:
            await socket.wait_for("announcement", 2)
            assert len(socket.of("announcement")) == 2
