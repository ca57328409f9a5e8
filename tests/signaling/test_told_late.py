"""What other nodes are told of a call, late or out of turn."""

from __future__ import annotations

import trio

from kit.outage import Interrupted
from kit.wait import until
from secureconnect.config import MemoryConfig, SignalsConfig
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemorySignals
from secureconnect.edge import Close
from secureconnect.errors import Unavailable
from secureconnect.identity import ConversationId, Principal

from .rig import Node
from .test_recovery import everybody, peers_of


class Cut(MemorySignals):
    """Nodes cannot reach each other while `is_cut`."""

    is_cut = False

    def send(self, channel: str, payload: bytes) -> None:
        if self.is_cut:
            raise Unavailable
        super().send(channel, payload)


async def test_what_other_nodes_could_not_be_told_they_are_told_later(
    db: Database, nursery: trio.Nursery, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    between = Cut(MemoryConfig(), SignalsConfig().payload_bytes)
    away = Interrupted(db)
    nodes = (await Node.start(nursery, away, between), await Node.start(nursery, db, between))
    call, [one, two] = await everybody(nodes, pair, ann, bob)
    away.go_away()
    between.is_cut = True
    one.tell("mute_audio", ref=1)
    await one.wait_for("ack")
    one.tell("mute_video", ref=2)
    await one.wait_for("ack", 2)
    away.come_back()
    between.is_cut = False
    told = (await two.wait_for("peer_resumed"))["peer"]
    assert [told[each] for each in ("peer_id", "audio", "video", "is_connected")] == [
        one.peer_id, False, False, True,
    ]  # fmt: skip
    away.go_away()
    between.is_cut = True
    one.close(Close.INTERNAL, "the network went")
    await until(lambda: not nodes[0].room.rosters.get(call.call_id).sockets)  # type: ignore[union-attr]
    away.come_back()
    between.is_cut = False
    assert (await two.wait_for("peer_reconnecting"))["peer_id"] == one.peer_id
    away.go_away()
    between.is_cut = True
    await nodes[0].come_back(one, call.call_id)
    away.come_back()
    between.is_cut = False
    assert (await two.wait_for("peer_resumed", 2))["peer"]["is_connected"]


async def test_what_was_said_on_a_connection_that_was_left_is_not_passed_on(
    db: Database, between: MemorySignals, nursery: trio.Nursery, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    nodes = (await Node.start(nursery, db, between), await Node.start(nursery, db, between))
    call, [one, two] = await everybody(nodes, pair, ann, bob)
    before = (await peers_of(nodes[0], call))[ann.user_id]
    await nodes[1].come_back(one, call.call_id)
    await two.wait_for("peer_resumed")
    said = b'{"type": "mute_audio", "muted": true}'  # a node that hung reads it only now
    nodes[0].room.shown(before, before.showing("audio", is_on=False), said)
    nodes[0].room.rosters.announce(call.call_id, b'{"type": "after"}')
    await two.wait_for("after")
    assert not two.of("mute_audio")
