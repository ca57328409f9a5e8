"""What HTTP sees of the export."""

from __future__ import annotations

from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import Overloaded
from ..room import Auth

ZIP = "application/zip"
_HEADERS = {
    "content-type": ZIP,
    "content-disposition": 'attachment; filename="secureconnect-export.zip"',
}


async def export_me(auth: Auth, call: Call) -> Reply:
    body = await auth.export.begin(call.caller.user_id, call.address)
    return Reply(headers=_HEADERS, body=body)


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/v1/users/me/export",
        export_me,
        Audience.USER,
        Rate.SEARCH,
        "Everything the server holds of me, as a zip file",
        errors=(Overloaded,),
        stream=0,
        media=ZIP,
    ),
)
