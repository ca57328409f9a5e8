"""What `doctor --url` says of an installation, through real proxies that are set well and badly."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kit import command
from kit.balancer import Balancer, Haproxy, Nginx, fill_in
from kit.people import people
from kit.ports import free_port
from kit.server import Server
from kit.tls import tls_before
from secureconnect.doctor import Finding, examine_from_outside

from .conftest import Findings

PING_S = "4"
ALL = [
    "dns",
    "tls",
    "server",
    "clock",
    "ready",
    "page",
    "proxy.body",
    "proxy.upload",
    "proxy.websocket",
    "proxy.idle",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("outside") / "data", GATEWAY__WS_PING_S=PING_S)
    try:
        made.start()
        yield made
        made.check()
    finally:
        made.close()


@pytest.fixture
async def token(server: Server) -> AsyncIterator[str]:
    async with people(server.url, "ann") as (ann,):
        yield ann.me.access_token


class Changed(Nginx):
    """The operator's file, once somebody has been at it."""

    def __init__(self, folder: Path, server: Server, changes: dict[str, str]) -> None:
        self._changes = changes
        super().__init__(folder, [server.url.removeprefix("http://")] * 2)

    def filled_in(self, changes: dict[str, str]) -> str:
        return fill_in(super().filled_in(changes), self._changes)


async def look(url: str, token: str = "") -> Findings:
    told: list[Finding] = []
    found = Findings(await examine_from_outside(url, told.append, token))
    assert told == found
    assert all((each.mend is None) == (each.status == "ok") for each in found)
    assert not token or token not in str(found)
    return found


async def through(balancer: Balancer, token: str = "") -> Findings:
    try:
        balancer.start()
        return await look(balancer.url, token)
    finally:
        balancer.close()


@pytest.mark.parametrize("kind", [Haproxy, Nginx])
async def test_the_files_for_operators_let_all_of_it_through(
    kind: type[Balancer], server: Server, token: str, tmp_path: Path
) -> None:
    found = await through(kind(tmp_path, [server.url.removeprefix("http://")] * 2), token)
    assert [each.name for each in found] == ALL
    assert (found.failed, found.warned) == ({}, {"tls"}), found


async def test_a_proxy_with_the_limits_it_came_with(server: Server, tmp_path: Path) -> None:
    found = await through(
        Changed(
            tmp_path,
            server,
            {
                "client_max_body_size 0": "client_max_body_size 512k",
                "        proxy_set_header Upgrade $http_upgrade;\n": "",
                "proxy_set_header Connection $upstream_connection;": "",
                "proxy_buffering off": "proxy_hide_header Content-Security-Policy",
            },
        )
    )
    assert found.failed.keys() == {"proxy.body", "proxy.upload", "proxy.websocket"}, found
    assert "answered with 413" in found.failed["proxy.upload"]
    assert found.warned == {"tls", "page"}


async def test_a_proxy_that_holds_back_uploads_and_ends_silent_sockets(
    server: Server, token: str, tmp_path: Path
) -> None:
    changes = {
        "proxy_request_buffering off;": "client_body_buffer_size 2m;",  # it may not write where more would go
        "proxy_read_timeout 90s": "proxy_read_timeout 2s",
    }
    found = await through(Changed(tmp_path, server, changes), token)
    assert found.failed.keys() == {"proxy.idle"}, found
    assert found.warned == {"tls", "proxy.upload"}


async def test_a_token_that_is_none(server: Server) -> None:
    found = await look(server.url, "made-up")
    assert "refused with 401" in found.failed["proxy.idle"]


async def test_something_else_is_there(server: Server, tmp_path: Path) -> None:
    found = await through(Changed(tmp_path, server, {"proxy_pass http://nodes;": "return 200 hello;"}))
    assert found.failed.keys() == {"server"}
    assert [each.name for each in found] == ["dns", "tls", "server"]


async def test_nobody_is_there() -> None:
    found = await look(f"http://127.0.0.1:{free_port()}")
    assert "nothing takes connections" in found.failed["dns"]
    found = await look("https://chat.invalid")
    assert "has no address" in found.failed["dns"]


async def test_a_certificate_that_browsers_take_and_one_they_do_not(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = tmp_path / "authority.pem"
    async with tls_before(server.url.removeprefix("http://"), authority) as endpoint:
        assert "browsers refuse the certificate" in (await look(f"https://{endpoint}")).failed["tls"]
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        found = await look(f"https://{endpoint}")
        assert (found.failed, found.warned) == ({}, set())
        assert "TLSv1.3; the certificate ends on" in found.of("tls").found
        other = await look(f"https://{endpoint.replace('127.0.0.1', 'localhost')}")
        assert "localhost" in other.failed["tls"]


def test_on_the_command_line(server: Server, tmp_path: Path) -> None:
    told = json.loads(command.succeeds("doctor", "--json", "--url", server.url, cwd=tmp_path))
    assert [each["name"] for each in told["checks"]] == ALL[:-1]
    assert list(tmp_path.iterdir()) == []
    for wrong, told_so in (
        (("--token-file", "/dev/null"), "--token-file goes with"),
        (("--url", "chat.example.org"), "expected http or https"),
    ):
        done = command.run("doctor", *wrong, cwd=tmp_path)
        assert (done.returncode, told_so in done.stderr) == (2, True), done.stderr
