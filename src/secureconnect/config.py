"""Every setting: its type, default, unit, range and meaning, in one place. Rooms get their section."""

from __future__ import annotations

from dataclasses import dataclass

from .settings import (
    BUCKET,
    FOLDER,
    MAIL_ADDRESS,
    NETWORKS,
    POSTGRES_URL,
    REDIS_URL,
    REGION,
    SMTP_URL,
    WEB_ORIGINS,
    WEB_URL,
    setting,
)


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 for every interface")
    port: int = setting(8080, "port to listen on; 0 picks a free one", low=0, high=65535)
    public_url: str = setting(
        "",
        "URL people reach this server at, like https://chat.example.org; empty: links are paths",
        form=WEB_URL,
    )
    allowed_origins: tuple[str, ...] = setting(
        (), "further web origins that may call the API, like https://app.example.org", form=WEB_ORIGINS
    )
    trusted_proxies: tuple[str, ...] = setting(
        (), "addresses or networks whose X-Forwarded-For is believed", form=NETWORKS
    )
    tls_certificate: str = setting("", "PEM file of the certificate and its chain; empty: no TLS")
    tls_key: str = setting("", "PEM file of the certificate's private key; empty: it is in tls_certificate")
    proxy_protocol_from: tuple[str, ...] = setting(
        (),
        "addresses or networks whose connections begin with a PROXY protocol header (v1 or v2)",
        form=NETWORKS,
    )
    metrics_from: str = setting(
        "private", "who may read /metrics: loopback and private addresses, or any", choices=("private", "any")
    )
    max_connections: int = setting(10_000, "open connections", low=1, high=1_000_000)
    max_connections_per_address: int = setting(
        1_000,
        "open connections from one address (loopback and trusted proxies excepted)",
        low=1,
        high=1_000_000,
    )
    request_deadline_s: float = setting(30.0, "seconds a request may take in all", low=0.1, high=600)
    header_timeout_s: float = setting(
        10.0, "seconds in which a request's head must arrive", low=0.1, high=600
    )
    body_timeout_s: float = setting(20.0, "seconds in which a request's body must arrive", low=0.1, high=600)
    body_rate_bytes: int = setting(
        1_024,
        "bytes a second that a streamed body must bring beyond body_timeout_s",
        low=1,
        high=1_000_000_000,
    )
    keep_alive_s: float = setting(60.0, "seconds an idle connection is kept", low=0.1, high=3600)
    write_timeout_s: float = setting(
        20.0, "seconds a client may take to read what it is sent", low=0.1, high=600
    )
    close_timeout_s: float = setting(
        2.0, "seconds a client gets to take the last answer or close frame and hang up", low=0.1, high=60
    )
    body_limit_bytes: int = setting(1_048_576, "bytes of a request body", low=1024, high=104_857_600)
    header_limit_bytes: int = setting(32_768, "bytes of all request headers", low=1024, high=1_048_576)
    uri_limit_bytes: int = setting(8_192, "bytes of a request's path and query", low=256, high=65_536)
    h2_streams: int = setting(100, "requests running at once on one HTTP/2 connection", low=1, high=10_000)
    ws_frame_limit_bytes: int = setting(
        262_144, "bytes of an inbound WebSocket message", low=1024, high=16_777_216
    )
    ws_outbox_bytes: int = setting(
        1_048_576,
        "bytes kept for a slow WebSocket before it is closed with 1013",
        low=131_072,  # or a large event alone would close it
        high=104_857_600,
    )
    ws_outboxes_bytes: int = setting(
        268_435_456,
        "bytes kept for all slow WebSockets together",
        low=1_048_576,
        high=17_179_869_184,
    )
    ws_compression: bool = setting(
        False,
        "permessage-deflate on WebSockets: a fraction of the traffic for some CPU; no memory per connection",
    )
    ws_ping_s: float = setting(25.0, "seconds between pings", low=0.1, high=300)
    ws_silence_s: float = setting(
        60.0, "seconds of silence after which a WebSocket is closed", low=0.2, high=600
    )
    ws_frames_per_10s: int = setting(
        600,
        "inbound frames of one WebSocket in ten seconds before it is closed with 4429",
        low=10,
        high=1_000_000,
    )
    drain_notice_s: float = setting(
        0.0, "seconds /readyz says 503 before accepting ends (a load balancer needs some)", low=0, high=300
    )
    drain_s: float = setting(10.0, "seconds running requests and sockets get at shutdown", low=0, high=300)


