"""A server that is being written to is backed up, and an installation is made of that, as an operator does
it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from kit import command
from kit.fixtures import StartServer
from kit.http import plain
from kit.olm import OlmDevice
from kit.people import PASSWORD, direct, download_url, group, people, upload
from kit.server import Server
from kit.wait import until
from kit.worlds import World
from secureconnect.client import Client, Stream
from secureconnect.client.held import Positions
from secureconnect.clock import from_iso, now_us
from secureconnect.deps.contracts import Row, Tx
from secureconnect.deps.policy import open_database

PHRASE = "a passphrase for tests"
CONTENT = bytes(range(256)) * 3_000
ALL = 5_000  # messages: more than are written
# conversations and messages of two moments
TORN = (
    "SELECT conversation_id FROM conversations c WHERE last_seq <>"
    " (SELECT MAX(seq) FROM messages m WHERE m.conversation_id = c.conversation_id)"
)
PAUSE_S = 0.02  # who writes without any takes the processor from the backup


class Writer:
    """Writes into two conversations in turn, each message once the one before is acknowledged.  said: text,
    place, and when that was."""

    def __init__(self, stream: Stream, name: str, rooms: tuple[str, str]) -> None:
        self.said: list[tuple[str, str, int]] = []
        self._stream = stream
        self._name = name
        self._rooms = rooms

    async def write(self) -> None:
        while True:
            room, text = self._rooms[len(self.said) % 2], f"{self._name} {len(self.said)}"
            await self._stream.send(room, text)
            self.said.append((text, room, now_us()))
            await trio.sleep(PAUSE_S)

    async def goes_on(self, messages: int = 20) -> None:
        enough = len(self.said) + messages
        await until(lambda: len(self.said) >= enough, 30)


@asynccontextmanager
async def writing(clients: list[Client], rooms: tuple[str, str]) -> AsyncIterator[list[Writer]]:
    async with trio.open_nursery() as nursery:
        streams = []
        for number, client in enumerate(clients):
            stream = await nursery.start(_followed, client)
            streams.append(Writer(stream, f"writer{number}", rooms))
            nursery.start_soon(streams[-1].write)
        yield streams
        nursery.cancel_scope.cancel()


async def _followed(client: Client, task_status: trio.TaskStatus[Stream]) -> None:
    async with client.stream(events=0) as stream:
        task_status.started(stream)
        await trio.sleep_forever()


def run(*args: str | Path, at: Server) -> subprocess.CompletedProcess[str]:
    where = ("--data-dir", at.data_dir)
    return command.run(*args, *where, cwd=at.data_dir.parent, **at.settings)


async def succeeds(*args: str | Path, at: Server) -> str:
    done = await trio.to_thread.run_sync(lambda: run(*args, at=at))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def passphrase(folder: Path, text: str = PHRASE) -> Path:
    path = folder / "passphrase"
    path.touch(0o600)
    path.write_text(text + "\n")
    return path


async def rows(server: Server, sql: str) -> list[Row]:
    async def unit(tx: Tx) -> list[Row]:
        return await tx.all(sql)

    async with open_database(server.config) as db:
        return await db.read(unit)


async def texts(client: Client, room: str) -> list[str]:
    return [each["content"] for each in await client.history(room, ALL)]


def told_at(told: str) -> int:
    found = re.search(r"acknowledged until (\S+) is", told)
    assert found is not None
    return from_iso(found[1])


async def test_what_comes_back_is_a_prefix_of_the_truth_and_opens_no_door(
    start_server: StartServer, world: World, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Embedded it is plain, and the key is brought along; in the other world it is all under a passphrase."""
    is_sealed = "real" in request.node.name
    sealed = ("--passphrase-file", passphrase(tmp_path)) if is_sealed else ()
    server, dest = start_server(), tmp_path / "backups"
    async with people(server.url, "ann", "bob") as (ann, bob):
        rooms = await group(ann, bob), await direct(ann, bob)
        device = OlmDevice(bob.me.user_id, bob.me.device_id, "")
        await bob.call("POST", "/v1/keys/upload", device.bundle())
        address = {"email": f"{bob.me.username}@example.org"}
        await bob.call("POST", "/v1/auth/password-reset/request", address, signed=False)
        file_id = await upload(ann, CONTENT)
        async with writing([ann, bob], rooms) as writers:
            for writer in writers:
                await writer.goes_on()
            told = await succeeds("backup", dest, *sealed, at=server)
            for writer in writers:
                await writer.goes_on()
        truth = {room: await texts(ann, room) for room in rooms}
        async with ann.stream() as stream:
            await until(lambda: stream.is_online)
            held = stream.positions
        again = await succeeds("backup", dest, *sealed, at=server)
    assert ", 1 files of 768.0 kB, of which 1 of 768.0 kB were copied now" in told
    assert ", 1 files of 768.0 kB, of which 0 of 0 bytes were copied now" in again
    first, _ = sorted(dest.glob("2*"))

    fresh = Server(tmp_path / "fresh", **server.settings | world())
    if not is_sealed:
        fresh.data_dir.mkdir(0o700)
        shutil.copy(server.data_dir / "master.key", fresh.data_dir)
    restored = await succeeds("restore", first, *sealed, at=fresh)
    assert f"restored {first}: " in restored
    assert await rows(fresh, "SELECT 1 FROM tickets UNION ALL SELECT 1 FROM refresh_tokens"
                             " UNION ALL SELECT 1 FROM mail_tokens UNION ALL SELECT 1 FROM outbox"
                             " UNION ALL SELECT 1 FROM one_time_keys WHERE claimed_at IS NULL"
                             " UNION ALL SELECT 1 FROM sessions WHERE ended_at IS NULL") == []  # fmt: skip
    assert len(await rows(fresh, "SELECT 1 FROM one_time_keys")) == 20
    assert await rows(fresh, TORN) == []
    refused = run("restore", first, *sealed, at=fresh)
    assert (refused.returncode, "there is an installation here" in refused.stderr) == (1, True), refused
    try:
        fresh.start()
        await require_closed(fresh, ann)
        async with Client(fresh.url) as back:
            await back.login(ann.me.username, PASSWORD)
            found = {room: await texts(back, room) for room in rooms}
            for room in rooms:
                assert found[room] == truth[room][: len(found[room])]
            for writer in writers:
                require_prefix(writer, found, told_at(told))
            async with plain() as http:
                assert (await http.get(await download_url(back, file_id))).content == CONTENT
            await require_told_to_start_over(back, held, rooms)
            await require_found(back, writers[0].said[0][0])
        assert fresh.terminate() == 0
        fresh.check()
    finally:
        fresh.close()
    assert (await succeeds("audit", "verify", at=fresh)).splitlines()[-1] == "the audit log is whole"
    ((facts,),) = await rows(fresh, "SELECT facts FROM audit WHERE action = 'audit:log:restored'")
    assert first.name in facts


