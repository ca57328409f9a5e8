"""The WebSocket /v1/ws/chat: what each frame of a client does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn

import trio
from msgspec import UNSET, Struct

from .. import tracing
from ..clock import now_us, to_iso
from ..edge import Audience, Call, Close, Frame, Socket, SocketClosed, SocketRoute
from ..errors import Conflict, Invalid, Malformed, Problem
from ..identity import ConversationId, MessageId
from . import frames, inbound
from .connection import Connection
from .pledges import Answer
from .room import Chat
from .shapes import Id


class ChatQuery(Struct):
    """conversation_id: carry this conversation alone.  resume: be silent until the resume frame."""

    conversation_id: Id | None = None
    resume: bool = False


async def admit_chat(room: Chat, call: Call) -> None:
    """Raises NotFound when the one conversation asked for is not the caller's."""
    query: ChatQuery = call.query
    if query.conversation_id is not None:
        await room.require_member(call.caller.user_id, ConversationId(query.conversation_id))


async def serve_chat(room: Chat, call: Call, socket: Socket) -> None:
    query: ChatQuery = call.query
    only = ConversationId(query.conversation_id) if query.conversation_id else None
    connection = room.connection(socket, only)
    with room.present(connection):
        socket.offer(_hello(room, call))
        if away := room.away():
            socket.offer(frames.health(away))
        conversation = _Conversation(room, call, connection)
        if query.resume:
            await conversation.resume()
        else:
            room.hub.attach(connection)
            await conversation.talk()


SOCKETS = (
    SocketRoute(
        path="/v1/ws/chat",
        handler=serve_chat,
        audience=Audience.USER,
        summary="Messages and everything else that happens, as it happens",
        query=ChatQuery,
        admit=admit_chat,
        outage=True,
    ),
)


def _hello(room: Chat, call: Call) -> Frame:
    return frames.frame(
        frames.Hello(
            session_id=call.caller.session_id,
            history_id=room.history_id,
            server_time=to_iso(now_us()),
            heartbeat_s=room.heartbeat_s,
        )
    )


def _span(frame: inbound.Inbound) -> tracing.Span:
    """A heartbeat has none."""
    if not tracing.is_on() or isinstance(frame, inbound.PingIn):
        return tracing.NOTHING
    return tracing.root(f"frame {frame.__struct_config__.tag}")


