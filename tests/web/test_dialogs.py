"""What opens over the page: dialogs, menus, pickers and panels, for eyes, ears and keys alike."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Locator, expect

from kit.server import Server

from . import axe
from .people import Account, People, Person

DESK = {"width": 1280, "height": 800}
NARROW = {"width": 320, "height": 568}
DOUBLED = {"width": 640, "height": 400}  # 1280 x 800 at 200 %
OPEN = "dialog[open], [popover]:popover-open:not(.toasts)"

# What of the uppermost dialog is beside the screen, or smaller than a finger needs it.
CUT = """() => {
  const top = [...document.querySelectorAll("dialog[open]")].at(-1);
  const all = [...top.querySelectorAll("button, input, select, textarea, a[href]")];
  const box = (each) => (each.closest("label") ?? each).getBoundingClientRect();
  const seen = all.filter((each) => each.checkVisibility() && box(each).width > 1);
  const isCut = (each) => box(each).left < -1 || box(each).right > innerWidth + 1;
  const isSmall = (each) => Math.min(box(each).width, box(each).height) < 39.5
    && getComputedStyle(each).display !== "inline";
  return [
    ...(top.scrollWidth > top.clientWidth ? ["it scrolls sideways"] : []),
    ...seen.filter(isCut).map((each) => `cut: ${each.outerHTML.slice(0, 160)}`),
    ...seen.filter(isSmall).map((each) => `small: ${each.outerHTML.slice(0, 160)}`),
  ];
}"""


class Look:
    """At one thing after the other that a person has opened, each with what is wrong with it."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.page = person.page
        self.found: list[str] = []

    def at(self, what: str, within: str | None = None) -> None:
        """In light and dark; where it is a dialog, with little room, too."""
        self.page.emulate_media(color_scheme="light", reduced_motion="reduce")
        told = axe.violations(self.page, within)
        self.page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        told += axe.violations(self.page, within, ["color-contrast"])
        if self.page.locator("dialog[open]").count():
            for size in (NARROW, DOUBLED):
                self.page.set_viewport_size(size)  # type: ignore[arg-type]
                told += [f"{size['width']} wide: {each}" for each in self.page.evaluate(CUT)]
            self.page.set_viewport_size(DESK)  # type: ignore[arg-type]
        self.found += [f"{what}: {each}" for each in told]

    def over(self, opener: Locator, what: str, open_it: Callable[[], None]) -> None:
        """Opened, looked at, and left with Escape: only the uppermost goes, and the focus is where it was."""
        before = self.page.locator(OPEN).count()
        opener.focus()
        open_it()
        expect(self.page.locator(OPEN)).to_have_count(before + 1)
        self.at(what, "dialog[open]:last-of-type, [popover]:popover-open:not(.toasts)")
        self.stays_in(what)
        self.page.keyboard.press("Escape")
        expect(self.page.locator(OPEN)).to_have_count(before)
        expect(opener, what).to_be_focused()

    def stays_in(self, what: str) -> None:
        """Tab leads out of none that is modal, except to the browser itself."""
        if not self.page.locator("dialog:modal").count():
            return
        for key in ("Shift+Tab", "Tab", "Tab"):
            self.page.keyboard.press(key)
            is_in = (
                "!document.hasFocus() || document.activeElement === document.body"
                " || document.activeElement.closest('dialog') !== null"
            )
            assert self.page.evaluate(is_in), what


def test_what_opens_can_be_seen_heard_and_left_by_keys(people: People, server: Server) -> None:
    ann, bob, cara = people.enter(server, "Ann", "Bob", "Cara")
    ann.me.becomes_administrator(server)
    ann = people.device(server, ann.me, bypass_csp=True)
    room = ann.me.group("Garden of the whole neighbourhood", bob.me)
    bob.me.says(room, "Who waters the tomatoes?")
    ann.me.says(room, "I do, on Mondays")
    ann.at(f"/c/{room}").sees("I do, on Mondays")
    axe.bring(ann.page)
    look = Look(ann)
    of_a_message(look, ann)
    of_the_composer(look)
    of_the_details(look)
    of_the_page(look, cara.me)
    of_the_administration(look, cara.me)
    assert not look.found, "\n".join(look.found)


