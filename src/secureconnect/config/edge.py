"""Settings of the edge: what listens, how much of it, and what is logged."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import NETWORKS, WEB_ORIGINS, WEB_URL, setting


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The edge: addresses, TLS, and what one client may take of it."""

    web: bool = setting(True, "whether the web client is served, at /")
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
    """Requests of one caller, by class."""

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
    assets: int = setting(6_000, "files of the web client a minute for one address", low=1, high=1_000_000)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is logged, and how."""

    level: str = setting(
        "info", "least severe level that is written", choices=("debug", "info", "warning", "error")
    )
    format: str = setting("auto", "json, text, or auto: text on a terminal", choices=("auto", "json", "text"))


@dataclass(frozen=True, slots=True)
class StunConfig:
    """The STUN server of our own."""

    enabled: bool = setting(
        False,
        "whether this server tells clients their own address, by STUN; told to them by gateway.public_url",
    )
    host: str = setting("", "address it listens on; empty: all of the machine, IPv4 and IPv6")
    port: int = setting(3478, "UDP port it listens on; 0 picks a free one", low=0, high=65535)
    retry_s: float = setting(
        5.0, "seconds before it tries again to listen, if it could not", low=0.05, high=3_600
    )
    datagrams_per_s: int = setting(
        2_000, "datagrams read in a second; further ones are left to the system to drop", low=1, high=100_000
    )
    answers_per_s: int = setting(
        50, "datagrams from one address (IPv6: one /64) looked at in a second", low=1, high=100_000
    )
