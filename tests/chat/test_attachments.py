"""Messages and the files they carry, with who keeps the files beside the room."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from kit.databases import on_sqlite
from kit.outage import Interrupted
from kit.wait import until
from secureconnect.chat import Chat, disappearing
from secureconnect.chat.pledges import Accepted
from secureconnect.chat.store import Message
from secureconnect.clock import SECOND_US
from secureconnect.config import ChatConfig, JournalConfig
from secureconnect.deps.contracts import Database, Row, Tx
from secureconnect.deps.journal import FileJournal
from secureconnect.deps.memory import MemoryBus
from secureconnect.deps.sqlite import Sqlite
from secureconnect.errors import Invalid, Problem
from secureconnect.identity import ConversationId, FileId, UserId, new_id
from secureconnect.storage import Sharing
from secureconnect.storage import store as files
from secureconnect.storage.sharing import sharing
from secureconnect.storage.sharing import store as shares
from secureconnect.storage.sharing.sharing import place

from .rig import dialled, make_group, make_people, running, say, store

SIZE = 10
ROUNDS = 25
STEPS = 150
DEEDS = ("join", "leave", "upload", "share", "unsay", "delete")
WEIGHTS = (3, 1, 2, 8, 2, 2)


@pytest.fixture
async def room(db: Database, bus: MemoryBus) -> AsyncIterator[Chat]:
    async with running(db, bus, attachments=Sharing()) as room:
        yield room


async def make_file(db: Database, owner: UserId) -> FileId:
    """One that is complete, as storage writes it."""
    now_us, file_id = db.now_us(), FileId(new_id())

    async def insert(tx: Tx) -> None:
        assert await files.reserve(tx, owner, SIZE, 10**9, 10**6)
        await tx.run(
            "INSERT INTO files (file_id, owner_id, file_name, file_size, content_type, is_encrypted, status,"
            " created_at, incoming, upload_ends_at, received_at)"
            " VALUES ($1, $2, 'a', $3, 'text/plain', false, 'uploading', $4, 'a', $4, $4)",
            file_id,
            owner,
            SIZE,
            now_us,
        )
        assert await files.complete(tx, file_id)

    await db.write(insert)
    return file_id


async def take_away(db: Database, file_id: FileId) -> None:
    """Its owner deletes it."""

    async def delete(tx: Tx) -> None:
        file = await files.lock(tx, file_id)
        assert file is not None
        if file.status == "completed":
            await files.delete(tx, file, db.now_us())

    await db.write(delete)


async def carry(room: Chat, sender: UserId, where: ConversationId, *file_ids: FileId) -> Message:
    draft = room.messages.draft(sender, where, "", message_type="file", file_ids=file_ids)
    return (await store(room, draft)).message


async def sees(db: Database, file_id: FileId, user: UserId) -> bool:
    """By a message."""
    return await db.read(shares.may_see, file_id, user, db.now_us())


async def listed(db: Database, where: ConversationId) -> set[FileId]:
    found = await db.read(files.list_shared, where, 0, db.now_us(), files.LAST_ID, 100)
    return {file.file_id for file in found}


async def is_there(db: Database, file_id: FileId) -> bool:
    file = await db.read(files.get, file_id)
    return file is not None and file.status == "completed"


async def rows(db: Database, sql: str) -> list[Row]:
    async def read(tx: Tx) -> list[Row]:
        return await tx.all(sql)

    return await db.read(read)


async def test_what_retention_takes_takes_its_files(db: Database, room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    old, kept = await make_file(db, ann), await make_file(db, ann)
    await carry(room, ann, where, old, kept)
    again = await carry(room, bob, where, kept)
    await room.retention.drop(where, 0, again.sent_us)
    assert (await is_there(db, old), await is_there(db, kept)) == (False, True)
    assert (await db.read(files.quota, ann)).used_bytes == SIZE
    await room.messages.delete(ann, again.message_id)
    assert not await is_there(db, kept), "whoever has passed it on last, and whoever deletes that"


async def test_words_beside_a_file_may_be_taken_back(db: Database, room: Chat, people: list[UserId]) -> None:
    ann, *_ = people
    draft = room.messages.draft(ann, await make_group(room, ann), "look", file_ids=[await make_file(db, ann)])
    message = (await store(room, draft)).message
    assert (await room.messages.edit(ann, message.message_id, "")).content == ""


async def test_what_disappears_and_a_deleted_group_take_their_files(
    db: Database, bus: MemoryBus, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    shifted = Interrupted(db)
    once = ChatConfig(disappear_pass_s=3_600, retention_pass_s=3_600)
    async with running(shifted, bus, once, attachments=Sharing()) as room:
        where = await make_group(room, ann, bob)
        stays, goes = await make_file(db, ann), await make_file(db, ann)
        await carry(room, ann, where, stays)
        await room.conversations.configure(ann, where, {"disappear_after_s": 60})
        await carry(room, ann, where, stays, goes)
        assert await sees(shifted, goes, bob)
        shifted.ahead_us += 61 * SECOND_US
        assert not await sees(shifted, goes, bob), "from its end on, deleted or not"
        assert await listed(shifted, where) == {stays}
        with pytest.raises(Invalid):
            await carry(room, bob, where, goes)
        assert await room.disappearing.pass_once() == 1
        assert (await is_there(db, stays), await is_there(db, goes)) == (True, False)
        await room.deletion.delete(ann, where)
        assert not await sees(shifted, stays, bob), "at once"
        await room.deletion.pass_once()
        assert not await is_there(db, stays)
        assert (await db.read(files.quota, ann)).used_bytes == 0


async def test_what_is_uploaded_where_things_disappear_does_so_too(
    db: Database, bus: MemoryBus, people: list[UserId]
) -> None:
    """With or without a message; to its owner it stays."""
    ann, bob, *_ = people
    shifted = Interrupted(db)
    async with running(shifted, bus, ChatConfig(disappear_pass_s=3_600), attachments=Sharing()) as room:
        where = await make_group(room, ann, bob)
        await room.conversations.configure(ann, where, {"disappear_after_s": 60})
        file = await db.read(files.get, await make_file(db, ann))
        assert file is not None
        await db.write(place, file._replace(conversation_id=where), shifted.now_us())
        assert await sees(shifted, file.file_id, bob)
        shifted.ahead_us += 61 * SECOND_US
        assert not await sees(shifted, file.file_id, bob)
        assert await is_there(db, file.file_id)


async def test_many_files_go_a_few_at_a_time(
    db: Database, bus: MemoryBus, people: list[UserId], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many a batch of messages carries, no unit of work grows with that."""
    monkeypatch.setattr(sharing, "AT_ONCE", 2)
    monkeypatch.setattr(disappearing, "CARRIERS", 1)
    ann, *_ = people
    shifted = Interrupted(db)
    never = ChatConfig(disappear_pass_s=3_600, retention_pass_s=3_600)
    async with running(shifted, bus, never, attachments=Sharing()) as room:
        for how in ("retention", "deletion", "disappearing"):
            where = await make_group(room, ann)
            if how == "disappearing":
                await room.conversations.configure(ann, where, {"disappear_after_s": 60})
            made = [await make_file(db, ann) for _ in range(5)]
            for carried in (made[:3], made[3:]):
                last = await carry(room, ann, where, *carried)
            if how == "retention":
                assert await room.retention.drop(where, 0, last.sent_us + 1)
                assert [await is_there(db, file_id) for file_id in made].count(False) == 2
                assert (await room.messages.get(ann, last.message_id)).seq == last.seq
                while await room.retention.drop(where, 0, last.sent_us + 1):
                    pass
            elif how == "deletion":
                await room.deletion.delete(ann, where)
                assert await room.deletion.pass_once() >= 3
            else:
                shifted.ahead_us += 61 * SECOND_US
                assert await room.disappearing.pass_once() == 2
            assert (await db.read(files.quota, ann)).used_bytes == 0, how
            assert not await rows(db, "SELECT 1 FROM file_shares")


