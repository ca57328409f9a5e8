"""What a creating request makes, it makes once, however often and wherever it comes with the same key."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from kit.cluster import cluster
from kit.databases import on_both
from kit.http import plain
from kit.people import PASSWORD, group, make_admin, people
from kit.postgres import PostgresServer
from kit.routes import ROUTES
from kit.server import Server
from kit.store import ObjectStore
from secureconnect.client import Client
from secureconnect.clock import HOUR_US
from secureconnect.config import IdempotencyConfig, PostgresConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.postgres import Postgres
from secureconnect.edge import Audience
from secureconnect.errors import Forbidden, IdempotencyKeyInUse, IdempotencyKeyReused
from secureconnect.idempotency import RESULT_CHARS, Attempt, Idempotency, once
from secureconnect.identity import UserId, new_id

pytest_generate_tests = on_both

ANN, BOB = UserId(new_id()), UserId(new_id())
GROUP = {"type": "group", "title": "picnic", "participant_ids": []}
ANSWER_S = 30
BUSY = {409, 503}
FILE = {"file_name": "a.txt", "file_size": 7, "content_type": "text/plain"}


def attempt(key: str = "k", user: UserId = ANN, route: str = "POST /things", asked: bytes = b"a") -> Attempt:
    return Attempt(user, route, key, asked * 32)


class Maker:
    """Makes a row of `meta` each time it is run; `made` counts those that stayed."""

    async def make(self, tx: Tx, value: str = "thing") -> str:
        key = new_id()
        await tx.run("INSERT INTO meta (key, value) VALUES ($1, $2)", key, value)
        return key

    async def refuse(self, tx: Tx) -> str:
        await self.make(tx)
        raise Forbidden

    async def made(self, tx: Tx) -> int:
        row = await tx.one("SELECT COUNT(*) FROM meta WHERE value = 'thing'")
        assert row is not None
        return int(row[0])


async def test_the_same_key_makes_one_thing(db: Database) -> None:
    maker = Maker()
    first = await once(db, attempt(), str, maker.make)
    assert await once(db, attempt(), str, maker.make) == first
    assert await db.read(maker.made) == 1
    with pytest.raises(IdempotencyKeyReused):
        await once(db, attempt(asked=b"b"), str, maker.make)
    others = [attempt("l"), attempt(user=BOB), attempt(route="POST /others"), None, None]
    made = {await once(db, each, str, maker.make) for each in others}
    assert len(made | {first}) == await db.read(maker.made) == 6


async def test_a_refusal_keeps_nothing(db: Database) -> None:
    maker = Maker()
    with pytest.raises(Forbidden):
        await once(db, attempt(), str, maker.refuse)
    assert await db.read(maker.made) == 0
    await once(db, attempt(asked=b"b"), str, maker.make)
    assert await db.read(maker.made) == 1


async def test_many_at_the_same_moment_make_one_thing(db: Database) -> None:
    maker, told = Maker(), []

    async def ask() -> None:
        told.append(await once(db, attempt(), str, maker.make))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert len(told) == 20
    assert len(set(told)) == await db.read(maker.made) == 1


async def test_one_that_is_cancelled_has_happened_or_has_not(db: Database) -> None:
    """Whether its client left before, in or after the transaction."""
    maker = Maker()
    for steps in range(8):
        key = attempt(f"k{steps}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(once, db, key, str, maker.make)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        told = await once(db, key, str, maker.make)
        assert await once(db, key, str, maker.make) == told
        assert await db.read(maker.made) == steps + 1


async def test_a_result_has_a_size(db: Database) -> None:
    async def large(_: Tx) -> str:
        return "x" * RESULT_CHARS

    with pytest.raises(ValueError, match="POST /things"):
        await once(db, attempt(), str, large)


async def test_what_was_kept_long_enough_is_forgotten(db: Database) -> None:
    maker = Maker()
    pruner = Idempotency(IdempotencyConfig(), db)
    for key in "abc":
        await once(db, attempt(key), str, maker.make)

    async def age(tx: Tx) -> None:
        sql = "UPDATE idempotency SET made_at = $1 WHERE key <> 'c'"
        await tx.run(sql, db.now_us() - 24 * HOUR_US - 1)

    assert await pruner.pass_once() == 0
    await db.write(age)
    assert await pruner.pass_once() == 2
    await once(db, attempt("a", asked=b"b"), str, maker.make)
    await once(db, attempt("c"), str, maker.make)
    assert await db.read(maker.made) == 4


async def test_forgetting_is_done_by_itself(db: Database) -> None:
    maker = Maker()
    await once(db, attempt(), str, maker.make)

    async def age(tx: Tx) -> None:
        await tx.run("UPDATE idempotency SET made_at = $1", db.now_us() - 25 * HOUR_US)

    async def is_kept(tx: Tx) -> bool:
        return await tx.one("SELECT 1 FROM idempotency") is not None

    await db.write(age)
    async with trio.open_nursery() as nursery:
        await nursery.start(Idempotency(IdempotencyConfig(prune_s=0.1), db).run)
        with trio.fail_after(10):
            while await db.read(is_kept):  # noqa: ASYNC110  (a row sends no word)
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_one_that_is_still_under_way_is_not_waited_for_too_long(migrated_url: str) -> None:
    """Another node has claimed the key and stands still."""
    config = PostgresConfig(url=migrated_url, lock_s=0.1)
    maker = Maker()

    async def stand_still(tx: Tx) -> str:
        key = await maker.make(tx)
        await tx.one("SELECT CAST(pg_sleep(1) AS text)")
        return key

    async with open_bridge() as bridge, Postgres.open(config, bridge) as db:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(once, db, attempt(), str, stand_still)
            with trio.fail_after(5):
                while not await db.read(somebody_sleeps):  # noqa: ASYNC110  (a transaction sends no word)
                    await trio.sleep(0.01)
            with pytest.raises(IdempotencyKeyInUse):
                await once(db, attempt(), str, maker.make)
        await once(db, attempt(), str, maker.make)
        assert await db.read(maker.made) == 1


async def somebody_sleeps(tx: Tx) -> bool:
    sql = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1)%' AND pid <> pg_backend_pid()"
    return await tx.one(sql) is not None


# over HTTP


# POSTs without a key, and why asking again does no harm
TOKENS = "the answer carries a token, which is never kept"
SPENT = "the token that is sent is spent by it"
SET = "done twice is done once"
NEWEST = "the newer mail takes the place of the older"
WITHOUT_KEY = {
    "/v1/auth/register": TOKENS,
    "/v1/auth/login": TOKENS,
    "/v1/auth/refresh": "the same token gives the same successor",
    "/v1/auth/logout": SET,
    "/v1/auth/logout-all": SET,
    "/v1/auth/ws-ticket": TOKENS,
    "/v1/auth/email/verify/request": NEWEST,
    "/v1/auth/email/verify": SPENT,
    "/v1/auth/password-reset/request": NEWEST,
    "/v1/auth/password-reset/confirm": SPENT,
    "/v1/auth/totp/enroll": TOKENS,
    "/v1/auth/totp/confirm": TOKENS,
    "/v1/auth/totp/recovery-codes": TOKENS,
    "/v1/users/me/email": NEWEST,
    "/v1/users/me/email/verify": SPENT,
    "/v1/users/me/password": SET,
    "/v1/users/me/restore": SET,
    "/v1/users/me/friends/{user_id}/accept": SET,
    "/v1/calls/{call_id}/join": SET,
    "/v1/calls/{call_id}/decline": SET,
    "/v1/calls/{call_id}/leave": SET,
    "/v1/calls/{call_id}/end": SET,
    "/v1/calls/{call_id}/recording/start": "while it lasts the same device has one, and is told of that",
    "/v1/calls/{call_id}/recording/consent": SET,
    "/v1/calls/{call_id}/recording/stop": SET,
    "/v1/calls/{call_id}/recordings/{recording_id}/complete": SET,
    "/v1/users/{user_id}/block": SET,
    "/v1/admin/invites": TOKENS,
    "/v1/admin/users/{user_id}/ban": SET,
    "/v1/admin/users/{user_id}/unban": SET,
    "/v1/admin/users/{user_id}/unlock": SET,
    "/v1/keys/upload": "the same keys under the same ids are there already",
    "/v1/keys/rotate": "the same keys under the same ids are there already",
    "/v1/e2ee/keys/upload": "the same keys under the same ids are there already",
    "/v1/e2ee/keys/query": "it only reads",
    "/v1/e2ee/signing-keys": SET,
    "/v1/e2ee/signatures": SET,
    "/v1/conversations/{conversation_id}/read": SET,
    "/v1/messages": "client_message_id",
    "/v1/messages/{message_id}/forward": "client_message_id",
    "/v1/presence": SET,
    "/v1/polls/{poll_id}/vote": SET,
    "/v1/polls/{poll_id}/close": SET,
    "/v1/notifications/{notification_id}/read": SET,
    "/v1/notifications/read-all": SET,
    "/v1/notifications/devices": SET,
    "/v1/conversations/{conversation_id}/mute": SET,
    "/v1/conversations/{conversation_id}/pins/{message_id}": SET,
    "/v1/storage/upload-complete": SET,
}


def test_what_makes_something_takes_a_key_or_needs_none() -> None:
    """PUT, PATCH and DELETE are done once however often they are asked."""
    without = {route.path for route in ROUTES if route.method == "POST" and not route.repeats}
    assert without == set(WITHOUT_KEY)


def test_no_answer_that_is_kept_carries_a_token() -> None:
    for route in ROUTES:
        if route.repeats:
            assert route.audience is not Audience.ANYONE, route.path
            assert route.answer is not None, route.path
            told = set(route.answer.__annotations__)
            assert not {"access_token", "refresh_token", "ticket", "invite_code"} & told, route.path


# those with a test of their own, for their answers are made anew
ALONE = {
    "/v1/conversations",
    "/v1/conversations/{conversation_id}/participants",
    "/v1/storage/upload-url",
    "/v1/keys/{user_id}",
    "/v1/e2ee/keys/claim",
}
REPORT = {"user_id": "{other}", "reason": "spam", "comment": "it is"}
NOTICE = {"text": "hear"}
POLL = {"conversation_id": "{room}", "question": "When?", "options": ["now", "later"]}
CALL = {"conversation_id": "{room}", "call_type": "video"}
BACKUP = {"algorithm": "m.x", "auth_data": {}}
# another request with the same key: another body, or another person in the path
REPEATED: dict[str, tuple[Any, Any]] = {
    "/v1/reports": (REPORT, {**REPORT, "reason": "other"}),
    "/v1/admin/announcements": (NOTICE, {"text": "hear, hear"}),
    "/v1/e2ee/backup/version": (BACKUP, {**BACKUP, "algorithm": "m.y"}),
    "/v1/users/{user_id}/friend": (None, None),
    "/v1/polls": (POLL, {**POLL, "question": "Where?"}),
    "/v1/calls/initiate": (CALL, {**CALL, "call_type": "audio"}),
}


def test_each_route_that_takes_a_key_is_tried() -> None:
    assert {route.path for route in ROUTES if route.repeats} == ALONE | set(REPEATED)


async def ask(
    client: Client, path: str, body: Any, key: str | None, url: str | None = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {client.me.access_token}"}
    if key is not None:
        headers["Idempotency-Key"] = key
    async with plain(base_url=url or client.server, timeout=ANSWER_S) as http:
        return await http.post(path, json=body, headers=headers)


async def test_a_conversation(server: Server) -> None:
    async with people(server.url, "ann", "bob") as (ann, bob):
        key = new_id()
        first = await ask(ann, "/v1/conversations", GROUP, key)
        again = await ask(ann, "/v1/conversations", dict(reversed(GROUP.items())), key)
        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json()["data"] == first.json()["data"]
        assert len((await ann.call("GET", "/v1/conversations"))["conversations"]) == 1
        other = await ask(ann, "/v1/conversations", {**GROUP, "title": "other"}, key)
        assert (other.status_code, other.json()["error"]["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
        assert (await ask(bob, "/v1/conversations", GROUP, key)).json()["data"] != first.json()["data"]

        room = first.json()["data"]["conversation_id"]
        path, newcomer = f"/v1/conversations/{room}/participants", {"user_id": bob.me.user_id}
        added = await ask(ann, path, newcomer, key)
        again = await ask(ann, path, newcomer, key)
        assert (added.status_code, again.status_code) == (201, 201), "a key is of one route"
        assert again.json()["data"] == added.json()["data"]
        assert (await ask(ann, path, newcomer, None)).status_code == 200


async def test_each_makes_one_and_answers_the_same(server: Server) -> None:
    async with people(server.url, "ann", "bob", "eve") as (ann, bob, eve):
        await make_admin(server, ann)
        await ann.login(ann.me.username, PASSWORD)
        room = await group(ann, eve)
        for path, (body, changed) in REPEATED.items():
            key, (one, other) = new_id(), (path.format(user_id=who.me.user_id) for who in (bob, eve))
            body, changed = (_about(bob, each, room) for each in (body, changed))
            first = await ask(ann, one, body, key)
            again = await ask(ann, one, body, key)
            assert first.is_success, first.text
            assert (again.status_code, again.json()["data"]) == (first.status_code, first.json()["data"])
            reused = await ask(ann, other, changed, key)
            assert (reused.status_code, reused.json()["error"]["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
        assert await _reports_by(ann, ann) == 1
        told = (await ann.call("GET", "/v1/announcements"))["announcements"]
        assert [each["text"] for each in told].count(
            NOTICE["text"]
        ) == 1  # others have been told something, too
        assert (await ann.call("GET", "/v1/e2ee/backup/version"))["version"] == "1"
        assert len((await ann.call("GET", "/v1/polls", query={"conversation_id": room}))["polls"]) == 1


def _about(person: Client, body: Any, room: str = "") -> Any:
    ids = {"user_id": person.me.user_id, "conversation_id": room}
    return body and {**body, **{name: each for name, each in ids.items() if name in body}}


async def _reports_by(admin: Client, reporter: Client) -> int:
    told = (await admin.call("GET", "/v1/admin/reports"))["reports"]
    return sum(each["reporter_id"] == reporter.me.user_id for each in told)


async def test_a_request_that_comes_late_undoes_nothing(server: Server) -> None:
    """It has been turned down, or settled, meanwhile."""
    async with people(server.url, "ann", "bob") as (ann, bob):
        await make_admin(server, bob)
        await bob.login(bob.me.username, PASSWORD)
        keys = new_id(), new_id()
        friend, report = f"/v1/users/{bob.me.user_id}/friend", _about(bob, REPORT)

        async def both() -> list[Any]:
            answers = [
                await ask(ann, friend, None, keys[0]),
                await ask(ann, "/v1/reports", report, keys[1]),
            ]
            return [(answer.status_code, answer.json()["data"]) for answer in answers]

        first = await both()
        await bob.call("DELETE", f"/v1/users/me/friends/{ann.me.user_id}/reject")
        await bob.call("PATCH", f"/v1/admin/reports/{first[1][1]['report_id']}", {"state": "resolved"})
        assert await both() == first, "and the reporter is not told what became of it"
        assert (await bob.call("GET", "/v1/users/me/friends?state=incoming"))["friends"] == []
        assert await _reports_by(bob, ann) == 1


async def test_the_answer_shows_nothing_that_may_no_longer_be_seen(server: Server) -> None:
    async with people(server.url, "ann") as [ann]:
        key = new_id()
        made = (await ask(ann, "/v1/conversations", GROUP, key)).json()["data"]
        await ann.call("DELETE", f"/v1/conversations/{made['conversation_id']}/participants/{ann.me.user_id}")
        assert (await ask(ann, "/v1/conversations", GROUP, key)).status_code == 404


async def test_an_upload(server: Server) -> None:
    async with people(server.url, "ann") as [ann]:
        key = new_id()
        first = (await ask(ann, "/v1/storage/upload-url", FILE, key)).json()["data"]
        again = (await ask(ann, "/v1/storage/upload-url", FILE, key)).json()["data"]
        assert again["file"] == first["file"]
        assert (await ann.call("GET", "/v1/storage/quota"))["reserved_bytes"] == FILE["file_size"]
        async with plain(base_url=server.url) as http:
            assert (await http.put(again["upload_url"], content=b"content")).is_success
        late = await ask(ann, "/v1/storage/upload-url", FILE, key)
        assert (late.status_code, late.json()["error"]["code"]) == (409, "UPLOAD_ARRIVED")
        await ann.call("POST", "/v1/storage/upload-complete", {"file_id": first["file_id"]})
        late = await ask(ann, "/v1/storage/upload-url", FILE, key)
        assert (late.status_code, late.json()["error"]["code"]) == (409, "UPLOAD_OVER")


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "k\u00e4"])
async def test_a_key_that_is_none(server: Server, key: str) -> None:
    async with people(server.url, "ann") as [ann], plain() as http:
        headers = {"Authorization": f"Bearer {ann.me.access_token}", "Idempotency-Key": key.encode("latin-1")}
        answer = await http.post(f"{server.url}/v1/conversations", json=GROUP, headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 422
        assert answer.json()["error"]["details"] == {"field": "Idempotency-Key"}
        assert (await ann.call("GET", "/v1/conversations"))["conversations"] == []


async def test_the_document_tells_of_it(server: Server) -> None:
    async with plain(base_url=server.url) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    told = {
        (verb.upper(), path)
        for path, verbs in paths.items()
        for verb, operation in verbs.items()
        if any(each["name"] == "Idempotency-Key" for each in operation["parameters"])
    }
    assert told == {(route.method, route.path) for route in ROUTES if route.repeats}
    operation = paths["/v1/conversations"]["post"]
    assert "IDEMPOTENCY_KEY_REUSED" in operation["responses"]["422"]["description"]
    assert "IDEMPOTENCY_KEY_IN_USE" in operation["responses"]["409"]["description"]


async def test_twenty_at_once_on_two_nodes_make_one(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    async with (
        cluster(tmp_path, postgres_server, shared_store, balancer=None) as nodes,
        people(nodes.nodes[0].url, "ann") as [ann],
    ):
        answers: list[httpx.Response] = []
        versions: list[httpx.Response] = []
        key = new_id()

        async def send(url: str, path: str, body: Any, answers: list[httpx.Response]) -> None:
            """Asked again as clients do, where a node is too busy to answer."""
            with trio.fail_after(ANSWER_S):
                answer = await ask(ann, path, body, key, url)
                while answer.status_code in BUSY:
                    await trio.sleep(0.1)
                    answer = await ask(ann, path, body, key, url)
            answers.append(answer)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                url = nodes.nodes[number % 2].url
                nursery.start_soon(send, url, "/v1/conversations", GROUP, answers)
                nursery.start_soon(send, url, "/v1/e2ee/backup/version", BACKUP, versions)
        assert {(each.status_code, each.json()["data"]["version"]) for each in versions} == {(201, "1")}
        assert Counter(each.status_code for each in answers) == {201: 20}
        told = {each.json()["data"]["conversation_id"] for each in answers}
        listed = (await ann.call("GET", "/v1/conversations"))["conversations"]
        assert {each["conversation_id"] for each in listed} == told
        assert len(told) == 1
