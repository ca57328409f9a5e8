"""Credentials for a relay, and the settings of one, held against coturn itself."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aioice.turn
import pytest
from aioice.stun import TransactionFailed
from msgspec import UNSET

from kit.coturn import CONF, Coturn
from secureconnect.config import TurnConfig
from secureconnect.config_file import load
from secureconnect.doctor.relay import UDP, Client, Refused, place_of, way_to
from secureconnect.identity import UserId
from secureconnect.settings import BadSetting
from secureconnect.signaling.ice import Credentials, credentials, ice_servers
from secureconnect.signaling.stun.wire import Attribute, Method

ANN = UserId("01890000-0000-7000-8000-00000000000a")
LIMIT_S = 5.0
NOW_US = 1_700_000_000_500_000
FAMILY = 0x0017  # REQUESTED-ADDRESS-FAMILY
IPV6 = b"\x02\0\0\0"


def now_s() -> int:
    return int(time.time())


def login(coturn: Coturn, user: str = ANN, for_s: int = 60) -> Credentials:
    return credentials(coturn.secret, user, now_s() + for_s)


@asynccontextmanager
async def client(coturn: Coturn, who: Credentials) -> AsyncIterator[Client]:
    place = place_of(coturn.url)
    async with way_to(place, place.host) as way:
        yield Client(way, who)


# what clients are told


def test_what_is_told() -> None:
    turn = TurnConfig(
        stun_urls=("stun:a.example:3478",), urls=("turn:a.example", "turn:[2001:db8::1]:3478"), secret="s"
    )
    stun, relay = ice_servers(turn, ["stun:own.example:3478"], ANN, NOW_US)
    assert (stun.urls, stun.username, stun.credential) == (["stun:a.example:3478"], UNSET, UNSET)
    assert relay.urls == list(turn.urls)
    assert relay.username == f"{1_700_000_000 + turn.credentials_s}:{ANN}"
    assert (relay.username, relay.credential) == credentials("s", ANN, 1_700_000_000 + turn.credentials_s)


def test_the_server_in_this_process_is_told_if_no_other_is_set() -> None:
    [only] = ice_servers(TurnConfig(), ["stun:own.example:3478"], ANN, NOW_US)
    assert only.urls == ["stun:own.example:3478"]
    assert ice_servers(TurnConfig(), [], ANN, NOW_US) == []


@pytest.mark.parametrize(
    ("key", "url", "is_good"),
    [
        ("TURN__URLS", "turn:turn.example.org", True),
        ("TURN__URLS", "turns:turn.example.org:5349?transport=tcp", True),
        ("TURN__URLS", "turn:[2001:db8::1]:3478?transport=udp", True),
        ("TURN__URLS", "turn:192.0.2.1:65535", True),
        ("TURN__URLS", "turn:2001:db8::1", False),
        ("TURN__URLS", "turn:[2001:db8::1::2]", False),
        ("TURN__URLS", "turn:a.example:65536", False),
        ("TURN__URLS", "turn:a.example:0", False),
        ("TURN__URLS", "turn:a.example?transport=sctp", False),
        ("TURN__URLS", "turn://a.example", False),
        ("TURN__URLS", "stun:a.example", False),
        ("TURN__STUN_URLS", "stun:a.example:3478", True),
        ("TURN__STUN_URLS", "stuns:[::1]", True),
        ("TURN__STUN_URLS", "stun:a.example?transport=udp", False),
        ("TURN__STUN_URLS", "turn:a.example", False),
    ],
)
def test_addresses_as_browsers_take_them(key: str, url: str, is_good: bool) -> None:
    env = {f"SECURECONNECT_{key}": url, "SECURECONNECT_TURN__SECRET": "s"}
    if is_good:
        load(None, env)
        assert place_of(url).host.strip("[]") in url
        return
    with pytest.raises(BadSetting, match="addresses"):
        load(None, env)


def test_addresses_without_the_secret_are_refused_at_the_start() -> None:
    with pytest.raises(BadSetting, match=r"turn\.urls is set without turn\.secret"):
        load(None, {"SECURECONNECT_TURN__URLS": "turn:a.example"})


# coturn


class Heard(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.got.put_nowait((data, addr))


def relay(coturn: Coturn, who: Credentials, transport: str = "udp") -> None:
    """Say something to a peer through the relay, and be answered. Raises TransactionFailed."""

    async def talk() -> None:
        ours: Heard
        relayed, ours = await aioice.turn.create_turn_endpoint(
            Heard, ("127.0.0.1", coturn.port), who.name, who.password, transport=transport
        )
        loop = asyncio.get_running_loop()
        peer, theirs = await loop.create_datagram_endpoint(Heard, local_addr=("127.0.0.1", 0))
        try:
            relayed.sendto(b"hello", peer.get_extra_info("sockname"))
            said, at = await asyncio.wait_for(theirs.got.get(), LIMIT_S)
            assert (said, at) == (b"hello", relayed.get_extra_info("sockname"))
            peer.sendto(b"well met", at)
            assert (await asyncio.wait_for(ours.got.get(), LIMIT_S))[0] == b"well met"
        finally:
            peer.close()
            relayed.close()

    asyncio.run(talk())


@pytest.fixture
def uclient(coturn: Coturn) -> Iterator[subprocess.Popen[str]]:
    """coturn's own client, under way: it takes its four seconds, whatever it has to send."""
    found = shutil.which("turnutils_uclient")
    if found is None:
        pytest.skip("no turnutils_uclient")
    name, password = login(coturn)
    process = subprocess.Popen(
        [*(found, "-y", "-c", "-n", "2", "-u", name, "-w", password, "-p", str(coturn.port)), "127.0.0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process
    if process.poll() is None:
        process.kill()
        process.wait(LIMIT_S)


def test_coturn_relays_with_our_credentials_and_no_others(
    coturn: Coturn, uclient: subprocess.Popen[str]
) -> None:
    relay(coturn, login(coturn))
    relay(coturn, login(coturn), "tcp")
    name, password = login(coturn)
    later = f"{int(name.partition(':')[0]) + 1}:{ANN}"
    for forged in (
        login(coturn, for_s=-2),  # over
        credentials("another secret", ANN, now_s() + 60),
        Credentials(later, password),  # longer
        Credentials(name.replace(ANN, ANN[:-1] + "b"), password),  # somebody else's
        Credentials(ANN, password),
    ):
        with pytest.raises(TransactionFailed) as caught:
            relay(coturn, forged)
        assert caught.value.response.attributes["ERROR-CODE"][0] == 401
    said, _ = uclient.communicate(timeout=4 * LIMIT_S)
    assert "tot_recv_bytes ~ 400" in said, said
    assert "Total lost packets 0" in said


def test_the_file_is_understood_whole(coturn: Coturn) -> None:
    assert "Bad configuration" not in coturn.log
    assert "unrecognized" not in coturn.log
    denied = re.findall(r"^denied-peer-ip=(\S+)", CONF.read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"Black listing: (\S+)", coturn.log)) == set(denied)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coturn]:
    """It relays to whom the file lets it, and gives little to one person."""
    server = Coturn(tmp_path_factory.mktemp("strict"), "--user-quota=2", is_strict=True)
    try:
        server.start()
        yield server
    finally:
        server.close()


