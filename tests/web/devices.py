"""Devices of people: pages in Chromium with the client's encryption alone, at a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import playwright.sync_api as playwright

from kit.people import PASSWORD, unique

PAGE = Path(__file__).parent / "page"
WITHIN_S = 20.0  # what a page comes to in one second, and in ten on a machine with other work

Json = dict[str, Any]


class Tab:
    """One page of a browser profile."""

    def __init__(self, context: playwright.BrowserContext, url: str) -> None:
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
        self.page.goto(f"{self.url}/sign-in")  # a page of this origin, under its policy
        main = self.page.evaluate("document.querySelector('script[type=module]').src")
        self.folder: str = main.removesuffix("/main.js") + "/crypto"

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

    def open(self, **more: str) -> None:
        self.do("device.open(given[0], given[1])", f"{self.folder}/index.js", more)

    def knows(self, other: Device) -> None:
        """Returns when what is sealed here is sealed for that device, too."""
        device = other.do("device.deviceId")
        self.wait(
            "(await device.crypto.devices(given[0])).some((each) => each.deviceId === given[1])",
            other.user,
            device,
        )


class Device(Tab):
    """A profile of its own, with its first tab.  user: the id of its person."""

    def __init__(self, browser: playwright.Browser, url: str) -> None:
        self.context = browser.new_context()
        self.context.add_init_script(path=PAGE / "device.js")
        super().__init__(self.context, url)

    def enter(self, way: str, body: Json) -> None:
        self.do("device.enter(given[0], given[1])", way, body)
        self.user: str = self.do("device.user")

    def tab(self) -> Tab:
        """Another of the same profile."""
        return Tab(self.context, self.url)


class Person:
    """Somebody with an account and devices."""

    def __init__(self, browser: playwright.Browser, url: str, name: str) -> None:
        self._browser, self._url = browser, url
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

    def another(self, **more: str) -> Device:
        """more: of what `open` of the encryption takes."""
        return self._enter("login", {"username": self.username, "password": PASSWORD}, **more)

    def _enter(self, way: str, body: Json, **more: str) -> Device:
        device = Device(self._browser, self._url)
        self.devices.append(device)
        device.enter(way, body)
        device.open(**more)
        return device

    def close(self) -> list[str]:
        """What its pages complained of."""
        errors = [error for device in self.devices for error in device.errors]
        for device in self.devices:
            device.context.close()
        return errors
