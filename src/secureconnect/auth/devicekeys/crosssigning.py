"""Cross-signing: one key of a person signs their devices, another the persons they have verified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ... import audit
from ...config import KeysConfig
from ...deps.contracts import Database, Tx
from ...errors import Conflict, Invalid, KeySignatureWrong, NotFound, Problem
from ...identity import Principal, UserId
from . import company, store
from .names import Names
from .news import News
from .signing import key_of, require_signed, require_signed_document, signable, signature_in, text_of, written
from .store import CrossKey, Signature

Document = dict[str, Any]
SIGNED_AT_ONCE = 100


class CrossSigning:
    def __init__(self, config: KeysConfig, db: Database, names: Names, news: News) -> None:
        self._config = config
        self._db = db
        self._names = names
        self._news = news

    async def publish(self, caller: Principal, given: Mapping[str, Document], address: str) -> None:
        """given: by usage; `self_signing` and `user_signing` are signed by the master key that is given, else
        by the one there is. What was signed with a key that is replaced, or of it, ends. The caller has been
        authenticated again. Raises Invalid, KeySignatureWrong, Conflict.
        """

        async def unit(tx: Tx) -> bool:
            await store.lock_user(tx, caller.user_id)
            held = await store.cross_keys(tx, caller.user_id)
            master = held.get("master")
            if "master" in given:
                new = self._checked(caller.user_id, "master", given["master"], None)
                is_other = master is not None and master.public_key != new.public_key
                if is_other and not {"self_signing", "user_signing"} <= given.keys():
                    raise Conflict("With another master key come the two that it signs.")
                master = new
            if master is None:
                raise Invalid("There is no master key yet.", details={"field": "master_key"})
            keys = [
                master if usage == "master" else self._checked(caller.user_id, usage, given[usage], master)
                for usage in given
            ]
            fresh = [key for key in keys if held.get(key.usage) != key]
            for key in fresh:
                before = held.get(key.usage)
                if before is not None and before.public_key != key.public_key:
                    await store.drop_signatures(tx, caller.user_id, before.public_key)
                await store.put_cross_key(tx, caller.user_id, key)
            if fresh:
                await company.note_change(tx, caller.user_id, caller.user_id, now_us)
                await audit.record(
                    tx,
                    action="auth:signing_keys:published",
                    actor=caller.user_id,
                    subject=caller.user_id,
                    address=address,
                    now_us=now_us,
                )
            return bool(fresh)

        now_us = self._db.now_us()
        if await self._db.write(unit):
            self._news.changed(caller.user_id, now_us)

    def _checked(self, user: UserId, usage: str, document: Document, master: CrossKey | None) -> CrossKey:
        """master: what must have signed it."""
        field, me = f"{usage}_key", self._names.of(user)
        keys, usages = document.get("keys"), document.get("usage")
        if document.get("user_id") != me or usages != [usage]:
            raise Invalid("This is no such key of yours.", details={"field": field})
        if not isinstance(keys, dict) or len(keys) != 1:
            raise Invalid("It has one key.", details={"field": f"{field}.keys"})
        ((name, public),) = keys.items()
        if not isinstance(public, str) or name != f"ed25519:{public}":
            raise Invalid("Its key is named after itself.", details={"field": f"{field}.keys"})
        if text_of(key_of(public, f"{field}.keys", is_signing=True)) != public:
            raise Invalid("Keys are in base64 without padding.", details={"field": f"{field}.keys"})
        signable(document, field)
        if master is not None:
            key = key_of(master.public_key, "master_key", is_signing=True)
            require_signed_document(document, me, f"ed25519:{master.public_key}", key, field)
        text = written(document, field)
        if len(text.encode()) > self._config.document_bytes:
            raise Invalid(f"A key has {self._config.document_bytes} bytes at most.", details={"field": field})
        return CrossKey(usage, public, text)  # type: ignore[arg-type]

    async def sign(
        self, caller: Principal, given: Mapping[str, Mapping[str, Document]]
    ) -> dict[str, dict[str, Problem]]:
        """Keep the caller's signatures of keys. given: by person and by device id or master key, the document
        with the signatures. Returns those that were not taken, and why: one does not spoil the others.

        Taken is: a device of one's own by one's self-signing key, one's own master key by one's devices,
        someone else's master key by one's user-signing key.
        """

        async def unit(tx: Tx) -> dict[str, dict[str, Problem]]:
            await store.lock_user(tx, caller.user_id)
            failures: dict[str, dict[str, Problem]] = {}
            changed = False
            for user, documents in people.items():
                for target, document in documents.items():
                    try:
                        for each in await self._signatures(tx, caller.user_id, user, target, document):
                            await store.put_signature(tx, user, each)
                        changed = changed or user == caller.user_id
                    except (Invalid, NotFound, KeySignatureWrong) as problem:
                        failures.setdefault(self._names.of(user), {})[target] = problem
            if changed:
                await company.note_change(tx, caller.user_id, caller.user_id, now_us)
            return failures

        if sum(map(len, given.values())) + len(given) > SIGNED_AT_ONCE:
            raise Invalid(f"At most {SIGNED_AT_ONCE} at a time.", details={"field": "signatures"})
        people = {self._names.user(name, "signatures"): documents for name, documents in given.items()}
        now_us = self._db.now_us()
        failures = await self._db.write(unit)
        if caller.user_id in people:
            self._news.changed(caller.user_id, now_us)
        return failures

    async def _signatures(
        self, tx: Tx, caller: UserId, user: UserId, target: str, document: Document
    ) -> list[Signature]:
        """Those of the caller that may stand there, each verified. Raises Invalid, NotFound,
        KeySignatureWrong."""
        field, me = "signatures", self._names.of(caller)
        if user != caller and not await company.meets(tx, caller, user):
            raise NotFound
        held = await self._held(tx, user, target)
        if held is None:
            raise NotFound
        covered = signable(msgspec.json.decode(held), field)
        if signable(document, field) != covered:
            raise Invalid("This is not the key as it was published.", details={"field": field})
        found: list[Signature] = []
        for name, key in (await self._signers(tx, caller, user, target)).items():
            try:
                signature = signature_in(document, me, name, field)
            except Invalid:
                continue
            require_signed(covered, signature, key_of(key, field, is_signing=True), field)
            found.append(Signature(target, caller, name, signature))
        if not found:
            raise Invalid("There is no signature of yours that may stand there.", details={"field": field})
        return found

    async def _held(self, tx: Tx, user: UserId, target: str) -> str | None:
        for device in await store.devices_of(tx, user):
            if device.device_id == target:
                return device.document
        master = (await store.cross_keys(tx, user)).get("master")
        return master.document if master is not None and master.public_key == target else None

    async def _signers(self, tx: Tx, caller: UserId, user: UserId, target: str) -> dict[str, str]:
        """The caller's keys that may sign this: by name, the public part."""
        cross = await store.cross_keys(tx, caller)
        if user != caller:
            signers = [cross["user_signing"].public_key] if "user_signing" in cross else []
        elif "master" in cross and cross["master"].public_key == target:
            return {
                f"ed25519:{each.device_id}": each.identity_key for each in await store.devices_of(tx, caller)
            }
        else:
            signers = [cross["self_signing"].public_key] if "self_signing" in cross else []
        return {f"ed25519:{key}": key for key in signers}
