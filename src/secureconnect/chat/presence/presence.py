"""Who is here: what sockets say together, on this node and on the others, and who is told when that changes.

A socket is online until it says otherwise. What is said over REST holds for the sockets of that device, on
whichever node they are; without any, for a while. A person is busy where anything of theirs says so, else
online, else away; what says offline does not count. So nobody is unseen who is shown by another device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from contextlib import suppress
from typing import NamedTuple

import structlog
import trio

from ...clock import SECOND_US, to_iso
from ...config import ChatConfig
from ...deps.contracts import Database, Tx
from ...edge import Weight
from ...errors import Problem
from ...identity import DeviceId, NodeId, UserId
from ...periodic import every
from .. import frames
from ..carrier import Carrier, Said, Seen
from ..connection import Connection
from ..hub import Hub
from ..shapes import Status
from ..store import NO_ID
from . import store
from .sightings import Sightings

log = structlog.get_logger(module="chat")

BEAT_S = 1.0
SAID_TTL_S = 120.0  # how long what was said over REST holds without a socket
WORDS_KEPT = 16  # of devices of one person without a socket
SHARERS_PAGE = 1_000  # people looked through at a time for those who are here
SHARERS_PAGES = 10

_RANK: dict[Status, int] = {"offline": 0, "away": 1, "online": 2, "busy": 3}


def most_present(statuses: Iterable[Status]) -> Status:
    return max(statuses, key=_RANK.__getitem__, default="offline")


class Sight(NamedTuple):
    """How somebody shows.  seen_us: when they were last here, where that is known and shown."""

    user_id: UserId
    status: Status
    seen_us: int | None


class _Word(NamedTuple):
    """What a device has said, and until when on trio's clock that holds without a socket of its own."""

    status: Status
    until: float


class _Here:
    """A person on this node."""

    __slots__ = ("sockets", "words")

    def __init__(self) -> None:
        self.sockets: dict[Connection, Status] = {}
        self.words: dict[DeviceId, _Word] = {}

    def status(self) -> Status:
        now = trio.current_time()
        words = [word.status for word in self.words.values() if word.until > now]
        return most_present([*self.sockets.values(), *words])

    def said(self, device: DeviceId) -> Status:
        """What it has said that still holds; offline if nothing does."""
        word = self.words.get(device)
        return word.status if word is not None and word.until > trio.current_time() else "offline"

    def keep(self, device: DeviceId, word: _Word) -> None:
        self.words.pop(device, None)
        self.words[device] = word
        if len(self.words) > WORDS_KEPT:
            del self.words[next(iter(self.words))]

    def of(self, device: DeviceId) -> list[Connection]:
        return [each for each in self.sockets if each.socket.principal.device_id == device]


