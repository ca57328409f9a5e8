"""Rooms that push, to a push service which the test opens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import trio

from kit.pushservice import Browser, PushService
from secureconnect.chat import Chat, PushParts
from secureconnect.chat.notifications import push_store
from secureconnect.chat.notifications.pushes import Pushes
from secureconnect.clock import HOUR_US, now_us
from secureconnect.config import BreakerConfig, ChatConfig, PushConfig
from secureconnect.deps.contracts import Database, Tx, WebPushTarget
from secureconnect.deps.guard import Guard
from secureconnect.deps.memory import MemoryBus
from secureconnect.deps.push import PushServices
from secureconnect.identity import DeviceId, Principal, SessionId, UserId, new_id
from secureconnect.node import Secrets
from secureconnect.signaling import is_called

from .rig import running

SECRETS = Secrets(bytes(32))
WAITS = ChatConfig(notify_pass_s=3_600)


@dataclass
class Site:
    """What rooms that push have in common.  signed_in: the devices with a session."""

    db: Database
    bus: MemoryBus
    service: PushService
    nursery: trio.Nursery
    signed_in: dict[UserId, set[DeviceId]] = field(default_factory=dict)

    async def room(self, **settings: Any) -> Chat:
        """Its passes are the test's."""
        private = PushConfig(allow_private=True, ca_file=str(self.service.ca_file), delay_s=0, poll_s=60)
        config = replace(private, **settings)
        pusher = PushServices(config, "mailto:root@example.org", Guard("push", BreakerConfig()))
        parts = PushParts(config, pusher, SECRETS, self._signed_in, is_called)

        async def serve(task_status: trio.TaskStatus[Chat]) -> None:
            try:
                async with running(self.db, self.bus, WAITS, push=parts) as room:
                    task_status.started(room)
                    await trio.sleep_forever()
            finally:
                await pusher.close()

        room: Chat = await self.nursery.start(lambda task_status: serve(task_status))
        return room

    async def _signed_in(self, _: Tx, user: UserId, __: int) -> frozenset[DeviceId]:
        return frozenset(self.signed_in.get(user, ()))

    def device(self, user: UserId) -> Principal:
        """One more that they have signed in from."""
        device = DeviceId(new_id())
        self.signed_in.setdefault(user, set()).add(device)
        return Principal(user, SessionId(new_id()), device, "user", now_us() + HOUR_US)

    async def browser(self, room: Chat, owner: Principal, path: str = "/a", origin: str = "") -> Browser:
        """One that is registered for a device.  origin: another name of the service."""
        browser = Browser(f"{origin or self.service.origin}{path}")
        await pushes_of(room).register(owner, WebPushTarget(browser.endpoint, *browser.keys))
        return browser

    async def registered(self, user: UserId) -> list[DeviceId]:
        return [each.device_id for each in await self.db.read(push_store.registrations, user)]

    async def make_due(self) -> None:
        """What was put off, now."""

        async def hurry(tx: Tx) -> None:
            await tx.run("UPDATE pushes SET due_at = $1", self.db.now_us())

        await self.db.write(hurry)

    async def waiting(self) -> int:
        async def count(tx: Tx) -> int:
            row = await tx.one("SELECT COUNT(*) FROM pushes")
            return int(row[0]) if row else 0

        return await self.db.read(count)


def pushes_of(room: Chat) -> Pushes:
    assert room.pushes is not None
    return room.pushes


async def look(room: Chat) -> None:
    """Make what is to be told, and send what is due."""
    await room.notifier.pass_once()
    await pushes_of(room).pass_once()
