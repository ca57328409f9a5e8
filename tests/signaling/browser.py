"""People at pages of a browser: the client under `page/`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import playwright.sync_api as playwright

from kit.people import PASSWORD, unique

PAGE = Path(__file__).parent / "page"
WITHIN_S = 20.0  # what a page comes to in one second, and in ten on a machine with other work


class Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nowhere."""


@contextmanager
def pages() -> Iterator[str]:
    """The origin that `page/` is served from, by a web server that is not SecureConnect."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(PAGE))) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


class Somebody(Protocol):
    """Whom others see."""

    user_id: str


class Person:
    """Somebody at a page of their own, with an account.  user_id: theirs."""

    def __init__(self, page: playwright.Page, name: str) -> None:
        self.page = page
        self.name = name
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.user_id: str = self.do("client.register(given[0], given[1])", unique(name), PASSWORD)

    def do(self, expression: str, *given: object) -> Any:
        """What the page makes of it, awaited."""
        return self.page.evaluate(f"given => {expression}", list(given))

    def wait(self, condition: str, *given: object, within_s: float = WITHIN_S) -> Any:
        """The first value that is true; the page looks again and again."""
        found = self.page.evaluate(
            f"""async ([given, limitMs]) => {{
              for (const end = performance.now() + limitMs; performance.now() < end; ) {{
                const found = {condition};
                if (found) return found;
                await new Promise((resolve) => setTimeout(resolve, 50));
              }}
              return null;
            }}""",
            [list(given), within_s * 1_000],
        )
        assert found, f"{self.name}: not {condition} within {within_s} s: {self.errors}"
        return found

    def hears(self, event: str) -> dict[str, Any]:
        """The latest event of this type, once there is one."""
        heard: dict[str, Any] = self.wait("client.heard(given[0])", event)
        return heard

    def dials(self, conversation: str, *callees: Somebody) -> str:
        """The call's id.  callees: all others of the conversation if there are none."""
        asked = [each.user_id for each in callees] or None
        call_id: str = self.do("client.dial(given[0], given[1])", conversation, asked)
        return call_id

    def answers(self) -> str:
        """The call that rings."""
        call_id: str = self.hears("call_incoming")["call"]["call_id"]
        self.do("client.answer(given[0])", call_id)
        return call_id

    def sees(self, *others: Somebody, shown: str = "camera", more: int = 5) -> None:
        """Returns when `more` frames of each of the others have been decoded from now on."""
        so_far = self.do("client.call.decoded()")
        least = {each.user_id: so_far.get(each.user_id, {}).get(shown, 0) + more for each in others}
        self.wait(
            "await client.call.decoded().then((now) => Object.entries(given[0]).every("
            "([user, least]) => (now[user]?.[given[1]] ?? 0) >= least))",
            least,
            shown,
        )

    def peer(self, other: Somebody, condition: str) -> None:
        """Returns when this is true of the other's device, as `peer`."""
        self.wait(f"(peer => {condition})(client.call.peerOf(given[0]))", other.user_id)

    def told(self, *events: str) -> list[dict[str, Any]]:
        """Frames of these types that came on the signaling socket since the page was loaded."""
        frames: list[dict[str, Any]] = self.do("client.call.frames")
        return [frame for frame in frames if frame["type"] in events]

    def close(self) -> None:
        self.page.context.close()


class Stage:
    """Where people come to.  origin: of the page.  server: address of SecureConnect."""

    def __init__(self, browser: playwright.Browser, origin: str) -> None:
        self._browser = browser
        self.origin = origin
        self._people: list[Person] = []

    def enter(self, server: str, *names: str, ice: str = "all") -> list[Person]:
        return [self._person(server, name, ice) for name in names]

    def _person(self, server: str, name: str, ice: str) -> Person:
        context = self._browser.new_context(permissions=["camera", "microphone"])
        page = context.new_page()
        page.goto(f"{self.origin}/?{urlencode({'server': server, 'ice': ice})}")
        person = Person(page, name)
        self._people.append(person)
        return person

    def clear(self) -> None:
        """Everybody goes."""
        while self._people:
            self._people.pop().close()
