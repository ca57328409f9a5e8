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
from ..node import LEASE_S
from ..periodic import Trouble
from . import frames, store
from .bells import Bells, no_bells
from .calls import Calls, Told
from .ice import IceServer, ice_servers
from .meters import BACK, GIVEN_UP, LOST_ALONE, LOST_WITH_NODE
from .notes import Note, Notes
from .past import Past, WriteDown
from .peers import Attached, Peers
from .reaper import Reaper
from .recordings import Finisher, Recordings
from .recordings import export_of as recordings_of
from .recordings.shelf import FindShelf, no_shelf
from .recovery import Mended, Recovery
from .rosters import CHANNEL, Changed, Ended, Rosters, Shown, ToPeople
from .shapes import call_shape, peer_shape
from .store import Called, Peer

log = structlog.get_logger(module="signaling")

EXPORT_PAGE = 200

ToPerson = Callable[[UserId, bytes], None]
Authenticate = Callable[[str], Awaitable[Principal]]


def _nobody_hears(_: UserId, __: bytes) -> None:
    """Nobody is connected."""


async def _nobody(_: str) -> Principal:
    raise Unavailable


def _no_stun() -> list[str]:
    return []


def _never(_: Principal) -> bool:
    return False


def _unheard(_: Problem, __: Call) -> None:
    """Nobody keeps refusals."""


