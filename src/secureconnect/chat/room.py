"""The room itself: what it is made of, and the tasks that run in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog
import trio

from .. import tracing
from ..clock import to_iso
from ..config import ChatConfig, JournalConfig
from ..deps.contracts import Bus, Database, Journal, Signals
from ..edge import Call, Frame, Socket
from ..errors import InvalidToken, Problem, Unavailable, is_away
from ..identity import (
    ConversationId,
    DeviceId,
    NodeId,
    NotificationId,
    Principal,
    UserId,
)
from . import export, frames, shapes, store
from .append import Outcome, Stored
from .attachments import Attachments, NoFiles
from .carrier import Carrier
from .catchup import CatchUp, RolledBack
from .changes import Event
from .connection import Connection
from .conversations import Conversations, MembersLeft
from .deletion.deletion import Deletion
from .disappearing import Disappearing
from .forwards.forwards import Forwards
from .hub import Hub
from .listing.listing import Listing
from .live import PRIVATE, Live, runs_of
from .mentions import store as mention_store
from .messages import Messages
from .mutes.mutes import Mutes
from .notifications.announced import Announced
from .notifications.bells import Bells
from .notifications.making import Maker
from .notifications.notifications import Notifications
from .notifications.notifier import Notifier
from .notifications.pushes import Pushes, PushParts
from .notifications.rings import Rings
from .notifications.store import Notification
from .pages import Pages
from .pins.pins import Pins
from .pledges import Pledge, Pledges
from .polls.polls import Polls
from .presence.presence import Presence
from .presence.typing_marks import Typing
from .reactions.reactions import Reactions
from .recall import Recall
from .recent import Recent
from .resume import Resume
from .retention import Retention
from .search.index import Index
from .search.search import Search
from .shapes import Status
from .versions.versions import Versions
from .writer import Mark, ReadMark, Writer

log = structlog.get_logger(module="chat")

BEAT_S = 1.0
MIB = 1_048_576
RETURNING = 8  # sockets that waited for the database and resume at the same time
FORGOTTEN = 1_000  # mentions of an erased person deleted in one transaction

Authenticate = Callable[[str], Awaitable[Principal]]
BeginHistory = Callable[[str], Awaitable[None]]
Away = Mapping[str, Sequence[str]]


async def _nobody(_: str) -> Principal:
    raise InvalidToken


async def _go_on(_: str) -> None:
    """Without a node there is nobody to keep the name of a history."""


def _nothing_away() -> Away:
    return {}


def _untold(_: ConversationId, __: UserId) -> None:
    """Nobody else is told who left."""


def _undissolved(_: ConversationId, __: int) -> None:
    """Nobody else is told what is deleted."""


def _unheard(_: Problem, __: Call) -> None:
    """Refusals on sockets go nowhere until `connect` says where."""


class Chat:
    """journal: for messages while the database is away; without one they are refused then.
    attachments: who keeps the files that messages carry.  push: what wakes devices; None wakes none."""

    def __init__(
        self,
        config: ChatConfig,
        db: Database,
        bus: Bus,
        signals: Signals,
        history_id: str,
        node_id: NodeId,
        journal: Journal | None = None,
        journal_config: JournalConfig | None = None,
        attachments: Attachments | None = None,
        push: PushParts | None = None,
    ) -> None:
        self.config = config
        self.history_id = history_id
        self.heartbeat_s = 25.0
        self.authenticate: Authenticate = _nobody
        self.deny: Callable[[Problem, Call], None] = _unheard
        self.away: Callable[[], Away] = _nothing_away
        self._begin_history: BeginHistory = _go_on
        self._tell_member_left: Callable[[ConversationId, UserId], None] = _untold
        self._tell_dissolved: Callable[[ConversationId, int], None] = _undissolved
        self._present: set[Connection] = set()
        journal_config = journal_config or JournalConfig()
        self._recent = Recent(config.recent_mb * MIB, config.recent_changes)
        self._pages = Pages(config.pages_mb * MIB, self._recent)
        self.hub = Hub(config.hub_conversations, self._remember)
        self._trust_s = journal_config.trust_s
        self.recall = Recall(self.hub, self._recent, self._trust_s, lambda: db.now_us())
        self._turns = trio.CapacityLimiter(RETURNING)
        pledges = Pledges(journal, journal_config, self.hub, told=self._accepted, settled=self._settled)
        attachments = attachments or NoFiles()
        self.writer = Writer(
            db, config.append_queue, config.append_batch, self._committed, pledges, attachments
        )
        self.conversations = Conversations(config, db, self.writer)
        self.listing = Listing(config, db)
        self.messages = Messages(config, db, self.writer, self._pages, attachments)
        self.versions = Versions(db)
        self.forwards = Forwards(db, self.writer)
        self.reactions = Reactions(config, db, self.writer)
        self.polls = Polls(config, db, self.writer)
        self.notifications = Notifications(db, self._tell_notification, self._tell_all_read)
        self.index = Index(config, db, lambda: self.writer.rounds)
        self.search = Search(config, db)
        self.pins = Pins(config, db, self.writer)
        self.mutes = Mutes(db, self.writer)
        self.deletion = Deletion(config, db, self.writer, attachments)
        self.pushes = None if push is None else Pushes(push, db, self._is_anywhere)
        maker = Maker(config.notifications_kept, None if self.pushes is None else self.pushes.queue)
        self.bells = Bells(db, maker, self.pushes is not None, self._tell_notification)
        self.notifier = Notifier(config, db, self.hub, maker, self._tell_notification)
        self.rings = (
            None
            if push is None or self.pushes is None
            else Rings(
                push.config,
                db,
                self.hub,
                config.hub_conversations,
                config.background_share,
                self.pushes.ring,
                self._is_anywhere,
            )
        )
        self.announced = Announced(config, db, maker)
        self.catch_up = CatchUp(db, self.hub, config.hub_conversations)
        self.retention = Retention(config, db, self.writer, attachments)
        self.disappearing = Disappearing(config, db, self.writer, attachments)
        self.presence = Presence(config, db, self.hub)
        self.typing = Typing(config, self._tell)
        self._db = db
        self._carrier = Carrier(
            bus,
            signals,
            node_id,
            config.publish_queue,
            config.node_silent_s,
            deliver=self._deliver_all,
            presence=self.presence,
            parted=self._part,
            lost=self.catch_up.hurry,
            proclaim=self._proclaim,
        )
        self.presence.connect(self._carrier)

    def connect(
        self,
        *,
        authenticate: Authenticate,
        deny: Callable[[Problem, Call], None] = _unheard,
        begin_history: BeginHistory = _go_on,
        away: Callable[[], Away] = _nothing_away,
        heartbeat_s: float = 25.0,
        members_left: MembersLeft | None = None,
        tell_member_left: Callable[[ConversationId, UserId], None] = _untold,
        tell_dissolved: Callable[[ConversationId, int], None] = _undissolved,
    ) -> None:
        """What this room needs of its neighbours.

        authenticate: verifies the token that renews a socket.  deny: is told of refusals on sockets.
        begin_history: is told which history has lost changes, before the room crashes because of it.
        away: what the server does without at present, and what that affects.
        heartbeat_s: how often the gateway pings, which clients are told.
        members_left: in the unit in which some leave, or all because the conversation is deleted.
        tell_member_left, tell_dissolved: after the commit of that; at what time it was deleted.
        """
        self.authenticate = authenticate
        self.deny = deny
        self._begin_history = begin_history
        self.away = away
        self.heartbeat_s = heartbeat_s
        if members_left is not None:
            self.conversations.members_left = self.deletion.members_left = members_left
        self._tell_member_left = tell_member_left
        self._tell_dissolved = tell_dissolved

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.catch_up.set_out()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.writer.run)
            nursery.start_soon(self._carrier.publish_forever)
            nursery.start_soon(self._carrier.overhear_forever)
            await nursery.start(self._carrier.listen_forever)
            nursery.start_soon(self._carrier.beat_forever)
            nursery.start_soon(self.catch_up.repair_forever)
            nursery.start_soon(self._catch_up_forever)
            nursery.start_soon(self.retention.pass_forever)
            nursery.start_soon(self.deletion.pass_forever)
            nursery.start_soon(self.disappearing.pass_forever)
            nursery.start_soon(self.polls.count_forever)
            nursery.start_soon(self.polls.pass_forever)
            nursery.start_soon(self.notifier.pass_forever)
            nursery.start_soon(self.announced.pass_forever)
            nursery.start_soon(self.index.pass_forever)
            if self.pushes is not None:
                nursery.start_soon(self.pushes.pass_forever)
            if self.rings is not None:
                nursery.start_soon(self.rings.pass_forever)
            nursery.start_soon(self._beat_forever)
            nursery.start_soon(self.presence.beat_forever)
            nursery.start_soon(self.presence.save_forever)
            task_status.started()

    # sockets

    def connection(self, socket: Socket, only: ConversationId | None) -> Connection:
        return Connection(socket, only, self.config.resume_held)

    @contextmanager
    def present(self, connection: Connection) -> Iterator[None]:
        """The socket counts for presence, and leaves the hub at the end of the block."""
        self._present.add(connection)
        self.presence.opened(connection)
        try:
            yield
        finally:
            self._present.discard(connection)
            self.hub.detach(connection)
            self.presence.closed(connection)

    def tell_health(self) -> None:
        """Tell every socket what the server does without now: also one that has yet to resume, for it was
        told how things stood when it opened. Never waits. What was missed meanwhile is looked up at once."""
        away = self.away()
        if "postgres" not in away:
            self.catch_up.hurry()  # much may have happened while it was away, and sockets wait for it
        self._proclaim(frames.health(away))

    def announce(self, announcement_id: str, text: str, created_us: int, until_us: int | None) -> None:
        """Tell every socket, on every node. Never waits. Whoever it does not reach reads the list."""
        created_at, until = to_iso(created_us), shapes.iso_or_none(until_us)
        self._carrier.tell_everybody(
            frames.frame(
                frames.AnnouncementOut(
                    announcement_id=announcement_id, text=text, created_at=created_at, until=until
                )
            )
        )

    def _proclaim(self, frame: Frame) -> None:
        for connection in self._present:
            connection.socket.offer(frame)  # one that cannot take it is closed, and its task says so

    @property
    def sockets(self) -> int:
        """How many are open here."""
        return len(self._present)

    async def resume(
        self, connection: Connection, history_id: str, positions: dict[str, int]
    ) -> Callable[[], Awaitable[None]] | None:
        """Replay what was missed; then the socket is live. Raises SocketClosed.

        While the database is away, what memory allows; what is returned does the rest once it is back.
        """
        known = {ConversationId(name): change for name, change in positions.items()}
        is_ours = history_id == self.history_id
        resume = Resume(self.config, self._db, self.hub, self.recall, connection, known, is_ours)
        connection.hold()
        self.hub.attach(connection)
        return None if await resume.begin() else partial(resume.finish, self._turns)

    async def require_member(self, user: UserId, conversation: ConversationId) -> None:
        """Raises NotFound for strangers."""
        if not self.hub.can_see(conversation, user):
            await self.conversations.participants(user, conversation, store.NO_ID, 1)

    async def mark_typing(self, user: UserId, conversation: ConversationId, is_typing: bool) -> None:
        """Raises NotFound for strangers. Where one of two has blocked the other, nobody is told."""
        await self.require_member(user, conversation)
        if self.hub.is_direct(conversation) is False or not await self._is_parted(user, conversation):
            self.typing.mark(conversation, user, is_typing)

    async def _is_parted(self, user: UserId, conversation: ConversationId) -> bool:
        """While the database is away, as it was last known."""
        try:
            return await self._db.read(store.is_parted, conversation, user)
        except Unavailable as problem:
            if not is_away(problem):
                raise
            return self.hub.trusted(conversation, user, self._trust_s) is None

    def is_here(self, user: UserId) -> bool:
        """Whether they have a socket on this node."""
        return self.hub.is_connected(user)

    def tell_person(self, user: UserId, device: DeviceId | None, event: bytes) -> None:
        """Offer an event of another room to the sockets that a person, or one of their devices, has here."""
        self.hub.tell_person(user, device, Frame(event))

    def tell_of_file(self, owner: UserId, places: Sequence[tuple[ConversationId, int]], event: bytes) -> None:
        """Tell what became of a file: those who may see that message of one of the conversations; its owner
        where there is none. Never waits. Whoever it does not reach learns it by asking for the file."""
        frame = Frame(event)
        for conversation, seq in places:
            self._signal(Live("file_updated", conversation, 0, seq, None, None, frame))
        if not places:
            self._signal(Live(PRIVATE, ConversationId(store.NO_ID), 0, None, owner, None, frame))

    def status_of(self, user: UserId) -> Status:
        return self.presence.status_of(user)

    def part(self, one: UserId, other: UserId) -> None:
        """One has blocked the other: on every node each vanishes from what the other sees, and no message of
        theirs is accepted without the database. Never waits."""
        self._part(one, other)
        self._carrier.send_parted(one, other)

    def _part(self, one: UserId, other: UserId) -> None:
        self.hub.part(one, other)
        self.presence.part(one, other)

    async def forget(self, user: UserId) -> None:
        """Somebody is erased: what they said stays, as said by somebody unknown. Safe to repeat."""
        await self.presence.sightings.forget(user)
        await self.conversations.forget(user)
        while await self._db.relieve(mention_store.forget, user, FORGOTTEN):
            pass
        await self.notifications.forget(user)

    def export_of(self, user: UserId) -> AsyncIterator[dict[str, Any]]:
        """Everything this room keeps of a person, record by record."""
        return export.records_of(self._db, user)

    # what happened

    def _committed(self, events: Sequence[Event], marks: Sequence[Mark]) -> None:
        """The writer's word, after each commit."""
        lives = [frames.live(event) for event in events]
        self._deliver_all(lives)
        self._carrier.send(lives)
        self.notifier.heard(events)
        if self.rings is not None:
            self.rings.heard(events)
        for mark in marks:
            told = frames.read_mark(*mark) if isinstance(mark, ReadMark) else frames.mute_mark(*mark)
            self._signal(told)
        for event in events:
            if event.kind == "user_left" and event.user is not None:
                self._tell_member_left(event.conversation_id, event.user.user_id)
            elif event.kind == "conversation_deleted":
                self._tell_dissolved(event.conversation_id, event.stored_us)

    def _deliver_all(self, lives: Iterable[Live]) -> None:
        for run in runs_of(lives):
            self._deliver(run)

    def _deliver(self, run: Sequence[Live]) -> None:
        """To the sockets that are here: the span tells how long it took to queue it for all of them.  run: of
        `runs_of`."""
        trace = run[0].trace
        if trace is None:
            self.hub.deliver_run(run)
            return
        with tracing.resumed("deliver event", tracing.Kind.CONSUMER, trace):
            self.hub.deliver_run(run)

    def _remember(self, live: Live) -> None:
        """The hub's word, of each durable event."""
        self._recent.take(live)
        self._pages.heard(live.conversation_id)

    def _accepted(self, pledges: Sequence[Pledge]) -> None:
        """Shown to whoever may see them, outside the order of changes: they have no place in it yet."""
        lives = [frames.provisional(pledge) for pledge in pledges]
        for live in lives:
            self.hub.deliver(live)
        self._carrier.send(lives)

    def _settled(self, pledge: Pledge, outcome: Outcome) -> None:
        self.hub.tell_user(pledge.draft.sender_id, frames.settled(pledge, outcome))
        if not isinstance(outcome, Stored):
            log.info("message_rejected", message_id=pledge.draft.message_id, code=outcome.code)
            self._signal(frames.withdrawn(pledge))
        elif outcome.message.message_id != pledge.draft.message_id:  # stored and told before it was shown
            self._signal(frames.withdrawn(pledge))

    def _is_anywhere(self, user: UserId) -> bool:
        return self.hub.is_connected(user) or self.presence.is_elsewhere(user)

    def _tell_notification(self, notification: Notification) -> None:
        self._signal(frames.notification(notification))

    def _tell_all_read(self, user: UserId, up_to: NotificationId, read_us: int) -> None:
        self._signal(frames.notifications_read(user, up_to, read_us))

    def _tell(self, live: Live) -> None:
        self.hub.deliver(live)
        self._carrier.send([live])

    def _signal(self, live: Live) -> None:
        self.hub.deliver(live)
        self._carrier.signal(live)

    async def _catch_up_forever(self) -> None:
        try:
            await self.catch_up.pass_forever(self.config.catch_up_ms / 1000, self._carrier.is_healthy)
        except RolledBack as lost:
            log.error("history_rolled_back", reason=str(lost), history_id=self.history_id)
            while True:
                try:
                    await self._begin_history(self.history_id)
                except Problem as problem:
                    log.warning("history_not_begun", code=problem.code)
                    await trio.sleep(BEAT_S)
                else:
                    raise  # starting afresh closes every socket: the clients come back, and read all again

    async def _beat_forever(self) -> None:
        """What waits for nothing."""
        while True:
            self.typing.beat_once()
            self._recent.tell_size()
            self._pages.tell_size()
            await trio.sleep(BEAT_S)
