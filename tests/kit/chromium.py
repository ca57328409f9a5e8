"""Debian's Chromium, with a camera that is none, and Playwright at its debugger."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import playwright.sync_api as playwright
import pytest

from kit.keeper import keep_files

PROGRAM = "chromium-headless-shell"  # without the windows of a desktop, which cost as much as the pages
WHOLE = "chromium"  # with notifications
START_S = 20.0

FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",  # a socket of the debugger's packs all that goes over it
    "--no-startup-window",
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


@contextmanager
def driven() -> Iterator[playwright.BrowserType]:
    """Playwright runs a loop of asyncio in this thread: meanwhile it is for tests that are not async."""
    ours = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())  # loops of trio-asyncio are not for it
    try:
        driver = playwright.sync_playwright().start()
    finally:
        asyncio.set_event_loop_policy(ours)
    try:
        yield driver.chromium
    finally:
        driver.stop()


@contextmanager
def launched(chromium: playwright.BrowserType, name: str = PROGRAM) -> Iterator[playwright.Browser]:
    """A browser of the tests' own. It ends with the pipe to its debugger: with Playwright in any case."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"no {name}")
    folder = Path(tempfile.mkdtemp(prefix="secureconnect-chromium-"))
    keep_files(folder)
    browser = chromium.launch(
        executable_path=program,
        args=[*FLAGS, f"--user-data-dir={folder}"],
        ignore_default_args=True,
        timeout=START_S * 1_000,
    )
    try:
        yield browser
    finally:
        browser.close()
        shutil.rmtree(folder, ignore_errors=True)
