"""The command line beside a running server, and what such a server loads."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import sys
from contextlib import closing
from functools import partial
from importlib.metadata import packages_distributions
from pathlib import Path

import httpx
import jwt
import pytest
import trio

from kit.command import fails, run, succeeds
from kit.fixtures import StartServer
from kit.people import people
from kit.ports import free_port
from kit.server import START_S, Server
from kit.wait import until
from secureconnect.client import ApiError

# third-party distributions that an embedded start may load; a new one needs a reason
LOADED = {
    "argon2-cffi",
    "argon2-cffi-bindings",
    "attrs",
    "cffi",
    "cryptography",
    "greenlet",  # structlog looks for it, and trio-asyncio brings it
    "httptools",
    "idna",
    "msgspec",
    "outcome",
    "prometheus_client",
    "PyJWT",
    "PyOTP",
    "sniffio",
    "sortedcontainers",
    "structlog",
    "trio",
    "typing_extensions",
    "uuid_utils",
    "websockets",
}
NOT_LOADED = {
    "asyncpg",
    "click",
    "google",  # protobuf
    "h2",
    "httpx",
    "hypercorn",
    "miniopy_async",
    "opentelemetry",
    "pydantic",
    "quart",
    "redis",
    "rich",
    "trio_asyncio",
    "trio_websocket",
    "typer",
    "werkzeug",
    "wsproto",
}

TELLS_ITS_MODULES = """
import json, os, pathlib, sys
from secureconnect.cli.main import run
def tell(code, leave=os._exit):
    loaded = [name for name, module in sys.modules.items() if module is not None]
    pathlib.Path("modules.json").write_text(json.dumps(loaded))
    leave(code)
os._exit = tell
run()
"""


async def in_thread(server: Server, *args: str, **settings: str) -> str:
    """Output of a command run on this server's data."""
    command = (*args, "--data-dir", str(server.data_dir))
    return await trio.to_thread.run_sync(lambda: succeeds(*command, cwd=server.data_dir.parent, **settings))


async def test_what_an_embedded_start_loads(start_server: StartServer) -> None:
    server = start_server(("-c", TELLS_ITS_MODULES))
    async with people(server.url, "ann") as (ann,), ann.stream():
        pass
    assert await trio.to_thread.run_sync(server.terminate) == 0
    modules = json.loads(await (trio.Path(server.data_dir.parent) / "modules.json").read_text())
    top = {name.partition(".")[0] for name in modules}
    assert not top & NOT_LOADED
    distributions = packages_distributions()
    loaded = {name for module in top for name in distributions.get(module, [])} - {
        "secureconnect",
        "setuptools",
    }
    assert loaded <= LOADED
    ours = {name for name in modules if name.startswith("secureconnect.")}
    assert "secureconnect.cli.start" in ours
    assert not {name for name in ours if name.startswith(("secureconnect.client", "secureconnect.cli.chat"))}
    assert {name.removeprefix("secureconnect.deps.") for name in ours if ".deps." in name} == {
        "breaker",
        "contracts",
        "draft",
        "files",
        "guard",
        "guarded",
        "journal",
        "mail",
        "memory",
        "meters",
        "migrate",
        "policy",
        "public",
        "push",
        "spool",  # which looks for files that an earlier run with MinIO has left
        "sqlite",
        "sqlite_copies",
        "sqlite_jobs",
        "sqlite_log",
        "sqlite_snapshot",
        "sqlite_unit",
        "upgrade",
        "webpush",
    }


async def test_one_server_to_a_data_folder(start_server: StartServer) -> None:
    server = start_server()

    def second() -> str:
        return fails(1, "serve", "--port", "0", "--data-dir", server.data_dir, cwd=server.data_dir.parent)

    assert "is in use by another server" in await trio.to_thread.run_sync(second)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_ends_with_0(start_server: StartServer, number: signal.Signals) -> None:
    server = start_server()
    server.signal(number)
    assert await trio.to_thread.run_sync(server.wait) == 0


async def test_it_serves_when_nobody_takes_its_output(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "secureconnect", "serve", "--port", str(port), "--data-dir", "data"]
    async with trio.open_nursery() as nursery, await trio.open_file("/dev/full", "w") as full:
        run_it = partial(trio.run_process, command, cwd=tmp_path, stdout=full.fileno(), check=False)
        process = await nursery.start(run_it)

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
            except httpx.TransportError:
                assert process.poll() is None
                return False

        await until(answers, START_S)
        process.terminate()


async def test_a_server_short_of_disk_can_be_started_again(start_server: StartServer) -> None:
    """It stores nothing new; what is there can be read, and people can sign out."""
    server = start_server()
    async with people(server.url, "ann") as (ann,):
        server.settings["SQLITE__DISK_RESERVE_MB"] = "1048576"
        await trio.to_thread.run_sync(server.restart)
        assert (await ann.profile())["user_id"] == ann.me.user_id
        with pytest.raises(ApiError) as refused:
            await ann.create_group("room", [])
        assert refused.value.code == "DISK_FULL"
        await ann.logout()


async def test_keys_rotate_on_a_running_server(start_server: StartServer) -> None:
    """New tokens are signed with the new key at once where no lead is asked for; old tokens go on."""
    server = start_server(AUTH__KEY_LEAD_S="0")
    async with people(server.url, "ann") as (ann,):
        old = await ann.access_token()
        assert "signing key 2" in await in_thread(server, "keys", "rotate", AUTH__KEY_LEAD_S="0")

        assert (await ann.profile())["user_id"] == ann.me.user_id
        with trio.fail_after(10):
            while key_id(await ann.access_token()) == key_id(old):
                await ann.refresh()
        assert (await ann.profile())["user_id"] == ann.me.user_id


def key_id(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


async def test_the_audit_log_of_a_running_server(start_server: StartServer) -> None:
    server = start_server(AUDIT__SEAL_MS="20")
    head = server.data_dir / "audit.head"
    async with people(server.url, "ann", "bob"):
        pass

    def sealed() -> bool:
        return head.exists() and int(head.read_text().split()[0]) >= 2

    await until(sealed)
    text = await in_thread(server, "audit", "verify")
    assert re.match(r"sealed rows: [2-9]\d*\n", text)
    assert text.endswith("the audit log is whole\n")
    assert await trio.to_thread.run_sync(server.terminate) == 0
    text = await in_thread(server, "audit", "verify")
    assert "prove nothing: 0\n" in text, "what was left is sealed at the end"
    text = await in_thread(server, "audit", "export", "--after", "1")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["position"] for row in rows] == list(range(2, rows[-1]["position"] + 1))
    assert {row["action"] for row in rows} == {"auth:user:registered", "auth:session:opened"}
    kept = server.data_dir.parent / "kept.head"
    kept.write_bytes(head.read_bytes())

    await trio.to_thread.run_sync(tamper, server.data_dir)

    def verify(*args: str | Path) -> tuple[int, list[str]]:
        done = run("audit", "verify", *args, "--data-dir", server.data_dir, cwd=server.data_dir.parent)
        return done.returncode, done.stdout.splitlines()

    code, lines = await trio.to_thread.run_sync(verify)
    assert code == 1
    assert [line for line in lines if re.match(r"WRONG: row 1 \(\S+\) was changed", line)]
    head.unlink()
    code, lines = await trio.to_thread.run_sync(verify, "--head", kept)
    assert code == 1
    assert not [line for line in lines if "no head file" in line]


def tamper(data_dir: Path) -> None:
    with closing(sqlite3.connect(data_dir / "secureconnect.db")) as file, file:
        assert file.execute("UPDATE audit SET actor_id = NULL WHERE position = 1").rowcount == 1
