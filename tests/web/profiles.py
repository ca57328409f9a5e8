"""Browser profiles that people take one after the other: what never changes stays in their caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import playwright.sync_api as playwright

from kit.server import Server

MOST_RESTING = 10
LEFT = "local_storage,indexeddb,cache_storage,service_workers,file_systems,shared_storage,interest_groups"
NO_WORKER = """if (globalThis.ServiceWorkerContainer)
  ServiceWorkerContainer.prototype.register = async () => { throw new Error("not in this browser"); }"""

# Violations in what the page has begun by itself are told nowhere else.
TELL_VIOLATIONS = """addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
  console.error("content security policy:", violatedDirective, blockedURI))"""


@dataclass(eq=False)
class Profile:
    """For pages of the servers at one address, each after the other.

    how: what it was made with.  is_altered: somebody may have done to it what nothing undoes.
    anchor: an empty page that stays, once it has had to: the next ones have its process.
    """

    context: playwright.BrowserContext
    origin: str
    how: dict[str, Any]
    is_altered: bool = False
    anchor: playwright.Page | None = None

    def rest(self) -> None:
        """With its anchor alone."""
        if self.anchor is None:
            self.anchor = self.context.new_page()
            self.anchor.route("**", lambda route: route.fulfill(body=""))  # the server may be gone
            self.anchor.goto(self.origin)
        for page in self.context.pages:
            if page is not self.anchor:
                page.close()

    def clear(self) -> None:
        """As if nobody had been here, but for the files that never change: so a page costs half as much."""
        assert self.anchor is not None
        debugger = self.context.new_cdp_session(self.anchor)
        debugger.send("Storage.clearDataForOrigin", {"origin": self.origin, "storageTypes": LEFT})
        debugger.detach()
        self.context.clear_cookies()


class Profiles:
    """Those of one browser."""

    def __init__(self, browser: playwright.Browser) -> None:
        self._browser = browser
        self._resting: list[Profile] = []

    def take(self, server: Server, *, scripts: Sequence[str] = (), installs: bool, **options: Any) -> Profile:
        """As good as new.

        scripts: that each page begins with.  installs: it takes a worker.  options: of `new_context`.
        """
        how = {"scripts": scripts, "installs": installs, **options}
        for profile in self._resting:
            if profile.origin == server.url and profile.how == how:
                self._resting.remove(profile)
                profile.clear()
                return profile
        context = self._browser.new_context(base_url=server.url, **options)
        for script in (TELL_VIOLATIONS, *scripts, *(() if installs else (NO_WORKER,))):
            context.add_init_script(script)
        return Profile(context, server.url, how, is_altered=installs)

    def give_back(self, profile: Profile) -> None:
        """It rests, unless it is altered, until so many others do."""
        if profile.is_altered:
            profile.context.close()
            return
        profile.rest()
        self._resting.append(profile)
        if len(self._resting) > MOST_RESTING:
            self._resting.pop(0).context.close()


_of_browsers: WeakKeyDictionary[playwright.Browser, Profiles] = WeakKeyDictionary()


def profiles(browser: playwright.Browser) -> Profiles:
    """Its one stock."""
    return _of_browsers.setdefault(browser, Profiles(browser))
