"""Who someone is, while the database is away or has gone back: asked of the whole server."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from auth.harness import Clocked
from kit.fixtures import StartServer
from kit.http import plain
from kit.people import PASSWORD, people
from kit.wait import until
from kit.worlds import embedded_alone
from secureconnect.app import Service
from secureconnect.auth.kept import JOURNAL, SNAPSHOT
from secureconnect.client import ApiError
from secureconnect.client.wire import Refused, connect
from secureconnect.config import AuthConfig, Config, GatewayConfig, RateLimitsConfig
from secureconnect.deps.contracts import DependencyStatus, Deps
from secureconnect.deps.policy import open_deps
from secureconnect.deps.sqlite import Sqlite

AUTH = AuthConfig(argon2_time_cost=1, argon2_memory_kib=64, access_ttl_s=5)


@dataclass
class Running:
    """A whole server in this process, on the twins, one of which has a switch: `db`."""

    url: str
    db: Clocked


@asynccontextmanager
async def serving(folder: Path, capfd: pytest.CaptureFixture[str]) -> AsyncIterator[Running]:
    config = Config(
        data_dir=str(folder),
        auth=AUTH,
        gateway=GatewayConfig(port=0, drain_s=1.0),
        rate_limits=RateLimitsConfig(enabled=False),
    )
    async with open_deps(config) as deps, trio.open_nursery() as nursery:
        assert isinstance(deps.db, Sqlite)
        db = Clocked(deps.db)
        service = Service(config, _interruptible(deps, db))
        stop = trio.Event()
        nursery.start_soon(service.run, stop)
        printed = ""

        def listens() -> bool:
            nonlocal printed
            printed += capfd.readouterr().out
            return "listening on http" in printed

        await until(listens)
        yield Running(printed.partition("listening on ")[2].split()[0], db)
        db.bring_back()
        stop.set()


def _interruptible(deps: Deps, db: Clocked) -> Deps:
    others = [each for each in deps.status() if each.name != "postgres"]

    def status() -> list[DependencyStatus]:
        if db.away_since_us is None:
            return [*others, DependencyStatus("postgres", "sqlite", "up", 0)]
        return [*others, DependencyStatus("postgres", "sqlite", "down", db.away_since_us)]

    return msgspec.structs.replace(deps, db=db, status=status)


async def _ask(url: str, method: str, path: str, token: str) -> httpx.Response:
    async with plain(base_url=url) as http:
        return await http.request(method, path, headers={"Authorization": f"Bearer {token}"})


@asynccontextmanager
async def _socket(url: str, token: str) -> AsyncIterator[WebSocketConnection]:
    """As a browser opens it."""
    host, offered = url.removeprefix("http://"), ["secureconnect.v1", f"bearer.{token}"]
    stream = await trio.open_tcp_stream(host.partition(":")[0], int(host.partition(":")[2]))
    try:
        async with trio.open_nursery() as nursery:
            yield await wrap_client_stream(nursery, stream, host, "/v1/ws/chat", subprotocols=offered)
            nursery.cancel_scope.cancel()
    finally:
        stream.socket.close()


async def _hear(socket: WebSocketConnection, kind: str) -> None:
    """Pass over what comes before it."""
    with trio.fail_after(5):
        while json.loads(await socket.get_message())["type"] != kind:
            pass


async def _close_code(socket: WebSocketConnection) -> int | None:
    with trio.move_on_after(2):
        try:
            while True:
                await socket.get_message()
        except ConnectionClosed as closed:
            return closed.reason.code if closed.reason else None
    return None


async def test_signed_in_people_stay_so_and_can_sign_out(
    data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving(data_dir, capfd) as server, people(server.url, "ann", "bob") as (ann, bob):
        tokens, name = [client.me.access_token for client in (ann, bob)], ann.me.username
        server.db.take_away()
        refused = await _ask(server.url, "POST", "/v1/auth/ws-ticket", tokens[0])
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "UNAVAILABLE")
        assert int(refused.headers["retry-after"]) > 0
        server.db.forward(AUTH.access_ttl_s + 1)  # past the end of the tokens
        async with _socket(server.url, tokens[0]) as at_ann, _socket(server.url, tokens[1]) as at_bob:
            await _hear(at_ann, "hello")
            await _hear(at_bob, "hello")
            refused = await _ask(server.url, "GET", "/v1/auth/profile", tokens[0])
            assert refused.status_code == 503
            pending = await _ask(server.url, "POST", "/v1/auth/logout-all", tokens[0])
            assert (pending.status_code, pending.json()["data"]) == (202, {"status": "pending"})
            assert await _close_code(at_ann) == 4401
            again = await _ask(server.url, "POST", "/v1/auth/logout", tokens[0])
            assert (again.status_code, again.json()["error"]["code"]) == (401, "TOKEN_REVOKED")
            where, header = f"ws{server.url.removeprefix('http')}/v1/ws/chat", f"Bearer {tokens[0]}".encode()
            with pytest.raises(Refused) as shut:
                async with connect(where, [(b"authorization", header)]):
                    pass
            assert shut.value.status == 401
            server.db.bring_back()
            with pytest.raises(ApiError) as gone:
                await ann.refresh()
            assert gone.value.code == "TOKEN_REVOKED"
            await _hear(at_bob, "token_expiring")
            await bob.refresh()
            assert (await bob.profile())["username"] == bob.me.username
            await ann.login(name, PASSWORD)
            assert (await ann.profile())["username"] == name


@embedded_alone  # it puts back the file
async def test_a_killed_server_on_an_older_database_still_refuses(start_server: StartServer) -> None:
    """What was ended is in its folder, not in the database alone."""
    server = start_server(LOG__LEVEL="warning")
    async with people(server.url, "ann", "bob") as (ann, bob):
        token, session, spent = ann.me.access_token, ann.me.session_id, ann.me.refresh_token
        await ann.logout()
        path = trio.Path(server.data_dir / SNAPSHOT)

        async def is_kept() -> bool:
            return await path.exists() and session in await path.read_text()

        await until(is_kept)
        assert (await path.stat()).st_mode & 0o777 == 0o600
        await trio.to_thread.run_sync(server.kill)
        await trio.to_thread.run_sync(_go_back, server.data_dir)
        await trio.to_thread.run_sync(server.start)
        refused = await _ask(server.url, "GET", "/v1/auth/profile", token)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "TOKEN_REVOKED")
        async with plain(base_url=server.url) as http:
            refused = await http.post("/v1/auth/refresh", json={"refresh_token": spent})
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "TOKEN_REVOKED")
        assert await bob.profile()
    assert not await trio.Path(server.data_dir / JOURNAL).exists()
    rows = await trio.to_thread.run_sync(_revoked, server.data_dir)
    assert rows == [(session,)]


def _go_back(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "secureconnect.db")) as db, db:
        db.execute("DELETE FROM revocations")
        db.execute("UPDATE sessions SET ended_at = NULL")


def _revoked(folder: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(folder / "secureconnect.db")) as db:
        return db.execute("SELECT session_id FROM revocations").fetchall()