@dataclass(frozen=True, slots=True)
class RateLimitsConfig:
    enabled: bool = setting(True, "whether requests are counted and limited")
    login: int = setting(20, "sign-ins a minute from one address", low=1, high=1_000_000)
    register: int = setting(20, "registrations an hour from one address", low=1, high=1_000_000)
    refresh: int = setting(60, "token refreshes a minute from one address", low=1, high=1_000_000)
    read: int = setting(1_200, "reads a minute of one account", low=1, high=1_000_000)
    write: int = setting(600, "changes a minute of one account", low=1, high=1_000_000)
    mail: int = setting(10, "requests an hour from one address that send mail", low=1, high=1_000_000)
    search: int = setting(60, "searches a minute of one account", low=1, high=1_000_000)
    socket: int = setting(120, "WebSockets opened a minute by one account", low=1, high=1_000_000)
    public: int = setting(600, "public requests a minute from one address", low=1, high=1_000_000)


@dataclass(frozen=True, slots=True)
class AuthConfig:
    master_key: str = setting(
        "",
        "32 bytes in base64 that seal stored secrets, equal on every node; empty: made in the data folder",
        secret=True,
    )
    registration: str = setting("open", "who may register", choices=("open", "invite", "closed"))
    lockout_failures: int = setting(
        5, "failed sign-ins of one account, or one known device, that lock it", low=1, high=1_000
    )
    lockout_address_failures: int = setting(
        50, "failed sign-ins from one address that lock it, known devices excepted", low=1, high=1_000
    )
    lockout_window_s: int = setting(900, "seconds for which a failed sign-in counts", low=1, high=86_400)
    lockout_s: int = setting(900, "seconds a lock lasts", low=1, high=86_400)
    totp_setup_s: int = setting(
        600, "seconds in which a second factor that is set up must be confirmed", low=30, high=86_400
    )
    recovery_codes: int = setting(
        10, "codes given with a second factor that each replace it once", low=1, high=100
    )
    invite_days: int = setting(
        7, "days an invite is good unless it is made for fewer or more", low=1, high=365
    )
    access_ttl_s: int = setting(900, "seconds an access token lives", low=5, high=86_400)
    refresh_ttl_s: int = setting(2_592_000, "seconds a refresh token lives", low=60, high=31_536_000)
    refresh_grace_s: int = setting(
        30, "seconds in which a spent refresh token gives the same successor again", low=0, high=300
    )
    ticket_ttl_s: int = setting(30, "seconds a WebSocket ticket lives", low=1, high=300)
    argon2_time_cost: int = setting(2, "argon2id passes (OWASP)", low=1, high=20)
    argon2_memory_kib: int = setting(19_456, "argon2id memory in KiB (OWASP)", low=64, high=4_194_304)
    argon2_waiting: int = setting(
        64, "logins that may wait for a core before more are answered 503", low=1, high=10_000
    )
    token_cache: int = setting(10_000, "verified access tokens kept in memory", low=16, high=1_000_000)
    revocation_poll_ms: int = setting(
        500, "milliseconds between two reads of the revocations", low=50, high=1_000
    )
    outage_grace_s: int = setting(
        14_400,
        "seconds, from when the database went away, for which a token valid then is accepted without it",
        low=0,
        high=604_800,
    )
    outage_renew_s: int = setting(
        60,
        "seconds an open WebSocket has for a fresh token once the database is back",
        low=5,
        high=600,
    )
    open_reports: int = setting(
        50, "reports of one person that may be open before more are answered 429", low=1, high=10_000
    )
    deletion_grace_days: int = setting(
        30, "days an account that was deleted by its owner can be restored", low=0, high=365
    )
    max_friends: int = setting(
        5_000, "friends and requests that one account may have made", low=1, high=100_000
    )
    max_blocked: int = setting(5_000, "people that one account may have blocked", low=1, high=100_000)
    exports_at_once: int = setting(
        4, "exports of personal data under way on this node before more are answered 503", low=1, high=1_000
    )
    verify_ttl_s: int = setting(
        86_400, "seconds a mailed token confirms an e-mail address", low=60, high=2_592_000
    )
    reset_ttl_s: int = setting(3_600, "seconds a mailed token sets a new password", low=60, high=86_400)
    mail_pause_s: int = setting(
        60, "seconds before the same kind of mail is sent to the same account again", low=0, high=86_400
    )
    key_lead_s: int = setting(
        60, "seconds a new signing key is verified everywhere before it signs", low=0, high=3_600
    )

    @property
    def revocations_kept_s(self) -> int:
        """How long a token of an ended session could pass at most, and an hour."""
        return self.access_ttl_s + self.outage_grace_s + 3_600


