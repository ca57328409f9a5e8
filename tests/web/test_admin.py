"""The administrators' room, as an administrator uses it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import playwright.sync_api as playwright
import pytest
from playwright.sync_api import expect

from kit.people import PASSWORD, unique
from kit.server import Server

from .people import People, Person


@pytest.fixture(scope="module")
def present(browser: playwright.Browser, shared_server: Server) -> Iterator[tuple[Person, Person]]:
    """An administrator and somebody else."""
    people = People(browser)
    root, mallory = people.enter(shared_server, "Root", "Mallory")
    root.me.becomes_administrator(shared_server)
    root = people.device(shared_server, root.me)
    mallory.at("/").is_online()
    yield root.at("/admin"), mallory
    people.clear()


@pytest.fixture
def root(present: tuple[Person, Person], server: Server) -> Iterator[Person]:
    yield present[0]
    present[0].check()


@pytest.fixture
def mallory(present: tuple[Person, Person], server: Server) -> Iterator[Person]:
    yield present[1]
    present[1].check()


def opens(root: Person, page: str) -> None:
    tabs = root.page.get_by_role("navigation", name="Administration")
    tabs.get_by_role("link", name=page, exact=True).click()


def test_a_report_is_dealt_with(root: Person, mallory: Person, people: People, server: Server) -> None:
    [ann] = people.enter(server, "Ann")
    where = mallory.me.direct(ann.me)
    mallory.me.says(where, "<b>buy</b> now")
    comment = unique("again-and-again")
    ann.at(f"/c/{where}").messages("buy").click(button="right")
    ann.page.get_by_role("menuitem", name="Report").click()
    dialog = ann.page.get_by_role("dialog")
    dialog.get_by_label("What is wrong").select_option("Advertising or fraud")
    dialog.get_by_label("In your own words").fill(comment)
    dialog.get_by_role("button", name="Report").click()
    ann.is_told("Thank you. The administrators will look at it.")
    opens(root, "Reports")
    row = root.page.get_by_role("listitem").filter(has_text=comment)
    expect(row).to_contain_text("Mallory, reported by Ann")
    expect(row).to_contain_text("<b>buy</b> now")
    row.get_by_label("Note").fill("Told them")
    row.get_by_role("button", name="Resolve").click()
    expect(row).to_have_count(0)
    root.page.get_by_role("combobox", name="Show").select_option("Resolved")
    expect(row.get_by_label("Note")).to_have_value("Told them")


def test_people_are_told_and_invited_and_it_is_noted(root: Person, mallory: Person) -> None:
    mallory.is_online()
    opens(root, "Announcements")
    root.page.get_by_label("What everybody is to know").fill("Back in a minute")
    root.presses("Tell everybody")
    expect(root.page.get_by_role("listitem").filter(has_text="Back in a minute")).to_be_visible()
    mallory.comes_to("app.state.announcements.peek().some(({ text }) => text === 'Back in a minute')")

    opens(root, "Invitations")
    root.page.get_by_label("How many people").fill("3")
    root.presses("Make an invitation")
    expect(root.page.get_by_role("status").filter(has_text="#")).to_be_visible()
    invite = root.page.get_by_role("listitem").filter(has_text="Used 0 of 3 times")
    expect(invite).to_be_visible()
    invite.get_by_role("button", name="Take back").click()
    expect(invite).to_have_count(0)

    opens(root, "Audit log")
    root.page.get_by_label("Action").fill("auth:invite:deleted")
    root.page.get_by_role("button", name="Show", exact=True).click()
    expect(root.page.get_by_role("row").filter(has_text="auth:invite:deleted")).to_have_count(1)
    with root.page.expect_download() as download:
        root.presses("Download")
    saved = download.value.path().read_text().splitlines()
    assert len(saved) == 1, saved
    assert "auth:invite:deleted" in saved[0]


def test_nobody_else_is_shown_it(mallory: Person) -> None:
    mallory.at("/admin/users")
    mallory.is_told("This page is for administrators.")


def test_somebody_is_banned_and_let_in_again(root: Person, mallory: Person, server: Server) -> None:
    opens(root, "Overview")
    expect(root.page.get_by_text("Messages ever sent")).to_be_visible()
    expect(root.page.get_by_role("listitem").filter(has_text="postgres")).to_contain_text("up")
    mallory.is_online()

    opens(root, "People")
    root.page.get_by_label("Name or e-mail").fill(mallory.me.username)
    row = root.page.get_by_role("listitem").filter(has_text=mallory.me.username)
    row.get_by_role("button", name="Ban", exact=True).click()
    dialog = root.page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("Enough of it")
    with mallory.excused("401"):
        dialog.get_by_role("button", name="Ban").click()
        expect(row).to_contain_text("banned for good · Enough of it")
        expect(mallory.page.get_by_role("heading", name="Sign in")).to_be_visible()
    again = httpx.post(
        f"{server.url}/v1/auth/login", json={"username": mallory.me.username, "password": PASSWORD}
    )
    assert again.json()["error"]["code"] == "ACCOUNT_BANNED"
    mallory.page.get_by_label("Username or e-mail").fill(mallory.me.username)
    mallory.page.get_by_label("Password", exact=True).fill(PASSWORD)
    with mallory.excused("status of 403", "status of 401"):
        mallory.presses("Sign in")
        expect(mallory.page.get_by_role("alert")).to_have_text("This account may not sign in: Enough of it")

    row.get_by_role("button", name="Let in again").click()
    expect(row.get_by_role("button", name="Ban", exact=True)).to_be_visible()
    mallory.presses("Sign in")
    mallory.is_signed_in()