@pytest.mark.parametrize("db", ["postgres"], indirect=True)
async def test_whoever_deletes_a_file_and_whoever_deletes_its_message_do_not_stop_each_other(
    db: Database, room: Chat, people: list[UserId]
) -> None:
    """Both wait for the file: neither holds what the other needs next, so neither begins anew."""
    ann, *_ = people
    where = await make_group(room, ann)
    file_id = await make_file(db, ann)
    message = await carry(room, ann, where, file_id)
    begun: list[str] = []

    async def hold(tx: Tx) -> None:
        await files.lock(tx, file_id)
        while await waiting(tx) < 2:
            await tx.one("SELECT pg_sleep(0.01)")

    async def delete(tx: Tx) -> None:
        begun.append("file")
        file = await files.lock(tx, file_id)
        assert file is not None
        await files.delete(tx, file, db.now_us())

    async def unsay(tx: Tx) -> None:
        begun.append("message")
        await Sharing().detach(tx, where, message.seq, message.message_id, ann, db.now_us())

    async def are_waiting(count: int) -> bool:
        return await db.read(waiting) == count

    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.write, hold)
        await until(lambda: is_held(db, file_id))
        nursery.start_soon(db.write, delete)
        await until(lambda: are_waiting(1))
        nursery.start_soon(db.write, unsay)
    assert sorted(begun) == ["file", "message"]
    assert not await is_there(db, file_id)


