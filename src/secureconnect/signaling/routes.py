"""What HTTP sees of calls."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ..edge import Audience, Call, Rate, Reply, Route
from ..errors import (
    CallCapacity,
    CallElsewhere,
    CallEngaged,
    CallOver,
    CallUnderWay,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
)
from ..idempotency import attempt_of
from ..identity import CallId, ConversationId, UserId, is_id
from .ice import IceServer
from .recordings import ROUTES as RECORDING_ROUTES
from .room import Signaling
from .shapes import CallShape, Id, call_shape
from .store import LAST_ID, Called, CallType


class NewCall(Struct, frozen=True):
    """callee_ids: all other members if left out."""

    conversation_id: Id
    call_type: CallType
    callee_ids: Annotated[list[Id], Meta(min_length=1, max_length=100)] | None = None


class JoinedCall(Struct, frozen=True):
    """signaling_url: of the WebSocket on which the devices in the call set media up."""

    call_id: str
    call: CallShape
    ice_servers: list[IceServer]
    signaling_url: str
    topology: Literal["mesh"]


class IceServers(Struct, frozen=True):
    """expires_in: whole seconds for which the credentials are good."""

    ice_servers: list[IceServer]
    expires_in: int


class CallQuery(Struct, frozen=True):
    """conversation_id: the calls of that conversation; left out: those one was called to, or came to.
    ringing: of the latter only those that ring for oneself just now."""

    conversation_id: Id | None = None
    ringing: bool = False
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    cursor: Annotated[str, Meta(max_length=200)] | None = None


class CallList(Struct, frozen=True):
    """The newest first."""

    calls: list[CallShape]
    next_cursor: str | None


async def initiate(room: Signaling, call: Call) -> Reply:
    asked: NewCall = call.body
    callees = None if asked.callee_ids is None else [UserId(each) for each in asked.callee_ids]
    begun = await room.calls.initiate(
        call.caller, ConversationId(asked.conversation_id), asked.call_type, callees, attempt_of(call)
    )
    return Reply(_joined(room, call, begun), status=201)


async def join(room: Signaling, call: Call) -> Reply:
    return Reply(_joined(room, call, await room.calls.join(call.caller, _call(call))))


async def decline(room: Signaling, call: Call) -> Reply:
    return Reply(call_shape(await room.calls.decline(call.caller.user_id, _call(call))))


async def leave(room: Signaling, call: Call) -> Reply:
    return Reply(call_shape(await room.leave(call.caller.user_id, _call(call))))


async def end(room: Signaling, call: Call) -> Reply:
    return Reply(call_shape(await room.calls.end(call.caller, _call(call))))


async def get_call(room: Signaling, call: Call) -> Reply:
    return Reply(call_shape(await room.calls.get(call.caller.user_id, _call(call))))


async def list_calls(room: Signaling, call: Call) -> Reply:
    asked: CallQuery = call.query
    before = asked.cursor or LAST_ID
    if not is_id(before):
        raise Invalid("This cursor is not one of ours.", details={"field": "cursor"})
    if asked.ringing and asked.conversation_id is not None:
        raise Invalid("Ask for what rings, or for a conversation.", details={"field": "ringing"})
    if asked.ringing:
        found = await room.calls.ringing(call.caller.user_id, before, asked.limit)
    else:
        conversation = None if asked.conversation_id is None else ConversationId(asked.conversation_id)
        found = await room.calls.history(call.caller.user_id, conversation, before, asked.limit)
    cursor = found[-1].call_id if len(found) == asked.limit else None
    return Reply(CallList([call_shape(each) for each in found], cursor))


async def list_ice_servers(room: Signaling, call: Call) -> Reply:
    return Reply(IceServers(room.ice_servers(call.caller.user_id), room.turn.credentials_s))


def _call(call: Call) -> CallId:
    return CallId(call.path["call_id"])


def _joined(room: Signaling, call: Call, joined: Called) -> JoinedCall:
    return JoinedCall(
        joined.call_id,
        call_shape(joined),
        room.ice_servers(call.caller.user_id),
        room.signaling_url(joined.call_id),
        joined.topology,
    )


_CALL = "/v1/calls/{call_id}"

ROUTES: tuple[Route, ...] = (
    Route(
        "POST", "/v1/calls/initiate", initiate, Audience.MEMBER, Rate.WRITE,
        "Call people of a conversation",
        body=NewCall, answer=JoinedCall, status=201, repeats=True,
        errors=(CallCapacity, CallEngaged, CallUnderWay, Forbidden, Invalid, NotFound),
    ),
    Route(
        "GET", "/v1/calls/ice-servers", list_ice_servers, Audience.USER, Rate.READ,
        "STUN and TURN servers, with credentials for a while",
        answer=IceServers,
    ),
    Route(
        "GET", "/v1/calls", list_calls, Audience.MEMBER, Rate.READ,
        "Calls, those under way among them",
        query=CallQuery, answer=CallList, errors=(Invalid, NotFound),
    ),
    Route("GET", _CALL, get_call, Audience.MEMBER, Rate.READ, "A call", answer=CallShape, errors=(NotFound,)),
    Route(
        "POST", f"{_CALL}/join", join, Audience.MEMBER, Rate.WRITE,
        "Answer a call, or come to one under way",
        answer=JoinedCall, errors=(CallCapacity, CallElsewhere, CallEngaged, CallOver, NotFound),
    ),
    Route(
        "POST", f"{_CALL}/decline", decline, Audience.MEMBER, Rate.WRITE,
        "Decline a call that rings",
        answer=CallShape, errors=(CallOver, Conflict, NotFound),
    ),
    Route(
        "POST", f"{_CALL}/leave", leave, Audience.MEMBER, Rate.WRITE,
        "Leave a call",
        answer=CallShape, errors=(NotFound,),
    ),
    Route(
        "POST", f"{_CALL}/end", end, Audience.MODERATOR, Rate.WRITE,
        "End a call for everybody",
        answer=CallShape, errors=(Forbidden, NotFound),
    ),
    *RECORDING_ROUTES,
)  # fmt: skip
