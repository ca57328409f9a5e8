"""MinIO or another S3 server, or the folder in its place."""

from __future__ import annotations

import io
import secrets
import ssl
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import trio
from aiohttp import ClientSession, ClientTimeout, TCPConnector
from miniopy_async.api import Minio
from miniopy_async.error import S3Error

from ..config import Config, MinioConfig
from ..deps.asyncio_bridge import Bridge, open_bridge
from ..deps.minio_presign import Signer
from ..deps.policy import OBJECTS
from .findings import Report, latency

CALL_S = 5.0
ROUND_TRIPS = 20
SLOW_S = 0.02
SKEW_S = 60.0  # a signature is refused at 15 minutes; the Date header is in whole seconds
TRIAL = b"a trial of secureconnect doctor"
SIGNED_FOR_S = 60


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why, by the code of S3, and how to mend it."""

    found: str
    mend: str


_CODES = {
    "InvalidAccessKeyId": _Refusal("it does not know minio.access_key", "correct minio.access_key"),
    "SignatureDoesNotMatch": _Refusal("minio.secret_key is wrong", "correct minio.secret_key"),
    "AccessDenied": _Refusal(
        "the account lacks rights",
        "let the account of minio.access_key list, read, write and delete in minio.bucket",
    ),
    "RequestTimeTooSkewed": _Refusal("the clocks are too far apart", "run NTP on both machines"),
    "NoSuchBucket": _Refusal("the bucket is gone", "create the bucket, or name another in minio.bucket"),
    "AuthorizationHeaderMalformed": _Refusal("the region is another", "correct minio.region"),
}


@dataclass(slots=True)
class _Seen:
    """What was found until something went wrong.

    error: what then did, while doing `doing`.
    """

    bucket_exists: bool = False
    made_trial: bool = False
    times_s: list[float] = field(default_factory=list)
    doing: str = ""
    error: Exception | None = None


async def check(config: Config, report: Report) -> None:
    at = config.minio
    if not at.endpoint:
        await _check_folder(config, report)
        return
    if not await _check_clock(at, report):
        return
    async with open_bridge() as bridge:
        try:
            Signer(at)  # may refuse the public endpoint
            client = await bridge.run(_client, at)
        except ValueError as exc:
            report.fail(
                "minio",
                f"minio.endpoint or minio.public_endpoint is not valid: {report.said(exc)}",
                "set each to host:port",
            )
            return
        try:
            bucket = await _check_store(at, bridge, client, report)
            if bucket is not None:
                try:
                    await _check_signed(at, bridge, client, bucket, report)
                    await _check_browsers(config, bucket, report)
                finally:
                    if bucket != at.bucket:
                        with trio.move_on_after(CALL_S, shield=True):
                            await bridge.run(client.remove_bucket, bucket)
        finally:
            with trio.move_on_after(1, shield=True):
                await bridge.run(client.close_session)


async def _check_folder(config: Config, report: Report) -> None:
    folder = Path(config.data_dir) / OBJECTS
    there = await trio.to_thread.run_sync(folder.is_dir)
    told = f"none: files lie in {folder}" if there else f"none: files will lie in {folder}"
    if report.nodes > 1:
        report.warn("minio", told, "set minio.endpoint: each node sees its own files alone without")
    else:
        report.ok("minio", told)


def _http() -> httpx.AsyncClient:
    """Trusts the authorities of the system, as the server does; httpx by itself would trust its own."""
    return httpx.AsyncClient(trust_env=False, timeout=CALL_S, verify=ssl.create_default_context())


def _url(at: MinioConfig, endpoint: str) -> str:
    return f"{'https' if at.secure else 'http'}://{endpoint}"


async def _check_clock(at: MinioConfig, report: Report) -> bool:
    """Reach it, unsigned, and read its clock. False if it cannot be reached."""
    began = datetime.now(UTC)
    try:
        async with _http() as http:
            with trio.fail_after(CALL_S):
                answer = await http.head(_url(at, at.endpoint))
    except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError, OSError) as exc:
        if _is_late(exc):
            found = f"no answer within {CALL_S:g} s"
            mend = "it is frozen or cut off: look at its log, and at the firewall between"
        else:
            found = f"cannot be reached: {report.said(_told(exc))}"
            mend = "start it, or correct minio.endpoint; minio.secure says whether it speaks TLS"
        report.fail("minio", f"{at.endpoint}: {found}", mend)
        return False
    told = answer.headers.get("date")
    try:
        ahead_s = (parsedate_to_datetime(told) - began).total_seconds() if told else 0.0
    except ValueError:
        told = None
    if not told:
        report.ok("minio.clock", "it does not tell its time")
    elif abs(ahead_s) > SKEW_S:
        report.fail(
            "minio.clock", f"its clock is {ahead_s:+.0f} s from this machine's", "run NTP on both machines"
        )
    else:
        report.ok("minio.clock", f"within {max(abs(ahead_s), 1):.0f} s of this machine's")
    return True


async def _check_store(at: MinioConfig, bridge: Bridge, client: Any, report: Report) -> str | None:
    """Bucket, rights, latency. Returns the bucket that a trial may use further; None if there is none."""
    trial = f"secureconnect-doctor-{secrets.token_hex(6)}"
    seen = _Seen()
    with trio.move_on_after(4 * CALL_S) as limit:
        await bridge.run(_use, client, at, trial, seen)
    if limit.cancelled_caught:
        seen.error = TimeoutError(f"no answer within {4 * CALL_S:g} s")
    if seen.error is not None:
        found, mend = _reason(seen.error, report)
        report.fail("minio", f"{at.endpoint}: {seen.doing}: {found}", mend)
        return None
    report.ok("minio", f"{at.endpoint}: reached, and the keys are right")
    if seen.bucket_exists:
        report.ok("minio.bucket", f"{at.bucket} exists")
    else:
        report.ok("minio.bucket", f"{at.bucket} does not exist; the server may and will make it")
    report.ok("minio.rights", "a small object was written, read, and deleted")
    told = f"{ROUND_TRIPS} round trips: {latency(seen.times_s)}"
    if sorted(seen.times_s)[ROUND_TRIPS // 2] > SLOW_S:
        report.warn("minio.latency", told, "bring it nearer, or look at its disks")
    else:
        report.ok("minio.latency", told)
    return at.bucket if seen.bucket_exists else trial


async def _use(client: Any, at: MinioConfig, trial: str, seen: _Seen) -> None:
    """On the asyncio side. A missing bucket is not made: its name may be a mistake; another one shows whether
    the server could."""
    key = f"doctor/{secrets.token_hex(8)}"
    try:
        seen.doing = f"looking for bucket {at.bucket}"
        seen.bucket_exists = await _bucket_exists(client, at.bucket)
        bucket = at.bucket if seen.bucket_exists else trial
        if not seen.bucket_exists:
            seen.doing = f"bucket {at.bucket} does not exist, and making one"
            await client.make_bucket(trial)
            seen.made_trial = True
        seen.doing = "writing an object"
        await client.put_object(bucket, key, io.BytesIO(TRIAL), len(TRIAL))
        try:
            seen.doing = "reading an object"
            answer = await client.get_object(bucket, key)
            content = await answer.read()
            answer.release()
            if content != TRIAL:
                raise ValueError("it came back changed")
            for _ in range(ROUND_TRIPS):
                began = time.perf_counter()
                await client.stat_object(bucket, key)
                seen.times_s.append(time.perf_counter() - began)
        finally:
            if seen.doing == "reading an object":
                seen.doing = "deleting an object"
            await client.remove_object(bucket, key)
    except Exception as exc:
        seen.error = exc
        if seen.made_trial:
            await client.remove_bucket(trial)


async def _bucket_exists(client: Any, bucket: str) -> bool:
    """The answer to HEAD has no body, and a refusal no reason: another question brings it."""
    try:
        return bool(await client.bucket_exists(bucket))
    except S3Error as exc:
        if exc.code == "AccessDenied":
            await client.list_buckets()
        raise


async def _check_signed(at: MinioConfig, bridge: Bridge, client: Any, bucket: str, report: Report) -> None:
    """Whether people could put and get with signed URLs, where they reach it."""
    endpoint = at.public_endpoint or at.endpoint
    name, key = "minio.signed_urls", f"doctor/{secrets.token_hex(8)}"
    signer = Signer(replace(at, bucket=bucket))
    put = signer.address("PUT", key, SIGNED_FOR_S, {}, len(TRIAL))
    try:
        async with _http() as http:
            with trio.fail_after(3 * CALL_S):
                longer = await http.put(put, content=TRIAL + b"x")
                stored = await http.put(put, content=TRIAL)
                answer = await http.get(signer.address("GET", key, SIGNED_FOR_S, {}))
    except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError, OSError) as exc:
        why = f"no answer within {CALL_S:g} s" if _is_late(exc) else report.said(_told(exc))
        report.fail(
            name,
            f"{endpoint} cannot be reached from here: {why}",
            "set minio.public_endpoint to where people reach it, and let it answer there",
        )
        return
    finally:
        with trio.move_on_after(CALL_S, shield=True):
            await bridge.run(client.remove_object, bucket, key)
    if longer.is_success:
        report.warn(
            name,
            f"{endpoint} takes more by a signed URL than was signed for",
            "use a store that looks at a signed Content-Length: people could fill this one",
        )
    elif stored.status_code == 200 and answer.content == TRIAL:
        report.ok(name, f"an object was put and got by signed URLs at {endpoint}")
    else:
        report.fail(
            name,
            f"{endpoint} answers a signed PUT with {stored.status_code} and GET with {answer.status_code}",
            "let whatever stands before it pass Host and Content-Length on: the signature covers them",
        )


def _told(exc: BaseException) -> BaseException:
    """The nearest cause that says something: of a failed handshake httpx repeats no word."""
    while not str(exc) and (cause := exc.__cause__ or exc.__context__) is not None:
        exc = cause
    return exc


def _is_late(exc: Exception) -> bool:
    return isinstance(exc, httpx.TimeoutException | trio.TooSlowError | TimeoutError)


def _reason(exc: Exception, report: Report) -> tuple[str, str]:
    """What happened and how to mend it: the one table."""
    known = _CODES.get(getattr(exc, "code", None) or "")
    if known is not None:
        return known.found, known.mend
    if isinstance(exc, TimeoutError):
        return f"no answer within {CALL_S:g} s", "it is frozen or cut off: look at its log"
    return f"{type(exc).__name__}: {report.said(exc)}", "look at the log of the store"


async def _client(at: MinioConfig) -> Minio:
    """As the server makes it, on the asyncio side, where its session belongs. Raises ValueError."""
    connector = TCPConnector(ssl=ssl.create_default_context() if at.secure else True)
    session = ClientSession(connector=connector, timeout=ClientTimeout(total=CALL_S))
    try:
        return Minio(
            at.endpoint,
            access_key=at.access_key,
            secret_key=at.secret_key,
            secure=at.secure,
            region=at.region,
            session=session,
        )
    except ValueError:
        await session.close()
        raise


async def _check_browsers(config: Config, bucket: str, report: Report) -> None:
    """Whether the page may put files there: browsers ask before they let it."""
    name, at, page = "minio.browsers", config.minio, config.gateway.public_url
    if not (page and config.gateway.web):
        return
    parts = urlsplit(page)
    asked = {"Origin": f"{parts.scheme}://{parts.netloc}", "Access-Control-Request-Method": "PUT"}
    address = Signer(replace(at, bucket=bucket)).address("PUT", "doctor/page", SIGNED_FOR_S, {}, 1)
    mend = "allow this origin PUT and GET, with any header, by the store's CORS rules"
    try:
        async with _http() as http:
            with trio.fail_after(CALL_S):
                answer = await http.options(address, headers=asked)
    except (httpx.HTTPError, trio.TooSlowError, OSError) as exc:
        report.warn(
            name, f"it does not say whether {asked['Origin']} may put: {report.said(_told(exc))}", mend
        )
        return
    origin = answer.headers.get("access-control-allow-origin", "")
    methods = answer.headers.get("access-control-allow-methods", "").upper()
    if origin in ("*", asked["Origin"]) and ("PUT" in methods or "*" in methods):
        report.ok(name, f"the page at {asked['Origin']} may put files there")
    else:
        report.fail(name, f"browsers do not let the page at {asked['Origin']} put files there", mend)
