"""The terminal client as a process: lines in, lines out."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pyotp
import trio

from kit.fixtures import StartServer
from kit.people import PASSWORD, direct, make_admin, next_event, people, unique
from kit.server import Server
from kit.worlds import embedded_alone
from secureconnect.client import Client

SHOWN_S = 30  # it may be about to wait for its longest pause before it connects again
AWAY = Path(__file__).parent.parent / "kit" / "launchers" / "database_away.py"


class Terminal:
    """`secureconnect chat`, with pipes for a terminal."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._shown = ""

    async def type(self, *lines: str) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all("".join(f"{line}\n" for line in lines).encode())

    async def shows(self, pattern: str) -> re.Match[str]:
        """Wait for it, and go on from there."""
        assert self._process.stdout is not None
        with trio.move_on_after(SHOWN_S):
            while not (found := re.search(pattern, self._shown)):
                received = await self._process.stdout.receive_some()
                if not received:
                    break
                self._shown += received.decode()
            else:
                self._shown = self._shown[found.end() :]
                return found
        raise AssertionError(f"waited for {pattern!r}, saw:\n{self._shown}")

    async def ends(self) -> int:
        with trio.fail_after(SHOWN_S):
            return await self._process.wait()


@asynccontextmanager
async def terminal(server: Server, state: Path, *options: str) -> AsyncIterator[Terminal]:
    command = [sys.executable, "-m", "secureconnect", "chat", "--server", server.url, *options]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                command,
                stdin=-1,
                stdout=-1,
                check=False,
                env=os.environ | {"XDG_STATE_HOME": str(state), "TERM": "dumb", "COLUMNS": "200"},
                cwd=state,
            )
        )
        yield Terminal(process)
        nursery.cancel_scope.cancel()


