"""TLS before a server that speaks none, signed by an authority of the tests' own."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio
import trustme

Stream = trio.SSLStream[trio.SocketStream]


@asynccontextmanager
async def tls_before(endpoint: str, authority_file: Path) -> AsyncIterator[str]:
    """The host and port at which `endpoint` speaks TLS.  authority_file: whom to trust for it; written."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(authority_file)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    host, _, port = endpoint.partition(":")

    async def serve(client: Stream) -> None:
        async with client, await trio.open_tcp_stream(host, int(port)) as server, trio.open_nursery() as both:
            both.start_soon(_carry, client, server, both.cancel_scope)
            both.start_soon(_carry, server, client, both.cancel_scope)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(
            partial(trio.serve_ssl_over_tcp, serve, 0, context, host="127.0.0.1", https_compatible=True)
        )
        yield f"127.0.0.1:{listener.transport_listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def _carry(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, both: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError):
        while chunk := await source.receive_some(65536):
            await sink.send_all(chunk)
    both.cancel()
