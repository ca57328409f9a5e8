"""Carries what happened between the nodes, over the bus: a hint to the others, which lose nothing without it.

Conversations are spread over a fixed number of channels. Parcels wait in bounded queues of their own, so
that a slow bus holds up nobody; one too many is left to catch-up. Several queues are emptied side by side,
for a bus behind a network carries together what it is given meanwhile; a channel keeps to one, and so its
order. What no table heals, like a mark that says how far somebody has read, goes as a signal, which needs no
bus; so does what everybody is told. A beat each second, heard by its own sender too, says whether the bus
works and which nodes are there.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence, Set
from math import inf
from typing import Literal, Protocol

import msgspec
import structlog
import trio
from msgspec import Struct

from .. import metrics, tracing
from ..deps.contracts import Bus, Delivery, Signals
from ..edge import Frame, Weight
from ..errors import Problem
from ..identity import ConversationId, MessageId, NodeId, PollId, UserId, new_id
from .live import Live
from .shapes import Status

log = structlog.get_logger(module="chat")

UNSENT = metrics.counter(
    "secureconnect_chat_unpublished_total",
    "Parcels of events left to catch-up, and signals not sent.",
)

CHANNELS = 64
WAYS = 16  # parcels under way to the bus at once
NODES = "chat.nodes"
SIGNALS = "chat"
EVERYBODY = "chat.everybody"
BEAT_S = 1.0
SILENT_S = 1.0  # a beat that has not come back for so long: the bus does not work
SEEN = 200  # people in one parcel
PAUSE_S = 1.0


class _Carried(Struct, array_like=True):
    """What is added later stands at the end and has a default: nodes of two versions work together."""

    kind: str
    conversation_id: str
    change: int
    seq: int | None
    user_id: str | None
    visible_from_seq: int | None
    data: bytes
    is_e2ee: bool | None = None
    message_id: str | None = None
    poll_id: str | None = None
    expires_us: int | None = None
    trace: str | None = None


class _Parcel(Struct, array_like=True):
    node_id: str
    events: list[_Carried]


class Seen(Struct, array_like=True):
    """A person's presence on one node."""

    user_id: str
    status: Status
    last_seen_us: int | None


class Said(Struct, array_like=True):
    """What a device wants all its sockets to say, wherever they are."""

    user_id: str
    device_id: str
    status: Status


class _Beat(Struct, array_like=True):
    """seen: presence that changed, or is; none in a mere beat.  parted: people who no longer see each other.

    life: one process, from its start to its end; "" of a program that does not say.  number: how often it has
    told a change of presence, by which others see that they have missed one.  all: `seen` are all who are
    there, or some of them, or the last.  asked: nodes that are to say who is there.  of: with the last, how
    many there are in all; -1 of a program that does not say.
    """

    node_id: str
    seen: list[Seen]
    parted: list[tuple[str, str]] = []
    life: str = ""
    number: int = 0
    all: Literal["", "some", "last"] = ""
    asked: list[str] = []
    said: list[Said] = []
    of: int = -1


_Post = tuple[str, bytes, Sequence[tracing.Span]]  # channel, parcel, and what is recorded of its events

_parcels = msgspec.msgpack.Decoder(_Parcel)
_beats = msgspec.msgpack.Decoder(_Beat)


class _Peer:
    """Another node.  heard_at: on trio's clock.  life, number: as of its last beat.  named: people there,
    while it is saying who is."""

    __slots__ = ("heard_at", "life", "named", "number")

    def __init__(self, life: str, number: int) -> None:
        self.heard_at = trio.current_time()
        self.life = life
        self.number = number
        self.named: set[UserId] = set()


def _carried(live: Live) -> _Carried:
    return _Carried(*live[:6], live.frame.data, *live[7:])


def _uncarried(event: _Carried) -> Live:
    return Live(
        event.kind,
        ConversationId(event.conversation_id),
        event.change,
        event.seq,
        UserId(event.user_id) if event.user_id else None,
        event.visible_from_seq,
        Frame(event.data, Weight.TYPING if event.kind == "typing" else Weight.DURABLE),
        event.is_e2ee,
        MessageId(event.message_id) if event.message_id else None,
        PollId(event.poll_id) if event.poll_id else None,
        event.expires_us,
        event.trace,
    )


def channel_of(conversation: ConversationId) -> str:
    return f"chat.{zlib.crc32(conversation.encode()) % CHANNELS}"


