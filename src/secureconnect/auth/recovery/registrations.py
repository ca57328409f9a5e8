"""Accounts that wait for their e-mail address to be confirmed. Until then there is no account: nobody can
sign in to it, and whoever knows the address learns nothing by trying."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from ... import audit
from ...clock import SECOND_US
from ...config import AuthConfig
from ...deps.contracts import Database, Tx
from ...errors import EmailTaken, UsernameTaken
from ...identity import UserId
from .. import store as people
from ..accounts import fold
from ..invites import store as invites
from ..invites.invites import spend
from ..sessions import Origin
from ..tokens import digest, random_token
from . import store
from .letters import Letters

PAGE = "verify#token"  # of the web client


class Registrations:
    def __init__(self, config: AuthConfig, db: Database, letters: Letters) -> None:
        self._db = db
        self._letters = letters
        self._ttl_us = config.verify_ttl_s * SECOND_US
        self._pause_us = config.mail_pause_s * SECOND_US

    async def begin(
        self, user: people.User, password_hash: str, language: str, invite_code: str | None
    ) -> None:
        """Keep what will be an account, and write to its address: a token, or that it has an account already.

        invite_code: spent by this; the use is given back if the address is not confirmed in time.
        Raises UsernameTaken, InviteInvalid, Unavailable."""

        async def unit(tx: Tx) -> None:
            await _give_back(tx, await store.free_name(tx, username_key, now_us))
            # before anything is refused, as in `Accounts.register`
            invite = None if invite_code is None else await spend(tx, invite_code, now_us)
            new = store.Registration(
                user.user_id,
                user.username,
                username_key,
                user.email,
                fold(user.email),
                user.display_name,
                password_hash,
                invite,
            )
            expires_us, token_hash = now_us + self._ttl_us, digest(token)
            if not await store.add_registration(tx, new, token_hash, now_us=now_us, expires_us=expires_us):
                raise UsernameTaken
            # only now: whoever made an account of a registration of this name meanwhile has let go of it
            if await store.is_name_taken(tx, username_key):
                raise UsernameTaken
            account = await store.lock_by_email(tx, new.email_key)
            if account is not None:
                await self.tell_taken(tx, account, token, language, now_us)
            elif await self.may_write(tx, "address", new.email_key, now_us):
                await self._send(tx, new, token, language, now_us)
            else:
                await self._letters.send_nothing(
                    tx, "verify", new.email, language, token=token, now_us=now_us
                )

        self._letters.require_room()
        now_us, token, username_key = self._db.now_us(), random_token(), fold(user.username)
        await self._db.write(unit)

    async def send_again(self, tx: Tx, email: str, token: str, language: str, now_us: int) -> bool:
        """A fresh token for the latest registration of this address. False when there is none, or its last
        mail is too fresh."""
        latest = await store.get_latest_registration(tx, fold(email), now_us)
        if latest is None or not await self.may_write(tx, "address", latest.email_key, now_us):
            return False
        await store.renew_registration(
            tx, latest.user_id, digest(token), now_us=now_us, expires_us=now_us + self._ttl_us
        )
        await self._send(tx, latest, token, language, now_us)
        return True

    async def finish(self, tx: Tx, token: str, origin: Origin, now_us: int) -> bool:
        """The account begins. False when the token is none of a registration. Raises EmailTaken,
        UsernameTaken when someone else was faster."""
        kept = await store.take_registration(tx, digest(token), now_us)
        if kept is None:
            return False
        user = people.User(
            kept.user_id,
            kept.username,
            kept.email,
            kept.display_name,
            avatar_url=None,
            role="user",
            created_us=now_us,
        )
        added = await people.add_user(
            tx,
            user,
            username_key=kept.username_key,
            email_key=kept.email_key,
            display_key=fold(kept.display_name),
            password_hash=kept.password_hash,
        )
        if not added:
            raise EmailTaken if await people.is_email_taken(tx, kept.email_key) else UsernameTaken
        await store.mark_verified(tx, user.user_id, now_us)
        await store.drop_tokens(tx, _stand_in(kept.email_key))
        await audit.record(
            tx,
            action="auth:user:registered",
            actor=user.user_id,
            subject=user.user_id,
            address=origin.address,
            facts=None if kept.invite_id is None else {"invite_id": kept.invite_id},
            now_us=now_us,
        )
        return True

    async def prune(self, tx: Tx, now_us: int) -> int:
        """Delete some of those that have expired, and give back what they took of invites. Returns how
        many."""
        expired = await store.prune_registrations(tx, now_us)
        await _give_back(tx, expired)
        return len(expired)

    async def tell_taken(
        self, tx: Tx, account: store.Account, token: str, language: str, now_us: int
    ) -> None:
        """To whoever has the address that someone else gave; not again and again."""
        if not await self.may_write(tx, "taken", account.email_key, now_us):
            await self._letters.send_nothing(
                tx, "verify", account.email, language, token=token, now_us=now_us
            )
            return
        await self._letters.notify(
            tx, account.user_id, "taken", account.email, language, now_us=now_us, username=account.username
        )

    async def may_write(self, tx: Tx, mark: store.Mark, email_key: str, now_us: int) -> bool:
        """Whether nobody was written to there within the pause; if so, now somebody is. After the account, if
        there is one, is held."""
        return await store.mark_address(
            tx,
            _stand_in(email_key),
            mark,
            digest(random_token()),
            now_us=now_us,
            pause_us=self._pause_us,
            expires_us=now_us + max(self._pause_us, SECOND_US),
        )

    async def _send(self, tx: Tx, to: store.Registration, token: str, language: str, now_us: int) -> None:
        await self._letters.send_token(
            tx,
            to.user_id,
            "verify",
            to.email,
            language,
            username=to.username,
            token=token,
            page=PAGE,
            now_us=now_us,
            expires_us=now_us + self._ttl_us,
        )


async def _give_back(tx: Tx, spent: Iterable[str | None]) -> None:
    for invite in sorted(each for each in spent if each is not None):
        await invites.give_back(tx, invite)


def _stand_in(email_key: str) -> UserId:
    """The id that marks of an address stand under."""
    return UserId(str(UUID(bytes=digest(email_key)[:16])))
