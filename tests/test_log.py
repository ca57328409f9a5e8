"""What a log line looks like, and what never stands in one."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

import pytest
import structlog
import trio

from secureconnect import log
from secureconnect.config import LogConfig


class Lines:
    """Log lines written since the last look."""

    def __init__(self) -> None:
        self.raw = io.BytesIO()
        self.stream = io.TextIOWrapper(self.raw, "utf-8", write_through=True)

    def text(self) -> str:
        text = self.raw.getvalue().decode()
        self.raw.seek(0)
        self.raw.truncate()
        return text

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def one(self) -> dict[str, Any]:
        (line,) = self.all()
        return line


@pytest.fixture
def lines() -> Iterator[Lines]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    lines = Lines()
    log.set_up(LogConfig(level="info", format="json"), lines.stream)
    yield lines
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.usefixtures("lines")  # puts back what this sets up
def test_a_log_that_nobody_takes_stops_nothing(form: Literal["json", "text"]) -> None:
    """Its reader has gone, or its disk is full: the lines are lost, the service is not."""
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    log.set_up(LogConfig(format=form), stream)
    structlog.get_logger(module="chat").info("message_stored", seq=7)
    logging.getLogger("library").warning("said")
    with suppress(BrokenPipeError):
        stream.close()


def test_one_line_of_json_with_the_fields_everybody_looks_for(lines: Lines) -> None:
    structlog.get_logger(module="chat").info("message_stored", seq=7, text="two\nlines", who=None)
    line = lines.one()
    assert list(line) == ["timestamp", "level", "service", "module", "msg", "seq", "text", "who"]
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() is not None
    assert line == {
        "level": "info",
        "service": "secureconnect",
        "module": "chat",
        "msg": "message_stored",
        "seq": 7,
        "text": "two\nlines",
        "who": None,
    }


def test_the_level_decides(lines: Lines) -> None:
    structlog.get_logger(module="chat").debug("unseen")
    assert lines.all() == []
    log.set_up(LogConfig(level="error", format="json"), lines.stream)
    structlog.get_logger(module="chat").warning("unseen")
    structlog.get_logger(module="chat").error("seen")
    assert lines.one()["msg"] == "seen"


@pytest.mark.parametrize(
    "field",
    [
        "password",
        "new_password",
        "Authorization",
        "access_token",
        "refresh_token",
        "ticket",
        "set_cookie",
        "private_key",
        "device_secret",
        "content",
        "message_content",
        "body",
    ],
)
def test_what_must_not_be_logged_is_masked(lines: Lines, field: str) -> None:
    structlog.get_logger(module="auth").info("careless", **{field: "hush-hush"})
    assert "hush-hush" not in (text := lines.text())
    assert json.loads(text)[field] == "********"
    with log.bind(**{field: "hush-hush"}):
        structlog.get_logger(module="auth").info("careless")
    assert "hush-hush" not in lines.text()


def test_what_must_not_be_logged_is_masked_at_any_depth(lines: Lines) -> None:
    frames: list[dict[str, Any]] = [
        {"type": "auth", "access_token": "hush"},
        {"data": ({"password": "hush"}, 7)},
    ]
    structlog.get_logger(module="chat").info("careless", frames=frames)
    assert lines.one()["frames"] == [
        {"type": "auth", "access_token": "********"},
        {"data": [{"password": "********"}, 7]},
    ]
    assert frames[0]["access_token"] == "hush", "the caller's own is left alone"


def test_ordinary_fields_are_not_masked(lines: Lines) -> None:
    structlog.get_logger(module="chat").info("x", content_type="text/plain", body_bytes=3, key_id="k")
    line = lines.one()
    assert (line["content_type"], line["body_bytes"], line["key_id"]) == ("text/plain", 3, "k")


async def test_bound_facts_stand_on_every_line_of_the_task_and_its_children(lines: Lines) -> None:
    logger = structlog.get_logger(module="gateway")

    async def child() -> None:
        logger.info("child")

    async def stranger(begin: trio.Event) -> None:
        await begin.wait()
        logger.info("stranger")

    begin = trio.Event()
    async with trio.open_nursery() as outside:
        outside.start_soon(stranger, begin)
        with log.bind(request_id="r1", user_id="u1"):
            async with trio.open_nursery() as inside:
                inside.start_soon(child)
            begin.set()
    logger.info("after")
    by_name = {line["msg"]: line for line in lines.all()}
    assert by_name["child"]["request_id"] == "r1"
    assert by_name["child"]["user_id"] == "u1"
    assert "request_id" not in by_name["stranger"]
    assert "request_id" not in by_name["after"]


def test_an_exception_is_one_line_with_its_traceback(lines: Lines) -> None:
    try:
        raise ValueError("out of range")
    except ValueError as exc:
        structlog.get_logger(module="chat").error("failed", exc_info=exc)
    line = lines.one()
    assert "ValueError: out of range" in line["exception"]
    assert "test_log.py" in line["exception"]


def test_libraries_log_the_same_way(lines: Lines) -> None:
    library = logging.getLogger("some.library")
    library.info("unseen")
    library.warning("%s is late", "the bus")
    line = lines.one()
    assert (line["level"], line["module"], line["msg"]) == ("warning", "some.library", "library_log")
    assert line["said"] == "the bus is late"
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        happened = sys.exc_info()
    library.error("went wrong", exc_info=happened)
    line = lines.one()
    assert line["level"] == "error"
    assert "RuntimeError: boom" in line["exception"]


@pytest.mark.parametrize("value", ["\ud800", "\x00\x1b[31m", 2**70, b"\xff", {"a": {1, 2}}, object()])
def test_nothing_from_outside_can_break_or_forge_a_line(lines: Lines, value: object) -> None:
    structlog.get_logger(module="chat").info("odd", value=value, text="x\n{}")
    assert lines.one()["msg"] == "odd"


def test_text_for_a_terminal(lines: Lines) -> None:
    log.set_up(LogConfig(format="text"), lines.stream)
    structlog.get_logger(module="chat").warning("slow_reader", token="hush", socket_id="s1")
    text = lines.text()
    assert "slow_reader" in text
    assert "s1" in text
    assert "hush" not in text


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_shows_no_local_variables(lines: Lines, form: Literal["text", "json"]) -> None:
    log.set_up(LogConfig(level="info", format=form), lines.stream)
    password = "correct " + "horse"
    try:
        raise RuntimeError(len(password))
    except RuntimeError:
        structlog.get_logger(module="auth").exception("failed")
    text = lines.text()
    assert "RuntimeError" in text
    assert password not in text


def test_auto_is_json_where_nobody_looks(lines: Lines) -> None:
    log.set_up(LogConfig(format="auto"), lines.stream)
    structlog.get_logger(module="chat").info("x")
    assert lines.one()["msg"] == "x"
