"""One call to MinIO: its turn, its limit, its errors. What is called stands in minio_bucket.py.

The driver's own limits are five minutes and its retries five; neither is used. A call ends when no byte has
moved for a while, in either direction: the driver's read limit begins only when a body is written, and would
let a store that stops reading hold a part for ever.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar
from xml.etree.ElementTree import ParseError

import aiohttp
import structlog
import trio
from aiohttp.client_proto import ResponseHandler
from miniopy_async.error import MinioException, S3Error, ServerError

from ..config import MinioConfig
from ..errors import Conflict, DiskFull, NotFound, Problem, RangeNotSatisfiable, TooLarge, Unavailable
from ..settings import BadSetting
from ..tracing import Kind, span
from .asyncio_bridge import Bridge
from .minio_bucket import Bucket, Client, Silence

log = structlog.get_logger(module="minio")

T = TypeVar("T")
P = ParamSpec("P")

CLEAN_UP_S = 2.0
INSUFFICIENT_STORAGE = 507

# what the store says -> what we say; every other refusal is Unavailable
CODES: Mapping[str, type[Problem]] = {
    "NoSuchKey": NotFound,
    "NoSuchUpload": NotFound,
    "InvalidPart": Conflict,
    "PreconditionFailed": Conflict,
    "InvalidRange": RangeNotSatisfiable,
    "EntityTooLarge": TooLarge,
    "XMinioStorageFull": DiskFull,
    "XMinioAdminBucketQuotaExceeded": DiskFull,
}
BROKEN = (
    MinioException,
    aiohttp.ClientError,
    OSError,  # and TimeoutError
    ParseError,
    ValueError,  # an answer that is none; what we ask with has been checked
)


class Turns:
    """A bounded number at once, a bounded number waiting for a bounded time; more are refused at once."""

    def __init__(self, places: int, waiting: int, wait_s: float) -> None:
        self._places = trio.Semaphore(places)
        self._waiting = waiting
        self._wait_s = wait_s

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            await self._wait()
        try:
            yield
        finally:
            self._places.release()

    async def _wait(self) -> None:
        if self._places.statistics().tasks_waiting >= self._waiting:
            raise Unavailable(retry_after_s=1)
        with trio.move_on_after(self._wait_s) as limit:
            await self._places.acquire()
        if limit.cancelled_caught:
            raise Unavailable(retry_after_s=1)


Call = Callable[Concatenate[Silence, P], Awaitable[T]]


class Calls:
    """Runs methods of `bucket` on the asyncio side."""

    def __init__(self, config: MinioConfig, bridge: Bridge, bucket: Bucket) -> None:
        self.bucket = bucket
        self._bridge = bridge
        self._call_s = config.call_s
        self._connect_s = config.connect_s
        self._turns = Turns(config.connections, config.waiting, config.wait_s)
        self._bucket_is_there = False
        self._under_way: set[Silence] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, config: MinioConfig, bridge: Bridge) -> AsyncIterator[Calls]:
        """Nothing is asked of the store: it may be away. Raises BadSetting."""
        session = await bridge.run(_open_session, config)
        try:
            yield cls(config, bridge, Bucket(_client(config, session), config.bucket, config.secret_key))
        finally:
            with trio.move_on_after(CLEAN_UP_S, shield=True):
                await bridge.run(session.close)

    async def run(self, call: Call[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The bucket is made first if it is missing."""
        return await self.run_long(0.0, call, *args, **kwargs)

    async def run_long(self, work_s: float, call: Call[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`run` for what the store may work on in silence for `work_s` longer."""

        async def with_bucket(silence: Silence) -> T:
            if not self._bucket_is_there:
                await self._make(silence)
            return await call(silence, *args, **kwargs)

        with span(f"s3 {call.__name__}", Kind.CLIENT):
            async with self._turns.turn():
                return await self._cross(self._call_s + work_s, with_bucket)

    async def probe(self, limit_s: float | None = None) -> None:
        """Raises Unavailable unless the store says within `limit_s` that the bucket is there, or makes it.
        Waits for no turn.  limit_s: `minio.connect_s` if left out."""

        await self._cross(self._connect_s if limit_s is None else limit_s, self._make)

    async def _cross(self, limit_s: float, call: Callable[[Silence], Awaitable[T]]) -> T:
        silence = Silence(limit_s)
        self._under_way.add(silence)
        try:
            with silence.scope, self._mapped():
                return await self._bridge.run(call, silence)
        finally:
            self._under_way.discard(silence)
        raise Unavailable()  # silent for too long

    def abandon(self) -> None:
        """Wait no longer than `minio.connect_s` for the next byte of what is asked so far: for whoever has
        found that the store does not answer. What moves goes on."""
        for silence in self._under_way:
            silence.cut_to(self._connect_s)

    async def _make(self, silence: Silence) -> None:
        await self.bucket.make(silence)
        self._bucket_is_there = True

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Our errors for the driver's: the one table is `CODES`."""
        try:
            yield
        except BROKEN as exc:
            if isinstance(exc, S3Error):
                if exc.code == "NoSuchBucket":  # a store that began anew
                    self._bucket_is_there = False
                if exc.code not in CODES:
                    log.warning("store_refused", code=exc.code)
            raise problem_of(exc)() from exc


def problem_of(error: Exception) -> type[Problem]:
    status = None
    if isinstance(error, S3Error):
        if error.code in CODES:
            return CODES[error.code or ""]
        status = error.response.status
    elif isinstance(error, ServerError):
        status = error.status_code
    return DiskFull if status == INSUFFICIENT_STORAGE else Unavailable


async def _open_session(config: MinioConfig) -> aiohttp.ClientSession:
    # `Turns` bound the connections, and a probe comes on top; of authorities those of the system
    connector = aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context() if config.secure else True)
    factory: Any = partial(_Connection, loop=connector._loop)
    connector._factory = factory
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.connect_s),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class _Connection(ResponseHandler):
    """One that is given up with bytes unsent is dropped: closing would wait until the store takes them."""

    def close(self) -> None:
        transport: Any = self.transport
        if transport is not None and transport.get_write_buffer_size():
            transport.abort()
        super().close()


def _client(config: MinioConfig, session: aiohttp.ClientSession) -> Client:
    try:
        return Client(
            config.endpoint,
            config.access_key,
            config.secret_key,
            secure=config.secure,
            region=config.region,
            session=session,
        )
    except ValueError as exc:
        raise BadSetting(f"minio.endpoint is not valid: {exc}") from exc
