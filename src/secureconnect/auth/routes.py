"""What HTTP sees of this room: bodies, answers, and the table of routes."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ..clock import to_iso
from ..edge import Audience, Call, Rate, Reply, Route, SocketRoute
from ..errors import (
    AccountBanned,
    AccountLocked,
    EmailTaken,
    Invalid,
    InvalidCredentials,
    InvalidToken,
    InviteInvalid,
    InviteRequired,
    NotFound,
    RegistrationClosed,
    TokenExpired,
    TokenRevoked,
    TotpInvalid,
    TotpRequired,
    UsernameTaken,
)
from ..identity import SessionId, UserId, is_id
from . import store
from .accounts import EMAIL_CHARS, NAME_CHARS, checked_name
from .admin.routes import ROUTES as ADMIN
from .announcements.routes import ROUTES as ANNOUNCEMENTS
from .blocks.routes import ROUTES as BLOCKS
from .deletion.routes import ROUTES as DELETION
from .devicekeys.routes import ROUTES as DEVICE_KEYS
from .devices import DeviceClaim
from .export.routes import ROUTES as EXPORT
from .friends.routes import ROUTES as FRIENDS
from .invites.routes import ROUTES as INVITES
from .profile.routes import ROUTES as PROFILE
from .recovery.routes import ROUTES as RECOVERY
from .reports.routes import ROUTES as REPORTS
from .room import Auth
from .sessions import Grant
from .shapes import (
    Code,
    Email,
    GivenPassword,
    Name,
    NewPassword,
    Page,
    Token,
    User,
    UserList,
    Username,
    origin_of,
    user_shape,
    wrong_cursor,
)
from .totp.routes import ROUTES as TOTP


class Register(Struct, frozen=True):
    email: Email
    username: Username
    password: NewPassword
    display_name: Name | None = None
    invite_code: Token | None = None


class Login(Struct, frozen=True):
    """Either `email` or `username`. `device_id` counts only together with the `device_secret` that the first
    login of this device was answered with."""

    password: GivenPassword
    email: Annotated[str, Meta(max_length=EMAIL_CHARS)] | None = None
    username: Annotated[str, Meta(max_length=EMAIL_CHARS)] | None = None
    device_id: Annotated[str, Meta(max_length=36)] | None = None
    device_secret: Token | None = None
    device_name: Name | None = None
    totp_code: Code | None = None


class Refresh(Struct, frozen=True):
    refresh_token: Token


class RenameSession(Struct, frozen=True):
    device_name: Name


class Search(Page, frozen=True, kw_only=True):
    q: Annotated[str, Meta(min_length=1, max_length=NAME_CHARS)]


class Tokens(Struct, frozen=True):
    """expires_in: whole seconds the access token lives.  device_secret: told once, to a new device."""

    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int
    session_id: str
    device_id: str


class SignedIn(Tokens, frozen=True, kw_only=True):
    user: User
    device_secret: str | None


class VerificationRequired(Struct, frozen=True):
    """The address has been written to: the account begins once it is confirmed. It is the same answer if the
    address has an account already."""

    status: Literal["verification_required"]


class Session(Struct, frozen=True):
    session_id: str
    device_id: str
    device_name: str | None
    user_agent: str
    address: str
    created_at: str
    last_seen_at: str
    expires_at: str
    is_current: bool


class SessionList(Struct, frozen=True):
    sessions: list[Session]
    next_cursor: str | None


class Ended(Struct, frozen=True):
    """`pending` comes with 202, when neither database nor Redis could take it: this server refuses the tokens
    at once, the others once it can tell them."""

    status: Literal["ended", "pending"]


class Ticket(Struct, frozen=True):
    """expires_in: whole seconds."""

    ticket: str
    expires_in: int


async def register(auth: Auth, call: Call) -> Reply:
    body: Register = call.body
    made = await auth.accounts.register(
        email=body.email,
        username=body.username,
        password=body.password,
        display_name=body.display_name,
        invite_code=body.invite_code,
        origin=origin_of(call),
    )
    if made is None:
        return Reply(VerificationRequired("verification_required"), status=202)
    return Reply(_signed_in(auth, *made))


async def login(auth: Auth, call: Call) -> Reply:
    body: Login = call.body
    if (body.email is None) == (body.username is None):
        raise Invalid("Give either an e-mail address or a username.", details={"field": "username"})
    if body.device_id is not None and not is_id(body.device_id):
        raise Invalid("A device id is a UUID.", details={"field": "device_id"})
    name = None if body.device_name is None else checked_name(body.device_name, "device_name")
    user, grant = await auth.accounts.login(
        email=body.email,
        username=body.username,
        password=body.password,
        totp_code=body.totp_code,
        claim=DeviceClaim(body.device_id, body.device_secret, name),
        origin=origin_of(call),
    )
    return Reply(_signed_in(auth, user, grant))


async def refresh(auth: Auth, call: Call) -> Reply:
    body: Refresh = call.body
    grant = await auth.sessions.refresh(body.refresh_token, origin_of(call))
    return Reply(
        Tokens(
            grant.access_token,
            grant.refresh_token,
            "Bearer",
            grant.expires_in_s,
            grant.session_id,
            grant.device_id,
        )
    )


async def logout(auth: Auth, call: Call) -> Reply:
    return _ended(await auth.sessions.end(call.caller, call.caller.session_id, call.address))


async def logout_all(auth: Auth, call: Call) -> Reply:
    return _ended(await auth.sessions.end_all(call.caller, call.address))


async def get_me(auth: Auth, call: Call) -> Reply:
    user = await auth.accounts.get(call.caller.user_id)
    return Reply(user_shape(user, auth.status_of(user.user_id), whole=True))


async def get_user(auth: Auth, call: Call) -> Reply:
    user = await auth.accounts.get(UserId(call.path["user_id"]))
    whole = user.user_id == call.caller.user_id or call.caller.role == "admin"
    statuses = await auth.statuses_for(call.caller.user_id, [user.user_id])
    return Reply(user_shape(user, statuses.get(user.user_id), whole=whole))


async def search_users(auth: Auth, call: Call) -> Reply:
    query: Search = call.query
    after = _place(query.cursor)
    found = await auth.accounts.search(query.q, call.caller.user_id, after, query.limit)
    page = found[: query.limit]
    following = f"{page[-1].tier}.{page[-1].username_key}" if len(found) > len(page) else None
    people = [each.user for each in page]
    statuses = await auth.statuses_for(call.caller.user_id, [each.user_id for each in people])
    shapes = [user_shape(each, statuses.get(each.user_id), whole=False) for each in people]
    return Reply(UserList(shapes, following))


async def list_sessions(auth: Auth, call: Call) -> Reply:
    query: Page = call.query
    if query.cursor is not None and not is_id(query.cursor):
        raise wrong_cursor()
    cursor = None if query.cursor is None else SessionId(query.cursor)
    found = await auth.sessions.list(call.caller, cursor, query.limit)
    page = found[: query.limit]
    following = page[-1].session_id if len(found) > len(page) else None
    return Reply(SessionList([_session(each, call) for each in page], following))


async def rename_session(auth: Auth, call: Call) -> Reply:
    body: RenameSession = call.body
    name = checked_name(body.device_name, "device_name")
    renamed = await auth.sessions.rename(call.caller, SessionId(call.path["session_id"]), name)
    return Reply(_session(renamed, call))


async def end_session(auth: Auth, call: Call) -> Reply:
    return _ended(await auth.sessions.end(call.caller, SessionId(call.path["session_id"]), call.address))


async def add_ticket(auth: Auth, call: Call) -> Reply:
    return Reply(Ticket(*await auth.sessions.add_ticket(call.caller)))


def _ended(everywhere: bool) -> Reply:
    return Reply(Ended("ended")) if everywhere else Reply(Ended("pending"), status=202)


def _signed_in(auth: Auth, user: store.User, grant: Grant) -> SignedIn:
    return SignedIn(
        grant.access_token,
        grant.refresh_token,
        "Bearer",
        grant.expires_in_s,
        grant.session_id,
        grant.device_id,
        user=user_shape(user, auth.status_of(user.user_id), whole=True),
        device_secret=grant.device_secret,
    )


def _session(row: store.DeviceSession, call: Call) -> Session:
    return Session(
        row.session_id,
        row.device_id,
        row.device_name,
        row.user_agent,
        row.address,
        to_iso(row.created_us),
        to_iso(row.last_seen_us),
        to_iso(row.expires_us),
        is_current=row.session_id == call.caller.session_id,
    )


def _place(cursor: str | None) -> tuple[int, str]:
    """The tier and username after which a page of a search begins. Raises Invalid."""
    if cursor is None:
        return -1, ""
    tier, dot, username_key = cursor.partition(".")
    if tier not in ("0", "1", "2") or not dot:
        raise wrong_cursor()
    return int(tier), username_key


_AUTH = "/v1/auth"
_USERS = "/v1/users"

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        f"{_AUTH}/register",
        register,
        Audience.ANYONE,
        Rate.REGISTER,
        "Make an account and sign in; or, with 202, confirm the e-mail address first",
        body=Register,
        answer=SignedIn,
        status=201,
        also=(202,),
        other={202: VerificationRequired},
        errors=(EmailTaken, UsernameTaken, RegistrationClosed, InviteRequired, InviteInvalid),
    ),
    Route(
        "POST",
        f"{_AUTH}/login",
        login,
        Audience.ANYONE,
        Rate.LOGIN,
        "Sign in with e-mail address or username",
        body=Login,
        answer=SignedIn,
        errors=(AccountBanned, AccountLocked, InvalidCredentials, TotpInvalid, TotpRequired),
    ),
    Route(
        "POST",
        f"{_AUTH}/refresh",
        refresh,
        Audience.ANYONE,
        Rate.REFRESH,
        "Spend a refresh token for fresh tokens",
        body=Refresh,
        answer=Tokens,
        errors=(InvalidToken, TokenExpired, TokenRevoked),
    ),
    Route(
        "POST",
        f"{_AUTH}/logout",
        logout,
        Audience.USER,
        Rate.WRITE,
        "End this session",
        answer=Ended,
        also=(202,),
        outage=True,
    ),
    Route(
        "POST",
        f"{_AUTH}/logout-all",
        logout_all,
        Audience.USER,
        Rate.WRITE,
        "End every session of mine",
        answer=Ended,
        also=(202,),
        outage=True,
    ),
    Route("GET", f"{_AUTH}/profile", get_me, Audience.USER, Rate.READ, "Who I am", answer=User),
    Route(
        "GET",
        f"{_AUTH}/sessions",
        list_sessions,
        Audience.USER,
        Rate.READ,
        "Where I am signed in, the newest first",
        query=Page,
        answer=SessionList,
    ),
    Route(
        "PATCH",
        f"{_AUTH}/sessions/{{session_id}}",
        rename_session,
        Audience.OWNER,
        Rate.WRITE,
        "Name the device of a session",
        body=RenameSession,
        answer=Session,
        errors=(NotFound,),
    ),
    Route(
        "DELETE",
        f"{_AUTH}/sessions/{{session_id}}",
        end_session,
        Audience.OWNER,
        Rate.WRITE,
        "End one of my sessions",
        answer=Ended,
        also=(202,),
        errors=(NotFound,),
        outage=True,
    ),
    Route(
        "POST",
        f"{_AUTH}/ws-ticket",
        add_ticket,
        Audience.USER,
        Rate.WRITE,
        "A ticket that opens one WebSocket",
        answer=Ticket,
    ),
    Route("GET", f"{_USERS}/me", get_me, Audience.USER, Rate.READ, "Who I am", answer=User),
    Route(
        "GET",
        f"{_USERS}/search",
        search_users,
        Audience.USER,
        Rate.SEARCH,
        "Find people by username or display name",
        query=Search,
        answer=UserList,
    ),
    *PROFILE,
    *DELETION,
    *EXPORT,
    *FRIENDS,
    *BLOCKS,
    Route(
        "GET",
        f"{_USERS}/{{user_id}}",
        get_user,
        Audience.USER,
        Rate.READ,
        "One person",
        answer=User,
        errors=(NotFound,),
    ),
    *TOTP,
    *INVITES,
    *ADMIN,
    *REPORTS,
    *ANNOUNCEMENTS,
    *DEVICE_KEYS,
    *RECOVERY,
)
SOCKETS: tuple[SocketRoute, ...] = ()
