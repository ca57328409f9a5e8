"""The administrators' room, as an administrator uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from kit.people import PASSWORD, unique
from kit.server import Server

from .people import Account, People, Person


@pytest.fixture(scope="module")
def moderated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes people by invitation."""
    folder: Path = tmp_path_factory.mktemp("moderated") / "data"
    server = Server(folder, RATE_LIMITS__ENABLED="false")
    server.start()
    yield server
    server.check()
    server.close()


@pytest.fixture(scope="module")
def administrator(moderated: Server) -> Iterator[Account]:
    account = Account(moderated, "Root")
    account.becomes_administrator(moderated)
    yield account
    account.close()


@pytest.fixture
def root(people: People, moderated: Server, administrator: Account) -> Person:
    """At the administrators' room."""
    return people.device(moderated, administrator).at("/admin")


@pytest.fixture
def mallory(people: People, moderated: Server) -> Person:
    return people.enter(moderated, "Mallory")[0].at("/")


def test_somebody_is_banned_and_let_in_again(root: Person, mallory: Person, moderated: Server) -> None:
    expect(root.page.get_by_text("Messages ever sent")).to_be_visible()
    expect(root.page.get_by_role("listitem").filter(has_text="postgres")).to_contain_text("up")
    mallory.is_online()

    root.page.get_by_role("link", name="People").click()
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
        f"{moderated.url}/v1/auth/login", json={"username": mallory.me.username, "password": PASSWORD}
    )
    assert again.json()["error"]["code"] == "ACCOUNT_BANNED"

    row.get_by_role("button", name="Let in again").click()
    expect(row.get_by_role("button", name="Ban", exact=True)).to_be_visible()
    mallory.me.log_in()


def test_a_report_is_dealt_with(root: Person, mallory: Person, moderated: Server) -> None:
    with closing(Account(moderated, "Ann")) as ann:
        where = mallory.me.direct(ann)
        mallory.me.says(where, "<b>buy</b> now")
        message_id = ann.ask("GET", "/v1/messages", conversation_id=where)["messages"][0]["message_id"]
        comment = unique("again-and-again")
        ann.ask("POST", "/v1/reports", {"message_id": message_id, "reason": "spam", "comment": comment})
    root.page.get_by_role("link", name="Reports").click()
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
    root.page.get_by_role("link", name="Announcements").click()
    root.page.get_by_label("What everybody is to know").fill("Back in a minute")
    root.presses("Tell everybody")
    expect(root.page.get_by_role("listitem").filter(has_text="Back in a minute")).to_be_visible()
    mallory.comes_to("app.state.announcements.peek().some(({ text }) => text === 'Back in a minute')")

    root.page.get_by_role("link", name="Invitations").click()
    root.page.get_by_label("How many people").fill("3")
    root.presses("Make an invitation")
    expect(root.page.get_by_role("status").filter(has_text="#")).to_be_visible()
    invite = root.page.get_by_role("listitem").filter(has_text="Used 0 of 3 times")
    expect(invite).to_be_visible()
    invite.get_by_role("button", name="Take back").click()
    expect(invite).to_have_count(0)

    root.page.get_by_role("link", name="Audit log").click()
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
