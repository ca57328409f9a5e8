"""The WebSocket /v1/ws/signaling: one device in one call."""

from __future__ import annotations

from contextlib import suppress
from typing import NoReturn

import trio
from msgspec import Struct

from .. import tracing
from ..config import SignalingConfig
from ..edge import Audience, Call, Close, Socket, SocketClosed, SocketRoute
from ..errors import Conflict, Invalid, Malformed, NotFound, Overloaded, Problem, TooLarge, Unavailable
from ..identity import CallId
from . import frames
from .frames import FLAGS, TARGETED, In
from .meters import SOCKETS as OPEN
from .peers import Attached
from .room import Signaling
from .rosters import Heard, Roster
from .shapes import Id, peer_shape
from .store import Peer


class SignalingQuery(Struct):
    call_id: Id


async def admit(room: Signaling, call: Call) -> None:
    """Raises Overloaded; NotFound, CallOver, CallNotJoined, CallElsewhere."""
    _require_room(room)
    query: SignalingQuery = call.query
    await room.admit(call.caller, CallId(query.call_id))
    _require_room(room)  # of those who waited with us some may have taken it; from here to `serve` nobody can


def _require_room(room: Signaling) -> None:
    if room.sockets >= room.config.sockets:
        raise Overloaded("This server has as many signaling sockets as it may hold.")


async def serve(room: Signaling, call: Call, socket: Socket) -> None:
    room.sockets += 1
    OPEN.set(room.sockets)
    try:
        await _Device(room, call, socket).attend()
    finally:
        room.sockets -= 1
        OPEN.set(room.sockets)


SOCKETS = (
    SocketRoute(
        path="/v1/ws/signaling",
        handler=serve,
        audience=Audience.MEMBER,
        summary="What devices in a call say to each other to set media up",
        query=SignalingQuery,
        admit=admit,
    ),
)


WINDOW_S = 10.0
TRACED = TARGETED | FLAGS.keys() | {"join", "resume", "leave", "auth"}
_CLOSE = {404: Close.NOT_FOUND, 503: Close.RESTART}  # of who is not let in, by status; others: FORBIDDEN


def _span(frame: In) -> tracing.Span:
    """A heartbeat has none, nor what is no frame of ours."""
    if not tracing.is_on() or frame.type not in TRACED:
        return tracing.NOTHING
    return tracing.root(f"frame {frame.type}")


class _Pace:
    """How much a device has said in this window of time."""

    def __init__(self, config: SignalingConfig) -> None:
        self._config = config
        self._ends = 0.0
        self._frames = 0
        self._bytes = 0

    def is_kept(self, size: int) -> bool:
        """Count a frame of `size` bytes."""
        now = trio.current_time()
        if now >= self._ends:
            self._ends, self._frames, self._bytes = now + WINDOW_S, 0, 0
        self._frames += 1
        self._bytes += size
        return self._frames <= self._config.frames_per_10s and self._bytes <= self._config.bytes_per_10s


