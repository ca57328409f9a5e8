"""The server, except that the chat room crashes once, on SIGUSR1."""

from __future__ import annotations

import signal

import trio

from secureconnect.chat import Chat
from secureconnect.cli.main import run

_run = Chat.run
_crashed = False


async def run_until_signal(
    self: Chat, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with trio.open_nursery() as nursery:
        if not _crashed:
            await nursery.start(crash_on_signal)
        await _run(self, task_status=task_status)


async def crash_on_signal(task_status: trio.TaskStatus[None]) -> None:
    global _crashed
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        task_status.started()
        await anext(aiter(signals))
    _crashed = True
    raise RuntimeError("asked to crash")


Chat.run = run_until_signal  # type: ignore[method-assign]
run()
