"""What HTTP sees of announcements."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ...clock import to_iso
from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import Invalid
from ...idempotency import attempt_of
from ..room import Auth
from ..shapes import Moment, Page, id_place, iso_or_none, moment_of
from .store import Announcement

TEXT_CHARS = 2_000


class NewAnnouncement(Struct, frozen=True):
    """until: a time, from which on it is listed no more; without it, it always is."""

    text: Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS)]
    until: Moment | None = None


class AnnouncementShape(Struct, frozen=True):
    announcement_id: str
    text: str
    created_at: str
    until: str | None


class AnnouncementList(Struct, frozen=True):
    announcements: list[AnnouncementShape]
    next_cursor: str | None


async def make_announcement(auth: Auth, call: Call) -> Reply:
    body: NewAnnouncement = call.body
    text = body.text.strip()
    if not text:
        raise Invalid("An announcement needs some text.", details={"field": "text"})
    until_us = moment_of(body.until, "until")
    made = await auth.announcements.make(call.caller, text, until_us, call.address, attempt_of(call))
    return Reply(_shape(made))


async def list_announcements(auth: Auth, call: Call) -> Reply:
    query: Page = call.query
    return _page(await auth.announcements.list_current(id_place(query.cursor), query.limit), query.limit)


async def list_every_announcement(auth: Auth, call: Call) -> Reply:
    query: Page = call.query
    found = await auth.announcements.list_all(call.caller, id_place(query.cursor), query.limit)
    return _page(found, query.limit)


def _page(found: list[Announcement], limit: int) -> Reply:
    page = found[:limit]
    following = page[-1].announcement_id if len(found) > len(page) else None
    return Reply(AnnouncementList([_shape(each) for each in page], following))


def _shape(row: Announcement) -> AnnouncementShape:
    return AnnouncementShape(row.announcement_id, row.text, to_iso(row.created_us), iso_or_none(row.until_us))


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/v1/announcements",
        list_announcements,
        Audience.USER,
        Rate.READ,
        "What the administrators have told everybody, the newest first",
        query=Page,
        answer=AnnouncementList,
    ),
    Route(
        "GET",
        "/v1/admin/announcements",
        list_every_announcement,
        Audience.ADMIN,
        Rate.READ,
        "The same, with those that have ended",
        query=Page,
        answer=AnnouncementList,
    ),
    Route(
        "POST",
        "/v1/admin/announcements",
        make_announcement,
        Audience.ADMIN,
        Rate.WRITE,
        "Tell everybody something",
        body=NewAnnouncement,
        answer=AnnouncementShape,
        status=201,
        repeats=True,
    ),
)
