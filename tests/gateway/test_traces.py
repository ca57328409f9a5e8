"""Requests as spans: what they are called, whose children they are, and what is not traced."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from kit.spans import Spans
from secureconnect import tracing
from secureconnect.log import with_bound
from secureconnect.tracing import Kind

from .house import UPGRADE, House, open_house

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
async def behind_proxy() -> AsyncIterator[House]:
    async with open_house(trusted_proxies=("127.0.0.1",)) as house:
        yield house


async def test_a_request_is_named_by_its_route(house: House) -> None:
    spans = Spans()
    with tracing.recording(spans):
        await house.ask("GET", "/v1/mine?limit=x", {"authorization": "Bearer ann"})
        await house.ask("GET", "/v1/secret-words")
        await house.ask("PROPFIND", "/v1/public")
        await house.ask("GET", "/v1/ws/echo", UPGRADE)
        house.gateway.wait_for("postgres", None)
        await house.ask("GET", "/v1/public")
    told = [(span.name, span.facts["http.response.status_code"], span.failure) for span in spans.ended]
    assert told == [
        ("GET /v1/mine", 422, None),
        ("GET unmatched", 404, None),
        ("OTHER unmatched", 405, None),
        ("GET /v1/ws/echo", 401, None),
        ("GET /v1/public", 503, "503"),
    ]
    assert {span.kind for span in spans.ended} == {Kind.SERVER}
    assert "secret" not in repr([(span.name, span.facts) for span in spans.ended])


async def test_who_watches_the_server_is_not_traced(house: House) -> None:
    spans = Spans()
    with tracing.recording(spans):
        for path in ("/health", "/livez", "/readyz", "/metrics"):
            await house.ask("GET", path)
    assert not spans.ended


async def test_a_proxy_of_ours_is_believed(behind_proxy: House) -> None:
    spans = Spans(ratio=0)
    with tracing.recording(spans), capture_logs([with_bound]) as logged:
        await behind_proxy.ask("GET", "/v1/public", {"traceparent": TRACEPARENT})
        await behind_proxy.ask("GET", "/v1/public", {"traceparent": TRACEPARENT[:-1] + "0"})
        await behind_proxy.ask("GET", "/v1/public")
        await behind_proxy.ask("GET", "/v1/public", {"traceparent": "00-rubbish"})
    [span] = spans.ended
    assert (span.trace, f"{span.parent_id:016x}") == (TRACE, PARENT)
    assert [line.get("trace_id") for line in logged] == [TRACE, TRACE, None, None]


async def test_nobody_else_is_believed(house: House) -> None:
    spans = Spans()
    with tracing.recording(spans), capture_logs([with_bound]) as logged:
        await house.ask("GET", "/v1/public", {"traceparent": TRACEPARENT})
    [span] = spans.ended
    assert span.trace != TRACE
    assert not span.parent_id
    assert [line["trace_id"] for line in logged] == [span.trace]
