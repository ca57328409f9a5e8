"""Pushes: whether what is set for them can be used. No push service is asked: devices say which there are."""

from __future__ import annotations

import trio

from ..config import Config
from ..deps.fcm import read_account
from ..deps.push import contact_of, trusted_by
from ..settings import BadSetting
from .findings import Report


async def check(config: Config, report: Report) -> None:
    push = config.push
    if not push.enabled:
        report.ok("push", "none: no device is woken")
        return
    services = f"Web Push as {contact_of(push, config.gateway.public_url)}"
    try:
        if push.ca_file:
            await trio.to_thread.run_sync(trusted_by, push.ca_file)
        if push.fcm_account:
            account, _ = await trio.to_thread.run_sync(read_account, push.fcm_account)
            services += f", FCM as {account.client_email}"
    except BadSetting as exc:
        report.fail("push", str(exc), "name another file, or none: the server does not start with this one")
        return
    report.ok("push", services)
    if push.allow_private:
        report.warn(
            "push.private",
            "people can have requests sent to machines of this network",
            "switch push.allow_private off unless the push server is there",
        )
