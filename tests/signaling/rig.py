"""What the tests of calls work with: rooms that run, devices with sockets in memory."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import trio

from chat.rig import MemorySocket
from secureconnect.clock import HOUR_US, now_us
from secureconnect.config import MemoryConfig, SignalingConfig, SignalsConfig, TurnConfig
from secureconnect.deps.contracts import Database, Signals, Tx
from secureconnect.deps.memory import MemorySignals
from secureconnect.edge import Call, Close, Frame, SocketClosed
from secureconnect.errors import InvalidToken
from secureconnect.identity import CallId, ConversationId, NodeId, Principal, UserId, new_id
from secureconnect.signaling import Signaling
from secureconnect.signaling.sockets import SignalingQuery, admit, serve
from secureconnect.signaling.store import Called, CallType

Json = dict[str, Any]

CONFIG = SignalingConfig(pass_s=0.05, roster_s=0.1)


def signals() -> MemorySignals:
    return MemorySignals(MemoryConfig(), SignalsConfig().payload_bytes)


async def make_conversation(db: Database, kind: str, owner: Principal, *others: Principal) -> ConversationId:
    """Rows as chat writes them."""
    name = ConversationId(new_id())

    async def insert(tx: Tx) -> None:
        now = now_us()
        await tx.run(
            "INSERT INTO conversations (conversation_id, type, created_by, created_at, updated_at, last_seq,"
            " last_change, touched_at, first_seq, min_change, is_e2ee_enabled, recording_enabled,"
            " message_retention_days, history_visible)"
            " VALUES ($1, $2, $3, $4, $4, 0, 1, $4, 1, 0, $5, $6, 0, $6)",
            name,
            kind,
            owner.user_id,
            now,
            False,
            True,
        )
        for role, person in [("owner", owner), *(("member", each) for each in others)]:
            await tx.run(
                "INSERT INTO members (conversation_id, user_id, role, joined_at, visible_from_seq,"
                " last_read_seq) VALUES ($1, $2, $3, $4, 1, 0)",
                name,
                person.user_id,
                role,
                now,
            )

    await db.write(insert)
    return name


async def renew(tx: Tx, node: NodeId, lasts_us: int = HOUR_US) -> None:
    """The lease of a node, renewed as from then on.  lasts_us: negative for one that ended long ago."""
    now = now_us()
    await tx.run(
        "INSERT INTO nodes (node_id, version, started_at, renewed_at, lease_ends_at)"
        " VALUES ($1, '', $2, $3, $4) ON CONFLICT (node_id) DO UPDATE SET renewed_at = excluded.renewed_at,"
        " lease_ends_at = excluded.lease_ends_at",
        node,
        now,
        now + lasts_us,
        now + lasts_us + 1,
    )


class Device(MemorySocket):
    """One device in a call.  told by `attend`: its peer_id and what it comes back with.  raw: what it was
    sent, as it came."""

    peer_id = ""
    resume_token = ""
    epoch = 0

    def __init__(self, principal: Principal, room: int = 1_000_000) -> None:
        super().__init__(principal, room)
        self.raw: list[bytes] = []

    def _take(self, frame: Frame) -> None:
        self.raw.append(frame.data)
        super()._take(frame)

    def greet(self, frame: Json) -> None:
        self.peer_id, self.resume_token, self.epoch = frame["peer_id"], frame["resume_token"], frame["epoch"]


class Node:
    """One room.  told: the events people got here, with whom each was for.  ended: whose sessions are.
    tokens: that are good, and whose."""

    def __init__(
        self,
        db: Database,
        between: Signals,
        config: SignalingConfig,
        node_id: NodeId | None = None,
        lease_s: float = 0.0,
    ) -> None:
        self.db = db
        self.ended: set[UserId] = set()
        self.tokens: dict[str, Principal] = {}
        self.told: list[tuple[UserId, Json]] = []
        self.id = node_id or NodeId(new_id())
        self.room = Signaling(config, TurnConfig(), db, between, self.id, lease_s=lease_s)
        self.room.connect(
            to_person=self._hear,
            authenticate=self._authenticate,
            has_ended=lambda principal: principal.user_id in self.ended,
        )
        self._nursery: trio.Nursery

    @classmethod
    async def start(
        cls,
        nursery: trio.Nursery,
        db: Database,
        between: Signals,
        config: SignalingConfig = CONFIG,
        node_id: NodeId | None = None,
        lease_s: float = 0.0,
    ) -> Node:
        """As an earlier start left it, if `node_id` is its.  lease_s: as of `Recovery`."""
        node = cls(db, between, config, node_id, lease_s)
        node._nursery = nursery
        await db.write(renew, node.id)
        await nursery.start(lambda task_status: node.room.run(task_status=task_status))
        return node

    def _hear(self, user: UserId, event: bytes) -> None:
        self.told.append((user, msgspec.json.decode(event)))

    async def _authenticate(self, token: str) -> Principal:
        try:
            return self.tokens[token]
        except KeyError:
            raise InvalidToken from None

    def heard(self, user: Principal) -> list[str]:
        """The types of the events somebody got here."""
        return [event["type"] for to, event in self.told if to == user.user_id]

    async def call(
        self,
        caller: Principal,
        where: ConversationId,
        *callees: Principal,
        call_type: CallType = "video",
    ) -> Called:
        asked = [each.user_id for each in callees] or None
        return await self.room.calls.initiate(caller, where, call_type, asked, None)

    async def dial(self, who: Principal, call_id: CallId, outbox: int = 1_000_000) -> Device:
        """Open a socket, whose outbox takes so many frames. Raises what refuses it."""
        device = Device(who, outbox)
        call = Call("request", "127.0.0.1", float("inf"), who, query=SignalingQuery(call_id))
        await admit(self.room, call)

        async def attend() -> None:
            with suppress(SocketClosed):
                await serve(self.room, call, device)
            device.close(Close.NORMAL, "")

        self._nursery.start_soon(attend)
        return device

    async def attach(
        self, who: Principal, call_id: CallId, instance: str = "page-1", outbox: int = 1_000_000
    ) -> Device:
        device = await self.dial(who, call_id, outbox)
        device.tell("join", instance_id=instance)
        device.greet(await device.wait_for("peers"))
        return device

    async def come_back(self, old: Device, call_id: CallId, instance: str = "page-1") -> Device:
        device = await self.dial(old.principal, call_id)
        device.tell("resume", instance_id=instance, resume_token=old.resume_token)
        device.greet(await device.wait_for("resumed"))
        return device
