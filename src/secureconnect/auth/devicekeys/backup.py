"""Backups: keys of conversations, sealed by the client for itself, so that a new device can read the past."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...config import KeysConfig
from ...deps.contracts import Database, Tx
from ...errors import BackupVersionWrong, Invalid, NotFound, TooManyKeys
from ...idempotency import Attempt, once
from ...identity import UserId
from . import backup_store, store
from .backup_store import Backup, Key
from .signing import written

NAME_CHARS = 255
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")

Sessions = Mapping[str, Mapping[str, Key]]
"""By conversation and session."""


class Backups:
    def __init__(self, config: KeysConfig, db: Database) -> None:
        self._config = config
        self._db = db

    async def begin(
        self, user: UserId, algorithm: str, auth_data: dict[str, Any], attempt: Attempt | None
    ) -> int:
        """The number of a new version, which takes keys from now on. Raises Invalid, TooManyKeys."""

        async def unit(tx: Tx) -> int:
            await store.lock_user(tx, user)
            if await backup_store.count(tx, user) >= self._config.backup_versions:
                raise TooManyKeys(
                    f"There are {self._config.backup_versions} versions; delete one first.",
                    details={"limit": self._config.backup_versions},
                )
            version = await backup_store.latest_number(tx, user) + 1
            await backup_store.add(tx, user, version, algorithm, text)
            return version

        text = self._bounded(auth_data, "auth_data")
        return await once(self._db, attempt, int, unit)

    async def get(self, user: UserId, version: int | None) -> Backup:
        """version: None for the latest. Raises NotFound."""
        found = await self._db.read(backup_store.get, user, version)
        if found is None:
            raise NotFound
        return found

    async def all_of(self, user: UserId) -> list[Backup]:
        """The latest first; at most `keys.backup_versions`."""
        return await self._db.read(backup_store.all_of, user)

    async def describe(self, user: UserId, version: int, algorithm: str, auth_data: dict[str, Any]) -> None:
        """Replace what tells how it is sealed. Raises NotFound, Invalid."""

        async def unit(tx: Tx) -> None:
            held = await backup_store.lock(tx, user, version)
            if held is None:
                raise NotFound
            if held.algorithm != algorithm:
                raise Invalid("A version keeps its algorithm.", details={"field": "algorithm"})
            await backup_store.set_auth(tx, user, version, text)

        text = self._bounded(auth_data, "auth_data")
        await self._db.write(unit)

    async def end(self, user: UserId, version: int) -> None:
        """Raises NotFound."""

        async def unit(tx: Tx) -> None:
            await store.lock_user(tx, user)
            if await backup_store.lock(tx, user, version) is None:
                raise NotFound
            await backup_store.end(tx, user, version, now_us)

        now_us = self._db.now_us()
        await self._db.relieve(unit)

    async def put(self, user: UserId, version: int, sessions: Sessions) -> Backup:
        """Of two keys for one session the better is kept: verified, then from an earlier message, then passed
        on fewer times. Raises NotFound, BackupVersionWrong, Invalid, TooManyKeys."""

        async def unit(tx: Tx) -> Backup:
            await store.lock_user(tx, user)
            held = await backup_store.lock(tx, user, version)
            latest = await backup_store.get(tx, user, None)
            if held is None or latest is None:
                raise NotFound
            if latest.version != version:
                raise BackupVersionWrong(details={"current_version": str(latest.version)})
            better: list[Key] = []
            added = 0
            for key in keys:
                known = await backup_store.held(tx, user, version, key.room_id, key.session_id)
                added += known is None
                if known is None or _rank(key) < _rank(known):
                    better.append(key)
            if held.keys + added > self._config.backup_keys:
                raise TooManyKeys(details={"limit": self._config.backup_keys})
            await backup_store.put(tx, user, version, better)
            now = held._replace(keys=held.keys + added, etag=held.etag + bool(better))
            await backup_store.set_keys(tx, user, version, keys=now.keys, etag=now.etag)
            return now

        keys = [key for room in sessions.values() for key in room.values()]
        for key in keys:
            if not 0 < len(key.room_id) <= NAME_CHARS or not 0 < len(key.session_id) <= NAME_CHARS:
                raise Invalid(f"A name has 1 to {NAME_CHARS} characters.", details={"field": "rooms"})
            if len(key.session_data.encode()) > self._config.backup_key_bytes:
                raise Invalid(
                    f"A key has {self._config.backup_key_bytes} bytes at most.", details={"field": "rooms"}
                )
        return await self._db.write(unit)

    async def page(self, user: UserId, version: int, after: tuple[str, str], limit: int) -> list[Key]:
        """One more than `limit` if there are more. Raises NotFound."""

        async def unit(tx: Tx) -> list[Key]:
            if await backup_store.get(tx, user, version) is None:
                raise NotFound
            return await backup_store.page(tx, user, version, after, limit + 1)

        return await self._db.read(unit)

    async def one(self, user: UserId, version: int, room: str, session: str) -> list[Key]:
        """The key of this session, if it is there. Raises NotFound."""

        async def unit(tx: Tx) -> list[Key]:
            if await backup_store.get(tx, user, version) is None:
                raise NotFound
            key = await backup_store.held(tx, user, version, room, session)
            return [key] if key else []

        return await self._db.read(unit)

    async def drop(self, user: UserId, version: int) -> Backup:
        """Delete every key of this version. Raises NotFound."""

        async def unit(tx: Tx) -> Backup:
            held = await backup_store.lock(tx, user, version)
            if held is None:
                raise NotFound
            await backup_store.drop(tx, user, version)
            await backup_store.set_keys(tx, user, version, keys=0, etag=held.etag + 1)
            return held._replace(keys=0, etag=held.etag + 1)

        return await self._db.relieve(unit)

    def _bounded(self, document: dict[str, Any], field: str) -> str:
        text = written(document, field)
        if len(text.encode()) > self._config.document_bytes:
            raise Invalid(f"This has {self._config.document_bytes} bytes at most.", details={"field": field})
        return text


def version_of(text: str, field: str = "version") -> int:
    """Raises NotFound for what no version is called."""
    if _NUMBER.fullmatch(text) is None:
        raise NotFound(details={"field": field})
    return int(text)


def key_of_json(room: str, session: str, given: Mapping[str, Any]) -> Key:
    return Key(
        room,
        session,
        given["first_message_index"],
        given["forwarded_count"],
        given["is_verified"],
        written(given["session_data"], "rooms"),
    )


def _rank(key: Key) -> tuple[bool, int, int]:
    """The lower the better."""
    return not key.is_verified, key.first_message_index, key.forwarded_count
