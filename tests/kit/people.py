"""People with accounts, clients, and conversations between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from kit.http import plain
from kit.server import Server
from secureconnect.client import Client, Event, Stream
from secureconnect.config_file import load
from secureconnect.deps.contracts import Tx
from secureconnect.deps.policy import open_database
from secureconnect.identity import new_id

PASSWORD = "correct horse battery"


def unique(name: str) -> str:
    """A username nobody else has on a shared server."""
    return f"{name}_{new_id()[-12:]}"


@asynccontextmanager
async def people(url: str, *names: str) -> AsyncIterator[list[Client]]:
    """Each registered and signed in."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(url)) for _ in names]
        async with trio.open_nursery() as nursery:
            for client, name in zip(clients, names, strict=True):
                nursery.start_soon(register, client, name)
        yield clients


async def register(client: Client, name: str) -> None:
    username = unique(name)
    await client.register(username, PASSWORD, f"{username}@example.org", name)


async def make_admin(server: Server, client: Client) -> None:
    """Beside the running server; sessions it has not read yet are an administrator's."""

    async def promote(tx: Tx) -> None:
        await tx.run("UPDATE users SET role = 'admin' WHERE user_id = $1", client.me.user_id)

    settings = {f"SECURECONNECT_{name}": value for name, value in server.settings.items()}
    async with open_database(load(None, settings, {"data_dir": str(server.data_dir)})) as db:
        await db.write(promote)


async def group(owner: Client, *others: Client, title: str = "room") -> str:
    """The id of a new group of these people."""
    made = await owner.create_group(title, [other.me.user_id for other in others])
    return str(made["conversation_id"])


async def direct(one: Client, other: Client) -> str:
    return str((await one.open_direct(other.me.user_id))["conversation_id"])


async def begin_upload(client: Client, content: bytes, name: str = "a.txt") -> tuple[str, str]:
    """The id of a file, and the whole address its content is to be put at."""
    announced = {"file_name": name, "file_size": len(content), "content_type": "text/plain"}
    begun = await client.call("POST", "/v1/storage/upload-url", announced)
    return begun["file_id"], whole(client, begun["upload_url"])


async def upload(client: Client, content: bytes, name: str = "a.txt") -> str:
    """The id of a file that is there."""
    file_id, url = await begin_upload(client, content, name)
    await put(url, content)
    await client.call("POST", "/v1/storage/upload-complete", {"file_id": file_id})
    return file_id


async def download_url(client: Client, file_id: str) -> str:
    answer = await client.call("GET", f"/v1/storage/download-url/{file_id}")
    return whole(client, answer["download_url"])


def whole(client: Client, url: str) -> str:
    return url if "://" in url else client.server + url


async def put(url: str, content: bytes) -> None:
    async with plain(timeout=30) as http:
        answer = await http.put(url, content=content)
    assert answer.is_success, answer.text


async def next_event(stream: Stream, kind: str, *, within_s: float = 5, **fields: object) -> Event:
    """The next event of this type with these fields; others are passed over."""
    with trio.fail_after(within_s):
        async for event in stream:
            if event["type"] == kind and all(event.get(key) == value for key, value in fields.items()):
                return event
    raise AssertionError("the stream ended")