async def test_two_terminals(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    ann, bob = unique("ann"), unique("bob")
    homes = [tmp_path / "ann", tmp_path / "bob"]
    for home in homes:
        home.mkdir()
    async with terminal(server, homes[0]) as at_ann, terminal(server, homes[1]) as at_bob:
        for at, name in ((at_ann, ann), (at_bob, bob)):
            await at.shows("Log in or register")
            await at.type("r", name, f"{name}@example.org", PASSWORD)
            await at.shows(f"Signed in as {name}")
            await at.shows("No conversations yet")
        await at_ann.type(f"/with {bob}", "hello from a terminal")
        await at_ann.shows(rf"#1 {ann} hello from a terminal")
        await at_bob.shows(f"{ann} wrote in {ann}")
        await at_bob.type("/list", "/open 1")
        await at_bob.shows(rf"1 {ann}, 1 unread")
        await at_bob.shows(rf"#1 {ann} hello from a terminal")
        await at_bob.type("an answer\x1b[31m")
        await at_ann.shows(rf"#2 {bob} an answer\ufffd\[31m")
        await at_bob.type("/edit a better answer")
        await at_ann.shows(rf"#2 {bob} a better answer \(edited\)")
        await at_ann.type("/delete #1")
        await at_bob.shows("#1 was deleted")
        await at_ann.type("/who")
        await at_ann.shows(rf"{bob} \(@{bob}\), \w+, online")
        await at_ann.type("/nonsense", "/with nobody_at_all")
        await at_ann.shows("There is no /nonsense")
        await at_ann.shows("nobody called")
        await at_ann.type("/quit")
        assert await at_ann.ends() == 0

    kept = homes[0] / "secureconnect" / "chat.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert PASSWORD not in kept.read_text()
    async with terminal(server, homes[0]) as again:
        await again.shows(f"Signed in as {ann}")
        await again.type(f"/group 'our room' {bob}")
        await again.shows("--- our room")
        await again.type("/quit")
        assert await again.ends() == 0


async def test_it_survives_a_restart_of_the_server(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    name = unique("ann")
    async with people(server.url, "bob") as (bob,), terminal(server, tmp_path, "--no-remember") as shown:
        await shown.shows("Log in or register")
        await shown.type("r", name, f"{name}@example.org", PASSWORD)
        await shown.type(f"/with {bob.me.username}", "before")
        await shown.shows("#1 .* before")
        await trio.to_thread.run_sync(server.kill)
        await shown.shows("Connection lost")
        await shown.type("written meanwhile")
        await trio.to_thread.run_sync(server.start)
        await shown.shows("Connected again")
        await shown.shows("#2 .* written meanwhile")
        await shown.type("/quit")
        assert await shown.ends() == 0
    assert not (tmp_path / "secureconnect").exists()


async def test_a_message_that_is_not_stored_yet_is_marked(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([str(AWAY)])
    async with people(server.url, "ann", "bob") as (ann, bob):
        room = await direct(ann, bob)
        async with terminal(server, tmp_path) as shown, bob.stream() as at_bob:
            await next_event(at_bob, "online")
            await shown.type("l", ann.me.username, PASSWORD, "/list", "/open 1")
            await shown.shows("--- bob")
            await at_bob.send(room, "before")
            await shown.shows("#1 bob before")
            server.signal(signal.SIGUSR1)
            await shown.type("mine")
            await shown.shows(rf"#\? {ann.me.username} mine \(not stored yet\)")
            at_bob.post(room, "his")
            await shown.shows(r"#\? bob his \(not stored yet\)")
            server.signal(signal.SIGUSR2)
            await shown.shows("#2 ann mine\n")
            await shown.shows("#3 bob his\n")
            await shown.type("/quit")
            assert await shown.ends() == 0


async def test_a_wrong_password_is_asked_again_and_nobody_there_is_said_plainly(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server()
    async with people(server.url, "ann", "bob") as (ann, bob):
        room = await direct(ann, bob)
        async with terminal(server, tmp_path) as shown, bob.stream() as at_bob:
            await next_event(at_bob, "online")
            await shown.type("l", ann.me.username, "not it")
            await shown.shows("wrong")
            await shown.type("l", ann.me.username, PASSWORD)
            await shown.shows("1 bob")
            await at_bob.send(room, "hi")
            await shown.shows("bob wrote")
        assert json.loads((tmp_path / "secureconnect" / "chat.json").read_text())
    assert server.terminate() == 0
    async with terminal(server, tmp_path) as shown:
        assert await shown.ends() == 1


# the room's own tests try both databases
@embedded_alone
async def test_an_invite_and_a_second_factor_are_asked_for(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    name = unique("ann")
    async with people(server.url, "root") as (root,):
        await make_admin(server, root)
        server.settings["AUTH__REGISTRATION"] = "invite"
        await trio.to_thread.run_sync(server.restart)
        assert (await root.call("GET", "/v1/server", signed=False))["registration"] == "invite"
        invite = await root.call("POST", "/v1/admin/invites", {})
    async with terminal(server, tmp_path, "--no-remember") as shown:
        await shown.type("r", name, f"{name}@example.org", PASSWORD)
        await shown.shows("Invite: ")
        await shown.type(invite["link"])
        await shown.shows(f"Signed in as {name}")
        await shown.type("/quit")
    async with Client(server.url) as ann:
        await ann.login(name, PASSWORD)
        begun = await ann.call("POST", "/v1/auth/totp/enroll", {"password": PASSWORD})
        code = pyotp.TOTP(begun["secret"]).now()
        told = await ann.call("POST", "/v1/auth/totp/confirm", {"code": code})
    async with terminal(server, tmp_path, "--no-remember") as shown:
        await shown.type("l", name, PASSWORD)
        await shown.shows("Code of your authenticator app")
        await shown.type(code)  # it was used to confirm
        await shown.shows("The code is wrong, or was used before")
        await shown.type("l", name, PASSWORD, told["recovery_codes"][0])
        await shown.shows(f"Signed in as {name}")
        await shown.type("/quit")
        assert await shown.ends() == 0
