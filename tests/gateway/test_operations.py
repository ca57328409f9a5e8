"""Health, metrics, the document and its page; and how the gateway goes away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed

from kit.wait import until
from secureconnect.edge import Frame
from secureconnect.errors import TABLE
from secureconnect.gateway import openapi
from secureconnect.metrics import REGISTRY

from .house import ROUTES, House, open_house
from .test_sockets import never_reading, upgrade


async def test_health(house: House) -> None:
    response = await house.ask("GET", "/health")
    said = response.json
    assert (response.status, said["status"], said["service"]) == (200, "healthy", "secureconnect")
    assert said["modules"] == {"gateway": "healthy", "chat": "healthy", "auth": "healthy"}
    assert said["dependencies"]["postgres"]["status"] == "up"
    assert set(said["dependencies"]["postgres"]) == {"status", "kind", "breaker", "since", "last_error"}
    assert said["between_nodes"] is None, "it is alone"
    assert said["version"]
    assert said["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("module", "service"), [("chat", "chat-service"), ("auth", "auth-service"), ("gateway", "api-gateway")]
)
async def test_health_of_a_module(house: House, module: str, service: str) -> None:
    response = await house.ask("GET", f"/health/{module}")
    assert response.status == 200
    assert set(response.json) == {"status", "service", "timestamp"}
    assert (response.json["status"], response.json["service"]) == ("healthy", service)
    assert (await house.ask("GET", "/health/attic")).status == 404


async def test_alive_and_ready(house: House) -> None:
    assert (await house.ask("GET", "/livez")).status == 200
    assert (await house.ask("GET", "/readyz")).status == 200
    assert house.gateway.ready


async def test_a_crashed_room_shows(house: House) -> None:
    assert "secureconnect_ready 1.0" in (await house.ask("GET", "/metrics")).body.decode()
    house.room.crash.set()
    await until(lambda: house.rooms["chat"].state == "restarting")
    assert (await house.ask("GET", "/readyz")).status == 503
    assert "secureconnect_ready 0.0" in (await house.ask("GET", "/metrics")).body.decode()
    assert (await house.ask("GET", "/livez")).status == 200
    assert (await house.ask("GET", "/health/chat")).status == 503
    health = await house.ask("GET", "/health")
    assert (health.status, health.json["status"]) == (200, "degraded")
    assert health.json["modules"]["chat"] == "unhealthy"


async def test_metrics(house: House) -> None:
    def answered(route: str, status: int, method: str = "GET") -> float:
        labels = {"service": "chat-service", "method": method, "route": route, "status": str(status)}
        return REGISTRY.get_sample_value("http_requests_total", labels) or 0.0

    before = answered("/v1/mine", 401)
    await house.ask("GET", "/v1/mine")
    assert answered("/v1/mine", 401) == before + 1
    opened, refused = answered("/v1/ws/echo", 101), answered("/v1/ws/echo", 401)
    await house.socket()
    await upgrade(house, "/v1/ws/echo", {"authorization": ""})
    await until(lambda: answered("/v1/ws/echo", 401) == refused + 1)
    assert answered("/v1/ws/echo", 101) == opened + 1
    await house.ask("PROPFIND", "/v1/a/b/c")
    text = (await house.ask("GET", "/metrics")).body.decode()
    assert 'http_requests_total{method="OTHER",route="unmatched",service="api-gateway",status="404"}' in text
    assert "/v1/a/b/c" not in text
    assert "http_requests_in_flight 1.0" in text
    assert 'http_request_duration_seconds_bucket{le="0.005",method="GET",route="/v1/mine"' in text


async def test_metrics_are_for_private_addresses() -> None:
    async with open_house(trusted_proxies=("127.0.0.1",)) as house:
        for address, status in (("9.9.9.9", 403), ("2620:fe::fe", 403), ("10.1.2.3", 200), ("fd00::1", 200)):
            response = await house.ask("GET", "/metrics", {"x-forwarded-for": address})
            assert response.status == status
    async with open_house() as house:
        # through a proxy nobody told us of, every client looks private
        assert (await house.ask("GET", "/metrics", {"x-forwarded-for": "203.0.113.9"})).status == 403
    async with open_house(trusted_proxies=("127.0.0.1",), metrics_from="any") as house:
        assert (await house.ask("GET", "/metrics", {"x-forwarded-for": "203.0.113.9"})).status == 200


async def test_what_this_server_is(house: House) -> None:
    said = (await house.ask("GET", "/v1/server")).json["data"]
    assert said["server_name"] == "server.test"
    assert said["registration"] == "open"
    assert said["limits"]["message_chars"] == 10_000
    assert set(said) == {
        "version",
        "server_name",
        "registration",
        "features",
        "limits",
        "e2ee_default_direct",
        "vapid_public_key",
        "sends_mail",
    }


# the document


def _refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from _refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from _refs(value)


async def test_the_document(house: House) -> None:
    document = (await house.ask("GET", "/openapi.json")).json
    assert document["openapi"].startswith("3.1")
    for ref in _refs(document):
        target = document
        for part in ref.removeprefix("#/").split("/"):
            target = target[part]
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) == len(ROUTES) + 2  # the other room's, and /v1/server
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    assert "/v1/ws/echo" not in document["paths"]
    mine = document["paths"]["/v1/mine"]
    assert mine["get"]["security"] == [{"bearer": []}]
    assert mine["get"]["tags"] == ["mine"]
    assert [each["name"] for each in mine["get"]["parameters"]] == ["limit", "cursor", "since"]
    assert mine["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/Note")
    assert set(mine["post"]["responses"]) >= {"201", "400", "401", "413", "415", "422", "429", "503"}
    thing = document["paths"]["/v1/things/{thing_id}"]
    assert thing["get"]["parameters"][0]["schema"] == {"type": "string", "format": "uuid"}
    assert "content" not in thing["delete"]["responses"]["204"]
    assert "Filter" not in document["components"]["schemas"]


def test_every_refusal_stands_under_its_status() -> None:
    document = openapi.document(ROUTES)
    for route in ROUTES:
        responses = document["paths"][route.path][route.method.lower()]["responses"]
        for problem in openapi.problems_of(route):
            schema = responses[str(problem.status)]["content"]["application/json"]["schema"]
            assert problem.code in schema["properties"]["error"]["properties"]["code"]["enum"]
            assert TABLE[problem.code] is problem


async def test_the_page_comes_from_here_alone(house: House) -> None:
    page = await house.ask("GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert b"http" not in page.body
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "index.css", "favicon-32x32.png", "start.js"):
        asset = await house.ask("GET", f"/docs/{name}")
        assert asset.status == 200, name
        assert asset.body
        again = await house.ask("GET", f"/docs/{name}", {"if-none-match": asset.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
    for name in ("LICENSE", "..%2f__init__.py", "index.html"):
        assert (await house.ask("GET", f"/docs/{name}")).status == 404


# drain


async def test_drain() -> None:
    async with open_house(drain_notice_s=0.3, drain_s=2.0) as house:
        idle = await house.connect()
        await idle.request("GET", "/v1/open")
        assert "connection" not in (await idle.response()).headers
        running = await house.connect()
        await running.request("GET", "/v1/hang")
        client = await house.socket()
        with trio.fail_after(5):
            await house.room.entered.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.gateway.drain)
            await until(lambda: not house.gateway.ready)
            # notice: still accepting, but not for long
            late = await house.ask("GET", "/readyz")
            assert (late.status, late.json["status"]) == (503, "draining")
            assert late.headers["connection"] == "close"
            with trio.fail_after(5):
                going = json.loads(await client.get_message())
                assert going["type"] == "going_away"
                assert going["reconnect_after_ms"] > 0
                with pytest.raises(ConnectionClosed) as closed:
                    await client.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1012
            assert await idle.ended() == b""
            with pytest.raises(OSError, match="127"):
                await house.connect()
            # a running request may end; this one does not, and is told so
            refused = await running.response()
            assert (refused.status, refused.code) == (503, "UNAVAILABLE")
            assert await running.ended() == b""
        assert house.open_connections == 0


async def test_a_running_request_ends_before_the_drain_does() -> None:
    async with open_house(drain_s=5.0, request_deadline_s=0.5) as house:
        raw = await house.connect()
        await raw.request("GET", "/v1/hang")
        with trio.fail_after(5):
            await house.room.entered.wait()
        with trio.fail_after(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(house.gateway.drain)
                response = await raw.response()
                assert (response.status, response.headers["connection"]) == (503, "close")
                await raw.stream.aclose()


async def test_no_socket_is_opened_while_going_away(house: House) -> None:
    house.tokens.may_redeem = trio.Event()
    raw = await upgrade(house, "/v1/ws/echo?ticket=ticket-ann", {"authorization": ""})
    with trio.fail_after(5):
        await house.tokens.redeeming.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.gateway.drain)
            await until(lambda: not house.gateway.ready)
            await trio.testing.wait_all_tasks_blocked()
            house.tokens.may_redeem.set()
            response = await raw.response()
            assert (response.status, response.code) == (503, "UNAVAILABLE")
            await raw.stream.aclose()


async def test_drain_ends_with_clients_that_never_read() -> None:
    async with open_house(drain_s=0.5, close_timeout_s=0.3, write_timeout_s=60) as house:
        large = await house.connect()
        await large.request("GET", "/v1/large")
        silent = await house.connect()
        await silent.send(b"GET /v1/open HT")
        async with never_reading(house, "/v1/ws/deaf"):
            await until(lambda: len(house.room.sockets) == 1)
            for _ in range(10):
                house.room.sockets[0].offer(Frame(b"x" * 100_000))
            with trio.fail_after(2):
                await house.gateway.drain()
            assert house.open_connections == 0
