"""The hub: who is connected here, who may see which conversation, and the next change each of them waits for.

In memory, without an await. A durable event is told at once when it is the next of its conversation; anything
else (a jump, a conversation not looked at yet) is noted as *behind*, and `catchup` reads the table, which is
the truth. So every socket gets every change once, in order, whichever way the news came.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from typing import NamedTuple

import trio

from .. import metrics
from ..edge import Crowd, Frame, Run
from ..identity import ConversationId, DeviceId, UserId
from .connection import Connection
from .live import ENDS, PRIVATE, PROVISIONAL, Live

DELIVERIES = metrics.counter("secureconnect_chat_deliveries_total", "Events handed to sockets.")
EVICTED = metrics.counter("secureconnect_chat_sockets_dropped_total", "Sockets that could not take an event.")

HEARD_KEPT = 1_000  # heads remembered while their conversation is being read
CROWD = 16  # who hears of a conversation is remembered when it may be so many people
CROWDS_KEPT = 256  # conversations of which it is; the first go first
NOTES_KEPT = 16  # marks waiting while a conversation is being read; the oldest go first


class About(NamedTuple):
    """What is read of a conversation beside its members.  is_clear: its two may write to each other."""

    is_direct: bool
    is_e2ee: bool
    is_clear: bool


class View:
    """One conversation here.  change: the last one told.  heard: how far it is known to be stored.

    viewers: visible_from_seq of each member; None: not read yet.
    is_direct, is_e2ee: as far as known.  clear_at: when it was last known, on trio's clock, that neither
    person of a direct conversation has blocked the other or is erased.
    """

    __slots__ = ("change", "clear_at", "heard", "is_direct", "is_e2ee", "viewers")

    def __init__(self, change: int, viewers: dict[UserId, int] | None) -> None:
        self.change = change
        self.heard = change
        self.viewers = viewers
        self.is_direct: bool | None = None
        self.is_e2ee: bool | None = None
        self.clear_at = -inf


class Behind:
    """A conversation to be read.

    change: the first one known to be missing, or None.  since_us: tell what was stored since, should there
    be no position.  heads: how far it was heard to be, and when by the hub's count of news, both ascending.
    notes: marks to pass on once its members are known.
    """

    __slots__ = ("change", "heads", "notes", "since_us")

    def __init__(self, change: int | None, since_us: int | None) -> None:
        self.change = change
        self.since_us = since_us
        self.heads: list[tuple[int, int]] = []
        self.notes: list[Live] = []

    def hear(self, head: int, news: int) -> None:
        """Changes up to `head` are stored."""
        if (not self.heads or head > self.heads[-1][0]) and len(self.heads) < HEARD_KEPT:
            self.heads.append((head, news))

    def is_beyond(self, change: int) -> bool:
        """Whether more may be stored than up to `change`."""
        return not 0 < len(self.heads) < HEARD_KEPT or self.heads[-1][0] > change

    def heard_at(self, change: int) -> int | None:
        """When it was first known that this change is stored; None: just now."""
        found = bisect_left(self.heads, (change, 0))
        return self.heads[found][1] if found < len(self.heads) else None


class Hearers(NamedTuple):
    """Who hears of a conversation, for as long as nobody comes, goes, or begins or ends being told the past.

    straight: connections that are told what is about a message from `from_seq` on, or about none, as it is.
    crowd: their sockets.  others: connections that have to be asked, and from which message on they may see.
    """

    straight: Sequence[Connection]
    crowd: Crowd | None
    from_seq: int
    others: Sequence[tuple[Connection, int]]


def _keep_nothing(_: Live) -> None:
    """What was told is told."""


class Hub:
    """limit: conversations kept in memory; those not heard of for longest go first.
    keep: is given every durable event that is told, those of a conversation in order."""

    def __init__(self, limit: int, keep: Callable[[Live], None] = _keep_nothing) -> None:
        self._limit = limit
        self._keep = keep
        self._views: OrderedDict[ConversationId, View] = OrderedDict()
        self._by_user: dict[UserId, dict[Connection, None]] = {}
        self._behind: dict[ConversationId, Behind] = {}
        self._hearers: dict[ConversationId, Hearers] = {}  # forgotten by whatever changes who they are
        self._being_read: list[tuple[ConversationId, Behind]] = []  # at most one for each task that reads
        self._work = trio.Event()
        self._news = 0
        self._true_at = -inf
        self._lost_at: float | None = None
        self._compared = trio.Event()

    # connections

    def attach(self, connection: Connection) -> None:
        """From now on, tell this socket what is heard."""
        connection.since = self._news
        connection.moved = self._hearers.clear
        self._hearers.clear()
        self._by_user.setdefault(connection.user_id, {})[connection] = None

    def detach(self, connection: Connection) -> None:
        self._hearers.clear()
        connection.moved = None
        mine = self._by_user.get(connection.user_id)
        if mine is not None:
            mine.pop(connection, None)
            if not mine:
                del self._by_user[connection.user_id]

    def connections(self) -> Iterable[Connection]:
        for mine in self._by_user.values():
            yield from mine

    def is_connected(self, user: UserId) -> bool:
        return user in self._by_user

    def tell_users(self, users: Iterable[UserId], frame: Frame) -> None:
        """Offer a frame that is about no conversation. Sockets that carry one conversation do not get it."""
        lost: list[Connection] = []
        for user in users:
            for connection in self._by_user.get(user, ()):
                if connection.only is None and connection.held is None and not connection.socket.offer(frame):
                    lost.append(connection)
        self._drop(lost)

    def tell_person(self, user: UserId, device: DeviceId | None, frame: Frame) -> None:
        """Offer a frame that is about no conversation to all sockets of a person, or of one of their devices,
        also to those that are told the past: it has no place in it."""
        lost: list[Connection] = []
        for connection in self._by_user.get(user, ()):
            is_meant = device is None or connection.socket.principal.device_id == device
            if connection.only is None and is_meant and not connection.socket.offer(frame):
                lost.append(connection)
        self._drop(lost)

    def tell_user(self, user: UserId, live: Live) -> None:
        """Tell one person alone, on the sockets that carry the conversation."""
        self._drop([each for each in self._by_user.get(user, ()) if not each.take(live)])

    # what is known though the database is away

    def confirm(self, at: float) -> None:
        """The table has been compared: what is here, and not behind, is how things stood then."""
        self._true_at = at
        self._lost_at = None
        self._compared.set()
        self._compared = trio.Event()

    @property
    def true_at(self) -> float:
        """Everything stored before this moment of trio's clock is known here, or known to be behind."""
        return self._true_at

    @property
    def compared(self) -> trio.Event:
        """Set when the table is compared the next time."""
        return self._compared

    def lose_sight(self) -> None:
        """The database is away; from when this is first said on, nothing more is learnt of it."""
        if self._lost_at is None:
            self._lost_at = trio.current_time()

    def known(self, conversation: ConversationId, user: UserId, trust_s: float) -> View | None:
        """A conversation of `user`, with what has been told of it; None unless that is all there is to know,
        and was so at most `trust_s` before the database went away."""
        view = self._views.get(conversation)
        if view is None or view.viewers is None or self._is_behind(conversation, view):
            return None
        return view if user in view.viewers and self._true_at >= self._since(trust_s) else None

    def trusted(self, conversation: ConversationId, user: UserId, trust_s: float) -> View | None:
        """The same, if it may be written to as far as that is known: of a direct conversation, that neither
        has blocked the other or is erased."""
        view = self.known(conversation, user, trust_s)
        if view is None or view.is_e2ee is None:
            return None
        return view if not view.is_direct or view.clear_at >= self._since(trust_s) else None

    def _since(self, trust_s: float) -> float:
        return (trio.current_time() if self._lost_at is None else self._lost_at) - trust_s

    def unclear(self, before: float, limit: int) -> list[tuple[ConversationId, UserId, UserId]]:
        """Direct conversations of people who are here, whose blocks were last looked at before then."""
        found: list[tuple[ConversationId, UserId, UserId]] = []
        for conversation, view in self._views.items():
            if not view.is_direct or view.clear_at >= before or view.viewers is None:
                continue
            if len(view.viewers) == 2 and not self._by_user.keys().isdisjoint(view.viewers):
                one, other = view.viewers
                found.append((conversation, one, other))
                if len(found) == limit:
                    break
        return found

    def looked(self, conversation: ConversationId, is_clear: bool, at: float) -> None:
        """Whether, at that time, its two people could write to each other."""
        view = self._views.get(conversation)
        if view is not None:
            view.clear_at = max(view.clear_at, at) if is_clear else -inf

    def part(self, one: UserId, other: UserId) -> None:
        """One of the two has just blocked the other."""
        both = {one, other}
        for view in self._views.values():
            if view.is_direct and view.viewers is not None and view.viewers.keys() == both:
                view.clear_at = -inf

    # positions

    def change_of(self, conversation: ConversationId) -> int | None:
        """The last change told here, or None without a position."""
        view = self._views.get(conversation)
        return None if view is None else view.change

    def is_direct(self, conversation: ConversationId) -> bool | None:
        """None when that is not in memory."""
        view = self._views.get(conversation)
        return None if view is None else view.is_direct

    def can_see(self, conversation: ConversationId, user: UserId) -> bool | None:
        """Whether `user` is a member; None when the members are not in memory."""
        view = self._views.get(conversation)
        return None if view is None or view.viewers is None else user in view.viewers

    def set_out(self, heads: Iterable[tuple[ConversationId, int, int]]) -> None:
        """Take positions before there is anybody to tell.  heads: conversation, change, time."""
        for conversation, change, _ in heads:
            self._place(conversation, View(change, None))

    # events

    def deliver(self, live: Live) -> None:
        """Tell an event, or note that the table must be read first."""
        if live.kind == PRIVATE:
            if live.user_id is not None:
                self.tell_user(live.user_id, live)
            return
        view = self._views.get(live.conversation_id)
        if view is None or view.viewers is None:
            if live.kind != PROVISIONAL:  # which would be stored before anybody knew whom to show it to
                self.fall_behind(
                    live.conversation_id, live.change or None, note=None if live.change else live
                )
            return
        if not live.change:
            # while it is behind, somebody may have left
            if live.kind != PROVISIONAL or not self._is_behind(live.conversation_id, view):
                self._tell(view, [live])
            return
        if live.change > view.change + 1:
            self.fall_behind(live.conversation_id, live.change)
        elif live.change == view.change + 1:
            self._views.move_to_end(live.conversation_id)
            view.change = live.change
            if view.is_direct and live.kind == "chat":  # or it would not have been stored
                view.clear_at = trio.current_time()
            self._tell(view, [live])

    def deliver_run(self, run: Sequence[Live]) -> None:
        """`deliver` of each of a run."""
        first = run[0]
        view = self._views.get(first.conversation_id)
        if len(run) == 1 or view is None or view.viewers is None or first.change != view.change + 1:
            for live in run:
                self.deliver(live)
            return
        self._views.move_to_end(first.conversation_id)
        view.change = run[-1].change
        if view.is_direct:
            view.clear_at = trio.current_time()
        self._tell(view, run)

    def fall_behind(
        self,
        conversation: ConversationId,
        change: int | None,
        since_us: int | None = None,
        note: Live | None = None,
        head: int | None = None,
    ) -> None:
        """Note that a conversation must be read: see `Behind`.  head: how far it is heard to be."""
        head = change if head is None else head
        if head is not None and (view := self._views.get(conversation)):
            view.heard = max(view.heard, head)  # also where it is being read, or not noted below
        behind = self._behind.get(conversation)
        if behind is None:
            if len(self._behind) >= self._limit:
                return  # the next catch-up pass finds it by its head
            behind = self._behind[conversation] = Behind(change, since_us)
        if change is not None and (behind.change is None or change < behind.change):
            behind.change = change
        if head is not None:
            self._news += 1
            behind.hear(head, self._news)
        if since_us is not None and (behind.since_us is None or since_us < behind.since_us):
            behind.since_us = since_us
        if note is not None:
            behind.notes.append(note)
            del behind.notes[:-NOTES_KEPT]
        self._work.set()

    def put_back(self, conversation: ConversationId, behind: Behind) -> None:
        """It could not be read now; what was heard meanwhile is kept, too."""
        newer = self._behind.get(conversation)
        self._behind[conversation] = behind
        self._work.set()
        if newer is not None:
            for head, news in newer.heads:
                behind.hear(head, news)
            self.fall_behind(conversation, newer.change, newer.since_us)
            behind.notes = (behind.notes + newer.notes)[-NOTES_KEPT:]

    async def wait_behind(self) -> None:
        """Until some conversation must be read."""
        await self._work.wait()

    def take_behind(self) -> tuple[ConversationId, Behind] | None:
        if not self._behind:
            if self._work.is_set():  # or whoever waits on this one would never hear of the next
                self._work = trio.Event()
            return None
        conversation = next(iter(self._behind))
        return conversation, self._behind.pop(conversation)

    @contextmanager
    def reading(self, conversation: ConversationId, behind: Behind) -> Iterator[None]:
        """While the block lasts, what was taken by `take_behind` is being read."""
        read = (conversation, behind)
        self._being_read.append(read)
        try:
            yield
        finally:
            self._being_read.remove(read)

    def _is_behind(self, conversation: ConversationId, view: View) -> bool:
        """Whether more has happened than is known here. What was heard of may have come meanwhile."""
        if view.heard > view.change:
            return True
        waiting = self._behind.get(conversation)
        return (waiting is not None and waiting.is_beyond(view.change)) or any(
            name == conversation and behind.is_beyond(view.change) for name, behind in self._being_read
        )

    def fill(
        self,
        conversation: ConversationId,
        after: int,
        viewers: Mapping[UserId, int],
        lives: Iterable[Live],
        behind: Behind,
        about: About | None = None,
    ) -> int:
        """Tell what was read from the table.  after: the position to start from, should there be none.

        viewers: as they are at the end of `lives`, but for those who join in them. Those already in memory
        are kept: they stand where our position does, and the events lead them on; unless retention took some
        of those. Returns how many events were news.
        """
        view = self._views.get(conversation)
        if view is None:
            view = View(after, dict(viewers))
            self._place(conversation, view)
        elif view.viewers is None or after > view.change:
            view.viewers = dict(viewers)
            self._hearers.pop(conversation, None)
        view.change = max(view.change, after)
        if behind.heads:
            view.heard = max(view.heard, behind.heads[-1][0])
        if about is not None:
            view.is_direct, view.is_e2ee = about.is_direct, about.is_e2ee
            view.clear_at = trio.current_time() if about.is_clear else -inf
        news = 0
        for live in lives:
            if live.change == view.change + 1:
                view.change = live.change
                self._tell(view, [live], behind.heard_at(live.change))
                news += 1
        notes, behind.notes = behind.notes, []
        for note in notes:
            self._tell(view, [note])
        return news

    def _place(self, conversation: ConversationId, view: View) -> None:
        self._views[conversation] = view
        self._views.move_to_end(conversation)
        while len(self._views) > self._limit:
            evicted, _ = self._views.popitem(last=False)
            self._hearers.pop(evicted, None)

    def _tell(self, view: View, run: Sequence[Live], heard: int | None = None) -> None:
        """run: of `runs_of`.  heard: when it was heard of, if that was before now: sockets that were opened
        since do not need it."""
        live = run[0]
        viewers = view.viewers
        assert viewers is not None
        if live.kind in ("user_joined", *ENDS):
            self._hearers.pop(live.conversation_id, None)
        if live.kind in ("user_joined", "user_left") and live.user_id is not None:
            viewers[live.user_id] = live.visible_from_seq or 0  # whoever left hears that, too
        elif live.is_e2ee is not None:
            view.is_e2ee = live.is_e2ee or view.is_e2ee  # it is never switched off
        DELIVERIES.inc(self._offer(viewers, run, heard))
        if live.change:
            for each in run:
                self._keep(each)
        if live.kind == "user_left" and live.user_id is not None:
            del viewers[live.user_id]
        elif live.kind == "conversation_deleted":
            viewers.clear()

    def _offer(self, viewers: Mapping[UserId, int], run: Sequence[Live], heard: int | None) -> int:
        """Returns how often something was told. To many at once, if they hear all of it: a thousand for each
        message to a large group."""
        live = run[0]
        if heard is not None or live.kind in ENDS or min(len(viewers), len(self._by_user)) < CROWD:
            return self._offer_each(viewers, run, heard)
        hearers = self._hearers.get(live.conversation_id) or self._find_hearers(live.conversation_id, viewers)
        if live.seq is not None and live.seq < hearers.from_seq:
            return self._offer_each(viewers, run, heard)
        lost: list[Connection] = []
        told = len(hearers.straight)
        if hearers.crowd is not None:
            if len(run) == 1:
                places = hearers.crowd.offer(live.frame)
            else:
                places = hearers.crowd.offer_run(Run([each.frame for each in run]))
            lost += [hearers.straight[place] for place in places]
        last_seq = inf if live.seq is None else run[-1].seq or 0
        for connection, visible_from in hearers.others:
            if visible_from > last_seq:
                continue
            told += 1
            if not connection.take_visible(run, visible_from):
                lost.append(connection)
        self._drop(lost)
        return (told - len(lost)) * len(run)

    def _find_hearers(self, conversation: ConversationId, viewers: Mapping[UserId, int]) -> Hearers:
        """They are remembered."""
        straight: list[Connection] = []
        others: list[tuple[Connection, int]] = []
        from_seq = 0
        by_user = self._by_user
        for user in viewers if len(viewers) < len(by_user) else by_user:
            mine = by_user.get(user)
            visible_from = viewers.get(user)
            if mine is None or visible_from is None:
                continue
            for connection in mine:
                if connection.only not in (None, conversation):
                    continue
                if connection.is_live:
                    straight.append(connection)
                    from_seq = max(from_seq, visible_from)
                else:
                    others.append((connection, visible_from))
        sockets = [each.socket for each in straight]
        hearers = Hearers(straight, sockets[0].gather(sockets) if sockets else None, from_seq, others)
        if len(self._hearers) >= CROWDS_KEPT:
            del self._hearers[next(iter(self._hearers))]
        self._hearers[conversation] = hearers
        return hearers

    def _offer_each(self, viewers: Mapping[UserId, int], run: Sequence[Live], heard: int | None) -> int:
        """The same, asking for each who may hear of it."""
        live, together = run[0], len(run)
        frame = live.frame
        frames = Run([each.frame for each in run]) if together > 1 else None
        first_seq = inf if live.seq is None else live.seq
        last_seq = inf if live.seq is None else run[-1].seq or 0
        straight = (None,) if live.kind in ENDS else (None, live.conversation_id)
        told = 0
        lost: list[Connection] = []
        by_user = self._by_user
        for user in viewers if len(viewers) < len(by_user) else by_user:
            mine = by_user.get(user)
            visible_from = viewers.get(user)
            if mine is None or visible_from is None or visible_from > last_seq:
                continue
            for connection in mine:
                if heard is not None and connection.since >= heard:
                    continue
                if not connection.is_live or visible_from > first_seq or connection.only not in straight:
                    took = connection.take_visible(run, visible_from)
                elif frames is None:
                    took = connection.socket.offer(frame)
                else:
                    took = connection.socket.offer_run(frames)
                if took:
                    told += together
                else:
                    lost.append(connection)
        self._drop(lost)
        return told

    def _drop(self, lost: list[Connection]) -> None:
        for connection in lost:
            self.detach(connection)
            EVICTED.inc()
