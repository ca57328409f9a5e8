"""The client keeps its tokens fresh, and spends each refresh token once however many calls need it."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from kit.fixtures import StartServer
from kit.http import plain
from kit.people import PASSWORD, group, people, unique
from kit.wait import until
from secureconnect.client import ApiError, Client, Credentials

AWAY = str(Path(__file__).parent / "kit" / "launchers" / "database_away.py")


async def test_many_calls_with_an_expired_token_share_one_refresh(start_server: StartServer) -> None:
    server = start_server(AUTH__ACCESS_TTL_S="5")
    kept: list[Credentials | None] = []
    async with Client(server.url, on_credentials=kept.append) as client:
        name = unique("ann")
        await client.register(name, PASSWORD, f"{name}@example.org")
        stale = client.me.access_token
        client.credentials = replace(client.me, renew_at=client.me.expires_at + 3_600)

        async def has_expired() -> bool:
            async with plain() as bare:
                headers = {"Authorization": f"Bearer {stale}"}
                answer = await bare.get(f"{server.url}/v1/auth/profile", headers=headers)
            return answer.status_code == 401 and answer.json()["error"]["code"] == "TOKEN_EXPIRED"

        await until(has_expired, within_s=10)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client.profile)
        assert len(kept) == 2, "registered, refreshed once"
        assert kept[1] == client.me
        assert client.me.access_token != stale


async def test_where_there_is_no_other_the_token_that_should_be_renewed_is_used(
    start_server: StartServer,
) -> None:
    server = start_server([AWAY])
    async with people(server.url, "ann", "bob") as (ann, bob):
        room = await group(ann, bob)
        await ann.send_message(room, "hello", "first")
        server.signal(signal.SIGUSR1)
        await until(lambda: _is_served(bob, False))
        ann.credentials = replace(ann.me, renew_at=0)
        kept = ann.me
        assert [each["content"] for each in await ann.history(room, 10)] == ["hello"]
        assert ann.me == kept
        server.signal(signal.SIGUSR2)
        await until(lambda: _is_served(bob, True))
        assert await ann.profile()
        assert ann.me != kept


async def _is_served(client: Client, expected: bool) -> bool:
    try:
        await client.profile()
    except ApiError:
        return not expected
    return expected


async def test_what_is_kept_signs_in_again_and_logout_forgets_it(start_server: StartServer) -> None:
    server = start_server()
    kept: list[Credentials | None] = []
    async with Client(server.url, on_credentials=kept.append) as first:
        name = unique("ann")
        user = await first.register(name, PASSWORD, f"{name}@example.org")
        assert user is not None
    async with Client(server.url, kept[-1], on_credentials=kept.append) as second:
        assert (await second.profile())["user_id"] == user["user_id"]
        await second.logout()
        assert kept[-1] is None
        with pytest.raises(RuntimeError, match="sign in first"):
            await second.profile()
        with pytest.raises(ApiError) as refusal:
            await second.login(name, "not the password")
        assert (refusal.value.status, refusal.value.code) == (401, "INVALID_CREDENTIALS")
        assert refusal.value.request_id