def require_prefix(writer: Writer, found: dict[str, list[str]], at_us: int) -> None:
    """Of what one has written: all that was acknowledged until then, and nothing without what came before."""
    there = [text in found[room] for text, room, _ in writer.said]
    assert there == sorted(there, reverse=True)
    assert all(
        is_there for is_there, (*_, said_us) in zip(there, writer.said, strict=True) if said_us < at_us
    )
    assert any(there)
    assert not all(there), "it was over before the backup was made"


async def require_closed(server: Server, earlier: Client) -> None:
    token = {"Authorization": f"Bearer {earlier.me.access_token}"}
    refresh = {"refresh_token": earlier.me.refresh_token}
    async with plain() as http:
        answers = (
            await http.get(f"{server.url}/v1/conversations", headers=token),
            await http.post(f"{server.url}/v1/auth/refresh", json=refresh),
        )
    assert [each.status_code for each in answers] == [401, 401]


async def require_told_to_start_over(client: Client, held: Positions, rooms: tuple[str, str]) -> None:
    """For what it holds is of another history."""
    async with client.stream() as stream:
        stream.positions = held
        waiting = set(rooms)
        with trio.fail_after(20):
            async for event in stream:
                if event["type"] == "reread":
                    waiting.discard(event["conversation_id"])
                if not waiting:
                    return


async def require_found(client: Client, text: str) -> None:
    """The index for search is made anew."""

    async def is_found() -> bool:
        answer = await client.call("GET", "/v1/messages/search", query={"q": text, "limit": 5})
        return bool(answer["hits"])

    await until(is_found, 20)
