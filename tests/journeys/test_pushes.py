"""Somebody puts the phone away, is woken, and is not once they have signed out."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.fixtures import StartServer
from kit.http import plain
from kit.people import PASSWORD, direct, group, next_event, people
from kit.pushservice import SEND_PATH, Browser, Google, push_service, vapid_claims
from kit.wait import until
from secureconnect.client import ApiError, Client
from secureconnect.identity import new_id

DEVICES = "/v1/notifications/devices"
HASTY = {"PUSH__DELAY_S": "0", "PUSH__POLL_S": "0.05", "CHAT__NOTIFY_PASS_S": "0.05"}


async def test_a_phone_that_is_put_away_is_woken(start_server: StartServer, tmp_path: Path) -> None:
    async with push_service(tmp_path) as service:
        google = Google(service)
        server = start_server(
            **HASTY,
            CHAT__OFFLINE_GRACE_S="0",
            PUSH__ALLOW_PRIVATE="true",
            PUSH__CA_FILE=str(service.ca_file),
            PUSH__CONTACT="mailto:root@chat.example.org",
            PUSH__FCM_ACCOUNT=google.write_account(tmp_path / "account.json"),
            PUSH__FCM_URL=service.origin,
        )
        async with people(server.url, "ann", "bob") as (ann, bob), Client(server.url) as phone:
            said = await bob.call("GET", "/v1/server", signed=False)
            browser = Browser(f"{service.origin}/bob")
            for wrong, field in (
                ({"service": "fcm"}, "token"),
                ({"service": "webpush"}, "endpoint"),
                (browser.subscription | {"endpoint": "http://127.0.0.1/"}, "endpoint"),
                (browser.subscription | {"endpoint": f"{browser.endpoint}\n"}, "endpoint"),
                ({"service": "fcm", "token": "a-token\n"}, "token"),
                (browser.subscription | {"p256dh": "+/+/"}, "p256dh"),
                (browser.subscription | {"auth": "AAAA"}, "auth"),
                (browser.subscription | {"service": "pigeon"}, "service"),
            ):
                with pytest.raises(ApiError) as refused:
                    await bob.call("POST", DEVICES, wrong)
                assert (refused.value.status, refused.value.details) == (422, {"field": field})
            await bob.call("POST", DEVICES, browser.subscription)
            await phone.login(bob.me.username, PASSWORD)
            await phone.call("POST", DEVICES, {"service": "fcm", "token": "a-token"})
            room = await direct(ann, bob)
            async with bob.stream() as screen:
                await next_event(screen, "online")
                await ann.send_message(room, "are you there?", new_id())
                told = await next_event(screen, "notification")
                await bob.call("POST", f"/v1/conversations/{room}/read", {"seq": 1})
            assert told["kind"] == "message"
            assert service.at("/bob") == service.at(SEND_PATH) == []
            await ann.send_message(room, "a secret", new_id())
            pushed = await service.wait_for("/bob")
            opened = browser.open(pushed.body)
            assert opened["conversation_id"] == room
            claims = vapid_claims(pushed, said["vapid_public_key"], service.origin)
            assert claims["sub"] == "mailto:root@chat.example.org"
            assert b"a secret" not in (await service.wait_for(SEND_PATH)).body
            [listed, _] = (await bob.call("GET", "/v1/notifications"))["notifications"]
            assert listed["notification_id"] == opened["notification_id"]
            await phone.call("POST", "/v1/auth/logout")
            await bob.call("POST", "/v1/notifications/read-all", {})
            await ann.send_message(room, "still there?", new_id())
            await service.wait_for("/bob", 2)

            async def is_over() -> bool:
                async with plain(base_url=server.url) as http:
                    counted = (await http.get("/metrics")).text
                return 'secureconnect_pushes_total{result="sent"} 3.0' in counted

            await until(is_over)
            assert len(service.at(SEND_PATH)) == 1
            room = await group(bob, ann)
            wanted = {"notify": "all"}
            chosen = f"/v1/conversations/{room}/notifications"
            assert await bob.call("PUT", chosen, wanted) == await bob.call("GET", chosen) == wanted
            said = await ann.send_message(room, "hello all", new_id())
            pushed = await service.wait_for("/bob", 3)
            assert browser.open(pushed.body)["message_id"] == said["message_id"]
