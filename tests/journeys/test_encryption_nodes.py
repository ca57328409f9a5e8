"""Keys and what devices send each other, over two nodes: each key is handed out once, and news of keys reach
those whom they concern, whichever node they are on and whether Redis is there or not."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import trio

from journeys.test_nodes import SEEN_S, online
from kit.cluster import cluster
from kit.http import plain
from kit.olm import SIGNED, Encrypting, Json, server_name
from kit.people import PASSWORD, group, next_event, people
from kit.postgres import PostgresServer
from kit.store import ObjectStore
from kit.wait import until
from secureconnect.client import Client, Stream
from secureconnect.identity import new_id

CLAIMS = 100
KEYS = 60
ANSWERED_S = 60.0
CLAIM = "/v1/e2ee/keys/claim"


async def befriend(one: Client, other: Client) -> None:
    await one.call("POST", f"/v1/users/{other.me.user_id}/friend")
    await other.call("POST", f"/v1/users/me/friends/{one.me.user_id}/accept")


def lists(*, changed: str | None = None, left: str | None = None) -> Json:
    return {"changed": [changed] if changed else [], "left": [left] if left else []}


async def first_of_keys(stream: Stream) -> Json:
    """The lists of the next event that has to do with keys."""
    with trio.fail_after(SEEN_S):
        async for event in stream:
            if event["type"] in ("key_changed", "e2ee"):
                told: Json = event["device_lists"]
                return told
    raise AssertionError("the stream ended")


async def test_news_of_keys_reach_whom_they_concern_on_every_node(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    async with (
        cluster(tmp_path, postgres_server, shared_store, balancer=None) as nodes,
        AsyncExitStack() as stack,
    ):
        a, b = nodes.nodes
        ann, eve = await stack.enter_async_context(people(a.url, "ann", "eve"))
        bob, carl = await stack.enter_async_context(people(b.url, "bob", "carl"))
        name = await server_name(ann)
        one, two, three = (Encrypting(client, name) for client in (ann, bob, carl))
        await group(ann, bob)
        for redis_is_there in (True, False):
            if not redis_is_there:
                await nodes.kill("redis")
                await nodes.all_see("redis", "down")
            async with online(ann, bob, carl, eve) as (at_ann, at_bob, at_carl, at_eve):
                await befriend(ann, carl)
                await next_event(
                    at_ann, "e2ee", within_s=SEEN_S, device_lists=lists(changed=three.device.name)
                )
                await next_event(
                    at_carl, "e2ee", within_s=SEEN_S, device_lists=lists(changed=one.device.name)
                )

                # a new device, of somebody in a conversation and of a friend, on the other node
                for person, client in ((two, bob), (three, carl)):
                    tablet = await stack.enter_async_context(Client(client.server))
                    await tablet.login(client.me.username, PASSWORD)
                    its = Encrypting(tablet, name)
                    await its.publish()
                    found = await next_event(
                        at_ann, "key_changed", within_s=SEEN_S, device_id=its.device.device_id
                    )
                    assert found["user_id"] == client.me.user_id
                    await next_event(
                        at_ann, "e2ee", within_s=SEEN_S, device_lists=lists(changed=person.device.name)
                    )
                    await tablet.logout()  # it is gone
                    await next_event(at_ann, "key_changed", within_s=SEEN_S, device_id=its.device.device_id)

                # a key is taken, and something sent, on one node; the device learns it on the other
                if redis_is_there:
                    await two.publish()
                left = (await two.sync())["one_time_key_counts"][SIGNED]
                assert await one.claim(two.device.name, bob.me.device_id) is not None
                await next_event(at_bob, "e2ee", within_s=SEEN_S, one_time_key_counts={SIGNED: left - 1})
                await one.send({two.device.name: {"*": {"n": redis_is_there}}})
                heard = await next_event(at_bob, "e2ee", within_s=SEEN_S)
                while not heard["to_device"]:
                    heard = await next_event(at_bob, "e2ee", within_s=SEEN_S)
                assert [each["content"] for each in heard["to_device"]] == [{"n": redis_is_there}]
                assert (await two.sync())["to_device"] == heard["to_device"]

                await ann.call("DELETE", f"/v1/users/me/friends/{carl.me.user_id}")
                await next_event(at_carl, "e2ee", within_s=SEEN_S, device_lists=lists(left=one.device.name))

                # of all that, a stranger has heard nothing: this is her first
                await befriend(bob, eve)
                assert await first_of_keys(at_eve) == lists(changed=two.device.name)
                await eve.call("DELETE", f"/v1/users/me/friends/{bob.me.user_id}")
                assert await first_of_keys(at_eve) == lists(left=two.device.name)


async def test_each_key_is_handed_out_once_over_two_processes(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    """All claims are made at once; who is told to come later asks again, as the same claim."""
    async with (
        cluster(tmp_path, postgres_server, shared_store, balancer=None, KEYS__CLAIMS="10000") as nodes,
        people(nodes.nodes[0].url, "ann", "bob") as (ann, bob),
    ):
        await group(ann, bob)
        device = Encrypting(bob, await server_name(ann))
        await device.publish(KEYS)
        body = {"one_time_keys": {device.device.name: {bob.me.device_id: SIGNED}}}
        given: list[Json] = []

        async def claim(http: httpx.AsyncClient) -> None:
            headers = {"Authorization": f"Bearer {ann.me.access_token}", "Idempotency-Key": new_id()}
            answers: list[Json] = []

            async def is_answered() -> bool:
                answer = await http.post(CLAIM, json=body, headers=headers)
                if answer.status_code != 503:
                    answers.append(answer.json()["data"]["one_time_keys"])
                return answer.status_code != 503

            for _ in range(2):
                await until(is_answered, ANSWERED_S)
            assert answers[0] == answers[1]
            given.extend(answers[0][device.device.name][bob.me.device_id].values())

        async with AsyncExitStack() as stack:
            https = [
                await stack.enter_async_context(plain(base_url=node.url, timeout=30)) for node in nodes.nodes
            ]
            async with trio.open_nursery() as nursery:
                for number in range(CLAIMS):
                    nursery.start_soon(claim, https[number % 2])
        once = [each["key"] for each in given if "fallback" not in each]
        assert (len(given), len(once), len(set(once))) == (CLAIMS, KEYS, KEYS)
        assert (await device.sync())["one_time_key_counts"] == {SIGNED: 0}
