"""The client: what the terminal, the tests and the benchmarks speak to a server with.

`Client` makes the REST calls and keeps the tokens fresh. `client.stream()` is the WebSocket: it comes back by
itself after whatever happens, resumes where it was, and sends again what was not acknowledged, so that its
user sees each event once and each message of theirs is stored once. `client.signaling(call_id)` is the device
in a call, and comes back in the same way.

    async with Client("http://127.0.0.1:8080") as client:
        await client.login("ann", "correct horse")
        async with client.stream() as stream:
            await stream.send(conversation_id, "hello")
            async for event in stream:
                ...
"""

from .answers import ApiError
from .held import Event, OutboxFull
from .http import Client, Credentials
from .signaling import Signaling
from .stream import ConnectionLost, Stream, StreamEnded

__all__ = [
    "ApiError",
    "Client",
    "ConnectionLost",
    "Credentials",
    "Event",
    "OutboxFull",
    "Signaling",
    "Stream",
    "StreamEnded",
]
