"""The rules of recordings: who may record, who has agreed, what is taken, and who gets it.

Consent is asked of each person in the call and kept with time and device. As long as somebody in the call has
not answered, nothing is taken; whoever says no, at whatever moment, ends the recording: what came while all
agreed is kept, and nothing comes after it. Locks are taken in the order call, recording, file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ... import audit
from ...clock import SECOND_US, to_iso
from ...config import SignalingConfig
from ...deps.contracts import Database, Tx
from ...errors import (
    CallNotJoined,
    Conflict,
    ConsentMissing,
    E2eeRequired,
    Forbidden,
    NotFound,
    PartDiffers,
    RecordingDisabled,
    RecordingGaps,
    RecordingOver,
    RecordingUnderWay,
    TooLarge,
    UploadMismatch,
)
from ...identity import CallId, FileId, Principal, RecordingId, UserId, new_id
from .. import store as calls
from ..frames import Out
from ..meters import RECORDED
from ..peers import require_joined
from ..store import Called
from . import store
from .shapes import Answered, Seen, Stopped, requested, started
from .shelf import FindShelf, no_shelf
from .store import Consent, Part, Reason, Recording

MB = 1024 * 1024
HOURS = 48  # for which a file may grow: the longest recording, and a day in which its store may be away
TOLD = 100  # parts that are missing
MODERATORS = ("owner", "admin")
WEBM = b"\x1a\x45\xdf\xa3"  # what every recording of a browser begins with that nobody has encrypted

Tell = Callable[[CallId, Out], None]


def _untold(_: CallId, __: Out) -> None:
    """Nobody listens."""


def _nothing_to_do() -> None:
    """Nobody waits for it."""


class Outcome(NamedTuple):
    """A recording after a step, and what the devices in the call are told once that is committed."""

    recording: Recording
    told: Sequence[Out] = ()


class Recordings:
    """tell: hears what devices in a call are to be told. Never waits.  shelf: where they are kept.
    hurry: hears that there is something to finish."""

    def __init__(self, config: SignalingConfig, db: Database) -> None:
        self._config = config
        self._db = db
        self.tell: Tell = _untold
        self.shelf: FindShelf = no_shelf
        self.hurry: Callable[[], None] = _nothing_to_do

    # seeing

    async def list_of(self, caller: UserId, call_id: CallId) -> list[Seen]:
        """Those of a call that the caller may see, the newest first. Raises NotFound for strangers."""
        return await self._db.read(self._list, caller, call_id)

    async def _list(self, tx: Tx, caller: UserId, call_id: CallId) -> list[Seen]:
        call = await calls.get(tx, call_id)
        if call is None or await store.terms(tx, call.conversation_id, caller) is None:
            raise NotFound(denial="denied:call", subject=call_id)
        found = await store.of_call(tx, call_id, self._config.recordings_per_call)
        return [await self._seen(tx, each) for each in found if await store.reaches(tx, each, caller)]

    async def see(self, recording: Recording) -> Seen:
        return await self._db.read(self._seen, recording)

    @staticmethod
    async def _seen(tx: Tx, recording: Recording) -> Seen:
        consents = await store.consents(tx, recording.recording_id)
        return Seen(recording, consents, *await store.totals(tx, recording.recording_id))

    async def under_way(self, call: CallId, epoch: int, user: UserId) -> Sequence[Out]:
        """What a device that comes to the call is told.  epoch: of the call."""
        return await self._db.read(self._under_way, call, epoch, user)

    @staticmethod
    async def _under_way(tx: Tx, call: CallId, epoch: int, user: UserId) -> Sequence[Out]:
        recording, here = await store.open_in(tx, call), await calls.get(tx, call)
        if recording is None or here is None:
            return ()
        consents = await store.consents(tx, recording.recording_id)
        agreed = {each.user_id for each in consents if each.agrees}
        if user not in agreed:
            return (requested(recording, epoch),)
        if recording.state == "recording" and agreed.issuperset(here.joined):
            return (started(recording, epoch),)
        mine = Answered(recording_id=recording.recording_id, user_id=user, consent=True, epoch=epoch)
        return requested(recording, epoch), mine  # somebody came while this device heard nothing

    async def address(
        self, caller: UserId, call_id: CallId, wanted: RecordingId, client: str
    ) -> tuple[str, int]:
        """Where it is to be had, and for how many seconds. Raises Conflict while it is not finished,
        RecordingOver when nothing was kept."""
        recording = await self._db.relieve(self._hand_out, caller, call_id, wanted)
        return await self.shelf().address(caller, recording.file_id, client)

    async def _hand_out(self, tx: Tx, caller: UserId, call_id: CallId, wanted: RecordingId) -> Recording:
        recording = await self._required(tx, caller, call_id, wanted)
        if recording.state == "dropped":
            raise RecordingOver("Nothing of this recording was kept.")
        if not recording.is_kept:
            raise Conflict("This recording is not finished yet.")
        await self.note(tx, "signaling:recording:downloaded", caller, recording)
        return recording

    async def shows(self, tx: Tx, file_id: FileId, user: UserId) -> bool:
        """Whether a file is a recording that they may see."""
        recording = await store.of_file(tx, file_id)
        return recording is not None and await store.reaches(tx, recording, user)

    # asking and agreeing

    async def start(
        self, caller: Principal, call_id: CallId, content_type: str, *, is_encrypted: bool
    ) -> Recording:
        """Ask everybody in the call. Asking again from the same device is the same.

        Raises what refuses who is not in the call; RecordingDisabled; E2eeRequired for a recording in the
        clear of an encrypted conversation; RecordingUnderWay; Conflict while it rings; QuotaExceeded.
        """
        return self.done(await self._db.write(self._start, caller, call_id, content_type, is_encrypted))

    async def _start(
        self, tx: Tx, caller: Principal, call_id: CallId, content_type: str, is_encrypted: bool
    ) -> Outcome:
        me = caller.user_id
        call = await require_joined(tx, caller, call_id, await calls.lock(tx, call_id))
        terms = await store.terms(tx, call.conversation_id, me)
        assert terms is not None, "a member"
        if not terms.is_allowed:
            raise RecordingDisabled(denial="denied:call", subject=call_id)
        if terms.is_e2ee and not is_encrypted:
            raise E2eeRequired("Recordings of this conversation must be encrypted.")
        if call.state == "ringing":
            raise Conflict("Nobody has answered yet.")
        other = await store.open_in(tx, call_id)
        if other is not None:
            if (other.recorder_id, other.device_id) == (me, caller.device_id):
                return Outcome(other)
            raise RecordingUnderWay(details={"recording_id": other.recording_id})
        if await store.count(tx, call_id) >= self._config.recordings_per_call:
            raise Conflict("There are too many recordings of this call.")
        now_us = self._db.now_us()
        name = f"recording {to_iso(now_us)[:16]}"
        file_id, place = await self.shelf().open(
            tx, me, name, content_type, is_encrypted=is_encrypted, hours=HOURS
        )
        new = Recording(
            RecordingId(new_id()),
            call_id,
            call.conversation_id,
            me,
            caller.device_id,
            content_type,
            is_encrypted,
            "asking",
            file_id,
            place,
            now_us,
            now_us,
        )
        await store.add(tx, new)
        await store.ask(tx, new.recording_id, [me], now_us)
        await store.answer(tx, new.recording_id, Consent(me, now_us, True, caller.device_id, now_us))
        await self.note(tx, "signaling:recording:requested", me, new)
        return await self.settle(tx, call, new)

    async def consent(
        self, caller: Principal, call_id: CallId, wanted: RecordingId, *, agrees: bool
    ) -> Recording:
        """Agree, refuse, or take back what one has agreed to. The same again is the same.

        Raises NotFound, RecordingOver, CallNotJoined for who is not in the call and was not asked.
        """
        return self.done(await self._db.relieve(self._consent, caller, call_id, wanted, agrees))

    async def _consent(
        self, tx: Tx, caller: Principal, call_id: CallId, wanted: RecordingId, agrees: bool
    ) -> Outcome:
        me, now_us = caller.user_id, self._db.now_us()
        call, recording = await self._held(tx, me, call_id, wanted)
        if not recording.is_open:
            raise RecordingOver
        if me in call.joined:
            await store.ask(tx, wanted, [me], now_us)
        mine = next((each for each in await store.consents(tx, wanted) if each.user_id == me), None)
        if mine is None:
            raise CallNotJoined
        if mine.agrees == agrees:
            return Outcome(recording)
        await store.answer(tx, wanted, Consent(me, mine.asked_us, agrees, caller.device_id, now_us))
        action = "signaling:recording:agreed" if agrees else "signaling:recording:refused"
        await self.note(tx, action, me, recording)
        answered = Answered(recording_id=wanted, user_id=me, consent=agrees, epoch=call.epoch)
        if not agrees:
            recording, told = await self.end(tx, call, recording, "withdrawn" if mine.agrees else "refused")
            return Outcome(recording, [answered, *told])
        recording, told = await self.settle(tx, call, recording._replace(touched_us=now_us), is_news=True)
        return Outcome(recording, [answered, *told])

    async def settle(self, tx: Tx, call: Called, recording: Recording, *, is_news: bool = False) -> Outcome:
        """How one that is open goes on, seeing who is in the call that the transaction holds: whoever came is
        asked, it begins when all have agreed, and ends with the call, its recorder, or its time.

        is_news: somebody has agreed just now, so that what waited for them goes on.
        """
        if reason := await self._over(tx, call, recording):
            return await self.end(tx, call, recording, reason)
        told: list[Out] = []
        now_us, name = self._db.now_us(), recording.recording_id
        idle_us = self._config.recording_idle_s * SECOND_US
        asked = {each.user_id: each.agrees for each in await store.consents(tx, name)}
        fresh = [user for user in call.joined if user not in asked]
        if fresh:
            await store.ask(tx, name, fresh, now_us)
            told.append(requested(recording, call.epoch))
        if all(asked.get(user) for user in call.joined):
            if gone := [user for user, agrees in asked.items() if agrees is None and user not in call.joined]:
                await store.unask(tx, name, gone)  # who left without a word is asked anew when they come back
                is_news = True
            if recording.state == "asking":
                recording = recording._replace(state="recording", begun_us=now_us, touched_us=now_us)
                await self.note(tx, "signaling:recording:started", recording.recorder_id, recording)
                is_news = True
            if is_news:
                told.append(started(recording, call.epoch))
            if recording.touched_us + idle_us <= now_us:
                return await self.end(tx, call, recording, "silent")
        elif recording.touched_us + idle_us // 2 <= now_us:
            recording = recording._replace(touched_us=now_us)  # nothing comes while somebody is waited for
            await store.save(tx, recording)
        if told:
            await store.save(tx, recording)
        return Outcome(recording, told)

    async def _over(self, tx: Tx, call: Called, recording: Recording) -> Reason | None:
        if call.is_over:
            return "call_over"
        terms = await store.terms(tx, call.conversation_id, recording.recorder_id)
        if terms is None or recording.recorder_id not in call.joined:
            return "recorder_left"
        if not terms.is_allowed or (terms.is_e2ee and not recording.is_encrypted):
            return "stopped"  # the conversation has changed its mind
        longest_us = self._config.recording_s * SECOND_US
        return "too_long" if recording.started_us + longest_us <= self._db.now_us() else None

    async def stop(self, caller: UserId, call_id: CallId, wanted: RecordingId) -> Recording:
        """By its recorder or a moderator; who only does not want to be recorded takes back consent. Stopping
        what has ended changes nothing. Raises Forbidden."""
        return self.done(await self._db.relieve(self._stop, caller, call_id, wanted))

    async def _stop(self, tx: Tx, caller: UserId, call_id: CallId, wanted: RecordingId) -> Outcome:
        call, recording = await self._held(tx, caller, call_id, wanted)
        await self._require_master(tx, caller, recording)
        if not recording.is_open:
            return Outcome(recording)
        return await self.end(tx, call, recording, "stopped")

    async def end(self, tx: Tx, call: Called, recording: Recording, reason: Reason) -> Outcome:
        """Nothing is recorded any more. What was recorded before may still come, unless it ends because
        somebody does not agree, or before somebody has answered: nobody could tell it from what was recorded
        after they said no, or came."""
        now_us = self._db.now_us()
        _, size_bytes = await store.totals(tx, recording.recording_id)
        idle_us = self._config.recording_idle_s * SECOND_US
        ended = recording._replace(ended_us=now_us, touched_us=now_us, end_reason=reason, look_us=now_us)
        agreed = await self._agreed(tx, recording)
        is_unwanted = reason in ("refused", "withdrawn") or not agreed.issuperset(
            _there_at_the_end(call, recording, now_us)
        )
        if recording.state == "asking" or (is_unwanted and not size_bytes):
            ended = ended._replace(state="dropped")
            await self.shelf().discard(tx, recording.file_id)
        elif is_unwanted or reason == "silent":
            ended = ended._replace(state="finishing")
        else:
            ended = ended._replace(state="stopped", look_us=now_us + idle_us)
        await store.save(tx, ended)
        await self.note(tx, "signaling:recording:stopped", None, ended, why=reason)
        told = Stopped(recording_id=recording.recording_id, reason=reason, epoch=call.epoch)
        return Outcome(ended, [told])

    # what is recorded

    async def require_recorder(self, caller: UserId, call_id: CallId, wanted: RecordingId) -> None:
        """Before anything is read of a part: what others send takes nobody's place. Raises NotFound,
        Forbidden."""
        self._require_own(await self._db.read(self._required, caller, call_id, wanted), caller)

    async def take_part(
        self,
        caller: UserId,
        call_id: CallId,
        wanted: RecordingId,
        number: int,
        sha256: bytes,
        content: bytes,
    ) -> None:
        """Keep a part. The same again is the same, from whichever load of the page it comes.

        number: from 1.  sha256: of the content, as its sender has it.
        Raises UploadMismatch, Forbidden for others than the recorder, ConsentMissing, PartDiffers,
        RecordingOver, TooLarge, QuotaExceeded; Unavailable while it cannot be kept.
        """
        if hashlib.sha256(content).digest() != sha256:
            raise UploadMismatch("This part has another SHA-256.", details={"field": "sha256"})
        new = Part(number, sha256, len(content))
        recording = await self._db.write(self._admit, caller, call_id, wanted, new, content.startswith(WEBM))
        if recording is None:
            return
        await self.shelf().put_part(recording.place, number, content)
        if not await self._db.write(self._receive, wanted, number):
            await self.shelf().drop_parts(recording.place, [number])
            raise RecordingOver
        RECORDED.inc(len(content))

    async def _admit(
        self, tx: Tx, caller: UserId, call_id: CallId, wanted: RecordingId, new: Part, is_clear: bool
    ) -> Recording | None:
        """The recording it is to be kept for; None: it is there."""
        recording = await self._recorders(tx, caller, call_id, wanted)
        known = await store.part(tx, wanted, new.number)
        if known is not None and (known.sha256, known.size_bytes) != (new.sha256, new.size_bytes):
            raise PartDiffers
        if known is not None and known.received_us is not None:
            return None
        await self._require_taking(tx, recording)
        if is_clear and recording.is_encrypted:
            raise E2eeRequired("This recording is to be encrypted.")
        if known is None:
            await self._make_room(tx, recording, new)
            await store.add_part(tx, wanted, new)
        await store.save(tx, recording._replace(touched_us=self._db.now_us()))
        return recording

    async def _receive(self, tx: Tx, wanted: RecordingId, number: int) -> bool:
        """False: what had arrived is being put together without it, or is gone."""
        recording = await store.lock(tx, wanted)
        if recording is None:
            return False
        if recording.is_open or recording.state == "stopped":
            return await store.receive(tx, wanted, number, self._db.now_us())
        known = await store.part(tx, wanted, number)  # sent twice at once, it is what the file is made of
        return recording.state == "finishing" and known is not None and known.received_us is not None

    async def _require_taking(self, tx: Tx, recording: Recording) -> None:
        if recording.state == "stopped":
            return
        if not recording.is_open:
            raise RecordingOver
        call = await calls.get(tx, recording.call_id)
        assert call is not None, "calls stay"
        agreed = await self._agreed(tx, recording)
        silent = [user for user in call.joined if user not in agreed]
        if silent or recording.state == "asking":
            raise ConsentMissing(details={"user_ids": silent})

    @staticmethod
    async def _agreed(tx: Tx, recording: Recording) -> set[UserId]:
        return {each.user_id for each in await store.consents(tx, recording.recording_id) if each.agrees}

    async def _make_room(self, tx: Tx, recording: Recording, new: Part) -> None:
        _, size_bytes = await store.totals(tx, recording.recording_id)
        limit_bytes = self._config.recording_mb * MB
        if size_bytes + new.size_bytes > limit_bytes:
            raise TooLarge("This recording is too large.", details={"limit_bytes": limit_bytes})
        await self.shelf().resize(tx, recording.file_id, size_bytes + new.size_bytes)

    async def complete(self, caller: UserId, call_id: CallId, wanted: RecordingId, parts: int) -> Recording:
        """All has come, in so many parts: they become one file soon. The same again is the same. Stops what
        is being recorded.

        Raises RecordingGaps, Conflict when there are more parts than that, RecordingOver when nothing was
        kept, Forbidden for others than the recorder.
        """
        return self.done(await self._db.write(self._complete, caller, call_id, wanted, parts))

    async def _complete(
        self, tx: Tx, caller: UserId, call_id: CallId, wanted: RecordingId, parts: int
    ) -> Outcome:
        call, _ = await self._held(tx, caller, call_id, wanted)
        recording = await self._recorders(tx, caller, call_id, wanted)
        if recording.is_kept or recording.state == "finishing":
            return Outcome(recording)
        if recording.state == "dropped":
            raise RecordingOver
        there = {each.number for each in await store.parts(tx, wanted) if each.received_us is not None}
        missing = [number for number in range(1, parts + 1) if number not in there]
        if missing:
            raise RecordingGaps(details={"parts": missing[:TOLD]})
        if len(there) > parts:
            raise Conflict("More parts of this recording have arrived than that.")
        told: Sequence[Out] = ()
        if recording.is_open:
            recording, told = await self.end(tx, call, recording, "stopped")
        recording = recording._replace(state="finishing", is_whole=True, look_us=self._db.now_us())
        await store.save(tx, recording)
        return Outcome(recording, told)

    # deleting

    async def delete(self, caller: UserId, call_id: CallId, wanted: RecordingId) -> Recording:
        """Gone for everybody at once, by its recorder or a moderator. Raises Forbidden."""
        return self.done(await self._db.relieve(self._delete, caller, call_id, wanted))

    async def _delete(self, tx: Tx, caller: UserId, call_id: CallId, wanted: RecordingId) -> Outcome:
        call, recording = await self._held(tx, caller, call_id, wanted)
        await self._require_master(tx, caller, recording)
        told: Sequence[Out] = ()
        if recording.is_open:
            recording, told = await self.end(tx, call, recording, "stopped")
        return Outcome(await self.remove(tx, caller, recording), told)

    async def remove(self, tx: Tx, by: UserId | None, recording: Recording) -> Recording:
        """Delete what the transaction holds."""
        now_us = self._db.now_us()
        ended_us = recording.ended_us or now_us
        gone = recording._replace(state="deleted", ended_us=ended_us, look_us=now_us)
        await self.shelf().discard(tx, recording.file_id)
        await store.save(tx, gone)
        await self.note(tx, "signaling:recording:deleted", by, gone)
        return gone

    # who may

    async def _required(self, tx: Tx, caller: UserId, call_id: CallId, wanted: RecordingId) -> Recording:
        """Raises NotFound for what the caller may not see."""
        recording = await store.get(tx, wanted)
        if recording is None or recording.call_id != call_id or recording.state == "deleted":
            raise NotFound
        if not await store.reaches(tx, recording, caller):
            raise NotFound(denial="denied:call", subject=call_id)
        return recording

    async def _held(
        self, tx: Tx, caller: UserId, call_id: CallId, wanted: RecordingId
    ) -> tuple[Called, Recording]:
        """The same, and its call, both held."""
        call = await calls.lock(tx, call_id)
        if call is None or await store.terms(tx, call.conversation_id, caller) is None:
            raise NotFound(denial="denied:call", subject=call_id)
        await store.lock(tx, wanted)
        recording = await store.get(tx, wanted)
        if recording is None or recording.call_id != call_id or recording.state == "deleted":
            raise NotFound
        asked = {each.user_id for each in await store.consents(tx, wanted)}
        if caller not in asked.union(call.joined) and not await store.reaches(tx, recording, caller):
            raise NotFound(denial="denied:call", subject=call_id)
        return call, recording

    async def _recorders(self, tx: Tx, caller: UserId, call_id: CallId, wanted: RecordingId) -> Recording:
        """One of the caller's own, held."""
        await store.lock(tx, wanted)
        recording = await self._required(tx, caller, call_id, wanted)
        self._require_own(recording, caller)
        return recording

    @staticmethod
    def _require_own(recording: Recording, caller: UserId) -> None:
        if recording.recorder_id != caller:
            raise Forbidden("Only its recorder may do this.", denial="denied:call", subject=recording.call_id)

    async def _require_master(self, tx: Tx, caller: UserId, recording: Recording) -> None:
        terms = await store.terms(tx, recording.conversation_id, caller)
        if caller != recording.recorder_id and (terms is None or terms.role not in MODERATORS):
            raise Forbidden(
                "Only its recorder and the moderators may do this.",
                denial="denied:call",
                subject=recording.call_id,
            )

    async def note(
        self, tx: Tx, action: str, who: UserId | None, recording: Recording, *, why: str | None = None
    ) -> None:
        facts: dict[str, str | int | bool | None] = {
            "call_id": recording.call_id,
            "conversation_id": recording.conversation_id,
        }
        if why is not None:
            facts["end_reason"] = why
        await audit.record(
            tx,
            action=action,
            actor=who,
            subject=recording.recording_id,
            facts=facts,
            now_us=self._db.now_us(),
        )

    def done(self, outcome: Outcome) -> Recording:
        for each in outcome.told:
            self.tell(outcome.recording.call_id, each)
        if outcome.recording.look_us is not None:
            self.hurry()
        return outcome.recording


def _there_at_the_end(call: Called, recording: Recording, now_us: int) -> list[UserId]:
    """Who was in the call until it was over, or its recorder left it."""
    recorder = call.person(recording.recorder_id)
    ends = (now_us, call.ended_us, None if recorder is None else recorder.left_us)
    end_us = min(each for each in ends if each is not None)
    return [
        each.user_id
        for each in call.people
        if each.joined_us is not None
        and each.joined_us < end_us
        and (each.left_us is None or each.left_us >= end_us)
    ]
