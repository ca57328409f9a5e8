"""Every screen, as those meet it who do not see it, use no mouse, need it larger, or want nothing to move."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import playwright.sync_api as playwright
import pytest
from playwright.sync_api import expect

from kit.people import PASSWORD, unique
from kit.server import Server

from . import axe
from .people import Account, People, Person

NARROW = {"width": 320, "height": 568}
WIDE = {"width": 1280, "height": 800}
DOUBLED = {"width": 640, "height": 400}  # 1280 x 800 at 200 %

COLOURS = ["color-contrast", "link-in-text-block"]  # those of axe's rules that look at them
MOST_STOPS = 60
OWN_PRESENCE = "How others see you"

VISITED = ("/sign-in", "/sign-up", "/reset")
SCREENS = (
    "/",
    "/c/{room}",
    "/new",
    "/search",
    "/settings",
    *(
        f"/settings/{page}"
        for page in ("profile", "account", "privacy", "devices", "people", "notifications")
    ),
    "/admin",
    *(f"/admin/{page}" for page in ("users", "reports", "announcements", "invites", "audit")),
)


@dataclass
class Town:
    """A server with something at every screen.  reader: an administrator.  room: a group of several."""

    server: Server
    reader: Account
    room: str

    def screens(self) -> Iterator[str]:
        return (path.format(room=self.room) for path in SCREENS)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder: Path = tmp_path_factory.mktemp("town") / "data"
    server = Server(folder)
    server.start()
    reader, bob = Account(server, "Ann"), Account(server, "Bob")
    reader.becomes_administrator(server)
    room = reader.group("Garden of the whole neighbourhood", bob)
    reader.says(room, "Who waters the tomatoes? https://example.org/tomatoes")
    bob.says(room, f"I do, every day. {'w' * 80}")
    bob.sends_file(room, "a plan of everything that grows and where.txt", b"tomatoes: here")
    poll = {"conversation_id": room, "question": "When do we meet?", "options": ["Saturday", "Sunday"]}
    bob.ask("POST", "/v1/polls", poll)
    bob.says(reader.direct(bob), "Hello")
    bob.ask("POST", "/v1/reports", {"user_id": reader.user_id, "reason": "spam"})
    reader.ask("POST", "/v1/admin/announcements", {"text": "The server rests on Sunday."})
    reader.ask("POST", "/v1/admin/invites", {})
    bob.ask("POST", f"/v1/users/{reader.user_id}/friend")
    yield Town(server, reader, room)
    for account in (reader, bob):
        account.close()
    assert server.terminate() == 0
    server.check()


@pytest.mark.parametrize("locale", ["en-GB", "vi"])
def test_every_screen_is_for_everybody(people: People, town: Town, locale: str) -> None:
    """Axe finds nothing, nothing is cut, also in Vietnamese, whose words are longer, and nothing moves.

    In Vietnamese each is loaded by its address, and in English come to as by links.
    """
    visitor = people.visitor(town.server, locale=locale, bypass_csp=True)
    reader = people.device(town.server, town.reader, locale=locale, bypass_csp=True)
    found = []
    for person, paths in ((visitor, VISITED), (reader, town.screens())):
        person.page.emulate_media(reduced_motion="reduce")
        if person is reader:
            person.at("/").is_online()
        for path in paths:
            person.page.set_viewport_size(WIDE)  # type: ignore[arg-type]
            if locale == "en-GB" and person is reader:
                person.goes(path)
            else:
                person.at(path).settles()
            assert person.page.evaluate("document.documentElement.lang") == locale[:2]
            told = moving(person.page)
            for size in (NARROW, DOUBLED):
                person.page.set_viewport_size(size)  # type: ignore[arg-type]
                told += [f"{size['width']}: {each}" for each in beyond(person.page)]
            if locale == "en-GB" and axe.AXE.exists():
                told += unfit(person.page)
            found += [f"{path} {each}" for each in told]
    assert not found, "\n".join(found)
    if not axe.AXE.exists():
        pytest.skip("no axe-core: `scripts/test` installs it")


def unfit(page: playwright.Page) -> list[str]:
    """What axe finds, light and dark, with much room and with little."""
    if not page.evaluate("'axe' in globalThis"):
        axe.bring(page)
    told = []
    for size in (WIDE, NARROW):
        for scheme in ("light", "dark"):
            looks(page, scheme, size)
            rules = COLOURS if scheme == "dark" else None  # all else is as it was in other colours
            told += [f"{scheme} {size['width']}: {each}" for each in axe.violations(page, rules=rules)]
    return told


def looks(page: playwright.Page, scheme: str, size: dict[str, int]) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page.set_viewport_size(size)  # type: ignore[arg-type]


def beyond(page: playwright.Page) -> list[str]:
    """What there is to press beside the screen, or smaller than a finger needs it; a row of tabs scrolls."""
    told: list[str] = page.evaluate(
        """() => {
          const wide = document.scrollingElement.scrollWidth > innerWidth
            ? [`the page is ${document.scrollingElement.scrollWidth} wide`] : [];
          const tell = (why, each) => `${why}: ${each.outerHTML.slice(0, 160)}`;
          const sideways = (each) => each !== null && (sideways(each.parentElement)
            || (each.scrollWidth > each.clientWidth && /auto|scroll/.test(getComputedStyle(each).overflowX)));
          const pressed = [...document.querySelectorAll("button, input, select, textarea, a[href]")]
            .filter((each) => each.checkVisibility({ opacityProperty: true, visibilityProperty: true })
              && each.getBoundingClientRect().width > 1);
          const outside = pressed.filter((each) => {
            const { left, right } = each.getBoundingClientRect();
            return (left < -1 || right > innerWidth + 1) && !sideways(each);
          });
          const small = pressed.filter((each) => {
            const { width, height } = (each.closest("label") ?? each).getBoundingClientRect();
            return getComputedStyle(each).display !== "inline" && Math.min(width, height) < 39.5;
          });
          return [...wide, ...outside.map((each) => tell("outside", each)),
            ...small.map((each) => tell("small", each))];
        }"""
    )
    return told


def moving(page: playwright.Page) -> list[str]:
    """What moves though one wants nothing to."""
    told: list[str] = page.evaluate(
        """() => [...document.querySelectorAll("*")].filter((each) => {
          const style = getComputedStyle(each);
          const lasts = (durations) => durations.split(", ").some((each) => parseFloat(each) > 0.001);
          return lasts(style.transitionDuration) || style.scrollBehavior === "smooth"
            || (style.animationName !== "none" && lasts(style.animationDuration));
        }).map((each) => `moves: ${each.outerHTML.slice(0, 120)}`)"""
    )
    return told


def test_a_keyboard_is_enough(people: People, town: Town) -> None:
    """From making an account to an answer, and into dialogs and out again."""
    newcomer = people.visitor(town.server).at("/sign-up")
    page, keyboard = newcomer.page, newcomer.page.keyboard
    name = unique("carol")
    tabs_to(newcomer, "textbox", "Username")
    keyboard.type(name)
    tabs_to(newcomer, "textbox", "E-mail")
    keyboard.type(f"{name}@example.org")
    tabs_to(newcomer, "textbox", "Password")
    keyboard.type(PASSWORD)
    keyboard.press("Enter")
    newcomer.is_signed_in()

    tabs_to(newcomer, "link", "New conversation")
    keyboard.press("Enter")
    tabs_to(newcomer, "searchbox", "Find people")
    keyboard.type("Ann")
    tabs_to(newcomer, "checkbox", re.compile(r"^Ann\b"))  # not what one "cannot" do
    keyboard.press("Space")
    tabs_to(newcomer, "button", "Begin")
    keyboard.press("Enter")
    tabs_to(newcomer, "textbox", "Write a message")
    keyboard.type("Hello")
    keyboard.press("Enter")
    newcomer.has_sent()
    newcomer.sees_once("Hello")
    expect(page.get_by_label("Write a message")).to_be_focused()

    keyboard.press("Control+k")
    expect(page.get_by_role("dialog")).to_be_visible()
    keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_label("Write a message")).to_be_focused()

    tabs_to(newcomer, "button", OWN_PRESENCE, back=True)
    keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    for _ in range(8):
        keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('dialog') !== null || !document.hasFocus()")
    keyboard.press("Escape")
    expect(page.get_by_role("button", name=OWN_PRESENCE)).to_be_focused()


def tabs_to(person: Person, role: Any, name: str | re.Pattern[str], *, back: bool = False) -> None:
    """Goes on, or back, until it has the focus; wherever that is meanwhile is seen."""
    wanted = person.page.get_by_role(role, name=name).first
    expect(wanted).to_be_visible()
    for _ in range(MOST_STOPS):
        if wanted.evaluate("(each) => each === document.activeElement"):
            return
        person.page.keyboard.press("Shift+Tab" if back else "Tab")
        hidden = person.page.evaluate(
            """() => {
              const at = document.activeElement;
              const isMarked = (each) => each !== null && (getComputedStyle(each).outlineStyle !== "none"
                || getComputedStyle(each).boxShadow !== "none");
              return at === document.body || isMarked(at) || isMarked(at.parentElement) ? null : at.outerHTML;
            }"""
        )
        assert hidden is None
    raise AssertionError(f"no way to {role} {name!r} with {MOST_STOPS} tabs")
