"""One socket in the hub: what of its conversations is sent to it, held back, or left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..edge import Close, Socket
from ..identity import ConversationId
from .live import AT_ONCE, PROVISIONAL, Live

HELD_BYTES = 262_144  # kept for one socket during its replay: with room to spare in an outbox of 1 MiB


class Connection:
    """One socket in the hub.

    only: the one conversation it carries, or None for all.
    held: what happens while the past is being replayed to it, up to `hold_limit` events of `HELD_BYTES` in
    all; None when live.
    served: while the database is away: the conversations it is live for, and the last change told of each;
    None when it is live for all.
    overflowed: more happened than that, so that the table must be read again.
    floors: changes it got by replay and that the hub has yet to pass.
    since: the hub's count of news when it was attached; what was heard before is not for this socket.
    moved: called whenever `is_live` has changed, by whom it is attached to.
    """

    __slots__ = (
        "floors",
        "held",
        "held_bytes",
        "hold_limit",
        "is_live",
        "moved",
        "only",
        "overflowed",
        "served",
        "since",
        "socket",
        "user_id",
    )

    def __init__(self, socket: Socket, only: ConversationId | None, hold_limit: int) -> None:
        self.socket = socket
        self.user_id = socket.principal.user_id
        self.only = only
        self.hold_limit = hold_limit
        self.held: list[Live] | None = None
        self.held_bytes = 0
        self.overflowed = False
        self.served: dict[ConversationId, int] | None = None
        self.since = 0
        self.floors: dict[ConversationId, int] = {}
        self.is_live = True  # for everything it carries: events go straight to the socket
        self.moved: Callable[[], None] | None = None

    def hold(self) -> None:
        """From now on keep what happens instead of sending it."""
        self.held = []
        self.held_bytes = 0
        self.overflowed = False
        self.served = None
        self._look_live()

    def serve(self, told: dict[ConversationId, int]) -> None:
        """Be live for these conversations, from these changes on. What was held has been told."""
        self.held = None
        self.served = told
        self._look_live()

    def release(self, floors: dict[ConversationId, int]) -> None:
        """Send what was held, except changes up to `floors`, and be live. Not after more than could be held
        happened.

        floors: what replay has told, by conversation.
        """
        held, self.held = self.held or (), None
        self.floors = floors
        for live in held:
            if not self.take(live):
                break
        self._look_live()

    def keep_floors(self, conversations: Iterable[ConversationId]) -> None:
        """Forget the floors of all others: the hub has passed them."""
        self.floors = {name: self.floors[name] for name in conversations if name in self.floors}
        self._look_live()

    def take(self, live: Live) -> bool:
        """Offer, hold or leave out one event. False when the socket is gone."""
        if self.only is not None and self.only != live.conversation_id:
            return True
        if self.held is not None:
            if live.kind == PROVISIONAL:
                return True  # it may be stored before the replay ends, and would then come after that
            if live.kind in AT_ONCE:
                return self.socket.offer(live.frame)
            self.held_bytes += len(live.frame.data)
            if len(self.held) < self.hold_limit and self.held_bytes <= HELD_BYTES:
                self.held.append(live)
            else:
                self.overflowed = True
            return True
        if self.served is not None and live.change and not self._goes_on(live):
            return True
        if live.change:
            if live.change <= self.floors.get(live.conversation_id, 0):
                return True
            if self.floors.pop(live.conversation_id, None) is not None:
                self._look_live()
        took = self.socket.offer(live.frame)
        if self.only is not None and live.puts_out(self.user_id):
            self.lose()
        return took

    def take_visible(self, run: Sequence[Live], visible_from_seq: int) -> bool:
        """`take` each that is not about a message before that one."""
        return all(self.take(live) for live in run if live.seq is None or live.seq >= visible_from_seq)

    def _goes_on(self, live: Live) -> bool:
        """Whether a change follows what was told. Any other is left to the replay that comes later."""
        assert self.served is not None
        if live.change - 1 != self.served.get(live.conversation_id):
            return False
        self.served[live.conversation_id] = live.change
        return True

    def lose(self) -> None:
        """It carries one conversation alone, and that is lost."""
        self.socket.close(Close.NOT_FOUND, "no longer a member")

    def _look_live(self) -> None:
        is_live = self.held is None and self.served is None and not self.floors
        if is_live != self.is_live:
            self.is_live = is_live
            if self.moved is not None:
                self.moved()
