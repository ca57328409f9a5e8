"""Finds what people are to be notified of: follows each conversation's `change`, behind everything else.

The writer says which conversations moved; a look at the table from time to time finds those a crash has made
it forget. How far one has been looked through moves in the transaction that makes the notifications, so that
each is made once, whichever node does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import structlog
import trio

from ...clock import MINUTE_US
from ...config import ChatConfig
from ...deps.contracts import Database, Tx
from ...identity import ConversationId, UserId, is_id
from ...periodic import every, modestly
from .. import changes
from .. import store as conversations
from ..changes import Event
from ..hub import Hub
from ..store import Conversation
from . import store
from .making import UNMADE, Maker
from .store import Happened, Kind, Notification, Said

log = structlog.get_logger(module="chat")

TOGETHER = 5  # conversations in one transaction
PAGE = 500  # changes of one conversation looked at in it
SWEEP_S = 30.0  # between two looks for what was forgotten
SWEEP_US = 60 * MINUTE_US  # how far back the first of them looks, and
RESWEEP_US = 5 * MINUTE_US  # each after it
NEWS_US = 10 * MINUTE_US  # what happened longer before a conversation is first looked at is no news


class Notice(NamedTuple):
    """Something one person should know of.  change: what told it.  is_edit: it became so by an edit."""

    change: int
    user_id: UserId
    kind: Kind
    ref: str
    seq: int | None
    actor_id: UserId | None
    is_edit: bool = False


class _Mentions(msgspec.Struct):
    """Of a message's metadata."""

    mentions: list[str] = []


class _Edited(msgspec.Struct):
    mentioned: list[UserId] = []


class Notifier:
    """tell: takes what was made, once it is committed."""

    def __init__(
        self,
        config: ChatConfig,
        db: Database,
        hub: Hub,
        maker: Maker,
        tell: Callable[[Notification], None],
    ) -> None:
        self._config = config
        self._db = db
        self._hub = hub
        self._maker = maker
        self._tell = tell
        self._moved: dict[ConversationId, None] = {}
        self._sweep_at = -SWEEP_S
        self._reach_us = SWEEP_US

    def heard(self, events: Iterable[Event]) -> None:
        """These are committed. Never waits; one that is forgotten for want of room is found later."""
        for event in events:
            if self._may_notify(event) and len(self._moved) < self._config.hub_conversations:
                self._moved[event.conversation_id] = None

    def _may_notify(self, event: Event) -> bool:
        """Most messages of groups notify nobody, and most edits."""
        if event.kind == "message_edited":
            return event.mentioned is not None
        message = event.message
        if message is None or event.kind != "chat":
            return event.kind != "chat" and not event.kind.startswith("poll")
        is_plain = message.metadata is None and message.reply_to is None
        return not (is_plain and self._hub.is_direct(event.conversation_id) is False)

    async def pass_once(self) -> int:
        """Look through what has moved. Returns how many notifications that made. Safe to repeat, and on every
        node."""
        if trio.current_time() >= self._sweep_at:
            since_us = self._db.now_us() - self._reach_us
            found = await self._db.read(store.behind, since_us, self._config.hub_conversations)
            self._moved.update(dict.fromkeys(found))
            self._sweep_at, self._reach_us = trio.current_time() + SWEEP_S, RESWEEP_US
        waiting, self._moved = sorted(self._moved), {}
        made = 0
        try:
            while waiting:
                batch = waiting[:TOGETHER]
                made += await modestly(self._config.background_share, partial(self._go_on, batch))
                waiting = waiting[TOGETHER:]
        finally:
            self._moved.update(dict.fromkeys(waiting))
        return made

    async def _go_on(self, names: Sequence[ConversationId]) -> int:
        """Make notifications, and tell of them before anything rests."""
        notifications, unfinished = await self._db.write(self._look_through, names)
        self._moved.update(dict.fromkeys(unfinished))
        for notification in notifications:
            self._tell(notification)
        return len(notifications)

    async def pass_forever(self) -> None:
        await every(self._config.notify_pass_s, self.pass_once, log, "not_notified")

    async def _look_through(
        self, tx: Tx, names: Sequence[ConversationId]
    ) -> tuple[list[Notification], list[ConversationId]]:
        """What was made, and where there is more to look at.  names: in order, by which they are held."""
        made: list[Notification] = []
        unfinished: list[ConversationId] = []
        for name in names:
            conversation = await conversations.get(tx, name)
            if conversation is None:
                continue
            after = await self._position(tx, conversation)
            until = min(conversation.last_change, after + PAGE)
            if until <= after:
                continue
            await store.move(tx, name, until)
            if until < conversation.last_change:
                unfinished.append(name)
            said = await store.said(tx, name, after, until)
            happened = await store.happened(tx, name, after, until)
            await self._take_away(tx, name, happened)
            others = (
                list(await conversations.viewers(tx, name)) if _needs_members(conversation, happened) else []
            )
            for notice in _in_order(conversation, _notices(conversation, others, said, happened)):
                notification = await self._notify(tx, name, notice)
                if notification is not None:
                    made.append(notification)
        return made, unfinished

    async def _position(self, tx: Tx, conversation: Conversation) -> int:
        known = await store.position(tx, conversation.conversation_id)
        if known is not None:
            return known
        old = await changes.last_before(tx, conversation, self._db.now_us() - NEWS_US)
        return await store.set_out(tx, conversation.conversation_id, old)

    @staticmethod
    async def _take_away(tx: Tx, conversation: ConversationId, happened: Sequence[Happened]) -> None:
        for each in happened:
            if each.kind == "conversation_deleted":
                await store.drop_all(tx, conversation)
            elif each.ref is not None and each.kind == "message_deleted":
                await store.drop_about(tx, conversation, each.ref)
            elif each.ref is not None and each.kind == "user_left":
                await store.drop_left(tx, conversation, UserId(each.ref))
            elif each.ref is not None and each.kind == "reaction" and each.actor_id and not each.holds:
                await store.drop_reaction(tx, conversation, each.ref, each.actor_id)

    async def _notify(self, tx: Tx, conversation: ConversationId, notice: Notice) -> Notification | None:
        """None for what they may not see, do not want to know, or know already."""
        reader = await store.reader(tx, conversation, notice.user_id)
        if reader is None:
            return None
        if notice.seq is not None and notice.seq < reader.visible_from_seq:
            return None
        now_us = self._db.now_us()
        if not reader.wants(notice.kind, now_us):
            return None
        if notice.is_edit:  # news of what they have read, too, but once
            if await store.is_told(tx, conversation, notice.user_id, notice.ref):
                return None
        elif notice.kind != "reaction" and notice.seq is not None and notice.seq <= reader.last_read_seq:
            return None
        if notice.actor_id is not None and not await conversations.are_clear(
            tx, notice.actor_id, notice.user_id
        ):
            return None
        wanted = Notification(
            UNMADE, notice.user_id, notice.kind, conversation, notice.ref, notice.seq, notice.actor_id, now_us
        )
        return await self._maker.make(tx, wanted)


