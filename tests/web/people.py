"""People at the web client, who see and press what its screens say; and what goes wrong there unseen."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property, partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import playwright.sync_api as playwright
import trio
from playwright.sync_api import expect

from kit.people import PASSWORD, unique
from kit.server import Server
from secureconnect.auth.admin import standing
from secureconnect.deps.policy import open_database
from secureconnect.identity import UserId

from .profiles import Profile, profiles

WITHIN_MS = 20_000.0  # what a page comes to in one second, and in ten on a machine with other work
LOOK_MS = 20.0
SLICE_MS = 500.0  # that a page looks for itself
QUIET_LOOKS = 5
DESK = (1280, 800)
PHONE = (390, 844)

TOKENS = ("access_token", "refresh_token")

# A session, in the first page of this tab; whoever signs out there has signed out.
SIGN_IN = """(([origin, session]) => {
  if (location.origin !== origin || sessionStorage.getItem("came")) return;
  sessionStorage.setItem("came", "signed in");
  localStorage.setItem("sc.session", session);
})"""

expect.set_options(timeout=WITHIN_MS)


class Account:
    """Somebody as the server knows them, for what is made ready or looked at beside the page.

    session: of the device that asks, as `POST /v1/auth/login` answers.
    """

    def __init__(self, server: Server, name: str, username: str = "") -> None:
        self.name = name
        self.username = username or unique(re.sub(r"[^a-z]", "", name.lower())[:20])
        self.email = f"{self.username}@example.org"
        self._http = httpx.Client(
            base_url=server.url, timeout=WITHIN_MS / 1_000, trust_env=False, verify=False
        )
        registered = {
            "username": self.username,
            "password": PASSWORD,
            "email": self.email,
            "display_name": name,
        }
        self.session: dict[str, Any] = self._http.post("/v1/auth/register", json=registered).json()["data"]
        self.user_id: str = self.session["user"]["user_id"]
        self._is_taken = False

    def ask(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """The `data` of the answer, which must be a good one."""
        headers = {"Authorization": f"Bearer {self.session['access_token']}"}
        answer = self._http.request(method, path, json=body, params=query, headers=headers)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()["data"] if answer.content else None

    def fresh_session(self) -> dict[str, Any]:
        """One that no browser has yet: devices have keys of their own."""
        if self._is_taken:
            self.session = self.log_in()
        self._is_taken = True
        return self.session

    def log_in(self) -> dict[str, Any]:
        """A session on another device."""
        asked = {"username": self.username, "password": PASSWORD}
        session: dict[str, Any] = self._http.post("/v1/auth/login", json=asked).json()["data"]
        return session

    def becomes_administrator(self, server: Server) -> None:
        """In the database, beside the server. The sessions it had are over; it has another from now on."""

        async def promote() -> None:
            async with open_database(server.config) as db:
                user = UserId(self.user_id)
                await db.write(standing.set_role, server.config.auth, user, "admin", None, db.now_us())

        trio.run(promote)
        self.session = self.log_in()

    def group(self, title: str, *others: Account) -> str:
        """Its id."""
        made = {"type": "group", "title": title, "participant_ids": [each.user_id for each in others]}
        return str(self.ask("POST", "/v1/conversations", made)["conversation_id"])

    def direct(self, other: Account) -> str:
        made = {"type": "direct", "participant_ids": [other.user_id]}
        return str(self.ask("POST", "/v1/conversations", made)["conversation_id"])

    def says(self, conversation_id: str, content: str, **more: object) -> None:
        said = {"conversation_id": conversation_id, "content": content, "client_message_id": unique("m")}
        self.ask("POST", "/v1/messages", said | more)

    def sends_file(self, conversation_id: str, name: str, content: bytes, kind: str = "text/plain") -> None:
        """Says nothing about it.  kind: its media type."""
        about = {"file_name": name, "file_size": len(content), "content_type": kind}
        begun = self.ask("POST", "/v1/storage/upload-url", about)
        assert self._http.put(begun["upload_url"], content=content).is_success
        self.ask("POST", "/v1/storage/upload-complete", {"file_id": begun["file_id"]})
        self.says(conversation_id, "", file_ids=[begun["file_id"]])

    def said(self, conversation_id: str) -> list[str]:
        """What people have said there, as the server has stored it, the oldest first."""
        messages = self.ask("GET", "/v1/messages", conversation_id=conversation_id, limit="100")["messages"]
        return [each["content"] for each in messages if each["message_type"] != "system"]

    def close(self) -> None:
        self._http.close()


class Person:
    """Somebody at a page in a browser of their own, which is begun when it is first used: many only speak.

    take: gives the browser.  account: theirs, None for somebody who has none yet.  begins: a script that the
    page begins with.  faults: what a page must not do: messages on its console, errors nobody caught,
    violations of its policy, requests that go elsewhere.  asked: all addresses so far.
    """

    def __init__(
        self, take: Callable[[], Profile], server: Server, account: Account | None, begins: str = ""
    ) -> None:
        self.account = account
        self._take = take
        self._begins = begins
        self.faults: list[str] = []
        self.asked: list[str] = []
        self._under_way: set[playwright.Request] = set()
        self._hosts = {urlsplit(server.url).netloc}
        self._excused: list[re.Pattern[str]] = []
        self._ears: dict[Any, Callable[[Any], None]] = {
            "console": self._heard,
            "weberror": lambda error: self._fault(f"uncaught: {error.error}"),
            "request": self._asked,
            "requestfinished": self._came,
            "requestfailed": self._came,
            "page": self._opened,
        }

    @cached_property
    def profile(self) -> Profile:
        profile = self._take()
        profile.context.set_default_timeout(WITHIN_MS)
        for event, ear in self._ears.items():
            profile.context.on(event, ear)
        return profile

    @cached_property
    def page(self) -> playwright.Page:
        page = self.profile.context.new_page()
        if self._begins:
            page.add_init_script(self._begins)
        return page

    @property
    def has_come(self) -> bool:
        """They have a browser."""
        return "profile" in vars(self)

    @property
    def context(self) -> playwright.BrowserContext:
        """Whoever asks for it may do with it what they like: nobody has it after them."""
        self.profile.is_altered = True
        return self.profile.context

    @property
    def me(self) -> Account:
        assert self.account is not None
        return self.account

    # -- what one does --

    def at(self, path: str) -> Person:
        """Loads the page there."""
        self.page.goto(path)
        return self

    def goes(self, path: str) -> None:
        """There without loading the page, as by a link; returns when what is there has been loaded."""
        self.finds("app.router.go(given[0])", path)
        self.settles()

    def opens(self, title: str) -> None:
        """A conversation of the list."""
        conversations = self.page.get_by_role("navigation", name="Conversations")
        conversations.get_by_role("link", name=title).first.click()
        expect(self.page.get_by_role("heading", name=title, level=2)).to_be_visible()

    def writes(self, text: str) -> None:
        """A message in the open conversation, sent with Enter."""
        self.page.get_by_label("Write a message").fill(text)
        self.page.keyboard.press("Enter")

    def presses(self, name: str) -> None:
        """The button of this name."""
        self.page.get_by_role("button", name=name).click()

    def opens_tab(self) -> Person:
        """Another tab of the same browser, at the same place; its faults count as of this one."""
        other = copy(self)
        other.page = self.profile.context.new_page()
        other.page.goto(self.page.url)
        return other

    # -- what one sees --

    def sees(self, *texts: str) -> None:
        """Each of them is a message of the open conversation, or comes within the time there is."""
        for text in texts:
            expect(self.messages(text).first).to_be_visible()

    def sees_once(self, *texts: str) -> None:
        for text in texts:
            expect(self.messages(text)).to_have_count(1)

    def messages(self, text: str) -> playwright.Locator:
        """Those that hold it."""
        return self.page.get_by_role("article").filter(has_text=text)

    def is_told(self, text: str) -> None:
        """Somewhere on the page."""
        expect(self.page.get_by_text(text).first).to_be_visible()

    def is_signed_in(self) -> None:
        expect(self.page.get_by_role("navigation", name="Conversations")).to_be_visible()

    def has_sent(self) -> None:
        """Nothing of theirs waits any more."""
        self.is_online()
        waiting = "app.mine.outbox.entries.peek()"
        assert self.waits(lambda: self.finds(waiting) == []), self.finds(waiting)

    def is_online(self) -> None:
        self.comes_to("app.mine.socket.link.peek() === 'online'")

    def settles(self) -> None:
        """Returns when nothing is being loaded, and was not a moment before."""
        quiet = 0

        def is_quiet() -> bool:
            nonlocal quiet
            quiet = 0 if self._under_way else quiet + 1
            return quiet > QUIET_LOOKS

        assert self.waits(is_quiet), [request.url for request in self._under_way]

    # -- what lies under the page --

    def finds(self, expression: str, *given: object) -> Any:
        """The value of an expression of `app`, of the module app.js, and `given`; awaited."""
        return self.page.evaluate(
            f"""async (given) => {{
              const main = document.querySelector('script[type="module"]').src;
              const {{ app }} = await import(new URL("app.js", main).href);
              return {expression};
            }}""",
            list(given),
        )

    def comes_to(self, condition: str, *given: object, within_s: float = WITHIN_MS / 1_000) -> None:
        """Returns when it is true; it may throw meanwhile. The page itself looks, again and again."""
        latest: object = None
        looks = f"""(async () => {{
          for (const end = performance.now() + {SLICE_MS}; ; ) {{
            let found;
            try {{
              found = {condition};
            }} catch (error) {{
              found = String(error);
            }}
            if (found === true || performance.now() > end) return found;
            await new Promise((resolve) => setTimeout(resolve, {LOOK_MS}));
          }}
        }})()"""

        def holds() -> bool:
            nonlocal latest
            try:
                latest = self.finds(f"await {looks}", *given)
            except playwright.Error as error:  # it is being loaded, or is somewhere else yet
                latest = error
            return latest is True

        assert self.waits(holds, within_s), f"not {condition} within {within_s} s: {latest}"

    def waits(
        self, holds: Callable[[], bool], within_s: float = WITHIN_MS / 1_000, look_ms: float = LOOK_MS
    ) -> bool:
        """Whether it came to be; what happens at the page is heard meanwhile."""
        give_up = time.monotonic() + within_s
        while not (held := holds()) and time.monotonic() < give_up:
            self.page.wait_for_timeout(look_ms)
        return held

    # -- what must not happen --

    @contextmanager
    def excused(self, *patterns: str) -> Iterator[None]:
        """Faults like these may happen meanwhile: of a server that is away, or that refuses something."""
        excuses = [re.compile(each) for each in patterns]
        self._excused.extend(excuses)
        yield
        if not self.page.is_closed():
            self.page.evaluate("0")  # what the page has told before is heard before its answer
        for each in excuses:
            self._excused.remove(each)

    def excuses(self, *patterns: str) -> None:
        """The same, from now on."""
        self._excused.extend(re.compile(each) for each in patterns)

    def allows(self, address: str) -> None:
        """Requests to this origin, too, are right: the object store's."""
        self._hosts.add(urlsplit(address).netloc)

    def check(self) -> None:
        for page in self.profile.context.pages if self.has_come else ():
            page.evaluate("0")
        assert not self.faults, f"at the page of {self.account and self.account.name}: {self.faults}"
        secrets = [self.account.session[name] for name in TOKENS] if self.account else []
        assert not [url for url in self.asked if any(secret in url for secret in secrets)]

    def goes_away(self) -> None:
        """Hears nothing any more."""
        for event, ear in self._ears.items():
            self.profile.context.remove_listener(event, ear)

    def _opened(self, page: playwright.Page) -> None:
        page.on("websocket", lambda socket: self._went(socket.url))

    def _heard(self, said: playwright.ConsoleMessage) -> None:
        if said.type != "debug":  # advice of the browser's own
            self._fault(f"console: {said.type}: {said.text} ({said.location.get('url')})")

    def _asked(self, request: playwright.Request) -> None:
        self._under_way.add(request)
        self._went(request.url)

    def _came(self, request: playwright.Request) -> None:
        self._under_way.discard(request)

    def _went(self, url: str) -> None:
        self.asked.append(url)
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc not in self._hosts:
            self._fault(f"went to {url}")

    def _fault(self, what: str) -> None:
        if not any(excuse.search(what) for excuse in self._excused):
            self.faults.append(what)


