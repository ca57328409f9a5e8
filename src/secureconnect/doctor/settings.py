"""The settings: which differ from their defaults, and which do not go together."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Config
from ..config_file import SETTINGS
from ..settings import MASK, POSTGRES_URL, REDIS_URL
from .findings import Report

UTF8_BYTES = 4  # of a character, at most


async def check(config: Config, report: Report) -> None:
    changed = [
        f"{key} = {MASK if each.about['secret'] else repr(value)}"
        for key, each in SETTINGS.items()
        if (value := _value(config, key)) != each.default
    ]
    report.ok("settings", f"not default: {', '.join(changed)}" if changed else "all default")
    for found, mend in _impossible(config):
        report.fail("settings", found, mend)
    for found, mend in _strange(config):
        report.warn("settings", found, mend)


def _value(config: Config, key: str) -> object:
    section, _, name = key.rpartition(".")
    return getattr(getattr(config, section) if section else config, name)


def _impossible(config: Config) -> Iterator[tuple[str, str]]:
    if config.postgres.url and not POSTGRES_URL.fits(config.postgres.url):
        yield (
            "postgres.url is no URL of Postgres",
            "write it as postgres://user:password@host:port/database, with what is special in the password"
            " percent-encoded",
        )
    if config.redis.url and not REDIS_URL.fits(config.redis.url):
        yield (
            "redis.url is no URL of Redis",
            "write it as redis://:password@host:port/0, with what is special in the password percent-encoded",
        )
    if "/" in config.minio.endpoint:
        yield (
            "minio.endpoint has a scheme or a path",
            "set it to host:port alone; minio.secure says whether it is TLS",
        )
    if "/" in config.minio.public_endpoint.removeprefix("http://").removeprefix("https://"):
        yield "minio.public_endpoint has a path", "set it to host:port, after http:// or https:// if need be"
    if config.minio.endpoint and not (config.minio.access_key and config.minio.secret_key):
        yield "minio.endpoint is set without its keys", "set minio.access_key and minio.secret_key"


def _strange(config: Config) -> Iterator[tuple[str, str]]:
    gateway, auth, chat, postgres = config.gateway, config.auth, config.chat, config.postgres
    longest = max(chat.max_message_chars * UTF8_BYTES, chat.max_encrypted_bytes)
    for name, limit in (
        ("ws_frame_limit_bytes", gateway.ws_frame_limit_bytes),
        ("body_limit_bytes", gateway.body_limit_bytes),
    ):
        if longest > limit:
            yield (
                f"the longest message has {longest} bytes, and gateway.{name} is {limit}",
                f"raise gateway.{name} above {longest}, or lower the limits of a message in [chat]",
            )
    if auth.access_ttl_s >= auth.refresh_ttl_s:
        yield (
            "auth.access_ttl_s is not shorter than auth.refresh_ttl_s",
            "let an access token live for minutes and a refresh token for days",
        )
    if not config.rate_limits.enabled:
        yield "rate_limits.enabled is false", "set it to true: nothing slows who guesses passwords"
    if postgres.url and postgres.lock_s >= postgres.statement_s:
        yield (
            "postgres.lock_s is not shorter than postgres.statement_s",
            "set postgres.lock_s below it, or a wait for a lock looks like a slow database",
        )
    if config.breaker.probe_limit_ms > config.breaker.probe_ms:
        yield (
            "breaker.probe_limit_ms is longer than breaker.probe_ms",
            "set it below, or a dependency that is frozen is noticed late",
        )
    if (config.redis.url or config.minio.endpoint) and not postgres.url:
        yield (
            "Redis or MinIO is set, but the database is the embedded one",
            "set postgres.url if there is to be more than one node; one node needs neither",
        )
