"""WebSocket frames of clients, decoded and validated."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from ..errors import Malformed
from .shapes import ClientMessageId, Id, MessageType, Metadata, Seq, Status, no_metadata

Ref = Annotated[str, Meta(max_length=64)] | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class In(Struct, tag_field="type", kw_only=True):
    """Any frame. One with a `ref` is answered by exactly one ack, error or pong."""

    ref: Ref | None = None


class ChatIn(In, tag="chat"):
    conversation_id: Id
    content: str
    message_type: MessageType = "text"
    client_message_id: ClientMessageId | None = None
    is_encrypted: bool = False
    reply_to: Id | None = None
    file_ids: list[Id] = []
    metadata: Metadata = field(default_factory=no_metadata)


class EditIn(In, tag="edit"):
    message_id: Id
    content: str
    is_encrypted: bool | None = None
    metadata: Metadata | UnsetType = UNSET


class DeleteIn(In, tag="delete"):
    message_id: Id


class ReactIn(In, tag="react"):
    message_id: Id
    emoji: str
    on: bool = True


class ReadIn(In, tag="read"):
    conversation_id: Id
    seq: Seq


class TypingIn(In, tag="typing"):
    conversation_id: Id
    is_typing: bool


class PresenceIn(In, tag="presence"):
    status: Status


class ResumeIn(In, tag="resume"):
    history_id: Annotated[str, Meta(max_length=64)]
    conversations: Annotated[dict[Id, Seq], Meta(max_length=1_000)]
    more: bool = False


class AuthIn(In, tag="auth"):
    token: Annotated[str, Meta(max_length=8_192)]


class PingIn(In, tag="ping"):
    pass


Inbound = ChatIn | EditIn | DeleteIn | ReactIn | ReadIn | TypingIn | PresenceIn | ResumeIn | AuthIn | PingIn


class NotAFrame(Exception):
    """A JSON object, yet none of the frames above."""

    def __init__(self, ref: Ref | None, text: str) -> None:
        super().__init__(text)
        self.ref = ref


class _Ref(Struct):
    ref: Ref | None = None


_inbound: msgspec.json.Decoder[Inbound] = msgspec.json.Decoder(Inbound)
_ref = msgspec.json.Decoder(_Ref)
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def decode(data: bytes) -> Inbound:
    """Raises Malformed for what is no JSON object at all, NotAFrame for one that is no valid frame."""
    try:
        if b"\\u0000" in data and _NUL.search(data):
            raise NotAFrame(_ref.decode(data).ref, "U+0000 is not allowed")
        return _inbound.decode(data)
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
