"""Confirming an e-mail address, changing it, and setting a new password without the old one."""

from __future__ import annotations

from ... import audit
from ...clock import SECOND_US
from ...config import AuthConfig
from ...deps.contracts import Database, Tx, UniqueViolation
from ...errors import EmailTaken, Invalid, MailedTokenInvalid, NotFound, RateLimited
from ...identity import Principal, UserId, new_id
from ..accounts import checked_email, checked_password, fold
from ..devices import NOBODY
from ..lockout import Lockout
from ..passwords import Passwords
from ..reauthentication import Reauthentication, require_open
from ..sessions import Closed, Origin, Sessions
from ..tokens import digest, random_token
from . import store
from .letters import Kind, Letters
from .registrations import PAGE, Registrations


class Recovery:
    def __init__(
        self,
        config: AuthConfig,
        db: Database,
        passwords: Passwords,
        sessions: Sessions,
        reauthentication: Reauthentication,
        lockout: Lockout,
        letters: Letters,
        registrations: Registrations,
    ) -> None:
        self._db = db
        self._passwords = passwords
        self._sessions = sessions
        self._reauthentication = reauthentication
        self._lockout = lockout
        self._letters = letters
        self._registrations = registrations
        self._verify_us = config.verify_ttl_s * SECOND_US
        self._reset_us = config.reset_ttl_s * SECOND_US
        self._pause_us = config.mail_pause_s * SECOND_US

    # confirming an address

    async def request_verification(self, email: str, language: str) -> None:
        """A fresh token for an account or a registration of this address that is not confirmed yet. Whether
        there is one shows in nothing. Raises Unavailable."""

        async def unit(tx: Tx) -> None:
            account = await store.lock_by_email(tx, fold(email))
            if account is None:
                if await self._registrations.send_again(tx, email, token, language, now_us):
                    return
            elif account.verified_us is None and await self._may_write(tx, account.user_id, "verify", now_us):
                await self._send(tx, account, "verify", token, language, now_us)
                return
            await self._send_nothing(tx, "verify", email, token, language, now_us)

        self._letters.require_room()
        now_us, token = self._db.now_us(), random_token()
        await self._db.write(unit)

    async def verify(self, token: str, origin: Origin) -> None:
        """Confirm the address the token was mailed to; an account that waited for it begins.
        Raises MailedTokenInvalid; EmailTaken or UsernameTaken when someone else was faster."""

        async def unit(tx: Tx) -> None:
            now_us = self._db.now_us()
            if await self._registrations.finish(tx, token, origin, now_us):
                return
            account = await self._use(tx, digest(token), "verify", now_us)
            await store.mark_verified(tx, account.user_id, now_us)
            await self._record(tx, "auth:email:verified", account.user_id, origin, now_us)

        await self._db.write(unit)

    # changing it

    async def request_change(
        self,
        caller: Principal,
        email: str,
        *,
        password: str,
        totp_code: str | None,
        origin: Origin,
    ) -> None:
        """Write a token to the new address and a notice to the old one. If the new one has an account, its
        owner is told instead; the caller is not, nor that somebody else had it written to just now.
        Raises InvalidCredentials, Invalid, RateLimited."""

        async def unit(tx: Tx) -> None:
            await require_open(tx, caller)
            account = await store.lock(tx, caller.user_id)
            if account is None:
                raise NotFound
            if account.email_key == fold(email):
                raise Invalid("This is the address of your account already.", details={"field": "email"})
            asked_us = await store.asked_us(tx, account.user_id, "change")
            if asked_us is not None and now_us - asked_us < self._pause_us:
                wait_s = (asked_us + self._pause_us - now_us) // SECOND_US + 1
                raise RateLimited("A mail was sent just now.", retry_after_s=wait_s)
            expires_us = now_us + self._verify_us
            proof = store.Proof(account.user_id, email, fold(email))
            await store.put_token(tx, proof, "change", digest(token), now_us=now_us, expires_us=expires_us)
            other = await store.find_by_email(tx, fold(email))
            if other is not None:
                await self._registrations.tell_taken(tx, other, token, origin.language, now_us)
            elif await self._registrations.may_write(tx, "address", proof.email_key, now_us):
                await self._letters.send_token(
                    tx,
                    account.user_id,
                    "verify",
                    email,
                    origin.language,
                    username=account.username,
                    token=token,
                    page="verify#change",
                    now_us=now_us,
                    expires_us=expires_us,
                )
            else:
                await self._letters.send_nothing(
                    tx, "verify", email, origin.language, token=token, now_us=now_us
                )
            await self._tell(tx, account, "change", origin, now_us)
            await self._record(tx, "auth:email:change_requested", account.user_id, origin, now_us)

        checked_email(email)
        self._letters.require_room()
        await self._reauthentication.require(caller.user_id, password, totp_code, origin)
        now_us, token = self._db.now_us(), random_token()
        await self._db.write(unit)

    async def change(self, caller: Principal, token: str, origin: Origin) -> None:
        """The address the caller's token was mailed to becomes that of the account; the one it had is told.
        Raises MailedTokenInvalid, EmailTaken."""

        async def unit(tx: Tx) -> None:
            await require_open(tx, caller)
            now_us = self._db.now_us()
            account = await store.lock(tx, caller.user_id)
            proof = await store.take_token(tx, digest(token), "change", now_us)
            if account is None or proof is None or proof.user_id != caller.user_id:
                raise MailedTokenInvalid
            if await store.find_by_email(tx, proof.email_key) is not None:
                raise EmailTaken
            await store.change_email(tx, account.user_id, proof.email, proof.email_key, now_us)
            await self._tell(tx, account, "address_changed", origin, now_us)
            await self._record(tx, "auth:email:changed", account.user_id, origin, now_us)

        try:
            await self._db.write(unit)
        except UniqueViolation as exc:  # someone else was faster by a moment
            raise EmailTaken from exc

    # a new password

    async def request_reset(self, email: str, origin: Origin) -> None:
        """A token that sets a new password, to the address if it has an account. Whether it has shows in
        nothing. Raises Unavailable."""

        async def unit(tx: Tx) -> None:
            account = await store.lock_by_email(tx, fold(email))
            user = None if account is None else account.user_id
            await self._record(tx, "auth:password:reset_requested", user, origin, now_us)
            may_write = await self._may_write(tx, user or NOBODY, "reset", now_us)
            if account is not None and may_write:
                await self._send(tx, account, "reset", token, origin.language, now_us)
            else:
                await self._send_nothing(tx, "reset", email, token, origin.language, now_us)

        self._letters.require_room()
        now_us, token = self._db.now_us(), random_token()
        await self._db.write(unit)

    async def reset(self, token: str, new_password: str, origin: Origin) -> None:
        """Set the password, end every session, forget failed logins. Whoever can read the mail has confirmed
        the address, too. Raises MailedTokenInvalid, Invalid."""

        async def unit(tx: Tx) -> Closed:
            now_us = self._db.now_us()
            account = await self._use(tx, token_hash, "reset", now_us)
            user = account.user_id
            await store.set_password(tx, user, password_hash, now_us)
            await store.mark_verified(tx, user, now_us)
            await store.drop_tokens(tx, user)  # a change of address, too, that somebody else asked for
            await self._lockout.clear(tx, user)
            closed = await self._sessions.close(tx, user, origin.address, now_us)
            await self._record(tx, "auth:password:reset", user, origin, now_us)
            await self._tell(tx, account, "password", origin, now_us)
            return closed

        checked_password(new_password, "new_password")
        token_hash = digest(token)
        # first: a hash is dear, and anyone can send a token that is none
        if await self._db.read(store.get_token, token_hash, "reset", self._db.now_us()) is None:
            raise MailedTokenInvalid
        password_hash = await self._passwords.hash(new_password)
        self._sessions.closed(await self._db.write(unit))

    async def forget(self, tx: Tx, user: UserId) -> None:
        """Of a person who goes: no token of theirs works, and nothing more is written to them."""
        await store.drop_tokens(tx, user)
        await self._letters.forget(tx, user)

    async def prune_once(self) -> None:
        """Delete what has expired, a bounded transaction at a time."""
        for prune in (store.prune_tokens, self._registrations.prune):
            while await self._db.relieve(prune, self._db.now_us()) == store.PRUNE_ROWS:
                pass

    # what they have in common

    async def _use(self, tx: Tx, token_hash: bytes, purpose: store.Purpose, now_us: int) -> store.Account:
        """Whose address a token proves, held by this transaction; the token is spent. One that was mailed to
        an address the account had before proves nothing."""
        found = await store.get_token(tx, token_hash, purpose, now_us)
        account = None if found is None else await store.lock(tx, found.user_id)
        proof = await store.take_token(tx, token_hash, purpose, now_us)  # of two, one gets it
        if account is None or proof is None or account.email_key != proof.email_key:
            raise MailedTokenInvalid
        return account

    async def _may_write(self, tx: Tx, user: UserId, purpose: store.Purpose, now_us: int) -> bool:
        asked_us = await store.asked_us(tx, user, purpose)
        return asked_us is None or now_us - asked_us >= self._pause_us

    async def _send(
        self, tx: Tx, to: store.Account, purpose: Kind, token: str, language: str, now_us: int
    ) -> None:
        is_reset = purpose == "reset"
        expires_us = now_us + (self._reset_us if is_reset else self._verify_us)
        proof = store.Proof(to.user_id, to.email, to.email_key)
        await store.put_token(
            tx,
            proof,
            "reset" if is_reset else "verify",
            digest(token),
            now_us=now_us,
            expires_us=expires_us,
        )
        await self._letters.send_token(
            tx,
            to.user_id,
            purpose,
            to.email,
            language,
            username=to.username,
            token=token,
            page="reset#token" if is_reset else PAGE,
            now_us=now_us,
            expires_us=expires_us,
        )

    async def _send_nothing(
        self, tx: Tx, purpose: Kind, email: str, token: str, language: str, now_us: int
    ) -> None:
        """What `_send` writes, of nobody."""
        nobody = store.Proof(UserId(new_id()), email, fold(email))
        expires_us = now_us + self._reset_us
        await store.put_token(tx, nobody, "reset", digest(token), now_us=now_us, expires_us=expires_us)
        await self._letters.send_nothing(tx, purpose, email, language, token=token, now_us=now_us)

    async def _tell(self, tx: Tx, account: store.Account, kind: Kind, origin: Origin, now_us: int) -> None:
        """At the address it has, or had until now."""
        await self._letters.notify(
            tx,
            account.user_id,
            kind,
            account.email,
            origin.language,
            now_us=now_us,
            username=account.username,
        )

    async def _record(self, tx: Tx, action: str, user: UserId | None, origin: Origin, now_us: int) -> None:
        await audit.record(tx, action=action, actor=user, subject=user, address=origin.address, now_us=now_us)
