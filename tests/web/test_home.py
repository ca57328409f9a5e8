"""What one has when one is signed in: the list, groups, search, keys, presence, notifications."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, WebSocketRoute, expect

from kit.fixtures import StartServer
from kit.server import Server

from .people import PHONE, People, Person


def rows(person: Person) -> Locator:
    return person.page.get_by_role("navigation", name="Conversations").get_by_role("listitem")


def row(person: Person, title: str) -> Locator:
    return rows(person).filter(has_text=title)


def member(person: Person, name: str) -> Locator:
    return person.page.get_by_role("list", name="People").get_by_role("listitem").filter(has_text=name)


def test_a_group_and_what_its_people_are(people: People, server: Server) -> None:
    ann, bob, cara = people.enter(server, "Ann", "Bob", "Cara")
    ann.at("/new")
    for other in (bob, cara):
        ann.page.get_by_label("Find people by name").fill(other.me.username)
        ann.page.get_by_role("checkbox", name=other.me.username).check()
    ann.page.get_by_label("Name of the group").fill("Hikers")
    ann.presses("Begin")
    expect(ann.page.get_by_role("heading", name="Hikers", level=2)).to_be_visible()
    bob.at("/").opens("Hikers")
    cara.at("/").opens("Hikers")

    ann.page.get_by_role("link", name="Details").click()
    expect(member(ann, "Ann")).to_contain_text("Owner")
    ann.presses("Leave the group")
    with ann.excused("409"):
        ann.page.get_by_role("dialog").get_by_role("button", name="Leave the group").click()
        ann.is_told("You are the last owner or admin here")

    ann.presses("Role of Bob")
    ann.page.get_by_role("menuitem", name="Make admin").click()
    expect(member(ann, "Bob")).to_contain_text("Admin")
    bob.page.get_by_role("link", name="Details").click()
    expect(member(bob, "Bob")).to_contain_text("Admin")
    expect(bob.page.get_by_role("button", name="Role of Ann")).to_have_count(0)

    bob.presses("Role of Cara")
    bob.page.get_by_role("menuitem", name="Remove from the group").click()
    bob.page.get_by_role("dialog").get_by_role("button", name="Remove from the group").click()
    cara.is_told("You are no longer in this conversation.")
    expect(rows(cara)).to_have_count(0)
    expect(member(ann, "Cara")).to_have_count(0)

    bob.presses("Name and picture")
    bob.page.get_by_role("dialog").get_by_label("Name of the group").fill("Walkers")
    bob.presses("Save")
    expect(row(ann, "Walkers")).to_be_visible()

    ann.presses("Leave the group")
    ann.page.get_by_role("dialog").get_by_role("button", name="Leave the group").click()
    ann.is_told("No conversations yet.")
    expect(member(bob, "Ann")).to_have_count(0)
    expect(member(bob, "Bob")).to_contain_text("Owner")


def test_a_message_is_found_and_come_back_from(people: People, server: Server) -> None:
    ann, bob = people.enter(server, "Ann", "Bob")
    group = ann.me.group("Hikers", bob.me)
    for number in range(60):
        bob.me.says(group, "Who has the <b>Stövé</b>?" if number == 3 else f"message {number}")
    ann.at("/")
    expect(row(ann, "Hikers")).to_contain_text("60 unread")
    ann.page.keyboard.press("/")
    search = ann.page.get_by_role("searchbox", name="Search messages")
    expect(search).to_be_focused()
    hit = ann.page.get_by_role("list", name="Messages").get_by_role("link")
    search.fill("stove")
    expect(hit).to_have_count(1)
    expect(hit.locator("mark")).to_have_text("Stövé")
    expect(ann.page).to_have_url(re.compile(r"/search\?q=stove$"))

    hit.click()
    expect(ann.messages("Stövé")).to_be_in_viewport()
    expect(ann.page).to_have_title(re.compile("Hikers – SecureConnect"))
    found_at = ann.page.url
    ann.page.go_back()
    expect(search).to_have_value("stove")
    expect(hit).to_have_count(1)
    ann.page.go_forward()
    expect(ann.messages("Stövé")).to_be_in_viewport()

    phone = people.device(server, ann.me, size=PHONE)  # which holds nothing yet
    turned_away: list[WebSocketRoute] = []

    def let_in_late(socket: WebSocketRoute) -> None:
        if len(turned_away) < 3:
            turned_away.append(socket)
            socket.close()
        else:
            socket.connect_to_server()

    phone.page.route_web_socket("**/v1/ws/chat*", let_in_late)
    phone.at(found_at)
    expect(phone.messages("Stövé")).to_be_in_viewport()
    phone.is_online()  # what is unread is known only now, and is not gone to
    expect(phone.messages("Stövé")).to_be_in_viewport()
    phone.page.get_by_role("link", name="Back to the conversations").click()
    expect(row(phone, "Hikers")).to_be_visible()
    expect(phone.page.get_by_role("heading", name="Ann")).to_be_focused()
    row(phone, "Hikers").get_by_role("link").click()
    expect(phone.page.get_by_role("heading", name="Hikers")).to_be_focused()


def test_everywhere_by_keys_alone(people: People, server: Server) -> None:
    ann, bob = people.enter(server, "Ann", "Bob")
    for title in ("Cellar", "Bakery", "Attic"):  # the latest stands first
        group = ann.me.group(title, bob.me)
        if title == "Cellar":
            bob.me.says(group, "hello")
        ann.at("/") if title == "Attic" else None
    keyboard = ann.page.keyboard
    heading = ann.page.get_by_role("heading", level=2).first
    expect(rows(ann)).to_have_count(3)
    order = [each.split("\n")[0] for each in rows(ann).locator(".list-name").all_inner_texts()]

    keyboard.press("Control+k")
    expect(ann.page.get_by_role("combobox")).to_be_focused()
    keyboard.type("bak")
    expect(ann.page.get_by_role("option")).to_have_count(1)
    keyboard.press("Enter")
    expect(heading).to_have_text("Bakery")

    at = order.index("Bakery")
    keyboard.press("Alt+ArrowDown")
    expect(heading).to_have_text(order[at + 1] if at < 2 else "Bakery")
    keyboard.press("Alt+ArrowUp")
    expect(heading).to_have_text(order[at] if at < 2 else order[at - 1])
    ann.page.get_by_role("navigation", name="Conversations").get_by_role("link", name="Bakery").focus()
    keyboard.press("Escape")
    expect(ann.page).to_have_url(f"{server.url}/")
    keyboard.press("Alt+Shift+ArrowDown")
    expect(heading).to_have_text("Cellar")

    ann.page.get_by_role("navigation", name="Conversations").get_by_role("link", name="Cellar").focus()
    keyboard.press("?")
    dialog = ann.page.get_by_role("dialog")
    expect(dialog).to_contain_text("Next unread conversation")
    dialog.get_by_role("checkbox", name="Single letters").uncheck()
    keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(
        ann.page.get_by_role("navigation", name="Conversations").get_by_role("link", name="Cellar")
    ).to_be_focused()
    keyboard.press("?")
    keyboard.press("/")
    keyboard.press("Control+k")
    expect(ann.page.get_by_role("combobox")).to_be_focused()  # the others have not opened anything before
    expect(dialog).to_have_count(1)


def test_who_is_here_and_what_is_muted(people: People, server: Server) -> None:
    ann, bob = people.enter(server, "Ann", "Bob")
    direct = ann.me.direct(bob.me)
    ann.at(f"/c/{direct}/details")
    head = ann.page.locator(".conversation-head")
    expect(head).to_contain_text("Offline")
    bob.at("/")
    expect(head).to_contain_text("Online")
    bob.presses("How others see you")
    bob.page.get_by_role("dialog").get_by_text("Please do not disturb").click()
    expect(head).to_contain_text("Busy")
    expect(row(ann, "Bob").locator(".presence")).to_have_text("Busy")
    bob.page.reload()
    expect(bob.page.get_by_role("button", name="How others see you")).to_contain_text("Busy")
    expect(head).to_contain_text("Busy")

    ann.presses("Mute for 8 hours")
    ann.is_told("Muted until")
    expect(row(ann, "Bob")).to_contain_text("muted")
    bob.me.says(direct, "psst")
    expect(row(ann, "Bob")).to_contain_text("psst")
    expect(ann.page).to_have_title(re.compile(r"^Bob"))  # what is muted is not counted
    ann.presses("Unmute")
    expect(row(ann, "Bob")).not_to_contain_text("muted")

    ann.presses("Add as a friend")
    bob.goes("/new")
    bob.presses("Accept")
    ann.page.reload()
    expect(ann.page.get_by_role("button", name="Remove from friends")).to_be_visible()


def test_notified_offline_and_told_by_administrators(people: People, server: Server) -> None:
    ann, bob = people.enter(server, "Ann", "Bob")
    group = bob.me.group("Hikers", ann.me)
    ann.at("/").is_online()
    bob.me.says(group, "Ann, look", metadata={"mentions": [ann.me.user_id]})
    expect(row(ann, "Hikers")).to_contain_text("you were mentioned")
    ann.page.get_by_role("link", name=re.compile(r"Notifications, [12] unread")).click()
    notification = ann.page.get_by_role("link", name="Bob mentioned you in “Hikers”")
    notification.click()
    ann.sees("Ann, look")
    ann.page.get_by_role("link", name="Details").click()
    member(ann, "Bob").get_by_role("button").click()
    ann.page.get_by_role("dialog", name="Bob").get_by_role("button", name="Write a message").click()
    expect(ann.page.get_by_role("dialog")).to_have_count(0)  # which has a heading of that name, too
    expect(ann.page.get_by_role("heading", name="Bob", level=2)).to_be_visible()
    expect(ann.page.get_by_role("link", name=re.compile(r"Notifications, \d unread"))).to_be_visible()

    with ann.excused("ERR_INTERNET_DISCONNECTED", "WebSocket"):
        ann.context.set_offline(True)
        ann.is_told("You are offline.")
        ann.context.set_offline(False)
        expect(ann.page.get_by_text("You are offline.")).to_have_count(0)
        ann.is_online()

    bob.me.becomes_administrator(server)
    bob.me.ask("POST", "/v1/admin/announcements", {"text": "Cake in the kitchen"})
    ann.is_told("Cake in the kitchen")
    ann.presses("Do not show this again")
    ann.page.reload()
    expect(row(ann, "Hikers")).to_be_visible()
    ann.is_online()
    expect(ann.page.get_by_text("Cake in the kitchen")).to_have_count(0)


def test_what_is_said_in_a_group_as_it_is_made_is_not_missed(people: People, server: Server) -> None:
    ann, bob = people.enter(server, "Ann", "Bob")
    ann.at("/").is_online()
    titles = [f"Group {number}" for number in range(8)]
    for title in titles:
        bob.me.says(bob.me.group(title, ann.me), f"first of {title}")
    for title in titles:
        expect(row(ann, title)).to_contain_text(f"first of {title}")
        expect(row(ann, title)).to_contain_text("1 unread")


def test_a_server_may_want_what_is_new_encrypted(start_server: StartServer, people: People) -> None:
    server = start_server(CHAT__E2EE_DEFAULT_DIRECT="true")
    ann, bob = people.enter(server, "Ann", "Bob")
    ann.at("/new")
    wanted = ann.page.get_by_label("End-to-end encrypted")
    expect(wanted).to_be_checked()
    ann.page.get_by_label("Find people by name").fill(bob.me.username)
    ann.page.get_by_role("checkbox", name=bob.me.username).check()
    ann.page.get_by_label("As a group").check()
    expect(wanted).not_to_be_checked()
    ann.page.get_by_label("As a group").uncheck()
    ann.presses("Begin")
    ann.comes_to("app.state.current.peek() !== null")
    begun = bob.me.ask("GET", "/v1/conversations")["conversations"][0]
    assert begun["settings"]["is_e2ee_enabled"] is True
