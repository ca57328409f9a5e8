"""Events on their way to sockets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..edge import Frame
from ..identity import ConversationId, MessageId, PollId, UserId

RUN = 64  # messages told together


class Live(NamedTuple):
    """An event on its way to sockets.

    change: 0 for what is not durable (read, typing, provisional messages).  seq: of the message it is about.
    user_id, visible_from_seq: of the one who joined or left; or of whom alone it is for.  is_e2ee: of a
    conversation that was changed.
    message_id, poll_id: of the message or poll it is about.  expires_us: when that disappears.
    trace: as of its event; between nodes, of its carrying.
    """

    kind: str
    conversation_id: ConversationId
    change: int
    seq: int | None
    user_id: UserId | None
    visible_from_seq: int | None
    frame: Frame
    is_e2ee: bool | None = None
    message_id: MessageId | None = None
    poll_id: PollId | None = None
    expires_us: int | None = None
    trace: str | None = None

    def puts_out(self, user: UserId) -> bool:
        """Whether `user` is no longer in the conversation after this."""
        return self.kind == "conversation_deleted" or (self.kind == "user_left" and self.user_id == user)


PRIVATE = "private"  # kind of what is told to `user_id` alone
PROVISIONAL = "provisional"  # kind of a message that is accepted and not stored
SETTLED, WITHDRAWN = "settled", "message_withdrawn"  # what became of it
AT_ONCE = (SETTLED, WITHDRAWN)  # never held: told once, they would be lost with what is too much to hold


ENDS = ("user_left", "conversation_deleted")  # after which a socket may carry nothing any more


def runs_of(lives: Iterable[Live]) -> Iterator[Sequence[Live]]:
    """Events in the runs in which they are told: new messages of a conversation that follow one another, RUN
    at most; all else, and what is traced, alone. Those of a conversation stay in order."""
    runs: dict[ConversationId, list[Live]] = {}
    for live in lives:
        run = runs.get(live.conversation_id)
        if run is not None and len(run) < RUN and _goes_on(run[-1], live):
            run.append(live)
            continue
        if run is not None:
            yield run
        runs[live.conversation_id] = [live]
    yield from runs.values()


def _goes_on(last: Live, live: Live) -> bool:
    if last.kind != "chat" or live.kind != "chat" or live.change != last.change + 1:
        return False
    return last.trace is None and live.trace is None