async def waiting(tx: Tx) -> int:
    """How many wait for somebody else's lock."""
    row = await tx.one(
        "SELECT COUNT(DISTINCT pid) FROM pg_locks WHERE NOT granted AND pid IN (SELECT l.pid FROM pg_locks l"
        " JOIN pg_database d ON d.oid = l.database WHERE d.datname = current_database())"
    )
    assert row is not None
    return int(row[0])


async def is_held(db: Database, file_id: FileId) -> bool:
    async def look(tx: Tx) -> bool:
        sql = "SELECT 1 FROM files WHERE file_id = $1 FOR UPDATE SKIP LOCKED"
        return await tx.one(sql, file_id) is None

    return await db.write(look)


async def test_sharing_and_deleting_at_once(db: Database, room: Chat, people: list[UserId]) -> None:
    """Whoever is first: nothing is shared that is gone, nothing is gone that is shared."""
    ann, bob, *_ = people
    here, there = await make_group(room, ann, bob), await make_group(room, bob, ann)
    stored = refused = 0

    async def pass_on(file_id: FileId) -> None:
        nonlocal stored, refused
        try:
            await carry(room, bob, there, file_id)
        except Invalid:
            refused += 1
        else:
            stored += 1

    for number in range(ROUNDS):
        file_id = await make_file(db, ann)
        message = await carry(room, ann, here, file_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_on, file_id)
            if number % 2:
                nursery.start_soon(room.messages.delete, ann, message.message_id)
            else:
                nursery.start_soon(take_away, db, file_id)
    assert stored + refused == ROUNDS
    assert not await rows(
        db, "SELECT 1 FROM file_shares s JOIN files f ON f.file_id = s.file_id WHERE f.status <> 'completed'"
    )
    [(left,)] = await rows(db, "SELECT COUNT(*) FROM files WHERE status = 'completed'")
    [(shared,)] = await rows(db, "SELECT COUNT(DISTINCT file_id) FROM file_shares")
    assert left == shared
    assert (await db.read(files.quota, ann)).used_bytes == left * SIZE


@on_sqlite
async def test_a_message_that_is_accepted_brings_its_files_later(
    db: Sqlite, bus: MemoryBus, data_dir: Path, nursery: trio.Nursery
) -> None:
    """They are looked at when it is stored: what is gone by then returns it to its sender."""
    away, config = Interrupted(db), JournalConfig(retry_s=0.05)
    ann, bob = await make_people(db, "ann", "bob")
    async with (
        FileJournal.open(data_dir / "journal", config) as journal,
        running(away, bus, ChatConfig(catch_up_ms=100), journal, config, Sharing()) as room,
    ):
        where = await make_group(room, ann, bob)
        kept, lost = await make_file(db, ann), await make_file(db, ann)
        anns = await dialled(nursery, room, ann)
        await say(room, ann, where, "before")
        await anns.wait_for("chat")
        away.go_away()
        for file_id in (kept, lost):
            answer = await room.messages.send(room.messages.draft(ann, where, "", file_ids=[file_id]))
            assert isinstance(answer, Accepted)
        assert not await sees(db, kept, bob)
        await take_away(db, lost)
        away.come_back()
        assert (await anns.wait_for("stored"))["seq"] == 2
        assert (await anns.wait_for("rejected"))["code"] == "VALIDATION"
        assert await sees(db, kept, bob)
        nursery.cancel_scope.cancel()


