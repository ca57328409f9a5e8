"""Traces: one message over two nodes, what a span tells and what never, and collectors that are not there."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import pytest
import trio

from kit.collector import Collector, Recorded, collector
from kit.fixtures import StartServer
from kit.http import plain
from kit.people import PASSWORD, begin_upload, group, next_event, people, put
from kit.ports import free_port
from kit.server import Server
from kit.spans import Spans
from kit.wait import until
from kit.worlds import World
from secureconnect import tracing
from secureconnect.chat import carrier
from secureconnect.chat.live import Live
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.traced import TracedDatabase, summary_of
from secureconnect.edge import Frame
from secureconnect.errors import Conflict, NotFound, Unavailable
from secureconnect.identity import CallId, ConversationId, NodeId
from secureconnect.signaling import rosters
from secureconnect.tracing import NOTHING, Kind
from signaling.phones import talking

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
MASTER_KEY = base64.b64encode(bytes(range(32))).decode()
# a machine that is busy is no outage here
PATIENT = {"BREAKER__PROBE_LIMIT_MS": "10000", "REDIS__CALL_S": "10", "RATE_LIMITS__ENABLED": "true"}
BUSY_S = 30.0
SECRET = "what nobody else may read"
FACTS = {
    "db.query.summary",
    "db.system.name",
    "error.type",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "secureconnect.db.rows",
    "secureconnect.db.wait_ms",
}


@pytest.fixture
def there() -> Iterator[Collector]:
    with collector() as made:
        yield made


def traced(url: str, **settings: str) -> dict[str, str]:
    return {"TRACING__ENDPOINT": url, "TRACING__RATIO": "1", "TRACING__EVERY_S": "0.05"} | settings


@pytest.mark.parametrize("world", ["real"], indirect=True)
async def test_one_message_is_one_trace_on_both_nodes_and_so_is_what_sets_a_call_up(
    start_server: StartServer, world: World, there: Collector
) -> None:
    settings = world() | PATIENT | traced(there.url, AUTH__MASTER_KEY=MASTER_KEY)
    first, second = [await trio.to_thread.run_sync(lambda: start_server(**settings)) for _ in "ab"]
    for server in (first, second):
        await until(partial(_is_whole, server), BUSY_S)
    async with people(first.url, "ann") as (ann,), people(second.url, "bob") as (bob,):
        room = await group(ann, bob)
        async with ann.stream() as from_ann, bob.stream() as to_bob:
            await next_event(to_bob, "online", within_s=BUSY_S)  # or it is history when bob comes
            await from_ann.send(room, "so that the second node knows the room")
            await next_event(to_bob, "chat", within_s=BUSY_S)
            await until(lambda: bool(there.traces("frame chat")), BUSY_S)
            [before] = there.traces("frame chat")
            await from_ann.send(room, SECRET)
            await next_event(to_bob, "chat", within_s=BUSY_S, content=SECRET)
        # the bus answers whoever publishes when others have heard it already, perhaps
        publish = ["publish event", "redis publish", "deliver event"]
        names = ["frame chat", "store message", "deliver event", *publish]
        _check_message(await there.holds(names, but=before))
        file_id, url = await begin_upload(ann, b"what is in the file")
        await put(url, b"what is in the file")
        await ann.call("POST", "/v1/storage/upload-complete", {"file_id": file_id})
        _check_request(await there.holds(["POST /v1/storage/upload-complete"]))
        async with talking(ann, bob) as (one, other):
            await one.say("offer", target_id=other.peer_id, sdp=SECRET)
            await other.next("offer", sdp=SECRET)
            _check_offer(await there.holds(["frame offer", "publish signal", "deliver signal"]))
            _check_told(await there.holds(["POST /v1/calls/initiate", "deliver signal", "deliver signal"]))
        hidden = (
            one.peer_id,
            SECRET,
            PASSWORD,
            await ann.access_token(),
            room,
            file_id,
            ann.me.user_id,
            ann.me.username,
        )
    said = b"".join(there.bodies)
    assert not [each for each in (*hidden, "example.org", "127.0.0.1") if each.encode() in said]
    assert {name for span in there.spans() for name in span.facts} <= FACTS


async def _is_whole(server: Server) -> bool:
    async with plain(timeout=BUSY_S) as http:
        return str((await http.get(f"{server.url}/health")).json()["status"]) == "healthy"


def _check_message(spans: list[Recorded]) -> None:
    """Frame, unit of work, statements, commit; delivered here; carried by Redis, and delivered there."""
    below = _children(spans)
    [frame] = below[""]
    [store] = below[frame.id]
    write, here, publish = sorted(below[store.id], key=lambda span: "wdp".index(span.name[0]))
    [redis, elsewhere] = sorted(below[publish.id], key=lambda span: span.name, reverse=True)
    names = [span.name for span in (frame, store, write, here, publish, redis, elsewhere)]
    assert names == [
        *("frame chat", "store message", "write append"),
        *("deliver event", "publish event", "redis publish", "deliver event"),
    ]
    kinds = [span.kind for span in (frame, write, here, publish, redis, elsewhere)]
    assert kinds == [
        *(Kind.SERVER, Kind.INTERNAL, Kind.CONSUMER),
        *(Kind.PRODUCER, Kind.CLIENT, Kind.CONSUMER),
    ]
    statements = sorted(below[write.id], key=lambda span: span.began_ns)
    assert [span.name for span in statements][-2:] == ["UPDATE conversations", "COMMIT"]
    [insert] = [span for span in statements if span.name == "INSERT messages"]
    assert insert.facts == {
        "db.system.name": "postgresql",
        "db.query.summary": "INSERT messages",
        "secureconnect.db.rows": 1,
    }
    assert {span.process for span in spans} - {elsewhere.process} == {frame.process}
    assert here.process == frame.process
    assert elsewhere.process != frame.process
    assert statements[-1].ended_ns <= here.began_ns, "it is told before it is stored"


def _check_offer(spans: list[Recorded]) -> None:
    """Frame, on its way to the other node, and there."""
    below = _children(spans)
    [frame] = below[""]
    [publish] = below[frame.id]
    [elsewhere] = below[publish.id]
    assert [span.name for span in spans if span not in (frame, publish, elsewhere)] == []
    assert [(span.name, span.kind) for span in (frame, publish, elsewhere)] == [
        ("frame offer", Kind.SERVER),
        ("publish signal", Kind.PRODUCER),
        ("deliver signal", Kind.CONSUMER),
    ]
    assert publish.process == frame.process != elsewhere.process


def _check_told(spans: list[Recorded]) -> None:
    """That somebody is called goes the same way."""
    below = _children(spans)
    [request] = below[""]
    here, publish = sorted(
        (span for span in below[request.id] if span.name.endswith("signal")), key=lambda span: span.name
    )
    [elsewhere] = below[publish.id]
    assert (here.process, elsewhere.name) == (request.process, here.name)
    assert elsewhere.process != request.process


def _check_request(spans: list[Recorded]) -> None:
    below = _children(spans)
    [request] = below[""]
    assert request.facts == {
        "http.request.method": "POST",
        "http.route": "/v1/storage/upload-complete",
        "http.response.status_code": 200,
    }
    names = {span.name for span in below[request.id]}
    assert {"redis take", "s3 stat", "s3 copy", "write claim"} <= names
    assert {span.kind for span in below[request.id] if span.name.startswith(("redis", "s3"))} == {Kind.CLIENT}


def _children(spans: list[Recorded]) -> dict[str, list[Recorded]]:
    found: dict[str, list[Recorded]] = {}
    for span in spans:
        found.setdefault(span.parent, []).append(span)
    assert set(found) - {span.id for span in spans} <= {""}, "a span's parent is missing"
    assert not any(span.failed for span in spans)
    return found


async def test_a_collector_that_is_away_costs_spans_alone(start_server: StartServer) -> None:
    server = start_server(**traced(f"http://127.0.0.1:{free_port()}", TRACING__QUEUE="20"))
    await _ask(server, 100)
    await until(lambda: bool(_lines(server)))
    await _ask(server, 100)
    await _dropped(server)
    assert [line["reason"] for line in _lines(server)] == ["ConnectError"]
    assert await _seconds_to_end(server) < BUSY_S / 2


async def test_a_frozen_collector_costs_spans_alone(start_server: StartServer, there: Collector) -> None:
    there.status = None
    server = start_server(
        **traced(there.url, TRACING__QUEUE="20", TRACING__CALL_S="60", TRACING__CLOSE_S="0.5")
    )
    await _ask(server, 10)
    await until(lambda: there.asked == 1)  # and from now on it waits
    await _ask(server, 100)
    await _dropped(server)
    assert there.asked == 1
    assert await _seconds_to_end(server) < BUSY_S / 2


async def _ask(server: Server, times: int) -> None:
    async with plain(timeout=BUSY_S) as http:
        for _ in range(times):
            assert (await http.get(f"{server.url}/v1/nothing")).status_code == 404


async def _dropped(server: Server) -> None:
    async def are_dropped() -> bool:
        return await server.metric("secureconnect_tracing_spans_total") >= 80

    await until(are_dropped, BUSY_S)


def _lines(server: Server) -> list[dict[str, Any]]:
    return [line for line in server.logs() if line["module"] == "tracing"]


async def _seconds_to_end(server: Server) -> float:
    began = trio.current_time()
    assert await trio.to_thread.run_sync(server.terminate) == 0
    return trio.current_time() - began


async def test_what_a_collector_may_take_later_is_kept_and_what_it_refuses_is_not(
    start_server: StartServer, there: Collector
) -> None:
    there.status = 503
    server = start_server(
        **traced(
            there.url,
            TRACING__PARENTS="any",
            TRACING__RATIO="0",
            TRACING__HEADERS="authorization=Bearer abc",
            TRACING__SERVICE="chat-1",
            TRACING__LONGEST_PAUSE_S="0.1",
        )
    )

    async def ask(parent: str) -> None:
        async with plain(timeout=BUSY_S) as http:
            await http.get(f"{server.url}/v1/users/me", headers={"traceparent": f"00-{TRACE}-{parent}-01"})

    await ask("1" * 16)
    await until(lambda: there.asked > 2)
    there.status = 200
    await until(lambda: [span.parent for span in there.spans(TRACE)] == ["1" * 16])
    there.status = 400
    asked = there.asked
    await ask("2" * 16)
    await until(lambda: there.asked > asked)
    there.status = 200
    await ask("3" * 16)
    await until(lambda: [span.parent for span in there.spans(TRACE)] == ["1" * 16, "3" * 16])
    assert there.headers[0]["authorization"] == "Bearer abc"
    assert b"chat-1" in there.bodies[0]
    await until(lambda: len(_lines(server)) == 4)
    lines = [(line["msg"], line.get("reason")) for line in _lines(server)]
    taken = ("spans_taken_again", None)
    assert lines == [("spans_not_taken", "503"), taken, ("spans_not_taken", "400"), taken]
    await ask("4" * 16)
    assert await trio.to_thread.run_sync(server.terminate) == 0
    assert there.spans(TRACE)[-1].parent == "4" * 16, "the last ones are sent at the end"


# within one process


def test_while_it_is_off_there_is_nothing() -> None:
    for made in (tracing.root("a"), tracing.span("b"), tracing.resumed("c", Kind.CONSUMER, TRACEPARENT)):
        assert made is NOTHING
    with tracing.together([NOTHING]), NOTHING as span:
        span.note("d", 1)
        assert span.child("e") is NOTHING
    assert NOTHING.traceparent is None


def test_only_a_share_is_recorded_and_children_with_it() -> None:
    spans = Spans(ratio=0.5)
    with tracing.recording(spans):
        for _ in range(1_000):
            with tracing.root("root"), tracing.span("child"):
                pass
    assert 800 < len(spans.ended) < 1_200
    assert len({span.trace for span in spans.ended}) * 2 == len(spans.ended)


def test_what_is_done_for_several_is_recorded_under_the_first() -> None:
    spans = Spans()
    with tracing.recording(spans):
        one, other = tracing.root("one"), tracing.root("other")
        with tracing.together([NOTHING, one, other]), tracing.span("work"):
            pass
        one.end()
        other.end()
        one.end()
    work, first, second = spans.ended
    assert (work.trace, work.parent_id) == (one.trace, one.span_id)
    assert (first.links, second.links) == ([], [(one.trace_id, one.span_id)])


def test_an_error_shows_its_kind_and_never_its_text() -> None:
    spans = Spans()
    with tracing.recording(spans):
        for error in (ValueError(SECRET), NotFound(SECRET), Unavailable(SECRET)):
            with suppress(Exception), tracing.root("root"):
                raise error
    told = [(span.failure, span.facts) for span in spans.ended]
    assert told == [("ValueError", {}), (None, {"error.type": "NOT_FOUND"}), ("UNAVAILABLE", {})]


async def _rename(tx: Tx, name: str) -> None:
    await tx.run("UPDATE users SET display_name = $1", name)
    await tx.one("SELECT 1 FROM users")


async def _refuse(_: Tx) -> None:
    raise Conflict(SECRET)


async def _look(tx: Tx) -> None:
    await tx.all("SELECT nothing FROM users")


async def test_a_unit_is_followed_into_the_thread_that_runs_it(db: Database) -> None:
    spans, traced = Spans(), TracedDatabase(db)
    with tracing.recording(spans):
        await traced.write(_rename, SECRET)
        assert not spans.ended, "nobody has asked for it"
        with tracing.root("root") as root:
            await traced.write(_rename, SECRET)
            for work in (traced.write(_refuse), traced.read(_look)):
                with suppress(Conflict, RuntimeError):
                    await work
    told = [(span.name, span.failure, span.facts.get("error.type")) for span in spans.ended]
    assert told == [
        ("UPDATE users", None, None),
        ("SELECT users", None, None),
        ("COMMIT", None, None),
        ("write _rename", None, None),
        ("write _refuse", None, "CONFLICT"),
        ("SELECT users", "RuntimeError", None),
        ("read _look", "RuntimeError", None),
        ("root", None, None),
    ]
    update, select, commit, rename, *_ = spans.ended
    assert {span.parent_id for span in (update, select, commit)} == {rename.span_id}
    assert rename.parent_id == root.span_id
    assert [span.facts.get("secureconnect.db.rows") for span in (update, select)] == [0, 0]


@pytest.mark.parametrize(
    ("sql", "summary"),
    [
        ("INSERT INTO messages (a) VALUES ($1)", "INSERT messages"),
        ("  select a FROM users u JOIN blocks b", "SELECT users"),
        ("SELECT value FROM json_each($1) k JOIN members m", "SELECT members"),
        ("WITH x AS (SELECT 1) UPDATE quotas SET a = 1", "WITH quotas"),
        ("SELECT 1", "SELECT"),
        ("", "SQL"),
    ],
)
def test_a_statement_is_named_by_its_table(sql: str, summary: str) -> None:
    assert summary_of(sql) == summary


class OldCarried(msgspec.Struct, array_like=True):
    """As a node of the release before reads and writes an event."""

    kind: str
    conversation_id: str
    change: int
    seq: int | None
    user_id: str | None
    visible_from_seq: int | None
    data: bytes
    is_e2ee: bool | None = None
    message_id: str | None = None
    poll_id: str | None = None
    expires_us: int | None = None


def test_nodes_of_the_release_before_are_understood_and_understand() -> None:
    live = Live("chat", ConversationId("c"), 1, 2, None, None, Frame(b"{}"), trace=TRACEPARENT)
    new = msgspec.msgpack.encode(carrier._carried(live))
    old = msgspec.msgpack.decode(new, type=OldCarried)
    assert (old.kind, old.seq, old.data) == ("chat", 2, b"{}")
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=carrier._Carried)
    assert (again.kind, again.data, again.trace) == ("chat", b"{}", None)


class OldSaid(msgspec.Struct, array_like=True):
    """The same, of what is said of calls."""

    node_id: NodeId
    word: rosters.Word


def test_what_nodes_say_of_calls_is_understood_in_both_directions() -> None:
    word = rosters.Ended(CallId("c"), b"{}")
    new = msgspec.msgpack.encode(rosters.Said(NodeId("n"), word, TRACEPARENT))
    old = msgspec.msgpack.decode(new, type=OldSaid)
    assert (old.node_id, old.word) == ("n", word)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=rosters.Said)
    assert (again.word, again.trace) == (word, None)