class Presence:
    def __init__(self, config: ChatConfig, db: Database, hub: Hub) -> None:
        self._config = config
        self._db = db
        self._hub = hub
        self.sightings = Sightings(config, db)
        self._here: dict[UserId, _Here] = {}
        self._elsewhere: dict[NodeId, dict[UserId, Status]] = {}
        self._published: dict[UserId, Status] = {}  # what other nodes were told; offline is left out
        self._shown: dict[UserId, Status] = {}  # what people here were told; offline is left out
        self._due: dict[UserId, float] = {}  # whom to look at, and when
        self._waiting: dict[UserId, None] = {}  # whose word is to be told, longest waiting first
        self._parted: dict[tuple[UserId, UserId], None] = {}  # who is to vanish for each other
        self._carrier: Carrier | None = None

    def connect(self, carrier: Carrier) -> None:
        self._carrier = carrier

    # what is said here

    def opened(self, connection: Connection) -> None:
        """It says what its device has said lately."""
        here = self._here.setdefault(connection.user_id, _Here())
        word = here.words.pop(connection.socket.principal.device_id, None)
        holds = word is not None and word.until > trio.current_time()
        here.sockets[connection] = word.status if word is not None and holds else "online"
        self._due[connection.user_id] = 0.0

    def closed(self, connection: Connection) -> None:
        """For a grace it counts as if it were open: people change networks."""
        user, device = connection.user_id, connection.socket.principal.device_id
        here = self._here[user]
        status = here.sockets.pop(connection)
        if not here.of(device):
            here.keep(device, _Word(status, trio.current_time() + self._config.offline_grace_s))
        if status != "offline":
            self.sightings.see(user)
        self._due[user] = 0.0

    def say(self, connection: Connection, status: Status) -> None:
        """What one socket wants its person to be seen as."""
        here = self._here[connection.user_id]
        self._leave(connection.user_id, here.sockets[connection], status)
        here.sockets[connection] = status

    def choose(self, user: UserId, device: DeviceId, status: Status) -> None:
        """What a device says without a socket: for all it has, here and on other nodes."""
        if self._carrier is not None:
            self._carrier.send_said(Said(user, device, status))
        if self._say_all(user, device, status):
            return
        if user not in self._here and len(self._here) >= self._config.presence_kept:
            return
        here = self._here.setdefault(user, _Here())
        self._leave(user, here.said(device), status)
        here.keep(device, _Word(status, trio.current_time() + SAID_TTL_S))
        if status != "offline":
            self.sightings.see(user)

    def _say_all(self, user: UserId, device: DeviceId, status: Status) -> bool:
        """Whether the device has sockets here."""
        here = self._here.get(user)
        mine = here.of(device) if here is not None else []
        for connection in mine:
            self.say(connection, status)
        return bool(mine)

    def _leave(self, user: UserId, before: Status, status: Status) -> None:
        """Who is unseen from now on was last here now."""
        if before != "offline" and status == "offline":
            self.sightings.see(user)
        self._due[user] = 0.0

    # what other nodes say

    def heard(self, node: NodeId, seen: Seen) -> None:
        """Somebody there, who may have been so before: most are, when a node says who all are there."""
        user = UserId(seen.user_id)
        people = self._elsewhere.setdefault(node, {})
        if seen.last_seen_us is not None:
            self.sightings.see(user, seen.last_seen_us)
        is_kept = user in people or len(people) < self._config.presence_kept
        if is_kept and _change(people, user, seen.status):
            self._due[user] = 0.0

    def heard_all(self, node: NodeId, named: Set[UserId]) -> None:
        """Nobody else is there."""
        for user in self._elsewhere.get(node, {}).keys() - named:
            self.heard(node, Seen(user, "offline", None))

    def heard_said(self, said: Said) -> None:
        """What a device has said on another node."""
        self._say_all(UserId(said.user_id), DeviceId(said.device_id), said.status)

    def gone(self, node: NodeId, silent_s: float) -> None:
        """Another node is no more, and nobody is on it."""
        at_us = self._db.now_us() - int(silent_s * SECOND_US)
        for user in self._elsewhere.pop(node, {}):
            self.sightings.see(user, at_us)
            self._due[user] = 0.0

    def greet(self) -> None:
        """Tell the other nodes who is here: one has come, or has missed a change."""
        if self._carrier is not None:
            self._carrier.send_all([Seen(user, status, None) for user, status in self._published.items()])

    # who is told

    async def beat_forever(self) -> None:
        while True:
            await self.beat_once()
            await trio.sleep(BEAT_S)

    async def beat_once(self) -> None:
        """Tell what has changed; while others need the database more, that waits."""
        self._publish()
        with suppress(Problem):
            await self._part()
            await self._tell()

    def _publish(self) -> None:
        """Look at those who are due, and tell the other nodes."""
        now = trio.current_time()
        due = [user for user, at in self._due.items() if at <= now][: self._config.presence_per_s]
        news: list[Seen] = []
        for user in due:
            del self._due[user]
            self._look(user, now)
            status = self._status_here(user)
            if _change(self._published, user, status):
                news.append(Seen(user, status, self.sightings.of(user)))
        if news and self._carrier is not None:
            self._carrier.send_seen(news)
        self._waiting.update(dict.fromkeys(due))

    async def _part(self) -> None:
        """A stranger is told nothing, or would learn of the block."""
        while self._parted:
            both = next(iter(self._parted))
            shares = await self._db.read(store.share, *both)
            for user, unseen in (both, both[::-1]):
                if shares and unseen in self._shown:
                    self._hub.tell_users([user], frames.gone(unseen))
            self._parted.pop(both, None)

    async def _tell(self) -> None:
        told = 0
        while self._waiting and told < self._config.presence_per_s:
            user = next(iter(self._waiting))
            del self._waiting[user]
            status, before = self.status_of(user), self._shown.get(user, "offline")
            if not _change(self._shown, user, status):
                continue
            try:
                told += 1 + await self._show(user, status)
            except Problem:
                _change(self._shown, user, before)
                self._waiting[user] = None
                raise

    def _look(self, user: UserId, now: float) -> None:
        """Let go of what holds no more; look again when the next of it ends."""
        here = self._here.get(user)
        if here is None:
            return
        for device in [device for device, word in here.words.items() if word.until <= now]:
            del here.words[device]
        if here.words:
            self._due[user] = min(word.until for word in here.words.values())
        elif not here.sockets:
            del self._here[user]

    async def _show(self, user: UserId, status: Status) -> int:
        """Returns how many were told."""
        sharers, shows_last_seen = await self._db.read(_audience, user, self._config.presence_audience)
        present = [each for each in sharers if each != user and self._hub.is_connected(each)]
        seen_us = self.sightings.of(user) if shows_last_seen else None
        told = frames.PresenceOut(
            user_id=user, status=status, last_seen=None if seen_us is None else to_iso(seen_us)
        )
        self._hub.tell_users(present, frames.frame(told, Weight.PRESENCE))
        return len(present)

    def part(self, one: UserId, other: UserId) -> None:
        """One has blocked the other: with the next beat neither sees whether the other is here. Not before,
        or a word that is just being told might come after."""
        if len(self._parted) < self._config.presence_kept:
            self._parted[one, other] = None

    # who asks

    def status_of(self, user: UserId) -> Status:
        """The most present of what all nodes say."""
        elsewhere = [people[user] for people in self._elsewhere.values() if user in people]
        return most_present([self._status_here(user), *elsewhere])

    def is_elsewhere(self, user: UserId) -> bool:
        """Whether another node says that they are there."""
        return any(user in people for people in self._elsewhere.values())

    def own(self, user: UserId) -> Sight:
        """How somebody shows, as they see it themselves."""
        return Sight(user, self.status_of(user), self.sightings.of(user))

    async def look_up(self, caller: UserId, users: Sequence[UserId]) -> list[Sight]:
        """Those of `users`, `store.PAGE` at most, whose presence the caller may see."""
        return [self._sight(each) for each in await self._db.read(store.visible, caller, users)]

    async def here_now(self, caller: UserId, after: str, limit: int) -> tuple[list[Sight], str | None]:
        """Those who are here, of the people who share a conversation with the caller; by id, from after that
        one on. Also where to go on; a page may be short and not the last."""
        here: list[UserId] = []
        for _ in range(SHARERS_PAGES):
            sharers = await self._db.read(store.sharers, caller, after, SHARERS_PAGE)
            for user in sharers:
                after = user
                if user != caller and self.status_of(user) != "offline":
                    here.append(user)
                    if len(here) == limit:
                        return await self.look_up(caller, here), after
            if len(sharers) < SHARERS_PAGE:
                return await self.look_up(caller, here), None
        return await self.look_up(caller, here), after

    def _sight(self, of: store.Visible) -> Sight:
        seen_us = self.sightings.of(of.user_id, of.seen_us) if of.shows_last_seen else None
        return Sight(of.user_id, self.status_of(of.user_id), seen_us)

    def _status_here(self, user: UserId) -> Status:
        here = self._here.get(user)
        return "offline" if here is None else here.status()

    # when they were last here

    async def save_once(self) -> int:
        """Write when people were last here. Returns how many rows that were."""
        return await self.sightings.save_once(list(self._published))

    async def save_forever(self) -> None:
        await every(self._config.last_seen_save_s, self.save_once, log, "last_seen_not_saved")


def _change(known: dict[UserId, Status], user: UserId, status: Status) -> bool:
    """Note the status; whether it is another than before. Offline is not kept."""
    if known.get(user, "offline") == status:
        return False
    if status == "offline":
        del known[user]
    else:
        known[user] = status
    return True


async def _audience(tx: Tx, user: UserId, limit: int) -> tuple[list[UserId], bool]:
    return await store.sharers(tx, user, NO_ID, limit), await store.shows_last_seen(tx, user)