AWAY = (
    r"ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_INTERNET_DISCONNECTED|ERR_FAILED|"
    r"ERR_CONTENT_LENGTH_MISMATCH|ERR_INCOMPLETE_CHUNKED_ENCODING|"
    r"WebSocket connection to .* failed|when fetching the script"
)
"""What Chromium says of a server that is not there, for `Person.excused`."""


class People:
    """Whoever comes to a page in one test; faults at any of their pages are the test's."""

    def __init__(self, browser: playwright.Browser) -> None:
        self._browser = browser
        self._accounts: list[Account] = []
        self.all: list[Person] = []

    def enter(self, server: Server, *names: str, **how: Any) -> list[Person]:
        """Each with an account, signed in, and at no page yet.  how: as `device` takes it."""
        made = [Account(server, name) for name in names]
        self._accounts += made
        return [self.device(server, account, **how) for account in made]

    def visitor(self, server: Server, **how: Any) -> Person:
        """Somebody without an account."""
        return self.device(server, None, **how)

    def device(
        self,
        server: Server,
        account: Account | None,
        *,
        session: dict[str, Any] | None = None,
        size: tuple[int, int] = DESK,
        locale: str = "en-GB",
        scheme: str = "light",
        permissions: Sequence[str] = ("camera", "microphone"),
        installs: bool = False,
        **options: Any,
    ) -> Person:
        """A browser of somebody's.

        session: one of its own if none.  installs: it takes a worker that keeps the page, some 200 files,
        which the others are spared.  options: of `Profiles.take`.
        """
        take = partial(
            profiles(self._browser).take,
            server,
            viewport={"width": size[0], "height": size[1]},
            locale=locale,
            timezone_id="UTC",
            color_scheme=scheme,
            permissions=list(permissions),
            installs=installs,
            **options,
        )
        begins = ""
        if account is not None:
            given = [server.url, kept_session(session or account.fresh_session())]
            begins = f"{SIGN_IN}({json.dumps(given)})"
        person = Person(take, server, account, begins)
        self.all.append(person)
        return person

    def check(self) -> None:
        for person in self.all:
            person.check()

    def clear(self) -> None:
        """Everybody goes."""
        while self.all:
            person = self.all.pop()
            if not person.has_come:
                continue
            person.goes_away()
            profiles(self._browser).give_back(person.profile)
        while self._accounts:
            self._accounts.pop().close()


def kept_session(session: dict[str, Any]) -> str:
    """What the client keeps of an answer to a sign-in."""
    names = ("access_token", "refresh_token", "session_id", "device_id", "user")
    ends_ms = (time.time() + session["expires_in"]) * 1_000
    return json.dumps({name: session[name] for name in names} | {"ends_ms": ends_ms})
