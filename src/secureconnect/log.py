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
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar, Token
from functools import lru_cache
from typing import Any, TextIO

import msgspec
import structlog

from .clock import now_us, to_iso
from .config import LogConfig
from .settings import MASK

_SECRET = re.compile(r"passw|secret|token|authorization|ticket|cookie|private|content$|body$", re.IGNORECASE)
_BOUND: ContextVar[Mapping[str, Any]] = ContextVar("bound", default={})  # noqa: B039  (never changed in place)
_encode = msgspec.json.Encoder(enc_hook=repr).encode
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def set_up(config: LogConfig, to: TextIO | None = None) -> None:
    """Configure structlog, and send the libraries' own warnings the same way.  to: stdout, if left out."""
    stream = to or sys.stdout
    text = config.format == "text" or (config.format == "auto" and stream.isatty())
    sink = _Sink(stream if text else stream.buffer)
    steps: list[structlog.typing.Processor]
    if text:
        # structlog's own choice, rich, prints the local variables: passwords among them
        plain = structlog.dev.plain_traceback
        steps = [
            with_bound,
            _mask,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain),
            lambda _, __, line: f"{line}\n",
        ]
    else:
        steps = [_to_json]
    structlog.configure(
        processors=steps,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[config.level]),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(logging.WARNING)


class _Sink:
    """Where lines go. A reader that has left, or a full disk, costs lines and never the service."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def line(self, line: Any) -> None:
        try:
            self._file.write(line)
            self._file.flush()
        except OSError:
            pass

    debug = info = warning = error = line  # structlog calls the level


class bind:
    """Facts that stand on every line logged inside the block, in this task and the tasks it starts."""

    __slots__ = ("_facts", "_token")

    def __init__(self, **facts: Any) -> None:
        self._facts = facts

    def __enter__(self) -> None:
        self._token: Token[Mapping[str, Any]] = _BOUND.set({**_BOUND.get(), **self._facts})

    def __exit__(self, *_: object) -> None:
        _BOUND.reset(self._token)

    @staticmethod
    def add(**facts: Any) -> None:
        """Further facts, up to the end of the innermost block."""
        _BOUND.set({**_BOUND.get(), **facts})


def with_bound(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog's processor that puts what is bound on a line."""
    return {**_BOUND.get(), **event}


def _mask(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, (dict, list, tuple)):
            event[key] = _masked(value)
    for key in _betraying(tuple(event)):
        event[key] = MASK
    return event


@lru_cache(maxsize=1024)
def _betraying(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those that betray a secret. Lines of one kind have the same names."""
    return tuple(name for name in names if _betrays(name))


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


def _to_json(logger: Any, level: str, event: MutableMapping[str, Any]) -> bytes:
    """All of a line in one step: every request logs one."""
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, level, event)
    line = {
        "timestamp": to_iso(now_us()),
        "level": level,
        "service": "secureconnect",
        "module": event.pop("module", None),
        "msg": event.pop("event"),
        **_BOUND.get(),
        **event,
    }
    _mask(logger, level, line)
    try:
        return _encode(line) + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which came from outside: no line may be lost to it
        return json.dumps(line, default=repr).encode() + b"\n"


class _ToStructlog(logging.Handler):
    """Lines of libraries that use the standard logging module."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        log = structlog.get_logger(module=record.name)
        getattr(log, level)("library_log", said=record.getMessage(), exc_info=record.exc_info or None)
