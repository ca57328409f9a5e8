"""What HTTP sees of reports."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ...clock import to_iso
from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import Invalid, NotFound, TooManyReports
from ...idempotency import attempt_of
from ...identity import MessageId, UserId
from ..room import Auth
from ..shapes import Id, Page, id_place
from .store import Reason, Report, State

COMMENT_CHARS = 2_000


class NewReport(Struct, frozen=True):
    """Either `user_id` or `message_id`; a message is reported with its sender."""

    reason: Reason
    user_id: Id | None = None
    message_id: Id | None = None
    comment: Annotated[str, Meta(max_length=COMMENT_CHARS)] = ""


class MyReport(Struct, frozen=True):
    report_id: str
    state: State
    created_at: str


class ReportQuery(Page, frozen=True, kw_only=True):
    state: State | None = None


class Finding(Struct, frozen=True):
    """What is left out stays as it is."""

    state: State | None = None
    note: Annotated[str, Meta(max_length=COMMENT_CHARS)] | None = None


class ReportShape(Struct, frozen=True):
    """user_id: who it is about.  content: of the message as the reporter saw it; null for a person, and for
    an encrypted message.  updated_by: the administrator who did so last."""

    report_id: str
    reporter_id: str
    user_id: str
    message_id: str | None
    conversation_id: str | None
    reason: Reason
    comment: str
    content: str | None
    state: State
    note: str
    created_at: str
    updated_at: str
    updated_by: str | None


class ReportList(Struct, frozen=True):
    reports: list[ReportShape]
    next_cursor: str | None


async def make_report(auth: Auth, call: Call) -> Reply:
    body: NewReport = call.body
    if (body.user_id is None) == (body.message_id is None):
        raise Invalid("Report either a person or a message.", details={"field": "user_id"})
    made = await auth.reports.make(
        call.caller,
        user=None if body.user_id is None else UserId(body.user_id),
        message=None if body.message_id is None else MessageId(body.message_id),
        reason=body.reason,
        comment=body.comment.strip(),
        address=call.address,
        attempt=attempt_of(call),
    )
    shape = MyReport(made.report_id, "open", to_iso(made.created_us))
    return Reply(shape, status=201 if made.is_new else 200)


async def list_reports(auth: Auth, call: Call) -> Reply:
    query: ReportQuery = call.query
    found = await auth.reports.list(call.caller, query.state, id_place(query.cursor), query.limit)
    page = found[: query.limit]
    following = page[-1].report_id if len(found) > len(page) else None
    return Reply(ReportList([_report(each) for each in page], following))


async def update_report(auth: Auth, call: Call) -> Reply:
    body: Finding = call.body
    if body.state is None and body.note is None:
        raise Invalid("There is nothing to change.", details={"field": "state"})
    note = None if body.note is None else body.note.strip()
    report_id = call.path["report_id"]
    updated = await auth.reports.update(call.caller, report_id, body.state, note, call.address)
    return Reply(_report(updated))


def _report(row: Report) -> ReportShape:
    return ReportShape(*row[:10], to_iso(row.created_us), to_iso(row.updated_us), row.updated_by)


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/reports",
        make_report,
        Audience.USER,
        Rate.WRITE,
        "Tell the administrators about a person or a message",
        body=NewReport,
        answer=MyReport,
        status=201,
        also=(200,),
        errors=(NotFound, TooManyReports),
        repeats=True,
    ),
    Route(
        "GET",
        "/v1/admin/reports",
        list_reports,
        Audience.ADMIN,
        Rate.READ,
        "What people have reported, the newest first",
        query=ReportQuery,
        answer=ReportList,
    ),
    Route(
        "PATCH",
        "/v1/admin/reports/{report_id}",
        update_report,
        Audience.ADMIN,
        Rate.WRITE,
        "Say what became of a report",
        body=Finding,
        answer=ReportShape,
    ),
)
