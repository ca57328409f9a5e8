"""What must hold for any bytes a client sends: `fuzz` looks for some for which it does not."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import h11

from secureconnect.config import GatewayConfig
from secureconnect.gateway.parsing import Incoming, RequestParser

from .framing_oracle import assert_agreed, in_steps, ours

MOST_BYTES = 2_000  # below every limit whose fault depends on how much comes at once
FRAME_LIMIT = 200
REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b?c=d HTTP/1.1\r\nhost: b\r\nConnection: close\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: r\r\n\r\nGET ",
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x80abcd",
    b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nokGET /",
    b"PUT http://a/b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\nabc",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


def frames(data: bytes) -> None:
    """The first byte says how the others are fed."""
    if len(data) > 1:
        how, stream = data[0], data[1:]
        deflates, step = bool(how & 1), how >> 1 or 1
        assert_agreed(stream, FRAME_LIMIT, deflates)
        whole, at_once = ours([stream], FRAME_LIMIT, deflates)
        stepped, inbound = ours(in_steps(stream, step), FRAME_LIMIT, deflates)
        assert whole == stepped
        assert (at_once.frames, at_once.violation) == (inbound.frames, inbound.violation)


class Parsed(NamedTuple):
    requests: list[Any]
    fault: type | None
    is_amid: bool


def parsed(pieces: Iterable[bytes]) -> Parsed:
    parser = RequestParser(GatewayConfig())
    for piece in pieces:
        parser.feed(piece)
    fault = type(parser.fault) if parser.fault else None
    result = Parsed([facts(each) for each in parser.waiting], fault, parser.is_amid)
    parser.close()
    return result


def facts(incoming: Incoming) -> dict[str, Any]:
    told = {name: getattr(incoming, name) for name in incoming.__slots__}
    return told | {
        "pieces": b"".join(incoming.pieces),
        "rest": incoming.rest if incoming.is_upgrade else b"",
    }


def requests(data: bytes) -> None:
    """The first byte says how the others are fed."""
    if len(data) > 1:
        step, stream = data[0] or 1, data[1:]
        whole = parsed([stream])
        assert parsed(in_steps(stream, step)) == whole
        assert parsed(in_steps(stream, 1)) == whole
        if whole.fault is None:
            assert_h11_agrees(stream, whole)


def assert_h11_agrees(stream: bytes, whole: Parsed) -> None:
    """Where h11 takes a request, too, it begins and ends where ours does: or one of the two could be made to
    see a request in another's body."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_BYTES * 2)
    connection.receive_data(stream)
    with suppress(h11.RemoteProtocolError):
        for ours in whole.requests:
            head = connection.next_event()
            if not isinstance(head, h11.Request) or ours["is_upgrade"] or ours["method"] == "CONNECT":
                return
            assert head.method.decode() == ours["method"]
            body = b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += event.data
            assert body == ours["pieces"]
            assert isinstance(event, h11.EndOfMessage) is ours["is_whole"]
            if not ours["is_whole"] or ours["is_last"]:
                return
            connection.send(h11.Response(status_code=204, headers=[]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
