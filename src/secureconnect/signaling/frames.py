"""Frames of the signaling WebSocket: what a device says, what it is told, what nodes say to each other.

A frame for others passes as it came: its fields are not looked at beyond those named here, and whatever is in
them may be encrypted. Whom it is from is written in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from ..edge import Frame
from ..errors import Malformed, Problem
from .shapes import CallShape, PeerShape
from .store import Flag

Ref = Annotated[str, Meta(max_length=64)] | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
InstanceId = Annotated[str, Meta(pattern="^[A-Za-z0-9_.:-]{1,64}$", min_length=1, max_length=64)]

TARGETED = frozenset({"offer", "answer", "ice_candidate", "renegotiate"})  # the last may be for all, too
# what a device says of its own media: the flag of its peer that this changes
FLAGS: Mapping[str, Flag] = {
    "mute_audio": "audio",
    "mute_video": "video",
    "screen_share_started": "screen",
    "screen_share_stopped": "screen",
}
OURS = ("sender_id", "user_id", "epoch")  # written in, whatever the client has put there


class In(Struct):
    """What is looked at of any frame.  muted: of mute_audio and mute_video."""

    type: str
    ref: Ref | None = None
    target_id: Annotated[str, Meta(max_length=36)] | None = None
    epoch: int | None = None
    muted: bool = True
    instance_id: InstanceId = ""
    resume_token: Annotated[str, Meta(max_length=64)] = ""
    token: Annotated[str, Meta(max_length=8_192)] = ""


class NotAFrame(Exception):
    """A JSON object, yet no frame."""

    def __init__(self, ref: Ref | None, text: str) -> None:
        super().__init__(text)
        self.ref = ref


class _Ref(Struct):
    ref: Ref | None = None


_fields = msgspec.json.Decoder(dict[str, Raw])
_ins = msgspec.json.Decoder(In)
_ref = msgspec.json.Decoder(_Ref)
_encoder = msgspec.json.Encoder()


def decode(data: bytes) -> In:
    """Raises Malformed for what is no JSON, or nested too deeply for Python; NotAFrame for JSON that is no
    frame."""
    try:
        return _ins.decode(data)
    except msgspec.ValidationError as exc:
        text = str(exc)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise Malformed from exc
    try:
        ref = _ref.decode(data).ref
    except msgspec.ValidationError:
        ref = None
    except (msgspec.DecodeError, RecursionError) as exc:  # broken behind the field that was found wrong
        raise Malformed from exc
    raise NotAFrame(ref, text)


def passed_on(data: bytes, peer_id: str, user_id: str, epoch: int) -> bytes:
    """A frame as others get it: each value byte by byte as it came. Of a name that comes twice the last
    counts, here as in `decode`."""
    fields: dict[str, Any] = _fields.decode(data)
    for name in ("ref", "target_id", *OURS):
        fields.pop(name, None)
    fields |= {"sender_id": peer_id, "user_id": user_id, "epoch": epoch}
    return _encoder.encode(fields)


# what devices are told


class Out(Struct, tag_field="type", kw_only=True):
    pass


class Peers(Out, tag="peers"):
    """On attaching.  peer_id: the device's own; it is in `peers`, too.  resume_token: good once."""

    peer_id: str
    peers: list[PeerShape]
    resume_token: str
    epoch: int


class Resumed(Peers, tag="resumed"):
    """The same after coming back.  restart_ice: as of `BackAgain`, with each of the others."""

    restart_ice: bool = True


class Joined(Out, tag="join"):
    peer: PeerShape
    epoch: int


class Left(Out, tag="leave"):
    peer_id: str
    user_id: str
    epoch: int


class Reconnecting(Out, tag="peer_reconnecting"):
    """It has lost its connection to the server, and may come back; media may go on meanwhile."""

    peer_id: str
    user_id: str
    epoch: int


class BackAgain(Out, tag="peer_resumed"):
    """restart_ice: whether each side is to restart ICE with it.  is_new_instance: its page was loaded anew,
    and needs a new peer connection instead."""

    peer: PeerShape
    epoch: int
    restart_ice: bool = True
    is_new_instance: bool = False


class Over(Out, tag="call_ended"):
    call: CallShape


class Ack(Out, tag="ack"):
    ref: Ref


class Pong(Out, tag="pong"):
    ref: Ref | None = None


class Error(Out, tag="error", kw_only=True):
    ref: Ref | None = None
    code: str
    message: str


def frame(told: Out) -> Frame:
    return Frame(_encoder.encode(told))


def error(ref: Ref | None, problem: Problem) -> Frame:
    return frame(Error(ref=ref, code=problem.code, message=problem.message))


def of_people(event: str, call: CallShape) -> bytes:
    """An event of the chat WebSocket."""
    return _encoder.encode({"type": event, "call": call})
