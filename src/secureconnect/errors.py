"""Every refusal the product can give: one class, one code, one status.

A rule raises a `Problem`; only `gateway/replies.py` turns it into bytes. The message is for users, the
cause (`raise … from exc`) for the log. The OpenAPI document lists `TABLE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

TABLE: dict[str, type[Problem]] = {}


class Problem(Exception):
    """A refusal with a stable code.

    message: one clear sentence for a user; `text` of the class if left out.
    details: small JSON for a client, for example `{"field": "email"}`.
    retry_after_s: whole seconds after which trying again makes sense, or None.
    denial: the audit tag of a refused permission, or None (DATA §8); `subject` is the thing refused.
    """

    code: ClassVar[str] = ""
    status: ClassVar[int] = 500
    text: ClassVar[str] = ""
    retry_after_s: float | None = None

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None,
        denial: str | None = None,
        subject: str | None = None,
    ) -> None:
        self.message = message or self.text
        super().__init__(self.message)
        self.details = dict(details) if details else None
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s
        self.denial = denial
        self.subject = subject

    def __init_subclass__(cls) -> None:
        if "code" in cls.__dict__:
            if cls.code in TABLE:
                raise ValueError(f"error code {cls.code} is defined twice")
            TABLE[cls.code] = cls


# 400


class Malformed(Problem):
    code, status, text = "MALFORMED", 400, "The request is not well-formed."


class CallCapacity(Problem):
    """A mesh holds so many and no more; the call in progress is not touched."""

    code, status, text = "CALL_CAPACITY", 400, "The call is at full capacity."


# 401


class Unauthenticated(Problem):
    code, status, text = "UNAUTHENTICATED", 401, "Sign in first: a valid access token is required."


class InvalidToken(Unauthenticated):
    code, text = "INVALID_TOKEN", "The token is not valid."


class TokenExpired(Unauthenticated):
    code, text = "TOKEN_EXPIRED", "The token has expired."


class TokenRevoked(Unauthenticated):
    code, text = "TOKEN_REVOKED", "The token has been revoked."


class InvalidCredentials(Unauthenticated):
    code, text = "INVALID_CREDENTIALS", "The name or the password is wrong."


class TotpRequired(Unauthenticated):
    code, text = "TOTP_REQUIRED", "This account asks for a second factor: send totp_code, too."


class TotpInvalid(InvalidCredentials):
    code, text = "TOTP_INVALID", "The code is wrong, or was used before."


# 403, 404, 405


class Forbidden(Problem):
    code, status, text = "FORBIDDEN", 403, "You are not allowed to do this."


class RecordingDisabled(Forbidden):
    code, text = "RECORDING_DISABLED", "Calls of this conversation may not be recorded."


class OriginForbidden(Forbidden):
    code, text = "ORIGIN_FORBIDDEN", "This origin is not allowed."


class AddressExpired(Forbidden):
    code, text = "ADDRESS_EXPIRED", "This address is no longer valid; ask for a new one."


class E2eeRequired(Forbidden):
    code, text = "E2EE_REQUIRED", "This conversation takes encrypted messages only."


class RegistrationClosed(Forbidden):
    code, text = "REGISTRATION_CLOSED", "This server does not take new accounts."


class InviteRequired(Forbidden):
    code, text = "INVITE_REQUIRED", "This server takes new accounts by invite: send invite_code, too."


class InviteInvalid(Forbidden):
    code, text = "INVITE_INVALID", "This invite is not, or no longer, good."


class AccountBanned(Forbidden):
    """`details` tells why and how long: `{"reason", "until"}`; null is for good."""

    code, text = "ACCOUNT_BANNED", "This account may not sign in."


class NotFound(Problem):
    code, status, text = "NOT_FOUND", 404, "There is no such thing, or it is not visible to you."


class MethodNotAllowed(Problem):
    code, status, text = "METHOD_NOT_ALLOWED", 405, "This method is not allowed here."


# 408, 409


class RequestTimeout(Problem):
    code, status, text = "REQUEST_TIMEOUT", 408, "The request did not arrive in time."


class Conflict(Problem):
    code, status, text = "CONFLICT", 409, "This conflicts with the present state."


class EmailTaken(Conflict):
    code, text = "EMAIL_TAKEN", "This e-mail address already has an account."


class UsernameTaken(Conflict):
    code, text = "USERNAME_TAKEN", "This username is taken."


class ClientMessageIdReused(Conflict):
    code, text = "CLIENT_MESSAGE_ID_REUSED", "This client_message_id was used in another conversation."


class IdempotencyKeyInUse(Conflict):
    code, text = (
        "IDEMPOTENCY_KEY_IN_USE",
        "A request with this Idempotency-Key is still under way; ask again.",
    )
    retry_after_s = 1


class LastAdmin(Conflict):
    code, text = "LAST_ADMIN", "The last admin cannot leave; make another member admin first."


class TotpEnabled(Conflict):
    code, text = "TOTP_ENABLED", "The second factor is on already; turn it off first."


class LastAdministrator(Conflict):
    code, text = "LAST_ADMINISTRATOR", "This is the server's last administrator; make another one first."


class AccountDeleted(Conflict):
    code, text = "ACCOUNT_DELETED", "The other account was deleted; nothing can be sent there any more."


class MessageDeleted(Conflict):
    code, text = "MESSAGE_DELETED", "This message has been deleted."


class PollClosed(Conflict):
    code, text = "POLL_CLOSED", "This poll is closed."


class AlreadyVoted(Conflict):
    code, text = "ALREADY_VOTED", "A vote in this poll is final."


class CallUnderWay(Conflict):
    """`details` tells which: `{"call_id": "…"}`."""

    code, text = "CALL_UNDER_WAY", "There is a call in this conversation already; join that."


class CallOver(Conflict):
    code, text = "CALL_OVER", "This call is over."


class CallElsewhere(Conflict):
    code, text = "CALL_ELSEWHERE", "You are in this call with another device."


class CallEngaged(Conflict):
    code, text = "CALL_ENGAGED", "You are in another call; leave that first."


class CallNotJoined(Conflict):
    code, text = "CALL_NOT_JOINED", "Join the call first."


class RecordingUnderWay(Conflict):
    """`details` tells which: `{"recording_id": "…"}`."""

    code, text = "RECORDING_UNDER_WAY", "This call is being recorded already."


class RecordingOver(Conflict):
    code, text = "RECORDING_OVER", "This recording has ended."


class RecordingGaps(Conflict):
    """`details` tells the first of those that are missing: `{"parts": [3]}`."""

    code, text = "RECORDING_GAPS", "Parts of this recording have not arrived."


class PartDiffers(Conflict):
    code, text = "PART_DIFFERS", "Something else has arrived under this number."


class ConsentMissing(Conflict):
    """`details` tells who has not answered: `{"user_ids": ["…"]}`."""

    code, text = "CONSENT_MISSING", "Not everybody in the call has agreed to be recorded."


class UploadMissing(Conflict):
    code, text = "UPLOAD_MISSING", "The content of this file has not arrived yet."


class UploadArrived(Conflict):
    code, text = "UPLOAD_ARRIVED", "The content of this file is there already; complete the upload."


class UploadOver(Conflict):
    code, text = "UPLOAD_OVER", "This upload is over; begin a new one."


class IdentityKeyChanged(Conflict):
    code, text = "IDENTITY_KEY_CHANGED", "This device has another identity key; sign it out to begin anew."


class KeyIdReused(Conflict):
    """`details` tells which: `{"key_id": "signed_curve25519:AAAAHQ"}`."""

    code, text = "KEY_ID_REUSED", "There is another key with this id."


class KeysMissing(Conflict):
    code, text = "KEYS_MISSING", "This device has published no keys yet."


class TooManyKeys(Conflict):
    code, text = "TOO_MANY_KEYS", "There is no room for so many keys."


class BackupVersionWrong(Conflict):
    """`details` tells the one that takes keys: `{"current_version": "3"}`."""

    code, text = "BACKUP_VERSION_WRONG", "Only the latest version of the backup takes keys."


# 413 to 431


class TooLarge(Problem):
    code, status, text = "PAYLOAD_TOO_LARGE", 413, "The request is too large."


class FileTooLarge(TooLarge):
    """`details` tells the limit: `{"limit_bytes": 104857600}`."""

    code, text = "FILE_TOO_LARGE", "The file is larger than this server takes."


class QuotaExceeded(TooLarge):
    """`details` tells how things stand: `{"quota_bytes", "used_bytes", "reserved_bytes"}`, or `{"files"}`."""

    code, text = "QUOTA_EXCEEDED", "There is no room left for this file."


class UriTooLong(Problem):
    code, status, text = "URI_TOO_LONG", 414, "The address is too long."


class UnsupportedMediaType(Problem):
    code, status, text = "UNSUPPORTED_MEDIA_TYPE", 415, "The body must be application/json."


class RangeNotSatisfiable(Problem):
    code, status, text = "RANGE_NOT_SATISFIABLE", 416, "There are no such bytes of this."


class Invalid(Problem):
    """`details` names the field: `{"field": "password"}`."""

    code, status, text = "VALIDATION", 422, "A field is not valid."


class IdempotencyKeyReused(Invalid):
    code, text = "IDEMPOTENCY_KEY_REUSED", "This Idempotency-Key came with another request before."


class MailedTokenInvalid(Invalid):
    """Unknown, used, expired, replaced by a later one, or of someone else: which of them is not told."""

    code, text = "MAILED_TOKEN_INVALID", "This link or code is not valid any more; ask for a new one."


class UploadMismatch(Invalid):
    code, text = "UPLOAD_MISMATCH", "What arrived is not the file that was announced."


class KeySignatureWrong(Invalid):
    code, text = "KEY_SIGNATURE_WRONG", "The signature is not the one of this key."


class AccountLocked(Problem):
    code, status, text = "ACCOUNT_LOCKED", 423, "Too many failed logins; the account is locked for a while."


class RateLimited(Problem):
    code, status, text = "RATE_LIMITED", 429, "Too many requests; slow down."
    retry_after_s = 1


class TooManyUploads(RateLimited):
    code, text = "TOO_MANY_UPLOADS", "Too many uploads are unfinished; complete or delete some."
    retry_after_s = 60


class TooManyReports(RateLimited):
    code, text = "TOO_MANY_REPORTS", "You have many open reports already; they will be looked at."
    retry_after_s = 3_600


class HeadersTooLarge(Problem):
    code, status, text = "HEADERS_TOO_LARGE", 431, "The request headers are too large."


# 500, 503


class Internal(Problem):
    code, status, text = "INTERNAL", 500, "Something went wrong on our side."


class Unavailable(Problem):
    code, status, text = "UNAVAILABLE", 503, "This part of the service is not available right now."
    retry_after_s = 5


class OutcomeUnknown(Unavailable):
    """The work may or may not have happened: never report it as failed, ask again with the same id."""

    code, text = "OUTCOME_UNKNOWN", "The outcome is not known yet; ask again."
    retry_after_s = 1


class DeadlineExceeded(Unavailable):
    code, text = "DEADLINE_EXCEEDED", "The request took too long."
    retry_after_s = 1


class PoolExhausted(Unavailable):
    code, text = "DB_POOL_EXHAUSTED", "The database is busy."
    retry_after_s = 1


class DiskFull(Unavailable):
    code, text = "DISK_FULL", "The server's disk is full; nothing new can be stored."
    retry_after_s = 60


class FileOnAwayNode(Unavailable):
    code, text = "FILE_ON_AWAY_NODE", "This file lies on a server that cannot be reached right now."
    retry_after_s = 10


class Overloaded(Unavailable):
    code, text = "OVERLOADED", "The server has as many connections as it may hold."


def is_away(problem: Problem) -> bool:
    """Whether the database could not be asked or did not answer. One that is busy or full is there."""
    return isinstance(problem, Unavailable) and not isinstance(problem, (PoolExhausted, DiskFull))
