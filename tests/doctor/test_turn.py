"""What the doctor says of relays and STUN servers, healthy and broken."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from kit import command
from kit.coturn import SECRET, Coturn
from kit.wait import until
from secureconnect.config import Config, GatewayConfig, StunConfig, TurnConfig
from secureconnect.doctor import turn
from secureconnect.doctor.findings import Finding, Report
from secureconnect.signaling.stun import StunServer
from secureconnect.signaling.stun.wire import Attribute, Kind, Message, decode, encode

RELAYED = (Attribute.XOR_RELAYED_ADDRESS, ("127.0.0.1", 50_000))


async def look(
    *urls: str,
    stun: tuple[str, ...] = (),
    secret: str = SECRET,
    valid_s: int = 60,
    own: StunConfig | None = None,
    public_url: str = "",
) -> list[Finding]:
    told: list[Finding] = []
    config = Config(
        gateway=GatewayConfig(public_url=public_url),
        turn=TurnConfig(stun_urls=stun, urls=urls, secret=secret, credentials_s=valid_s),
        stun=own or StunConfig(),
    )
    await turn.check(config, Report(config, told.append))
    for each in told:
        assert (each.mend is None) == (each.status == "ok"), each
        assert not secret or secret not in f"{each.found} {each.mend}", each
    return told


async def failed(*urls: str, secret: str = SECRET, valid_s: int = 60) -> str:
    """What is wrong, and how to mend it."""
    [found] = await look(*urls, secret=secret, valid_s=valid_s)
    assert found.status == "failed"
    assert found.found.startswith(urls[0])
    return f"{found.found}; {found.mend}"


async def test_none() -> None:
    [found] = await look(secret="")
    assert (found.status, found.found[:5]) == ("ok", "none:")


async def test_it_relays(coturn: Coturn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(coturn.authority_file))
    urls = (
        coturn.url,
        coturn.url.replace("udp", "tcp"),
        f"turn:[::1]:{coturn.port}",
        coturn.tls_url,
        f"turns:localhost:{coturn.tls_port}",
    )
    found = await look(*urls, stun=(f"stun:127.0.0.1:{coturn.port}",))
    assert [each.status for each in found] == ["ok"] * len(found), found
    assert all("relays from 127.0.0.1:" in each.found for each in found[:-1])
    assert f"{urls[-1]} at 127.0.0.1: " in found[4].found, "each address of a name is told"
    assert "sees this machine as 127.0.0.1:" in found[-1].found


async def test_the_login_is_not_taken(coturn: Coturn) -> None:
    assert "it does not accept what turn.secret makes" in await failed(coturn.url, secret="x" * 32)
    assert "its clock is far ahead" in await failed(coturn.url, valid_s=-60)


async def test_a_secret_that_can_be_found_out(coturn: Coturn) -> None:
    [short, _] = await look(coturn.url, secret="quite short")
    assert (short.name, short.status) == ("turn.secret", "warning")


async def test_the_certificate_is_not_trusted(coturn: Coturn) -> None:
    assert "its certificate is not good for 127.0.0.1" in await failed(coturn.tls_url)


async def test_no_tls_where_it_should_be() -> None:
    async with web_server() as port:
        assert "no TLS" in await failed(f"turns:127.0.0.1:{port}")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_nothing_is_there(transport: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    said = await failed(f"turn:127.0.0.1:{port}?transport={transport}")
    assert f"refused: nothing listens on {transport.upper()} port {port}" in said


async def test_no_such_host() -> None:
    assert "no address of nowhere.invalid" in await failed("turn:nowhere.invalid")


async def test_it_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "ANSWER_S", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        said = await failed(f"turn:127.0.0.1:{port}")
    assert "no answer within 0.2 s" in said
    assert f"let UDP port {port} through" in said


async def test_it_is_something_else() -> None:
    async with web_server() as port:
        assert "what answers is no such server" in await failed(f"turn:127.0.0.1:{port}?transport=tcp")


async def test_it_does_not_relay_to_itself(tmp_path: Path) -> None:
    """Behind a NAT, and its private address is not allowed."""
    server = Coturn(tmp_path, "--external-ip=198.51.100.9/127.0.0.1", is_strict=True)
    server.start()
    try:
        assert "403: it relays nothing to 198.51.100.9" in await failed(server.url)
    finally:
        server.close()


REFUSALS = {486: "raise user-quota", 508: "raise total-quota", 400: "look at its log"}


@pytest.mark.parametrize("code", REFUSALS)
async def test_it_gives_no_more(code: int) -> None:
    async with strange(code=code) as url:
        assert REFUSALS[code] in await failed(url)


async def test_anybody_can_use_it() -> None:
    async with strange(asks=False) as url:
        assert "relays for anybody" in await failed(url)


async def test_what_it_sends_does_not_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "ECHO_S", 0.2)
    async with strange() as url:
        assert "does not come back" in await failed(url)


def test_an_address_that_nobody_reaches() -> None:
    with pytest.raises(turn.Faulty) as caught:
        turn._look_at(True, ("10.0.0.7", 50_000), "8.8.8.8")
    assert "external-ip" in caught.value.mend
    turn._look_at(True, ("10.0.0.7", 50_000), "10.0.0.7")
    turn._look_at(True, ("8.8.8.8", 50_000), "8.8.4.4")


async def test_the_server_of_our_own() -> None:
    server = StunServer(StunConfig(host="127.0.0.1", port=0))
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: server.run(task_status=task_status))
        await until(lambda: server.port is not None)
        assert server.port is not None
        own = StunConfig(enabled=True, host="127.0.0.1", port=server.port)
        [_, found] = await look(own=own, public_url="https://chat.example.org")
        assert (found.status, found.found) == ("ok", f"UDP port {server.port} of 127.0.0.1 answers")
        [_, untold, found] = await look(own=own)
        assert (untold.status, found.status) == ("warning", "ok")
        nursery.cancel_scope.cancel()
    [_, found] = await look(own=own, public_url="https://chat.example.org")
    assert "nothing answers" in found.found


def test_the_command(coturn: Coturn, tmp_path: Path) -> None:
    said = command.succeeds("doctor", "turn", "--url", coturn.url, cwd=tmp_path, TURN__SECRET=SECRET)
    assert said.startswith(f"ok       turn                 {coturn.url}: relays from 127.0.0.1:")
    assert said.endswith("1 check: 0 failed, 0 with a warning\n")
    done = command.run("doctor", "--url", coturn.url, cwd=tmp_path)
    assert done.returncode == 2
    assert "doctor turn" in done.stderr


@asynccontextmanager
async def web_server() -> AsyncIterator[int]:
    """The port of something that speaks neither TURN nor TLS."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(1_000)
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def strange(asks: bool = True, code: int = 0) -> AsyncIterator[str]:
    """The URL of a relay as coturn cannot be made to be: it relays nothing.

    asks: for a login.  code: what it then refuses with; 0: it does not.
    """
    bound = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)

    def reply(asked: Message) -> bytes:
        is_known = asked.get(Attribute.USERNAME) is not None
        refused = 401 if asks and not is_known else code
        if not refused:
            return encode(asked.method, Kind.SUCCESS, asked.transaction, [RELAYED])
        said = bytes([0, 0, *divmod(refused, 100)])
        told = [(Attribute.ERROR_CODE, said), (Attribute.REALM, b"r"), (Attribute.NONCE, b"n")]
        return encode(asked.method, Kind.ERROR, asked.transaction, told)

    async def serve() -> None:
        while True:
            data, sender = await bound.recvfrom(1_500)
            asked = decode(data)
            if asked.kind is Kind.REQUEST:
                await bound.sendto(reply(asked), sender)

    with bound:
        await bound.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield f"turn:127.0.0.1:{bound.getsockname()[1]}"
            nursery.cancel_scope.cancel()
