"""Errors of ours that no status tells of. Each harms only what it met, and is logged with its trace."""

from __future__ import annotations

from typing import Literal, get_args

import structlog

from ..metrics import counter

log = structlog.get_logger(module="gateway")

# connection_failed, look_failed (at connections that wait), check_failed (of open WebSockets),
# application_failed (over HTTP/2), body_failed (of an answer that had begun)
Fault = Literal["connection_failed", "look_failed", "check_failed", "application_failed", "body_failed"]

FAULTS = counter("secureconnect_gateway_faults_total", "Errors of ours that no status tells of.", ["fault"])
# there from the start, or nobody sees the first as an increase
_FAULTS = {fault: FAULTS.labels(fault) for fault in get_args(Fault)}


def note(fault: Fault) -> None:
    """The exception that is being handled."""
    log.exception(fault)
    _FAULTS[fault].inc()