def _needs_members(conversation: Conversation, happened: Sequence[Happened]) -> bool:
    return conversation.type == "direct" or any(each.change == 1 for each in happened)


def _in_order(conversation: Conversation, notices: Iterable[Notice]) -> list[Notice]:
    """As they happened; of what would take each other's place the last."""
    name = str(conversation.conversation_id)
    found = {
        (each.user_id, each.kind, name if each.kind == "message" else each.ref): each for each in notices
    }
    return sorted(found.values(), key=lambda notice: notice.change)


def _notices(
    conversation: Conversation,
    members: Sequence[UserId],
    said: Sequence[Said],
    happened: Sequence[Happened],
) -> Iterator[Notice]:
    """In no order; who may see what is asked later.  members: of a direct or new conversation."""
    for message in said:
        yield from _of_message(message, members if conversation.type == "direct" else ())
    if conversation.type == "group":
        for each in happened:
            yield from _of_change(conversation, members, each)
    else:
        for each in happened:
            if each.kind == "reaction":
                yield from _of_reaction(each)


def _of_message(message: Said, others: Iterable[UserId]) -> Iterator[Notice]:
    """One for each person at most: what calls them by name comes first."""
    kinds: dict[UserId, Kind] = dict.fromkeys(others, "message")
    if message.replied_to is not None:
        kinds[message.replied_to] = "reply"
    kinds |= dict.fromkeys(_mentioned(message.metadata), "mention")
    kinds.pop(message.sender_id, None)
    for user, kind in kinds.items():
        yield Notice(message.change, user, kind, message.message_id, message.seq, message.sender_id)


def _mentioned(metadata: str | None) -> list[UserId]:
    if metadata is None:
        return []
    try:
        named = msgspec.json.decode(metadata, type=_Mentions).mentions
    except msgspec.ValidationError:  # it is the client's own, and says something else by that word
        return []
    return [UserId(user) for user in named if is_id(user)]


def _of_change(conversation: Conversation, members: Iterable[UserId], change: Happened) -> Iterator[Notice]:
    name = conversation.conversation_id
    if change.kind == "reaction":
        yield from _of_reaction(change)
    elif change.kind == "message_edited":
        yield from _of_edit(change)
    elif change.kind == "user_joined" and change.ref is not None and change.ref != change.actor_id:
        yield Notice(change.change, UserId(change.ref), "added", name, None, change.actor_id)
    elif change.change == 1:  # whoever made the group has brought the others
        for user in members:
            if user != change.actor_id:
                yield Notice(change.change, user, "added", name, None, change.actor_id)


def _of_edit(change: Happened) -> Iterator[Notice]:
    """Of one that is deleted since nobody is told."""
    if change.data is None or change.ref is None or change.author_id is None:
        return
    for user in msgspec.json.decode(change.data, type=_Edited).mentioned:
        yield Notice(change.change, user, "mention", change.ref, change.seq, change.actor_id, is_edit=True)


def _of_reaction(change: Happened) -> Iterator[Notice]:
    """Of one that was taken back nobody is told."""
    author, name = change.author_id, change.ref
    is_on = change.data is not None and msgspec.json.decode(change.data).get("on") is True
    if is_on and change.holds and name is not None and author is not None and author != change.actor_id:
        yield Notice(change.change, author, "reaction", name, change.seq, change.actor_id)
