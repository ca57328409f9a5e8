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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
import trio

from . import __version__, clock, log, metrics, systemd
from .audit import Audit
from .auth import (
    Announcement,
    Auth,
    Condition,
    Figures,
    Lack,
    Letters,
    Shown,
    is_banned,
    lacking,
    note_departures,
    signed_in,
)
from .auth.routes import ROUTES as AUTH_ROUTES
from .backup.schedule import scheduled
from .backup.upgrade import copy_tables
from .chat import Chat, PushParts, forget_last_seen, note_announcement
from .chat.routes import ROUTES as CHAT_ROUTES
from .chat.routes import SOCKETS as CHAT_SOCKETS
from .config import Config
from .deps.contracts import Database, Deps, Tx
from .deps.policy import open_deps
from .edge import Call
from .errors import Problem, Unavailable
from .gateway import Gateway, Mount
from .idempotency import Idempotency
from .identity import ConversationId, DeviceId, FileId, MessageId, Principal, UserId
from .node import Node
from .outbox import Outbox
from .settings import BadSetting
from .signaling import ROUTES as SIGNALING_ROUTES
from .signaling import SOCKETS as SIGNALING_SOCKETS
from .signaling import Bells, Signaling, is_called, no_bells
from .signaling.stun import StunServer
from .storage import ROUTES as STORAGE_ROUTES
from .storage import Growing, Sharing, Storage
from .supervise import GaveUp, Handle, running

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
            async with open_deps(config, copy_tables) as deps:
                await Service(config, deps).run(stop)
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
    """Everything that runs inside one process, built and not yet started.

    The node and the audit log hang on what the database tells, or told an earlier start (`_move_in`); the
    door opens before they are there if the database must be waited for.
    """

    _node: Node
    _audit: Audit
    _outbox: Outbox
    _letters: Letters

    def __init__(self, config: Config, deps: Deps) -> None:
        self._config = config
        self._deps = deps
        self._folder = Path(config.data_dir)
        metrics.watch_disk(self._folder)
        self._is_listening = False
        self._knows_database = False  # as it is now, not as it was at an earlier start
        self._lack: Lack | None = None

        def build_auth() -> Auth:
            room = Auth(
                config.auth,
                deps.db,
                self._node.secrets,
                self._folder,
                cache=deps.cache,
                signals=deps.signals,
                server_name=self._node.server_name,
                keys=config.keys,
                letters=self._letters,
                confirms_email=bool(config.smtp.url),
                outage_since_us=outage_since_us,
                feed=deps.revocations,
                bus=deps.bus,
                public_url=config.gateway.public_url,
            )
            room.connect(
                ended=self.gateway.close_sessions,
                signed_out=self.gateway.close_people,
                status_of=status_of,
                shown=shown,
                announce=announce,
                announced=note_announcement,
                figures=figures,
                condition=condition,
                parted=parted,
                hidden=forget_last_seen,
                forget=(forget_in_chat, forget_in_storage, forget_in_signaling),
                exports={
                    "chat": lambda user: self.chat.require().export_of(user),
                    "storage": lambda user: self.storage.require().export_of(user),
                    "signaling": lambda user: self.signaling.require().export_of(user),
                },
                is_here=is_here,
                tell=tell,
            )
            return room

        def build_chat() -> Chat:
            push = None
            if config.push.enabled:
                push = PushParts(config.push, deps.pusher, self._node.secrets, signed_in, is_called)
            room = Chat(
                config.chat,
                deps.db,
                deps.bus,
                deps.signals,
                self._node.history_id,
                self._node.id,
                deps.journal,
                config.journal,
                attachments=Sharing(),
                push=push,
            )
            room.connect(
                authenticate=authenticate,
                deny=deny,
                begin_history=begin_history,
                away=away,
                heartbeat_s=config.gateway.ws_ping_s,
                members_left=note_departures,
                tell_member_left=tell_member_left,
                tell_dissolved=tell_dissolved,
            )
            return room

        def build_storage() -> Storage:
            room = Storage(
                config.storage,
                deps.db,
                deps.objects,
                self._node.id,
                key=self._node.secrets.derive("storage:addresses"),
                public_url=config.gateway.public_url,
                drafts=deps.drafts,
                presigner=deps.presigner,
                is_store_away=lambda: "minio" in away(),
            )
            room.connect(tell_file=tell_file, is_banned=is_banned, is_shown=is_shown)
            return room

        def build_signaling() -> Signaling:
            room = Signaling(
                config.signaling,
                config.turn,
                deps.db,
                deps.signals,
                self._node.id,
                public_url=config.gateway.public_url,
            )
            room.connect(
                to_person=tell_of_call,
                authenticate=authenticate,
                deny=deny,
                own_stun=own_stun,
                bells=bells,
                has_ended=has_ended,
                write_down=write_down,
                shelf=shelf,
            )
            return room

        def has_ended(principal: Principal) -> bool:
            try:
                return self.auth.require().has_ended(principal)
            except Unavailable:  # it restarts; the device, if it may not come back, is given up in time
                return False

        def own_stun() -> list[str]:
            host = urlsplit(config.gateway.public_url).hostname
            try:
                port = self.stun.require().port
            except Unavailable:  # switched off, or it restarts
                return []
            if host is None or port is None:
                return []
            return [f"stun:[{host}]:{port}" if ":" in host else f"stun:{host}:{port}"]

        def outage_since_us() -> int | None:
            """In the database's time: the status tells the machine's."""
            database = next(each for each in deps.status() if each.name == "postgres")
            return None if database.status == "up" else database.since_us + deps.db.now_us() - clock.now_us()

        async def begin_history(lost: str) -> None:
            await self.auth.require().write_back()
            await self._node.begin_history(lost)
            await self._keep_node()

        def status_of(user: UserId) -> str:
            return self.chat.require().status_of(user)

        async def shown(user: UserId, message_id: MessageId) -> Shown:
            message = await self.chat.require().messages.get(user, message_id)
            content = None if message.is_encrypted else message.content
            return Shown(message.sender_id, message.conversation_id, content)

        def announce(made: Announcement) -> None:
            with suppress(Unavailable):  # the room restarts: nobody is connected
                self.chat.require().announce(made.announcement_id, made.text, made.created_us, made.until_us)

        async def figures() -> Figures:
            return Figures(self.chat.require().sockets, *await self.storage.require().figures())

        def condition() -> Condition:
            modules = {room.name: room.state for room in self._rooms}
            return Condition(modules, deps.status(), places(config))

        def parted(one: UserId, other: UserId) -> None:
            with suppress(Unavailable):  # the room restarts: nobody is shown to anybody
                self.chat.require().part(one, other)

        async def forget_in_chat(user: UserId) -> None:
            await self.chat.require().forget(user)

        async def forget_in_storage(user: UserId) -> None:
            await self.storage.require().forget(user)

        async def forget_in_signaling(user: UserId) -> None:
            await self.signaling.require().forget(user)

        def is_here(user: UserId) -> bool:
            return self.chat.require().is_here(user)

        def tell(user: UserId, device: DeviceId | None, event: bytes) -> None:
            self.chat.require().tell_person(user, device, event)

        def tell_of_call(user: UserId, event: bytes) -> None:
            with suppress(Unavailable):  # the room restarts: nobody is connected
                self.chat.require().tell_person(user, None, event)

        def bells() -> Bells:
            with suppress(Unavailable):  # the room restarts; sockets ring all the same
                return self.chat.require().bells
            return no_bells()

        async def write_down(where: ConversationId, who: UserId, facts: Mapping[str, str | int]) -> None:
            await self.chat.require().conversations.note_call(where, who, facts)

        def tell_file(owner: UserId, places: Sequence[tuple[ConversationId, int]], event: bytes) -> None:
            with suppress(Unavailable):  # the room restarts: nobody is connected
                self.chat.require().tell_of_file(owner, places, event)

        async def is_shown(tx: Tx, file_id: FileId, user: UserId) -> bool:
            try:
                recordings = self.signaling.require().recordings
            except Unavailable:  # the room restarts
                return False
            return await recordings.shows(tx, file_id, user)

        def shelf() -> Growing:
            return self.storage.require().growing

        def tell_member_left(conversation: ConversationId, user: UserId) -> None:
            with suppress(Unavailable):  # it restarts; who stayed learns it when they ask
                self.auth.require().tell_member_left(conversation, user)

        def tell_dissolved(conversation: ConversationId, at_us: int) -> None:
            with suppress(Unavailable):  # likewise
                self.auth.require().tell_dissolved(conversation, at_us)

        async def authenticate(token: str) -> Principal:
            return await self.auth.require().authenticate(token, outage=True)

        def deny(problem: Problem, call: Call) -> None:
            self._audit.deny(problem, call)

        def away() -> dict[str, tuple[str, ...]]:
            return {each.name: each.affects for each in deps.status() if each.status == "down"}

        def tell_health() -> None:
            with suppress(Unavailable):  # the room restarts: nobody is connected
                self.chat.require().tell_health()

        def vapid_public_key() -> str | None:
            try:
                pushes = self.chat.require().pushes
            except Unavailable:  # the room restarts
                return None
            return None if pushes is None else pushes.vapid_public_key

        def store_origin() -> str | None:
            if deps.presigner is None:
                return None
            url = urlsplit(deps.presigner.upload_url("any", 1, 1))  # as clients get them
            return f"{url.scheme}://{url.netloc}"

        deps.observe(tell_health)
        self.node = Handle("node", lambda: self._node)
        self.audit = Handle("audit", lambda: self._audit)
        self.idempotency = Handle("idempotency", lambda: Idempotency(config.idempotency, deps.db))
        self.outbox = Handle("outbox", lambda: self._outbox)
        self.stun = Handle("stun", lambda: StunServer(config.stun))
        self._services: tuple[Handle[Any], ...] = (self.node, self.audit, self.idempotency, self.outbox)
        if config.stun.enabled:
            self._services += (self.stun,)
        if config.backup.folder:
            self._services += (Handle("backup", lambda: scheduled(config, deps, self._node)),)
        self.auth = Handle("auth", build_auth)
        self.chat = Handle("chat", build_chat)
        self.storage = Handle("storage", build_storage)
        self.signaling = Handle("signaling", build_signaling)
        self._rooms = (self.auth, self.chat, self.storage, self.signaling)
        self.gateway = Gateway(
            config,
            mounts=(
                Mount(self.auth, AUTH_ROUTES, ()),
                Mount(self.chat, CHAT_ROUTES, CHAT_SOCKETS),
                Mount(self.storage, STORAGE_ROUTES, ()),
                Mount(self.signaling, SIGNALING_ROUTES, SIGNALING_SOCKETS),
            ),
            auth=self.auth.require,
            cache=deps.cache,
            status=deps.status,
            rooms=self._rooms,
            deny=deny,
            server_name=lambda: self._node.server_name,
            vapid_public_key=vapid_public_key,
            store_origin=store_origin(),
        )

    async def run(self, stop: trio.Event) -> None:
        """Start from the inside out; once `stop` is set, end from the outside in.

        Without its database it starts with what an earlier start has kept. If that is too little the process
        listens all the same and says what it waits for. Either way it is whole by itself once the database
        answers. Raises BadSetting, MigrationError.
        """
        async with trio.open_nursery() as edge:
            edge.start_soon(metrics.watch_loop)
            edge.start_soon(systemd.keep_told, self.gateway.standing)
            await edge.start(self._reload_on_hangup)
            await _unless(stop, self._move_in, edge)
            if not stop.is_set():
                async with (
                    running(*self._services),
                    running(*self._rooms),
                ):
                    if self._knows_database:
                        await _unless(stop, self._require_files_of_all)
                    else:
                        edge.start_soon(self._become_whole)
                    if self._is_listening:
                        self.gateway.admit_all()
                    else:
                        await self._listen(edge)
                    settle_garbage()
                    logger.info("started", version=__version__, whole=self._knows_database)
                    await stop.wait()
                    await self.gateway.drain()
            elif self._is_listening:
                await self.gateway.drain()
            edge.cancel_scope.cancel()

    async def _move_in(self, edge: trio.Nursery) -> None:
        """Take up what the database tells of this node, or told an earlier start."""
        while True:
            try:
                if self._is_database_away:
                    if await self._move_in_alone():
                        break
                    await self._listen_and_wait(edge)
                self._node = await self._deps.ready(self._open_node)
                self._knows_database = True
                await self._keep_node()
                break
            except Unavailable as problem:
                if not self._config.postgres.url:
                    raise  # a file of this machine does not come by itself
                logger.warning("database_not_ready", code=problem.code)
                await trio.sleep(self._config.breaker.probe_ms / 1000)
        self._audit = Audit(
            self._config.audit,
            self._deps.db,
            self._node.secrets.derive("audit"),
            self._node.secrets.key_id,
            self._folder / "audit.head",
        )
        self._outbox = Outbox(
            self._config.outbox,
            self._deps.db,
            self._deps.mailer,
            self._node.secrets.derive("outbox"),
            self._config.smtp.call_s,
        )
        self._letters = Letters(self._outbox, self._config.gateway.public_url)

    async def _open_node(self, db: Database) -> Node:
        host = urlsplit(self._config.gateway.public_url).hostname or "secureconnect.local"
        key = self._config.auth.master_key
        return await Node.open(db, self._folder, key, host, self._config.node_id, later=self._deps.db)

    async def _keep_node(self) -> None:
        """For a start without the database; an embedded one is always there."""
        if self._config.postgres.url:
            await self._node.keep(self._folder)

    async def _move_in_alone(self) -> bool:
        """Take up what an earlier start has kept, if people can be recognised by it. Nothing touches the
        database before `_become_whole` has held it against that."""
        if self._is_listening:
            return False  # what was too little does not grow
        self._lack = await lacking(self._config.auth, self._folder, self._deps.db.now_us())
        if self._lack is not None:
            return False
        node = await Node.reopen(
            self._deps.db, self._folder, self._config.auth.master_key, self._config.node_id
        )
        if node is None:
            self._lack = "nothing_kept"
            return False
        if not self._is_database_away:
            return False
        self._deps.hold_back()
        self._node = node
        return True

    async def _become_whole(self) -> None:
        """What is left of the start, once the database answers."""
        while True:
            try:
                await self._deps.ready(self._compare)
                await self._node.pass_once()
                break
            except Unavailable as problem:
                logger.warning("database_not_ready", code=problem.code)
                await trio.sleep(self._config.breaker.probe_ms / 1000)
        self._knows_database = True
        await self._keep_node()
        await self._require_files_of_all()
        logger.info("whole")

    async def _compare(self, db: Database) -> None:
        """Another history: whoever is connected comes again, and is told its name."""
        if self._node.take_over(await self._open_node(db)):
            self.chat.restart()

    @property
    def _is_database_away(self) -> bool:
        return any(each.name == "postgres" and each.status == "down" for each in self._deps.status())

    async def _listen_and_wait(self, edge: trio.Nursery) -> None:
        """From now on everything is answered with what is waited for."""
        if not self._is_listening:
            self.gateway.wait_for("postgres", self._lack)
            await self._listen(edge)
            logger.warning("waiting", dependency="postgres", reason=self._lack)

    async def _require_files_of_all(self) -> None:
        """Nodes that share a database share files: raises BadSetting where each would have its own."""
        if not self._config.postgres.url or self._config.minio.endpoint:
            return
        while True:
            try:
                other = await self._node.find_other()
                break
            except Unavailable:
                await trio.sleep(self._config.breaker.probe_ms / 1000)
        if other is not None:
            node_id, left_s = other
            raise BadSetting(
                f"minio.endpoint is empty, so files lie in {self._config.data_dir}, but another server uses"
                f" this database, too (node {node_id}): set it for both, or stop the other one"
                f" (if it has crashed, it counts as gone in {left_s:.0f} s)"
            )

    async def _reload_on_hangup(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGHUP) as hangups:
            task_status.started()
            async for _ in hangups:
                await self.gateway.reload()

    async def _listen(self, edge: trio.Nursery) -> None:
        try:
            urls: list[str] = await edge.start(self.gateway.run)
        except OSError as exc:
            refused = exc.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)
            if not refused and not isinstance(exc, socket.gaierror):
                raise
            at, why = self._config.gateway, str(exc.strerror).lower()
            raise BadSetting(f"gateway.host = {at.host!r}, gateway.port = {at.port}: {why}") from exc
        self._is_listening = True
        for url in urls:
            with suppress(OSError):  # like a log line: a full disk or a reader that left stops nothing
                print(f"listening on {url}", flush=True)  # noqa: T201  (scripts wait for this line)


def places(config: Config) -> dict[str, str]:
    """Where each dependency is, by its name in /health: host and port, or the data folder. No passwords."""
    urls = {
        "postgres": config.postgres.url,
        "redis": config.redis.url,
        "minio": config.minio.endpoint and f"//{config.minio.endpoint}",
        "smtp": config.smtp.url,
        "push": config.push.fcm_url if config.push.fcm_account else "",
    }
    return {
        name: urlsplit(url).netloc.rpartition("@")[2] if url else config.data_dir
        for name, url in urls.items()
    }


def settle_garbage() -> None:
    """What was made at the start is never garbage: the collector need not look at it again and again, nor so
    often at what is young. Connections that open took a third longer for it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def _unless(event: trio.Event, work: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Do it, or leave off once the event has come."""

    async def leave_off() -> None:
        await event.wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave_off)
        await work(*args)
        nursery.cancel_scope.cancel()
