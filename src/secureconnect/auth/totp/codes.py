"""Judging a code. A code of the app is good in its own 30 seconds and those before and after, once, and none
older than the last one used; a recovery code is good once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

import pyotp

from ... import audit
from ...clock import SECOND_US
from ...deps.contracts import Tx
from ...errors import Problem, TotpInvalid, TotpRequired
from ...identity import UserId
from ...node import Secrets
from .. import store as accounts
from ..recovery.letters import Letters
from ..sessions import Origin
from . import store

STEP_S = 30
NEIGHBOURS = (0, -1, 1)
DIGITS = 6
RECOVERY_BYTES = 15  # 120 bits, 24 characters
GROUP = 4


class Codes:
    """letters: who uses a recovery code is told so."""

    def __init__(self, secrets: Secrets, letters: Letters) -> None:
        self._letters = letters
        self._secrets = secrets
        self._key = secrets.derive("recovery-codes")

    async def check(
        self, tx: Tx, user: UserId, code: str | None, origin: Origin, now_us: int
    ) -> Problem | None:
        """What a code, sent with the right password, is refused with. None, too, when the person has no
        second factor; what is accepted is used up by this transaction."""
        kept = await store.get(tx, user)
        if kept is None or kept.confirmed_us is None:
            return None
        if code is None:
            return TotpRequired()
        written = _plain(code)
        if _is_of_app(written):
            step = self.step_of(user, kept.sealed, written, now_us)
            accepted = step is not None and await store.use_step(tx, user, step)
        else:
            accepted = await store.use_code(tx, user, self._hash(user, written))
            if accepted:
                await self._recovered(tx, user, origin, now_us)
        if accepted:
            return None
        return TotpInvalid(denial="auth:session:refused", subject=user)

    async def _recovered(self, tx: Tx, user: UserId, origin: Origin, now_us: int) -> None:
        await audit.record(
            tx, action="auth:totp:recovered", actor=user, subject=user, address=origin.address, now_us=now_us
        )
        account = await accounts.get_user(tx, user)
        if account is not None:
            left = await store.count_codes(tx, user)
            await self._letters.warn(tx, account, "code_used", origin, now_us, left=str(left))

    def seal(self, user: UserId, secret: str) -> bytes:
        """secret: base32."""
        return self._secrets.seal(_place(user), secret.encode())

    def step_of(self, user: UserId, sealed: bytes, code: str, now_us: int) -> int | None:
        """Which step the code of an app belongs to, None if it is of none that counts now."""
        app = pyotp.TOTP(self._secrets.unseal(_place(user), sealed).decode(), digits=DIGITS, interval=STEP_S)
        now, written = now_us // (STEP_S * SECOND_US), _plain(code)
        for step in (now + each for each in NEIGHBOURS):
            if hmac.compare_digest(app.generate_otp(step).encode(), written.encode()):
                return step
        return None

    def recovery(self, user: UserId, count: int) -> tuple[list[str], list[bytes]]:
        """Fresh recovery codes as they are shown, and what is kept of them."""
        plain = [base64.b32encode(secrets.token_bytes(RECOVERY_BYTES)).decode().lower() for _ in range(count)]
        shown = ["-".join(each[at : at + GROUP] for at in range(0, len(each), GROUP)) for each in plain]
        return shown, [self._hash(user, each) for each in plain]

    def _hash(self, user: UserId, code: str) -> bytes:
        return hmac.digest(self._key, f"{user}:{code}".encode(), hashlib.sha256)


def _plain(code: str) -> str:
    """As it is compared: people type blanks, hyphens and capitals."""
    return code.replace(" ", "").replace("-", "").lower()


def _is_of_app(code: str) -> bool:
    return len(code) == DIGITS and code.isascii() and code.isdigit()


def _place(user: UserId) -> str:
    return f"totp:{user}"
