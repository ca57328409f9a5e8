"""Debian's Chromium, with a camera that is none, and Playwright at its debugger."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import playwright.sync_api as playwright
import pytest

from kit.keeper import keep, keep_files

PROGRAM = "chromium-headless-shell"  # without the windows of a desktop, which cost as much as the pages
WHOLE = "chromium"  # with notifications
START_S = 20.0
STOP_S = 10.0

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--process-per-site",  # within a profile: what one page has read another need not
    "--no-first-run",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream=fps=5,device-count=2",
    "--use-fake-ui-for-media-stream",
    "--allow-loopback-in-peer-connection",  # calls work on a machine without a network, too
    "--host-resolver-rules=MAP lan.test 127.0.0.1",  # a name that browsers do not take for this very machine
    # pages that nobody looks at go on as if somebody did
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)


class Chromium:
    """A browser that is a process of the tests' own: it ends by its pid, and with them in any case."""

    def __init__(self, name: str = PROGRAM) -> None:
        program = shutil.which(name)
        if program is None:
            pytest.skip(f"no {name}")
        self._folder = Path(tempfile.mkdtemp(prefix="secureconnect-chromium-"))
        keep_files(self._folder)
        command = [program, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={self._folder}"]
        self._process = keep(
            subprocess.Popen(
                [*command, "about:blank"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def address(self) -> str:
        """Of its debugger, when it listens."""
        told = self._folder / "DevToolsActivePort"
        give_up = time.monotonic() + START_S
        while not (told.exists() and len(lines := told.read_text().split()) == 2):
            assert self._process.poll() is None, f"{PROGRAM} ended at once"
            assert time.monotonic() < give_up, f"{PROGRAM} does not answer"
            time.sleep(0.02)
        port, path = lines
        return f"ws://127.0.0.1:{port}{path}"

    def close(self) -> None:
        """The program may be a script that waits for the browser: both go, as the group they are."""
        give_up = time.monotonic() + STOP_S
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
            while time.monotonic() < give_up:
                self._process.poll()
                os.killpg(self._process.pid, 0)
                time.sleep(0.02)
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_S)
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def driven(chromium: Chromium) -> Iterator[playwright.Browser]:
    """Playwright runs a loop of asyncio in this thread: meanwhile it is for tests that are not async."""
    ours = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())  # loops of trio-asyncio are not for it
    try:
        driver = playwright.sync_playwright().start()
    finally:
        asyncio.set_event_loop_policy(ours)
    try:
        browser = driver.chromium.connect_over_cdp(chromium.address())
        yield browser
        browser.close()
    finally:
        driver.stop()
