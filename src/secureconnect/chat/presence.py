"""Presence and typing: what people see of each other at this moment. Never stored, and the first thing shed.

A person is online while a socket of theirs is open, and for a grace afterwards; they may choose to be away,
busy or unseen. Only changes are told, once a second, to people who share a conversation with them, and only
so many (`chat.presence_per_s`): when everybody of a large group comes at once, messages go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import trio

from ..clock import to_iso
from ..config import ChatConfig
from ..deps.contracts import Database, Tx
from ..edge import Weight
from ..errors import Problem
from ..identity import ConversationId, NodeId, UserId
from . import frames, store
from .carrier import Carrier, Seen
from .hub import Hub, Live
from .shapes import Status

CHANGES_PER_BEAT = 200  # told in one beat; the others wait, the latest word only
SAID_TTL_S = 120.0  # how long presence said over REST holds without a socket
TYPING_PAUSE_S = 1.0  # between two words about the same person in the same conversation

_RANK: dict[Status, int] = {"offline": 0, "away": 1, "online": 2, "busy": 3}


class _Here:
    """A person on this node.  until: on trio's clock, how long they are here without a socket."""

    __slots__ = ("chosen", "sockets", "until")

    def __init__(self) -> None:
        self.sockets = 0
        self.chosen: Status = "online"
        self.until = 0.0


