"""`secureconnect bench`: what it tells of a real server, what it leaves there, and what it believes."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Protocol, cast
from xml.etree import ElementTree

import pytest
import trio

from kit import command
from kit.people import PASSWORD, people
from kit.ports import free_port
from kit.server import Server
from kit.tls import tls_before
from kit.wait import until
from secureconnect.bench import crowd, talking
from secureconnect.bench.installation import Installation, NotThere
from secureconnect.bench.rounds import Run, Target
from secureconnect.bench.talking import Talk
from secureconnect.bench.wire import Faulty, Line, Site
from secureconnect.cli import main

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


class Bench(Protocol):
    def __call__(self, url: str, *args: str | Path) -> tuple[int, str, str]: ...


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    """Exit code, stdout and stderr of the command, in this process."""

    def run(url: str, *args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["secureconnect", "bench", "--server", url, *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main.run()
        told = capsys.readouterr()
        return cast("int", ended.value.code), told.out, told.err

    return run


def left(server: Server) -> list[str]:
    """Names of the bench's people, and titles of its conversations, that are still there."""
    with closing(sqlite3.connect(server.data_dir / "secureconnect.db")) as db:
        names = db.execute("SELECT username FROM users WHERE username LIKE 'bench-%'")
        titles = db.execute(
            "SELECT title FROM conversations WHERE title LIKE '%bench%' AND conversation_id NOT IN"
            " (SELECT conversation_id FROM deleted_conversations)"
        )
        return [str(name) for (name,) in (*names, *titles)]


def test_every_figure_and_nothing_left_behind(server: Server, bench: Bench, tmp_path: Path) -> None:
    files = ("--json", tmp_path / "told.json", "--plot", tmp_path / "drawn.svg")
    code, out, err = bench(server.url, "--yes", "--seconds", "0.2", "--people", "4", *files)
    assert code == 0, err
    rows = [line.split(" | ") for line in out.splitlines() if line.startswith("| ")]
    assert [row[0].removeprefix("| ") for row in rows[2:]] == ROWS
    assert "100 % came in time" in out
    assert "left behind" not in err
    assert left(server) == []

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
        await until(lambda: len(left(server)) == 4)  # three people in a room
        process.send_signal(signal.SIGINT)
        async for chunk in process.stderr:
            heard += chunk
        assert await process.wait() == 130, heard.decode()
    assert b"left behind" not in heard
    assert left(server) == []


async def test_accounts_that_are_given_stay(server: Server, bench: Bench, tmp_path: Path) -> None:
    async with people(server.url, "ann", "bob") as both:
        given = tmp_path / "accounts"
        given.write_text("".join(f"{each.me.username} {PASSWORD}\n" for each in both), "utf-8")
        asked = ("--yes", "--seconds", "0.1", "--accounts", given, "store", "read")
        code, out, err = bench(server.url, *asked)
        assert code == 0, err
        assert "messages stored, 2 senders, 8 under way" in out
        for each in both:
            assert (await each.profile())["username"] == each.me.username
            assert await each.conversations() == []
            assert len(await each.sessions()) == 1


def test_limits_are_told_beside_what_they_limit(limited: Server, bench: Bench) -> None:
    code, out, err = bench(limited.url, "--yes", "--seconds", "1", "--people", "5", "read", "deliver")
    assert code == 0, err
    assert "a WebSocket may send 20 frames in 10 s" in out
    assert "limited to 120 requests of the class 'read' in 60 s" in out
    assert "measured with 3 people: the server takes 3 requests of the class 'register' in 3600 s" in err
    assert left(limited) == []


def test_who_may_not_register_is_told_what_to_do(bench: Bench, tmp_path: Path) -> None:
    for closed in started(tmp_path, AUTH__REGISTRATION="closed"):
        code, _, err = bench(closed.url, "--yes")
        assert code == 1
        assert "secureconnect user create" in err
        assert "--accounts FILE" in err


async def test_a_certificate_is_looked_at(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = tmp_path / "authority.pem"
    async with tls_before(server.url.removeprefix("http://"), authority) as secured:
        url = f"https://{secured}"
        with pytest.raises(NotThere, match="SSL_CERT_FILE"):
            await trio.to_thread.run_sync(Installation.look, url)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        asked = ("bench", "--server", url, "--yes", "--seconds", "0.1", "--people", "2", "deliver")
        done = await trio.to_thread.run_sync(partial(command.run, *asked, cwd=tmp_path))
        assert done.returncode == 0, done.stderr
        assert "100 % came in time" in done.stdout


def test_a_wrong_url_says_what_to_do(server: Server, bench: Bench) -> None:
    for url, code, said in (
        (f"http://127.0.0.1:{free_port()}", 1, "cannot be reached"),
        (server.url.replace("http:", "https:"), 1, "speaks no TLS"),
        (server.url, 1, "say --yes"),
        ("chat.example.org", 2, "http or https URL"),
    ):
        ended, _, err = bench(url)
        assert (ended, said in err) == (code, True), err


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
