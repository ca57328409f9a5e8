"""What each outside system promises, whoever stands behind the protocol.

One suite in tests/contracts runs on every implementation. Every wait here has a bound; what fails raises a
`Problem` (`Unavailable`, `PoolExhausted`, `DiskFull`, `OutcomeUnknown`) or one of the errors below, never a
driver's own exception.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar

import msgspec

T = TypeVar("T")
P = ParamSpec("P")

Value = str | int | float | bytes | None
Row = tuple[Any, ...]


class UniqueViolation(Exception):
    """A row like this exists.  name: the violated constraint as far as the database tells it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class ConstraintViolation(Exception):
    """A CHECK, NOT NULL or foreign key refused the row: our bug, unless a rule expects it."""


class Tx(Protocol):
    """One transaction, lent to a unit of work. SQL is one text for both databases (DATA §2): `$1` parameters;
    ids are str, times integer microseconds, JSON is str; booleans may come back as 0 and 1.

    A statement that fails may have ended the transaction: a unit that swallows its error can do nothing more,
    and the error is raised when it returns. What may be there already is asked for with ON CONFLICT."""

    @property
    def dialect(self) -> Literal["sqlite", "postgres"]: ...

    async def one(self, sql: str, *args: Value) -> Row | None:
        """The first row, or None."""
        ...

    async def all(self, sql: str, *args: Value) -> list[Row]: ...

    async def run(self, sql: str, *args: Value) -> int:
        """Number of rows changed."""
        ...

    async def many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        """The same statement for each row, in order; nothing is returned."""
        ...


Unit = Callable[Concatenate[Tx, P], Awaitable[T]]


