"""`secureconnect bench`: what it tells of a real server, what it leaves there, and what it believes."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest
import trio

from kit import command
from kit.people import PASSWORD, people
from kit.ports import free_port
from kit.server import Server
from kit.tls import tls_before
from secureconnect.bench import crowd, talking
from secureconnect.bench.rounds import Run, Target
from secureconnect.bench.talking import Talk
from secureconnect.bench.wire import Faulty, Line, Site

ROWS = [
    "sign-ins, 8 under way",
    "messages stored, 1 sender, 1 under way",
    "messages stored, 4 senders, 8 under way",
    "deliveries into a room of 4, 50 messages/s",
    "the same, 1 under way",
    "the same, 8 under way",
    "the newest 50 messages of a room, 32 connections",
    "an ordinary route, /v1/users/me, 32 connections",
    "first sync, 32 connections",
    "sockets that come back and resume, 16",
]


def started(folder: Path, **settings: str) -> Iterator[Server]:
    made = Server(folder / "data", AUTH__DELETION_GRACE_DAYS="0", **settings)
    try:
        made.start()
        yield made
        made.check()
    finally:
        made.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from started(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Server]:
    limits = {"REGISTER": "3", "READ": "120", "LOGIN": "600"}
    settings = {f"RATE_LIMITS__{name}": value for name, value in limits.items()}
    yield from started(tmp_path, RATE_LIMITS__ENABLED="true", GATEWAY__WS_FRAMES_PER_10S="20", **settings)


async def bench(url: str, cwd: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    asked = ("bench", "--server", url, "--yes", *args)
    return await trio.to_thread.run_sync(partial(command.run, *asked, cwd=cwd))


async def is_as_before(server: Server) -> bool:
    """Whether nobody of the bench is left, nor any of its conversations."""
    listed = await command.beside(server, "user", "list", "--find", "bench-")
    return listed == "" and await server.metric("secureconnect_auth_erased_total") > 0


async def test_every_figure_and_nothing_left_behind(server: Server, tmp_path: Path) -> None:
    files = ("--json", tmp_path / "told.json", "--plot", tmp_path / "drawn.svg")
    done = await bench(server.url, tmp_path, "--seconds", "0.2", "--people", "4", *files)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[0].removeprefix("| ") for row in rows[2:]] == ROWS
    assert "100 % came in time" in done.stdout
    assert "left behind" not in done.stderr
    assert await is_as_before(server)

    told = json.loads((tmp_path / "told.json").read_text("utf-8"))
    assert told["server"]["url"] == server.url
    assert told["ping_ms"]["p50"] > 0
    assert [each["what"] for each in told["figures"]] == ROWS
    for each in told["figures"]:
        assert each.keys() == {
            *("name", "what", "unit", "count", "seconds", "per_s"),
            *("quantiles_ms", "remark", "p50_ms", "p90_ms", "p99_ms"),
        }
        assert each["count"] > 0
        assert len(each["quantiles_ms"]) == 99
        assert 0 < each["p50_ms"] <= each["p99_ms"]

    drawn = ElementTree.fromstring((tmp_path / "drawn.svg").read_text("utf-8"))
    words = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert set(ROWS) <= set(words)


async def test_interrupted_it_takes_everything_away_first(server: Server, tmp_path: Path) -> None:
    asked = ("bench", "--server", server.url, "--yes", "--seconds", "30", "--people", "3", "deliver")
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "secureconnect", *asked], cwd=tmp_path, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    heard = b""
    with trio.fail_after(command.LIMIT_S):
        while b"deliveries into a room" not in heard:
            heard += await process.stderr.receive_some()
        assert await command.beside(server, "user", "list", "--find", "bench-")
        process.send_signal(signal.SIGINT)
        async for chunk in process.stderr:
            heard += chunk
        assert await process.wait() == 130, heard.decode()
    assert b"left behind" not in heard
    assert await is_as_before(server)


async def test_accounts_that_are_given_stay(server: Server, tmp_path: Path) -> None:
    async with people(server.url, "ann", "bob") as both:
        given = tmp_path / "accounts"
        given.write_text("".join(f"{each.me.username} {PASSWORD}\n" for each in both), "utf-8")
        done = await bench(server.url, tmp_path, "--seconds", "0.1", "--accounts", given, "store", "read")
        assert done.returncode == 0, done.stderr
        assert "messages stored, 2 senders, 8 under way" in done.stdout
        for each in both:
            assert (await each.profile())["username"] == each.me.username
            assert await each.conversations() == []
            assert len(await each.sessions()) == 1


async def test_limits_are_told_beside_what_they_limit(limited: Server, tmp_path: Path) -> None:
    done = await bench(limited.url, tmp_path, "--seconds", "2", "--people", "5", "read", "deliver")
    assert done.returncode == 0, done.stderr
    assert "a WebSocket may send 20 frames in 10 s" in done.stdout
    assert "limited to 120 requests of the class 'read' in 60 s" in done.stdout
    assert (
        "measured with 3 people: the server takes 3 requests of the class 'register' in 3600 s" in done.stderr
    )
    assert await is_as_before(limited)


async def test_who_may_not_register_is_told_what_to_do(tmp_path: Path) -> None:
    for closed in started(tmp_path, AUTH__REGISTRATION="closed"):
        done = await bench(closed.url, tmp_path)
        assert done.returncode == 1
        assert "secureconnect user create" in done.stderr
        assert "--accounts FILE" in done.stderr


async def test_a_certificate_is_looked_at(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tls_before(server.url.removeprefix("http://"), tmp_path / "authority.pem") as secured:
        url = f"https://{secured}"
        done = await bench(url, tmp_path)
        assert done.returncode == 1
        assert "SSL_CERT_FILE" in done.stderr
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        done = await bench(url, tmp_path, "--seconds", "0.1", "--people", "2", "deliver")
        assert done.returncode == 0, done.stderr
        assert "100 % came in time" in done.stdout


async def test_a_wrong_url_says_what_to_do(server: Server, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for url, code, said in (
        (nobody, 1, "cannot be reached"),
        (server.url.replace("http:", "https:"), 1, "speaks no TLS"),
        (f"{server.url}", 1, "say --yes"),
        ("chat.example.org", 2, "http or https URL"),
    ):
        done = await trio.to_thread.run_sync(partial(command.run, "bench", "--server", url, cwd=tmp_path))
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr


# a server that is not honest, in the place of the real one

CROWD = 3  # the third of them keeps what it is sent


@pytest.fixture
def pipes() -> Iterator[list[tuple[Line, socket.socket]]]:
    """Open lines of the bench, and the server's end of each."""
    pairs = [socket.socketpair() for _ in range(CROWD)]
    for ours, _ in pairs:
        ours.setblocking(False)
    yield [(Line(number, ours, b""), theirs) for number, (ours, theirs) in enumerate(pairs)]
    for pair in pairs:
        for each in pair:
            each.close()