class Presence:
    def __init__(self, config: ChatConfig, db: Database, hub: Hub) -> None:
        self._config = config
        self._db = db
        self._hub = hub
        self._here: dict[UserId, _Here] = {}
        self._elsewhere: dict[NodeId, dict[UserId, Status]] = {}
        self._published: dict[UserId, Status] = {}  # what other nodes were told; offline is left out
        self._shown: dict[UserId, Status] = {}  # what people here were told; offline is left out
        self._last_seen: OrderedDict[UserId, int] = OrderedDict()
        self._due: dict[UserId, float] = {}  # whom to look at, and when
        self._waiting: dict[UserId, None] = {}  # whose word is to be told, longest waiting first
        self._carrier: Carrier | None = None

    def connect(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def opened(self, user: UserId) -> None:
        """A socket of theirs opened."""
        here = self._here.setdefault(user, _Here())
        here.sockets += 1
        self._due[user] = 0.0

    def closed(self, user: UserId) -> None:
        here = self._here[user]
        here.sockets -= 1
        if here.sockets == 0:
            self._see(user)
            here.until = max(here.until, trio.current_time() + self._config.offline_grace_s)
            self._due.setdefault(user, here.until)

    def choose(self, user: UserId, status: Status) -> None:
        """What they want to be seen as while they are here."""
        if user not in self._here and len(self._here) >= self._config.presence_kept:
            return
        here = self._here.setdefault(user, _Here())
        here.chosen = status
        if here.sockets == 0:
            here.until = trio.current_time() + SAID_TTL_S
            self._see(user)
        self._due[user] = 0.0

    def status_of(self, user: UserId) -> Status:
        """The most present of what all nodes say."""
        found = self._status_here(user)
        for people in self._elsewhere.values():
            status = people.get(user, "offline")
            if _RANK[status] > _RANK[found]:
                found = status
        return found

    def last_seen_us(self, user: UserId) -> int | None:
        return self._last_seen.get(user)

    async def look_up(self, caller: UserId, users: list[UserId]) -> dict[UserId, bool]:
        """Those of `users` whose presence the caller may see, and whether also when they were last here."""
        return await self._db.read(_seen_by, caller, users)

    def part(self, one: UserId, other: UserId) -> None:
        """One has blocked the other: from now on neither sees whether the other is here."""
        for user, unseen in ((one, other), (other, one)):
            self._hub.tell_users([user], frames.gone(unseen))

    def heard(self, node: NodeId, seen: Seen) -> None:
        """What another node says."""
        user = UserId(seen.user_id)
        people = self._elsewhere.setdefault(node, {})
        if seen.status == "offline":
            people.pop(user, None)
        elif user in people or len(people) < self._config.presence_kept:
            people[user] = seen.status
        if seen.last_seen_us is not None:
            self._see(user, seen.last_seen_us)
        self._due[user] = 0.0

    def gone(self, node: NodeId) -> None:
        """Another node is no more, and nobody is on it."""
        for user in self._elsewhere.pop(node, {}):
            self._due[user] = 0.0

    def greet(self) -> None:
        """A node has come: tell it who is here."""
        self._publish([Seen(user, status, None) for user, status in self._published.items()])

    async def beat_once(self) -> None:
        """Tell what has changed."""
        now = trio.current_time()
        due = [user for user, at in self._due.items() if at <= now][:CHANGES_PER_BEAT]
        news: list[Seen] = []
        for user in due:
            del self._due[user]
            here = self._here.get(user)
            if here is not None and here.sockets == 0:
                if here.until <= now:
                    del self._here[user]
                else:
                    self._due[user] = here.until
            status = self._status_here(user)
            if _change(self._published, user, status):
                news.append(Seen(user, status, self.last_seen_us(user)))
        if news:
            self._publish(news)
        self._waiting.update(dict.fromkeys(due))
        told = 0
        while self._waiting and told < self._config.presence_per_s:
            user = next(iter(self._waiting))
            del self._waiting[user]
            status = self.status_of(user)
            if _change(self._shown, user, status):
                told += 1 + await self._show(user, status)

    async def _show(self, user: UserId, status: Status) -> int:
        """Returns how many were told."""
        try:
            sharers, shows_last_seen = await self._db.read(_audience, user)
        except Problem:
            return 0  # shed: whoever wants to know asks
        present = [each for each in sharers if each != user and self._hub.is_connected(each)]
        seen_us = self.last_seen_us(user) if shows_last_seen else None
        told = frames.PresenceOut(
            user_id=user, status=status, last_seen=None if seen_us is None else to_iso(seen_us)
        )
        self._hub.tell_users(present, frames.frame(told, Weight.PRESENCE))
        return len(present)

    def _status_here(self, user: UserId) -> Status:
        here = self._here.get(user)
        if here is None or (here.sockets == 0 and here.until <= trio.current_time()):
            return "offline"
        return here.chosen

    def _see(self, user: UserId, at_us: int | None = None) -> None:
        self._last_seen[user] = self._db.now_us() if at_us is None else at_us
        self._last_seen.move_to_end(user)
        if len(self._last_seen) > self._config.presence_kept:
            self._last_seen.popitem(last=False)

    def _publish(self, seen: list[Seen]) -> None:
        if self._carrier is not None:
            for start in range(0, len(seen), CHANGES_PER_BEAT):
                self._carrier.send_seen(seen[start : start + CHANGES_PER_BEAT])


def _change(known: dict[UserId, Status], user: UserId, status: Status) -> bool:
    """Note the status; whether it is another than before. Offline is not kept."""
    if known.get(user, "offline") == status:
        return False
    if status == "offline":
        del known[user]
    else:
        known[user] = status
    return True


async def _audience(tx: Tx, user: UserId) -> tuple[list[UserId], bool]:
    return await store.sharers(tx, user), await store.shows_last_seen(tx, user)


async def _seen_by(tx: Tx, caller: UserId, users: list[UserId]) -> dict[UserId, bool]:
    return {
        user: user == caller or await store.shows_last_seen(tx, user)
        for user in users
        if user == caller or await store.shares(tx, caller, user)
    }


class _Mark:
    __slots__ = ("ends_at", "is_told", "is_typing", "told_at")

    def __init__(self) -> None:
        self.is_typing = False
        self.is_told = False
        self.told_at = -TYPING_PAUSE_S
        self.ends_at = 0.0


class Typing:
    """Who is typing where, of the people on this node. Told at most once a second, and ended for them."""

    def __init__(self, config: ChatConfig, tell: Callable[[Live], None]) -> None:
        self._config = config
        self._tell = tell
        self._marks: dict[tuple[ConversationId, UserId], _Mark] = {}

    def mark(self, conversation: ConversationId, user: UserId, is_typing: bool) -> None:
        key = (conversation, user)
        mark = self._marks.get(key)
        if mark is None:
            if not is_typing or len(self._marks) >= self._config.hub_conversations:
                return
            mark = self._marks[key] = _Mark()
        mark.is_typing = is_typing
        now = trio.current_time()
        mark.ends_at = now + self._config.typing_ttl_s
        self._look(key, mark, renew=is_typing and now - mark.told_at >= self._config.typing_ttl_s / 2)

    def beat_once(self) -> None:
        now = trio.current_time()
        for key, mark in tuple(self._marks.items()):
            if mark.ends_at <= now:
                mark.is_typing = False
            self._look(key, mark)
            if not mark.is_typing and not mark.is_told and now - mark.told_at >= TYPING_PAUSE_S:
                del self._marks[key]

    def _look(self, key: tuple[ConversationId, UserId], mark: _Mark, *, renew: bool = False) -> None:
        """Tell a change, unless something was told just now."""
        now = trio.current_time()
        if (mark.is_typing != mark.is_told or renew) and now - mark.told_at >= TYPING_PAUSE_S:
            mark.is_told = mark.is_typing
            mark.told_at = now
            self._tell(frames.typing_mark(*key, mark.is_typing))
