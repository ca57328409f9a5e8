"""The first hour with the product, over real sockets."""

from __future__ import annotations

import pytest
import trio

from kit.fixtures import StartServer
from kit.http import plain
from kit.people import direct, next_event, people
from secureconnect.client import StreamEnded


async def test_two_people_meet_chat_and_find_everything_again(start_server: StartServer) -> None:
    server = start_server()
    async with people(server.url, "ann", "bob") as (ann, bob):
        [found] = await ann.search_users(bob.me.username)
        assert found["user_id"] == bob.me.user_id
        room = await direct(ann, bob)
        async with ann.stream() as at_ann, bob.stream(auth="ticket") as at_bob:
            await next_event(at_ann, "online")
            await next_event(at_bob, "online")
            stored = await at_ann.send(room, "hello bob")
            heard = await next_event(at_bob, "chat")
            assert (heard["content"], heard["seq"]) == ("hello bob", 1)
            assert heard["message_id"] == stored["message_id"]
            await at_bob.tell("typing", conversation_id=room, is_typing=True)
            await next_event(at_ann, "typing", user_id=bob.me.user_id)
            await at_bob.send(room, "hello ann")
            await next_event(at_ann, "chat", content="hello ann")
            await at_ann.edit(stored["message_id"], "hello Bob")
            assert (await next_event(at_bob, "message_edited"))["content"] == "hello Bob"

            await trio.to_thread.run_sync(server.restart)
            for stream in (at_ann, at_bob):
                await next_event(stream, "offline")
                await next_event(stream, "online", within_s=20)
            assert [one["content"] for one in await bob.history(room, 10)] == ["hello Bob", "hello ann"]
            await at_ann.send(room, "still here")
            assert (await next_event(at_bob, "chat"))["seq"] == 3

            await bob.logout()
            with pytest.raises(StreamEnded) as ended:
                await next_event(at_bob, "nothing")
            assert ended.value.code == 4401
        [one] = await ann.conversations()
        assert one["last_message"]["content"] == "still here"
        assert one["last_seq"] == 3


async def test_the_second_conversation_with_a_person_is_the_first(start_server: StartServer) -> None:
    server = start_server()
    async with people(server.url, "ann", "bob") as (ann, bob):
        assert await direct(ann, bob) == await direct(bob, ann)


async def test_a_token_is_renewed_on_the_open_socket(start_server: StartServer) -> None:
    server = start_server(AUTH__ACCESS_TTL_S="5", GATEWAY__WS_FRAMES_PER_10S="100000")
    async with people(server.url, "ann", "bob") as (ann, bob):
        room = await direct(ann, bob)
        first = ann.me.access_token
        async with ann.stream() as at_ann:
            await next_event(at_ann, "online")
            with trio.fail_after(20):
                while ann.me.access_token == first:
                    await at_ann.send(room, "tick")
            await at_ann.send(room, "renewed")
            assert at_ann.is_online
        async with plain(base_url=server.url) as bare:
            answer = await bare.get(
                "/v1/auth/profile", headers={"Authorization": f"Bearer {ann.me.access_token}"}
            )
        assert answer.status_code == 200
