"""The pictures of the web client in the docs: `TAKE_SCREENSHOTS=1` takes them anew."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from kit.fixtures import StartServer

from .people import DESK, PHONE, Account, People, Person

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/screenshots"
PICTURES = {
    "conversation",
    "conversation-dark",
    "call",
    "phone-list",
    "phone-conversation-dark",
    "administration",
}
LAST = 100  # beyond the last message
TAKEN = "TAKE_SCREENSHOTS" in os.environ


def test_each_picture_is_in_the_docs_and_there_is_no_other(request: pytest.FixtureRequest) -> None:
    if TAKEN:
        take_all(request.getfixturevalue("start_server"), request.getfixturevalue("people"))
    shown = re.findall(r"screenshots/([\w-]+)\.png", (ROOT / "docs/web.md").read_text("utf-8"))
    assert sorted(shown) == sorted(PICTURES)
    assert {path.stem for path in FOLDER.glob("*.png")} == PICTURES


def take_all(start_server: StartServer, people: People) -> None:
    server = start_server()
    names = {"ann": "Ann Weber", "bob": "Bob Martin", "linh": "Linh Trần", "minh": "Minh Lê"}
    ann, bob, linh, minh = (Account(server, name, username) for username, name in names.items())
    ann.becomes_administrator(server)
    garden = fill(ann, bob, linh, minh)
    for account in (ann, linh):  # they look at the end of it
        account.ask("POST", f"/v1/conversations/{garden}/read", {"seq": LAST})

    desk = people.device(server, ann, size=DESK).at(f"/c/{garden}")
    other = people.device(server, bob, size=DESK).at(f"/c/{garden}")
    takes(desk, "conversation")
    desk.page.emulate_media(color_scheme="dark")
    takes(desk, "conversation-dark")
    desk.page.emulate_media(color_scheme="light")

    phone = people.device(server, linh, size=PHONE, has_touch=True, is_mobile=True).at("/")
    takes(phone, "phone-list")
    phone.page.emulate_media(color_scheme="dark")
    phone.at(f"/c/{garden}")
    takes(phone, "phone-conversation-dark")

    desk.presses("Video call")
    desk.page.get_by_role("button", name="Call", exact=True).click()
    other.page.get_by_role("dialog").get_by_role("button", name="Answer", exact=True).click()
    expect(desk.page.get_by_role("figure", name="Bob Martin").locator("video")).to_have_js_property(
        "readyState", 4
    )
    takes(desk, "call")
    desk.presses("Leave")
    desk.at("/admin/users")
    takes(desk, "administration")
    for account in (ann, bob, linh, minh):
        account.close()


def fill(ann: Account, bob: Account, linh: Account, minh: Account) -> str:
    """The id of the group that is looked at."""
    linh.says(linh.group("Chuyến đi Đà Lạt", ann, minh), "Mình đặt vé tàu rồi nhé!")
    minh.says(minh.direct(linh), "Tối nay ăn phở không?")
    bob.says(bob.direct(ann), "The key is under the blue pot.")
    minh.says(minh.group("House", ann, bob), "The heating is checked on Thursday.")
    garden = ann.group("Garden", bob, linh, minh)
    ann.says(garden, "The tomatoes are planted. Who waters them next week?")
    bob.says(garden, "I do, Monday to Wednesday.")
    linh.says(garden, "Mình tưới thứ Năm và thứ Sáu")
    first = ann.ask("GET", "/v1/messages", conversation_id=garden, limit="10")["messages"]
    asked = next(each for each in first if "tomatoes" in each["content"])
    minh.says(garden, "Then the weekend is mine.", reply_to=asked["message_id"])
    for account, emoji in ((bob, "❤️"), (linh, "❤️"), (minh, "☀")):
        account.ask("PUT", f"/v1/messages/{asked['message_id']}/reactions/{emoji}")
    ann.sends_file(garden, "What grows where.pdf", b"%PDF-1.4\n" + bytes(48_000), "application/pdf")
    when = {
        "conversation_id": garden,
        "question": "When is the harvest feast?",
        "options": ["Saturday", "Sunday"],
    }
    poll = ann.ask("POST", "/v1/polls", when)
    for account, place in ((bob, 0), (linh, 0), (minh, 1)):
        chosen = {"option_ids": [poll["options"][place]["option_id"]]}
        account.ask("POST", f"/v1/polls/{poll['poll_id']}/vote", chosen)
    bob.says(garden, "I bring bread, and the long table.")
    return garden


def takes(person: Person, name: str) -> None:
    person.settles()
    FOLDER.mkdir(exist_ok=True)
    person.page.screenshot(path=FOLDER / f"{name}.png", animations="disabled", caret="hide")
