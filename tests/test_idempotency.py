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
from kit.people import people
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


def test_which_routes_take_a_key() -> None:
    """Those that make something, and answer with no token."""
    taking = {(route.method, route.path): route for route in ROUTES if route.repeats}
    assert {path for _, path in taking} >= {
        "/v1/conversations",
        "/v1/conversations/{conversation_id}/participants",
        "/v1/storage/upload-url",
    }
    for (_, path), route in taking.items():
        assert route.audience is not Audience.ANYONE, path
        assert route.answer is not None, path
        assert not {"access_token", "refresh_token", "ticket"} & set(route.answer.__annotations__), path


async def ask(
    client: Client, path: str, body: Any, key: str | None, url: str | None = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {client.me.access_token}"}
    if key is not None:
        headers["Idempotency-Key"] = key
    async with httpx.AsyncClient(
        base_url=url or client.server, trust_env=False, verify=False, timeout=ANSWER_S
    ) as http:
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
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            assert (await http.put(again["upload_url"], content=b"content")).is_success
        late = await ask(ann, "/v1/storage/upload-url", FILE, key)
        assert (late.status_code, late.json()["error"]["code"]) == (409, "UPLOAD_ARRIVED")
        await ann.call("POST", "/v1/storage/upload-complete", {"file_id": first["file_id"]})
        late = await ask(ann, "/v1/storage/upload-url", FILE, key)
        assert (late.status_code, late.json()["error"]["code"]) == (409, "UPLOAD_OVER")


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "k\u00e4"])
async def test_a_key_that_is_none(server: Server, key: str) -> None:
    async with people(server.url, "ann") as [ann], httpx.AsyncClient(trust_env=False) as http:
        headers = {"Authorization": f"Bearer {ann.me.access_token}", "Idempotency-Key": key.encode("latin-1")}
        answer = await http.post(f"{server.url}/v1/conversations", json=GROUP, headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 422
        assert answer.json()["error"]["details"] == {"field": "Idempotency-Key"}
        assert (await ann.call("GET", "/v1/conversations"))["conversations"] == []


async def test_the_document_tells_of_it(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
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
        key = new_id()

        async def send(url: str) -> None:
            """Asked again as clients do, where a node is too busy to answer."""
            with trio.fail_after(ANSWER_S):
                answer = await ask(ann, "/v1/conversations", GROUP, key, url)
                while answer.status_code in BUSY:
                    await trio.sleep(0.1)
                    answer = await ask(ann, "/v1/conversations", GROUP, key, url)
            answers.append(answer)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(send, nodes.nodes[number % 2].url)
        assert Counter(each.status_code for each in answers) == {201: 20}
        told = {each.json()["data"]["conversation_id"] for each in answers}
        listed = (await ann.call("GET", "/v1/conversations"))["conversations"]
        assert {each["conversation_id"] for each in listed} == told
        assert len(told) == 1
