"""What is offered to sockets: encoded once, sent by one task, held back for the slow, left out under load."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection

from kit.wait import until
from secureconnect.config import GatewayConfig
from secureconnect.edge import Close, Frame, Run, Socket, Weight
from secureconnect.gateway import framing
from secureconnect.gateway.fanout import LATE_S, Fanout, Outbox, OutboxCrowd
from secureconnect.metrics import REGISTRY

from .house import UPGRADE, House, Raw, narrow_stream, open_house

ANN = {"authorization": "Bearer ann"}


def fanout_of(house: House) -> Fanout:
    return house.gateway._sockets.fanout


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def slow_reader(house: House) -> AsyncIterator[tuple[Raw, Socket]]:
    """A client behind the smallest buffers that has read nothing but its 101, and its socket."""
    known = len(house.room.sockets)
    async with await narrow_stream(house) as stream:
        raw = Raw(stream)
        await raw.request("GET", "/v1/ws/deaf", {**UPGRADE, **ANN})
        assert (await raw.response()).status == 101
        await until(lambda: len(house.room.sockets) > known)
        yield raw, house.room.sockets[known]


async def fill(house: House, socket: Socket, frame: Frame) -> None:
    """Offer until the network takes no more."""

    async def is_blocked() -> bool:
        if not fanout_of(house)._blocked:
            assert socket.offer(frame)
            await trio.lowlevel.checkpoint()
        return bool(fanout_of(house)._blocked)

    await until(is_blocked)


async def read_on(client: WebSocketConnection) -> None:
    with suppress(ConnectionClosed):
        while True:
            await client.get_message()


async def test_a_frame_is_encoded_once_for_all(house: House) -> None:
    clients = [await house.socket("/v1/ws/deaf") for _ in range(20)]
    await until(lambda: len(house.room.sockets) == 20)
    frames = [Frame(b"%d" % number) for number in range(3)]
    for frame in frames:
        assert all(socket.offer(frame) for socket in house.room.sockets)
    wires = [frame.wire for frame in frames]
    sent_before = value("websocket_messages_total", direction="out")
    for client in clients:
        assert [await client.get_message() for _ in frames] == ["0", "1", "2"]
    assert all(frame.wire is wire for frame, wire in zip(frames, wires, strict=True))
    await until(lambda: value("websocket_messages_total", direction="out") >= sent_before)
    assert not fanout_of(house)._blocked


async def test_a_run_is_joined_once_and_counted_as_its_frames(house: House) -> None:
    clients = [await house.socket("/v1/ws/deaf") for _ in range(5)]
    await until(lambda: len(house.room.sockets) == 5)
    sent = value("websocket_messages_total", direction="out")
    run = Run([Frame(b"%d" % number) for number in range(3)])
    assert all(socket.offer_run(run) for socket in house.room.sockets)
    wire = run.wire
    assert all(socket.offer_run(run) for socket in house.room.sockets)
    for client in clients:
        assert [await client.get_message() for _ in range(6)] == ["0", "1", "2"] * 2
    assert run.wire is wire
    await until(lambda: value("websocket_messages_total", direction="out") == sent + 30)


async def test_a_run_that_is_large_is_queued_frame_by_frame_up_to_the_bound() -> None:
    async with open_house(ws_outbox_bytes=300_000) as house:
        client = await house.socket("/v1/ws/deaf")
        await until(lambda: len(house.room.sockets) == 1)
        socket = house.room.sockets[0]
        assert socket.offer_run(Run([Frame(b"x" * 40_000)] * 2))
        assert len(socket._outbox._frames) == 2  # type: ignore[attr-defined]
        assert [len(await client.get_message()) for _ in range(2)] == [40_000] * 2
        small = Run([Frame(b"x" * 20_000)] * 3)
        assert [socket.offer_run(small) for _ in range(6)] == [True] * 4 + [False] * 2
        assert socket.closed  # type: ignore[attr-defined]


async def test_a_crowd_and_each_of_it_are_offered_to_in_one_order(house: House) -> None:
    clients = [await house.socket("/v1/ws/deaf") for _ in range(5)]
    await until(lambda: len(house.room.sockets) == 5)
    sockets = house.room.sockets
    crowd = sockets[0].gather(sockets)
    sent = value("websocket_messages_total", direction="out")
    frames = [Frame(b"%d" % number) for number in range(6)]
    assert sockets[1].offer(Frame(b"before"))
    assert not crowd.offer(frames[0])
    wire = frames[0].wire
    assert sockets[2].offer(Frame(b"between"))
    assert not crowd.offer_run(Run(frames[1:3]))
    assert not crowd.offer(frames[3])
    assert sockets[3].offer(Frame(b"after"))
    await until(lambda: value("websocket_messages_total", direction="out") == sent + 5 * 4 + 3)
    assert all(socket._outbox.is_clear for socket in sockets)  # type: ignore[attr-defined]
    assert not crowd.offer_run(Run(frames[4:]))
    await until(lambda: value("websocket_messages_total", direction="out") == sent + 5 * 6 + 3)
    assert all(socket._outbox.is_clear for socket in sockets)  # type: ignore[attr-defined]
    assert sockets[4].offer(Frame(b"later"))
    for number, client in enumerate(clients):
        due = ["0", "1", "2", "3"]
        if 1 <= number <= 3:
            due.insert((0, 1, 4)[number - 1], ("before", "between", "after")[number - 1])
        assert [await client.get_message() for _ in due] == due
        assert [await client.get_message() for _ in range(2)] == ["4", "5"]
    assert await clients[4].get_message() == "later"
    assert frames[0].wire is wire


async def test_those_of_a_crowd_who_cannot_take_it_are_named_and_hold_up_nobody() -> None:
    async with open_house(ws_outbox_bytes=300_000) as house, slow_reader(house) as (raw, slow):
        clients = [await house.socket("/v1/ws/deaf") for _ in range(3)]
        await until(lambda: len(house.room.sockets) == 4)
        sockets = house.room.sockets
        crowd = sockets[0].gather([sockets[1], slow, *sockets[2:]])
        assert sockets[0] is slow
        await fill(house, slow, Frame(b"x" * 60_000))
        assert not crowd.offer(Frame(b"0"))
        assert not crowd.offer_run(Run([Frame(b"1"), Frame(b"2")]))
        sockets[3].close(Close.NORMAL, "")
        assert crowd.offer(Frame(b"3")) == [3]
        for client in clients[:2]:
            assert [await client.get_message() for _ in range(4)] == ["0", "1", "2", "3"]
        assert [await clients[2].get_message() for _ in range(3)] == ["0", "1", "2"]
        with pytest.raises(ConnectionClosed):
            await clients[2].get_message()
        await raw.receive_until(b"\x81\x010\x81\x011\x81\x012\x81\x013")  # it reads at last, all of it
        for client in clients[:2]:
            house.nursery.start_soon(read_on, client)
        await until(lambda: not fanout_of(house)._blocked)
        assert crowd.offer(Frame(b"small")) == [3]
        outbox = slow._outbox  # type: ignore[attr-defined]
        await until(lambda: outbox.is_clear)
        while outbox not in fanout_of(house)._blocked:  # by what the crowd is offered
            assert crowd.offer(Frame(b"x" * 60_000)) == [3]
            await trio.testing.wait_all_tasks_blocked()
        for word in (b"one", b"two"):
            assert crowd.offer(Frame(word)) == [3]
            await trio.testing.wait_all_tasks_blocked()
        assert outbox.size == 10
        await raw.receive_until(b"\x81\x03one\x81\x03two")
        frame, run = Frame(b"x" * 30_000), Run([Frame(b"y" * 10_000)] * 3)
        lost: Sequence[int] = [3]
        while lost == [3]:  # small as it is, it has a bound
            lost = crowd.offer_run(run) if slow.is_behind else crowd.offer(frame)
            assert outbox.size <= 300_000
            await trio.testing.wait_all_tasks_blocked()
        assert lost == [1, 3]
        assert slow.code == Close.TOO_SLOW  # type: ignore[attr-defined]
        assert not sockets[1].closed  # type: ignore[attr-defined]
        assert not sockets[2].closed  # type: ignore[attr-defined]
    await until(lambda: fanout_of(house)._held == 0)


async def test_what_a_crowd_was_offered_comes_before_what_ends_one_of_it(house: House) -> None:
    clients = [await house.socket("/v1/ws/deaf") for _ in range(3)]
    await until(lambda: len(house.room.sockets) == 3)
    sockets = house.room.sockets
    crowd = sockets[0].gather(sockets)
    assert not crowd.offer(Frame(b"told"))
    sockets[1].close(Close.NORMAL, "")
    sockets[2].close(Close.UNAUTHENTICATED, "")  # and here nothing more may be told
    assert crowd.offer(Frame(b"more")) == [1, 2]
    assert [await clients[0].get_message() for _ in range(2)] == ["told", "more"]
    await house.streams[0].aclose()
    await until(lambda: crowd.offer(Frame(b"to nobody")) == [0, 1, 2])
    assert await clients[1].get_message() == "told"
    for client, code in ((clients[1], 1000), (clients[2], 4401)):
        with pytest.raises(ConnectionClosed) as closed:
            await client.get_message()
        assert closed.value.reason.code == code  # type: ignore[union-attr]


async def test_one_of_a_crowd_that_is_shut_takes_nothing_after_what_waits(house: House) -> None:
    client = await house.socket("/v1/ws/deaf")
    await until(lambda: len(house.room.sockets) == 1)
    (socket,) = house.room.sockets
    crowd = socket.gather([socket])
    assert not crowd.offer(Frame(b"told"))
    socket._outbox.shut()  # type: ignore[attr-defined]
    assert await client.get_message() == "told"
    assert crowd.offer(Frame(b"more")) == [0]
    assert crowd.offer_run(Run([Frame(b"and"), Frame(b"more")])) == [0]


async def test_one_of_a_crowd_that_is_lost_as_it_is_sent_to_takes_no_more() -> None:
    class Lost:
        gone = False

        def send(self, data: bytes) -> bool:
            outbox.shut()
            outbox.drop()
            return True

    fanout = Fanout(GatewayConfig())
    outbox = Outbox(Lost(), fanout, False, lambda: None)  # type: ignore[arg-type]
    crowd = OutboxCrowd([outbox])
    async with trio.open_nursery() as nursery:
        await nursery.start(fanout.run)
        assert not crowd.offer(Frame(b"sent"))
        await trio.testing.wait_all_tasks_blocked()
        assert crowd.offer(Frame(b"more")) == [0]
        nursery.cancel_scope.cancel()


async def test_a_crowd_takes_compressed_frames_and_plain_ones() -> None:
    async with open_house(ws_compression=True) as house, await narrow_stream(house) as stream:
        raw = Raw(stream)
        offer = {"sec-websocket-extensions": "permessage-deflate"}
        plain = [await house.socket("/v1/ws/deaf")]
        await until(lambda: len(house.room.sockets) == 1)
        await raw.request("GET", "/v1/ws/deaf", {**UPGRADE, **ANN, **offer})
        assert (await raw.response()).status == 101
        await until(lambda: len(house.room.sockets) == 2)
        plain.append(await house.socket("/v1/ws/deaf"))
        await until(lambda: len(house.room.sockets) == 3)
        sockets = house.room.sockets
        crowd = sockets[0].gather(sockets)
        frames = [Frame(b"%d" % number * 1_000) for number in range(3)]
        assert not crowd.offer(frames[0])
        assert not crowd.offer_run(Run(frames[1:]))
        due = b"".join(framing.deflated(frame.data) for frame in frames)
        assert len(due) < 200
        await raw.receive_until(due)
        for client in plain:
            assert [await client.get_message() for _ in frames] == [frame.data.decode() for frame in frames]
        sockets[1].close(Close.NORMAL, "")
        assert crowd.offer(Frame(b"more")) == [1]
        sockets[2].close(Close.NORMAL, "")
        assert sorted(crowd.offer(Frame(b"more"))) == [1, 2]


async def test_what_is_large_or_of_little_weight_is_weighed_for_each_of_a_crowd() -> None:
    async with open_house(ws_outbox_bytes=200_000) as house:
        clients = [await house.socket("/v1/ws/deaf") for _ in range(2)]
        await until(lambda: len(house.room.sockets) == 2)
        sockets = house.room.sockets
        crowd = sockets[0].gather(sockets)
        shed = value("secureconnect_gateway_frames_shed_total", weight="typing")
        fanout_of(house).weigh(LATE_S[Weight.TYPING] * 2)
        assert not crowd.offer(Frame(b"typing", Weight.TYPING))
        assert value("secureconnect_gateway_frames_shed_total", weight="typing") == shed + 2
        assert not crowd.offer_run(Run([Frame(b"x" * 70_000)] * 2))
        assert not crowd.offer(Frame(b"y" * 50_000))
        assert crowd.offer(Frame(b"z" * 20_000)) == [0, 1]
        assert all(socket.code == Close.TOO_SLOW for socket in sockets)  # type: ignore[attr-defined]
        for client in clients:
            with pytest.raises(ConnectionClosed) as closed:
                await client.get_message()
            assert closed.value.reason.code == Close.TOO_SLOW  # type: ignore[union-attr]


async def test_what_a_crowd_was_offered_counts_for_the_bound_of_each() -> None:
    async with open_house(ws_outbox_bytes=100_000) as house:
        client = await house.socket("/v1/ws/deaf")
        await until(lambda: len(house.room.sockets) == 1)
        (socket,) = house.room.sockets
        assert not socket.gather([socket]).offer(Frame(b"x" * 60_000))
        assert socket.is_behind
        assert not socket.offer(Frame(b"x" * 50_000))
        with pytest.raises(ConnectionClosed) as closed:
            await client.get_message()
        assert closed.value.reason.code == Close.TOO_SLOW  # type: ignore[union-attr]


async def test_one_who_does_not_read_holds_up_nobody(house: House) -> None:
    async with slow_reader(house) as (raw, slow):
        quick = await house.socket("/v1/ws/deaf")
        await until(lambda: len(house.room.sockets) == 2)
        await fill(house, slow, Frame(b"x" * 60_000))
        with trio.fail_after(1):
            for number in range(100):
                for socket in house.room.sockets:
                    socket.offer(Frame(b"%d" % number))
                assert await quick.get_message() == str(number)
        # and once it reads, it gets every frame whole, in order, up to the last
        await raw.receive_until(b"\x81\x0299")
    await until(lambda: fanout_of(house)._held == 0)


async def test_what_is_sent_at_its_pace_keeps_the_order_of_offers() -> None:
    async with open_house() as house, slow_reader(house) as (raw, slow):
        await fill(house, slow, Frame(b"x" * 60_000))
        done = trio.Event()

        async def send() -> None:
            await slow.send(Frame(b"sent"))
            done.set()

        slow.offer(Frame(b"before"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            assert not done.is_set()
            slow.offer(Frame(b"after"))
            await raw.receive_until(b"\x81\x06before\x81\x04sent\x81\x05after")
            with trio.fail_after(5):
                await done.wait()


async def test_who_pings_and_does_not_read_is_closed() -> None:
    """What answers a client has the bound that events have."""
    async with open_house(ws_frames_per_10s=1_000_000) as house, slow_reader(house) as (raw, slow):
        await fill(house, slow, Frame(b"x" * 60_000))
        outbox, largest = slow._outbox, 0  # type: ignore[attr-defined]
        ping = b"\x89\xfd" + bytes(4) + b"p" * 125
        with trio.fail_after(5):
            while not slow.closed:  # type: ignore[attr-defined]
                slow.feed(ping * 100)  # type: ignore[attr-defined]
                largest = max(largest, outbox.size)
                await trio.lowlevel.checkpoint()
        assert slow.code == 1013  # type: ignore[attr-defined]
        assert largest <= 1_048_576
        raw.stream.socket.close()
    await until(lambda: fanout_of(house)._held == 0)


async def test_the_gauges_follow_what_happens_without_an_offer(house: House) -> None:
    async with slow_reader(house) as (_, slow):
        await fill(house, slow, Frame(b"x" * 60_000))
        assert slow.offer(Frame(b"x" * 60_000))
        await until(lambda: value("secureconnect_gateway_outbox_bytes") > 0)
    await until(lambda: value("secureconnect_gateway_outbox_bytes") == 0)
    await until(lambda: value("secureconnect_gateway_sockets_blocked") == 0)


async def test_typing_is_left_out_first_then_presence_and_a_durable_event_never() -> None:
    async with open_house(ws_outbox_bytes=100_000) as house, slow_reader(house) as (_, slow):
        await fill(house, slow, Frame(b"x" * 10_000))
        outbox = slow._outbox  # type: ignore[attr-defined]
        name = "secureconnect_gateway_frames_shed_total"
        shed = {word: value(name, weight=word) for word in ("typing", "presence")}

        def taken(weight: Weight) -> bool:
            size = outbox.size
            assert slow.offer(Frame(b"x" * 100, weight))
            return bool(outbox.size > size)

        taken_at: dict[Weight, int] = {}
        while slow.offer(Frame(b"x" * 1_000)):
            for weight in (Weight.TYPING, Weight.PRESENCE):
                if taken(weight):
                    taken_at[weight] = outbox.size
        assert taken_at[Weight.TYPING] <= 25_000 < taken_at[Weight.PRESENCE] <= 50_000
        for word, before in shed.items():
            assert value(name, weight=word) > before
    await until(lambda: fanout_of(house)._held == 0)


async def test_a_late_flusher_sheds_and_recovers(house: House) -> None:
    client = await house.socket("/v1/ws/deaf")
    await until(lambda: len(house.room.sockets) == 1)
    (socket,) = house.room.sockets
    fanout = fanout_of(house)
    fanout.weigh(LATE_S[Weight.TYPING] * 2)
    assert socket.offer(Frame(b"typing", Weight.TYPING))
    assert socket.offer(Frame(b"presence", Weight.PRESENCE))
    assert await client.get_message() == "presence"
    fanout.weigh(LATE_S[Weight.PRESENCE] * 2)
    assert socket.offer(Frame(b"presence again", Weight.PRESENCE))
    assert socket.offer(Frame(b"durable"))
    assert await client.get_message() == "durable"

    async def is_heard() -> bool:
        """Nothing but typing is offered: the watch lets it through again."""
        socket.offer(Frame(b"typing", Weight.TYPING))
        with trio.move_on_after(0.05):
            return await client.get_message() == "typing"
        return False

    fanout.weigh(LATE_S[Weight.PRESENCE] * 2)
    await until(is_heard)


async def test_the_fullest_gives_way_when_all_hold_too_much() -> None:
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_house(ws_outboxes_bytes=1_048_576, close_timeout_s=0.3))
        slow = [await stack.enter_async_context(slow_reader(house)) for _ in range(3)]
        sockets = [socket for _, socket in slow]
        fanout = fanout_of(house)
        piece = Frame(b"x" * 60_000)
        for count, socket in enumerate(sockets, 1):
            while len(fanout._blocked) < count:
                assert socket.offer(piece)
                await trio.lowlevel.checkpoint()
        for _ in range(3):
            assert sockets[0].offer(piece)
        while sockets[1].offer(piece):
            assert not sockets[1].closed  # type: ignore[attr-defined]
            assert sockets[2].offer(Frame(b"small"))
        assert sockets[1].closed  # type: ignore[attr-defined]
        assert sockets[0].offer(piece)
        assert sockets[2].offer(piece)
        assert fanout._held <= 1_048_576
        assert fanout._held == sum(each.size for each in fanout._blocked)
    await until(lambda: fanout._held == 0)


@pytest.mark.parametrize("path", ["/v1/ws/deaf", "/v1/ws/echo"])
async def test_nothing_is_held_for_those_who_left(path: str) -> None:
    """Slow and quick, leaving in every way while they are offered to."""
    async with open_house(close_timeout_s=0.2, write_timeout_s=0.3) as house:
        fanout = fanout_of(house)
        frame = Frame(b"x" * 20_000)
        async with AsyncExitStack() as stack:
            for number in range(12):
                if number % 3:
                    await house.socket(path)
                else:
                    stream = await stack.enter_async_context(await narrow_stream(house))
                    raw = Raw(stream)
                    await raw.request("GET", path, {**UPGRADE, **ANN})
                    assert (await raw.response()).status == 101
            await until(lambda: len(house.room.sockets) == 12)
            for turn in range(200):
                for number, socket in enumerate(house.room.sockets):
                    socket.offer(frame)
                    if number % 4 == turn % 4 and turn > 50 + number:
                        socket.close(1000, "")  # type: ignore[arg-type]
                if not turn % 10:
                    await trio.lowlevel.checkpoint()
                assert fanout._held == sum(each.size for each in fanout._blocked)
        await until(lambda: fanout._held == 0 and not fanout._blocked)
        assert (await house.ask("GET", "/v1/open")).status == 200
