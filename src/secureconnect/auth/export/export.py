"""Everything of a person, streamed."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, cast
from zipfile import ZIP_DEFLATED, ZipFile

import msgspec
import trio

from ... import audit
from ...clock import to_iso
from ...deps.contracts import Database, Tx
from ...errors import NotFound, Overloaded
from ...identity import UserId
from .. import store as accounts
from ..admin import store as admin
from ..devicekeys import store as devicekeys
from ..profile import store as profile
from ..reports import store as reports
from ..totp import store as totp
from . import store

REPORTS = 1_000  # of what the person has reported: the newest
PIECE = 65_536  # bytes of JSON between two looks at who else has work to do; and about what is sent at once

Json = dict[str, Any]
Records = Callable[[UserId], AsyncIterator[Json]]


class Export:
    """at_once: exports under way on this node.  rooms: by name, what each other room gives of a person."""

    def __init__(self, db: Database, at_once: int) -> None:
        self._db = db
        self._turns = trio.Semaphore(at_once)
        self.rooms: Mapping[str, Records] = {}

    async def begin(self, user: UserId, address: str) -> AsyncGenerator[bytes, None]:
        """The bytes of the zip file. Raises Overloaded when as many are under way as may be."""
        if self._turns.value == 0:
            raise Overloaded("Too many exports are under way; try again later.", retry_after_s=60)
        await self._db.write(self._note, user, address)
        return self._zip(user)

    async def account_of(self, user: UserId) -> Json:
        """Everything this room holds of a person; no hashes and no secrets."""
        return await self._db.read(_account, user)

    async def _note(self, tx: Tx, user: UserId, address: str) -> None:
        await audit.record(
            tx,
            action="auth:user:exported",
            actor=user,
            subject=user,
            address=address,
            now_us=self._db.now_us(),
        )

    async def _zip(self, user: UserId) -> AsyncGenerator[bytes, None]:
        sink = _Sink()
        async with self._turns:
            with ZipFile(sink, "w", ZIP_DEFLATED) as archive:
                archive.writestr(
                    "account.json", msgspec.json.format(msgspec.json.encode(await self.account_of(user)))
                )
                for name, records_of in self.rooms.items():
                    # its size is not known before its end
                    with archive.open(f"{name}.json", "w", force_zip64=True) as entry:
                        async with aclosing(_pieces(records_of(user))) as pieces:
                            async for piece in pieces:
                                entry.write(piece)
                                if sink.size >= PIECE:
                                    yield sink.take()
                                await trio.lowlevel.checkpoint()
            yield sink.take()


class _Sink(io.RawIOBase):
    """What was written and not yet taken. It cannot seek, so the archive never goes back."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self.size += len(self._parts[-1])
        return len(self._parts[-1])

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        self.size = 0
        return taken


async def _pieces(records: AsyncIterator[Json]) -> AsyncGenerator[bytes, None]:
    """A JSON list, a record a line, in pieces of about PIECE bytes."""
    piece = bytearray(b"[")
    separator = b"\n"
    async with aclosing(cast("AsyncGenerator[Json, None]", records)) as each:
        async for record in each:
            piece += separator + msgspec.json.encode(record)
            separator = b",\n"
            if len(piece) >= PIECE:
                yield bytes(piece)
                piece.clear()
    piece += b"\n]\n"
    yield bytes(piece)


async def _account(tx: Tx, user: UserId) -> Json:
    account, privacy = await accounts.get_user(tx, user), await profile.get_privacy(tx, user)
    if account is None or privacy is None:
        raise NotFound
    second_factor = await totp.get(tx, user)
    confirmed_us = second_factor.confirmed_us if second_factor else None
    return {
        "user": {
            "user_id": account.user_id,
            "username": account.username,
            "email": account.email,
            "display_name": account.display_name,
            "avatar_url": account.avatar_url,
            "role": account.role,
            "created_at": to_iso(account.created_us),
            "second_factor_since": None if confirmed_us is None else to_iso(confirmed_us),
        },
        "privacy": privacy._asdict(),
        "devices": [
            {"device_id": each.device_id, "name": each.name, "created_at": to_iso(each.created_us)}
            for each in await accounts.list_devices(tx, user)
        ],
        "sessions": [
            {
                "session_id": each.session_id,
                "device_id": each.device_id,
                "address": each.address,
                "user_agent": each.user_agent,
                "created_at": to_iso(each.created_us),
                "last_seen_at": to_iso(each.last_seen_us),
            }
            for each in await accounts.list_every_session(tx, user)
        ],
        "blocked": [
            {"user_id": blocked, "created_at": to_iso(created_us)}
            for blocked, created_us in await store.list_blocked(tx, user)
        ],
        "friend_requests": [
            {
                "user_id": each.user_id,
                "direction": "outgoing" if each.is_mine else "incoming",
                "created_at": to_iso(each.created_us),
            }
            for each in await store.list_words(tx, user)
        ],
        "device_keys": [
            {
                "device_id": each.device_id,
                "identity_key": each.identity_key,
                "document": msgspec.Raw((each.document or "null").encode()),
            }
            for each in await devicekeys.devices_of(tx, user)
        ],
        "signing_keys": {
            usage: msgspec.Raw(key.document.encode())
            for usage, key in (await devicekeys.cross_keys(tx, user)).items()
        },
        "reports": [
            {
                "report_id": each.report_id,
                "user_id": each.user_id,
                "message_id": each.message_id,
                "conversation_id": each.conversation_id,
                "reason": each.reason,
                "comment": each.comment,
                "state": each.state,
                "created_at": to_iso(each.created_us),
            }
            for each in await reports.list_made_by(tx, user, REPORTS)
        ],
        "ban": await _ban(tx, user),
    }


async def _ban(tx: Tx, user: UserId) -> Json | None:
    """One that is over, too, as long as it is kept."""
    ban = await admin.get_ban(tx, user, now_us=0)
    if ban is None:
        return None
    return {
        "reason": ban.reason,
        "banned_at": to_iso(ban.banned_us),
        "until": None if ban.until_us is None else to_iso(ban.until_us),
    }
