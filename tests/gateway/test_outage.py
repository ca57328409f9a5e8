"""What the gate and the sockets do while the authenticator has no database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import trio

from kit.wait import until
from secureconnect.clock import SECOND_US, now_us
from secureconnect.identity import SessionId, UserId

from .house import UPGRADE, House, open_house, principal
from .test_sockets import close_code

ANN = {"authorization": "Bearer ann"}
AWAY, BACK = (3_600 * SECOND_US, False), (30 * SECOND_US, True)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with open_house(ws_ping_s=0.1) as house:  # looked at twenty times a second
        yield house


async def looked_at(house: House) -> None:
    """By the watch, again and again."""
    looks = house.tokens.looks
    await until(lambda: house.tokens.looks > looks + 2)


async def test_routes_say_whether_they_are_served_without_it(house: House) -> None:
    house.tokens.away = AWAY
    assert (await house.ask("GET", "/v1/lasting", ANN)).status == 200
    refused = await house.ask("GET", "/v1/mine", ANN)
    assert (refused.status, refused.code) == (503, "UNAVAILABLE")
    assert int(refused.headers["retry-after"]) > 0
    house.tokens.away = None
    assert (await house.ask("GET", "/v1/mine", ANN)).status == 200


async def test_sockets_say_so_too_and_the_subprotocol_carries_the_token(house: House) -> None:
    house.tokens.away = AWAY
    by_protocol = {"sec-websocket-protocol": "secureconnect.v1, bearer.ann"}
    for headers in (ANN, by_protocol):
        refused = await house.ask("GET", "/v1/ws/echo", {**UPGRADE, **headers})
        assert (refused.status, refused.code) == (503, "UNAVAILABLE")
    for token, offered in (("ann", []), (None, ["secureconnect.v1", "bearer.ann"])):
        client = await house.socket("/v1/ws/lasting", token=token, subprotocols=offered)
        await client.send_message("hello")
        assert await client.get_message() == "hello"
        assert client.subprotocol == (offered[0] if offered else None)


async def test_a_socket_outlives_its_token_in_silence_and_is_told_when_it_can_renew(house: House) -> None:
    house.tokens.people["ann"] = principal("ann", expires_in_s=0.2)
    house.tokens.away = AWAY
    client = await house.socket("/v1/ws/lasting")
    await until(lambda: house.room.sockets != [] and now_us() > house.room.sockets[0].principal.expires_us)
    await looked_at(house)
    await client.send_message("the first thing to be heard")
    assert await client.get_message() == "the first thing to be heard"
    house.tokens.away = BACK
    with trio.fail_after(5):
        assert json.loads(await client.get_message()) == {"type": "token_expiring", "in_s": 30}
    await looked_at(house)
    await client.send_message("told once")
    assert await client.get_message() == "told once"
    house.room.sockets[0].renew(principal("ann"))
    house.tokens.away = None
    await client.send_message("still here")
    assert await client.get_message() == "still here"


async def test_a_socket_is_closed_when_the_grace_ends(house: House) -> None:
    house.tokens.people["ann"] = principal("ann", expires_in_s=0.2)
    house.tokens.away = AWAY
    client = await house.socket("/v1/ws/lasting")
    await looked_at(house)
    house.tokens.away = (0, False)
    assert await close_code(client) == 4401


async def test_people_who_have_signed_out_are_closed_and_nobody_else(house: House) -> None:
    ann, bob = await house.socket(token="ann"), await house.socket(token="bob")
    await until(lambda: len(house.room.sockets) == 2)
    house.tokens.ended.add(SessionId("session-ann"))
    house.tokens.ended.add(SessionId("session-bob"))
    house.gateway.close_people(frozenset({UserId("user-ann"), UserId("user-cid")}))
    assert await close_code(ann) == 4401
    house.tokens.ended.clear()
    house.gateway.close_people(frozenset({UserId("user-bob")}))
    await bob.send_message("still here")
    assert await bob.get_message() == "still here"