def frame(payload: bytes) -> bytes:
    return b"\x81\x7e" + len(payload).to_bytes(2) + payload


def said(number: int) -> bytes:
    return frame(b'{"type":"chat","number":%d,"text":"%s"}' % (number, b"x" * 200))


def number_of(payload: bytes) -> int:
    if b"x" * 200 not in payload:
        raise Faulty("not what was said")
    return int(json.loads(payload)["number"])


NOWHERE = Target(Site("", "", socket.AF_INET, None, None))
Pipes = list[tuple[Line, socket.socket]]


def broadcast(pipes: Pipes, *told: list[bytes], messages: int = 1) -> Run:
    """told: what each member is sent."""
    for (_, theirs), frames in zip(pipes, told, strict=True):
        theirs.sendall(b"".join(frames))
    room = crowd.Crowd(NOWHERE, [line for line, _ in pipes], said)
    room.keep_under_way(messages, 0)
    room.check(number_of)
    return room.run


def test_a_broadcast_counts_once_everybody_has_it(pipes: Pipes) -> None:
    assert broadcast(pipes, *[[said(0), b"\x89\x00", said(1)]] * CROWD, messages=2).count == 2 * CROWD
    assert pipes[0][1].recv(1000) == said(0) + said(1) + b"\x8a\x80" + bytes(4)  # the ping is answered


@pytest.mark.parametrize(
    ("last", "fault"),
    [
        ([said(0)], "deliveries were lost: 1 of 6"),
        ([said(0), said(1), said(1)], "more messages than were said"),
        ([said(0), said(0)], "a message twice"),
        ([said(0), said(7)], "what nobody said"),
        ([said(0), said(1).replace(b"xx", b"xy", 1)], "not what was said"),
        ([said(0), b"\x88\x02\x03\xf5"], "closed a WebSocket: 1013"),
        ([frame(b'{"type":"error","code":"UNAVAILABLE","message":"No."}' + b" " * 100)], "UNAVAILABLE: No."),
    ],
)
def test_what_is_no_delivery_is_an_error(
    pipes: Pipes, last: list[bytes], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "QUIET_LIMIT_S", 0.05)
    with pytest.raises(Faulty, match=fault):
        broadcast(pipes, [said(0), said(1)], [said(0), said(1)], last, messages=2)


def ack(number: int, status: str = "stored") -> bytes:
    return frame(b'{"type":"ack","ref":%d,"status":"%s"}' % (number, status.encode()) + b" " * 100)


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ([said(0)], "1 messages were not acknowledged, and 0 deliveries had not come"),
        ([ack(0)], "0 messages were not acknowledged, and 1 deliveries had not come"),
        ([ack(0, "accepted"), said(0)], "accepted and not stored"),
        ([ack(0), ack(0), said(0)], "acknowledged twice"),
        ([ack(0), said(0), said(0)], "told twice"),
    ],
)
def test_what_is_not_stored_is_an_error(
    pipes: Pipes, answers: list[bytes], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talking, "QUIET_LIMIT_S", 0.05)
    monkeypatch.setattr(talking, "_numbers", itertools.count())
    (first, to_first), (second, to_second), _ = pipes
    to_first.sendall(b"".join(answers))
    to_second.sendall(said(0))
    with pytest.raises(Faulty, match=fault):
        Talk(NOWHERE, [first, second], ["room"]).keep_under_way(1, 0)
