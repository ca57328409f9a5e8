"""Structured logs on stdout: JSON lines for machines, coloured text on a terminal.

One logger a file: `log = structlog.get_logger(module="chat")`. Event names are static, facts are fields.
Request and user are bound once a request (`bind`). Bodies, passwords and tokens never reach a log; should
one slip in as a field, its name betrays it and its value is masked.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, TextIO

import msgspec
import structlog

from .config import MASK, LogConfig

_SECRET = re.compile(r"passw|secret|token|authorization|ticket|cookie|private|content$|body$", re.IGNORECASE)
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def set_up(config: LogConfig, to: TextIO | None = None) -> None:
    """Configure structlog, and send the libraries' own warnings the same way.  to: stdout, if left out."""
    stream = to or sys.stdout
    text = config.format == "text" or (config.format == "auto" and stream.isatty())
    sink: Any = _Sink(stream if text else stream.buffer)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        _mask,
    ]
    if text:
        # structlog's own choice, rich, prints the local variables: passwords among them
        plain = structlog.dev.plain_traceback
        shared += [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
        factory: Any = structlog.PrintLoggerFactory(sink)
    else:
        shared += [structlog.processors.format_exc_info, _name_fields, _to_json]
        factory = structlog.BytesLoggerFactory(sink)
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[config.level]),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(logging.WARNING)


class _Sink:
    """Where lines go. A reader that has left, or a full disk, costs lines and never the service."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, line: str | bytes) -> None:
        with suppress(OSError):
            self._file.write(line)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()


@contextmanager
def bind(**facts: Any) -> Iterator[None]:
    """Facts that stand on every line logged inside the block, in this task and the tasks it starts."""
    with structlog.contextvars.bound_contextvars(**facts):
        yield


def _mask(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if _betrays(key):
            event[key] = MASK
        elif isinstance(value, (dict, list, tuple)):
            event[key] = _masked(value)
    return event


def _masked(value: Any) -> Any:
    """What lies deeper, without the secrets in it."""
    if isinstance(value, dict):
        return {key: MASK if _betrays(str(key)) else _masked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_masked(each) for each in value]
    if isinstance(value, tuple):  # stays one: `exc_info` can be a tuple
        return tuple(_masked(each) for each in value)
    return value


@lru_cache(maxsize=1024)
def _betrays(name: str) -> bool:
    return _SECRET.search(name) is not None


def _name_fields(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {
        "timestamp": event.pop("timestamp"),
        "level": event.pop("level"),
        "service": "secureconnect",
        "module": event.pop("module", None),
        "msg": event.pop("event"),
        **event,
    }


def _to_json(_: Any, __: str, event: MutableMapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(event, enc_hook=repr)
    except UnicodeEncodeError:  # a lone surrogate, which came from outside: no line may be lost to it
        return json.dumps(event, default=repr).encode()


class _ToStructlog(logging.Handler):
    """Lines of libraries that use the standard logging module."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        log = structlog.get_logger(module=record.name)
        getattr(log, level)("library_log", said=record.getMessage(), exc_info=record.exc_info or None)
