"""What HTTP sees of blocks."""

from __future__ import annotations

from msgspec import Struct

from ...clock import to_iso
from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import Conflict, Invalid, NotFound
from ...identity import UserId
from ..room import Auth
from ..shapes import Page, User, after_id


class Blocked(Struct, frozen=True):
    user_id: str
    blocked_at: str


class BlockedUser(User, frozen=True, kw_only=True):
    blocked_at: str


class BlockedList(Struct, frozen=True):
    users: list[BlockedUser]
    next_cursor: str | None


async def list_blocked(auth: Auth, call: Call) -> Reply:
    query: Page = call.query
    found = await auth.blocks.list_of(call.caller.user_id, after_id(query.cursor), query.limit)
    page = found[: query.limit]
    shapes = [
        BlockedUser(
            each.user.user_id,
            each.user.username,
            each.user.display_name,
            each.user.avatar_url,
            status=None,
            blocked_at=to_iso(each.created_us),
        )
        for each in page
    ]
    following = page[-1].user.user_id if len(found) > len(page) else None
    return Reply(BlockedList(shapes, following))


async def block(auth: Auth, call: Call) -> Reply:
    other = UserId(call.path["user_id"])
    since_us = await auth.blocks.add(call.caller.user_id, other)
    return Reply(Blocked(other, to_iso(since_us)))


async def unblock(auth: Auth, call: Call) -> Reply:
    await auth.blocks.remove(call.caller.user_id, UserId(call.path["user_id"]))
    return Reply()


_BLOCK = "/v1/users/{user_id}/block"

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/v1/users/me/blocked",
        list_blocked,
        Audience.USER,
        Rate.READ,
        "Whom I have blocked",
        query=Page,
        answer=BlockedList,
    ),
    Route(
        "POST",
        _BLOCK,
        block,
        Audience.USER,
        Rate.WRITE,
        "Block somebody: we no longer find, see or write to each other",
        answer=Blocked,
        errors=(NotFound, Conflict, Invalid),
    ),
    Route("DELETE", _BLOCK, unblock, Audience.USER, Rate.WRITE, "Block somebody no longer"),
)
