"""The front door: opens what lies outside, builds the rooms, nests the nurseries, drains.

The only file that knows all rooms. What one room needs of another is handed over here, through the
supervised handles, so that nobody holds an instance that has crashed.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
import trio

from . import __version__, log, metrics
from .audit import Audit
from .auth import Auth
from .auth.routes import ROUTES as AUTH_ROUTES
from .chat import Chat
from .chat.routes import ROUTES as CHAT_ROUTES
from .chat.routes import SOCKETS as CHAT_SOCKETS
from .config import BadSetting, Config
from .deps.contracts import Deps
from .deps.policy import open_deps
from .gateway import Gateway, Mount
from .identity import Principal, UserId
from .node import Node
from .supervise import GaveUp, Handle

logger = structlog.get_logger(module="app")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXIT_MARGIN_S = 5.0


async def main(config: Config) -> int:
    """Serve until SIGTERM or SIGINT. Returns the process's exit code; raises BadSetting."""
    log.set_up(config.log)
    try:
        async with trio.open_nursery() as outermost:
            stop = trio.Event()
            await outermost.start(_watch_signals, stop, config)
            async with open_deps(config) as deps:
                service = await Service.open(config, deps)
                await service.run(stop)
            outermost.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        return _exit_code(group)
    return 0


def _exit_code(group: BaseExceptionGroup[BaseException]) -> int:
    """What ended the nurseries: our own word for it, or the group itself."""
    leaf: BaseException = group
    while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
        leaf = leaf.exceptions[0]
    if isinstance(leaf, GaveUp):
        logger.error("gave_up", reason=str(leaf))
        return 1
    raise leaf


async def _watch_signals(
    stop: trio.Event, config: Config, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The first signal starts the drain, the second ends the process at once."""
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        task_status.started()
        async for number in signals:
            if stop.is_set():
                os._exit(1)
            logger.info("stopping", signal=signal.Signals(number).name)
            stop.set()
            # Whatever a client, a disk or a thread does, the process ends in the promised time.
            bound_s = config.gateway.drain_notice_s + config.gateway.drain_s + EXIT_MARGIN_S
            last_resort = threading.Timer(bound_s, os._exit, (1,))
            last_resort.daemon = True
            last_resort.start()


class Service:
    """Everything that runs inside one process, built and not yet started."""

    def __init__(self, config: Config, deps: Deps, node: Node) -> None:
        self._config = config
        audit = Audit(
            config.audit,
            deps.db,
            node.secrets.derive("audit"),
            node.secrets.key_id,
            Path(config.data_dir) / "audit.head",
        )

        def build_auth() -> Auth:
            room = Auth(config.auth, deps.db, node.secrets)
            room.connect(ended=self.gateway.close_sessions, status_of=status_of)
            return room

        def build_chat() -> Chat:
            room = Chat(config.chat, deps.db, deps.bus, node.history_id, node.id)
            room.connect(
                authenticate=authenticate,
                deny=audit.deny,
                begin_history=begin_history,
                heartbeat_s=config.gateway.ws_ping_s,
            )
            return room

        async def begin_history(lost: str) -> None:
            await self.auth.require().write_back()
            await node.begin_history(lost)

        def status_of(user: UserId) -> str:
            return self.chat.require().status_of(user)

        async def authenticate(token: str) -> Principal:
            return await self.auth.require().authenticate(token)

        self.node = Handle("node", lambda: node)
        self.audit = Handle("audit", lambda: audit)
        self.auth = Handle("auth", build_auth)
        self.chat = Handle("chat", build_chat)
        self.gateway = Gateway(
            config,
            mounts=(
                Mount(self.auth, AUTH_ROUTES, ()),
                Mount(self.chat, CHAT_ROUTES, CHAT_SOCKETS),
            ),
            auth=self.auth.require,
            cache=deps.cache,
            status=deps.status,
            rooms=(self.auth, self.chat),
            deny=audit.deny,
            server_name=node.server_name,
        )

    @classmethod
    async def open(cls, config: Config, deps: Deps) -> Service:
        host = urlsplit(config.gateway.public_url).hostname or "secureconnect.local"
        node = await Node.open(deps.db, Path(config.data_dir), config.auth.master_key, host)
        return cls(config, deps, node)

    async def run(self, stop: trio.Event) -> None:
        """Start from the inside out; once `stop` is set, end from the outside in."""
        async with (
            _running(self.node, self.audit) as services,
            _running(self.auth, self.chat),
            trio.open_nursery() as edge,
        ):
            services.start_soon(metrics.watch_loop)
            await services.start(self._reload_on_hangup)
            for url in await self._listen(edge):
                with suppress(OSError):  # like a log line: a full disk or a reader that left stops nothing
                    print(f"listening on {url}", flush=True)  # noqa: T201  (scripts wait for this line)
            settle_garbage()
            logger.info("started", version=__version__)
            await stop.wait()
            await self.gateway.drain()
            edge.cancel_scope.cancel()

    async def _reload_on_hangup(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGHUP) as hangups:
            task_status.started()
            async for _ in hangups:
                await self.gateway.reload()

    async def _listen(self, edge: trio.Nursery) -> list[str]:
        try:
            urls: list[str] = await edge.start(self.gateway.run)
        except OSError as exc:
            refused = exc.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)
            if not refused and not isinstance(exc, socket.gaierror):
                raise
            at, why = self._config.gateway, str(exc.strerror).lower()
            raise BadSetting(f"gateway.host = {at.host!r}, gateway.port = {at.port}: {why}") from exc
        return urls


def settle_garbage() -> None:
    """What was loaded at the start is never garbage: the collector need not look at it again and again, nor
    so often at what is young. Connections that open took a third longer for it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@asynccontextmanager
async def _running(*handles: Handle[Any]) -> AsyncIterator[trio.Nursery]:
    """Supervise these for as long as the block lasts; started in order."""
    async with trio.open_nursery() as nursery:
        for handle in handles:
            await nursery.start(handle.run)
        yield nursery
        nursery.cancel_scope.cancel()
