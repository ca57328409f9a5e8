"""People with accounts, clients, and conversations between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from secureconnect.client import Client, Event, Stream
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


async def group(owner: Client, *others: Client, title: str = "room") -> str:
    """The id of a new group of these people."""
    made = await owner.create_group(title, [other.me.user_id for other in others])
    return str(made["conversation_id"])


async def direct(one: Client, other: Client) -> str:
    return str((await one.open_direct(other.me.user_id))["conversation_id"])


async def next_event(stream: Stream, kind: str, *, within_s: float = 5, **fields: object) -> Event:
    """The next event of this type with these fields; others are passed over."""
    with trio.fail_after(within_s):
        async for event in stream:
            if event["type"] == kind and all(event.get(key) == value for key, value in fields.items()):
                return event
    raise AssertionError("the stream ended")