class _Device:
    """The talk with one device."""

    def __init__(self, room: Signaling, call: Call, socket: Socket) -> None:
        self._room = room
        self._call = call
        self._socket = socket
        query: SignalingQuery = call.query
        self._call_id = CallId(query.call_id)
        self._pace = _Pace(room.config)

    async def attend(self) -> None:
        """Until the socket closes. Raises SocketClosed."""
        roster, mine = await self._attach()
        try:
            await self._tell_of_recording(mine, roster.epoch)
            await self._talk(roster, mine)
        finally:
            if self._room.rosters.exit(self._call_id, mine.peer_id, self._socket):
                last = roster.peers.get(mine.peer_id, mine)
                self._room.lost(last, roster.epoch, self._socket.principal)

    async def _attach(self) -> tuple[Roster, Peer]:
        """Take the first frame: the device comes, or comes back."""
        first = await self._first()
        with self._room.rosters.hearing(self._call_id) as heard:
            try:
                with _span(first):
                    attached = await self._come(first)
                    roster = self._enter(attached, first.type == "resume", heard)
            except Problem as problem:
                self._refuse(first.ref, problem)
                self._hang_up(_CLOSE.get(problem.status, Close.FORBIDDEN), problem.code)
        self._ack(first)
        return roster, attached.mine

    async def _first(self) -> In:
        data: bytes | None = None
        with trio.move_on_after(self._room.config.greet_s):
            data = await self._receive()
        if data is None:
            self._hang_up(Close.SILENT, "no first frame")
        try:
            frame = self._decode(data)
        except frames.NotAFrame:
            self._hang_up(Close.BAD_FRAME, "this is no frame")
        if frame.type not in ("join", "resume") or not frame.instance_id:
            self._hang_up(Close.BAD_FRAME, "join or resume first")
        return frame

    async def _come(self, first: In) -> Attached:
        caller = self._call.caller
        if first.type == "join":
            return await self._room.peers.join(caller, self._call_id, first.instance_id)
        return await self._room.resume(caller, self._call_id, first.instance_id, first.resume_token)

    def _enter(self, attached: Attached, resumes: bool, heard: Heard) -> Roster:
        """Nothing is awaited between what was read, what was heard since, and this. Raises Overloaded: it is
        waited for."""
        mine, epoch, before = attached.mine, attached.epoch, attached.replaced
        try:
            heard.require_whole()
        except Overloaded:
            self._room.lost(mine, epoch, self._socket.principal)
            raise
        self._greet(attached, frames.Resumed if resumes else frames.Peers)
        roster = self._room.rosters.enter(
            self._call_id,
            epoch,
            attached.peers,
            mine.peer_id,
            self._socket,
            heard,
            frozenset() if before is None else frozenset({before.peer_id}),
        )
        self._room.arrived(attached)
        return roster

    def _greet(self, attached: Attached, kind: type[frames.Peers]) -> None:
        told = kind(
            peer_id=attached.mine.peer_id,
            peers=[peer_shape(each) for each in attached.peers],
            resume_token=attached.token,
            epoch=attached.epoch,
        )
        self._socket.offer(frames.frame(told))

    async def _tell_of_recording(self, mine: Peer, epoch: int) -> None:
        with suppress(Problem):  # whoever records asks again, and takes nothing meanwhile
            for told in await self._room.recordings.under_way(mine.call_id, epoch, mine.user_id):
                self._socket.offer(frames.frame(told))

    async def _talk(self, roster: Roster, mine: Peer) -> None:
        while True:
            data = await self._receive()
            if roster.sockets.get(mine.peer_id) is not self._socket:  # and what it said behind that is void
                self._hang_up(Close.NORMAL, "this device is out of the call")
            try:
                frame = self._decode(data)
            except frames.NotAFrame as exc:
                self._refuse(exc.ref, Invalid(f"This is no frame: {exc}."))
                continue
            try:
                with _span(frame):
                    await self._answer(roster, roster.peers.get(mine.peer_id, mine), frame, data)
            except Problem as problem:
                self._refuse(frame.ref, problem)

    async def _answer(self, roster: Roster, mine: Peer, frame: In, data: bytes) -> None:
        if frame.type == "ping":
            self._socket.offer(frames.frame(frames.Pong(ref=frame.ref)))
            return
        if frame.type == "auth":
            await self._renew(frame)
        elif frame.type == "leave":
            await self._leave(roster, mine)
        elif frame.epoch is not None and frame.epoch < roster.epoch:
            pass  # said before the signaling was lost: it would set up what is no more
        elif frame.type == "renegotiate" and frame.target_id is None:
            self._room.rosters.broadcast(roster, mine.peer_id, self._passed_on(roster, mine, data))
        elif frame.type in TARGETED:
            self._relay(roster, mine, frame, data)
        elif frame.type in FLAGS:
            self._show(roster, mine, frame, data)
        elif frame.type in ("join", "resume"):
            raise Conflict("This socket is in the call; leave, or open another.")
        else:
            raise Invalid(f"There is no frame {frame.type[:40]!r} here.", details={"field": "type"})
        self._ack(frame)

    def _relay(self, roster: Roster, mine: Peer, frame: In, data: bytes) -> None:
        target = None if frame.target_id is None else roster.find(frame.target_id)
        if target is None or target.peer_id == mine.peer_id:
            raise NotFound("There is no such device in the call.")
        self._room.rosters.relay(roster, mine.peer_id, target, self._passed_on(roster, mine, data))

    def _show(self, roster: Roster, mine: Peer, frame: In, data: bytes) -> None:
        flag = FLAGS[frame.type]
        is_on = frame.type == "screen_share_started" if flag == "screen" else not frame.muted
        self._room.shown(mine, mine.showing(flag, is_on=is_on), self._passed_on(roster, mine, data))

    def _passed_on(self, roster: Roster, mine: Peer, data: bytes) -> bytes:
        return frames.passed_on(data, mine.peer_id, mine.user_id, roster.epoch)

    async def _leave(self, roster: Roster, mine: Peer) -> None:
        """Whatever is away: who hangs up is out for the others at once."""
        try:
            await self._room.leave(mine.user_id, self._call_id)
        except Unavailable:
            self._room.out(mine, roster.epoch)

    async def _renew(self, frame: In) -> None:
        principal = await self._room.authenticate(frame.token)
        ours = self._socket.principal
        if (principal.user_id, principal.session_id) != (ours.user_id, ours.session_id):
            self._hang_up(Close.UNAUTHENTICATED, "the token is another session's")
        self._socket.renew(principal)

    async def _receive(self) -> bytes:
        data = await self._socket.receive()
        if len(data) > self._room.config.frame_bytes:
            self._hang_up(Close.TOO_BIG, TooLarge.code)
        if not self._pace.is_kept(len(data)):
            self._hang_up(Close.TOO_MANY_FRAMES, "too many frames, or too large ones")
        return data

    def _decode(self, data: bytes) -> In:
        """Raises NotAFrame."""
        try:
            return frames.decode(data)
        except Malformed:
            return self._hang_up(Close.BAD_FRAME, "not JSON")

    def _ack(self, frame: In) -> None:
        if frame.ref is not None:
            self._socket.offer(frames.frame(frames.Ack(ref=frame.ref)))

    def _refuse(self, ref: frames.Ref | None, problem: Problem) -> None:
        if problem.denial is not None:
            self._room.deny(problem, self._call)
        self._socket.offer(frames.error(ref, problem))

    def _hang_up(self, code: Close, reason: str) -> NoReturn:
        """Raises SocketClosed."""
        self._socket.close(code, reason)
        raise SocketClosed
