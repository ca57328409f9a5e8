"""Settings of what lies outside, of the twins that take its place, and of how its failing is noticed."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import (
    BUCKET,
    CONTACT,
    HEADERS,
    MAIL_ADDRESS,
    POSTGRES_URL,
    REDIS_URL,
    REGION,
    SERVICE,
    SMTP_URL,
    STUN_URLS,
    TURN_URLS,
    WEB_URL,
    setting,
)


@dataclass(frozen=True, slots=True)
class SqliteConfig:
    """The embedded database."""

    readers: int = setting(4, "connections that read beside the one writer", low=1, high=64)
    waiting: int = setting(
        10_000,
        "units of work waiting for the writer, and for readers, before more are refused",
        low=1,
        high=1_000_000,
    )
    group: int = setting(256, "units of work in one commit", low=1, high=10_000)
    statement_s: float = setting(10.0, "seconds a unit of work may take", low=0.1, high=600)
    log_cut_s: float = setting(
        60.0,
        "seconds between two cuts of the log of commits, where deleted text lives on",
        low=1,
        high=86_400,
    )
    copies: int = setting(
        2, "copies of the file kept from before its schema was changed; 0: none are made", low=0, high=100
    )
    disk_reserve_mb: int = setting(
        64, "megabytes kept free on the disk; below, nothing new is stored", low=0, high=1_048_576
    )


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """What stands in for Redis."""

    cache_entries: int = setting(100_000, "entries of the in-memory cache", low=100, high=100_000_000)
    bus_backlog: int = setting(
        10_000, "events waiting for one subscriber of the in-memory bus", low=10, high=10_000_000
    )


@dataclass(frozen=True, slots=True)
class PostgresConfig:
    """The database of several nodes."""

    url: str = setting(
        "",
        "postgres://user:password@host:port/database; empty: the embedded SQLite",
        form=POSTGRES_URL,
        secret=True,
    )
    connections: int = setting(10, "connections to the database", low=2, high=1_000)
    waiting: int = setting(
        10_000, "units of work waiting for a connection before more are refused", low=1, high=1_000_000
    )
    wait_s: float = setting(
        2.0, "seconds a unit of work waits for a connection before it is refused", low=0.05, high=60
    )
    connect_s: float = setting(5.0, "seconds a connection may take to open", low=0.1, high=60)
    statement_s: float = setting(
        10.0, "seconds a statement, and a unit of work as a whole, may take", low=0.1, high=600
    )
    lock_s: float = setting(5.0, "seconds a statement may wait for a lock", low=0.05, high=600)
    idle_in_transaction_s: float = setting(
        3.0, "seconds after which Postgres ends a transaction that does nothing", low=1, high=600
    )
    copies: int = setting(
        2,
        "copies of the tables kept, in the data folder, from before the schema was changed; 0: none are made",
        low=0,
        high=100,
    )


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """What nodes share that may be lost."""

    url: str = setting(
        "",
        "redis://:password@host:port/0, or rediss:// for TLS; empty: this process's memory",
        form=REDIS_URL,
        secret=True,
    )
    connections: int = setting(
        1,
        "connections for the cache; one carries many commands together, more help if Redis is far away",
        low=1,
        high=1_000,
    )
    waiting: int = setting(
        1_000, "commands waiting for a connection before more are refused", low=1, high=1_000_000
    )
    batch: int = setting(256, "commands sent together", low=1, high=10_000)
    connect_s: float = setting(1.0, "seconds a connection may take to open", low=0.1, high=60)
    call_s: float = setting(0.5, "seconds a command may take", low=0.05, high=60)
    ping_s: float = setting(
        0.5, "seconds of silence after which the subscriptions' connection is tested", low=0.05, high=60
    )
    reopen_s: float = setting(
        0.25, "seconds between two attempts to open the subscriptions' connection", low=0.01, high=60
    )
    backlog: int = setting(
        10_000, "events waiting for one subscriber before more are lost", low=10, high=10_000_000
    )


@dataclass(frozen=True, slots=True)
class MinioConfig:
    """Where files lie that nodes share."""

    endpoint: str = setting(
        "", "host:port of MinIO, or of another S3 server; empty: a folder of this machine"
    )
    access_key: str = setting("", "access key")
    secret_key: str = setting("", "secret key", secret=True)
    bucket: str = setting("secureconnect", "bucket, made if missing", form=BUCKET)
    secure: bool = setting(False, "whether the endpoint speaks TLS")
    public_endpoint: str = setting(
        "",
        "host:port at which clients reach it, after http:// or https:// if not as above; empty: the endpoint",
    )
    region: str = setting("us-east-1", "region, which signatures name", form=REGION)
    connections: int = setting(10, "calls under way", low=1, high=1_000)
    waiting: int = setting(100, "calls waiting before more are refused", low=1, high=1_000_000)
    wait_s: float = setting(2.0, "seconds a call waits for its turn before it is refused", low=0.05, high=60)
    uploads: int = setting(
        4, "objects this server stores at the same time, each with a part in memory", low=1, high=1_000
    )
    part_mb: int = setting(8, "megabytes of a part; larger objects are stored in parts", low=5, high=1_024)
    connect_s: float = setting(2.0, "seconds a connection may take to open", low=0.1, high=60)
    call_s: float = setting(30.0, "seconds without a byte after which a call has failed", low=0.1, high=600)
    copy_mb_s: int = setting(
        20, "megabytes a second the store copies at least, or the copy has failed", low=1, high=100_000
    )
    unfinished_h: int = setting(
        48, "hours after which an upload that was never finished is removed", low=1, high=10_000
    )
    spool_mb: int = setting(
        1_024, "megabytes kept on this node while the store is away; 0: none", low=0, high=1_048_576
    )
    spool_pass: int = setting(100, "objects moved to the store in one pass", low=1, high=100_000)


@dataclass(frozen=True, slots=True)
class SmtpConfig:
    """The mail server."""

    url: str = setting(
        "",
        "smtp://user:password@host:587 (STARTTLS), or smtps:// for TLS at once; empty: files",
        form=SMTP_URL,
        secret=True,
    )
    sender: str = setting(
        "",
        "address that mail comes from; empty: no-reply at the host of gateway.public_url",
        form=MAIL_ADDRESS,
    )
    connect_s: float = setting(5.0, "seconds a connection may take to open", low=0.1, high=60)
    call_s: float = setting(20.0, "seconds a mail may take to be handed over", low=0.1, high=300)
    first_pause_s: float = setting(
        1.0, "seconds before a mail server that failed is asked again, doubled each time", low=0.05, high=60
    )
    longest_pause_s: float = setting(60.0, "seconds between two such questions at most", low=0.05, high=3_600)
    kept_files: int = setting(
        1_000, "mails kept as files while there is no mail server; older ones go", low=1, high=1_000_000
    )


@dataclass(frozen=True, slots=True)
class TurnConfig:
    """Relays and STUN servers that clients are told of."""

    stun_urls: tuple[str, ...] = setting(
        (),
        "STUN servers clients are told, like stun:turn.example.org:3478; empty: this one, if stun.enabled",
        form=STUN_URLS,
    )
    urls: tuple[str, ...] = setting(
        (), "TURN servers clients are told, like turn:turn.example.org:3478?transport=udp", form=TURN_URLS
    )
    secret: str = setting("", "coturn's static-auth-secret; needed with turn.urls", secret=True)
    credentials_s: int = setting(
        86_400, "seconds for which credentials of the TURN servers are good", low=60, high=604_800
    )


@dataclass(frozen=True, slots=True)
class PushConfig:
    """The push services of others."""

    enabled: bool = setting(True, "whether devices are woken through the push services of others")
    contact: str = setting(
        "",
        "mailto: or https: address of the operator, told to push services; empty: gateway.public_url",
        form=CONTACT,
    )
    fcm_account: str = setting("", "key file of a Google service account, JSON; empty: no pushes by FCM")
    fcm_url: str = setting("https://fcm.googleapis.com", "where FCM is", form=WEB_URL)
    allow_private: bool = setting(
        False, "whether push endpoints may be in private networks, or on this machine"
    )
    ca_file: str = setting("", "certificates to trust beside the system's, for push services; PEM")
    devices: int = setting(
        20, "devices of one person that are pushed to; the oldest give way", low=1, high=1_000
    )
    delay_s: float = setting(
        2.0,
        "seconds after which what is still unread is pushed, unless the person is connected",
        low=0,
        high=600,
    )
    again_s: float = setting(
        75.0,
        "seconds after which it is looked at again if they seemed to be; longer than gateway.ws_silence_s",
        low=0.05,
        high=3_600,
    )
    ttl_s: int = setting(86_400, "seconds after which a push is of no use", low=60, high=2_419_200)
    poll_s: float = setting(1.0, "seconds between two looks for pushes to send", low=0.05, high=60)
    senders: int = setting(32, "pushes under way at the same time", low=1, high=1_000)
    senders_each: int = setting(8, "of them to one push service", low=1, high=1_000)
    group_every_s: float = setting(
        30.0, "seconds between two pushes for what is said in one group", low=0, high=3_600
    )
    connect_s: float = setting(5.0, "seconds a connection may take to open", low=0.1, high=60)
    call_s: float = setting(10.0, "seconds a push may take to be handed over", low=0.1, high=60)
    retry_s: float = setting(
        5.0, "seconds before a push is tried again, doubled each time", low=0.05, high=3_600
    )
    longest_retry_s: float = setting(900.0, "seconds between two tries at most", low=0.05, high=86_400)
    first_pause_s: float = setting(
        1.0, "seconds a push service that failed is left alone, doubled each time", low=0.05, high=60
    )
    longest_pause_s: float = setting(300.0, "seconds it is left alone at most", low=0.05, high=3_600)


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """When a dependency counts as away, and as back."""

    probe_ms: int = setting(500, "milliseconds between two probes of a dependency", low=50, high=60_000)
    probe_limit_ms: int = setting(400, "milliseconds a probe may take", low=10, high=60_000)
    probes: int = setting(
        2, "failed probes in a row after which a dependency counts as away", low=1, high=100
    )
    failures: int = setting(5, "failed calls in a row that say the same", low=1, high=1_000)
    trials: int = setting(
        3, "calls at a time that may try a dependency whose probe answers again", low=1, high=100
    )
    retries: int = setting(2, "times a failed call is made again, where that is safe", low=0, high=2)
    retry_ms: int = setting(
        50, "longest pause in milliseconds before the first of them, doubled for the next", low=1, high=10_000
    )


@dataclass(frozen=True, slots=True)
class TracingConfig:
    endpoint: str = setting(
        "",
        "where traces go by OTLP, like http://127.0.0.1:4318; /v1/traces if it has no path; empty: nowhere",
        form=WEB_URL,
    )
    headers: tuple[str, ...] = setting(
        (), "further headers for it, like authorization=Bearer abc", form=HEADERS, secret=True
    )
    ratio: float = setting(0.1, "share of requests and frames that are traced", low=0, high=1)
    parents: str = setting(
        "proxies",
        "whose traceparent header is believed: that of gateway.trusted_proxies, or any",
        choices=("proxies", "any"),
    )
    service: str = setting("secureconnect", "name of this service in traces", form=SERVICE)
    queue: int = setting(4_096, "spans waiting to be sent before more are dropped", low=1, high=1_000_000)
    batch: int = setting(512, "spans sent together", low=1, high=10_000)
    every_s: float = setting(1.0, "seconds between two looks for spans to send", low=0.05, high=60)
    call_s: float = setting(5.0, "seconds the collector may take for a batch", low=0.1, high=60)
    longest_pause_s: float = setting(
        30.0, "seconds between two tries at most, while it takes none", low=0.05, high=3_600
    )
    close_s: float = setting(1.0, "seconds for what is left when the server ends", low=0, high=10)
