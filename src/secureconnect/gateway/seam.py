"""Hypercorn and Quart, loaded for the first connection that speaks HTTP/2.

They would be a third of what a start loads, and a server behind a proxy never needs them: it is asked over
HTTP/1.1. It happens in a thread, so that the others go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import trio

from ..config import GatewayConfig
from .admission import Gate
from .routing import Router
from .transport import Transport

if TYPE_CHECKING:
    from hypercorn.config import Config as EngineConfig

    from .http2 import Http2
    from .rest import Rest


class _Loaded(NamedTuple):
    http2: type[Http2]
    engine: EngineConfig
    rest: Rest


class Seam:
    """What is served by others' engines."""

    def __init__(self, config: GatewayConfig, router: Router, gate: Gate) -> None:
        self._config = config
        self._router = router
        self._gate = gate
        self._loaded: _Loaded | None = None
        self._loading = trio.Lock()

    async def load(self) -> _Loaded:
        """At once if it has been loaded."""
        if self._loaded is None:
            async with self._loading:
                if self._loaded is None:
                    self._loaded = await trio.to_thread.run_sync(self._load)
            await trio.lowlevel.checkpoint_if_cancelled()  # which the thread does not hear of
        return self._loaded

    async def http2(self, transport: Transport, first: bytes) -> Http2:
        """The engine of a connection.  first: what was read already."""
        loaded = await self.load()
        return loaded.http2(transport, first, loaded.rest.serve, self._config, loaded.engine)

    def _load(self) -> _Loaded:
        from .http2 import Http2, engine_config
        from .rest import Rest

        return _Loaded(Http2, engine_config(), Rest(self._router, self._gate, self._config.body_limit_bytes))
