"""Devices in calls: how one comes, loses its connection and comes back, and what is told of that."""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

from ..config import SignalingConfig
from ..deps.contracts import Database, Tx
from ..errors import CallElsewhere, CallNotJoined, CallOver, InvalidToken, NotFound
from ..identity import CallId, NodeId, PeerId, Principal, new_id
from . import store
from .store import Called, Peer

TOKEN_BYTES = 32


class Attached(NamedTuple):
    """A device that has its socket.  token: to come back with, once.  replaced: what the person was in the
    call before."""

    call: Called
    mine: Peer
    peers: list[Peer]
    token: str
    replaced: Peer | None = None


def hash_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Peers:
    """life: of this process, so that the rows of an earlier one are known."""

    def __init__(self, config: SignalingConfig, db: Database, node_id: NodeId, life: str) -> None:
        self._config = config
        self._db = db
        self._node_id = node_id
        self._life = life

    async def require_joined(self, caller: Principal, call_id: CallId) -> None:
        """Raises NotFound, CallOver, CallNotJoined, CallElsewhere."""
        await self._db.read(_require_joined, caller, call_id, None)

    async def join(self, caller: Principal, call_id: CallId, instance_id: str) -> Attached:
        """A device comes, in the place of what it was before. Raises as `require_joined`."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        return await self._db.write(self._join, caller, call_id, instance_id, token)

    async def _join(
        self, tx: Tx, caller: Principal, call_id: CallId, instance_id: str, token: str
    ) -> Attached:
        call = await _require_joined(tx, caller, call_id, await store.lock(tx, call_id))
        mine = Peer(
            PeerId(new_id()),
            call_id,
            caller.user_id,
            caller.device_id,
            instance_id,
            self._node_id,
            self._life,
            hash_of(token),
            audio=True,
            video=call.call_type == "video",
            screen=False,
            joined_us=self._db.now_us(),
        )
        before = await store.peers(tx, call_id)
        await store.add_peer(tx, mine)
        others = [each for each in before if each.user_id != caller.user_id]
        replaced = next((each for each in before if each.user_id == caller.user_id), None)
        return Attached(call, mine, [*others, mine], token, replaced)

    async def resume(
        self, caller: Principal, call_id: CallId, instance_id: str, resume_token: str
    ) -> Attached:
        """A device comes back as what it was. Raises as `require_joined`; InvalidToken for one that has been
        given up, or a token used before."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        return await self._db.write(self._resume, caller, call_id, instance_id, resume_token, token)

    async def _resume(
        self, tx: Tx, caller: Principal, call_id: CallId, instance_id: str, old: str, token: str
    ) -> Attached:
        call = await _require_joined(tx, caller, call_id, await store.lock(tx, call_id))
        peers = await store.peers(tx, call_id)
        hashed = hash_of(old)
        mine = next(
            (each for each in peers if each.user_id == caller.user_id and each.token_hash == hashed), None
        )
        if mine is None:
            raise InvalidToken("This device is not waited for any more; join anew.")
        mine = mine._replace(
            node_id=self._node_id,
            life=self._life,
            instance_id=instance_id,
            token_hash=hash_of(token),
            lost_us=None,
        )
        await store.hold_peer(tx, mine)
        return Attached(call, mine, [mine if each.peer_id == mine.peer_id else each for each in peers], token)

    async def lose(self, peer: Peer) -> None:
        """Its socket here is gone."""
        await self._db.relieve(store.lose_peer, peer, self._db.now_us())

    async def show(self, peer: Peer) -> None:
        """What it says of its media."""
        await self._db.write(store.show_peer, peer)

    async def of(self, call_id: CallId) -> tuple[Called | None, list[Peer]]:
        return await self._db.read(_of, call_id)


async def _of(tx: Tx, call_id: CallId) -> tuple[Called | None, list[Peer]]:
    return await store.get(tx, call_id), await store.peers(tx, call_id)


async def _require_joined(tx: Tx, caller: Principal, call_id: CallId, call: Called | None) -> Called:
    call = call or await store.get(tx, call_id)
    if call is None or await store.seat(tx, call.conversation_id, caller.user_id) is None:
        raise NotFound(denial="denied:call", subject=call_id)
    if call.is_over:
        raise CallOver
    mine = call.person(caller.user_id)
    if mine is None or mine.state != "joined":
        raise CallNotJoined
    if mine.device_id != caller.device_id:
        raise CallElsewhere
    return call
