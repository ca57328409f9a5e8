"""What HTTP sees of friends."""

from __future__ import annotations

from msgspec import Struct

from ...clock import to_iso
from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import Conflict, Forbidden, Invalid, NotFound
from ...idempotency import attempt_of
from ...identity import UserId
from ..room import Auth
from ..shapes import Page, User, after_id
from .store import State


class FriendPage(Page, frozen=True, kw_only=True):
    """state: friends, or requests that were made to me or by me and wait."""

    state: State = "accepted"


class Friendship(Struct, frozen=True):
    user_id: str
    state: State


class Friend(User, frozen=True, kw_only=True):
    """since: when it became what it is."""

    state: State
    since: str


class FriendList(Struct, frozen=True):
    friends: list[Friend]
    next_cursor: str | None


async def list_friends(auth: Auth, call: Call) -> Reply:
    query: FriendPage = call.query
    me = call.caller.user_id
    found = await auth.friends.list_of(me, query.state, after_id(query.cursor), query.limit)
    page = found[: query.limit]
    statuses = await auth.statuses_for(me, [each.user.user_id for each in page])
    shapes = [
        Friend(
            each.user.user_id,
            each.user.username,
            each.user.display_name,
            each.user.avatar_url,
            statuses.get(each.user.user_id),
            state=query.state,
            since=to_iso(each.since_us),
        )
        for each in page
    ]
    following = page[-1].user.user_id if len(found) > len(page) else None
    return Reply(FriendList(shapes, following))


async def befriend(auth: Auth, call: Call) -> Reply:
    other = UserId(call.path["user_id"])
    return Reply(Friendship(other, await auth.friends.ask(call.caller.user_id, other, attempt_of(call))))


async def accept_friend(auth: Auth, call: Call) -> Reply:
    other = UserId(call.path["user_id"])
    await auth.friends.accept(call.caller.user_id, other)
    return Reply(Friendship(other, "accepted"))


async def reject_friend(auth: Auth, call: Call) -> Reply:
    await auth.friends.reject(call.caller.user_id, UserId(call.path["user_id"]))
    return Reply()


async def remove_friend(auth: Auth, call: Call) -> Reply:
    await auth.friends.remove(call.caller.user_id, UserId(call.path["user_id"]))
    return Reply()


_FRIENDS = "/v1/users/me/friends"
_FRIEND = f"{_FRIENDS}/{{user_id}}"

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        _FRIENDS,
        list_friends,
        Audience.USER,
        Rate.READ,
        "My friends, or the requests that wait",
        query=FriendPage,
        answer=FriendList,
    ),
    Route(
        "POST",
        "/v1/users/{user_id}/friend",
        befriend,
        Audience.USER,
        Rate.WRITE,
        "Ask somebody to be friends; who was asked by them is friends at once",
        answer=Friendship,
        errors=(NotFound, Forbidden, Conflict, Invalid),
        repeats=True,
    ),
    Route(
        "POST",
        f"{_FRIEND}/accept",
        accept_friend,
        Audience.OWNER,
        Rate.WRITE,
        "Be friends with somebody who has asked me",
        answer=Friendship,
        errors=(NotFound, Conflict),
    ),
    Route(
        "DELETE",
        f"{_FRIEND}/reject",
        reject_friend,
        Audience.OWNER,
        Rate.WRITE,
        "Turn down somebody who has asked me",
        errors=(NotFound,),
    ),
    Route(
        "DELETE",
        _FRIEND,
        remove_friend,
        Audience.OWNER,
        Rate.WRITE,
        "Be friends no longer, or take my request back",
        errors=(NotFound,),
    ),
)
