"""The page without a network, and a device that is woken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trio
from playwright.sync_api import Browser as Playwright

from kit.chromium import WHOLE, launched
from kit.pushservice import Browser, PushService, push_service
from kit.server import Server

from .people import AWAY, People, Person

WORKER_IS_READY = "(await navigator.serviceWorker.getRegistration())?.active?.state === 'activated'"
WITHIN_S = 10.0


@pytest.fixture(scope="module")
def whole(browser: Playwright) -> Iterator[Playwright]:
    """A browser that shows notifications."""
    with launched(browser.browser_type, WHOLE) as whole:
        yield whole


@pytest.fixture
def notified(whole: Playwright) -> Iterator[People]:
    """People at that browser."""
    people = People(whole)
    try:
        yield people
        people.check()
    finally:
        people.clear()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, which may end it."""
    server = Server(tmp_path / "data")
    server.start()
    yield server
    server.close()


def install(person: Person) -> None:
    """Returns when the worker has kept the page, and serves it."""
    person.comes_to(WORKER_IS_READY)
    person.at("/")
    person.comes_to("navigator.serviceWorker.controller !== null")


def test_the_page_is_there_without_the_server(people: People, alone: Server) -> None:
    [ann], [bob] = people.enter(alone, "Ann", installs=True), people.enter(alone, "Bob")
    where = ann.me.direct(bob.me)
    bob.me.says(where, "Before it went away")
    ann.at("/")
    install(ann)
    ann.opens("Bob")
    ann.sees("Before it went away")
    ann.finds("app.mine.writer.flush()")
    ann.excuses(AWAY, "ERR_FAILED", "Failed to load resource")
    alone.kill()
    ann.at(f"/c/{where}")
    ann.sees("Before it went away")
    ann.is_told("Connection lost")
    ann.writes("Written while it was away")
    ann.sees_once("Written while it was away")
    at_once = {"conversation_id": where, "content": "And at once"}
    ann.finds("void app.mine.outbox.add(given[0]), location.reload()", at_once)
    ann.sees_once("And at once")
    ann.sees_once("Written while it was away")
    alone.start()
    ann.has_sent()
    ann.sees_once("Written while it was away", "And at once")
    assert bob.me.said(where) == ["Before it went away", "Written while it was away", "And at once"]


SUBSCRIBE = """({ endpoint, p256dh, auth }) => {
  let subscribed = null;
  const unsubscribe = async () => (subscribed = null);
  const made = { endpoint, unsubscribe, toJSON: () => ({ endpoint, keys: { p256dh, auth } }) };
  PushManager.prototype.subscribe = async ({ applicationServerKey, userVisibleOnly }) => {
    if (!userVisibleOnly || applicationServerKey.length !== 87) throw new TypeError("no browser takes it");
    return (subscribed = made);
  };
  PushManager.prototype.getSubscription = async () => subscribed;
}"""
"""What the makers of browsers do with servers of their own: our push service is told in their place."""


@pytest.fixture
def pushes(tmp_path: Path) -> Iterator[PushService]:
    """A push service, in a thread of its own: this one drives the browser."""
    ready: Future[tuple[PushService, trio.lowlevel.TrioToken, trio.Event]] = Future()

    async def serve() -> None:
        async with push_service(tmp_path) as service:
            ended = trio.Event()
            ready.set_result((service, trio.lowlevel.current_trio_token(), ended))
            await ended.wait()

    thread = Thread(target=trio.run, args=(serve,))
    thread.start()
    service, token, ended = ready.result(WITHIN_S)
    yield service
    token.run_sync_soon(ended.set)
    thread.join(WITHIN_S)


def test_a_device_is_woken_and_opens_what_it_was_woken_for(
    notified: People, pushes: PushService, tmp_path: Path
) -> None:
    server = Server(
        tmp_path / "data",
        PUSH__ALLOW_PRIVATE="true",
        PUSH__CA_FILE=str(pushes.ca_file),
        PUSH__CONTACT="mailto:root@chat.example.org",
        PUSH__DELAY_S="0",
        PUSH__POLL_S="0.05",
        CHAT__NOTIFY_PASS_S="0.05",
        CHAT__OFFLINE_GRACE_S="0",
    )
    server.start()
    try:
        phone = Browser(f"{pushes.origin}/bob")
        ann, bob = notified.enter(server, "Ann", "Bob", installs=True, permissions=["notifications"])
        where = ann.me.direct(bob.me)
        bob.context.add_init_script(f"({SUBSCRIBE})({json.dumps(phone.subscription)})")
        bob.at("/")
        install(bob)
        bob.comes_to("app.device.push.peek() === 'off'")
        bob.finds("app.device.enablePush(app.state.server.peek().vapid_public_key)")
        bob.comes_to("app.device.push.peek() === 'on'")
        bob.finds("app.mine.writer.flush()")
        away = bob.context.new_page()
        bob.page.close()
        bob.page = away

        ann.me.says(where, "A secret")
        assert bob.waits(lambda: bool(pushes.at("/bob")))
        told = phone.open(pushes.at("/bob")[0].body)
        assert told["conversation_id"] == where
        worker = Worker(bob, server.url)
        worker.deliver(json.dumps(told))
        bob.at("/livez")
        shown = "navigator.serviceWorker.ready.then((it) => it.getNotifications())"
        assert bob.waits(lambda: bool(bob.page.evaluate(f"{shown}.then((all) => all.length)")))
        [notice] = bob.page.evaluate(f"{shown}.then((all) => all.map(({{ body, data }}) => [body, data]))")
        assert notice == ["New message: Ann", f"/c/{where}"]

        bob.at("/")
        bob.is_online()
        worker.run(f"open({notice[1]!r})")
        bob.sees("A secret")

        bob.finds("app.device.disablePush()")
        assert bob.page.evaluate("localStorage.getItem('sc.push')") is None
        server.check()
    finally:
        server.close()


class Worker:
    """The service worker of a person's browser, by the debugger.  Makers of browsers wake it; here we do."""

    def __init__(self, person: Person, origin: str) -> None:
        self._debugger = person.context.new_cdp_session(person.page)
        self._origin = origin
        self._registration = ""
        self._worker = person.context.service_workers[0]
        self._debugger.on("ServiceWorker.workerRegistrationUpdated", self._heard)
        self._debugger.send("ServiceWorker.enable")
        assert person.waits(lambda: bool(self._registration))

    def _heard(self, told: dict[str, Any]) -> None:
        for each in told["registrations"]:
            if each["scopeURL"].startswith(self._origin):
                self._registration = each["registrationId"]

    def deliver(self, data: str) -> None:
        push = {"origin": self._origin, "registrationId": self._registration, "data": data}
        self._debugger.send("ServiceWorker.deliverPushMessage", push)

    def run(self, expression: str) -> None:
        self._worker.evaluate(expression)
