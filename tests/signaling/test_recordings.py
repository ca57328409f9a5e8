"""Recordings, by their rules: on both databases, with files in a folder."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import trio

from chat.rig import principal_of
from kit.objects import keys
from kit.wait import until
from secureconnect.clock import DAY_US, SECOND_US
from secureconnect.deps.memory import MemorySignals
from secureconnect.errors import (
    CallNotJoined,
    Conflict,
    ConsentMissing,
    E2eeRequired,
    Forbidden,
    NotFound,
    PartDiffers,
    QuotaExceeded,
    RecordingDisabled,
    RecordingGaps,
    RecordingOver,
    RecordingUnderWay,
    TooLarge,
    Unavailable,
    UploadMismatch,
)
from secureconnect.identity import CallId, ConversationId, Principal, UserId, new_id
from secureconnect.signaling.frames import Out
from secureconnect.signaling.recordings.shapes import Answered, Requested, Started
from secureconnect.signaling.recordings.store import Recording

from .rig import CONFIG, Node
from .studio import MB, PIECES, Studio, audited, change, refused, rows


async def test_a_recording_that_all_agree_to(
    studio: Studio, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, dee, _ = people
    call = await studio.call(group, ann, bob, cid)
    begun = await studio.rules.start(ann, call, "video/webm", is_encrypted=False)
    assert begun.state == "asking"
    name = begun.recording_id
    again = await studio.rules.start(ann, call, "video/webm", is_encrypted=False)
    assert again.recording_id == name
    other = await refused(
        RecordingUnderWay, lambda: studio.rules.start(bob, call, "video/webm", is_encrypted=False)
    )
    assert other.details == {"recording_id": name}
    await studio.rules.consent(bob, call, name, agrees=True)
    unasked = await refused(ConsentMissing, lambda: studio.send(ann, call, name, 1, PIECES[0]))
    assert unasked.details == {"user_ids": [cid.user_id]}
    assert (await studio.rules.consent(cid, call, name, agrees=True)).state == "recording"

    for number in (2, 1):
        await studio.send(ann, call, name, number, PIECES[number - 1])
    await studio.send(ann, call, name, 1, PIECES[0])  # the answer was lost
    await refused(PartDiffers, lambda: studio.send(ann, call, name, 1, PIECES[2]))
    await refused(Forbidden, lambda: studio.send(bob, call, name, 3, PIECES[2]))
    assert await studio.used(ann) == (0, sum(map(len, PIECES[:2])))
    gaps = await refused(RecordingGaps, lambda: studio.rules.complete(ann.user_id, call, name, 4))
    assert gaps.details == {"parts": [3, 4]}
    await studio.send(ann, call, name, 3, PIECES[2])
    await refused(Conflict, lambda: studio.rules.complete(ann.user_id, call, name, 2))
    await refused(Forbidden, lambda: studio.rules.complete(bob.user_id, call, name, 3))
    await refused(Conflict, lambda: studio.rules.address(ann.user_id, call, name, ""))
    for _ in range(2):
        assert (await studio.rules.complete(ann.user_id, call, name, 3)).state == "finishing"
    await refused(RecordingOver, lambda: studio.send(ann, call, name, 4, PIECES[2]))

    await studio.finish()
    done = await studio.get(call, name, dee)
    assert (done.state, done.end_reason, done.look_us) == ("completed", "stopped", None)
    whole = b"".join(PIECES)
    assert await studio.used(ann) == (len(whole), 0)
    await studio.storage.recount.pass_once()
    for person in (ann, bob, dee):
        url, _ = await studio.rules.address(person.user_id, call, name, "192.0.2.7")
        assert await studio.content(url) == whole
    assert (await studio.storage.files.own(ann.user_id, done.file_id)).checksum_sha256 == hashlib.sha256(
        whole
    ).hexdigest()
    assert [key.partition("/")[0] for key in await keys(studio.objects)] == ["files"]
    assert await rows(studio.db, "recording_parts") == 0
    seen = (await studio.rules.list_of(dee.user_id, call))[0]
    assert {each.user_id: (each.agrees, each.device_id) for each in seen.consents} == {
        each.user_id: (True, each.device_id) for each in (ann, bob, cid)
    }
    assert sorted(await audited(studio.db)) == sorted(
        [*("requested", "agreed", "agreed", "started", "stopped", "finished"), *["downloaded"] * 3]
    )


async def test_no_ends_it(studio: Studio, group: ConversationId, people: list[Principal]) -> None:
    ann, bob, *_ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, ann)
    none = await studio.rules.consent(bob, call, name, agrees=False)
    assert (none.state, none.end_reason) == ("dropped", "refused")
    assert await studio.used(ann) == (0, 0)
    await refused(RecordingOver, lambda: studio.send(ann, call, name, 1, PIECES[0]))
    await refused(RecordingOver, lambda: studio.rules.consent(bob, call, name, agrees=True))
    await refused(RecordingOver, lambda: studio.rules.complete(ann.user_id, call, name, 1))
    await refused(RecordingOver, lambda: studio.rules.address(ann.user_id, call, name, ""))

    name = await studio.recorded(call, ann, bob)
    await studio.send(ann, call, name, 1, PIECES[0])
    await studio.send(ann, call, name, 3, PIECES[2])
    withdrawn = await studio.rules.consent(bob, call, name, agrees=False)
    assert (withdrawn.state, withdrawn.end_reason) == ("finishing", "withdrawn")
    await refused(RecordingOver, lambda: studio.send(ann, call, name, 2, PIECES[1]))
    await studio.finish()
    assert (await studio.get(call, name, bob)).state == "partial"
    url, _ = await studio.rules.address(bob.user_id, call, name, "")
    assert await studio.content(url) == PIECES[0]
    assert await studio.used(ann) == (len(PIECES[0]), 0)


async def test_latecomers_are_asked_before_more_is_taken(
    studio: Studio, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, dee, _ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, ann, bob)
    await studio.send(ann, call, name, 1, PIECES[0])
    await studio.node.room.calls.join(cid, call)
    late = await refused(ConsentMissing, lambda: studio.send(ann, call, name, 2, PIECES[1]))
    assert late.details == {"user_ids": [cid.user_id]}
    await refused(CallNotJoined, lambda: studio.rules.consent(dee, call, name, agrees=True))
    await studio.watch()
    seen = (await studio.rules.list_of(ann.user_id, call))[0]
    assert [each.agrees for each in seen.consents if each.user_id == cid.user_id] == [None]
    # a device that was away meanwhile does not take it for agreed, though its own person has
    heard = await studio.rules.under_way(call, 1, ann.user_id)
    assert [type(each) for each in heard] == [Requested, Answered]
    told: list[Out] = []
    studio.rules.tell = lambda _, out: told.append(out)
    studio.db.ahead_us += int(CONFIG.recording_idle_s * 0.7 * SECOND_US)
    await studio.watch()
    studio.db.ahead_us += int(CONFIG.recording_idle_s * 0.7 * SECOND_US)
    await studio.node.room.calls.leave(cid.user_id, call)  # without a word: nobody is waited for any more
    await studio.watch()
    await studio.watch()
    assert [type(each) for each in told] == [Started]  # once, so that its recorder goes on
    assert [type(each) for each in await studio.rules.under_way(call, 1, ann.user_id)] == [Started]
    await studio.send(ann, call, name, 2, PIECES[1])
    await studio.node.room.calls.join(cid, call)
    await studio.rules.consent(cid, call, name, agrees=True)
    await studio.send(ann, call, name, 3, PIECES[2])


@pytest.mark.parametrize("gone", ["leaves", "ends", "falls silent", "goes on for ever"])
async def test_a_recording_whose_client_is_gone_is_finished(
    studio: Studio, group: ConversationId, people: list[Principal], gone: str
) -> None:
    ann, bob, cid, *_ = people
    call = await studio.call(group, ann, bob, cid)
    name = await studio.recorded(call, ann, bob, cid)
    await studio.send(ann, call, name, 1, PIECES[0])
    reason = {"leaves": "recorder_left", "ends": "call_over", "falls silent": "silent"}.get(gone, "too_long")
    if gone == "leaves":
        await studio.node.room.calls.leave(ann.user_id, call)
    elif gone == "ends":
        await studio.node.room.calls.end(ann, call)
    elif gone == "falls silent":
        studio.db.ahead_us += CONFIG.recording_idle_s * SECOND_US
    else:
        studio.db.ahead_us += CONFIG.recording_s * SECOND_US
    await studio.watch()
    seen = await studio.get(call, name, ann)
    assert (seen.state, seen.end_reason) == ("finishing" if reason == "silent" else "stopped", reason)
    if reason != "silent":
        await studio.send(ann, call, name, 2, PIECES[1])  # recorded before; it was slow
        await studio.finish()
        assert (await studio.get(call, name, ann)).state == "stopped"
        studio.db.ahead_us += CONFIG.recording_idle_s * SECOND_US
    await studio.finish()
    assert (await studio.get(call, name, ann)).state == "partial"
    url, _ = await studio.rules.address(bob.user_id, call, name, "")
    assert await studio.content(url) == b"".join(PIECES[: 1 if reason == "silent" else 2])


async def test_who_may_record_and_what(
    studio: Studio, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    stranger = principal_of(UserId(new_id()))
    call = await studio.node.call(ann, group, bob)

    async def start(who: Principal, *, is_encrypted: bool = False) -> Recording:
        return await studio.rules.start(who, call.call_id, "video/webm", is_encrypted=is_encrypted)

    await refused(Conflict, lambda: start(ann))  # it rings
    await studio.node.room.calls.join(bob, call.call_id)
    await refused(CallNotJoined, lambda: start(cid))
    await refused(NotFound, lambda: start(stranger))
    configured = "UPDATE conversations SET recording_enabled = $1, is_e2ee_enabled = $2"
    await change(studio.db, configured, False, False)
    await refused(RecordingDisabled, lambda: start(ann))
    await change(studio.db, configured, True, True)
    await refused(E2eeRequired, lambda: start(ann))
    name = (await start(ann, is_encrypted=True)).recording_id
    await studio.rules.consent(bob, call.call_id, name, agrees=True)
    await refused(E2eeRequired, lambda: studio.send(ann, call.call_id, name, 1, PIECES[0]))
    await studio.send(ann, call.call_id, name, 1, PIECES[1])
    await studio.rules.complete(ann.user_id, call.call_id, name, 1)
    await studio.finish()
    done = await studio.get(call.call_id, name, ann)
    assert done.is_encrypted
    assert (await studio.storage.files.own(ann.user_id, done.file_id)).is_encrypted
    await refused(Forbidden, lambda: studio.rules.stop(bob.user_id, call.call_id, name))
    elsewhere = CallId(new_id())
    for act in (
        lambda: studio.rules.stop(stranger.user_id, call.call_id, name),
        lambda: studio.rules.address(stranger.user_id, call.call_id, name, ""),
        lambda: studio.rules.consent(stranger, call.call_id, name, agrees=True),
        lambda: studio.rules.list_of(stranger.user_id, call.call_id),
        lambda: studio.send(stranger, call.call_id, name, 1, b"x"),
        lambda: studio.rules.delete(stranger.user_id, call.call_id, name),
        lambda: studio.rules.stop(ann.user_id, elsewhere, name),
        lambda: studio.rules.address(ann.user_id, elsewhere, name, ""),
    ):
        await refused(NotFound, act)


async def test_who_sees_it_afterwards(studio: Studio, group: ConversationId, people: list[Principal]) -> None:
    ann, bob, cid, dee, _ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, ann, bob)
    await studio.send(ann, call, name, 1, PIECES[0])
    await studio.rules.complete(ann.user_id, call, name, 1)
    await studio.finish()
    url, _ = await studio.rules.address(bob.user_id, call, name, "")
    await change(
        studio.db, "DELETE FROM members WHERE conversation_id = $1 AND user_id = $2", group, bob.user_id
    )
    await refused(NotFound, lambda: studio.rules.address(bob.user_id, call, name, ""))
    await refused(NotFound, lambda: studio.content(url))  # which was given out before
    later = studio.db.now_us() + SECOND_US
    await change(studio.db, "UPDATE members SET joined_at = $1 WHERE user_id = $2", later, cid.user_id)
    assert await studio.rules.address(cid.user_id, call, name, "")  # the history is shown
    past = "UPDATE members SET visible_from_seq = $1, visible_from_change = $2 WHERE user_id = $3"
    for seq, change_seen in ((1, 2), (9, 12)):  # whatever the group shows to those who come from now on
        await change(studio.db, past, seq, change_seen, cid.user_id)
        await refused(NotFound, lambda: studio.rules.address(cid.user_id, call, name, ""))
    assert await studio.rules.list_of(cid.user_id, call) == []
    assert await studio.rules.address(dee.user_id, call, name, "")


@pytest.mark.parametrize(
    "how", ["its recorder", "a moderator", "as a file", "erasure", "retention", "with the conversation"]
)
async def test_a_recording_goes(
    studio: Studio, group: ConversationId, people: list[Principal], how: str
) -> None:
    ann, bob, *_ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, bob, ann)
    await studio.send(bob, call, name, 1, PIECES[0])
    if how != "a moderator":
        await studio.rules.complete(bob.user_id, call, name, 1)
        await studio.finish()
    done = await studio.get(call, name, ann)
    if how == "its recorder":
        await studio.rules.delete(bob.user_id, call, name)
    elif how == "a moderator":  # while it is recorded
        await refused(Forbidden, lambda: studio.rules.delete(people[2].user_id, call, name))
        await studio.rules.delete(ann.user_id, call, name)
    elif how == "as a file":
        await studio.storage.files.delete(bob.user_id, done.file_id, "")
    elif how == "erasure":
        await studio.node.room.forget(bob.user_id)
        await studio.node.room.forget(bob.user_id)
    elif how == "retention":
        finisher = studio.node.room.finisher
        finisher._config = replace(finisher._config, recording_days=2)
        studio.db.ahead_us += DAY_US
        await finisher.keep_up_once()
        assert (await studio.get(call, name, ann)).state == "completed"
        studio.db.ahead_us += DAY_US
    else:
        await change(studio.db, "DELETE FROM conversations")
    await studio.node.room.finisher.keep_up_once()
    await studio.finish()
    await studio.storage.sweeper.pass_once()
    assert await rows(studio.db, "recordings") == 0
    assert await rows(studio.db, "recording_consents") == 0
    assert await rows(studio.db, "recording_parts") == 0
    assert await keys(studio.objects) == []
    assert await studio.used(bob) == (0, 0)


async def test_what_does_not_fit(studio: Studio, group: ConversationId, people: list[Principal]) -> None:
    ann, bob, *_ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, ann, bob)
    await refused(
        UploadMismatch,
        lambda: studio.rules.take_part(ann.user_id, call, name, 1, b"\0" * 32, PIECES[0]),
    )
    await studio.send(ann, call, name, 1, b"x" * (MB - 10))
    await refused(TooLarge, lambda: studio.send(ann, call, name, 2, b"x" * 11))
    await change(studio.db, "UPDATE quotas SET used_bytes = 5 WHERE user_id = $1", ann.user_id)
    await refused(QuotaExceeded, lambda: studio.send(ann, call, name, 2, b"x" * 6))
    await studio.send(ann, call, name, 2, b"x" * 5)
    assert await rows(studio.db, "recording_parts") == 2
    for _ in range(2):
        await studio.rules.stop(ann.user_id, call, name)
        name = await studio.recorded(call, ann, bob)
    await studio.rules.stop(ann.user_id, call, name)
    await refused(Conflict, lambda: studio.recorded(call, ann, bob))


async def test_while_the_store_is_away(
    studio: Studio, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, ann, bob)
    studio.is_away = True
    for _ in range(2):
        refusal = await refused(Unavailable, lambda: studio.send(ann, call, name, 1, PIECES[0]))
    assert refusal.retry_after_s
    gaps = await refused(RecordingGaps, lambda: studio.rules.complete(ann.user_id, call, name, 1))
    assert gaps.details == {"parts": [1]}
    studio.is_away = False
    await studio.send(ann, call, name, 1, PIECES[0])
    await studio.rules.complete(ann.user_id, call, name, 1)
    studio.is_away = True
    await refused(Unavailable, studio.finish)
    studio.is_away = False
    studio.db.ahead_us += SECOND_US
    await studio.finish()
    assert (await studio.get(call, name, ann)).state == "completed"


async def test_it_shows_on_every_node(
    studio: Studio,
    group: ConversationId,
    people: list[Principal],
    between: MemorySignals,
    nursery: trio.Nursery,
) -> None:
    ann, bob, cid, *_ = people
    here = await Node.start(nursery, studio.db, between)
    there = await Node.start(nursery, studio.db, between)
    for node in (here, there):
        node.room.recordings.shelf = lambda: studio.storage.growing
    call = await studio.call(group, ann, bob)
    one, other = await here.attach(ann, call), await there.attach(bob, call)
    await one.wait_for("join")
    name = (await here.room.recordings.start(ann, call, "video/webm", is_encrypted=False)).recording_id
    for device in (one, other):
        asked = await device.wait_for("recording_requested")
        assert (asked["recording_id"], asked["by"], asked["epoch"]) == (name, ann.user_id, 1)
    await there.room.recordings.consent(bob, call, name, agrees=True)
    for device in (one, other):
        answer = await device.wait_for("recording_consent")
        assert (answer["user_id"], answer["consent"]) == (bob.user_id, True)
        await device.wait_for("recording_started")
    await here.room.calls.join(cid, call)
    late = await there.attach(cid, call)
    assert (await late.wait_for("recording_requested"))["recording_id"] == name
    await here.room.recordings.consent(cid, call, name, agrees=True)
    await one.wait_for("recording_started", 2)
    again = await here.attach(cid, call, "page-2")
    assert (await again.wait_for("recording_started"))["by"] == ann.user_id
    await studio.send(ann, call, name, 1, PIECES[0])
    await there.room.recordings.consent(bob, call, name, agrees=False)
    for device in (one, other, again):
        assert (await device.wait_for("recording_stopped"))["reason"] == "withdrawn"

    async def is_kept() -> bool:
        return (await studio.get(call, name, ann)).state == "partial"

    await until(is_kept)
    told = [entry async for entry in here.room.export_of(bob.user_id)]
    assert [each["consent"] for each in told if each["kind"] == "recording_consent"] == [False]
    told = [entry async for entry in here.room.export_of(ann.user_id)]
    assert [each["state"] for each in told if each["kind"] == "recording"] == ["partial"]
