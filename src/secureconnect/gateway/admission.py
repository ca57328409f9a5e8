"""The ordered gate every request passes, whatever engine carried it.

Request id, deadline, size of address and headers, origin, caller, rate limit, path, query, body: in this
order, and the first that objects answers. A WebSocket passes the same gate, up to its body, before it is
upgraded.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog
import trio

from .. import tracing
from ..config import GatewayConfig, RateLimitsConfig
from ..deps.contracts import Allowance, Cache
from ..edge import Audience, Authenticator, Call, Rate, require_admin, subscriber_of
from ..errors import (
    DeadlineExceeded,
    HeadersTooLarge,
    Invalid,
    MethodNotAllowed,
    NotFound,
    OriginForbidden,
    Problem,
    RateLimited,
    RequestTimeout,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    UriTooLong,
)
from ..identity import Principal, is_id, new_id
from ..log import bind
from ..metrics import counter, gauge, histogram
from . import replies
from .decoding import body_of, is_json, query_of
from .replies import Answer

log = structlog.get_logger(module="gateway")

# service: auth-service, chat-service, video-service, storage-service, api-gateway.  method: METHODS, OTHER.
# route: the route's template, or unmatched.
REQUESTS = counter("http_requests_total", "Requests answered.", ["service", "method", "route", "status"])
DURATION = histogram(
    "http_request_duration_seconds", "Time from head to answer.", ["service", "method", "route"]
)
IN_FLIGHT = gauge("http_requests_in_flight", "Requests being answered.")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SERVICES = {
    "auth": "auth-service",
    "chat": "chat-service",
    "signaling": "video-service",
    "storage": "storage-service",
    "gateway": "api-gateway",
}
MINUTE_S, HOUR_S = 60, 3600
PER_HOUR = frozenset({Rate.REGISTER, Rate.MAIL})
PER_ADDRESS = frozenset({Rate.LOGIN, Rate.REGISTER, Rate.MAIL, Rate.REFRESH, Rate.PUBLIC, Rate.ASSETS})

# documented as it stands
IDEMPOTENCY_KEY = "^[!-~]{1,128}$"

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_IDEMPOTENCY_KEY = re.compile(IDEMPOTENCY_KEY)
_EXPOSED = "X-Request-ID, Retry-After, RateLimit, RateLimit-Policy"
_ASKED = "Authorization, Content-Type, Idempotency-Key, X-Request-ID, traceparent"


class Request(msgspec.Struct):
    """A request as an engine delivers it.

    path: as sent, percent-encoded, without the query.  headers: lower-case names; repeated ones joined by
    ", ".  header_bytes: of all names and values.  peer: the address at the other end of the connection.
    read: the next bytes of the body, b"" at its end; the engine bounds what it buffers. A client that leaves
    before the end is never an end: Malformed is raised, or the handler cancelled.
    """

    method: str
    path: bytes
    query: bytes
    headers: Mapping[str, str]
    header_bytes: int
    scheme: str
    peer: str
    read: Callable[[], Awaitable[bytes]]


Serve = Callable[[Call, Request], Awaitable[Answer]]


class Endpoint:
    """One thing that answers requests, with what can be prepared once: most of it when it is first asked, for
    there are two hundred of them.

    serve: gives the answer to an admitted call.  query, body: msgspec Structs, or None.
    stream: bytes of a body that `serve` reads itself. None: it reads none, and answers with bytes; 0: it
    reads none, and may answer with a body of another kind.
    route: what metrics and log lines call it; its path if left out.
    outage: served while the database is away, too.
    repeats: takes an Idempotency-Key.
    """

    def __init__(
        self,
        method: str,
        path: str,
        serve: Serve,
        *,
        service: str = SERVICES["gateway"],
        audience: Audience = Audience.ANYONE,
        rate: Rate = Rate.NONE,
        query: type | None = None,
        body: type | None = None,
        stream: int | None = None,
        route: str | None = None,
        outage: bool = False,
        repeats: bool = False,
    ) -> None:
        self.method = method
        self.path = path
        self.route = route or path
        self.serve = serve
        self.audience = audience
        self.rate = rate
        self.query = query
        self.stream = stream
        self.outage = outage
        self.repeats = repeats
        self.body = body
        self.ids = tuple(name for name in re.findall(r"{(\w+)}", path) if name.endswith("_id"))
        self._labels = (service, method, self.route)
        self._counts: dict[int, Any] = {}

    @cached_property
    def decode(self) -> Callable[[bytes], Any]:
        """Makes of JSON what `body` says."""
        return msgspec.json.Decoder(self.body).decode

    @cached_property
    def _duration(self) -> Any:
        return DURATION.labels(*self._labels)

    def count(self, status: int, took_s: float) -> None:
        self._duration.observe(took_s)
        child = self._counts.get(status)
        if child is None:
            child = self._counts[status] = REQUESTS.labels(*self._labels, str(status))
        child.inc()


class Gate:
    """Admits requests to endpoints and words their answers.

    auth: the running authenticator; raises Unavailable while there is none.
    deny: told of every refusal that carries a denial tag.
    believes_any: callers' traceparent counts wherever they are.
    """

    def __init__(
        self,
        config: GatewayConfig,
        limits: RateLimitsConfig,
        auth: Callable[[], Authenticator],
        cache: Cache,
        deny: Callable[[Problem, Call], None],
        *,
        believes_any: bool = False,
    ) -> None:
        self._config = config
        self._believes_any = believes_any
        self._auth = auth
        self._cache = cache
        self._deny = deny
        self._limits = _limits_of(limits)
        self._proxies = [ipaddress.ip_network(each, strict=False) for each in config.trusted_proxies]
        self._own_origin = _origin_of(config.public_url) if config.public_url else None
        self._origins = frozenset(_origin_of(each) for each in config.allowed_origins)
        self._security = {
            "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "x-frame-options": "DENY",
            "cache-control": "no-store",  # unless an answer says otherwise, as files of the client do
            "vary": "Origin",
        }
        if config.public_url.startswith("https:"):
            self._security["strict-transport-security"] = "max-age=31536000"
        self._trusts = lru_cache(maxsize=1024)(self._is_proxy)
        self._unmatched: dict[str, Endpoint] = {}
        self.waits_for: str | None = None  # the dependency without which nothing but operations is served

    async def answer(
        self,
        request: Request,
        endpoint: Endpoint | None,
        path: Mapping[str, str],
        allow: Sequence[str] = (),
    ) -> Answer:
        """The whole way from request to answer; never raises but when cancelled.

        endpoint: None if there is none for this path and method; then `allow` lists the methods there are, in
        order.
        """
        started = perf_counter()
        request_id = request_id_of(request)
        endpoint = endpoint or self.nothing(request.method)
        call = Call(
            request_id, self.address_of(request), trio.current_time() + self._config.request_deadline_s
        )
        extra: dict[str, str] = {}
        IN_FLIGHT.inc()
        try:
            with self.span(request, endpoint) as span, bind(**named_in_log(request, request_id, span)):
                answer = await self._within_deadline(call, request, endpoint, path, allow, extra)
                note_status(span, answer.status)
                took_s = perf_counter() - started
                endpoint.count(answer.status, took_s)
                log.info(
                    "request",
                    method=request.method,
                    route=endpoint.route,
                    status=answer.status,
                    took_ms=round(took_s * 1000, 2),
                )
        finally:
            IN_FLIGHT.dec()
        answer.headers = self.headers(request_id, extra) | answer.headers
        return answer

    async def admit(
        self,
        call: Call,
        request: Request,
        endpoint: Endpoint,
        path: Mapping[str, str],
        extra: dict[str, str],
        credentials: Callable[[], Awaitable[Principal]] | None = None,
    ) -> None:
        """All of the gate that a body does not need; fills `call` and the answer's headers, `extra`.

        credentials: who is asking, when not told by the Authorization header.
        """
        self._check_size(request)
        if endpoint.rate is not Rate.ASSETS:  # the page itself says where it is at home
            self._check_origin(request, extra)
        if self.waits_for is not None and endpoint.rate is not Rate.NONE:
            raise Unavailable(
                f"The server is waiting for {self.waits_for}.", details={"dependency": self.waits_for}
            )
        if endpoint.audience is not Audience.ANYONE:
            call.principal = await self._principal(call, request, endpoint, extra, credentials)
            bind.add(user_id=call.principal.user_id)
        await self._take(endpoint.rate, call, extra)
        if (
            endpoint.audience is Audience.ADMIN
        ):  # before anything of the request is judged; the rules ask, too
            require_admin(call.caller, endpoint.route)
        if path:
            _check_path(path, endpoint.ids)
        call.path = path
        if endpoint.query is not None:
            call.query = query_of(request.query, endpoint.query)
        call.user_agent = request.headers.get("user-agent", "")[:256]
        if endpoint.repeats:
            call.route = f"{endpoint.method} {endpoint.route}"
            call.idempotency_key = _idempotency_key_of(request)
        call.language = request.headers.get("accept-language", "")[:64]

    def headers(self, request_id: str, extra: Mapping[str, str]) -> dict[str, str]:
        """What stands on every answer, an upgraded or refused WebSocket included."""
        return {**self._security, "x-request-id": request_id, **extra}

    def problem_of(self, error: Exception, call: Call) -> Problem:
        """What to answer for `error`; a denial is handed on to be audited."""
        problem = replies.problem_of(error)
        if problem.denial is not None:
            self._deny(problem, call)
        return problem

    def nothing(self, method: str) -> Endpoint:
        """Stands for a path or method that nobody serves; counted and limited all the same."""

        async def serve(_: Call, __: Request) -> Answer:
            raise NotFound

        label = method if method in METHODS else "OTHER"
        if label not in self._unmatched:
            self._unmatched[label] = Endpoint(label, "unmatched", serve, rate=Rate.PUBLIC)
        return self._unmatched[label]

    def span(self, request: Request, endpoint: Endpoint) -> tracing.Span:
        """Of a request, as its caller's child if that is believed. Who watches the server is not traced."""
        if not tracing.is_on() or endpoint.rate is Rate.NONE:
            return tracing.NOTHING
        parent = request.headers.get("traceparent")
        if not self._believes_any and not self.is_trusted(_plain_address(request.peer) or request.peer):
            parent = None
        span = tracing.root(f"{endpoint.method} {endpoint.route}", parent=parent)
        span.note("http.request.method", endpoint.method)
        span.note("http.route", endpoint.route)
        return span

    def is_trusted(self, address: str) -> bool:
        """Whether `address` is a proxy of ours."""
        return bool(self._proxies) and self._trusts(address)

    def address_of(self, request: Request) -> str:
        """The client's address: the first from the right of X-Forwarded-For that is no proxy of ours."""
        address = _plain_address(request.peer) or request.peer
        forwarded = request.headers.get("x-forwarded-for")
        if forwarded is None or not self.is_trusted(address):
            return address
        for hop in reversed(forwarded.split(",")):
            known = _plain_address(hop.strip())
            if known is None:
                break
            address = known
            if not self.is_trusted(address):
                break
        return address

    async def _within_deadline(
        self,
        call: Call,
        request: Request,
        endpoint: Endpoint,
        path: Mapping[str, str],
        allow: Sequence[str],
        extra: dict[str, str],
    ) -> Answer:
        try:
            with trio.CancelScope(deadline=call.deadline) as scope:
                await self.admit(call, request, endpoint, path, extra)
                if allow:
                    return _options(request, allow, extra)
                if endpoint.stream:
                    call.length = _length_of(request)
                    call.read = self._reader(request, endpoint.stream, call.length)
                    call.deadline = scope.deadline = math.inf
                elif endpoint.body is not None:
                    call.body = await self._body(request, endpoint.decode)
                return await endpoint.serve(call, request)
            raise DeadlineExceeded
        except Exception as error:
            answer = replies.failure(self.problem_of(error, call), call.request_id)
            if allow:
                answer.headers["allow"] = ", ".join(allow)
            return answer

    def _check_size(self, request: Request) -> None:
        if len(request.path) + len(request.query) + 1 > self._config.uri_limit_bytes:
            raise UriTooLong
        if request.header_bytes > self._config.header_limit_bytes:
            raise HeadersTooLarge

    def _check_origin(self, request: Request, extra: dict[str, str]) -> None:
        origin = request.headers.get("origin")
        if origin is None:
            return
        if origin not in self._origins and origin != (self._own_origin or self._origin_asked(request)):
            raise OriginForbidden
        extra["access-control-allow-origin"] = origin
        extra["access-control-expose-headers"] = _EXPOSED

    def _origin_asked(self, request: Request) -> str:
        """The origin of the request's own scheme and Host."""
        scheme = request.scheme
        if self.is_trusted(_plain_address(request.peer) or request.peer):
            scheme = request.headers.get("x-forwarded-proto", scheme)
        return f"{scheme}://{request.headers.get('host', '')}".lower()

    async def _principal(
        self,
        call: Call,
        request: Request,
        endpoint: Endpoint,
        extra: dict[str, str],
        credentials: Callable[[], Awaitable[Principal]] | None,
    ) -> Principal:
        try:
            if credentials is not None:
                return await credentials()
            return await self.authenticate(bearer_of(request), endpoint)
        except Unauthenticated:
            # Guessing costs the guesser: it counts against the address.
            await self._take(Rate.PUBLIC, call, extra)
            raise

    async def authenticate(self, token: str | None, endpoint: Endpoint) -> Principal:
        if not token:
            raise Unauthenticated
        auth, outage = self._auth(), endpoint.outage
        return auth.known(token, outage=outage) or await auth.authenticate(token, outage=outage)

    async def redeem(self, ticket: str) -> Principal:
        return await self._auth().redeem(ticket)

    def has_ended(self, principal: Principal) -> bool:
        """False while auth restarts: it tells of every ended session when it is back."""
        try:
            return self._auth().has_ended(principal)
        except Unavailable:
            return False

    def left_us(self, principal: Principal) -> tuple[int, bool] | None:
        """As `edge.Authenticator`; None while auth restarts: then no socket is closed for its token."""
        try:
            return self._auth().left_us(principal)
        except Unavailable:
            return None

    async def _take(self, rate: Rate, call: Call, extra: dict[str, str]) -> None:
        limit = self._limits.get(rate)
        if limit is None:
            return
        if call.principal is None or limit.per_address:
            who: str = subscriber_of(call.address)
        else:
            who = call.principal.user_id
        allowance = await self._cache.take(limit.key + who, limit.calls, limit.window_s)
        extra["ratelimit-policy"] = limit.policy
        extra["ratelimit"] = limit.left(allowance)
        if not allowance.allowed:
            raise RateLimited(retry_after_s=allowance.retry_after_s)

    async def _body(self, request: Request, decode: Callable[[bytes], Any]) -> Any:
        content_type = request.headers.get("content-type")
        length = request.headers.get("content-length", "0")
        if content_type is None and length == "0" and "transfer-encoding" not in request.headers:
            return body_of(b"{}", decode)  # no body at all: every field is left out
        if not is_json(content_type) or request.headers.get("content-encoding", "identity") != "identity":
            raise UnsupportedMediaType
        limit = self._config.body_limit_bytes
        if int(length) > limit:
            raise TooLarge
        parts = bytearray()
        with trio.move_on_after(self._config.body_timeout_s):
            while chunk := await request.read():
                parts += chunk
                if len(parts) > limit:
                    raise TooLarge
            return body_of(bytes(parts), decode)
        raise RequestTimeout

    def _reader(self, request: Request, limit: int, length: int | None) -> Callable[[], Awaitable[bytes]]:
        """`Call.read` of a body of `limit` bytes at most. Raises TooLarge if it says that it is larger."""
        if length is not None and length > limit:
            raise TooLarge
        config = self._config
        taken, waited_s = 0, 0.0

        async def read() -> bytes:
            """Only the waiting counts: a handler that is slow does not hasten its client."""
            nonlocal taken, waited_s
            began = trio.current_time()
            earned_s = config.body_timeout_s + taken / config.body_rate_bytes - waited_s
            with trio.move_on_after(min(config.body_timeout_s, earned_s)):
                data = await request.read()
                waited_s += trio.current_time() - began
                taken += len(data)
                if taken > limit:
                    raise TooLarge
                return data
            raise RequestTimeout

        return read

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)


