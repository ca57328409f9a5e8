"""Encrypted conversations as people see them: what is said, who is verified, what a new device can read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from kit.people import PASSWORD
from kit.server import Server

from .people import People, Person

SECRET = "a word that nobody else knows: quartz-marmalade"


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose folder is looked through afterwards: nothing that was said may be in it."""
    folder: Path = tmp_path_factory.mktemp("quiet") / "data"
    server = Server(folder, RATE_LIMITS__ENABLED="false")
    server.start()
    yield server
    server.check()
    server.close()
    for path in folder.rglob("*"):
        assert not path.is_file() or b"quartz-marmalade" not in path.read_bytes(), path


def sealed(one: Person, *others: Person) -> str:
    """An encrypted conversation of theirs, all of whose devices have published keys."""
    for person in (one, *others):
        person.at("/").is_online()
        person.finds("app.mine.secrecy.crypto().then((crypto) => crypto.ready())")
    ids = [each.me.user_id for each in others]
    made = {"type": "direct", "participant_ids": ids, "is_e2ee_enabled": True}
    return str(one.me.ask("POST", "/v1/conversations", made)["conversation_id"])


def test_two_people_compare_pictures_and_read_each_other(people: People, quiet: Server) -> None:
    ann, bob = people.enter(quiet, "Ann", "Bob")
    where = sealed(ann, bob)
    for person in (ann, bob):
        person.at("/settings/encryption")
        person.presses("Make an identity")
        dialog = person.page.get_by_role("dialog")
        dialog.get_by_label("Your password").fill(PASSWORD)
        dialog.get_by_role("button", name="Make an identity").click()
        person.is_told("This device is yours for sure")
    ann.at(f"/c/{where}")
    bob.at(f"/c/{where}")
    ann.writes(SECRET)
    bob.sees(SECRET)
    bob.writes(f"yes, {SECRET}")
    ann.sees(f"yes, {SECRET}")
    assert all("quartz" not in said for said in ann.me.said(where))

    ann.page.get_by_role("link", name="Details").click()
    ann.presses("Keys and verification")
    ann.presses("Verify")
    bob.presses("Compare")
    pictures = []
    for person in (ann, bob):
        items = person.page.get_by_role("dialog", name="Verify").get_by_role("listitem")
        expect(items).to_have_count(7)
        pictures.append(items.all_inner_texts())
    assert pictures[0] == pictures[1]
    for person in (ann, bob):
        person.presses("They are the same")
    for person in (ann, bob):
        person.is_told("Verified: nobody stands between you")
    ann.comes_to(f"(await (await app.mine.secrecy.crypto()).trust('{bob.me.user_id}')) === 'verified'")


def test_what_is_said_before_somebody_has_keys_waits_for_them(people: People, quiet: Server) -> None:
    ann, bob = people.enter(quiet, "Ann", "Bob")
    made = {"type": "direct", "participant_ids": [bob.me.user_id], "is_e2ee_enabled": True}
    where = ann.me.ask("POST", "/v1/conversations", made)["conversation_id"]
    ann.at(f"/c/{where}").is_online()
    ann.writes(SECRET)
    ann.finds("app.mine.secrecy.crypto().then((crypto) => crypto.ready())")
    ann.comes_to("app.mine.outbox.entries.peek().length === 1")
    assert ann.me.said(where) == []
    bob.at(f"/c/{where}")
    bob.sees(SECRET)
    ann.has_sent()
