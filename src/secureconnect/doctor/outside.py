"""An installation as people reach it: from anywhere, by its URL alone, through whatever stands in front.

A proxy cannot be asked for its limits. Each is tried by a request that the server itself refuses at once, in
its own words: another answer, or none, is the proxy's.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import trio

from ..client.wire import Lost, Refused, connect
from ..config import Config
from .asking import ANSWER_S, Answer, NoAnswer, Site, ask, dialled
from .findings import Finding, Report, count

CONNECT_S = 10.0
AT_ONCE_S = 5.0  # for an answer that needs no more of what is being sent
WHOLE_S = 120.0
BEGINNING_BYTES = 65_536
SOON_DAYS = 14
APART_S = 5.0  # of the clocks: tokens and resumed connections know of seconds
LONG_HEARTBEAT_S = 30.0  # proxies end what is silent for a minute, some of them sooner
JSON = "application/json"
LAST_PART_BYTES = 67_108_864  # of an upload, where the server tells none


async def examine_from_outside(url: str, tell: Callable[[Finding], None], token: str = "") -> list[Finding]:
    """token: of somebody signed in, to hold a WebSocket open with; without it that is not tried."""
    site, report = Site.of(url), Report(Config(), tell)
    with trio.move_on_after(WHOLE_S) as limit:
        if await _check_addresses(site, report) and await _check_tls(site, report):
            server = await _check_server(site, report)
            if server is not None:
                await _check_ready(site, report)
                await _check_page(site, report)
                await _check_body(site, server, report)
                await _check_upload(site, server, report)
                await _check_upgrade(site, report)
                if token:
                    await _check_socket(site, token, report)
    if limit.cancelled_caught:
        report.fail(
            "outside", f"not done after {WHOLE_S:g} s", "look at the network between, and at the proxy"
        )
    return report.findings


async def _check_addresses(site: Site, report: Report) -> bool:
    """Whether the name leads anywhere."""
    try:
        with trio.fail_after(CONNECT_S):
            found = await trio.socket.getaddrinfo(site.host, site.port, type=socket.SOCK_STREAM)
    except (OSError, trio.TooSlowError) as exc:
        report.fail(
            "dns",
            f"{site.host} has no address: {report.said(exc)}",
            "enter an A or AAAA record for it, and wait until it is known everywhere",
        )
        return False
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    deaf = [each for each in addresses if not await _listens(each, site.port)]
    told = f"{site.host} is {', '.join(addresses)}"
    if deaf == addresses:
        report.fail(
            "dns",
            f"{told}; nothing takes connections to port {site.port}",
            "start what stands in front, and open the port in the firewall and at the router",
        )
        return False
    if deaf:
        report.warn(
            "dns",
            f"{told}; nothing takes connections at {', '.join(deaf)}",
            "take that record away, or listen there, too: some people are led there first",
        )
    else:
        report.ok("dns", f"{told}; port {site.port} is open")
    return True


async def _listens(address: str, port: int) -> bool:
    try:
        with trio.fail_after(CONNECT_S):
            await (await trio.open_tcp_stream(address, port)).aclose()
    except (OSError, trio.TooSlowError):
        return False
    return True


async def _check_tls(site: Site, report: Report) -> bool:
    """Whether to go on."""
    if site.scheme == "http":
        report.warn(
            "tls",
            "none: passwords and messages cross the network readable, and browsers give no camera",
            "put TLS in front, or set gateway.tls_certificate",
        )
        return True
    try:
        with trio.fail_after(CONNECT_S):
            stream = await dialled(site)
    except ssl.SSLCertVerificationError as exc:
        report.fail(
            "tls",
            f"browsers refuse the certificate: {report.said(exc.verify_message)}",
            "serve the whole chain, of a known authority, for this very name",
        )
        return False
    except (OSError, ssl.SSLError, trio.BrokenResourceError, trio.TooSlowError) as exc:
        report.fail(
            "tls", f"no TLS there: {report.said(exc)}", "let what listens at this port speak TLS 1.2 or 1.3"
        )
        return False
    version, ends = stream.version(), _end_of(stream.getpeercert())
    await trio.aclose_forcefully(stream)
    days = (ends - datetime.now(UTC)).days
    told = f"{version}; the certificate ends on {ends:%Y-%m-%d}, in {count(days, 'day')}"
    if days < SOON_DAYS:
        report.warn("tls", told, "renew it now, and let that happen by itself from then on")
    else:
        report.ok("tls", told)
    return True


def _end_of(certificate: Any) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)


async def _check_server(site: Site, report: Report) -> dict[str, Any] | None:
    """What it says of itself; None if it is none of ours."""
    began = trio.current_time()
    try:
        answer = await ask(site, "GET", "/v1/server")
    except NoAnswer as exc:
        report.fail(
            "server", f"no answer: {report.said(exc)}", "look at the proxy's log, and at the server behind it"
        )
        return None
    took_s = trio.current_time() - began
    server: dict[str, Any] = answer.envelope.get("data", {})
    if "version" not in server:
        report.fail(
            "server",
            f"/v1/server is answered with {answer.status}, by something else",
            "let the proxy pass all paths to SecureConnect, and look whether it is running",
        )
        return None
    report.ok("server", f"SecureConnect {server['version']}, after {took_s * 1e3:.0f} ms")
    there = datetime.fromisoformat(answer.envelope["meta"]["timestamp"])
    ahead_s = (there - datetime.now(UTC)).total_seconds() + took_s / 2
    if abs(ahead_s) > APART_S:
        report.warn("clock", f"its clock is {ahead_s:+.0f} s from this machine's", "run NTP on both machines")
    else:
        report.ok("clock", f"within {max(abs(ahead_s), 1):.0f} s of this machine's")
    return server


async def _check_ready(site: Site, report: Report) -> None:
    answer = await _passed("ready", "/readyz", site, report)
    if answer is None:
        return
    if answer.status == 200:
        report.ok("ready", "it takes requests")
    else:
        report.fail(
            "ready", f"/readyz says {answer.status}", "run `secureconnect doctor` where the server is"
        )


async def _check_page(site: Site, report: Report) -> None:
    answer = await _passed("page", "/", site, report)
    if answer is None:
        return
    policy = answer.headers.get("content-security-policy", "")
    if answer.status != 200:
        report.ok("page", f"/ is answered with {answer.status}")
    elif "default-src 'none'" in policy:
        report.ok("page", "it comes with its policy")
    else:
        report.warn(
            "page",
            "the Content-Security-Policy of the page does not arrive",
            "let the proxy pass the server's headers as they are",
        )


async def _passed(name: str, path: str, site: Site, report: Report) -> Answer | None:
    try:
        return await ask(site, "GET", path)
    except NoAnswer as exc:
        report.fail(name, f"no answer: {report.said(exc)}", f"let the proxy pass {path} as well")
        return None


async def _check_body(site: Site, server: Mapping[str, Any], report: Report) -> None:
    """A body as large as the server takes."""
    size = int(server["limits"]["request_body_bytes"])
    told = f"a request of {size} bytes"
    try:
        answer = await ask(site, "POST", "/v1/auth/login", content=b" " * size, kind=JSON)
    except NoAnswer as exc:
        report.fail("proxy.body", f"{told} has no answer: {report.said(exc)}", _LARGER)
        return
    if answer.code:
        report.ok("proxy.body", f"{told} passes")
    else:
        report.fail("proxy.body", f"{told} is answered with {answer.status}, by something in front", _LARGER)


async def _check_upload(site: Site, server: Mapping[str, Any], report: Report) -> None:
    """The head of one, with an address that nobody was given: the server need not wait for the rest."""
    size = int(server["limits"].get("part_bytes") or LAST_PART_BYTES)
    told = f"an upload of {size // 1_048_576} MiB"
    try:
        answer = await ask(
            site,
            "PUT",
            "/v1/storage/objects/doctor",
            content=bytes(BEGINNING_BYTES),
            size=size,
            within_s=AT_ONCE_S,
        )
    except NoAnswer:
        report.warn(
            "proxy.upload",
            f"{told} is held back until it is whole, or cut off",
            "let the proxy pass bodies on as they come (nginx: proxy_request_buffering off)",
        )
        return
    if answer.code:
        report.ok("proxy.upload", f"{told} passes, and is passed on as it comes")
    else:
        report.fail(
            "proxy.upload", f"{told} is answered with {answer.status}, by something in front", _LARGER
        )


async def _check_upgrade(site: Site, report: Report) -> None:
    """A handshake of a version there is not: the server says so only where the upgrade reaches it."""
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "12",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    mend = "let the proxy pass WebSockets: HTTP/1.1 to the server, with Upgrade and Connection"
    try:
        answer = await ask(site, "GET", "/v1/ws/chat", headers=headers)
    except NoAnswer as exc:
        report.fail("proxy.websocket", f"an upgrade has no answer: {report.said(exc)}", mend)
        return
    if answer.code == "MALFORMED":
        report.ok("proxy.websocket", "an upgrade reaches the server")
    else:
        report.fail("proxy.websocket", f"an upgrade does not reach the server: {answer.status}", mend)


async def _check_socket(site: Site, token: str, report: Report) -> None:
    """One that says nothing lasts from one heartbeat to the next."""
    heartbeat_s = LONG_HEARTBEAT_S
    url = f"{'wss' if site.scheme == 'https' else 'ws'}://{site.authority}/v1/ws/chat"
    try:
        async with connect(url, [(b"authorization", f"Bearer {token}".encode())]) as wire:
            with trio.fail_after(ANSWER_S):
                hello = json.loads(await wire.receive())
            heartbeat_s = float(hello["heartbeat_s"])
            silent_s = min(heartbeat_s, LONG_HEARTBEAT_S)
            with trio.move_on_after(silent_s):
                while True:
                    await wire.receive()
            with trio.fail_after(ANSWER_S):
                await wire.ping()
    except Refused as refused:
        report.fail(
            "proxy.idle",
            f"a WebSocket is refused with {refused.status}",
            "give a token that is valid, and look at `proxy.websocket`",
        )
    except (Lost, trio.TooSlowError) as exc:
        report.fail(
            "proxy.idle",
            f"a silent WebSocket is lost before the next heartbeat: {report.said(exc)}",
            f"let the proxy keep them for a minute at least: the server pings every {heartbeat_s:g} s",
        )
    else:
        report.ok("proxy.idle", f"a WebSocket that is silent for {silent_s:g} s lasts")


_LARGER = "let the proxy take any body (nginx: client_max_body_size 0): the server has limits of its own"