def request_id_of(request: Request) -> str:
    given = request.headers.get("x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else new_id()


def named_in_log(request: Request, request_id: str, span: tracing.Span) -> dict[str, str]:
    """What every line logged for the request says: its id and, if we or the caller trace it, the trace's."""
    traceparent = request.headers.get("traceparent")
    trace = span.trace if span else traceparent and tracing.trace_of(traceparent)
    return {"request_id": request_id, "trace_id": trace} if trace else {"request_id": request_id}


def note_status(span: tracing.Span, status: int) -> None:
    span.note("http.response.status_code", status)
    if status >= 500:
        span.fail(str(status))


def bearer_of(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _length_of(request: Request) -> int | None:
    length = request.headers.get("content-length")
    return None if length is None else int(length)


class _Limit:
    """A rate class, with what can be prepared once.

    Source of the fields: draft-ietf-httpapi-ratelimit-headers-10, sections 3 and 4.
    """

    def __init__(self, rate: Rate, calls: int) -> None:
        self.calls = calls
        self.window_s = HOUR_S if rate in PER_HOUR else MINUTE_S
        self.per_address = rate in PER_ADDRESS
        self.key = f"rate:{rate.value}:"
        self.policy = f'"{rate.value}";q={calls};w={self.window_s}'
        self._left = f'"{rate.value}";r='

    def left(self, allowance: Allowance) -> str:
        return f"{self._left}{max(0, allowance.remaining)};t={math.ceil(allowance.reset_s)}"


def _limits_of(config: RateLimitsConfig) -> dict[Rate, _Limit]:
    if not config.enabled:
        return {}
    return {rate: _Limit(rate, getattr(config, rate.value)) for rate in Rate if rate is not Rate.NONE}


def _idempotency_key_of(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise Invalid(
            "An Idempotency-Key is 1 to 128 visible ASCII characters.", details={"field": "Idempotency-Key"}
        )
    return key


def _check_path(path: Mapping[str, str], ids: Sequence[str]) -> None:
    for name in ids:
        if not is_id(path[name]):
            raise NotFound
    for value in path.values():
        if "\0" in value:
            raise NotFound


def _options(request: Request, allow: Sequence[str], extra: dict[str, str]) -> Answer:
    """The answer to OPTIONS, a browser's preflight among them. Raises MethodNotAllowed for all else."""
    methods = ", ".join(allow)
    if request.method != "OPTIONS":
        raise MethodNotAllowed
    headers = {"allow": methods}
    if "access-control-request-method" in request.headers and "access-control-allow-origin" in extra:
        headers |= {
            "access-control-allow-methods": methods,
            "access-control-allow-headers": _ASKED,
            "access-control-max-age": "600",
        }
    return Answer(204, headers=headers)


def _origin_of(url: str) -> str:
    """As browsers write it (RFC 6454 section 6.2): in lower case, without a default port."""
    parts = urlsplit(url)
    default = ":443" if parts.scheme == "https" else ":80"
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(default)}"


@lru_cache(maxsize=4096)
def _plain_address(text: str) -> str | None:
    """An address as we write it, IPv4 also when it came as `::ffff:1.2.3.4`, with a port or in brackets."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)