@dataclass(frozen=True, slots=True)
class KeysConfig:
    devices: int = setting(100, "devices of one person that may have keys", low=1, high=1_000)
    one_time_keys: int = setting(
        200, "one-time keys of one device waiting to be claimed", low=100, high=10_000
    )
    document_bytes: int = setting(8_192, "bytes of one key with its signatures", low=1_024, high=65_536)
    claims: int = setting(
        60, "claims a minute of one person for keys of the devices of another", low=1, high=1_000_000
    )
    claim_repeat_s: int = setting(
        600, "seconds for which a claim with the same Idempotency-Key gives the same keys", low=1, high=86_400
    )
    pre_key_stale_days: int = setting(
        7, "days after which a signed pre-key is said to be stale", low=1, high=365
    )
    pre_key_kept_days: int = setting(
        30, "days a replaced signed pre-key, and a claimed one-time key, is kept", low=1, high=365
    )
    pre_keys_kept: int = setting(100, "replaced signed pre-keys kept of one device", low=1, high=1_000)
    asked_people: int = setting(
        1_000, "people, or devices, named in one call for keys or messages", low=10, high=100_000
    )
    inbox_messages: int = setting(
        10_000, "messages waiting for one device before more are dropped", low=10, high=1_000_000
    )
    inbox_mb: int = setting(16, "megabytes of them", low=1, high=1_024)
    message_bytes: int = setting(
        65_536, "bytes of a message from device to device", low=1_024, high=1_048_576
    )
    sync_messages: int = setting(
        100, "messages told to a device at a time; the rest follows", low=1, high=1_000
    )
    sending_kept_s: int = setting(
        86_400, "seconds in which a message sent again sends nothing", low=60, high=2_592_000
    )
    changes_days: int = setting(
        30, "days back for which a device is told whose keys have changed", low=1, high=365
    )
    backup_keys: int = setting(100_000, "keys in one person's backup", low=100, high=100_000_000)
    backup_key_bytes: int = setting(8_192, "bytes of one of them", low=512, high=65_536)
    backup_versions: int = setting(5, "versions of it kept until they are deleted", low=1, high=100)


