"""The JSON shapes of calls that answers and events share."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ..clock import to_iso
from .store import Called, CallType, EndReason, Peer, PersonState, State

Id = Annotated[
    str,
    Meta(
        pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        min_length=36,
        max_length=36,
    ),
]


class CallPersonShape(Struct):
    """device_id: on which they are, or were, in it."""

    user_id: str
    state: PersonState
    device_id: str | None
    joined_at: str | None
    left_at: str | None


class CallShape(Struct):
    """participants: everybody who was called or came; devices ring while their person's state is `ringing`,
    and stop by themselves at ring_until.  duration_s: of one that is over, from the answer on."""

    call_id: str
    conversation_id: str
    initiated_by: str
    call_type: CallType
    status: State
    topology: Literal["mesh"]
    epoch: int
    started_at: str
    ring_until: str | None
    answered_at: str | None
    ended_at: str | None
    duration_s: int
    end_reason: EndReason | None
    participants: list[CallPersonShape]


class PeerShape(Struct):
    """A device in a call.  is_connected: False while it is waited for.  instance_id: when it changes, the
    page was loaded anew and needs a new peer connection."""

    peer_id: str
    user_id: str
    device_id: str
    instance_id: str
    audio: bool
    video: bool
    screen: bool
    is_connected: bool


def call_shape(call: Called) -> CallShape:
    return CallShape(
        call.call_id,
        call.conversation_id,
        call.caller_id,
        call.call_type,
        call.state,
        call.topology,
        call.epoch,
        to_iso(call.started_us),
        _iso_or_none(call.ring_until_us),
        _iso_or_none(call.answered_us),
        _iso_or_none(call.ended_us),
        call.duration_s,
        call.end_reason,
        [
            CallPersonShape(
                each.user_id,
                each.state,
                each.device_id,
                _iso_or_none(each.joined_us),
                _iso_or_none(each.left_us),
            )
            for each in call.people
        ],
    )


def peer_shape(peer: Peer) -> PeerShape:
    return PeerShape(
        peer.peer_id,
        peer.user_id,
        peer.device_id,
        peer.instance_id,
        peer.audio,
        peer.video,
        peer.screen,
        peer.lost_us is None,
    )


def _iso_or_none(us: int | None) -> str | None:
    return None if us is None else to_iso(us)
