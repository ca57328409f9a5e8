"""Firebase Cloud Messaging, HTTP v1: what is sent, and how Google learns who sends it.

Source: firebase.google.com/docs/reference/fcm/rest/v1/projects.messages; RFC 7523 for the assertion.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import quote, urlencode

import jwt
import msgspec
import trio
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ..errors import Unavailable
from ..settings import BadSetting
from .contracts import Deferred, FcmTarget, Push, Unregistered
from .outward import Answer, require_taken

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_S = 3_600
GONE = {"UNREGISTERED", "SENDER_ID_MISMATCH"}
WHERE_IT_GOES = "message.token"
OURS = {403, 404}  # of no token: the account may not, or push.fcm_url is not where FCM is
EARLY_S = 300  # before its end a token is replaced

Post = Callable[[str, Mapping[str, str], bytes], Awaitable[Answer]]


class Account(msgspec.Struct, frozen=True):
    """Of a service account's key file, as Google's console makes it."""

    project_id: str
    client_email: str
    private_key: str
    token_uri: str = "https://oauth2.googleapis.com/token"  # noqa: S105


class _Granted(msgspec.Struct):
    access_token: str
    expires_in: int = ASSERTION_S


class _Violation(msgspec.Struct):
    field: str = ""


class _Detail(msgspec.Struct):
    error_code: str = msgspec.field(name="errorCode", default="")
    violations: list[_Violation] = msgspec.field(name="fieldViolations", default_factory=list)

    @property
    def is_gone(self) -> bool:
        """Whether the token is none, or none any more."""
        return self.error_code in GONE or any(each.field == WHERE_IT_GOES for each in self.violations)


class _Error(msgspec.Struct):
    details: list[_Detail] = []


class _Failed(msgspec.Struct):
    error: _Error = msgspec.field(default_factory=_Error)


def read_account(path: str) -> tuple[Account, RSAPrivateKey]:
    """Raises BadSetting."""
    try:
        account = msgspec.json.decode(Path(path).read_bytes(), type=Account)
        key = load_pem_private_key(account.private_key.encode(), None)
    except OSError as exc:
        raise BadSetting(f"push.fcm_account = {path!r} cannot be read: {exc.strerror}") from None
    except (ValueError, TypeError):
        raise BadSetting(f"push.fcm_account = {path!r} is no key file of a service account") from None
    if not isinstance(key, RSAPrivateKey):
        raise BadSetting(f"push.fcm_account = {path!r} has no RSA key")
    return account, key


class Fcm:
    """url: where messages are sent to, without a path.  post: of `Outward`."""

    def __init__(self, account: Account, key: RSAPrivateKey, url: str, post: Post) -> None:
        self._account = account
        self._key = key
        self._url = f"{url}/v1/projects/{quote(account.project_id, safe='')}/messages:send"
        self._post = post
        self._token = ""
        self._good_until_s = 0
        self._asking = trio.Lock()

    async def send(self, push: Push, target: FcmTarget, now_s: int) -> None:
        """Raises as `contracts.Pusher` does."""
        message = {
            "token": target.token,
            "data": dict(push.data),
            "android": {
                "priority": "high" if push.is_urgent else "normal",
                "ttl": f"{push.ttl_s}s",
                "collapse_key": push.topic,
            },
        }
        headers = {
            "Authorization": f"Bearer {await self._access_token(now_s)}",
            "Content-Type": "application/json",
        }
        answer = await self._post(self._url, headers, msgspec.json.encode({"message": message}))
        if answer.status != 200:
            self._note(answer)
        require_taken(answer)

    async def _access_token(self, now_s: int) -> str:
        async with self._asking:  # once, however many wait for it
            if now_s >= self._good_until_s:
                await self._ask_for_token(now_s)
        return self._token

    async def _ask_for_token(self, now_s: int) -> None:
        asked = urlencode({"grant_type": GRANT, "assertion": self._assertion(now_s)}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await self._post(self._account.token_uri, headers, asked)
        try:
            granted = msgspec.json.decode(answer.body, type=_Granted)
        except msgspec.MsgspecError as exc:  # a refusal, too
            raise Unavailable(f"It gives no token: {answer.status}.") from exc
        self._token, self._good_until_s = granted.access_token, now_s + granted.expires_in - EARLY_S

    def _assertion(self, now_s: int) -> str:
        claims = {
            "iss": self._account.client_email,
            "scope": SCOPE,
            "aud": self._account.token_uri,
            "iat": now_s,
            "exp": now_s + ASSERTION_S,
        }
        return jwt.encode(claims, self._key, algorithm="RS256")

    def _note(self, answer: Answer) -> None:
        """What a failure says beyond its status. Raises Unregistered, Deferred, Unavailable."""
        try:
            failed = msgspec.json.decode(answer.body, type=_Failed).error
        except msgspec.MsgspecError:
            failed = _Error()
        if any(each.is_gone for each in failed.details):
            raise Unregistered("the token is no longer good")
        if answer.status == 401:
            self._good_until_s = 0
            raise Deferred("our own token is not taken")
        if answer.status in OURS:
            raise Unavailable(f"It does not let us: {answer.status}.", retry_after_s=0)