class Signaling:
    """public_url: as the setting.  lease_s: as of `Recovery`."""

    def __init__(
        self,
        config: SignalingConfig,
        turn: TurnConfig,
        db: Database,
        signals: Signals,
        node_id: NodeId,
        *,
        public_url: str = "",
        lease_s: float = LEASE_S,
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
        self._life = new_id()
        self.recovery = Recovery(config, db, self.calls, node_id, self._life, self._mended, lease_s)
        self.peers = Peers(db, self.calls, node_id, self._life, self.recovery)
        self.past = Past(config, db)
        self.rosters = Rosters(signals, node_id, lambda user, event: self._to_person(user, event))
        self.recordings = Recordings(config, db)
        self.recordings.tell = lambda call, told: self.rosters.announce(call, frames.frame(told).data)
        self.finisher = Finisher(config, db, self.recordings)
        self.parts_at_once = trio.Semaphore(config.recording_parts_at_once)
        self._reaper = Reaper(config, self.calls, self.recovery)
        self._notes = Notes()
        self._look_now = trio.Event()
        self.has_ended: Callable[[Principal], bool] = _never
        self.sockets = 0

    def connect(
        self,
        *,
        to_person: ToPerson,
        authenticate: Authenticate,
        deny: Callable[[Problem, Call], None] = _unheard,
        own_stun: Callable[[], list[str]] = _no_stun,
        bells: Callable[[], Bells] = no_bells,
        has_ended: Callable[[Principal], bool] = _never,
        write_down: WriteDown | None = None,
        shelf: FindShelf = no_shelf,
    ) -> None:
        """What this room needs of its neighbours.

        to_person: offers an event to the sockets of chat that somebody has on this node. Never waits.
        authenticate: verifies the token that renews a socket.  deny: is told of refusals on sockets.
        own_stun: addresses of the STUN server in this process, while it can be reached.
        bells: what wakes people's devices just now.  has_ended: whether a session was ended: its device does
        not come back.  write_down: as of `Past`.
        shelf: where recordings are kept.
        """
        self._to_person = to_person
        self.authenticate = authenticate
        self.deny = deny
        self._own_stun = own_stun
        self.calls.bells = bells
        self.has_ended = has_ended
        if write_down is not None:
            self.past.write_down = write_down
        self.recordings.shelf = shelf

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self._signals.subscribe([CHANNEL]) as backlog:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._reaper.pass_forever)
                nursery.start_soon(self.finisher.watch_forever)
                nursery.start_soon(self.finisher.finish_forever)
                nursery.start_soon(self.finisher.keep_up_forever)
                nursery.start_soon(self._notes.write_forever, self._write)
                nursery.start_soon(self.past.write_forever)
                nursery.start_soon(self.past.sweep_forever)
                nursery.start_soon(self._read_forever)
                task_status.started()
                lost = backlog.lost
                async for delivery in backlog:
                    if backlog.lost != lost:
                        lost = backlog.lost
                        self._look_now.set()
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

    async def resume(self, caller: Principal, call_id: CallId, instance_id: str, token: str) -> Attached:
        """As `Peers.resume`, and as `Peers.resume_from` while the database is away."""
        try:
            return await self.peers.resume(caller, call_id, instance_id, token)
        except Unavailable:
            attached = self.peers.resume_from(self.rosters.get(call_id), caller, instance_id, token)
            if attached is None:
                raise
            self._notes.add(Note(attached.mine))
            return attached

    async def admit(self, caller: Principal, call_id: CallId) -> None:
        """As `Peers.require_joined`; while the database is away those pass whom this node knows to be in the
        call."""
        try:
            await self.peers.require_joined(caller, call_id)
        except Unavailable:
            roster = self.rosters.get(call_id)
            known = () if roster is None else roster.peers.values()
            if (caller.user_id, caller.device_id) not in {(each.user_id, each.device_id) for each in known}:
                raise

    def arrived(self, attached: Attached) -> None:
        """A device has its socket: the others are told what it is to them."""
        mine, epoch = attached.mine, attached.epoch
        for peer in attached.lost:
            self._reconnecting(peer, epoch)
        if attached.replaced is not None:
            self._gone(attached.replaced, epoch)
        told: frames.Out
        if attached.is_back:
            BACK.inc()
            told = frames.BackAgain(peer=peer_shape(mine), epoch=epoch, is_new_instance=attached.is_new)
        else:
            told = frames.Joined(peer=peer_shape(mine), epoch=epoch)
        is_told = self.rosters.tell(Changed(mine.call_id, mine, False, epoch, frames.frame(told).data))
        if attached.is_back and not is_told:
            self._notes.add(Note(mine, is_untold=True))

    def lost(self, peer: Peer, epoch: int, principal: Principal) -> None:
        """Its socket is gone, and it has not said that it leaves."""
        if self.has_ended(principal):
            self.out(peer, epoch)
        else:
            self._wait_for(peer, epoch)

    def _wait_for(self, peer: Peer, epoch: int) -> None:
        LOST_ALONE.inc()
        log.warning("peer_lost", call_id=peer.call_id, peer_id=peer.peer_id, user_id=peer.user_id)
        peer = peer._replace(lost_us=self._db.now_us())
        is_told = self._reconnecting(peer, epoch)
        self._notes.add(Note(peer, is_untold=not is_told))

    def shown(self, before: Peer, peer: Peer, data: bytes) -> None:
        """It says something of its media.  data: the frame that does."""
        is_told = self.rosters.tell(Shown(peer, data))
        if peer != before:
            self._notes.add(Note(peer, is_untold=not is_told))

    def out(self, peer: Peer, epoch: int) -> None:
        """It is not to come back; the table is told as soon as it can be."""
        self._gone(peer, epoch)
        self._notes.add(Note(peer, is_out=True))

    async def leave(self, user: UserId, call_id: CallId) -> Called:
        """As `Calls.leave`; the others in the call are told, unless it is over by that."""
        before = await self.peers.of(call_id)
        call = await self.calls.leave(user, call_id)
        mine = next((each for each in before if each.user_id == user), None)
        if mine is not None and not call.is_over:
            self._gone(mine, call.epoch)
        return call

    def _gone(self, peer: Peer, epoch: int) -> None:
        left = frames.Left(peer_id=peer.peer_id, user_id=peer.user_id, epoch=epoch)
        self.rosters.tell(Changed(peer.call_id, peer, True, epoch, frames.frame(left).data))

    def _reconnecting(self, peer: Peer, epoch: int) -> bool:
        """As `Rosters.tell`."""
        told = frames.frame(frames.Reconnecting(peer_id=peer.peer_id, user_id=peer.user_id, epoch=epoch))
        return self.rosters.tell(Changed(peer.call_id, peer, False, epoch, told.data))

    def _mended(self, mended: Mended) -> None:
        call = self.calls.done(mended.outcome)
        for peer in mended.lost:
            LOST_WITH_NODE.inc()
            log.warning("peer_lost", call_id=peer.call_id, peer_id=peer.peer_id, user_id=peer.user_id)
            self._reconnecting(peer, call.epoch)
        for user in mended.out:
            GIVEN_UP.inc()
            log.warning("person_given_up", call_id=call.call_id, user_id=user)
        for peer in mended.gone:
            self._gone(peer, call.epoch)

    async def _write(self, note: Note) -> None:
        if note.is_out:
            await self.recovery.put_out(note.peer)
            return
        await self.peers.note(note.peer)
        if note.is_untold:
            self._tell_others_now(note.peer)

    def _tell_others_now(self, noted: Peer) -> None:
        """How a device here is, now that other nodes may be reached. Raises Unavailable."""
        roster = self.rosters.get(noted.call_id)
        peer = None if roster is None else roster.peers.get(noted.peer_id)
        if roster is None or peer is None or peer.turn != noted.turn:
            return  # it has gone, or come anew: that was told since
        told: frames.Out = frames.BackAgain(peer=peer_shape(peer), epoch=roster.epoch)
        if peer.lost_us is not None:
            told = frames.Reconnecting(peer_id=peer.peer_id, user_id=peer.user_id, epoch=roster.epoch)
        word = Changed(peer.call_id, peer, False, roster.epoch, frames.frame(told).data)
        if not self.rosters.tell_others(word):
            raise Unavailable

    async def _read_forever(self) -> None:
        trouble = Trouble(log, "rosters_not_read")
        while True:
            with trio.move_on_after(self.config.roster_s):
                await self._look_now.wait()
            self._look_now = trio.Event()
            self.rosters.see_off()
            with trouble:
                await self.read_once()

    async def read_once(self) -> None:
        """Hold what is known here of calls against the table, whatever words were missed."""
        began_at, untold = trio.current_time(), self._notes.peers
        with self.rosters.hearing() as heard:
            read = await self.peers.of_node()
            if not heard.is_whole:
                return  # the next look, then
            untold |= self._notes.peers  # what was written since may not have been read
            alive = self.rosters.take(read, heard, began_at, untold, self.config.grace_s)
            astray = self.rosters.astray(read, heard, untold, self._life)
        for peer in alive:  # another node took this one for dead
            # a turn of its own: the table, which still has it as lost, is the past
            mine, epoch = peer._replace(turn=peer.turn + 1), read[peer.call_id][0]
            told = frames.frame(frames.BackAgain(peer=peer_shape(mine), epoch=epoch))
            self.rosters.tell(Changed(mine.call_id, mine, False, epoch, told.data))
            self._notes.add(Note(mine))
        for peer in astray:
            self._wait_for(peer, read[peer.call_id][0])

    # what is told

    def _tell(self, told: Told) -> None:
        shape = call_shape(told.call)
        self.rosters.tell(ToPeople(list(told.to), frames.of_people(told.event, shape)))
        if told.call.is_over:
            over = frames.frame(frames.Over(call=shape))
            self.rosters.tell(Ended(told.call.call_id, over.data))

    # somebody's data

    async def forget(self, user: UserId) -> None:
        """As `Calls.forget`, and what they recorded is deleted."""
        await self.calls.forget(user)
        await self.finisher.forget(user)

    async def export_of(self, user: UserId) -> AsyncIterator[dict[str, Any]]:
        """The calls of a person, the newest first; what they recorded, and what they agreed to."""
        before = store.LAST_ID
        while page := await self.calls.ever(user, before, EXPORT_PAGE):
            for call in page:
                yield {"kind": "call", **msgspec.to_builtins(call_shape(call))}
            before = page[-1].call_id
        async for entry in recordings_of(self._db, self.recordings, user):
            yield entry
