"""What becomes of recordings by itself: repeated for ever, on every node, and safe to repeat."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import structlog
import trio

from ...clock import DAY_US, SECOND_US
from ...config import SignalingConfig
from ...deps.contracts import Database, Tx
from ...errors import NotFound, Unavailable, UploadMismatch, UploadOver
from ...identity import RecordingId, UserId
from ...periodic import Trouble, every
from .. import store as calls
from ..meters import RECORDINGS
from . import store
from .recordings import Outcome, Recordings
from .store import Part, Recording

log = structlog.get_logger(module="signaling")

BATCH = 100
PARTS_AT_ONCE = 200  # removed before the table is told


class Work(NamedTuple):
    """One to be looked after, claimed.  parts: all there are.  whole: those the file is made of."""

    recording: Recording
    parts: list[Part]
    whole: list[int]


class Finisher:
    def __init__(self, config: SignalingConfig, db: Database, recordings: Recordings) -> None:
        self._config = config
        self._db = db
        self._recordings = recordings
        self._hurried = trio.Event()
        recordings.hurry = self.hurry

    def hurry(self) -> None:
        """There is something to do now. Never waits."""
        self._hurried.set()

    # while it lasts

    async def watch_forever(self) -> None:
        await every(self._config.pass_s, self.watch_once, log, "recordings_not_watched")

    async def watch_once(self) -> None:
        """Ask latecomers, begin what all have agreed to, end what is over, and delete what is left of a call
        that is gone."""
        after = store.FIRST_ID
        while page := await self._db.read(store.open_ones, after, BATCH):
            for each in page:
                outcome = await self._db.write(self._watch, each)
                if outcome is not None:
                    self._recordings.done(outcome)
            after = page[-1]

    async def _watch(self, tx: Tx, wanted: RecordingId) -> Outcome | None:
        """None: it has ended meanwhile."""
        seen = await store.get(tx, wanted)
        call = None if seen is None else await calls.lock(tx, seen.call_id)
        recording = await store.lock(tx, wanted)
        if recording is None or not recording.is_open:
            return None
        if call is None:  # it went with its conversation
            return Outcome(await self._recordings.remove(tx, None, recording))
        return await self._recordings.settle(tx, call, recording)

    # after it has ended

    async def finish_forever(self) -> None:
        trouble = Trouble(log, "recordings_not_finished")
        while True:
            self._hurried = trio.Event()
            with trouble:
                await self.finish_once()
            with trio.move_on_after(self._config.pass_s):
                await self._hurried.wait()

    async def finish_once(self) -> None:
        """Make files of what has come, and remove what is left over."""
        for each in await self._db.read(store.due, self._db.now_us(), BATCH):
            work = await self._db.relieve(self._claim, each)
            if work is not None:
                await self._do(work)

    async def _claim(self, tx: Tx, wanted: RecordingId) -> Work | None:
        """Nobody else is at it until `recording_finish_s` are over. None: somebody is, or it can wait."""
        now_us = self._db.now_us()
        recording = await store.lock(tx, wanted)
        if recording is None or recording.look_us is None or recording.look_us > now_us:
            return None
        if recording.state == "stopped":
            idle_us = self._config.recording_idle_s * SECOND_US
            if recording.touched_us + idle_us > now_us:
                await store.save(tx, recording._replace(look_us=recording.touched_us + idle_us))
                return None
            recording = recording._replace(state="finishing")
        parts = await store.parts(tx, wanted)
        whole: list[int] = []
        if recording.state == "finishing":
            recording, whole = await self._begin(tx, recording, parts)
        lease_us = 2 * self._config.recording_finish_s * SECOND_US
        recording = recording._replace(look_us=now_us + lease_us)
        await store.save(tx, recording)
        return Work(recording, parts, whole)

    async def _begin(self, tx: Tx, recording: Recording, parts: list[Part]) -> tuple[Recording, list[int]]:
        """The file has the parts up to the first that is missing: what follows a gap does not play."""
        shelf = self._recordings.shelf()
        there = [each for each in parts if each.received_us is not None]
        whole = [part for number, part in enumerate(there, 1) if part.number == number]
        if not whole or not await shelf.is_there(tx, recording.file_id):
            await shelf.discard(tx, recording.file_id)
            return recording._replace(state="dropped"), []
        with suppress(UploadOver):  # finished by somebody who did not live to tell
            await shelf.resize(tx, recording.file_id, sum(each.size_bytes for each in whole))
        return recording, [each.number for each in whole]

    async def _do(self, work: Work) -> None:
        """Raises Unavailable while the store is away; the claim is given back then."""
        recording = work.recording
        try:
            if recording.state == "finishing":
                await self._finish(work)
            await self._drop_parts(work)
        except BaseException:
            with trio.move_on_after(2, shield=True):
                await self._db.relieve(self._postpone, recording.recording_id)
            raise
        await self._db.relieve(self._rest, recording.recording_id)

    async def _finish(self, work: Work) -> None:
        recording, shelf = work.recording, self._recordings.shelf()
        is_there = False
        try:
            with trio.fail_after(self._config.recording_finish_s):
                is_there = await shelf.finish(recording.file_id, work.whole)
        except trio.TooSlowError as exc:
            raise Unavailable("The recording could not be finished in time.") from exc
        except (NotFound, UploadMismatch) as problem:
            log.error("recording_lost", recording_id=recording.recording_id, code=problem.code)
        await self._db.relieve(self._keep, recording.recording_id, is_there)

    async def _keep(self, tx: Tx, wanted: RecordingId, is_there: bool) -> None:
        recording = await store.lock(tx, wanted)
        if recording is None or recording.state != "finishing":  # deleted meanwhile
            return
        if is_there:
            recording = recording._replace(state="completed" if recording.is_whole else "partial")
        else:
            await self._recordings.shelf().discard(tx, recording.file_id)
            recording = recording._replace(state="dropped", end_reason="lost")
        await store.save(tx, recording)
        await self._recordings.note(
            tx, "signaling:recording:finished", None, recording, why=recording.end_reason
        )

    async def _drop_parts(self, work: Work) -> None:
        """Those of which there is a file, or will be none."""
        numbers = [each.number for each in work.parts]
        for start in range(0, len(numbers), PARTS_AT_ONCE):
            await self._recordings.shelf().drop_parts(
                work.recording.place, numbers[start : start + PARTS_AT_ONCE]
            )

    async def _rest(self, tx: Tx, wanted: RecordingId) -> None:
        """Nothing is left to do about it."""
        recording = await store.lock(tx, wanted)
        if recording is None:
            return
        await store.drop_parts(tx, wanted)
        if recording.state == "deleted":
            await store.forget(tx, wanted)
            return
        await store.save(tx, recording._replace(look_us=None))
        RECORDINGS[recording.state].inc()

    async def _postpone(self, tx: Tx, wanted: RecordingId) -> None:
        recording = await store.lock(tx, wanted)
        if recording is not None:
            wait_us = int(self._config.pass_s * SECOND_US)
            await store.save(tx, recording._replace(look_us=self._db.now_us() + wait_us))

    # later

    async def keep_up_forever(self) -> None:
        await every(self._config.recording_upkeep_s, self.keep_up_once, log, "recordings_not_looked_after")

    async def keep_up_once(self) -> None:
        """Delete those whose time is over, and those whose conversation or file is gone."""
        after = store.FIRST_ID
        while page := await self._db.read(store.ended_after, after, BATCH):
            for each in page:
                if await self._db.read(self._is_past, each):
                    await self._db.relieve(self._remove, each.recording_id)
            after = page[-1].recording_id
        self.hurry()

    async def _is_past(self, tx: Tx, recording: Recording) -> bool:
        assert recording.ended_us is not None, "ended"
        days = self._config.recording_days
        if days and recording.ended_us + days * DAY_US <= self._db.now_us():
            return True
        if not await store.has_conversation(tx, recording):
            return True
        return recording.is_kept and not await self._recordings.shelf().is_there(tx, recording.file_id)

    async def _remove(self, tx: Tx, wanted: RecordingId, by: UserId | None = None) -> None:
        recording = await store.lock(tx, wanted)
        if recording is not None and recording.state != "deleted":
            await self._recordings.remove(tx, by, recording)

    async def forget(self, user: UserId) -> None:
        """Somebody is erased: what they have recorded is deleted, and on which devices they have agreed is
        forgotten. Safe to repeat."""
        while page := await self._db.read(store.of_recorder, user, store.FIRST_ID, BATCH):
            for each in page:
                await self._db.relieve(self._remove, each.recording_id, user)
        await self._db.relieve(store.forget_devices, user)
        self.hurry()
