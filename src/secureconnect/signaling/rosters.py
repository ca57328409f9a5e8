"""Who is in the calls that have a socket on this node, and how frames get from one device to another.

The table `call_peers` is the truth; what is here follows it by what nodes tell each other (signals), at once
and also while the database is away, and is read anew from time to time. Nothing here waits.

What devices here say has its effect here at once, in the order in which they say it, and does not queue
behind what other nodes say. Frames of devices are left out for one that does not keep up: whoever floods it
is not to be what closes its socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
import structlog
import trio
from msgspec import Struct

from .. import tracing
from ..deps.contracts import Signals
from ..edge import Close, Frame, Socket
from ..errors import Conflict, Overloaded, Problem, TooLarge, Unavailable
from ..identity import CallId, NodeId, PeerId, UserId
from . import frames
from .meters import ACTIVE, LEFT_OUT, RELAYED_HERE, RELAYED_TO_NODE, VIDEO
from .store import Peer

DELIVER = "deliver signal"

log = structlog.get_logger(module="signaling")

CHANNEL = "signaling"
HEARD = 1_000  # words that may come while a call is read


class Relayed(Struct, tag="frame", array_like=True):
    """target: None for everybody but the sender."""

    call_id: CallId
    sender: PeerId
    target: PeerId | None
    data: bytes


class Shown(Struct, tag="shown", array_like=True):
    """A peer says something of its media.  data: the frame, for all others."""

    peer: Peer
    data: bytes


class Changed(Struct, tag="roster", array_like=True):
    """A peer came, was lost, or went; and what the others are to be told of it."""

    call_id: CallId
    peer: Peer
    is_gone: bool
    epoch: int
    data: bytes


class Ended(Struct, tag="over", array_like=True):
    call_id: CallId
    data: bytes


class ToPeople(Struct, tag="people", array_like=True):
    """An event for all sockets of these people."""

    users: list[UserId]
    data: bytes


InCall = Relayed | Shown | Changed | Ended
Word = InCall | ToPeople


class Said(Struct, array_like=True):
    """trace: the traceparent of what this is said for."""

    node_id: NodeId
    word: Word
    trace: str | None = None


_said = msgspec.msgpack.Decoder(Said)
_encoder = msgspec.msgpack.Encoder()


class Heard:
    """What nodes said of a call while it was read: the table may not have had it then."""

    def __init__(self) -> None:
        self.words: list[InCall] = []
        self.is_whole = True

    def add(self, word: InCall) -> None:
        self.is_whole = len(self.words) < HEARD
        if self.is_whole:
            self.words.append(word)

    def require_whole(self) -> None:
        """Raises Overloaded."""
        if not self.is_whole:
            raise Overloaded("Too much is said in this call just now.", retry_after_s=1)


class Roster:
    """One call.  sockets: of its peers here.  empty_since: since when it has none; it is remembered for those
    who come back while the database is away."""

    def __init__(self, call_id: CallId) -> None:
        self.call_id = call_id
        self.epoch = 0
        self.peers: dict[PeerId, Peer] = {}
        self.sockets: dict[PeerId, Socket] = {}
        self.born_at = trio.current_time()
        self.empty_since = self.born_at

    def find(self, target: str) -> Peer | None:
        """By its id, or as the only device of a person."""
        peer = self.peers.get(PeerId(target))
        if peer is not None:
            return peer
        return next((each for each in self.peers.values() if each.user_id == target), None)

    def take(self, epoch: int, peers: Iterable[Peer], untold: frozenset[PeerId] = frozenset()) -> None:
        """As the table has it.  untold: of whom the table has yet to be told."""
        self.epoch = max(self.epoch, epoch)
        read = {peer.peer_id: peer for peer in peers}
        for peer_id, known in self.peers.items():
            row = read.get(peer_id)
            if row is None:
                if peer_id in untold:
                    read[peer_id] = known
            elif known.turn > row.turn or (
                known.turn == row.turn and (peer_id in self.sockets or peer_id in untold)
            ):
                read[peer_id] = known
        self.peers = read

    def show(self, peer: Peer) -> bool:
        """False for what is past: of a device that has left, or has come anew."""
        known = self.peers.get(peer.peer_id)
        if known is None or peer.turn < known.turn:
            return False
        self.peers[peer.peer_id] = peer
        return True

    def change(self, word: Changed) -> bool:
        """False for what is past, or known already."""
        peer = word.peer
        known = self.peers.get(peer.peer_id)
        if word.is_gone if known is None else peer.turn < known.turn:
            return False
        self.epoch = max(self.epoch, word.epoch)
        if word.is_gone:
            self.peers.pop(peer.peer_id, None)
        elif known is None or peer.turn > known.turn or peer.peer_id not in self.sockets:
            self.peers[peer.peer_id] = peer  # otherwise it is here, and nobody knows it better
        return True


class Rosters:
    """to_person: offers an event to the chat sockets that somebody has here."""

    def __init__(self, signals: Signals, node_id: NodeId, to_person: Callable[[UserId, bytes], None]) -> None:
        self._signals = signals
        self._node_id = node_id
        self._to_person = to_person
        self._by_call: dict[CallId, Roster] = {}
        self._leaving: list[tuple[Socket, str]] = []
        self._hearing: dict[CallId | None, list[Heard]] = {}
        ACTIVE.set_function(self._count)
        VIDEO.set_function(self._count_video)

    def get(self, call: CallId) -> Roster | None:
        return self._by_call.get(call)

    # sockets

    @contextmanager
    def hearing(self, call: CallId | None = None) -> Iterator[Heard]:
        """Around a look into the table, and what follows from it.  call: None for how all of them change."""
        heard = Heard()
        self._hearing.setdefault(call, []).append(heard)
        try:
            yield heard
        finally:
            others = self._hearing[call]
            others.remove(heard)
            if not others:
                del self._hearing[call]

    def enter(
        self,
        call: CallId,
        epoch: int,
        peers: Iterable[Peer],
        mine: PeerId,
        socket: Socket,
        heard: Heard,
        replaced: frozenset[PeerId] = frozenset(),
    ) -> Roster:
        """A device has its socket here.  peers: as the table has them, it among them.  heard: since that was
        read.  replaced: what it was before, of which the others have yet to be told that it has left.
        An older socket of the same device is closed."""
        roster = self._by_call.setdefault(call, Roster(call))
        roster.take(epoch, peers, replaced)
        older = roster.sockets.get(mine)
        roster.sockets[mine] = socket
        if older is not None and older is not socket:
            older.close(Close.NORMAL, "this device has connected anew")
        for word in heard.words:
            self._tell_late(roster, word, mine, socket)
        return roster

    def _tell_late(self, roster: Roster, word: InCall, mine: PeerId, socket: Socket) -> None:
        """What the others here have heard already."""
        match word:
            case Relayed():
                if word.target == mine or (word.target is None and word.sender != mine):
                    _hand(socket, Frame(word.data))
            case Shown():
                if roster.show(word.peer):
                    _hand(socket, Frame(word.data))
            case Changed():
                if roster.change(word) and word.peer.peer_id != mine:
                    socket.offer(Frame(word.data))
            case Ended():
                self._end(roster, word)

    def exit(self, call: CallId, mine: PeerId, socket: Socket) -> bool:
        """The socket is gone. Whether the device is waited for: it has no other here, and has not left."""
        roster = self._by_call.get(call)
        if roster is None or roster.sockets.get(mine) is not socket:
            return False
        del roster.sockets[mine]
        roster.empty_since = trio.current_time()
        return True

    # what metrics ask, from a thread of their own: each takes its copy at once

    def _count(self) -> int:
        return sum(bool(each.sockets) for each in tuple(self._by_call.values()))

    def _count_video(self) -> int:
        return sum(
            any(peer.video for peer in tuple(each.peers.values()))
            for each in tuple(self._by_call.values())
            if each.sockets
        )

    def take(
        self,
        read: Mapping[CallId, tuple[int, Sequence[Peer]]],
        heard: Heard,
        began_at: float,
        untold: frozenset[PeerId],
        keep_s: float,
    ) -> list[Peer]:
        """All calls in which this node has devices, as the table has them.  began_at: of the look.  untold:
        as of `Roster.take`.  keep_s: for how long a call without a socket is remembered. Returns devices that
        have their socket here though the table has them as lost, as they are known here."""
        alive: list[Peer] = []
        for call, roster in [*self._by_call.items()]:
            if not roster.sockets and roster.empty_since < began_at - keep_s:
                del self._by_call[call]
                continue
            if roster.born_at >= began_at:
                continue
            if call not in read and not untold.isdisjoint(roster.sockets):
                continue  # the table has yet to learn that this node has devices in it
            epoch, peers = read.get(call, (0, ()))
            before = roster.peers
            roster.take(epoch, peers, untold)
            for word in heard.words:
                if isinstance(word, Changed) and word.call_id == call:
                    roster.change(word)
            lost = [each for each in peers if each.lost_us is not None and self._is_here(roster, each)]
            alive += [roster.peers[each.peer_id] for each in lost]
            for peer_id in [*roster.sockets]:
                known = roster.peers.get(peer_id)
                if known is None:
                    self._leave(roster, peer_id, "this device is out of the call")
                elif known.node_id != self._node_id:
                    self._leave(roster, peer_id, "this device has connected anew")
            _tell_gone(roster, [each for peer_id, each in before.items() if peer_id not in roster.peers])
        self.see_off()
        return alive

    def _is_here(self, roster: Roster, row: Peer) -> bool:
        return row.peer_id in roster.sockets and roster.peers[row.peer_id].turn == row.turn

    def astray(
        self,
        read: Mapping[CallId, tuple[int, Sequence[Peer]]],
        heard: Heard,
        untold: frozenset[PeerId],
        life: str,
    ) -> list[Peer]:
        """Devices that the table has as connected here, and are not: they were cut off after they had been
        written down and before they had their socket.  life: of this process. The others as of `take`."""
        told = {word.peer.peer_id for word in heard.words if isinstance(word, Changed)}
        over = {word.call_id for word in heard.words if isinstance(word, Ended)}
        return [
            each
            for call, (_, peers) in read.items()
            if call not in over and call not in self._hearing  # nobody is about to come
            for each in peers
            if (each.node_id, each.life, each.lost_us) == (self._node_id, life, None)
            and each.peer_id not in told
            and each.peer_id not in untold
            and not self._has_socket(each)
        ]

    def _has_socket(self, peer: Peer) -> bool:
        roster = self._by_call.get(peer.call_id)
        return roster is not None and peer.peer_id in roster.sockets

    # between devices

    def relay(self, roster: Roster, sender: PeerId, target: Peer, data: bytes) -> None:
        """Raises Conflict when the target has no connection; Unavailable when it does not keep up, or another
        node has it and cannot be reached; TooLarge."""
        socket = roster.sockets.get(target.peer_id)
        if socket is not None:
            with tracing.span(DELIVER, tracing.Kind.CONSUMER):
                is_handed = _hand(socket, Frame(data))
            if not is_handed:
                raise Unavailable("That device does not keep up.", retry_after_s=1)
        elif target.lost_us is not None:
            raise Conflict("That device is not connected right now; you are told when it is back.")
        else:
            RELAYED_TO_NODE.inc()
            self._send(Relayed(roster.call_id, sender, target.peer_id, data))

    def broadcast(self, roster: Roster, sender: PeerId, data: bytes) -> None:
        """To all others in the call that keep up. Raises as `relay` when one of them is on another node."""
        word = Relayed(roster.call_id, sender, None, data)
        self._take_here(word)
        if any(peer.node_id != self._node_id for peer in roster.peers.values()):
            RELAYED_TO_NODE.inc()
            self._send(word)

    def announce(self, call: CallId, data: bytes) -> None:
        """To all in the call, as `tell`."""
        self.tell(Relayed(call, PeerId(""), None, data))

    def tell(self, word: Word) -> bool:
        """Every node hears it, this one at once; nobody who can be reached misses it. As `tell_others`."""
        self._take_here(word)
        return self.tell_others(word)

    def tell_others(self, word: Word) -> bool:
        """False when no other node can be reached: all they have is the table."""
        try:
            self._send(word)
        except TooLarge:
            log.error("signal_too_large", kind=type(word).__name__)
            return False
        except Problem as problem:
            log.warning("signal_not_sent", code=problem.code, kind=type(word).__name__)
            return False
        return True

    def hear(self, payload: bytes) -> None:
        """What a node has said."""
        try:
            said = _said.decode(payload)
        except msgspec.DecodeError:
            log.warning("signal_unreadable")
            return
        if said.node_id != self._node_id:
            with _delivery(said.trace):
                self._take(said.word)
        self.see_off()

    def see_off(self) -> None:
        """Close the sockets of those who are out. Not at once: whoever has asked for it is answered first."""
        leaving, self._leaving = self._leaving, []
        for socket, reason in leaving:
            socket.close(Close.NORMAL, reason)

    def _send(self, word: Word) -> None:
        """Raises as `Signals.send`."""
        with tracing.span("publish signal", tracing.Kind.PRODUCER) as span:
            self._signals.send(CHANNEL, _encoder.encode(Said(self._node_id, word, span.traceparent)))

    def _take_here(self, word: Word) -> None:
        with tracing.span(DELIVER, tracing.Kind.CONSUMER):
            self._take(word)

    def _take(self, word: Word) -> None:
        if isinstance(word, ToPeople):
            for user in word.users:
                self._to_person(user, word.data)
            return
        call = word.peer.call_id if isinstance(word, Shown) else word.call_id
        for heard in self._hearing.get(call, ()):
            heard.add(word)
        if isinstance(word, Changed | Ended):
            for heard in self._hearing.get(None, ()):
                heard.add(word)
        roster = self._by_call.get(call)
        if roster is None:
            return
        match word:
            case Relayed():
                _deliver(roster, word.sender, word.target, word.data)
            case Shown():
                if roster.show(word.peer):
                    _deliver(roster, word.peer.peer_id, None, word.data)
            case Changed():
                self._change(roster, word)
            case Ended():
                self._end(roster, word)

    def _end(self, roster: Roster, word: Ended) -> None:
        self._by_call.pop(roster.call_id, None)
        for socket in roster.sockets.values():
            socket.offer(Frame(word.data))
            self._leaving.append((socket, "the call is over"))
        roster.sockets = {}

    def _change(self, roster: Roster, word: Changed) -> None:
        peer = word.peer
        if not roster.change(word):
            return
        frame = Frame(word.data)
        for peer_id, socket in roster.sockets.items():
            if peer_id != peer.peer_id:
                socket.offer(frame)
        if word.is_gone:
            self._leave(roster, peer.peer_id, "this device is out of the call")
        elif peer.node_id != self._node_id:
            self._leave(roster, peer.peer_id, "this device has connected anew")

    def _leave(self, roster: Roster, peer: PeerId, reason: str) -> None:
        socket = roster.sockets.pop(peer, None)
        if socket is not None:
            self._leaving.append((socket, reason))
            roster.empty_since = trio.current_time()


def _delivery(trace: str | None) -> tracing.Span:
    """Of what another node has said.  trace: None where that is not recorded."""
    return tracing.NOTHING if trace is None else tracing.resumed(DELIVER, tracing.Kind.CONSUMER, trace)


def _deliver(roster: Roster, sender: PeerId, target: PeerId | None, data: bytes) -> None:
    frame = Frame(data)
    for peer_id, socket in roster.sockets.items():
        if peer_id == target or (target is None and peer_id != sender):
            _hand(socket, frame)


def _tell_gone(roster: Roster, gone: Iterable[Peer]) -> None:
    """What those here would have heard, had no word been missed."""
    for peer in gone:
        left = frames.Left(peer_id=peer.peer_id, user_id=peer.user_id, epoch=roster.epoch)
        frame = frames.frame(left)
        for socket in roster.sockets.values():
            socket.offer(frame)


def _hand(socket: Socket, frame: Frame) -> bool:
    """Hand a frame of a device to another; False when it was left out."""
    if socket.is_behind:
        LEFT_OUT.inc()
        return False
    RELAYED_HERE.inc()
    socket.offer(frame)
    return True