def of_a_message(look: Look, ann: Person) -> None:
    page, keyboard = look.page, look.page.keyboard
    mine, theirs = ann.messages("on Mondays"), ann.messages("tomatoes")
    mine.focus()
    keyboard.press("ArrowUp")
    expect(theirs).to_be_focused()
    keyboard.press("ArrowDown")
    expect(mine).to_be_focused()
    chosen = page.get_by_role("menuitem").and_(page.locator(":focus"))

    def opens_menu() -> None:
        keyboard.press("Shift+F10")
        expect(chosen).to_have_text("Answer")
        keyboard.press("ArrowUp")
        expect(chosen).to_have_text("Delete")
        keyboard.press("Home")
        keyboard.press("f")
        expect(chosen).to_have_text("Forward")

    def chooses(action: str) -> Callable[[], None]:
        def choose() -> None:
            keyboard.press("Shift+F10")
            page.get_by_role("menuitem", name=action, exact=True).press("Enter")

        return choose

    def reacts() -> None:
        keyboard.press("Shift+F10")
        page.get_by_role("button", name="Another emoji").press("Enter")
        expect(page.get_by_role("dialog", name="React")).to_be_visible()
        keyboard.press("ArrowDown")
        keyboard.press("ArrowRight")

    look.over(mine, "menu of a message", opens_menu)
    look.over(mine, "emojis", reacts)
    for action in ("Forward", "Who has read it", "Delete"):
        look.over(mine, action, chooses(action))
    look.over(theirs, "Report", chooses("Report"))


def of_the_composer(look: Look) -> None:
    page = look.page
    for name in ("Ask in a poll", "Emoji"):
        button = page.get_by_role("button", name=name, exact=True)
        look.over(button, name, presses(button))


def of_the_details(look: Look) -> None:
    page = look.page
    page.get_by_role("link", name="Details").press("Enter")
    panel = page.get_by_role("complementary", name="Details")
    expect(panel.get_by_text("No files yet.")).to_be_visible()
    look.at("details", "aside")
    for name in ("Name and picture", "Add people", "Role of Bob", "Encrypt end to end", "Leave the group"):
        button = panel.get_by_role("button", name=name, exact=True)
        look.over(button, name, presses(button))
    row = panel.get_by_role("list", name="People").get_by_role("button", name="Bob").first

    def reports() -> None:
        """Over somebody's card."""
        row.press("Enter")
        button = page.get_by_role("dialog", name="Bob").get_by_role("button", name="Report")
        look.over(button, "Report over a card", presses(button))
        button.press("Enter")
        page.get_by_role("dialog", name="Report").get_by_role("button", name="Report").press("Enter")
        told = page.get_by_role("dialog", name="Bob").get_by_role("status")
        expect(told).to_have_text("Thank you. The administrators will look at it.")

    look.over(row, "card", reports)
    expect(page.get_by_text("Thank you. The administrators will look at it.")).to_be_visible()
    page.get_by_role("link", name="Close the details").press("Enter")


def of_the_page(look: Look, other: Account) -> None:
    """other: somebody with whom there is no conversation yet."""
    page = look.page
    writing = page.get_by_label("Write a message")

    def switches() -> None:
        page.keyboard.press("Control+k")
        expect(page.get_by_role("combobox")).to_be_focused()
        page.keyboard.type("gard")
        expect(page.get_by_role("option")).to_have_count(1)

    look.over(writing, "switcher", switches)
    page.keyboard.press("Control+k")
    expect(page.get_by_role("combobox")).to_be_focused()
    page.keyboard.type(other.username)
    expect(page.get_by_role("option", name=f"@{other.username}")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Cara", level=2)).to_be_visible()
    page.get_by_role("navigation", name="Conversations").get_by_role("link", name="Garden").press("Enter")
    own = page.get_by_role("button", name="How others see you")
    look.over(own, "presence", presses(own))
    link = page.get_by_role("navigation", name="Conversations").get_by_role("link", name="Garden")
    look.over(link, "keys", lambda: page.keyboard.press("?"))
    page.get_by_role("link", name="New conversation").press("Enter")
    page.get_by_label("As a group").check()
    expect(page.get_by_label("Name of the group")).to_be_visible()
    look.at("a new group")
    page.get_by_role("link", name="Settings").press("Enter")
    for name in ("Encryption", "Files", "Appearance", "Your data", "About", "Devices"):
        page.get_by_role("main").get_by_role("link", name=name, exact=True).press("Enter")
        look.person.settles()
        look.at(f"settings, {name}")
        if name == "About":
            expect(page.get_by_text(re.compile(r"matrix-sdk-crypto-wasm \d+\.\d+"))).to_be_visible()
    rename = page.get_by_role("button", name="Rename").first
    look.over(rename, "rename", presses(rename))
    out = page.get_by_role("main").get_by_role("button", name="Sign out", exact=True)
    look.over(out, "sign out", presses(out))


def of_the_administration(look: Look, other: Account) -> None:
    page = look.page
    look.person.finds("app.router.go('/admin/users')")
    page.get_by_label("Name or e-mail").fill(other.username)
    row = page.get_by_role("listitem").filter(has_text=other.username)
    expect(page.get_by_role("main").locator(".admin").get_by_role("listitem")).to_have_count(1)
    for name in ("Ban", "Delete account"):
        button = row.get_by_role("button", name=name, exact=True)
        look.over(button, name, presses(button))


def presses(locator: Locator) -> Callable[[], None]:
    return lambda: locator.press("Enter")
