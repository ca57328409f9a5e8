"""Counts attempts to prove an identity, and why they failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from .. import metrics
from ..errors import (
    AccountLocked,
    EmailTaken,
    InvalidCredentials,
    Problem,
    RegistrationClosed,
    TokenExpired,
    TokenRevoked,
    TotpInvalid,
    TotpRequired,
    Unauthenticated,
    Unavailable,
    UsernameTaken,
)

Kind = Literal["login", "register", "refresh", "ticket"]


class TokenStolen(TokenRevoked):
    """A spent refresh token came back too late: someone else has it. To the caller it is a revoked one."""


# label kind: login, register, refresh, ticket
ATTEMPTS = metrics.counter("auth_attempts_total", "Attempts to sign in or stay signed in.", ["kind"])
SUCCESS = metrics.counter("auth_success_total", "Attempts that succeeded.", ["kind"])
# label reason: those of _REASONS, and invalid
FAILURES = metrics.counter("auth_failures_total", "Attempts that failed.", ["kind", "reason"])

_REASONS: tuple[tuple[type[Problem], str], ...] = (
    (AccountLocked, "locked"),
    (TotpRequired, "code_wanted"),
    (TotpInvalid, "code"),
    (InvalidCredentials, "credentials"),
    (TokenStolen, "stolen"),
    (TokenRevoked, "revoked"),
    (TokenExpired, "expired"),
    (Unauthenticated, "invalid"),
    (EmailTaken, "taken"),
    (UsernameTaken, "taken"),
    (RegistrationClosed, "closed"),
    (Unavailable, "unavailable"),
)


@contextmanager
def counted(kind: Kind) -> Iterator[None]:
    """Count the block as one attempt, and how it ends."""
    ATTEMPTS.labels(kind).inc()
    try:
        yield
    except Problem as problem:
        reason = next((name for cause, name in _REASONS if isinstance(problem, cause)), "invalid")
        FAILURES.labels(kind, reason).inc()
        raise
    SUCCESS.labels(kind).inc()
