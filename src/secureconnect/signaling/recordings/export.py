"""What is told a person of recordings: those they made, and what they agreed to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from ...deps.contracts import Database
from ...identity import UserId
from . import store
from .recordings import Recordings
from .shapes import consent_shape, recording_shape

PAGE = 200


async def export_of(db: Database, recordings: Recordings, user: UserId) -> AsyncIterator[dict[str, Any]]:
    after: str = store.FIRST_ID
    while page := await db.read(store.of_recorder, user, after, PAGE):
        for recording in page:
            shape = recording_shape(await recordings.see(recording))
            shape.consents = [each for each in shape.consents if each.user_id == user]
            yield {"kind": "recording", **msgspec.to_builtins(shape)}
        after = page[-1].recording_id
    after = store.FIRST_ID
    while given := await db.read(store.given_by, user, after, PAGE):
        for name, consent in given:
            told = msgspec.to_builtins(consent_shape(consent))
            yield {"kind": "recording_consent", "recording_id": name, **told}
        after = given[-1][0]
