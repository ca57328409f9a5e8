"""What HTTP sees of administration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from ...audit import ACTIONS, Asked, Entry, json_of, time_of
from ...clock import to_iso
from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import Conflict, Invalid, LastAdministrator, NotFound
from ...identity import Role, UserId
from .. import store as auth_store
from ..accounts import NAME_CHARS, fold
from ..room import Auth
from ..shapes import Id, Moment, Page, User, id_place, iso_or_none, moment_of, user_shape
from .store import REASON_CHARS, Account

SUBJECT_CHARS = 200


class UserQuery(Page, frozen=True, kw_only=True):
    """q: found anywhere in a name or an e-mail address."""

    q: Annotated[str, Meta(min_length=1, max_length=NAME_CHARS)] | None = None
    role: Role | None = None
    banned: bool | None = None


class AuditQuery(Struct, frozen=True):
    """since, until: times; rows from the one on, and before the other."""

    action: Annotated[str, Meta(max_length=100)] | None = None
    actor_id: Id | None = None
    subject: Annotated[str, Meta(max_length=SUBJECT_CHARS)] | None = None
    since: Moment | None = None
    until: Moment | None = None


class AuditExport(AuditQuery, frozen=True, kw_only=True):
    """after: the audit_id of the last line of an export that broke off."""

    after: Id | None = None


class AuditPage(AuditQuery, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    cursor: Annotated[str, Meta(max_length=200)] | None = None


class NewBan(Struct, frozen=True):
    """reason: told to the banned person.  until: a time; without it the ban is for good."""

    reason: Annotated[str, Meta(max_length=REASON_CHARS)] = ""
    until: Moment | None = None


class BanShape(Struct, frozen=True):
    """banned_by: null from the command line."""

    reason: str
    banned_at: str
    until: str | None
    banned_by: str | None


class Banned(Struct, frozen=True):
    """`pending` comes with 202, when neither database nor Redis could take it: this server refuses the
    person at once, the others once it can tell them."""

    status: Literal["banned", "pending"]


class Unbanned(Struct, frozen=True):
    status: Literal["unbanned"] = "unbanned"


class Unlocked(Struct, frozen=True):
    status: Literal["unlocked"] = "unlocked"


class TotpRemoved(Struct, frozen=True):
    status: Literal["removed"] = "removed"


class Deleted(Struct, frozen=True):
    status: Literal["deleted"] = "deleted"


class AdminUser(Struct, frozen=True):
    """last_seen_at: when a session of theirs was opened or refreshed last."""

    user: User
    ban: BanShape | None
    last_seen_at: str | None


class AdminUserList(Struct, frozen=True):
    users: list[AdminUser]
    next_cursor: str | None


class Stats(Struct, frozen=True):
    """sessions: that live.  messages: ever sent.  sockets: open on the node that answers."""

    users: int
    admins: int
    banned: int
    sessions: int
    conversations: int
    messages: int
    files: int
    file_bytes: int
    open_reports: int
    sockets: int


class DependencyShape(Struct, frozen=True):
    """place: where it is: host and port, or a folder."""

    name: str
    kind: str
    place: str
    status: str
    breaker: str | None
    since: str
    last_error: str | None
    affects: list[str]


class NodeShape(Struct, frozen=True):
    node_id: str
    version: str
    started_at: str
    renewed_at: str


class HealthShape(Struct, frozen=True):
    """modules, dependencies: as the node that answers sees them.  nodes: that are alive."""

    modules: dict[str, str]
    dependencies: list[DependencyShape]
    nodes: list[NodeShape]


class AuditEntry(Struct, frozen=True):
    """personal: null without any, or once erased.  position: null until the row is sealed."""

    audit_id: str
    recorded_at: str
    action: str
    actor_id: str | None
    subject: str | None
    facts: dict[str, Any]
    personal: dict[str, Any] | None
    position: int | None


class AuditList(Struct, frozen=True):
    entries: list[AuditEntry]
    next_cursor: str | None


async def get_stats(auth: Auth, call: Call) -> Reply:
    counts, figures = await auth.overview.count(call.caller)
    return Reply(Stats(**counts._asdict(), **figures._asdict()))


async def get_health(auth: Auth, call: Call) -> Reply:
    condition, nodes = await auth.overview.look(call.caller)
    dependencies = [
        DependencyShape(
            each.name,
            each.kind,
            condition.places.get(each.name, ""),
            each.status,
            each.breaker,
            to_iso(each.since_us),
            each.last_error,
            list(each.affects),
        )
        for each in condition.dependencies
    ]
    living = [
        NodeShape(each.node_id, each.version, to_iso(each.started_us), to_iso(each.renewed_us))
        for each in nodes
    ]
    return Reply(HealthShape(dict(condition.modules), dependencies, living))


async def list_users(auth: Auth, call: Call) -> Reply:
    query: UserQuery = call.query
    found = await auth.overview.list_accounts(
        call.caller,
        text=fold(query.q.strip()) if query.q else "",
        role=query.role or "",
        banned="" if query.banned is None else "yes" if query.banned else "no",
        before=UserId(id_place(query.cursor)),
        limit=query.limit,
    )
    page = found[: query.limit]
    following = page[-1].user_id if len(found) > len(page) else None
    return Reply(AdminUserList([_account(auth, each) for each in page], following))


async def ban(auth: Auth, call: Call) -> Reply:
    body: NewBan = call.body
    everywhere = await auth.bans.ban(
        call.caller,
        UserId(call.path["user_id"]),
        body.reason.strip(),
        moment_of(body.until, "until"),
        call.address,
    )
    return Reply(Banned("banned")) if everywhere else Reply(Banned("pending"), status=202)


async def unban(auth: Auth, call: Call) -> Reply:
    await auth.bans.unban(call.caller, UserId(call.path["user_id"]), call.address)
    return Reply(Unbanned())


async def unlock(auth: Auth, call: Call) -> Reply:
    await auth.rescue.unlock(call.caller, UserId(call.path["user_id"]), call.address)
    return Reply(Unlocked())


async def remove_totp(auth: Auth, call: Call) -> Reply:
    await auth.rescue.remove_totp(call.caller, UserId(call.path["user_id"]), call.address)
    return Reply(TotpRemoved())


async def remove(auth: Auth, call: Call) -> Reply:
    await auth.removal.remove(call.caller, UserId(call.path["user_id"]), call.address)
    return Reply(Deleted())


async def list_audit(auth: Auth, call: Call) -> Reply:
    query: AuditPage = call.query
    before = id_place(query.cursor)
    found = await auth.overview.list_audit(call.caller, _asked(query), before, query.limit)
    page = found[: query.limit]
    following = page[-1].audit_id if len(found) > len(page) else None
    return Reply(AuditList([_entry(each) for each in page], following))


async def export_audit(auth: Auth, call: Call) -> Reply:
    query: AuditExport = call.query
    lines = await auth.overview.export_audit(call.caller, _asked(query), query.after)
    headers = {
        "content-type": "application/octet-stream",
        "content-disposition": 'attachment; filename="audit.jsonl"',
    }
    return Reply(body=lines, headers=headers)


def _asked(query: AuditQuery) -> Asked:
    if query.action is not None and query.action not in ACTIONS:
        raise Invalid("There is no such action.", details={"field": "action"})
    return Asked(
        query.action,
        None if query.actor_id is None else UserId(query.actor_id),
        query.subject,
        moment_of(query.since, "since"),
        moment_of(query.until, "until"),
    )


def _account(auth: Auth, row: Account) -> AdminUser:
    ban = row.ban
    return AdminUser(
        user_shape(auth_store.User(*row[:7]), auth.status_of(row.user_id), whole=True),
        None
        if ban is None
        else BanShape(ban.reason, to_iso(ban.banned_us), iso_or_none(ban.until_us), ban.banned_by),
        iso_or_none(row.last_seen_us),
    )


def _entry(row: Entry) -> AuditEntry:
    return AuditEntry(
        row.audit_id,
        time_of(row.recorded_us),
        row.action,
        row.actor,
        row.subject,
        msgspec.json.decode(json_of(row.facts)),
        None if row.personal is None else msgspec.json.decode(json_of(row.personal)),
        row.position,
    )


_ADMIN = "/v1/admin"
_USER = f"{_ADMIN}/users/{{user_id}}"

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        f"{_ADMIN}/stats",
        get_stats,
        Audience.ADMIN,
        Rate.SEARCH,
        "How much there is of everything",
        answer=Stats,
    ),
    Route(
        "GET",
        f"{_ADMIN}/health",
        get_health,
        Audience.ADMIN,
        Rate.READ,
        "How the server is, with what the public page leaves out",
        answer=HealthShape,
    ),
    Route(
        "GET",
        f"{_ADMIN}/users",
        list_users,
        Audience.ADMIN,
        Rate.SEARCH,
        "Everybody, the newest first",
        query=UserQuery,
        answer=AdminUserList,
    ),
    Route(
        "POST",
        f"{_USER}/ban",
        ban,
        Audience.ADMIN,
        Rate.WRITE,
        "Keep someone out, for a time or for good",
        body=NewBan,
        answer=Banned,
        also=(202,),
        errors=(Conflict, LastAdministrator, NotFound),
        outage=True,
    ),
    Route(
        "POST",
        f"{_USER}/unban",
        unban,
        Audience.ADMIN,
        Rate.WRITE,
        "Let someone in again",
        answer=Unbanned,
        errors=(NotFound,),
    ),
    Route(
        "POST",
        f"{_USER}/unlock",
        unlock,
        Audience.ADMIN,
        Rate.WRITE,
        "Let someone try again who has failed to sign in too often",
        answer=Unlocked,
        errors=(Conflict, NotFound),
    ),
    Route(
        "DELETE",
        f"{_USER}/totp",
        remove_totp,
        Audience.ADMIN,
        Rate.WRITE,
        "Take away the second factor of who has lost it, and end their sessions",
        answer=TotpRemoved,
        errors=(Conflict, NotFound),
    ),
    Route(
        "DELETE",
        _USER,
        remove,
        Audience.ADMIN,
        Rate.WRITE,
        "Delete somebody's account, at once and for good",
        answer=Deleted,
        errors=(Conflict, LastAdministrator, NotFound),
    ),
    Route(
        "GET",
        f"{_ADMIN}/audit",
        list_audit,
        Audience.ADMIN,
        Rate.SEARCH,
        "Who did what, the newest first",
        query=AuditPage,
        answer=AuditList,
    ),
    Route(
        "GET",
        f"{_ADMIN}/audit/export",
        export_audit,
        Audience.ADMIN,
        Rate.SEARCH,
        "The audit log as lines of JSON, the oldest first",
        query=AuditExport,
        stream=0,
    ),
)
