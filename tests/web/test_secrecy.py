"""Encrypted conversations at the page: as others, and nobody but their members reads them."""

from __future__ import annotations

from kit.server import Server

from .people import Account, People

SECRET = "meet-me-at-the-old-oak"


def sealed_group(owner: Account, title: str, *others: Account) -> str:
    """The id."""
    made = {
        "type": "group",
        "title": title,
        "participant_ids": [each.user_id for each in others],
        "is_e2ee_enabled": True,
    }
    return str(owner.ask("POST", "/v1/conversations", made)["conversation_id"])


def test_two_people_write_to_each_other(people: People, server: Server) -> None:
    ann, bob = people.enter(server, "ann", "bob")
    room = sealed_group(ann.me, "Sealed", bob.me)
    for person in (ann, bob):
        person.at("/").opens("Sealed")
        person.finds("app.mine.secrecy.crypto().then((crypto) => crypto.ready())")
    ann.writes(SECRET)
    bob.sees(SECRET)
    bob.writes("I shall")
    ann.sees_once(SECRET, "I shall")
    ann.at(f"/c/{room}").sees_once(SECRET, "I shall")
    assert not [text for text in ann.me.said(room) if "oak" in text or "shall" in text]

    # signing out takes the keys with it, and the next device is another one
    before = bob.finds("app.session.tokens.peek().device_id")
    bob.finds("app.session.signOut()")
    bob.comes_to("(await indexedDB.databases()).length === 0")
    asked = "app.session.signIn({ name: given[0], password: given[1] })"
    bob.finds(asked, bob.me.username, "correct horse battery")
    bob.comes_to("app.account.peek() !== null && app.session.tokens.peek().device_id !== given[0]", before)
    bob.finds("app.mine.secrecy.crypto().then((crypto) => crypto.ready())")
    bob.at(f"/c/{room}").is_told("from before this device")
    devices = "(await (await app.mine.secrecy.crypto()).devices(given[0]))"
    ann.comes_to(
        f"{devices}.every((each) => each.deviceId !== given[1])",
        bob.me.user_id,
        before,
    )
    ann.writes("once more")
    bob.sees("once more")
