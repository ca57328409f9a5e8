"""The first hour of people who have just found the server, at its own pages and with nothing else."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.sync_api import FilePayload, Locator, expect

from kit.fixtures import StartServer
from kit.people import PASSWORD, unique
from kit.server import Server
from kit.worlds import in_both

from .callers import SMALL_PICTURES
from .people import People, Person

pytest_generate_tests = in_both

SECRET = "where the key lies"
PLAN = b"tomatoes: by the wall"


def newcomer(people: People, server: Server, name: str) -> Person:
    """Somebody who makes an account at the page. The username is the name they are known by."""
    person = people.visitor(server, scripts=(SMALL_PICTURES,)).at("/sign-up")
    if store := server.settings.get("MINIO__ENDPOINT"):
        person.allows(store if "://" in store else f"http://{store}")
    person.page.get_by_label("Username").fill(name)
    person.page.get_by_label("E-mail").fill(f"{name}@example.org")
    person.page.get_by_label("Password", exact=True).fill(PASSWORD)
    person.presses("Create an account")
    person.is_signed_in()
    person.is_online()
    return person


def acts(person: Person, text: str, action: str) -> None:
    """Something of the menu of the message that holds this text."""
    opens_menu(person, text)
    person.page.get_by_role("menuitem", name=action, exact=True).click()


def opens_menu(person: Person, text: str) -> None:
    message = person.messages(text)
    message.hover()
    message.get_by_role("button", name="Actions").click()


def test_a_first_hour(start_server: StartServer, people: People) -> None:
    server = start_server()
    names = [unique(name) for name in ("ann", "bob")]
    ann, bob = (newcomer(people, server, name) for name in names)

    begins(ann, names[1])
    ann.page.get_by_label("As a group").check()
    ann.page.get_by_label("Name of the group").fill("Garden")
    ann.presses("Begin")
    ann.writes("Who waters the tomatoes?")
    bob.opens("Garden")
    bob.sees("Who waters the tomatoes?")

    acts(bob, "tomatoes", "Answer")
    bob.writes("I do")
    expect(ann.messages("I do")).to_contain_text("Who waters the tomatoes?")
    opens_menu(ann, "I do")
    ann.page.get_by_role("group", name="React").get_by_role("button", name="\N{THUMBS UP SIGN}").click()
    expect(bob.messages("I do")).to_contain_text("\N{THUMBS UP SIGN}")
    acts(bob, "I do", "Edit")
    bob.writes("I do, in the morning")
    ann.sees_once("I do, in the morning")
    expect(ann.messages("in the morning")).to_contain_text("edited")

    plan = FilePayload(name="plan.txt", mimeType="text/plain", buffer=PLAN)
    ann.page.locator(".composer input[type=file]").set_input_files(plan)
    ann.writes("The plan")
    ann.has_sent()
    with bob.page.expect_download() as download:
        bob.presses("Download plan.txt")
    assert download.value.path().read_bytes() == PLAN

    ann.presses("Ask in a poll")
    asked = ann.page.get_by_role("dialog")
    asked.get_by_label("Question").fill("When do we meet?")
    for place, answer in enumerate(("Saturday", "Sunday"), 1):
        asked.get_by_label(f"Answer {place}").fill(answer)
    asked.get_by_role("button", name="Ask", exact=True).click()
    poll = bob.page.get_by_role("article").filter(has_text="When do we meet?")
    poll.get_by_label("Sunday").check()
    expect(ann.page.get_by_role("article").filter(has_text="When do we meet?")).to_contain_text(
        "1 person has voted"
    )
    speaks(ann, bob, names[0])

    begins(ann, names[1])
    ann.page.get_by_label("End-to-end encrypted").check()
    ann.presses("Begin")
    ann.writes(SECRET)
    bob.opens(names[0])
    bob.sees(SECRET)
    bob.writes("I have one, too")
    ann.sees_once("I have one, too")
    compare(ann, bob)
    stored = [path for path in server.data_dir.rglob("*") if path.is_file()]
    assert not [path for path in stored if SECRET.encode() in path.read_bytes()]
    assert not [
        line for line in server.output if any(text in line for text in (SECRET, "tomatoes", PASSWORD))
    ]


def begins(person: Person, other: str) -> None:
    """A conversation with somebody, up to the last step."""
    person.page.get_by_role("link", name="New conversation").click()
    person.page.get_by_label("Find people").fill(other)
    person.page.get_by_role("checkbox", name=other).check()


def compare(ann: Person, bob: Person) -> None:
    """They see the same pictures, and so nobody stands between them."""
    for person in (ann, bob):
        where = urlsplit(person.page.url).path
        person.goes("/settings/encryption")
        person.presses("Make an identity")
        person.page.get_by_role("dialog").get_by_label("Your password").fill(PASSWORD)
        person.page.get_by_role("dialog").get_by_role("button", name="Make an identity").click()
        person.is_told("This device is yours for sure")
        person.goes(where)
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


def speaks(ann: Person, bob: Person, caller: str) -> None:
    """A call in the open conversation: they see each other, and each other's screen."""
    ann.presses("Video call")
    ann.page.get_by_role("button", name="Call", exact=True).click()
    ringing = bob.page.get_by_role("dialog", name=f"{caller} is calling")
    ringing.get_by_role("button", name="Answer", exact=True).click()
    plays(bob.page.get_by_role("figure", name=caller, exact=True))
    ann.presses("Share your screen")
    plays(bob.page.get_by_role("figure", name=f"Screen of {caller}"))
    bob.presses("Leave")
    for person in (bob, ann):
        expect(person.page.get_by_role("figure", name=caller)).to_have_count(0)
    expect(ann.page.get_by_role("group", name="Messages").get_by_text("Video call, ")).to_be_visible()


def plays(tile: Locator) -> None:
    """Its picture has been decoded."""
    expect(tile.locator("video")).to_be_visible()
    expect(tile.locator("video")).to_have_js_property("readyState", 4)