class Overheard(Protocol):
    """Who hears what other nodes say of presence; nothing of it waits."""

    def heard(self, node: NodeId, seen: Seen) -> None: ...

    def heard_all(self, node: NodeId, named: Set[UserId]) -> None: ...

    def heard_said(self, said: Said) -> None: ...

    def gone(self, node: NodeId, silent_s: float) -> None: ...

    def greet(self) -> None: ...


class Carrier:
    """waiting: parcels in all queues, WAYS at least.

    silent_s: a node silent for so long, while the bus works, is gone.
    deliver: takes events of another node, in order.
    presence: hears who is on other nodes, and which are gone.
    parted: takes two people who no longer see each other.  lost: something may have been missed.
    proclaim: takes what everybody here is to be told, from this node, too.
    """

    def __init__(
        self,
        bus: Bus,
        signals: Signals,
        node_id: NodeId,
        waiting: int,
        silent_s: float,
        *,
        deliver: Callable[[Sequence[Live]], None],
        presence: Overheard,
        parted: Callable[[UserId, UserId], None],
        lost: Callable[[], None],
        proclaim: Callable[[Frame], None],
    ) -> None:
        self._bus = bus
        self._signals = signals
        self._node_id = node_id
        self._deliver = deliver
        self._silent_s = silent_s
        self._presence = presence
        self._parted = parted
        self._lost = lost
        self._proclaim = proclaim
        self._ways = [trio.open_memory_channel[_Post](waiting // WAYS) for _ in range(WAYS)]
        self._heard_at = -inf
        self._life = new_id()
        self._number = 0
        self._nodes: dict[NodeId, _Peer] = {}
        self._missed: set[NodeId] = set()  # nodes of which a change of presence was missed
        self._is_asked = False
        self._encoder = msgspec.msgpack.Encoder()

    def is_healthy(self) -> bool:
        """Whether our own beat comes back."""
        return trio.current_time() - self._heard_at < BEAT_S + SILENT_S

    def send(self, lives: Iterable[Live]) -> None:
        """Queue events for the other nodes. Never waits."""
        if self._bus.is_alone:
            return
        parcels: dict[str, _Parcel] = {}
        spans: dict[str, list[tracing.Span]] = {}
        for live in lives:
            channel = channel_of(live.conversation_id)
            parcel = parcels.get(channel)
            if parcel is None:
                parcel = parcels[channel] = _Parcel(self._node_id, [])
            carried = _carried(live)
            if live.trace is not None:
                span = tracing.resumed("publish event", tracing.Kind.PRODUCER, live.trace)
                carried.trace = span.traceparent
                spans.setdefault(channel, []).append(span)
            parcel.events.append(carried)
        for channel, parcel in parcels.items():
            self._post(channel, self._encoder.encode(parcel), spans.get(channel, ()))

    def signal(self, live: Live) -> None:
        """Tell the other nodes what catch-up would not find. Never waits."""
        try:
            self._signals.send(SIGNALS, self._encoder.encode(_Parcel(self._node_id, [_carried(live)])))
        except Problem:
            UNSENT.inc()

    def tell_everybody(self, frame: Frame) -> None:
        """On every node, this one too, as far as they can be reached. Never waits."""
        try:
            self._signals.send(EVERYBODY, frame.data)
        except Problem:
            UNSENT.inc()

    def send_seen(self, seen: list[Seen]) -> None:
        """Tell of changes of presence. Never waits, as all of these."""
        for start in range(0, len(seen), SEEN):
            self._number += 1
            self._post_beat(seen=seen[start : start + SEEN])

    def send_all(self, seen: list[Seen]) -> None:
        """Tell who is here, and that nobody else is."""
        *parts, last = [seen[start : start + SEEN] for start in range(0, max(len(seen), 1), SEEN)]
        for part in parts:
            self._post_beat(seen=part, all="some")
        self._post_beat(seen=last, all="last", of=len(seen))

    def send_said(self, said: Said) -> None:
        self._post_beat(said=[said])

    def send_parted(self, one: UserId, other: UserId) -> None:
        self._post_beat(parted=[(one, other)])

    def _post_beat(
        self,
        *,
        seen: Sequence[Seen] = (),
        all: Literal["", "some", "last"] = "",
        parted: Sequence[tuple[str, str]] = (),
        asked: Sequence[str] = (),
        said: Sequence[Said] = (),
        of: int = -1,
    ) -> None:
        beat = _Beat(
            self._node_id,
            list(seen),
            list(parted),
            self._life,
            self._number,
            all,
            list(asked),
            list(said),
            of,
        )
        self._post(NODES, self._encoder.encode(beat))

    def _post(self, channel: str, payload: bytes, spans: Sequence[tracing.Span] = ()) -> None:
        inlet, _ = self._ways[zlib.crc32(channel.encode()) % WAYS]
        try:
            inlet.send_nowait((channel, payload, spans))
        except trio.WouldBlock:
            UNSENT.inc()
            for span in spans:
                span.fail("queue_full")
                span.end()

    async def publish_forever(self) -> None:
        async with trio.open_nursery() as nursery:
            for _, outlet in self._ways:
                nursery.start_soon(self._publish, outlet)

    async def _publish(self, outlet: trio.MemoryReceiveChannel[_Post]) -> None:
        async for channel, payload, spans in outlet:
            try:
                with tracing.together(spans):
                    await self._bus.publish(channel, payload)
            except Problem as problem:
                UNSENT.inc()
                for span in spans:
                    span.failed_by(problem)
            for span in spans:
                span.end()

    async def beat_forever(self) -> None:
        while True:
            self.beat_once()
            await trio.sleep(BEAT_S)

    def beat_once(self) -> None:
        self._post_beat(asked=sorted(self._missed))
        if self._is_asked:
            self._is_asked = False
            self._presence.greet()
        now = trio.current_time()
        for node, peer in tuple(self._nodes.items()):
            if not self.is_healthy():
                peer.heard_at = now  # nobody can be heard, so nobody is silent
            elif now - peer.heard_at > self._silent_s:
                self._lose(node, now - peer.heard_at)

    def _lose(self, node: NodeId, silent_s: float) -> None:
        del self._nodes[node]
        self._missed.discard(node)
        self._presence.gone(node, silent_s)

    async def listen_forever(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Subscribe, and again whenever that ends. What a subscription says it may have missed is looked up;
        it says so with the next delivery, which is our own beat at the latest."""
        channels = [NODES, *(f"chat.{number}" for number in range(CHANNELS))]
        first = True
        while True:
            try:
                async with self._bus.subscribe(channels) as backlog:
                    if first:
                        task_status.started()
                        first = False
                    self._lost()
                    lost = backlog.lost
                    async for delivery in backlog:
                        self._take(delivery)
                        if backlog.lost != lost:
                            lost = backlog.lost
                            self._lost()
            except Problem as problem:
                log.warning("bus_lost", code=problem.code)
            if first:  # the room serves without a bus, too
                task_status.started()
                first = False
            await trio.sleep(PAUSE_S)

    async def overhear_forever(self) -> None:
        with self._signals.subscribe([SIGNALS, EVERYBODY]) as backlog:
            async for delivery in backlog:
                self._take(delivery)

    def _take(self, delivery: Delivery) -> None:
        try:
            if delivery.channel == EVERYBODY:
                self._proclaim(Frame(delivery.payload))
                return
            if delivery.channel == NODES:
                self._take_beat(_beats.decode(delivery.payload), delivery.only_here)
                return
            parcel = _parcels.decode(delivery.payload)
        except msgspec.DecodeError:
            log.warning("parcel_unreadable", channel=delivery.channel)
            return
        if parcel.node_id == self._node_id:
            return
        self._deliver([_uncarried(event) for event in parcel.events])

    def _take_beat(self, beat: _Beat, only_here: bool) -> None:
        now = trio.current_time()
        if beat.node_id == self._node_id:
            if not only_here:
                self._heard_at = now
            return
        node = NodeId(beat.node_id)
        peer = self._nodes.get(node)
        if peer is not None and peer.life != beat.life:  # it has ended and begun again, and nobody is on it
            self._lose(node, now - peer.heard_at)
            peer = None
        if peer is None:
            peer = self._nodes[node] = _Peer(beat.life, 0)
            self._is_asked = True
        peer.heard_at = now
        self._take_seen(node, peer, beat)
        self._is_asked = self._is_asked or self._node_id in beat.asked
        for said in beat.said:
            self._presence.heard_said(said)
        for one, other in beat.parted:
            self._parted(UserId(one), UserId(other))

    def _take_seen(self, node: NodeId, peer: _Peer, beat: _Beat) -> None:
        """Presence there. When a change was missed, or some of those who are there, all are asked for."""
        for seen in beat.seen:
            self._presence.heard(node, seen)
        if not beat.all:
            peer.named.clear()  # of what came before the rest was lost
            if beat.life and beat.number != peer.number + bool(beat.seen):
                self._missed.add(node)
            peer.number = beat.number
            return
        peer.named.update(UserId(seen.user_id) for seen in beat.seen)
        if beat.all == "last":
            named, peer.named = peer.named, set()
            if beat.of in (-1, len(named)):
                self._presence.heard_all(node, named)
                self._missed.discard(node)
                peer.number = beat.number
            else:
                self._missed.add(node)