class Database(Protocol):
    """A unit of work awaits nothing but its `tx`, may be run twice (a deadlock, a group rolled back), changes
    nothing but through `tx`, and builds its result anew each time. Awaiting anything else is a RuntimeError.

    An exception from the unit rolls it back and is raised here. Cancelled before the unit began: nothing is
    written. Cancelled later: the outcome is awaited, shielded and bounded, then `Cancelled` is raised; past
    that bound the outcome is unknown (OutcomeUnknown), never "failed".
    """

    async def write(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `unit` in a transaction of its own; returns after the commit is durable."""
        ...

    async def relieve(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`write` for what must go on when the disk is nearly full: work that frees space, ends sessions or
        renews leases. Everything else raises DiskFull then."""
        ...

    async def read(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `unit` on one snapshot, which includes every write returned before. It cannot write."""
        ...

    def now_us(self) -> int:
        """The database's time, shared by all nodes: for leases and expiry."""
        ...


class Snapshot(Protocol):
    """The database at one moment, for as long as it is held. Writers go on and do not show in it; but what
    they replace cannot be thrown away meanwhile, so hold it no longer than need be. One call at a time.

    at_us: the database's time just before that moment: what was acknowledged until then is in it.
    """

    @property
    def at_us(self) -> int: ...

    async def read(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `Database.read`, at that moment."""
        ...

    def pages(self, sql: str, rows: int) -> AsyncGenerator[list[Row], None]:
        """All rows of a SELECT, at most so many at a time: to be closed before the next call."""
        ...


class Allowance(msgspec.Struct, frozen=True):
    """Answer of a rate limit.  retry_after_s: 0 when allowed.  remaining: further calls allowed right now."""

    allowed: bool
    remaining: int
    retry_after_s: float
    reset_s: float


class Cache(Protocol):
    """Small values that may be lost at any time; never the only place of anything. Bounded: the entries
    nearest their end are dropped first (in this process's memory; Redis does as it is configured). Keys are
    text, values bytes; a key is for values or for `take`, never for both: `take` of a value is a TypeError,
    `get` of the other None.

    Where it is elsewhere, each call raises Unavailable within its limit while that is away, and Overloaded at
    once when too many wait; then a `put`, `delete` or `take` may have happened all the same.
    """

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, ttl_s: float) -> None: ...

    async def delete(self, key: str) -> None: ...

    async def take(self, key: str, limit: int, window_s: float) -> Allowance:
        """Take one of `limit` calls per `window_s` (GCRA: an even rate with a burst of `limit`). Atomic."""
        ...

    async def take_each(self, keys: Sequence[str], limit: int, window_s: float) -> list[Allowance]:
        """`take` of each of these keys, in one question."""
        ...


class Delivery(msgspec.Struct, frozen=True):
    """only_here: the bus was away when it was published, so no other node hears it."""

    channel: str
    payload: bytes
    only_here: bool = False


class Bus(Protocol):
    """A hint to every node, this one too: at most once, in order per publisher and channel, lossy. The table
    is the truth (DATA §4).

    is_alone: no other node hears what is published.
    """

    @property
    def is_alone(self) -> bool: ...

    async def publish(self, channel: str, payload: bytes) -> None:
        """Calls made one after the other keep their order; those made at the same moment share the way.

        Raises Unavailable or Overloaded as `Cache` does; it may have been heard all the same.
        """
        ...

    def subscribe(self, channels: Sequence[str]) -> AbstractAsyncContextManager[Backlog]:
        """What is published from now on, until the end of the block.

        While the bus is away nothing is raised, then or later: after a short wait the block begins deaf, and
        hears once the bus is back, as after every loss of it. `Backlog.lost` says when it may have missed
        something.
        """
        ...


class Signals(Protocol):
    """Words from node to node that are worth nothing a moment later, and that no table heals: what two people
    say to set up a call, a read mark for the same person's other screens. Each subscriber gets a signal at
    most once, in order per sending node and channel.

    On this node it is heard at once. On others at once while the bus works, within about a second while only
    the database does; whichever way, the changes between the two lose and double nothing. It may be lost if
    neither way is there for `signals.kept_s` after it was sent, if its node ends, or if a subscriber's
    backlog is full (`Backlog.lost`).
    """

    def send(self, channel: str, payload: bytes) -> None:
        """Never waits.

        Raises TooLarge past `signals.payload_bytes`: nobody has heard it. Raises Unavailable while neither
        way to the other nodes is there, Overloaded when too much waits for one: this node alone heard it.
        """
        ...

    def subscribe(self, channels: Sequence[str]) -> AbstractContextManager[Backlog]:
        """What is sent from now on, by this node too, until the end of the block."""
        ...


class Revoked(msgspec.Struct, frozen=True):
    """The end of sessions.  kind: `session`, the one of this id; `user`, those of this person that were
    opened up to `at_us`.  at_us: when it happened.  until_us: from then on no token could pass anyway. Both
    in the database's time."""

    kind: Literal["session", "user"]
    id: str
    at_us: int
    until_us: int


class RevocationFeed(Protocol):
    """What one node tells the others of ended sessions where the database cannot be reached. Kept for as long
    as a token may matter, unless the server behind it loses its memory: whoever must be sure tells again.
    There is no twin that stands in for it: what only this process knows has been told to nobody. Both raise
    Unavailable within a bounded time."""

    async def add(self, revoked: Sequence[Revoked], now_us: int) -> None:
        """Returns once every node can read them. Idempotent.  now_us: the database's time, by which `since`
        finds them."""
        ...

    async def since(self, us: int) -> list[Revoked]:
        """What was added at that time or later, in any order."""
        ...


class Backlog(Protocol):
    """What arrived for one subscription, in order."""

    @property
    def lost(self) -> int:
        """Rises whenever something may have been missed: by one for each delivery dropped because the backlog
        was full, and by one each time the bus is heard again after it was not."""
        ...

    def __aiter__(self) -> AsyncIterator[Delivery]: ...


class StoredObject(msgspec.Struct, frozen=True):
    """sha256: lower-case hex; empty for what a client has put straight into the store (`Presigner`), until
    someone reads it.  version: the same for the same content, another for another."""

    key: str
    size_bytes: int
    sha256: str
    modified_us: int
    version: str


# spool: a folder of this node, for as long as the store is away; no other node reaches what lies there
Place = Literal["store", "spool"]


class Objects(Protocol):
    """Files by key (`[a-z0-9/_.-]`, no `..`). `put` is atomic and durable: a reader sees the whole object or
    none, and after it returned a crash loses nothing. Missing keys raise NotFound, impossible ones
    ValueError. What ends in Unavailable may have happened, wholly or not at all: repeat it."""

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> StoredObject:
        """Store; raises TooLarge past `limit_bytes` and leaves nothing behind."""
        ...

    def get(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes [start, end) in chunks of bounded size. A reader gets the object it began with, or
        Unavailable in the middle: never parts of two."""
        ...

    async def stat(self, key: str) -> StoredObject: ...

    async def copy(self, source: str, target: str, *, version: str | None = None) -> StoredObject:
        """Without the bytes passing through here.  version: raises Conflict if the source has another."""
        ...

    async def delete(self, key: str) -> None:
        """Idempotent: a missing key is no error."""
        ...

    def path_of(self, key: str) -> Path | None:
        """The file of this machine that begins with the object's bytes; None: it lies elsewhere. Nobody has
        looked whether it is there; once opened it stays readable whatever becomes of the key."""
        ...

    def list(self, prefix: str) -> AsyncIterator[str]: ...

    def where(self, key: str) -> Place:
        """Where `key` is read now. Nobody has been asked whether it is there."""
        ...


class JournalRecord(msgspec.Struct, frozen=True):
    """number: ascending in the order of `append`.  at_us: when it was appended, by this machine's clock."""

    number: int
    at_us: int
    payload: bytes


class Journal(Protocol):
    """This node's own file of work it has accepted and not done yet, because the database is away. Bounded in
    bytes and age. What `append` returned survives a crash of the process and of the machine, not the loss of
    the disk. Topics (a room's name) do not see each other."""

    async def append(self, topic: str, payloads: Sequence[bytes]) -> list[int]:
        """Keep these, in order, all or none. Returns their numbers once they are on the disk; calls made
        meanwhile share one sync.

        Raises DiskFull; Unavailable: the bound of bytes or age is reached, or the disk fails; OutcomeUnknown:
        the disk does not answer in time, and they may be kept. Cancelled: they may be kept.
        """
        ...

    async def read(self, topic: str, after: int, limit: int) -> list[JournalRecord]:
        """Those not done yet with a number above `after`, ascending, at most `limit`. Raises Unavailable."""
        ...

    async def done(self, numbers: Sequence[int]) -> None:
        """Forget these; unknown numbers are none. They may come back after a crash if the disk refused to
        note it, so that whoever works them off must be able to do so twice. Raises Unavailable."""
        ...


class UploadedPart(msgspec.Struct, frozen=True):
    """number: from 1.  etag: the store's name for the content, as its answer to the part's PUT gave it; in a
    folder, its SHA-256."""

    number: int
    etag: str
    size_bytes: int


class Division(msgspec.Struct, frozen=True):
    """How an object is cut into parts: of `part_bytes` each, the last one of what is left."""

    size_bytes: int
    part_bytes: int

    @property
    def count(self) -> int:
        return max(1, -(-self.size_bytes // self.part_bytes))

    def start(self, number: int) -> int:
        """number: from 1."""
        return (number - 1) * self.part_bytes

    def length(self, number: int) -> int:
        return min(self.part_bytes, self.size_bytes - self.start(number))


class Drafts(Protocol):
    """Objects in the making in a folder of this node, by the key of `Objects` rules: their parts come in any
    order, several at a time, and outlive a crash once `put_part` has returned. Nothing is copied to make one
    object of them."""

    async def put_part(
        self, key: str, division: Division, number: int, chunks: AsyncIterator[bytes]
    ) -> UploadedPart:
        """A part that comes again takes the place of what was there, which counts as missing from its first
        byte on. Raises TooLarge and ValueError for another length than the division's, Conflict while the
        same part is coming or the object is being finished."""
        ...

    async def parts(self, key: str, division: Division) -> Sequence[UploadedPart]:
        """Those that are there whole, by number."""
        ...

    async def finish_draft(self, key: str, division: Division, target: str) -> StoredObject:
        """Make the object `target` of the parts, which are read for its checksum. Raises NotFound
        unless all are there, Conflict while one is coming. After a cancellation or a crash: repeat it."""
        ...

    async def abandon_draft(self, key: str) -> None:
        """Idempotent."""
        ...

    async def drafts(self) -> Sequence[str]:
        """The keys of those that are there."""
        ...


class Presigner(Protocol):
    """Addresses at which clients reach the store by themselves, each for one method, key and time.

    Beside `Objects`, because only MinIO has it: what lies in a folder goes through routes of ours. Addresses
    are signed here, without a call, so they are given out while the store is away too. Whoever holds one may
    write as often as he likes until it expires: never sign a key that is read by others, look at size and
    content afterwards, and copy with the version that was looked at.
    """

    def upload_url(self, key: str, size_bytes: int, expires_s: int) -> str:
        """For one PUT of the whole object, whose Content-Length must be that."""
        ...

    def download_url(self, key: str, expires_s: int, *, disposition: str, content_type: str) -> str:
        """For GET, ranges too.  disposition, content_type: headers of the answer."""
        ...

    async def begin_parts(self, key: str) -> str:
        """Id of an upload in parts; nothing is seen of it until it is finished. Asks the store."""
        ...

    def part_url(self, key: str, upload_id: str, number: int, size_bytes: int, expires_s: int) -> str:
        """For PUT of one part of that Content-Length, 5 MiB or more but for the last."""
        ...

    async def list_parts(self, key: str, upload_id: str) -> Sequence[UploadedPart]:
        """Those that are there, by number. Raises NotFound when the upload has ended."""
        ...

    async def finish_parts(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> StoredObject:
        """Make one object of them."""
        ...

    async def abandon_parts(self, key: str, upload_id: str) -> None:
        """Idempotent."""
        ...


class Mail(msgspec.Struct, frozen=True):
    """One mail to one person.  html: the same as `text`, for those who like it pretty."""

    mail_id: str
    to: str
    subject: str
    text: str
    html: str


class Undeliverable(Exception):
    """This mail, or push, will never be taken: the address, or what is in it, is refused for good."""


class Deferred(Exception):
    """The server is there and does not take this mail, or push, now: later it may.  retry_after_s: as it
    asks, 0 if it does not."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Mailer(Protocol):
    """Hands mail over. A mail whose confirmation is lost may have been sent: whoever repeats it may send it
    twice, under the same Message-ID."""

    @property
    def is_away(self) -> bool:
        """Whether it is known to take nothing now, so that there is no point in trying."""
        ...

    async def send(self, mail: Mail) -> None:
        """Returns once the server answers for it. Raises Undeliverable, Deferred; Unavailable within a
        bounded time when no server can be reached, or the one there makes no sense."""
        ...


class FcmTarget(msgspec.Struct, frozen=True):
    """An app on a phone, by its registration token."""

    token: str


class WebPushTarget(msgspec.Struct, frozen=True):
    """A browser's subscription, or a UnifiedPush app's.  p256dh, auth: its keys, 65 and 16 bytes."""

    endpoint: str
    p256dh: bytes
    auth: bytes


class Push(msgspec.Struct, frozen=True):
    """data: what the device is told.  topic: the next one with it takes the place of one that waits; at most
    32 of `A-Za-z0-9_-`.  ttl_s: how long the push service is to keep it for a device that is off."""

    target: FcmTarget | WebPushTarget
    data: Mapping[str, str]
    topic: str
    is_urgent: bool
    ttl_s: int


class Unregistered(Exception):
    """Nobody will ever be reached there again."""


class Pusher(Protocol):
    """Wakes devices through the push services of others. One whose confirmation is lost may have been sent:
    whoever repeats it may send it twice."""

    def way(self, target: FcmTarget | WebPushTarget) -> str:
        """The push service it is reached through: what is slow or away is so for all of them."""
        ...

    def is_proven(self, way: str) -> bool:
        """Whether a push service answered the last push."""
        ...

    def rest_s(self, way: str) -> float:
        """How long a push service that failed is left alone yet."""
        ...

    def room_for(self, way: str) -> int:
        """How many pushes may be under way to a push service now: none while it is left alone, one to see
        whether it is there again."""
        ...

    def flaw(self, target: FcmTarget | WebPushTarget) -> str | None:
        """The field of it for which nothing can ever be pushed there, `service` for all of it; None if there
        is none that shows."""
        ...

    def new_key(self) -> bytes:
        """A private key for `identify`."""
        ...

    def identify(self, key: bytes) -> str:
        """Before the first push to a browser: sign as the owner of this private key. Returns the public key
        that subscriptions are made for, in base64url."""
        ...

    async def send(self, push: Push) -> None:
        """Returns once the push service answers for it. Raises Unregistered, Undeliverable; Deferred, also
        for a service that is away, within a bounded time."""
        ...


Dependency = Literal["postgres", "redis", "minio", "smtp", "push"]
Kind = Literal["sqlite", "memory", "files", "none", "postgres", "redis", "minio", "smtp", "push"]
Health = Literal["up", "down"]
Breaker = Literal["closed", "half_open", "open"]


class DependencyStatus(msgspec.Struct, frozen=True):
    """For /health.  kind: what stands behind the protocol.  last_error: a closed code, never a host.
    breaker: None for what is part of this process.  affects: what does not work as usual while it is down,
    in words for clients.
    """

    name: Dependency
    kind: Kind
    status: Health
    since_us: int
    last_error: str | None = None
    breaker: Breaker | None = None
    affects: tuple[str, ...] = ()


class Ready(Protocol):
    """`Deps.ready`."""

    async def __call__(self, first: Callable[[Database], Awaitable[T]]) -> T: ...


def all_are_let_in() -> None:
    """An embedded database is up to date when it is opened."""


class Deps(msgspec.Struct, frozen=True):
    """Everything outside, opened; the database may yet be away.

    ready: waits until the database answers, brings its schema up to date, and hands it to the given function,
    whose result it returns. Raises MigrationError, and Unavailable if it goes away in the middle of that.
    hold_back: until `ready` is through, `db` refuses all others, though the database may answer.
    observe: `told` is called whenever a status has gone down or up; it never waits, and never raises.
    revocations: None where nothing but the database joins the nodes.
    drafts: where objects arrive in parts that do not go straight into the store.
    presigner: None where objects lie in a folder.
    snapshot: holds the database as it is at that moment. Raises Unavailable.
    """

    db: Database
    snapshot: Callable[[], AbstractAsyncContextManager[Snapshot]]
    cache: Cache
    bus: Bus
    signals: Signals
    objects: Objects
    drafts: Drafts
    journal: Journal
    mailer: Mailer
    pusher: Pusher
    status: Callable[[], list[DependencyStatus]]
    ready: Ready
    observe: Callable[[Callable[[], None]], None]
    revocations: RevocationFeed | None = None
    presigner: Presigner | None = None
    hold_back: Callable[[], None] = all_are_let_in