class _Conversation:
    """The talk with one client: its frames are dealt with one after the other, but messages on their way to
    the database do not hold up the next."""

    def __init__(self, room: Chat, call: Call, connection: Connection) -> None:
        self._room = room
        self._call = call
        self._connection = connection
        self._socket = connection.socket
        self._me = connection.user_id

    async def resume(self) -> None:
        """Take the resume frames, replay, and talk. Raises SocketClosed."""
        positions: dict[str, int] = {}
        last: inbound.ResumeIn | None = None
        with trio.move_on_after(self._room.config.resume_wait_s):
            while last is None or last.more:
                frame = self._decode(await self._socket.receive())
                if not isinstance(frame, inbound.ResumeIn):
                    self._hang_up(Close.BAD_FRAME, "resume first")
                positions.update(frame.conversations)
                if len(positions) > self._room.config.resume_total:
                    self._hang_up(Close.BAD_FRAME, "too many conversations")
                last = frame
        if last is None or last.more:
            self._hang_up(Close.SILENT, "no resume frame")
        rest = await self._room.resume(self._connection, last.history_id, positions)
        if rest is None:
            self._ack(last)
            await self.talk()
        else:
            await self._talk_meanwhile(rest, last)

    async def _talk_meanwhile(self, rest: Callable[[], Awaitable[None]], asked: inbound.ResumeIn) -> NoReturn:
        """Talk, and resume for what has to wait for the database. Raises SocketClosed, or the Problem that
        ends it; never a group of them."""
        ended: Exception = SocketClosed()
        async with trio.open_nursery() as nursery:

            async def finish() -> None:
                nonlocal ended
                try:
                    await rest()
                    self._ack(asked)
                except (SocketClosed, Problem) as exc:
                    ended = exc
                    nursery.cancel_scope.cancel()

            nursery.start_soon(finish)
            with suppress(SocketClosed):
                await self.talk()
            nursery.cancel_scope.cancel()
        raise ended

    async def talk(self) -> None:
        """Until the socket closes. Raises SocketClosed."""
        while True:
            frame = self._decode(await self._socket.receive())
            if frame is None:
                continue
            try:
                with _span(frame):
                    await self._answer(frame)
            except Problem as problem:
                self._refuse(frame.ref, problem)

    def _decode(self, data: bytes) -> inbound.Inbound | None:
        """The frame; None when it was not valid and has been answered."""
        try:
            return inbound.decode(data)
        except Malformed:
            self._hang_up(Close.BAD_FRAME, "not JSON")
        except inbound.NotAFrame as exc:
            self._refuse(exc.ref, Invalid(str(exc)))
        return None

    async def _answer(self, frame: inbound.Inbound) -> None:
        room, me = self._room, self._me
        match frame:
            case inbound.ChatIn():
                self._send(frame)
            case inbound.EditIn():
                metadata = None if frame.metadata is UNSET else frame.metadata
                await room.messages.edit(
                    me, MessageId(frame.message_id), frame.content, frame.is_encrypted, metadata
                )
                self._ack(frame, message_id=frame.message_id)
            case inbound.DeleteIn():
                await room.messages.delete(me, MessageId(frame.message_id))
                self._ack(frame, message_id=frame.message_id)
            case inbound.ReactIn():
                message = MessageId(frame.message_id)
                await room.reactions.set(me, message, frame.emoji, on=frame.on)
                self._ack(frame, message_id=frame.message_id)
            case inbound.ReadIn():
                await room.conversations.mark_read(me, ConversationId(frame.conversation_id), frame.seq)
                self._ack(frame, conversation_id=frame.conversation_id)
            case inbound.TypingIn():
                conversation = ConversationId(frame.conversation_id)
                await room.mark_typing(me, conversation, frame.is_typing)
                self._ack(frame, conversation_id=frame.conversation_id)
            case inbound.PresenceIn():
                room.presence.say(self._connection, frame.status)
                self._ack(frame)
            case inbound.AuthIn():
                await self._renew(frame)
            case inbound.PingIn():
                pong = frames.Pong()
                if frame.ref is not None:
                    pong.ref = frame.ref
                self._offer(frames.frame(pong))
            case inbound.ResumeIn():
                raise Conflict("This socket is live; open one with resume=1 to resume.")

    def _send(self, frame: inbound.ChatIn) -> None:
        """Queue a message; the writer answers."""
        draft = self._room.messages.draft(
            self._me,
            frame.conversation_id,
            frame.content,
            message_type=frame.message_type,
            client_message_id=frame.client_message_id,
            is_encrypted=frame.is_encrypted,
            reply_to=frame.reply_to,
            file_ids=frame.file_ids,
            metadata=frame.metadata,
        )
        ref = frame.ref

        def done(answer: Answer) -> None:
            if isinstance(answer, Problem):
                self._refuse(ref, answer)
            elif ref is not None:
                self._offer(frames.ack(ref, answer))

        self._room.writer.send(draft, done)

    async def _renew(self, frame: inbound.AuthIn) -> None:
        principal = await self._room.authenticate(frame.token)
        ours = self._socket.principal
        if (principal.user_id, principal.session_id) != (ours.user_id, ours.session_id):
            self._hang_up(Close.UNAUTHENTICATED, "the token is another session's")
        self._socket.renew(principal)
        self._ack(frame)

    def _ack(
        self, frame: inbound.Inbound, *, conversation_id: str | None = None, message_id: str | None = None
    ) -> None:
        if frame.ref is None:
            return
        told = frames.Ack(ref=frame.ref, status="stored")
        if conversation_id is not None:
            told.conversation_id = conversation_id
        if message_id is not None:
            told.message_id = message_id
        self._offer(frames.frame(told))

    def _refuse(self, ref: inbound.Ref | None, problem: Problem) -> None:
        if problem.denial is not None:
            self._room.deny(problem, self._call)
        self._offer(frames.error(ref, problem))

    def _offer(self, frame: Frame) -> None:
        """An answer. A socket that cannot take it is closed; the next `receive` says so."""
        self._socket.offer(frame)

    def _hang_up(self, code: Close, reason: str) -> NoReturn:
        """Raises SocketClosed."""
        self._socket.close(code, reason)
        raise SocketClosed