@dataclass(frozen=True, slots=True)
class ChatConfig:
    max_message_chars: int = setting(10_000, "characters of a message", low=1, high=100_000)
    max_encrypted_bytes: int = setting(65_536, "bytes of an encrypted message", low=1024, high=1_048_576)
    max_members: int = setting(500, "members of a group", low=2, high=100_000)
    max_reactions: int = setting(20, "different reactions to one message", low=1, high=1_000)
    retention_days: int = setting(
        0, "days a message is kept; 0 keeps for ever; a conversation may ask for fewer", low=0, high=3_650
    )
    append_queue: int = setting(
        4_096, "messages waiting to be stored before more are answered 503", low=1, high=1_000_000
    )
    append_batch: int = setting(256, "messages stored in one transaction", low=1, high=10_000)
    catch_up_ms: int = setting(
        5_000, "milliseconds between two looks for changes the bus has lost", low=100, high=60_000
    )
    resume_wait_s: float = setting(
        10.0, "seconds a socket opened with resume=1 has for its resume frame", low=0.1, high=60
    )
    resume_changes: int = setting(
        1_000, "changes of one conversation replayed before a gap is sent instead", low=1, high=100_000
    )
    resume_total: int = setting(10_000, "changes replayed to one socket in all", low=1, high=1_000_000)
    resume_days: int = setting(30, "days back that are replayed", low=1, high=3_650)
    resume_held: int = setting(
        1_000, "live events held for a socket while the past is replayed to it", low=1, high=100_000
    )
    hub_conversations: int = setting(
        10_000, "conversations whose members are kept in memory", low=16, high=10_000_000
    )
    recent_mb: int = setting(
        32,
        "megabytes of what happened lately, told while the database is away; 0: none",
        low=0,
        high=65_536,
    )
    recent_changes: int = setting(
        500,
        "changes of one conversation kept there; read messages below them count, too",
        low=1,
        high=100_000,
    )
    publish_queue: int = setting(
        10_000,
        "parcels of events waiting for the bus before more are left to catch-up",
        low=16,
        high=1_000_000,
    )
    retention_pass_s: float = setting(
        60.0, "seconds between two looks for messages past their term", low=0.1, high=86_400
    )
    offline_grace_s: float = setting(
        10.0, "seconds after the last socket closed before a person is shown offline", low=0, high=600
    )
    presence_per_s: int = setting(
        2_000,
        "words about presence told in a second; the others wait, the latest only",
        low=10,
        high=1_000_000,
    )
    presence_kept: int = setting(
        100_000, "people whose presence and last sight are kept in memory", low=16, high=10_000_000
    )
    typing_ttl_s: float = setting(6.0, "seconds a typing mark lasts without being renewed", low=1, high=60)


@dataclass(frozen=True, slots=True)
class SqliteConfig:
    readers: int = setting(4, "connections that read beside the one writer", low=1, high=64)
    waiting: int = setting(
        10_000, "units of work waiting for the writer before more are refused", low=1, high=1_000_000
    )
    group: int = setting(256, "units of work in one commit", low=1, high=10_000)
    statement_s: float = setting(10.0, "seconds a unit of work may take", low=0.1, high=600)
    disk_reserve_mb: int = setting(
        64, "megabytes kept free on the disk; below, nothing new is stored", low=0, high=1_048_576
    )


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    cache_entries: int = setting(100_000, "entries of the in-memory cache", low=100, high=100_000_000)
    bus_backlog: int = setting(
        10_000, "events waiting for one subscriber of the in-memory bus", low=10, high=10_000_000
    )


@dataclass(frozen=True, slots=True)
class PostgresConfig:
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


@dataclass(frozen=True, slots=True)
class RedisConfig:
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
class StorageConfig:
    quota_mb: int = setting(10_240, "megabytes of files that one account may keep", low=0, high=1_073_741_824)
    max_file_mb: int = setting(100, "megabytes of one file", low=1, high=1_024)
    max_files: int = setting(20_000, "files that one account may keep", low=1, high=10_000_000)
    max_unfinished: int = setting(100, "uploads that one account may leave unfinished", low=1, high=100_000)
    upload_url_s: int = setting(900, "seconds in which the upload of a file must begin", low=1, high=604_800)
    download_url_s: int = setting(
        3_600, "seconds for which the address of a download is good", low=1, high=604_800
    )
    upload_grace_s: int = setting(
        2_700,
        "seconds beyond upload_url_s after which an upload that was not completed is given up",
        low=0,
        high=2_592_000,
    )
    verify_s: float = setting(
        60.0, "seconds in which what was uploaded must be looked at and put in its place", low=1, high=600
    )
    sweep_s: float = setting(
        60.0, "seconds between two looks for uploads given up and deleted files", low=0.1, high=86_400
    )

    @property
    def upload_s(self) -> int:
        """From the beginning of an upload to its end, however it ends."""
        return self.upload_url_s + self.upload_grace_s


