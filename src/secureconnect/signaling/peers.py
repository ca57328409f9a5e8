"""Devices in calls: how one comes, loses its connection and comes back, and what is told of that."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..deps.contracts import Database, Tx
from ..errors import CallElsewhere, CallNotJoined, CallOver, InvalidToken, NotFound
from ..identity import CallId, NodeId, PeerId, Principal, new_id
from . import store
from .calls import Calls
from .recovery import Recovery
from .rosters import Roster
from .store import Called, Peer

TOKEN_BYTES = 32


class Attached(NamedTuple):
    """A device that has its socket.  token: to come back with, once.  replaced: what the person was in the
    call before.  is_back: it is what it was before.  is_new: it is, and its page was loaded anew.  lost:
    others whose node has died, as was found by this."""

    epoch: int
    mine: Peer
    peers: list[Peer]
    token: str
    replaced: Peer | None = None
    is_back: bool = False
    is_new: bool = False
    lost: Sequence[Peer] = ()


def hash_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Peers:
    """life: of this process, so that the rows of an earlier one are known."""

    def __init__(self, db: Database, calls: Calls, node_id: NodeId, life: str, recovery: Recovery) -> None:
        self._db = db
        self._calls = calls
        self._node_id = node_id
        self._life = life
        self._recovery = recovery

    async def require_joined(self, caller: Principal, call_id: CallId) -> None:
        """Raises NotFound, CallOver, CallNotJoined, CallElsewhere."""
        await self._db.read(require_joined, caller, call_id, None)

    async def join(self, caller: Principal, call_id: CallId, instance_id: str) -> Attached:
        """A device comes, in the place of what it was before; the same page of the same device comes back,
        for its token may have been lost on the way. Raises as `require_joined`."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        return await self._db.write(self._join, caller, call_id, instance_id, token)

    async def _join(
        self, tx: Tx, caller: Principal, call_id: CallId, instance_id: str, token: str
    ) -> Attached:
        call = await require_joined(tx, caller, call_id, await store.lock(tx, call_id))
        peers = await store.peers(tx, call_id)
        before = next((each for each in peers if each.user_id == caller.user_id), None)
        if before and (before.device_id, before.instance_id) == (caller.device_id, instance_id):
            return await self._hold(tx, call, peers, before, instance_id, token)
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
        await store.add_peer(tx, mine)
        others = [each for each in peers if each != before]
        attached = await self._attached(tx, call, [*others, mine], mine, token)
        return attached._replace(replaced=before)

    async def resume(
        self, caller: Principal, call_id: CallId, instance_id: str, resume_token: str
    ) -> Attached:
        """A device comes back as what it was. Raises as `require_joined`; InvalidToken for one that has been
        given up, or a token used before."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        return await self._db.relieve(self._resume, caller, call_id, instance_id, resume_token, token)

    async def _resume(
        self, tx: Tx, caller: Principal, call_id: CallId, instance_id: str, old: str, token: str
    ) -> Attached:
        call = await require_joined(tx, caller, call_id, await store.lock(tx, call_id))
        peers = await store.peers(tx, call_id)
        mine = _of_token(peers, caller, old)
        if mine is None:
            raise InvalidToken("This device is not waited for any more; join anew.")
        return await self._hold(tx, call, peers, mine, instance_id, token)

    async def _hold(
        self, tx: Tx, call: Called, peers: list[Peer], before: Peer, instance_id: str, token: str
    ) -> Attached:
        mine = self._back(before, instance_id, token)
        await store.save_peer(tx, mine)
        peers = [mine if each.peer_id == mine.peer_id else each for each in peers]
        attached = await self._attached(tx, call, peers, mine, token)
        return attached._replace(is_back=True, is_new=instance_id != before.instance_id)

    async def _attached(self, tx: Tx, call: Called, peers: list[Peer], mine: Peer, token: str) -> Attached:
        call, lost = await self._recovery.lose_orphans(tx, call, peers)
        call = await self._calls.settle(tx, call)
        by_id = {each.peer_id: each for each in lost}
        peers = [by_id.get(each.peer_id, each) for each in peers]
        return Attached(call.epoch, mine, peers, token, lost=lost)

    def resume_from(
        self, roster: Roster | None, caller: Principal, instance_id: str, resume_token: str
    ) -> Attached | None:
        """The same by what this node knows of the call, while the database is away; the table has yet to be
        told. None: it knows too little."""
        before = None if roster is None else _of_token(roster.peers.values(), caller, resume_token)
        if roster is None or before is None:
            return None
        token = secrets.token_urlsafe(TOKEN_BYTES)
        mine = self._back(before, instance_id, token)
        peers = [mine if each.peer_id == mine.peer_id else each for each in roster.peers.values()]
        is_new = instance_id != before.instance_id
        return Attached(roster.epoch, mine, peers, token, is_back=True, is_new=is_new)

    def _back(self, before: Peer, instance_id: str, token: str) -> Peer:
        """A page that was loaded anew shows no screen."""
        return before._replace(
            node_id=self._node_id,
            life=self._life,
            instance_id=instance_id,
            token_hash=hash_of(token),
            screen=before.screen and instance_id == before.instance_id,
            lost_us=None,
            turn=before.turn + 1,
        )

    async def note(self, peer: Peer) -> None:
        """How a device here is by now, unless it has come anew since."""
        await self._db.relieve(self._note, peer)

    async def _note(self, tx: Tx, peer: Peer) -> None:
        call = await store.lock(tx, peer.call_id)
        if call is not None and not call.is_over:
            await store.save_peer(tx, peer)
            await self._calls.settle(tx, call)

    async def of_node(self) -> dict[CallId, tuple[int, list[Peer]]]:
        """As `store.peers_of_node`."""
        return await self._db.read(store.peers_of_node, self._node_id)

    async def of(self, call_id: CallId) -> list[Peer]:
        return await self._db.read(store.peers, call_id)


def _of_token(peers: Iterable[Peer], caller: Principal, token: str) -> Peer | None:
    hashed = hash_of(token)
    ours = (each for each in peers if (each.user_id, each.device_id) == (caller.user_id, caller.device_id))
    return next((each for each in ours if hmac.compare_digest(each.token_hash, hashed)), None)


async def require_joined(tx: Tx, caller: Principal, call_id: CallId, call: Called | None) -> Called:
    """The call that the caller is in with this device.  call: as the transaction holds it; None: it is read.
    Raises NotFound, CallOver, CallNotJoined, CallElsewhere."""
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
