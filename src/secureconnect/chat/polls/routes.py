"""What HTTP sees of polls."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import (
    AccountDeleted,
    AlreadyVoted,
    Conflict,
    E2eeRequired,
    Forbidden,
    Invalid,
    NotFound,
    PollClosed,
)
from ...idempotency import attempt_of
from ...identity import ConversationId, PollId, is_id
from ..room import Chat
from ..shapes import Id, PollShape, poll_shape, us_of
from ..store import LAST_ID
from .polls import Question, Seen
from .store import PollType

Text = Annotated[str, Meta(min_length=1, max_length=200)]


class NewPoll(Struct, frozen=True):
    """expires_at: ISO-8601, UTC; when it closes by itself."""

    conversation_id: Id
    question: Annotated[str, Meta(min_length=1, max_length=500)]
    options: Annotated[list[Text], Meta(min_length=2, max_length=10)]
    poll_type: PollType = "single"
    allow_vote_change: bool = True
    expires_at: Annotated[str, Meta(max_length=40)] | None = None


class Ballot(Struct, frozen=True):
    """None takes a vote back."""

    option_ids: Annotated[list[Id], Meta(max_length=10)]


class PollQuery(Struct, frozen=True):
    """active: only those that one can still vote in."""

    conversation_id: Id
    active: bool = False
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    cursor: Annotated[str, Meta(max_length=200)] | None = None


class OwnPoll(PollShape):
    """my_option_ids: what the caller voted for."""

    my_option_ids: list[str] | UnsetType = UNSET


class PollList(Struct, frozen=True):
    """The newest first."""

    polls: list[OwnPoll]
    next_cursor: str | None


class Gone(Struct, frozen=True):
    poll_id: str


async def create(room: Chat, call: Call) -> Reply:
    asked: NewPoll = call.body
    question = Question(
        asked.question,
        asked.options,
        asked.poll_type,
        asked.allow_vote_change,
        None if asked.expires_at is None else us_of(asked.expires_at, "expires_at"),
    )
    conversation = ConversationId(asked.conversation_id)
    poll = await room.polls.create(call.caller.user_id, conversation, question, attempt_of(call))
    return Reply(_own(await room.polls.get(call.caller.user_id, poll)), status=201)


async def list_polls(room: Chat, call: Call) -> Reply:
    asked: PollQuery = call.query
    before = asked.cursor or LAST_ID
    if not is_id(before):
        raise Invalid("This cursor is not one of ours.", details={"field": "cursor"})
    found = await room.polls.page(
        call.caller.user_id,
        ConversationId(asked.conversation_id),
        PollId(before),
        asked.limit,
        only_active=asked.active,
    )
    cursor = found[-1].poll.poll_id if len(found) == asked.limit else None
    return Reply(PollList([_own(each) for each in found], cursor))


async def get_poll(room: Chat, call: Call) -> Reply:
    return Reply(_own(await room.polls.get(call.caller.user_id, _poll(call))))


async def vote(room: Chat, call: Call) -> Reply:
    ballot: Ballot = call.body
    return Reply(_own(await room.polls.vote(call.caller.user_id, _poll(call), ballot.option_ids)))


async def close(room: Chat, call: Call) -> Reply:
    return Reply(_own(await room.polls.close(call.caller.user_id, _poll(call))))


async def delete(room: Chat, call: Call) -> Reply:
    await room.polls.delete(call.caller.user_id, _poll(call))
    return Reply(Gone(_poll(call)))


def _poll(call: Call) -> PollId:
    return PollId(call.path["poll_id"])


def _own(seen: Seen) -> OwnPoll:
    shape = poll_shape(seen.poll, OwnPoll)
    shape.my_option_ids = [each.option_id for each in seen.poll.options if each.option_id in seen.mine]
    return shape


_POLL = "/v1/polls/{poll_id}"

ROUTES: tuple[Route, ...] = (
    Route(
        "POST", "/v1/polls", create, Audience.MEMBER, Rate.WRITE,
        "Ask a conversation",
        body=NewPoll, answer=OwnPoll, status=201, repeats=True,
        errors=(AccountDeleted, Conflict, E2eeRequired, Forbidden, Invalid, NotFound),
    ),
    Route(
        "GET", "/v1/polls", list_polls, Audience.MEMBER, Rate.READ,
        "Polls of a conversation",
        query=PollQuery, answer=PollList, errors=(NotFound,),
    ),
    Route("GET", _POLL, get_poll, Audience.MEMBER, Rate.READ, "A poll", answer=OwnPoll, errors=(NotFound,)),
    Route(
        "POST", f"{_POLL}/vote", vote, Audience.MEMBER, Rate.WRITE,
        "Vote, or change or take back a vote",
        body=Ballot, answer=OwnPoll,
        errors=(AccountDeleted, AlreadyVoted, Forbidden, Invalid, NotFound, PollClosed),
    ),
    Route(
        "POST", f"{_POLL}/close", close, Audience.AUTHOR, Rate.WRITE,
        "Close a poll of one's own, or any as moderator of its group",
        answer=OwnPoll, errors=(Forbidden, NotFound),
    ),
    Route(
        "DELETE", _POLL, delete, Audience.AUTHOR, Rate.WRITE,
        "Delete a poll of one's own, or any as moderator of its group",
        answer=Gone, errors=(Forbidden, NotFound),
    ),
)  # fmt: skip
