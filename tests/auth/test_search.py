"""Finding people."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from secureconnect.auth import store
from secureconnect.auth.admin import store as admin
from secureconnect.auth.admin.store import Ban
from secureconnect.deps.contracts import Tx
from secureconnect.identity import UserId, new_id

from .harness import Node, Person, refused


async def _find(node: Node, who: Person, text: str, **query: Any) -> list[str]:
    data = await node.ask("GET /v1/users/search", as_=who, query={"q": text, **query})
    assert data["next_cursor"] is None
    return [user["username"] for user in data["users"]]


@pytest.fixture
async def ann(node: Node) -> Person:
    await node.register("bob", display_name="Émile Straße")
    await node.register("joann", display_name="50% off_er!")
    await node.register("annika", display_name="Zoë")
    await node.register("hannah", display_name="Ann-Kristin")
    return await node.register("ann")


async def test_beginnings_come_first(node: Node, ann: Person) -> None:
    assert await _find(node, ann, "ANN") == ["annika", "hannah", "joann"]


async def test_display_names_are_found_in_any_case_and_composition(node: Node, ann: Person) -> None:
    for text in ("émile", "E\u0301MILE", "STRASSE", " straße "):
        assert await _find(node, ann, text) == ["bob"]


async def test_wildcards_stand_for_themselves(node: Node, ann: Person) -> None:
    for text in ("%", "_", "!", "50% off_er!"):
        assert await _find(node, ann, text) == ["joann"]
    for text in ("a%n", "a_n", "__", "%%", "\\", "!%", "'"):
        assert await _find(node, ann, text) == []


async def test_oneself_and_addresses_are_not_found(node: Node, ann: Person) -> None:
    assert "ann" not in await _find(node, ann, "ann")
    assert await _find(node, ann, "example.org") == []


async def test_who_is_banned_is_not_found_until_it_ends(node: Node, ann: Person) -> None:
    now_us = node.db.now_us()
    for user, until_us in await node.rows("SELECT user_id, NULL FROM users WHERE username <> 'joann'"):
        await node.db.write(admin.add_ban, user, Ban("", now_us, until_us, None))
    assert await _find(node, ann, "ann") == ["joann"]
    (hannah,) = await node.rows("SELECT user_id FROM users WHERE username = 'hannah'")
    await node.db.write(admin.add_ban, hannah[0], Ban("", now_us, now_us + 60_000_000, None))
    assert await _find(node, ann, "ann") == ["joann"]
    node.db.forward(61)
    assert await _find(node, ann, "ann") == ["hannah", "joann"]


async def test_answers_show_what_anyone_may_see(node: Node, ann: Person) -> None:
    data = await node.ask("GET /v1/users/search", as_=ann, query={"q": "bob"})
    assert set(data["users"][0]) == {"user_id", "username", "display_name", "avatar_url", "status"}


async def test_pages_hold_everyone_once(node: Node) -> None:
    ann = await node.register("ann")
    names = {f"x{number}" if number % 2 else f"person_x{number}" for number in range(10)}
    for name in names:
        await node.register(name.ljust(3, "_"))
    seen: list[str] = []
    cursor = None
    while True:
        query = {"q": "x", "limit": 3, "cursor": cursor}
        page = await node.ask("GET /v1/users/search", as_=ann, query=query)
        assert len(page["users"]) <= 3
        seen += [user["username"] for user in page["users"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == 10
    assert {name.rstrip("_") for name in seen} == names
    assert seen == sorted(seen, key=lambda name: (not name.startswith("x"), name))


@pytest.mark.parametrize("cursor", ["", "x", "9.ann", "0", "-1.ann"])
async def test_foreign_cursors_are_refused(node: Node, cursor: str) -> None:
    with refused("VALIDATION", field="cursor"):
        await _find(node, await node.register(), "x", cursor=cursor)


async def test_blanks_find_nothing(node: Node) -> None:
    with refused("VALIDATION", field="q"):
        await _find(node, await node.register(), "   ")


async def test_found_means_contained(node: Node) -> None:
    letters = "a%_!\\'"
    names = [*letters, *map("".join, product(letters, repeat=2)), *map("".join, product(letters, repeat=3))]

    async def fill(tx: Tx) -> None:
        for number, name in enumerate(names):
            user = store.User(UserId(new_id()), str(number), str(number), name, None, "user", 0)
            await store.add_user(
                tx, user, username_key=f"#{number}", email_key=str(number), display_key=name, password_hash=""
            )

    await node.db.write(fill)
    for wanted in names[:42]:
        found = await node.room.accounts.search(wanted, UserId(new_id()), (-1, ""), len(names))
        assert {each.user.display_name for each in found} == {name for name in names if wanted in name}
