"""Who is in the calls that have a socket on this node, and how frames get from one device to another.

The table `call_peers` is the truth; what is here follows it by what nodes tell each other (signals), at once
and also while the database is away, and is read anew from time to time. Nothing here waits.

What devices here say has its effect here at once, in the order in which they say it, and does not queue
behind what other nodes say. Frames of devices are left out for one that does not keep up: whoever floods it
is not to be what closes its socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import structlog
from msgspec import Struct

from ..deps.contracts import Signals
from ..edge import Close, Frame, Socket
from ..errors import Conflict, Problem, TooLarge, Unavailable
from ..identity import CallId, NodeId, PeerId, UserId
from .meters import ACTIVE, LEFT_OUT, RELAYED_HERE, RELAYED_TO_NODE
from .store import Peer

log = structlog.get_logger(module="signaling")

CHANNEL = "signaling"


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


Word = Relayed | Shown | Changed | Ended | ToPeople


class Said(Struct, array_like=True):
    node_id: NodeId
    word: Word


_said = msgspec.msgpack.Decoder(Said)
_encoder = msgspec.msgpack.Encoder()


class Roster:
    """One call.  sockets: of its peers here."""

    def __init__(self, call_id: CallId, epoch: int, peers: Iterable[Peer]) -> None:
        self.call_id = call_id
        self.epoch = epoch
        self.peers = {peer.peer_id: peer for peer in peers}
        self.sockets: dict[PeerId, Socket] = {}

    def find(self, target: str) -> Peer | None:
        """By its id, or as the only device of a person."""
        peer = self.peers.get(PeerId(target))
        if peer is not None:
            return peer
        return next((each for each in self.peers.values() if each.user_id == target), None)


class Rosters:
    """to_person: offers an event to the chat sockets that somebody has here."""

    def __init__(self, signals: Signals, node_id: NodeId, to_person: Callable[[UserId, bytes], None]) -> None:
        self._signals = signals
        self._node_id = node_id
        self._to_person = to_person
        self._by_call: dict[CallId, Roster] = {}
        self._leaving: list[Socket] = []

    def get(self, call: CallId) -> Roster | None:
        return self._by_call.get(call)

    @property
    def calls(self) -> list[CallId]:
        """That have a socket here."""
        return list(self._by_call)

    # sockets

    def enter(self, call: CallId, epoch: int, peers: Iterable[Peer], mine: PeerId, socket: Socket) -> Roster:
        """A device has its socket here.  peers: as the table has them, it among them. An older socket of the
        same device is closed."""
        roster = self._by_call.get(call)
        if roster is None:
            roster = self._by_call[call] = Roster(call, epoch, peers)
            ACTIVE.set(len(self._by_call))
        else:
            self.read_anew(call, epoch, peers)
        older = roster.sockets.get(mine)
        roster.sockets[mine] = socket
        if older is not None and older is not socket:
            older.close(Close.NORMAL, "this device has connected anew")
        return roster

    def exit(self, call: CallId, mine: PeerId, socket: Socket) -> bool:
        """The socket is gone. Whether the device is waited for: it has no other here, and has not left."""
        roster = self._by_call.get(call)
        if roster is None:
            return False
        was_its = roster.sockets.get(mine) is socket
        if was_its:
            del roster.sockets[mine]
        if not roster.sockets:
            del self._by_call[call]
            ACTIVE.set(len(self._by_call))
        return was_its

    def read_anew(self, call: CallId, epoch: int, peers: Iterable[Peer]) -> None:
        """As the table has it; what devices here say of themselves may be on its way there."""
        roster = self._by_call.get(call)
        if roster is not None:
            roster.epoch = max(roster.epoch, epoch)
            known = roster.peers
            roster.peers = {
                each.peer_id: known.get(each.peer_id, each) if each.peer_id in roster.sockets else each
                for each in peers
            }

    # between devices

    def relay(self, roster: Roster, sender: PeerId, target: Peer, data: bytes) -> None:
        """Raises Conflict when the target has no connection; Unavailable when it does not keep up, or another
        node has it and cannot be reached; TooLarge."""
        socket = roster.sockets.get(target.peer_id)
        if socket is not None:
            if not _hand(socket, Frame(data)):
                raise Unavailable("That device does not keep up.", retry_after_s=1)
        elif target.lost_us is not None:
            raise Conflict("That device is not connected right now; you are told when it is back.")
        else:
            RELAYED_TO_NODE.inc()
            self._send(Relayed(roster.call_id, sender, target.peer_id, data))

    def broadcast(self, roster: Roster, sender: PeerId, data: bytes) -> None:
        """To all others in the call that keep up. Raises as `relay` when one of them is on another node."""
        word = Relayed(roster.call_id, sender, None, data)
        self._take(word)
        if any(peer.node_id != self._node_id for peer in roster.peers.values()):
            RELAYED_TO_NODE.inc()
            self._send(word)

    def tell(self, word: Shown | Changed | Ended | ToPeople) -> None:
        """Every node hears it, this one at once; nobody who can be reached misses it."""
        self._take(word)
        try:
            self._send(word)
        except TooLarge:
            log.error("signal_too_large", kind=type(word).__name__)
        except Problem as problem:  # this node alone has heard it: the others read the table
            log.warning("signal_not_sent", code=problem.code, kind=type(word).__name__)

    def hear(self, payload: bytes) -> None:
        """What a node has said."""
        try:
            said = _said.decode(payload)
        except msgspec.DecodeError:
            log.warning("signal_unreadable")
            return
        if said.node_id != self._node_id:
            self._take(said.word)
        self.see_off()

    def see_off(self) -> None:
        """Close the sockets of those who are out. Not at once: whoever has asked for it is answered first."""
        leaving, self._leaving = self._leaving, []
        for socket in leaving:
            socket.close(Close.NORMAL, "this device is out of the call")

    def _send(self, word: Word) -> None:
        self._signals.send(CHANNEL, _encoder.encode(Said(self._node_id, word)))

    def _take(self, word: Word) -> None:
        if isinstance(word, ToPeople):
            for user in word.users:
                self._to_person(user, word.data)
            return
        roster = self._by_call.get(word.peer.call_id if isinstance(word, Shown) else word.call_id)
        if roster is None:
            return
        match word:
            case Relayed():
                _deliver(roster, word.sender, word.target, word.data)
            case Shown():
                roster.peers[word.peer.peer_id] = word.peer
                _deliver(roster, word.peer.peer_id, None, word.data)
            case Changed():
                self._change(roster, word)
            case Ended():
                for socket in roster.sockets.values():
                    socket.offer(Frame(word.data))
                self._leaving += roster.sockets.values()
                roster.sockets = {}

    def _change(self, roster: Roster, word: Changed) -> None:
        peer = word.peer
        roster.epoch = max(roster.epoch, word.epoch)
        if word.is_gone:
            roster.peers.pop(peer.peer_id, None)
        else:
            roster.peers[peer.peer_id] = peer
        frame = Frame(word.data)
        for peer_id, socket in roster.sockets.items():
            if peer_id != peer.peer_id:
                socket.offer(frame)
        if word.is_gone and peer.peer_id in roster.sockets:
            self._leaving.append(roster.sockets.pop(peer.peer_id))


def _deliver(roster: Roster, sender: PeerId, target: PeerId | None, data: bytes) -> None:
    frame = Frame(data)
    for peer_id, socket in roster.sockets.items():
        if peer_id == target or (target is None and peer_id != sender):
            _hand(socket, frame)


def _hand(socket: Socket, frame: Frame) -> bool:
    """Hand a frame of a device to another; False when it was left out."""
    if socket.is_behind:
        LEFT_OUT.inc()
        return False
    RELAYED_HERE.inc()
    socket.offer(frame)
    return True