@dataclass(frozen=True, slots=True)
class SmtpConfig:
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
class OutboxConfig:
    poll_s: float = setting(1.0, "seconds between two looks for mail to send", low=0.05, high=60)
    senders: int = setting(4, "mails handed over at the same time", low=1, high=100)
    waiting: int = setting(
        10_000, "mails that may wait before requests that need one are answered 503", low=1, high=1_000_000
    )
    retry_s: float = setting(
        1.0, "seconds before a mail is tried again, doubled each time", low=0.05, high=3_600
    )
    longest_retry_s: float = setting(60.0, "seconds between two tries at most", low=0.05, high=86_400)
    notice_s: int = setting(
        86_400, "seconds in which a notice must be sent, or is dropped", low=60, high=2_592_000
    )


@dataclass(frozen=True, slots=True)
class BreakerConfig:
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
class JournalConfig:
    limit_mb: int = setting(
        256,
        "megabytes of accepted messages kept while the database is away; beyond, sending is answered 503",
        low=1,
        high=65_536,
    )
    age_s: int = setting(
        86_400,
        "seconds the oldest of them may wait before no more are accepted; none is dropped",
        low=1,
        high=31_536_000,
    )
    trust_s: int = setting(
        600,
        "seconds before the database went away in which members and blocks must have been read",
        low=1,
        high=86_400,
    )
    write_s: float = setting(5.0, "seconds the disk may take to keep a message", low=0.1, high=60)
    retry_s: float = setting(
        0.5, "seconds at most between two attempts to store what was accepted", low=0.01, high=60
    )


@dataclass(frozen=True, slots=True)
class SignalsConfig:
    payload_bytes: int = setting(65_536, "bytes of a signal", low=1024, high=1_048_576)
    poll_ms: int = setting(
        500, "milliseconds between two looks for signals while the bus is away", low=50, high=10_000
    )
    kept_s: float = setting(
        10.0, "seconds this node's own signals are kept, to be told again without the bus", low=2, high=30
    )
    kept_mb: int = setting(16, "megabytes of them", low=2, high=1_024)


@dataclass(frozen=True, slots=True)
class AuditConfig:
    seal_ms: int = setting(1_000, "milliseconds between two seals", low=10, high=2_000)
    denials_waiting: int = setting(10_000, "refusals waiting to be written", low=10, high=1_000_000)
    keep_days: int = setting(0, "days an audit row is kept; 0 keeps for ever", low=0, high=36_500)
    cut_pass_s: float = setting(
        3_600.0, "seconds between two looks for audit rows past their term", low=0.1, high=86_400
    )


@dataclass(frozen=True, slots=True)
class IdempotencyConfig:
    kept_h: int = setting(24, "hours at least an Idempotency-Key is kept", low=1, high=720)
    prune_s: float = setting(
        600.0, "seconds between two looks for keys kept long enough", low=0.1, high=86_400
    )


@dataclass(frozen=True, slots=True)
class LogConfig:
    level: str = setting(
        "info", "least severe level that is written", choices=("debug", "info", "warning", "error")
    )
    format: str = setting("auto", "json, text, or auto: text on a terminal", choices=("auto", "json", "text"))


@dataclass(frozen=True, slots=True)
class Config:
    data_dir: str = setting("./data", "folder of the database, the files and the keys", form=FOLDER)
    gateway: GatewayConfig = GatewayConfig()
    rate_limits: RateLimitsConfig = RateLimitsConfig()
    auth: AuthConfig = AuthConfig()
    keys: KeysConfig = KeysConfig()
    chat: ChatConfig = ChatConfig()
    storage: StorageConfig = StorageConfig()
    sqlite: SqliteConfig = SqliteConfig()
    memory: MemoryConfig = MemoryConfig()
    postgres: PostgresConfig = PostgresConfig()
    redis: RedisConfig = RedisConfig()
    minio: MinioConfig = MinioConfig()
    smtp: SmtpConfig = SmtpConfig()
    outbox: OutboxConfig = OutboxConfig()
    breaker: BreakerConfig = BreakerConfig()
    journal: JournalConfig = JournalConfig()
    signals: SignalsConfig = SignalsConfig()
    audit: AuditConfig = AuditConfig()
    idempotency: IdempotencyConfig = IdempotencyConfig()
    log: LogConfig = LogConfig()