async def test_a_walk_through_all_of_it(db: Database, room: Chat, people: list[UserId]) -> None:
    """Messages with files, deletions of either, people who come and go: who reads what is as a model says."""
    chance = random.Random(6)
    owner, *others = people
    groups = [await make_group(room, owner) for _ in range(2)]
    members: dict[ConversationId, dict[UserId, int]] = {group: {owner: 1} for group in groups}
    carried: list[tuple[Message, list[FileId]]] = []
    owners: dict[FileId, UserId] = {}
    touched: set[FileId] = set()  # that a message has carried

    def readers(file_id: FileId) -> set[UserId]:
        return {owners[file_id]} | {
            user
            for message, file_ids in carried
            if file_id in file_ids
            for user, first in members[message.conversation_id].items()
            if message.seq >= first
        }

    def drop_unshared() -> None:
        shared = {file_id for _, file_ids in carried for file_id in file_ids}
        for file_id in touched - shared:
            owners.pop(file_id, None)

    for _ in range(STEPS):
        group = chance.choice(groups)
        here = members[group]
        what = chance.choices(DEEDS, WEIGHTS)[0]
        if what == "join" and (new := [user for user in others if user not in here]):
            user = chance.choice(new)
            await room.conversations.add(owner, group, user, "member")
            summary = await room.conversations.summary(owner, group)
            here[user] = summary.seat.conversation.last_seq + 1
        elif what == "leave" and len(here) > 1:
            user = chance.choice([user for user in here if user != owner])
            await room.conversations.remove(owner, group, user)
            del here[user]
        elif what == "upload":
            user = chance.choice(people)
            owners[await make_file(db, user)] = user
        elif what == "share" and owners:
            sender, some = chance.choice(list(here)), chance.sample(list(owners), min(2, len(owners)))
            if all(sender in readers(file_id) for file_id in some):
                carried.append((await carry(room, sender, group, *some), some))
                touched.update(some)
            else:
                with pytest.raises(Problem, match="no such file"):
                    await carry(room, sender, group, *some)
        elif what == "unsay" and carried:
            message, _ = gone = chance.choice(carried)
            await room.messages.delete(owner, message.message_id)
            carried.remove(gone)
            drop_unshared()
        elif what == "delete" and owners and chance.random() < 0.3:
            file_id = chance.choice(list(owners))
            await take_away(db, file_id)
            del owners[file_id]
            carried = [(message, [each for each in some if each != file_id]) for message, some in carried]

    async def see(tx: Tx) -> dict[FileId, set[UserId]]:
        return {
            file_id: {
                user
                for user in people
                if user == owners[file_id] or await shares.may_see(tx, file_id, user, db.now_us())
            }
            for file_id in owners
        }

    assert await db.read(see) == {file_id: readers(file_id) for file_id in owners}
    completed = {row[0] for row in await rows(db, "SELECT file_id FROM files WHERE status = 'completed'")}
    assert completed == set(owners)
    for user in people:
        mine = list(owners.values()).count(user)
        assert (await db.read(files.quota, user)).used_bytes == mine * SIZE
    assert len(carried) > 5, "there was something to see"


@on_sqlite
async def test_no_question_reads_a_whole_table(db: Sqlite) -> None:
    texts = {name: text for name, text in vars(shares).items() if name.startswith("_") and name.isupper()}
    texts["_LIST_SHARED"] = files._LIST_SHARED
    assert len(texts) > 8

    async def plan(tx: Tx, text: str) -> list[str]:
        count = max(number for number in range(1, 9) if f"${number}" in text)
        return [row[3] for row in await tx.all(f"EXPLAIN QUERY PLAN {text}", *[None] * count)]

    for name, text in texts.items():
        steps = await db.write(plan, text)
        assert not [step for step in steps if step.startswith("SCAN") and "SUBQUERY" not in step], name
