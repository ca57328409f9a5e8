"""Everything of a person, streamed."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from itertools import groupby
from operator import attrgetter
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
from ..shapes import iso_or_none
from ..totp import store as totp
from . import store
from .store import Json, Listed

PAGE = 200  # rows in memory at once
PIECE = 65_536  # bytes of JSON between two looks at who else has work to do; and about what is sent at once

Records = Callable[[UserId], AsyncIterator[Json]]


class Export:
    """at_once: exports under way on this node.  rooms: by name, what each other room gives of a person."""

    def __init__(self, db: Database, at_once: int) -> None:
        self._db = db
        self._turns = trio.Semaphore(at_once)
        self.rooms: Mapping[str, Records] = {}

    async def begin(self, user: UserId, address: str) -> AsyncGenerator[bytes, None]:
        """The bytes of the zip file. Raises Overloaded when as many are under way as may be."""
        body = self._zip(user, address)
        await anext(body)
        return body

    async def _zip(self, user: UserId, address: str) -> AsyncGenerator[bytes, None]:
        """The first piece is empty: with it the export has its turn, and is noted."""
        try:
            self._turns.acquire_nowait()
        except trio.WouldBlock:
            raise Overloaded("Too many exports are under way; try again later.", retry_after_s=60) from None
        try:
            await self._db.write(self._note, user, address)
            yield b""
            sink = _Sink()
            with ZipFile(sink, "w", ZIP_DEFLATED) as archive:
                for name, made in self._files(user):
                    # its size is not known before its end
                    with archive.open(f"{name}.json", "w", force_zip64=True) as entry:
                        async with aclosing(made) as pieces:
                            async for piece in pieces:
                                entry.write(piece)
                                if sink.size >= PIECE:
                                    yield sink.take()
                                await trio.lowlevel.checkpoint()
            yield sink.take()
        finally:
            self._turns.release()

    def _files(self, user: UserId) -> Iterator[tuple[str, AsyncGenerator[bytes, None]]]:
        yield "account", self._account_of(user)
        for name, records_of in self.rooms.items():
            yield name, _pieces(records_of(user))

    async def _account_of(self, user: UserId) -> AsyncGenerator[bytes, None]:
        """Everything this room holds of a person, as one JSON object; no hashes and no secrets."""
        account = await self._db.read(_account, user)
        yield msgspec.json.format(msgspec.json.encode(account))[: -len("\n}")]
        for name, records in self._lists(user):
            yield f',\n  "{name}": '.encode()
            async with aclosing(_pieces(records)) as pieces:
                async for piece in pieces:
                    yield piece
        yield b"}\n"

    def _lists(self, user: UserId) -> Iterator[tuple[str, AsyncIterator[Json]]]:
        for name, group in groupby(store.LISTS, key=attrgetter("name")):
            yield name, self._records(user, tuple(group))
        yield "audit", self._deeds(user)

    async def _records(self, user: UserId, lists: tuple[Listed, ...]) -> AsyncIterator[Json]:
        for listed in lists:
            after = accounts.NO_ID
            while page := await self._db.read(store.page, listed, user, after, PAGE):
                for record in page:
                    yield record
                after = page[-1][listed.fields[0]]

    async def _deeds(self, user: UserId) -> AsyncIterator[Json]:
        """What the audit log says of the person: of themselves whole, of others that they did something to
        this account, but not who and from where."""
        after = accounts.NO_ID
        while page := await self._db.read(audit.list_about, user, after, PAGE):
            for entry in page:
                personal = msgspec.json.decode(entry.personal or "{}")
                if entry.actor not in (None, user):
                    personal.pop("address", None)
                yield {
                    "recorded_at": to_iso(entry.recorded_us),
                    "action": entry.action,
                    "subject": entry.subject,
                    "facts": msgspec.json.decode(entry.facts) | personal,
                }
            after = page[-1].audit_id

    async def _note(self, tx: Tx, user: UserId, address: str) -> None:
        await audit.record(
            tx,
            action="auth:user:exported",
            actor=user,
            subject=user,
            address=address,
            now_us=self._db.now_us(),
        )


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
    return {
        "user": {
            "user_id": account.user_id,
            "username": account.username,
            "email": account.email,
            "email_verified_at": iso_or_none(account.email_verified_us),
            "display_name": account.display_name,
            "avatar_url": account.avatar_url,
            "role": account.role,
            "created_at": to_iso(account.created_us),
            "delete_at": iso_or_none(account.delete_us),
            "second_factor_since": iso_or_none(second_factor.confirmed_us if second_factor else None),
        },
        "privacy": privacy._asdict(),
        "ban": await _ban(tx, user),
        "signing_keys": {
            usage: msgspec.Raw(key.document.encode())
            for usage, key in (await devicekeys.cross_keys(tx, user)).items()
        },
    }


async def _ban(tx: Tx, user: UserId) -> Json | None:
    """One that is over, too, as long as it is kept."""
    ban = await admin.get_ban(tx, user, now_us=0)
    if ban is None:
        return None
    return {
        "reason": ban.reason,
        "banned_at": to_iso(ban.banned_us),
        "until": iso_or_none(ban.until_us),
    }
