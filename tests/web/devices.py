"""Devices of people: pages in Chromium with the client's encryption alone, at a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import playwright.sync_api as playwright

from kit.people import PASSWORD, unique
from kit.server import Server

PAGE = Path(__file__).parent / "page"
MISSING = "waiting_for_key"
WITHIN_S = 20.0  # what a page comes to in one second, and in ten on a machine with other work

Json = dict[str, Any]


class Tab:
    """One page of a device."""

    def __init__(self, context: playwright.BrowserContext, url: str) -> None:
        self.context = context
        self.page = context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._heard)
        self.url = url
        self.load()

    def _heard(self, said: playwright.ConsoleMessage) -> None:
        if said.type == "error" and "Failed to load resource" not in said.text:  # so it calls a refusal
            self.errors.append(said.text)

    def load(self) -> None:
        """Also again: what is kept in the browser stays."""
        self.page.goto(f"{self.url}/sw.js")  # of this origin, under the page's policy, and only to be read
        edition = self.page.evaluate("/\\/app\\/\\w+/.exec(document.body.textContent)[0]")
        self.folder: str = f"{edition}/crypto"

    def do(self, expression: str, *given: object) -> Any:
        """What the page makes of it, awaited."""
        return self.page.evaluate(f"async (given) => {expression}", list(given))

    def wait(self, condition: str, *given: object, within_s: float = WITHIN_S) -> Any:
        """The first value that is true; the page looks again and again."""
        found = self.page.evaluate(
            f"""async ([given, limitMs]) => {{
              for (const end = performance.now() + limitMs; performance.now() < end; ) {{
                const found = {condition};
                if (found) return found;
                await new Promise((resolve) => setTimeout(resolve, 30));
              }}
              return null;
            }}""",
            [list(given), within_s * 1_000],
        )
        assert found, f"not {condition} within {within_s} s: {self.errors}"
        return found

    def open(self) -> None:
        self.do("device.open(given[0])", f"{self.folder}/index.js")

    def knows(self, other: Device) -> None:
        """Returns when what is sealed here is sealed for that device, too."""
        device = other.do("device.deviceId")
        self.wait(
            "(await device.crypto.devices(given[0])).some((each) => each.deviceId === given[1])",
            other.user,
            device,
        )


class Device(Tab):
    """Its first tab.  user: the id of its person.  Devices share a browser profile, and nothing in it."""

    def enter(self, way: str, body: Json) -> None:
        self.do("device.enter(given[0], given[1])", way, body)
        self.user: str = self.do("device.user")

    def tab(self) -> Tab:
        """Another of the same device."""
        tab = Tab(self.context, self.url)
        tab.do("device.become(given[0])", self.do("device.account"))
        return tab

    def leaves(self) -> list[str]:
        """The names of its databases."""
        names = self.do("indexedDB.databases().then((all) => all.map(({ name }) => name))")
        device = self.do("device.deviceId")
        return [name for name in names if device in name]


def profile(browser: playwright.Browser) -> playwright.BrowserContext:
    """One for many devices: the module is compiled once."""
    context = browser.new_context()
    context.add_init_script(path=PAGE / "device.js")
    return context


class Person:
    """Somebody with an account and devices."""

    def __init__(self, context: playwright.BrowserContext, url: str, name: str) -> None:
        self._context, self._url = context, url
        self.username = unique(name)
        self.devices: list[Device] = []
        account = {"username": self.username, "password": PASSWORD, "email": f"{self.username}@example.org"}
        self._enter("register", account)

    @property
    def device(self) -> Device:
        """The first."""
        return self.devices[0]

    @property
    def id(self) -> str:
        return self.devices[0].user

    def another(self) -> Device:
        return self._enter("login", {"username": self.username, "password": PASSWORD})

    def _enter(self, way: str, body: Json) -> Device:
        device = Device(self._context, self._url)
        self.devices.append(device)
        device.enter(way, body)
        device.open()
        return device

    def close(self) -> list[str]:
        """What its pages complained of."""
        errors = [error for device in self.devices for error in device.errors]
        for device in self.devices:
            device.page.close()
        return errors


class Cast:
    """Whoever comes in one test."""

    def __init__(self, context: playwright.BrowserContext, server: Server) -> None:
        self._context = context
        self.server = server
        self._all: list[Person] = []

    def enter(self, *names: str) -> list[Person]:
        people = [Person(self._context, self.server.url, name) for name in names]
        self._all += people
        return people

    def leave(self) -> None:
        errors = [error for person in self._all for error in person.close()]
        assert not errors


class Room:
    """An encrypted group; the first makes it."""

    def __init__(self, *people: Person) -> None:
        self.members = [person.id for person in people]
        made = {
            "type": "group",
            "title": "sealed",
            "participant_ids": self.members[1:],
            "is_e2ee_enabled": True,
        }
        self.id = post(people[0].device, "/v1/conversations", made)["conversation_id"]

    def says(self, tab: Tab, text: str) -> str:
        """The id of the message."""
        message: str = tab.do("device.say(...given)", self.id, self.members, text)
        return message


def post(tab: Tab, path: str, body: object) -> Any:
    return tab.do("device.ask('POST', given[0], { body: given[1] })", path, body)


def read(tab: Tab, message: str) -> str:
    """What it says, or why that is not known now."""
    text: str = tab.do("device.read(given[0])", message)
    return text


def reads(tab: Tab, message: str) -> str:
    """The same, once its key has had the time to come."""
    text: str = tab.wait(f"((text) => text !== '{MISSING}' && text)(await device.read(given[0]))", message)
    return text


def refused(tab: Tab, expression: str, *given: object) -> str:
    """The code."""
    code: str = tab.do(f"refusal({expression})", *given)
    return code


def identify(*tabs: Tab) -> None:
    for tab in tabs:
        tab.do("device.crypto.bootstrap({ password: given[0] })", PASSWORD)


def flow(tab: Tab, flow_id: str, phase: str) -> dict[str, Any]:
    """The comparison, once it has come so far."""
    condition = "(flow) => flow.flowId === given[0] && flow.phase === given[1]"
    found: dict[str, Any] = tab.wait(f"device.last('verification', {condition})", flow_id, phase)
    return found


def compare(one: Tab, other: Tab, user: str, device: str | None = None) -> str:
    """Up to where both see pictures: the id of the flow."""
    flow_id: str = one.do("device.crypto.verification.begin(given[0], given[1])", user, device)["flowId"]
    flow(other, flow_id, "requested")
    other.do("device.crypto.verification.accept(given[0])", flow_id)
    pictures = [flow(tab, flow_id, "compare")["emojis"] for tab in (one, other)]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == 7
    return flow_id


def verify(one: Tab, other: Tab, user: str, device: str | None = None) -> None:
    flow_id = compare(one, other, user, device)
    for tab in (one, other):
        tab.do("device.crypto.verification.confirm(given[0])", flow_id)
    for tab in (one, other):
        flow(tab, flow_id, "done")


def believed(tab: Tab, message: str) -> str:
    """From whom it is, as far as that is known."""
    sealed = tab.do("device.ask('GET', given[0])", f"/v1/messages/{message}")
    found: str = tab.do("device.crypto.decrypt(given[0])", sealed)["trust"]
    return found


def trust(tab: Tab, person: Person) -> str:
    found: str = tab.do("device.crypto.look(given[0])", person.id)["trust"]
    return found
