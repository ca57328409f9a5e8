"""STUN: its messages as bytes, and the server that answers them."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
from aioice import Candidate, ice
from aioice import stun as theirs
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.fixtures import StartServer
from kit.people import people
from kit.ports import free_port
from kit.wait import until
from secureconnect.config import StunConfig
from secureconnect.signaling.stun import StunServer
from secureconnect.signaling.stun.pace import Pace
from secureconnect.signaling.stun.server import answer
from secureconnect.signaling.stun.wire import (
    Attribute,
    Kind,
    Method,
    address_of,
    decode,
    encode,
    error_code,
)

ID = bytes(range(12))
FROM = ("198.51.100.7", 40_000)
FROM_IPV6 = ("2001:db8::7", 40_000)
PATIENCE_S = 5.0

# RFC 5769, sections 2.1 to 2.3
SAMPLE_REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74"
    "002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"
)
SAMPLE_IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220"
    "002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
SAMPLE_IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004c8fb0b4c"
)


def request(*attributes: tuple[int, bytes], fingerprint: bool = False) -> bytes:
    return encode(Method.BINDING, Kind.REQUEST, ID, attributes, fingerprint=fingerprint)


# messages


@pytest.mark.parametrize(
    ("sample", "address"),
    [
        (SAMPLE_IPV4, ("192.0.2.1", 32853)),
        (SAMPLE_IPV6, ("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
    ],
)
def test_samples_of_the_standard(sample: bytes, address: tuple[str, int]) -> None:
    told = decode(sample)
    assert (told.method, told.kind) == (Method.BINDING, Kind.SUCCESS)
    assert address_of(told.get(Attribute.XOR_MAPPED_ADDRESS) or b"", told.transaction) == address
    asked = decode(SAMPLE_REQUEST)
    assert (asked.kind, asked.get(Attribute.USERNAME)) == (Kind.REQUEST, b"evtj:h6vY")


types = st.integers(0, 0xFFFF).filter(lambda each: each != Attribute.FINGERPRINT)
attributes = st.lists(st.tuples(types, st.binary(max_size=20)), max_size=5)


@given(st.integers(0, 0xFFF), st.sampled_from(Kind), attributes, st.booleans(), st.none() | st.binary())
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read(
    method: int, kind: Kind, given_: list[tuple[int, bytes]], fingerprint: bool, key: bytes | None
) -> None:
    told = decode(encode(method, kind, ID, given_, key=key, fingerprint=fingerprint))
    assert (told.method, told.kind, told.transaction) == (method, kind, ID)
    assert list(told.attributes[: len(given_)]) == given_
    assert len(told.attributes) == len(given_) + fingerprint + (key is not None)


def test_another_library_reads_it_and_checks_its_sums() -> None:
    key = b"key"
    data = encode(Method.ALLOCATE, Kind.REQUEST, ID, [(Attribute.XOR_PEER_ADDRESS, FROM)], key=key)
    read = theirs.parse_message(data)
    assert read.check_message_integrity(key)
    assert not read.check_message_integrity(b"another")
    assert read.message_method == theirs.Method.ALLOCATE
    assert read.attributes["XOR-PEER-ADDRESS"] == FROM


def broken(data: bytes) -> st.SearchStrategy[bytes]:
    """That message, with some bytes changed, or cut."""
    changed = st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=3)

    def change(changes: list[tuple[int, int]], size: int) -> bytes:
        copy = bytearray(data)
        for at, value in changes:
            copy[at] = value
        return bytes(copy[:size])

    return st.builds(change, changed, st.integers(0, len(data)) | st.just(len(data)))


@given(
    st.binary(max_size=100)
    | st.binary(max_size=80).map(lambda rest: SAMPLE_REQUEST[:8] + rest)
    | broken(SAMPLE_REQUEST)
    | broken(request((0x0003, b"1234"), (0x7000, b"5678")))
    | attributes.map(lambda each: request(*each)),
    st.sampled_from([FROM, FROM_IPV6]),
)
@settings(max_examples=300, deadline=None)
def test_whatever_comes_is_answered_briefly_or_not(data: bytes, sender: tuple[str, int]) -> None:
    told = answer(data, sender)
    if told is None:
        return
    assert len(told) <= len(data) + (24 if sender is FROM_IPV6 else 12)
    assert decode(told).transaction == data[8:20]
    assert answer(told, sender) is None, "two servers would talk for ever"


# what is answered


@pytest.mark.parametrize("sender", [FROM, FROM_IPV6])
@pytest.mark.parametrize("fingerprint", [False, True])
def test_the_address_a_question_came_from(sender: tuple[str, int], fingerprint: bool) -> None:
    told = answer(request((0x8022, b"some client"), fingerprint=fingerprint), sender)
    assert told is not None
    assert (told[:2], told[4:8]) == (b"\x01\x01", b"\x21\x12\xa4\x42")
    read = theirs.parse_message(told)
    assert read.attributes["XOR-MAPPED-ADDRESS"] == sender
    assert ("FINGERPRINT" in read.attributes) is fingerprint


def test_what_must_be_understood_and_is_not() -> None:
    told = answer(request((0x0003, bytes(4)), (0x7001, b""), (0x0003, bytes(4)), (0xC001, b"")), FROM)
    assert told is not None
    read = decode(told)
    assert read.kind is Kind.ERROR
    assert error_code(read.get(Attribute.ERROR_CODE))[0] == 420
    assert read.get(Attribute.UNKNOWN_ATTRIBUTES) == bytes.fromhex("00037001")
    assert answer(request((Attribute.USERNAME, b"ann"), (Attribute.REALM, b"r")), FROM) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        request()[:-1],
        request() + b"\0\0\0\0",
        b"\x40" + request()[1:],
        request()[:4] + bytes(4) + ID,  # of 2003, without the cookie
        request((0x8022, b"1234"))[:-8] + b"\x80\x22\x00\x05abcd",
        request(fingerprint=True)[:-1] + b"\0",
        encode(Method.BINDING, Kind.INDICATION, ID, []),
        encode(Method.BINDING, Kind.SUCCESS, ID, []),
        encode(Method.ALLOCATE, Kind.REQUEST, ID, []),
    ],
)
def test_silence(data: bytes) -> None:
    assert answer(data, FROM) is None


def test_pace() -> None:
    pace = Pace(all_per_s=5, one_per_s=2)
    assert pace.rest_s(10.0) == 0
    assert [pace.admits("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert [pace.admits(f"2001:db8::{each}") for each in (1, 2)] == [True, True]
    assert pace.rest_s(10.25) == 0.75
    assert pace.rest_s(11.0) == 0
    assert [pace.admits(each) for each in ("2001:db8::1", "2001:db8::2%eth0")] == [True, True]
    assert not pace.admits("2001:db8::3"), "one customer has the whole /64"
    assert pace.admits("2001:db8:0:1::3")


# the server


class Asking(socket.socket):
    """A socket that asks a server; where two share an end of it, in order."""

    def __init__(self, server: StunServer, host: str = "127.0.0.1", own: str = "") -> None:
        super().__init__(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.setblocking(False)
        self.bind((own or host, 0))
        self.connect((host, server.port))

    async def ask(self) -> tuple[str, int]:
        self.send(request())
        return await self.hear()

    async def hear(self) -> tuple[str, int]:
        with trio.fail_after(PATIENCE_S):
            await trio.lowlevel.wait_readable(self)
        told = decode(self.recv(1_500))
        return address_of(told.get(Attribute.XOR_MAPPED_ADDRESS) or b"", told.transaction)

    def heard(self) -> int:
        """How many answers lie there."""
        count = 0
        with suppress(BlockingIOError):
            while self.recv(1_500):
                count += 1
        return count


@asynccontextmanager
async def running(config: StunConfig) -> AsyncIterator[StunServer]:
    server = StunServer(config)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: server.run(task_status=task_status))
        yield server
        nursery.cancel_scope.cancel()


async def test_everybody_is_told_their_own_address() -> None:
    async with running(StunConfig(port=0)) as server:
        await until(lambda: server.port is not None)
        for host in ("127.0.0.1", "::1"):
            with Asking(server, host) as one, Asking(server, host) as other:
                assert await one.ask() == one.getsockname()[:2]
                assert await other.ask() == other.getsockname()[:2]


async def test_who_asks_too_much_is_not_heard_and_others_are() -> None:
    async with running(StunConfig(host="127.0.0.1", port=0, answers_per_s=5)) as server:
        await until(lambda: server.port is not None)
        with Asking(server) as loud, Asking(server, own="127.0.0.2") as quiet:
            for _ in range(40):
                loud.send(request())
            await quiet.ask()
            assert 5 <= loud.heard() <= 10, "five in each of two seconds at most"


async def test_no_more_is_read_in_a_second_than_may_be() -> None:
    async with running(StunConfig(host="127.0.0.1", port=0, datagrams_per_s=3)) as server:
        await until(lambda: server.port is not None)
        with Asking(server) as asking:
            began = trio.current_time()
            for _ in range(4):
                asking.send(request())
            for _ in range(4):
                await asking.hear()
            assert trio.current_time() >= began + 1


async def test_a_port_that_is_taken_is_waited_for() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        async with running(StunConfig(host="127.0.0.1", port=port, retry_s=0.05)) as server:
            await trio.testing.wait_all_tasks_blocked()
            assert server.port is None
            holder.close()
            await until(lambda: server.port == port)
            with Asking(server) as asking:
                await asking.ask()


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x\0y"])
async def test_a_host_that_is_none_breaks_nothing(host: str) -> None:
    async with running(StunConfig(host=host, port=0, retry_s=0.05)) as server:
        with trio.move_on_after(0.2):
            await until(lambda: server.port is not None)
        assert server.port is None


# the whole


async def test_clients_are_told_of_it_and_others_understand_it(start_server: StartServer) -> None:
    port = free_port()
    turn = {"TURN__URLS": "turn:turn.example.org", "TURN__SECRET": "s" * 32}
    server = await trio.to_thread.run_sync(
        lambda: start_server(
            STUN__ENABLED="true", STUN__PORT=str(port), GATEWAY__PUBLIC_URL="http://127.0.0.1:1/", **turn
        )
    )
    async with people(server.url, "ann") as [ann]:
        told = await ann.call("GET", "/v1/calls/ice-servers")
        [stun, relay] = told["ice_servers"]
        assert stun == {"urls": [f"stun:127.0.0.1:{port}"]}
        assert relay["username"].endswith(f":{ann.me.user_id}")
        assert told["expires_in"] == 86_400
    if (found := shutil.which("turnutils_stunclient")) is None:
        pytest.skip("no turnutils_stunclient")
    said = await trio.run_process([found, "-p", str(port), "127.0.0.1"], capture_stdout=True, check=False)
    assert b"UDP reflexive addr: 127.0.0.1:" in said.stdout, said
    await trio.to_thread.run_sync(asyncio.run, gather(port))
    assert await server.metric("secureconnect_stun_listening") == 1
    assert await server.metric("secureconnect_stun_datagrams_total") >= 2


async def gather(port: int) -> None:
    """As a WebRTC client: learn the address others see, and make a candidate of it."""
    loop = asyncio.get_running_loop()
    receiver = ice.Connection(ice_controlling=True)
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: ice.StunProtocol(receiver), local_addr=("127.0.0.1", 0)
    )
    ours = transport.get_extra_info("sockname")
    protocol.local_candidate = Candidate(
        foundation="1", component=1, transport="udp", priority=1, host=ours[0], port=ours[1], type="host"
    )
    seen, _ = await ice.server_reflexive_candidate(protocol, ("127.0.0.1", port))
    assert (seen.type, seen.host, seen.port) == ("srflx", *ours)
    transport.close()
