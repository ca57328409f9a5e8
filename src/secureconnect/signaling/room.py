"""The room itself: its parts put together, what the nodes tell each other, and its periodic work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog
import trio

from ..config import SignalingConfig, TurnConfig
from ..deps.contracts import Database, Signals
from ..edge import Call
from ..errors import Problem, Unavailable
from ..identity import CallId, NodeId, Principal, UserId, new_id
from . import frames, store
from .bells import Bells, no_bells
from .calls import Calls, Told
from .ice import IceServer, ice_servers
from .peers import Attached, Peers
from .reaper import Reaper
from .rosters import CHANNEL, Changed, Ended, Rosters, Shown, ToPeople
from .shapes import call_shape, peer_shape
from .store import Called, Peer

log = structlog.get_logger(module="signaling")

EXPORT_PAGE = 200
WAITING = 10_000  # notes for the table of what became of sockets and their media

ToPerson = Callable[[UserId, bytes], None]
Authenticate = Callable[[str], Awaitable[Principal]]


def _nobody_hears(_: UserId, __: bytes) -> None:
    """Nobody is connected."""


async def _nobody(_: str) -> Principal:
    raise Unavailable


def _no_stun() -> list[str]:
    return []


def _unheard(_: Problem, __: Call) -> None:
    """Nobody keeps refusals."""


class Signaling:
    """public_url: as the setting."""

    def __init__(
        self,
        config: SignalingConfig,
        turn: TurnConfig,
        db: Database,
        signals: Signals,
        node_id: NodeId,
        *,
        public_url: str = "",
    ) -> None:
        self.config = config
        self.turn = turn
        self._db = db
        self._signals = signals
        self._public_url = public_url
        self._to_person: ToPerson = _nobody_hears
        self.authenticate: Authenticate = _nobody
        self.deny: Callable[[Problem, Call], None] = _unheard
        self._own_stun: Callable[[], list[str]] = _no_stun
        self.calls = Calls(config, db)
        self.calls.tell = self._tell
        self.peers = Peers(config, db, node_id, new_id())
        self.rosters = Rosters(signals, node_id, lambda user, event: self._to_person(user, event))
        self._reaper = Reaper(config, self.calls)
        self._inlet, self._outlet = trio.open_memory_channel[Peer](WAITING)
        self.sockets = 0

    def connect(
        self,
        *,
        to_person: ToPerson,
        authenticate: Authenticate,
        deny: Callable[[Problem, Call], None] = _unheard,
        own_stun: Callable[[], list[str]] = _no_stun,
        bells: Callable[[], Bells] = no_bells,
    ) -> None:
        """What this room needs of its neighbours.

        to_person: offers an event to the sockets of chat that somebody has on this node. Never waits.
        authenticate: verifies the token that renews a socket.  deny: is told of refusals on sockets.
        own_stun: addresses of the STUN server in this process, while it can be reached.
        bells: what wakes people's devices just now.
        """
        self._to_person = to_person
        self.authenticate = authenticate
        self.deny = deny
        self._own_stun = own_stun
        self.calls.bells = bells

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self._signals.subscribe([CHANNEL]) as backlog:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._reaper.pass_forever)
                nursery.start_soon(self._note_forever)
                nursery.start_soon(self._read_forever)
                task_status.started()
                async for delivery in backlog:
                    self.rosters.hear(delivery.payload)

    def ice_servers(self, user: UserId) -> list[IceServer]:
        return ice_servers(self.turn, self._own_stun(), user, self._db.now_us())

    def signaling_url(self, call_id: CallId) -> str:
        """A path while the public address is not set."""
        path = f"/v1/ws/signaling?call_id={call_id}"
        if not self._public_url:
            return path
        address = urlsplit(self._public_url)
        scheme = "wss" if address.scheme == "https" else "ws"
        return f"{scheme}://{address.netloc}{address.path.rstrip('/')}{path}"

    # devices

    def came(self, attached: Attached) -> None:
        mine, epoch = attached.mine, attached.call.epoch
        if attached.replaced is not None:
            self._gone(attached.replaced, epoch)
        told = frames.frame(frames.Joined(peer=peer_shape(mine), epoch=epoch))
        self.rosters.tell(Changed(mine.call_id, mine, False, epoch, told.data))

    def came_back(self, attached: Attached) -> None:
        mine, epoch = attached.mine, attached.call.epoch
        told = frames.frame(frames.BackAgain(peer=peer_shape(mine), epoch=epoch))
        self.rosters.tell(Changed(mine.call_id, mine, False, epoch, told.data))

    def lost(self, peer: Peer, epoch: int) -> None:
        """Its socket is gone, and it has not said that it leaves."""
        log.info("peer_lost", call_id=peer.call_id, peer_id=peer.peer_id)
        peer = peer._replace(lost_us=self._db.now_us())
        told = frames.frame(frames.Reconnecting(peer_id=peer.peer_id, user_id=peer.user_id, epoch=epoch))
        self.rosters.tell(Changed(peer.call_id, peer, False, epoch, told.data))
        self._note(peer)

    def shown(self, before: Peer, peer: Peer, data: bytes) -> None:
        """It says something of its media.  data: the frame that does."""
        self.rosters.tell(Shown(peer, data))
        if peer != before:
            self._note(peer)

    async def leave(self, user: UserId, call_id: CallId) -> Called:
        """As `Calls.leave`; the others in the call are told, unless it is over by that."""
        before = await self.peers.of(call_id)
        call = await self.calls.leave(user, call_id)
        mine = next((each for each in before[1] if each.user_id == user), None)
        if mine is not None and not call.is_over:
            self._gone(mine, call.epoch)
        return call

    def _gone(self, peer: Peer, epoch: int) -> None:
        left = frames.Left(peer_id=peer.peer_id, user_id=peer.user_id, epoch=epoch)
        self.rosters.tell(Changed(peer.call_id, peer, True, epoch, frames.frame(left).data))

    def _note(self, peer: Peer) -> None:
        try:
            self._inlet.send_nowait(peer)
        except trio.WouldBlock:
            log.warning("peer_not_noted", call_id=peer.call_id)

    async def _note_forever(self) -> None:
        """Bring to the table what sockets say, in order, when it can be written."""
        async for peer in self._outlet:
            try:
                if peer.lost_us is None:
                    await self.peers.show(peer)
                else:
                    await self.peers.lose(peer)
            except Problem as problem:
                log.warning("peer_not_noted", call_id=peer.call_id, code=problem.code)

    async def _read_forever(self) -> None:
        while True:
            await trio.sleep(self.config.roster_s)
            self.rosters.see_off()
            for call_id in self.rosters.calls:
                try:
                    call, peers = await self.peers.of(call_id)
                except Problem:
                    break  # the next look, then
                if call is not None and not call.is_over:
                    self.rosters.read_anew(call_id, call.epoch, peers)

    # what is told

    def _tell(self, told: Told) -> None:
        shape = call_shape(told.call)
        self.rosters.tell(ToPeople(list(told.to), frames.of_people(told.event, shape)))
        if told.call.is_over:
            over = frames.frame(frames.Over(call=shape))
            self.rosters.tell(Ended(told.call.call_id, over.data))

    # somebody's data

    async def forget(self, user: UserId) -> None:
        """As `Calls.forget`."""
        await self.calls.forget(user)

    async def export_of(self, user: UserId) -> AsyncIterator[dict[str, Any]]:
        """The calls of a person, the newest first."""
        before = store.LAST_ID
        while page := await self.calls.ever(user, before, EXPORT_PAGE):
            for call in page:
                yield {"kind": "call", **msgspec.to_builtins(call_shape(call))}
            before = page[-1].call_id
