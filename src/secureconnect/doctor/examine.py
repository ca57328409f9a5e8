"""The checks in their order, each within its time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from ..config import Config
from . import backup, database, folder, gateway, minio, push, redis, settings, smtp, turn
from .findings import Finding, Report

FROZEN = "it accepts and does not answer: look at its log, and at the network between"
DISK = "the disk or the machine does not keep up: look at its load and at the system's log"


@dataclass(frozen=True, slots=True)
class Check:
    """limit_s: after it the next check begins.  slow: how to mend a check that took longer."""

    name: str
    run: Callable[[Config, Report], Awaitable[None]]
    limit_s: float
    slow: str


CHECKS = (
    Check("settings", settings.check, 5, DISK),
    Check("data_folder", folder.check_folder, 15, DISK),
    Check("master_key", folder.check_master_key, 5, DISK),
    Check("file_descriptors", gateway.check_descriptors, 5, DISK),
    Check("port", gateway.check_port, 10, FROZEN),
    Check("tls", gateway.check_tls, 5, DISK),
    Check("addresses", gateway.check_addresses, 5, DISK),
    Check("dns", gateway.check_name, 15, "look at the name servers this machine asks (/etc/resolv.conf)"),
    Check("database", database.check, 40, FROZEN),
    Check("redis", redis.check, 20, FROZEN),
    Check("minio", minio.check, 40, FROZEN),
    Check("smtp", smtp.check, 20, FROZEN),
    Check("push", push.check, 5, DISK),
    Check("backup", backup.check, 15, DISK),
    Check("turn", turn.check, 60, FROZEN),
)


async def examine(config: Config, tell: Callable[[Finding], None], only: str | None = None) -> list[Finding]:
    """Run every check, one after another so that none slows what another measures.

    tell: called with each finding as it is made.  only: the name of the one check to run.
    """
    report = Report(config, tell)
    for check in CHECKS:
        if only not in (None, check.name):
            continue
        try:
            with trio.move_on_after(check.limit_s) as limit:
                await check.run(config, report)
        except Exception as exc:  # one check that breaks must not hide what the others find
            report.fail(
                check.name,
                f"the check itself failed: {type(exc).__name__}: {report.said(exc)}",
                "report this: it is a mistake in this program",
            )
        if limit.cancelled_caught:
            report.fail(check.name, f"no answer within {check.limit_s:g} s", check.slow)
    return report.findings
