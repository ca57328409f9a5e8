"""What goes to push services: sealed, signed, to public addresses alone; and what their answers mean."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kit.pushservice import (
    SEND_PATH,
    TOKEN_PATH,
    Browser,
    Google,
    PushService,
    Says,
    push_service,
    vapid_claims,
)
from kit.wait import until
from secureconnect.config import BreakerConfig, Config, PushConfig
from secureconnect.deps.contracts import Deferred, FcmTarget, Push, Undeliverable, Unregistered, WebPushTarget
from secureconnect.deps.guard import Guard
from secureconnect.deps.policy import open_deps
from secureconnect.deps.public import is_public
from secureconnect.deps.push import PushServices, SilentPusher, origin_of
from secureconnect.deps.webpush import encrypt
from secureconnect.settings import BadSetting

CONTACT = "mailto:root@chat.example.org"
DATA = {"notification_id": "n", "kind": "message", "conversation_id": "c"}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[PushService]:
    async with push_service(tmp_path) as service:
        yield service


@asynccontextmanager
async def pushing(service: PushService, **settings: Any) -> AsyncIterator[tuple[PushServices, Guard, str]]:
    """And what shows how it is, and the key that browsers are told."""
    config = replace(PushConfig(allow_private=True, ca_file=str(service.ca_file)), **settings)
    guard = Guard("push", BreakerConfig())
    pusher = PushServices(config, CONTACT, guard)
    public_key = pusher.identify(pusher.new_key())
    try:
        yield pusher, guard, public_key
    finally:
        await pusher.close()


def push_to(target: Browser | FcmTarget, **more: Any) -> Push:
    if isinstance(target, Browser):
        return Push(WebPushTarget(target.endpoint, *target.keys), DATA, "a-topic", True, 60, **more)
    return Push(target, DATA, "a-topic", True, 60, **more)


def test_the_example_of_the_standard() -> None:
    """RFC 8291, appendix A."""

    def raw(text: str) -> bytes:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    sealed = encrypt(
        b"When I grow up, I want to be a watermelon",
        raw("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"),
        raw("BTBZMqHH6r4Tts7J_aSIgg"),
        padded_bytes=0,
        salt=raw("DGv6ra1nlYgDCS1FRnbzlw"),
        key=ec.derive_private_key(
            int.from_bytes(raw("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"), "big"), ec.SECP256R1()
        ),
    )
    assert sealed == raw(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6Tlz"
        "AC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )


async def test_a_browser_opens_what_is_pushed_and_knows_who_sent_it(service: PushService) -> None:
    browser = Browser(f"{service.origin}/a")
    async with pushing(service) as (pusher, guard, public_key):
        await pusher.send(push_to(browser))
        await pusher.send(Push(push_to(browser).target, DATA | {"kind": "added"}, "b-topic", False, 5))
        first, second = service.at("/a")
        assert guard.is_up
    assert browser.open(first.body) == DATA
    assert len(first.body) == len(second.body), "its length tells nothing"
    told = {name: first.headers[name] for name in ("content-encoding", "ttl", "topic", "urgency")}
    assert told == {"content-encoding": "aes128gcm", "ttl": "60", "topic": "a-topic", "urgency": "high"}
    assert second.headers["urgency"] == "normal"
    assert vapid_claims(first, public_key, service.origin)["sub"] == CONTACT


async def test_google_is_told_who_asks_once(service: PushService, tmp_path: Path) -> None:
    google = Google(service)
    account = google.write_account(tmp_path / "account.json")
    async with pushing(service, fcm_account=account, fcm_url=service.origin) as (pusher, _, _):
        for _ in range(2):
            await pusher.send(push_to(FcmTarget("a-token")))
        [asked] = service.at(TOKEN_PATH)
        form = parse_qs(asked.body.decode())
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        claims = google.claims(form["assertion"][0])
        assert claims["iss"] == "push@a-project.example"
        assert claims["scope"] == "https://www.googleapis.com/auth/firebase.messaging"
        sent, _ = service.at(SEND_PATH)
        assert sent.headers["authorization"] == "Bearer granted"
        message = json.loads(sent.body)["message"]
        assert (message["token"], message["data"]) == ("a-token", DATA)
        assert message["android"] == {"priority": "high", "ttl": "60s", "collapse_key": "a-topic"}
        service.said[SEND_PATH] = Says(401)
        with pytest.raises(Deferred):
            await pusher.send(push_to(FcmTarget("a-token")))
        unregistered = {"error": {"status": "NOT_FOUND", "details": [{"errorCode": "UNREGISTERED"}]}}
        service.said[SEND_PATH] = Says(404, body=json.dumps(unregistered).encode())
        with pytest.raises(Unregistered):
            await pusher.send(push_to(FcmTarget("a-token")))
        assert len(service.at(TOKEN_PATH)) == 2, "a token that is not taken is not used again"
        service.said[SEND_PATH] = Says(400, body=b"no JSON")
        with pytest.raises(Undeliverable):
            await pusher.send(push_to(FcmTarget("a-token")))
        assert pusher.flaw(FcmTarget("a-token")) is None
    async with pushing(service) as (pusher, _, _):
        assert pusher.flaw(FcmTarget("a-token")) == "service"


async def test_what_is_ours_to_mend_costs_no_token(service: PushService, tmp_path: Path) -> None:
    google = Google(service)
    account = google.write_account(tmp_path / "account.json")
    wrong = {"error": {"details": [{"fieldViolations": [{"field": "message.token"}]}]}}
    for says, raised in (
        (Says(400, body=json.dumps(wrong).encode()), Unregistered),
        (Says(403, body=b'{"error": {"status": "PERMISSION_DENIED"}}'), Deferred),
        (Says(404, body=b"<html>"), Deferred),
    ):
        async with pushing(service, fcm_account=account, fcm_url=service.origin) as (pusher, guard, _):
            service.said[SEND_PATH] = says
            with pytest.raises(raised):
                await pusher.send(push_to(FcmTarget("a-token")))
            assert guard.is_up == (raised is Unregistered)


@pytest.mark.parametrize(
    ("says", "raised", "after_s"),
    [
        (Says(404), Unregistered, 0),
        (Says(410), Unregistered, 0),
        (Says(413), Undeliverable, 0),
        (Says(403), Undeliverable, 0),
        (Says(302, {"location": "/elsewhere"}), Undeliverable, 0),
        (Says(429, {"retry-after": "7"}), Deferred, 7),
        (Says(503, {"retry-after": "70"}), Deferred, 70),
        (Says(503, {"retry-after": "soon"}), Deferred, 0),
        (Says(503, {"retry-after": "Mon, 05 Jan 2026 00:00:00 +99999999999999999999"}), Deferred, 0),
        (Says(429, {"retry-after": "999999999"}), Deferred, 86_400),
        (Says(429, {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}), Deferred, 86_400),
        (Says(500), Deferred, 0),
        (Says(raw=b"\x00\x01 not HTTP\r\n\r\n"), Deferred, 0),
        (Says(201, body=bytes(1_000_000)), None, 0),
    ],
)
async def test_what_an_answer_means(
    service: PushService, says: Says, raised: type[Exception] | None, after_s: float
) -> None:
    service.said["/a"] = says
    async with pushing(service) as (pusher, guard, _):
        if raised is None:
            await pusher.send(push_to(Browser(f"{service.origin}/a")))
        else:
            with pytest.raises(raised) as told:
                await pusher.send(push_to(Browser(f"{service.origin}/a")))
            if isinstance(told.value, Deferred):
                assert told.value.retry_after_s == after_s
        assert guard.is_up == (says.status < 500 and not says.raw)
    assert service.at("/elsewhere") == []


async def test_one_that_is_frozen_is_left_alone_and_holds_up_no_other(
    service: PushService, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    async with push_service(folder) as other:
        both = tmp_path / "both.pem"
        both.write_bytes(service.ca_file.read_bytes() + other.ca_file.read_bytes())
        service.said["/a"] = Says(freeze=True)
        async with pushing(service, ca_file=str(both), call_s=0.3, first_pause_s=60.0) as (pusher, guard, _):
            with pytest.raises(Deferred):
                await pusher.send(push_to(Browser(f"{service.origin}/a")))
            assert not guard.is_up, "of all that are known"
            with pytest.raises(Deferred) as told:
                await pusher.send(push_to(Browser(f"{service.origin}/a")))
            assert told.value.retry_after_s > 50
            assert len(service.at("/a")) == 1
            await pusher.send(push_to(Browser(f"{other.origin}/b")))
            assert guard.is_up


async def test_after_a_pause_that_doubles_one_push_tries_it(service: PushService) -> None:
    browser = Browser(f"{service.origin}/a")
    way = service.origin
    service.said["/a"] = Says(503)
    async with pushing(service, first_pause_s=0.1, senders_each=5) as (pusher, _, _):
        assert pusher.room_for(way) == 5
        for pause_s in (0.1, 0.2):
            with pytest.raises(Deferred):
                await pusher.send(push_to(browser))
            with pytest.raises(Deferred) as told:
                await pusher.send(push_to(browser))
            assert pause_s * 0.5 < told.value.retry_after_s <= pause_s
            assert pusher.room_for(way) == 0
            await until(lambda: pusher.room_for(way) == 1)
            pusher.forget_once()
        assert len(service.at("/a")) == 2
        service.said["/a"] = Says(201)
        await pusher.send(push_to(browser))
        assert pusher.room_for(way) == 5


@pytest.mark.parametrize(
    ("endpoint", "origin"),
    [
        ("https://Push.Example.org:443/a?b", "https://push.example.org"),
        ("https://push.example.org:8443", "https://push.example.org:8443"),
        ("https://[2606:4700::1111]:8443/a", "https://[2606:4700::1111]:8443"),
    ],
)
def test_an_origin_is_written_in_one_way(endpoint: str, origin: str) -> None:
    assert origin_of(endpoint) == origin


async def test_it_is_there_again_once_it_could_be_asked(service: PushService) -> None:
    service.said["/a"] = Says(503)
    async with pushing(service, first_pause_s=0.05) as (pusher, guard, _):
        with pytest.raises(Deferred):
            await pusher.send(push_to(Browser(f"{service.origin}/a")))
        assert guard.status().status == "down"

        def is_up() -> bool:
            pusher.forget_once()
            return guard.status().status == "up"

        await until(is_up)


async def test_nothing_is_sent_next_door(service: PushService) -> None:
    """Neither by an address nor by a name that has one."""
    async with pushing(service, allow_private=False) as (pusher, _, _):
        for endpoint in (f"{service.origin}/a", f"https://localhost:{service.port}/a"):
            with pytest.raises(Undeliverable):
                await pusher.send(push_to(Browser(endpoint)))
    assert service.received == []


@pytest.mark.parametrize("allow_private", [False, True])
async def test_nor_to_what_can_be_no_name(service: PushService, allow_private: bool) -> None:
    async with pushing(service, allow_private=allow_private) as (pusher, _, _):
        for host in ("a..b", f"{'a' * 64}.example.org", "localhost."):
            with pytest.raises((Undeliverable, Deferred)):
                await pusher.send(push_to(Browser(f"https://{host}:{service.port}/a")))


async def test_nor_to_whom_nobody_vouches_for(service: PushService) -> None:
    async with pushing(service, ca_file="") as (pusher, _, _):
        with pytest.raises(Deferred):
            await pusher.send(push_to(Browser(f"{service.origin}/a")))
    assert service.received == []


@pytest.mark.parametrize(
    ("endpoint", "flaw"),
    [
        ("https://push.example.org/a", None),
        ("https://push.example.org:8443/a?b=c", None),
        ("https://8.8.8.8/a", None),
        ("http://push.example.org/a", "endpoint"),
        ("https://user:word@push.example.org/a", "endpoint"),
        ("https://push.example.org/a#b", "endpoint"),
        ("https:///a", "endpoint"),
        ("https://push.example.org:0/a", "endpoint"),
        ("https://push.example.org:x/a", "endpoint"),
        ("https://127.0.0.1/a", "endpoint"),
        ("https://10.1.2.3/a", "endpoint"),
        ("https://[::1]/a", "endpoint"),
        ("https://[::ffff:127.0.0.1]/a", "endpoint"),
        ("https://2130706433/a", "endpoint"),
    ],
)
async def test_what_can_be_registered(service: PushService, endpoint: str, flaw: str | None) -> None:
    async with pushing(service, allow_private=False) as (pusher, _, _):
        point, auth = Browser(endpoint).keys
        assert pusher.flaw(WebPushTarget(endpoint, point, auth)) == flaw
        if flaw is None:
            assert pusher.flaw(WebPushTarget(endpoint, b"\4" + bytes(64), auth)) == "p256dh"
            assert pusher.flaw(WebPushTarget(endpoint, point, auth[1:])) == "auth"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("ff02::1", False),
        ("fec0::1", False),
        ("192.0.0.8", False),
        ("::127.0.0.1", False),
        ("64:ff9b:1::a00:1", False),
        ("::ffff:0:7f00:1", False),
        ("no address", False),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public


async def test_who_pushes_nothing_takes_nobody(tmp_path: Path) -> None:
    config = Config(data_dir=str(tmp_path / "data"), push=PushConfig(enabled=False))
    async with open_deps(config) as deps:
        assert isinstance(deps.pusher, SilentPusher)
        assert [each.kind for each in deps.status() if each.name == "push"] == ["none"]
        target = WebPushTarget("https://push.example.org/a", *Browser("").keys)
        assert deps.pusher.flaw(target) == "service"
        with pytest.raises(Undeliverable):
            await deps.pusher.send(Push(target, DATA, "a", True, 60))


async def test_settings_that_cannot_be_used_end_the_start(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"project_id": "a"}')
    for push in (
        PushConfig(fcm_account=str(tmp_path / "nowhere.json")),
        PushConfig(fcm_account=str(broken)),
        PushConfig(ca_file=str(tmp_path / "nowhere.pem")),
        PushConfig(ca_file=str(broken)),
    ):
        with pytest.raises(BadSetting):
            async with open_deps(Config(data_dir=str(tmp_path / "data"), push=push)):
                pass
