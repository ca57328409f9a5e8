"""Bodies that are not held in memory: read by the handler as they come, sent as the client takes them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from kit.wait import until
from secureconnect.edge import Audience, Call, File, Rate, Reply, Route
from secureconnect.errors import Unavailable
from secureconnect.gateway import openapi

from .house import House, Raw, Seen, TestRoom, narrow_stream, open_house

MB = 1_048_576
LIMIT = 64 * MB
PIECE = b"0123456789abcdef" * 4096
FILE = b"".join(b"%015d\n" % n for n in range(20_000))


class Told:
    """What the handlers have seen.

    hold: they go on when it is set.  ends: how each reader of a body ended.
    closed: of each body that was closed, how many pieces were taken.
    """

    def __init__(self) -> None:
        self.hold = trio.Event()
        self.ends: list[str] = []
        self.closed: list[int] = []
        self.read_bytes = 0


told = Told()


@pytest.fixture(autouse=True)
def fresh() -> None:
    told.__init__()  # type: ignore[misc]
    told.hold.set()


async def _take(_: TestRoom, call: Call) -> Reply:
    assert call.read is not None
    await told.hold.wait()
    end = "cut"
    try:
        while data := await call.read():
            told.read_bytes += len(data)
        end = "whole"
    finally:
        told.ends.append(end)
    return Reply(Seen(limit=told.read_bytes))


async def _take_long(room: TestRoom, call: Call) -> Reply:
    await trio.sleep(0.3)
    return await _take(room, call)


def _pieces(count: int, fails: Exception | None = None) -> AsyncGenerator[bytes, None]:
    async def pieces() -> AsyncGenerator[bytes, None]:
        taken = 0
        try:
            for _ in range(count):
                await trio.lowlevel.checkpoint()
                taken += 1
                yield PIECE
            if fails is not None:
                raise fails
        finally:
            told.closed.append(taken)

    return pieces()


def _give(count: int, fails: Exception | None = None) -> Callable[[TestRoom, Call], Awaitable[Reply]]:
    async def give(_: TestRoom, __: Call) -> Reply:
        return Reply(body=_pieces(count, fails), headers={"content-type": "application/octet-stream"})

    return give


async def _give_file(_: TestRoom, __: Call) -> Reply:
    return Reply(body=File(_FILE, len(FILE)), headers={"etag": '"f"', "content-disposition": "attachment"})


_FILE = Path(tempfile.gettempdir()) / "never"


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(FILE)
    monkeypatch.setattr(f"{__name__}._FILE", path)


# httpx leaves its own generators to the garbage collector
LEAVES_EARLY = pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)\\.:ResourceWarning")
BROKEN_OFF = (httpx.RemoteProtocolError, httpx.ReadError)  # the latter when the connection is reset
ANYONE, NONE = Audience.ANYONE, Rate.NONE
ROUTES = (
    Route("PUT", "/v1/up", _take, ANYONE, NONE, "Take it", answer=Seen, stream=LIMIT),
    Route("PUT", "/v1/small", _take, ANYONE, NONE, "Take a little", answer=Seen, stream=1000),
    Route("PUT", "/v1/long", _take_long, ANYONE, NONE, "Take long", answer=Seen, stream=1000),
    Route("PUT", "/v1/mine/up", _take, Audience.USER, NONE, "For users", answer=Seen, stream=1000),
    Route("GET", "/v1/down", _give(40), ANYONE, NONE, "Give", stream=0),
    Route("GET", "/v1/endless", _give(10**9), ANYONE, NONE, "Give for ever", stream=0),
    Route("GET", "/v1/broken", _give(3, OSError("the disk is gone")), ANYONE, NONE, "Break off", stream=0),
    Route("GET", "/v1/lost", _give(3, Unavailable()), ANYONE, NONE, "Lose it", stream=0),
    Route("GET", "/v1/file", _give_file, ANYONE, NONE, "Give a file", stream=0),
)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with open_house(routes=ROUTES) as house:
        yield house


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def client(house: House, version: str) -> AsyncIterator[httpx.AsyncClient]:
    """HTTP/2 with prior knowledge."""
    h2 = version == "HTTP/2"
    async with httpx.AsyncClient(
        http1=not h2, http2=h2, base_url=f"http://127.0.0.1:{house.port}", timeout=5, trust_env=False
    ) as client:
        yield client


@asynccontextmanager
async def taking_one_piece(http: httpx.AsyncClient, path: str) -> AsyncIterator[None]:
    async with http.stream("GET", path) as answer, aclosing(answer.aiter_raw()) as pieces:  # type: ignore[type-var]
        await anext(pieces)
        yield


async def repeated(count: int, sent: list[int] | None = None) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield PIECE
        if sent is not None:
            sent.append(len(PIECE))


async def trickle(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


# bodies of requests


async def test_a_body_is_read_as_it_comes(house: House, version: str) -> None:
    async with client(house, version) as http:
        answer = await http.put("/v1/up", content=repeated(50), headers={"content-type": "text/plain"})
        assert (answer.http_version, answer.status_code) == (version, 200)
        assert answer.json()["data"]["limit"] == 50 * len(PIECE)
        assert (await http.put("/v1/up")).json()["data"]["limit"] == 50 * len(PIECE)
    assert told.ends == ["whole", "whole"]


async def test_what_is_not_read_is_not_taken(house: House, version: str) -> None:
    """The network holds some megabytes, and we as good as nothing."""
    told.hold = trio.Event()
    sent: list[int] = []
    async with client(house, version) as http, trio.open_nursery() as nursery:

        async def upload() -> None:
            answer = await http.put("/v1/up", content=repeated(1000, sent))
            assert answer.json()["data"]["limit"] == 1000 * len(PIECE)

        nursery.start_soon(upload)
        await until(lambda: len(sent) > 0)
        with trio.fail_after(5):
            await trio.testing.wait_all_tasks_blocked(0.1)
        assert sum(sent) < 24 * MB
        told.hold.set()


async def test_a_body_past_its_limit(house: House, version: str) -> None:
    async with client(house, version) as http:
        fits = await http.put("/v1/small", content=b"x" * 1000)
        assert (fits.status_code, told.read_bytes) == (200, 1000)
        announced = await http.put("/v1/small", content=b"x" * 1001)
        assert (announced.status_code, told.read_bytes) == (413, 1000)
    async with client(house, version) as http:
        unannounced = await http.put("/v1/small", content=trickle(b"x" * 1000, b"x"))
        assert unannounced.status_code == 413
        assert unannounced.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"
    assert told.ends == ["whole", "cut"]  # the one that was announced has never been begun


async def test_the_gate_comes_first(house: House, version: str) -> None:
    async with client(house, version) as http:
        assert (await http.put("/v1/mine/up", content=b"x")).status_code == 401
        assert (await http.post("/v1/mine/up", content=b"x")).status_code == 405
        assert told.ends == []
        token = {"authorization": "Bearer ann"}
        assert (await http.put("/v1/mine/up", content=b"x", headers=token)).status_code == 200


async def test_only_the_client_is_timed() -> None:
    async with open_house(routes=ROUTES, request_deadline_s=0.1, body_timeout_s=0.2) as house:
        raw = await house.connect()
        await raw.request("PUT", "/v1/long", {"content-length": "4"}, data=b"abcd")
        assert (await raw.response()).status == 200
        raw = await house.connect()
        await raw.request("PUT", "/v1/up", {"content-length": "4"}, data=b"abc")
        late = await raw.response()
        assert (late.status, late.code) == (408, "REQUEST_TIMEOUT")


async def test_a_body_in_drops_does_not_earn_time() -> None:
    async with open_house(routes=ROUTES, body_timeout_s=0.4, body_rate_bytes=1_000_000) as house:
        raw = await house.connect()
        await raw.request("PUT", "/v1/up", {"content-length": "10000"})
        with trio.fail_after(5):
            while not raw.stream.socket.is_readable():
                await raw.send(b"x")
                await trio.sleep(0.02)
        late = await raw.response()
        assert (late.status, late.code) == (408, "REQUEST_TIMEOUT")
        assert told.read_bytes > 5


async def test_who_leaves_has_not_sent_a_whole(house: House, version: str) -> None:
    async with client(house, version) as http, trio.open_nursery() as nursery:

        async def upload() -> None:
            async def half() -> AsyncIterator[bytes]:
                yield PIECE
                await trio.sleep_forever()

            await http.put("/v1/up", content=half())

        nursery.start_soon(upload)
        await until(lambda: told.read_bytes == len(PIECE))
        nursery.cancel_scope.cancel()
    await until(lambda: told.ends == ["cut"])


# bodies of answers


async def test_a_body_in_pieces(house: House, version: str) -> None:
    async with client(house, version) as http:
        answer = await http.get("/v1/down")
        assert (answer.status_code, answer.content) == (200, PIECE * 40)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["x-content-type-options"] == "nosniff"
        head = await http.head("/v1/down")
        assert (head.status_code, head.content) == (200, b"")
        assert (await http.get("/v1/open")).status_code == 200
    assert told.closed in ([40], [40, 0])  # a generator that was never begun has nothing to close


@LEAVES_EARLY
async def test_who_leaves_is_sent_no_more(house: House, version: str) -> None:
    async with client(house, version) as http, taking_one_piece(http, "/v1/endless"):
        pass
    await until(lambda: len(told.closed) == 1)
    assert told.closed[0] < 1000


@LEAVES_EARLY
async def test_who_does_not_read_is_sent_no_more(house: House, version: str) -> None:
    async with client(house, version) as http, taking_one_piece(http, "/v1/endless"):
        with trio.fail_after(5):
            await trio.testing.wait_all_tasks_blocked(0.1)
        assert told.closed == []
    await until(lambda: len(told.closed) == 1)
    assert told.closed[0] * len(PIECE) < 24 * MB


@pytest.mark.parametrize(("path", "level"), [("/v1/broken", "error"), ("/v1/lost", "warning")])
async def test_a_body_that_breaks_off_shows(house: House, version: str, path: str, level: str) -> None:
    """To its client, and in the log; what is away for a while is no error of ours."""
    with capture_logs() as logs:
        async with client(house, version) as http:
            with pytest.raises(httpx.RemoteProtocolError if level == "error" else BROKEN_OFF):
                await http.get(path)
        await until(lambda: any(line["log_level"] == level for line in logs))
    assert {line["log_level"] for line in logs} - {"info", "debug"} == {level}
    assert told.closed == [3]
    assert (await house.ask("GET", "/v1/open")).status == 200


async def test_a_body_that_breaks_off_shows_to_an_old_client(house: House) -> None:
    """For whom the end of the connection is the end of the body."""
    raw = await house.connect()
    await raw.send(b"GET /v1/broken HTTP/1.0\r\nhost: x\r\n\r\n")
    with pytest.raises(trio.BrokenResourceError):
        await raw.ended()


async def test_who_says_no_more_gets_what_has_begun(house: House) -> None:
    """A client may send its FIN behind its last request, and read."""
    raw = Raw(await narrow_stream(house))
    async with raw.stream:
        await raw.request("GET", "/v1/down", {"connection": "close"})
        await raw.stream.send_eof()
        await raw.receive_until(b"\r\n\r\n")
        for connection in house.gateway._listener._open:
            connection.look(trio.current_time())  # as happens every second
        assert (await raw.ended()).endswith(b"\r\n0\r\n\r\n")
    assert told.closed == [40]


async def test_a_drain_lets_a_slow_client_read_all_of_it(house: House) -> None:
    """Though it has sent another request, which will not be served, behind the first."""
    raw = Raw(await narrow_stream(house))
    async with raw.stream:
        await raw.request("GET", "/v1/down")
        await raw.receive_until(b"\r\n\r\n")
        await raw.request("GET", "/v1/open")
        house.nursery.start_soon(house.gateway.drain)
        await until(lambda: not house.gateway.ready)
        assert (await raw.ended()).endswith(b"\r\n0\r\n\r\n")


async def test_a_file_that_is_gone(house: House) -> None:
    _FILE.unlink()
    raw = await house.connect()
    with capture_logs() as logged:
        for method in ("GET", "HEAD"):
            await raw.request(method, "/v1/file")
            refused = await raw.response(method)
            assert refused.status == 503
            assert refused.headers["x-content-type-options"] == "nosniff"
            assert "etag" not in refused.headers
        await raw.request("GET", "/v1/open")
        assert (await raw.response()).status == 200
    assert [line["error"] for line in logged if line["event"] == "file_not_opened"] == ["ENOENT"] * 2


async def test_a_file(house: House, version: str) -> None:
    async with client(house, version) as http:
        whole = await http.get("/v1/file")
        assert (whole.status_code, whole.content) == (200, FILE)
        assert whole.headers["content-length"] == str(len(FILE))
        part = await http.get("/v1/file", headers={"range": "bytes=16-31"})
        assert (part.status_code, part.content) == (206, b"000000000000001\n")
        assert part.headers["content-disposition"] == "attachment"
        unchanged = await http.get("/v1/file", headers={"if-none-match": '"f"'})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        head = await http.head("/v1/file")
        assert (head.headers["content-length"], head.content) == (str(len(FILE)), b"")


def test_the_document_knows_bodies_of_bytes() -> None:
    paths: Any = openapi.document(ROUTES)["paths"]
    assert "application/octet-stream" in paths["/v1/up"]["put"]["requestBody"]["content"]
    assert {"200", "408", "413"} <= set(paths["/v1/up"]["put"]["responses"])
    assert "application/json" in paths["/v1/up"]["put"]["responses"]["200"]["content"]
    assert "requestBody" not in paths["/v1/down"]["get"]
    assert "application/octet-stream" in paths["/v1/down"]["get"]["responses"]["200"]["content"]
