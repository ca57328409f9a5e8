"""The process is killed while it seals: the log is whole, and what was asked again is there once."""

from __future__ import annotations

import httpx
import trio

from journeys.log import Tally
from kit.command import succeeds
from kit.fixtures import StartServer
from kit.people import people
from kit.server import Server
from secureconnect.client import Client
from secureconnect.identity import new_id

GROUPS = 10
AGAIN_S = 0.2


async def create(client: Client, tally: Tally) -> None:
    """GROUPS conversations, one after the other; whatever becomes of a request, it is made again."""
    for number in range(GROUPS):
        body, key = {"type": "group", "title": f"group {number}", "participant_ids": []}, new_id()
        while True:
            try:
                await client.call("POST", "/v1/conversations", body, idempotency_key=key)
            except httpx.TransportError:
                await trio.sleep(AGAIN_S)
            else:
                break
        tally.add()


def sealed(server: Server) -> int:
    """The rows in the chain; raises unless it is whole."""
    folder = server.data_dir
    told = succeeds("audit", "verify", "--data-dir", folder, cwd=folder.parent, **server.settings)
    assert told.endswith("the audit log is whole\n")
    return int(told.split("\n", 1)[0].removeprefix("sealed rows: "))


def kill(server: Server) -> int:
    server.kill()
    count = sealed(server)
    server.start()
    return count


async def test_killed_while_it_seals(start_server: StartServer) -> None:
    server = start_server(AUDIT__SEAL_MS="10")
    tally, seen = Tally(), [0]
    async with people(server.url, "ann", "bob", "cid") as everybody:
        with trio.fail_after(40):
            async with trio.open_nursery() as nursery:
                for client in everybody:
                    nursery.start_soon(create, client, tally)
                await tally.reaches(GROUPS)
                seen.append(await trio.to_thread.run_sync(kill, server))
        for client in everybody:
            titles = [each["title"] for each in await client.conversations()]
            assert sorted(titles) == sorted(f"group {number}" for number in range(GROUPS))
    assert server.terminate() == 0
    seen.append(await trio.to_thread.run_sync(sealed, server))
    assert seen == sorted(set(seen)), "there is ever more of it"
    assert seen[-1] >= GROUPS * len(everybody), "what was made is in it"