DENIED = (
    *("0.0.0.0", "0.0.0.1", "127.0.0.1", "127.255.255.254", "10.0.0.1", "10.255.255.255", "172.16.0.1"),
    *("172.31.255.255", "192.168.0.1", "192.168.255.255", "100.64.0.1", "100.100.100.200"),
    *("169.254.169.254", "192.0.0.192", "198.18.0.1", "224.0.0.1", "239.255.255.250", "255.255.255.255"),
    *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "64:ff9b::a00:1"),
    *("2001::1", "2002:a00:1::", "fc00::1", "fd00:ec2::254", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    *("fe80::1", "febf::1", "fec0::1", "ff02::1"),
)
ALLOWED = ("8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.255.255", "2001:4860:4860::8888", "2a00::1")


async def test_it_relays_to_public_addresses_alone(strict: Coturn) -> None:
    async with client(strict, login(strict)) as old, client(strict, login(strict)) as new:
        await old.allocate()
        await new._ask(Method.ALLOCATE, (Attribute.REQUESTED_TRANSPORT, UDP), (FAMILY, IPV6))
        wrong = []
        for host in (*DENIED, *ALLOWED):
            code = 0
            try:
                await (new if ":" in host else old).permit((host, 53))
            except Refused as refused:
                code = refused.code
            if code != (403 if host in DENIED else 0):
                wrong.append((host, code))
        await old.release()
        await new.release()
    assert wrong == []


async def test_one_person_gets_no_more_than_their_share(strict: Coturn) -> None:
    """Whatever number of credentials they have been given."""
    held: list[Any] = []
    async with (
        client(strict, login(strict, "greedy", 60)) as one,
        client(strict, login(strict, "greedy", 61)) as two,
        client(strict, login(strict, "greedy", 62)) as three,
        client(strict, login(strict, "modest")) as other,
    ):
        held += [await one.allocate(), await two.allocate()]
        with pytest.raises(Refused, match="486"):
            await three.allocate()
        await other.allocate()
        for each in (one, two, other):
            await each.release()
    assert len(set(held)) == 2


async def test_there_is_room_for_many_calls(coturn: Coturn) -> None:
    """More than a limit on what all send together would leave, of which each reserves its part."""
    async with AsyncExitStack() as stack:
        who = [login(coturn, f"caller-{each % 10}") for each in range(150)]
        clients = [await stack.enter_async_context(client(coturn, each)) for each in who]
        for each in clients:
            await each.allocate()
        for each in clients:
            await each.release()
