"""How a call outlives what carries it: devices whose node has died are waited for, and whoever does not come
back, or may not stay, is out.

All of it is found in the tables, by any node: an idempotent look, and one unit for each call it finds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..clock import SECOND_US
from ..config import SignalingConfig
from ..deps.contracts import Database, Tx
from ..errors import Unavailable
from ..identity import CallId, NodeId, UserId
from ..node import LEASE_S
from . import store
from .calls import BATCH, Calls, Outcome
from .store import Called, Peer

SILENT_S = 2  # a lease is renewed each second: by then its node is known to be away by whoever comes back
FROZEN_S = 5.0  # more than two looks are to be apart: this process did not run, and others may not have


class Mended(NamedTuple):
    """lost: devices that are waited for from now on.  gone: that are waited for no more.  out: people who
    were in it and are not."""

    outcome: Outcome
    lost: Sequence[Peer] = ()
    gone: Sequence[Peer] = ()
    out: Sequence[UserId] = ()


class Recovery:
    """life: of this process.  lease_s: nobody is reaped until the database has answered for so long.
    tell: hears what was mended, after its commit. Never waits."""

    def __init__(
        self,
        config: SignalingConfig,
        db: Database,
        calls: Calls,
        node_id: NodeId,
        life: str,
        tell: Callable[[Mended], None],
        lease_s: float = LEASE_S,
    ) -> None:
        self._config = config
        self._db = db
        self._calls = calls
        self._node_id = node_id
        self._life = life
        self._tell = tell
        self._lease_s = lease_s
        self._answers_since: float | None = None
        self._looked_at = 0.0

    # within a unit that holds the call

    async def lose_orphans(
        self, tx: Tx, call: Called, peers: Sequence[Peer], silent_s: float = SILENT_S
    ) -> tuple[Called, list[Peer]]:
        """Devices whose process has ended are lost, and the call recovers: what they said before is void.
        Returns them."""
        now_us = self._db.now_us()
        orphans = await store.orphans(tx, call.call_id, self._node_id, self._life, self._silent_us(silent_s))
        lost = [each._replace(lost_us=now_us) for each in peers if each.peer_id in orphans]
        for peer in lost:
            await store.save_peer(tx, peer)
        return (await self._calls.lose(tx, call) if lost else call), lost

    # what time brings

    async def pass_once(self) -> None:
        """Safe to repeat, and on every node."""
        try:
            due = await self._db.read(self._due)
        except Unavailable:
            self._answers_since = None
            raise
        now = time.monotonic()
        if self._answers_since is None or now - self._looked_at > self._config.pass_s + FROZEN_S:
            self._answers_since = now  # it was away; or this process was frozen, and others may have been
        self._looked_at = now
        for call_id in due:
            self._tell_if_any(await self._db.relieve(self._mend, call_id))

    def _tell_if_any(self, mended: Mended | None) -> None:
        if mended is not None:
            self._tell(mended)

    @property
    def may_reap(self) -> bool:
        """Whether all could have come back and renewed what ends."""
        since = self._answers_since
        return since is not None and time.monotonic() - since >= self._lease_s

    def _silent_us(self, silent_s: float) -> int:
        """While others may not have been able to renew their leases, none counts as ended."""
        since = self._answers_since
        is_known = since is not None and time.monotonic() - since >= silent_s
        return self._db.now_us() - int(silent_s * SECOND_US) if is_known else 0

    @property
    def _waited_us(self) -> int:
        """Whoever is away since then or longer does not come back."""
        return self._db.now_us() - self._config.grace_s * SECOND_US if self.may_reap else 0

    async def _due(self, tx: Tx) -> list[CallId]:
        silent_us = self._silent_us(self._lease_s)
        found = await store.calls_with_orphans(tx, self._node_id, self._life, silent_us, BATCH)
        found += await store.calls_with_strangers(tx, BATCH)
        if self.may_reap:
            found += await store.calls_with_lost(tx, self._waited_us, BATCH)
            found += await store.calls_with_unseen(tx, self._waited_us, BATCH)
        return list(dict.fromkeys(found))

    async def _mend(self, tx: Tx, call_id: CallId) -> Mended | None:
        call = await store.lock(tx, call_id)
        if call is None or call.is_over:
            return None
        peers = await store.peers(tx, call_id)
        call, lost = await self.lose_orphans(tx, call, peers, self._lease_s)
        strangers = await store.strangers(tx, call_id)
        waited_us = self._waited_us
        out = {each.user_id for each in peers if each.lost_us is not None and each.lost_us <= waited_us}
        out |= await store.unseen(tx, call_id, waited_us)
        outcome, before = Outcome(call), call.joined
        for user in sorted(strangers):
            outcome = _then(outcome, await self._calls.withdraw(tx, user, call_id))
        for user in sorted(out):
            outcome = _then(outcome, await self._put_out(tx, outcome.call, user))
        call = outcome.call
        if not call.is_over:
            call = await self._calls.settle(tx, call)
        gone = [each for each in peers if each.user_id in out | strangers]
        left = [user for user in before if user in out | strangers]
        return Mended(outcome._replace(call=call), lost, gone, left)

    async def _put_out(self, tx: Tx, call: Called, user: UserId) -> Outcome | None:
        who = call.person(user)
        if call.is_over or who is None or who.state != "joined":
            return None
        return await self._calls.part(tx, call, who, "vanish")

    async def put_out(self, peer: Peer) -> None:
        """This device is not to come back: it has left, or its session has ended."""
        self._tell_if_any(await self._db.relieve(self._put_out_peer, peer))

    async def _put_out_peer(self, tx: Tx, peer: Peer) -> Mended | None:
        call = await store.lock(tx, peer.call_id)
        if call is None or call.is_over:
            return None
        peers = await store.peers(tx, peer.call_id)
        here = [each for each in peers if each.peer_id == peer.peer_id and each.turn <= peer.turn]
        who = call.person(peer.user_id)
        if not here or who is None:
            return None
        outcome = await self._calls.part(tx, call, who, "give_up")
        return Mended(outcome, gone=here)


def _then(first: Outcome, second: Outcome | None) -> Outcome:
    return first if second is None else Outcome(second.call, [*first.told, *second.told])
