"""End to end: what people write is read by their devices alone, and lies nowhere in the clear."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import vodozemac as olm

from kit.fixtures import StartServer
from kit.olm import SIGNED, Encrypting, server_name
from kit.people import PASSWORD, group, next_event, people
from kit.wait import until
from kit.whereabouts import LOG, whereabouts
from secureconnect.client import Client
from secureconnect.deps.policy import JOURNAL
from secureconnect.identity import new_id

SECRET = "the-quickest-brownish-fox-meets-at-nine"
OPEN = "this-everybody-may-read"
AWAY = str(Path(__file__).parent.parent / "kit" / "launchers" / "database_away.py")
RECORDS = "secureconnect_journal_records"


def words(text: str) -> list[str]:
    """It, and what an index would make of it."""
    return [text, *(word for word in text.split("-") if len(word) > 5)]


async def another_device(stack: AsyncExitStack, client: Client) -> Client:
    made = await stack.enter_async_context(Client(client.server))
    await made.login(client.me.username, PASSWORD)
    return made


async def sealed_group(owner: Client, *others: Client) -> str:
    """The id of a group in which only sealed messages are taken."""
    members = [other.me.user_id for other in others]
    made = {"type": "group", "title": "sealed", "participant_ids": members, "is_e2ee_enabled": True}
    return str((await owner.call("POST", "/v1/conversations", made))["conversation_id"])


async def test_what_is_written_without_the_database_lies_sealed_too(start_server: StartServer) -> None:
    server = start_server([AWAY], LOG__LEVEL="debug")
    async with people(server.url, "ann", "bob") as (ann, bob):
        rooms = [await sealed_group(ann, bob), await group(ann, bob)]
        session, journal = olm.GroupSession(), server.data_dir / JOURNAL
        async with ann.stream() as stream:
            await next_event(stream, "online")
            for is_away in (False, True):
                if is_away:
                    server.signal(signal.SIGUSR1)
                    assert await server.metric(RECORDS) == 0
                for room, text in zip(rooms, (SECRET, OPEN), strict=True):
                    is_sealed = text == SECRET
                    sent = session.encrypt(text.encode()).to_base64() if is_sealed else text
                    body = {"conversation_id": room, "content": sent, "is_encrypted": is_sealed}
                    status = (await ann.reply("POST", "/v1/messages", body)).status_code
                    assert status == (202 if is_away else 201)
                    assert (sent.encode() in journal.read_bytes()) is is_away
                    assert SECRET.encode() not in journal.read_bytes()
            server.signal(signal.SIGUSR2)
            await until(lambda: OPEN.encode() not in journal.read_bytes())
        assert await whereabouts(server, OPEN) >= {"messages"}
        for word in words(SECRET):
            assert await whereabouts(server, word) == set(), word


async def test_two_people_and_four_devices(start_server: StartServer) -> None:
    server = start_server(LOG__LEVEL="debug")
    async with AsyncExitStack() as stack:
        ann, bob = await stack.enter_async_context(people(server.url, "ann", "bob"))
        name = await server_name(ann)
        clients = [ann, await another_device(stack, ann), bob, await another_device(stack, bob)]
        room = await sealed_group(ann, bob)
        devices = [Encrypting(client, name) for client in clients]
        phone, tablet, theirs, laptop = devices
        for each in devices:
            await each.publish()
        everybody = [phone.device.name, theirs.device.name]
        async with clients[3].stream() as stream:
            await next_event(stream, "online")
            known = await phone.query(*everybody)
            assert {device for found in known.values() for device in found} == {
                each.client.me.device_id for each in devices
            }
            others = [
                keys
                for found in known.values()
                for device, keys in found.items()
                if device != phone.client.me.device_id
            ]
            session = olm.GroupSession()
            shared_key = session.session_key.to_base64()[:60]
            await phone.share(session, others)
            told = await next_event(stream, "e2ee")
            while not told["to_device"]:
                told = await next_event(stream, "e2ee")
            assert told["one_time_key_counts"] == {SIGNED: 4}
            laptop.take(dict(told))
            encrypted = {"client_message_id": new_id(), "is_encrypted": True}
            sealed = session.encrypt(SECRET.encode()).to_base64()
            await ann.call("POST", "/v1/messages", {**encrypted, "conversation_id": room, "content": sealed})
            heard = await next_event(stream, "chat", content=sealed)
            assert laptop.read(session.session_id, heard["content"]) == SECRET
            for each in (tablet, theirs):
                each.take(await each.sync())
                message = (await each.client.messages(room))[-1]
                assert each.read(session.session_id, message["content"]) == SECRET

            # bob signs out on one of his devices: who encrypts for him learns it, and begins a new session
            await theirs.client.logout()
            gone = await next_event(stream, "key_changed", device_id=theirs.device.device_id)
            assert gone["user_id"] == laptop.client.me.user_id
        known = await phone.query(*everybody)
        assert list(known[theirs.device.name]) == [laptop.device.device_id]
        rotated = olm.GroupSession()
        await phone.share(rotated, [known[laptop.device.name][laptop.device.device_id]])
        laptop.take(await laptop.sync())
        sealed = rotated.encrypt(SECRET.encode()).to_base64()
        assert laptop.read(rotated.session_id, sealed) == SECRET
        assert rotated.session_id not in theirs.groups
        again = {"client_message_id": new_id(), "is_encrypted": True, "content": sealed}
        await ann.call("POST", "/v1/messages", {**again, "conversation_id": room})

        # what lies on the server: the same search finds what was written without a seal
        written = {"conversation_id": await group(ann, laptop.client), "content": OPEN}
        await ann.call("POST", "/v1/messages", written)
        lies = await whereabouts(server, OPEN)
        assert {"messages"} <= lies
        assert all(name == "messages" or name.startswith("secureconnect.db") for name in lies), lies
        assert LOG in await whereabouts(server, str(server.port))
        assert "messages" in await whereabouts(server, sealed)
        assert LOG not in await whereabouts(server, sealed[:40])
        for word in (*words(SECRET), shared_key):
            assert await whereabouts(server, word) == set(), word


async def test_fallbacks_serve_and_forgeries_do_not(start_server: StartServer) -> None:
    """A forgery: should the server itself put another key in the place of one."""
    server = start_server()
    async with people(server.url, "ann", "bob", "carl") as (ann, bob, carl):
        name = await server_name(ann)
        room = await group(ann, bob, carl)
        one, two, three = (Encrypting(client, name) for client in (ann, bob, carl))
        await two.publish(one_time_keys=1)
        keys = (await one.query(two.device.name))[two.device.name][bob.me.device_id]
        for number, sender in enumerate((one, three)):
            claimed = await sender.claim(two.device.name, bob.me.device_id)
            assert claimed is not None
            assert ("fallback" in claimed[1]) == bool(number)
            forged = claimed[1] | {"key": olm.Account().curve25519_key.to_base64()}
            with pytest.raises(olm.SignatureException):
                sender.device.encrypt_for(keys, forged, {})
            sealed = sender.device.encrypt_for(keys, claimed[1], {"from": number})
            await sender.publish()
            await sender.send({two.device.name: {bob.me.device_id: sealed}})
        told = await two.sync()
        assert [two.device.decrypt(each["content"]) for each in told["to_device"]] == [
            {"from": 0},
            {"from": 1},
        ]
        assert told["unused_fallback_keys"] == []
        assert told["one_time_key_counts"] == {SIGNED: 0}

        # one is removed: the others learn it, and so does who comes back later
        since = (await one.sync())["next_since"]
        async with bob.stream() as stream:
            await next_event(stream, "online")
            await ann.call("DELETE", f"/v1/conversations/{room}/participants/{carl.me.user_id}")
            gone = await next_event(stream, "key_changed", user_id=carl.me.user_id)
            assert gone["device_id"] is None
            lists = {"changed": [], "left": [three.device.name]}
            await next_event(stream, "e2ee", device_lists=lists)  # news of what came before may be under way
        later = await ann.call("GET", "/v1/e2ee/sync", query={"since": since})
        assert three.device.name in later["device_lists"]["left"]
        assert await one.query(three.device.name) == {}
