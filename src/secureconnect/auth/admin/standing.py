"""Whether someone may sign in, and as what: units that a server and the command line share.

What changes that ends every session of theirs, in the same transaction: all nodes learn it within a second,
so nobody goes on with what they were before. Accounts are locked by id, one after the other: of two
administrators who ban each other at the same moment one stays.
"""

from __future__ import annotations

from ... import audit
from ...clock import SECOND_US, to_iso
from ...config import AuthConfig
from ...deps.contracts import Tx
from ...errors import AccountBanned, Invalid, LastAdministrator, NotFound
from ...identity import Role, SessionId, UserId
from .. import store as auth_store
from ..deletion import store as deletion_store
from ..lockout import Lockout
from ..totp import store as totp
from . import store
from .store import Ban

Ended = frozenset[SessionId]


async def ban(
    tx: Tx, config: AuthConfig, user: UserId, terms: Ban, address: str | None, now_us: int
) -> Ended:
    """Returns the sessions this ends. A ban that stands already gets these terms.

    Raises NotFound, Invalid for a reason that is too long, and LastAdministrator if nobody else could lift it
    again.
    """
    if len(terms.reason) > store.REASON_CHARS:
        raise Invalid(f"A reason has at most {store.REASON_CHARS} characters.", details={"field": "reason"})
    await require_another(tx, user, now_us)
    await store.add_ban(tx, user, terms)
    await audit.record(
        tx,
        action="admin:user:banned",
        actor=terms.banned_by,
        subject=user,
        address=address,
        facts={"reason": terms.reason, "until": _iso(terms.until_us)},
        now_us=now_us,
    )
    return await _end_sessions(tx, config, user, now_us)


async def unban(tx: Tx, user: UserId, actor: UserId | None, address: str | None, now_us: int) -> bool:
    """Whether there was a ban. Raises NotFound if there is no such account."""
    if await store.lock_user(tx, user) is None:
        raise NotFound
    was_banned = await store.get_ban(tx, user, now_us) is not None
    await store.delete_ban(tx, user)
    if was_banned:
        await audit.record(
            tx, action="admin:user:unbanned", actor=actor, subject=user, address=address, now_us=now_us
        )
    return was_banned


async def set_role(
    tx: Tx, config: AuthConfig, user: UserId, role: Role, actor: UserId | None, now_us: int
) -> Ended:
    """Returns the sessions this ends: none if they have that role. Raises NotFound, LastAdministrator."""
    held = await (require_another(tx, user, now_us) if role != "admin" else store.lock_user(tx, user))
    if held is None:
        raise NotFound
    if held.role == role:
        return frozenset()
    await store.set_role(tx, user, role, now_us)
    await audit.record(
        tx, action="admin:role:changed", actor=actor, subject=user, facts={"role": role}, now_us=now_us
    )
    return await _end_sessions(tx, config, user, now_us)


async def remove(
    tx: Tx, config: AuthConfig, user: UserId, actor: UserId | None, address: str | None, now_us: int
) -> Ended:
    """The account is due to be erased. Returns the sessions this ends. Raises NotFound, LastAdministrator."""
    await require_another(tx, user, now_us)
    if await deletion_store.schedule(tx, user, now_us, now_us) is None:
        raise NotFound
    await audit.record(
        tx, action="admin:user:deleted", actor=actor, subject=user, address=address, now_us=now_us
    )
    return await _end_sessions(tx, config, user, now_us)


async def unlock(
    tx: Tx, lockout: Lockout, user: UserId, actor: UserId | None, address: str | None, now_us: int
) -> None:
    """Forget the failures that have locked them out, on all their devices. Raises NotFound."""
    if await store.lock_user(tx, user) is None:
        raise NotFound
    await lockout.clear(tx, user)
    await audit.record(
        tx, action="admin:user:unlocked", actor=actor, subject=user, address=address, now_us=now_us
    )


async def remove_totp(
    tx: Tx, config: AuthConfig, user: UserId, actor: UserId | None, address: str | None, now_us: int
) -> Ended | None:
    """Take away the second factor of who has lost it. Returns the sessions this ends; None: there was none.
    Raises NotFound."""
    if await store.lock_user(tx, user) is None:
        raise NotFound
    if not await totp.delete(tx, user):
        return None
    await audit.record(
        tx, action="admin:totp:removed", actor=actor, subject=user, address=address, now_us=now_us
    )
    return await _end_sessions(tx, config, user, now_us)


async def require_welcome(tx: Tx, user: UserId, now_us: int) -> None:
    """In a transaction that holds the account, so that no ban passes it by. Raises AccountBanned."""
    banned = await store.get_ban(tx, user, now_us)
    if banned is not None:
        raise AccountBanned(
            "This account may not sign in"
            + (f" before {to_iso(banned.until_us)}." if banned.until_us is not None else "."),
            details={"reason": banned.reason, "until": _iso(banned.until_us)},
            denial="auth:session:refused",
            subject=user,
        )


async def is_banned(tx: Tx, user: UserId, now_us: int) -> bool:
    """For what goes by without a session."""
    return await store.get_ban(tx, user, now_us) is not None


async def require_another(tx: Tx, user: UserId, now_us: int) -> store.Standing:
    """The standing of `user`, who is about to lose it. Raises NotFound, and LastAdministrator unless another
    one may sign in and stays."""
    held = {each: await store.lock_user(tx, each) for each in sorted({user, *await store.list_admins(tx)})}
    own = held.pop(user)
    if own is None:
        raise NotFound
    if own.role == "admin":
        for other, theirs in held.items():
            if theirs == ("admin", False) and await store.get_ban(tx, other, now_us) is None:
                return own
        raise LastAdministrator
    return own


async def _end_sessions(tx: Tx, config: AuthConfig, user: UserId, now_us: int) -> Ended:
    ended = await auth_store.end_sessions_of_user(tx, user, now_us)
    until_us = now_us + config.revocations_kept_s * SECOND_US
    await auth_store.add_revocations(tx, ended, now_us=now_us, until_us=until_us)
    return ended


def _iso(us: int | None) -> str | None:
    return None if us is None else to_iso(us)
