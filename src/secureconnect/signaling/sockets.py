"""The WebSocket /v1/ws/signaling: one device in one call."""

from __future__ import annotations

from typing import NoReturn

import trio
from msgspec import Struct

from ..edge import Audience, Call, Close, Socket, SocketClosed, SocketRoute
from ..errors import Invalid, Malformed, NotFound, Overloaded, Problem, TooLarge
from ..identity import CallId
from . import frames
from .frames import FLAGS, TARGETED, In
from .meters import SOCKETS as OPEN
from .peers import Attached
from .room import Signaling
from .rosters import Roster
from .shapes import Id, peer_shape
from .store import Peer


class SignalingQuery(Struct):
    call_id: Id


async def admit(room: Signaling, call: Call) -> None:
    """Raises Overloaded; NotFound, CallOver, CallNotJoined, CallElsewhere."""
    if room.sockets >= room.config.sockets:
        raise Overloaded("This server has as many signaling sockets as it may hold.")
    query: SignalingQuery = call.query
    await room.peers.require_joined(call.caller, CallId(query.call_id))


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


class _Device:
    """The talk with one device."""

    def __init__(self, room: Signaling, call: Call, socket: Socket) -> None:
        self._room = room
        self._call = call
        self._socket = socket
        query: SignalingQuery = call.query
        self._call_id = CallId(query.call_id)

    async def attend(self) -> None:
        """Until the socket closes. Raises SocketClosed."""
        attached = await self._attach()
        mine, call = attached.mine, attached.call
        roster = self._room.rosters.enter(
            call.call_id, call.epoch, attached.peers, mine.peer_id, self._socket
        )
        try:
            await self._talk(roster, mine)
        finally:
            if self._room.rosters.exit(call.call_id, mine.peer_id, self._socket):
                self._room.lost(roster.peers.get(mine.peer_id, mine), roster.epoch)

    async def _attach(self) -> Attached:
        """Take the first frame: the device comes, or comes back."""
        with trio.move_on_after(self._room.config.greet_s):
            frame = self._decode(await self._receive())
            if frame.type not in ("join", "resume") or not frame.instance_id:
                self._hang_up(Close.BAD_FRAME, "join or resume first")
            try:
                if frame.type == "join":
                    attached = await self._room.peers.join(
                        self._call.caller, self._call_id, frame.instance_id
                    )
                    self._greet(attached, frames.Peers)
                    self._room.came(attached)
                else:
                    attached = await self._room.peers.resume(
                        self._call.caller, self._call_id, frame.instance_id, frame.resume_token
                    )
                    self._greet(attached, frames.Resumed)
                    self._room.came_back(attached)
            except Problem as problem:
                self._refuse(frame.ref, problem)
                self._hang_up(
                    Close.NOT_FOUND if isinstance(problem, NotFound) else Close.FORBIDDEN, problem.code
                )
            return attached
        return self._hang_up(Close.SILENT, "no first frame")

    def _greet(self, attached: Attached, kind: type[frames.Peers]) -> None:
        told = kind(
            peer_id=attached.mine.peer_id,
            peers=[peer_shape(each) for each in attached.peers],
            resume_token=attached.token,
            epoch=attached.call.epoch,
        )
        self._socket.offer(frames.frame(told))

    async def _talk(self, roster: Roster, mine: Peer) -> None:
        while True:
            data = await self._receive()
            try:
                frame = self._decode(data)
            except Invalid as problem:
                self._refuse(None, problem)
                continue
            try:
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
            await self._room.leave(mine.user_id, self._call_id)
        elif frame.epoch is not None and frame.epoch < roster.epoch:
            pass  # said before the signaling was lost: it would set up what is no more
        elif frame.type in TARGETED:
            self._relay(roster, mine, frame, data)
        elif frame.type in FLAGS:
            self._show(roster, mine, frame, data)
        else:
            raise Invalid(f"There is no frame {frame.type[:40]!r} here.", details={"field": "type"})
        if frame.ref is not None:
            self._socket.offer(frames.frame(frames.Ack(ref=frame.ref)))

    def _relay(self, roster: Roster, mine: Peer, frame: In, data: bytes) -> None:
        target = None if frame.target_id is None else roster.find(frame.target_id)
        if target is None or target.peer_id == mine.peer_id:
            raise NotFound("There is no such device in the call.")
        passed_on = frames.passed_on(data, mine.peer_id, mine.user_id, roster.epoch)
        self._room.rosters.relay(roster, mine.peer_id, target, passed_on)

    def _show(self, roster: Roster, mine: Peer, frame: In, data: bytes) -> None:
        flag = FLAGS[frame.type]
        is_on = frame.type == "screen_share_started" if flag == "screen" else not frame.muted
        shown = roster.peers[mine.peer_id] = mine.showing(flag, is_on=is_on)
        passed_on = frames.passed_on(data, mine.peer_id, mine.user_id, roster.epoch)
        self._room.shown(shown, roster.epoch, passed_on)

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
        return data

    def _decode(self, data: bytes) -> In:
        """Raises Invalid."""
        try:
            return frames.decode(data)
        except Malformed:
            return self._hang_up(Close.BAD_FRAME, "not JSON")

    def _refuse(self, ref: frames.Ref | None, problem: Problem) -> None:
        if problem.denial is not None:
            self._room.deny(problem, self._call)
        self._socket.offer(frames.error(ref, problem))

    def _hang_up(self, code: Close, reason: str) -> NoReturn:
        """Raises SocketClosed."""
        self._socket.close(code, reason)
        raise SocketClosed
