"""Coming in, what one decides about oneself, and going again, as somebody at the page does it."""

from __future__ import annotations

import hashlib
import re
import time
import zipfile
from collections.abc import Iterator

import playwright.sync_api as playwright
import pyotp
import pytest
from playwright.sync_api import Locator, expect

from kit.people import PASSWORD, unique
from kit.server import Server
from kit.smtp import SmtpServer

from .people import AWAY, Account, People, Person

REFUSED = "status of 4"  # what Chromium says of an answer that is a no
ANOTHER = "battery staple horse"
STEP_S = 30
ELSEWHERE = "about:blank"  # where one reads mail: a link is loaded, and not gone to within the page


class House:
    """A server that takes people by invitation and confirms their addresses.  root: its administrator."""

    def __init__(self, server: Server, smtp: SmtpServer, root: Account) -> None:
        self.server = server
        self.root = root
        self._smtp = smtp

    def invite(self) -> str:
        """Where the link leads."""
        made = self.root.ask("POST", "/v1/admin/invites", {"max_uses": 1})
        return str(made["link"]).removeprefix(self.server.url)

    def link(self, person: Person, to: str, page: str) -> str:
        """Where the latest mail to somebody leads that leads to this page, once it has come."""
        found: list[str] = []

        def has_come() -> bool:
            texts = [each.text for each in self._smtp.mails() if to in each.recipients]
            found[:] = [
                link for text in texts for link in re.findall(rf"{self.server.url}(/{page}=\S+)", text)
            ]
            return bool(found)

        assert person.waits(has_come), f"no mail to {to}"
        return found[-1]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    smtp = SmtpServer(folder / "inbox")
    smtp.start()
    server = Server(folder / "data")
    try:
        server.start()
        root = Account(server, "Root")
        server.terminate()
        server.settings |= {
            "AUTH__REGISTRATION": "invite",
            "GATEWAY__PUBLIC_URL": server.url,
            "OUTBOX__POLL_S": "0.1",
            "SMTP__URL": smtp.url,
        }
        server.start()
        root.becomes_administrator(server)
        yield House(server, smtp, root)
        server.check()
        root.close()
    finally:
        server.close()
        smtp.kill()


@pytest.fixture(scope="module")
def settled(browser: playwright.Browser, shared_server: Server) -> Iterator[Person]:
    people = People(browser)
    [ann] = people.enter(shared_server, "Ann")
    yield ann.at("/settings")
    people.clear()


@pytest.fixture
def ann(settled: Person, server: Server) -> Iterator[Person]:
    """The same for every test: her second factor is off in the end."""
    yield settled
    settled.check()


def field(person: Person, label: str) -> Locator:
    """The one that is seen; others lie in what is folded."""
    return person.page.get_by_label(label, exact=True).locator("visible=true")


def wrong(person: Person) -> Locator:
    return person.page.get_by_role("alert")


def signs_in(person: Person, name: str, password: str = PASSWORD) -> None:
    field(person, "Username or e-mail").fill(name)
    field(person, "Password").fill(password)
    person.presses("Sign in")


def unfolds(person: Person, title: str) -> None:
    person.page.get_by_role("main").locator("summary").filter(has_text=title).click()


def proves(person: Person, action: str, password: str = PASSWORD) -> None:
    """That it is oneself, and goes on."""
    field(person, "Your password").fill(password)
    person.page.get_by_role("button", name=action, exact=True).click()


def test_by_invitation_and_mail(people: People, house: House) -> None:
    """From the invitation to a forgotten password; a link without a session leads there after signing in."""
    ann = people.visitor(house.server).at("/sign-up")
    name = unique("ann")
    email, later = f"{name}@example.org", f"{name}.later@example.org"
    expect(field(ann, "Username")).to_be_focused()
    field(ann, "Invitation code").fill("none of theirs")
    field(ann, "Username").fill(name)
    field(ann, "E-mail").fill("ann")
    field(ann, "Password").fill("short")
    ann.presses("Create an account")
    expect(field(ann, "E-mail")).to_be_focused()
    expect(wrong(ann)).to_have_text(["This is not an e-mail address.", "At least 8 characters."])
    field(ann, "E-mail").fill(email)
    field(ann, "Password").fill(PASSWORD)
    with ann.excused(REFUSED):
        ann.presses("Create an account")
        expect(field(ann, "Invitation code")).to_be_focused()
        expect(wrong(ann)).to_have_text("This invitation is not, or no longer, good. Ask for a new one.")

    ann.at(house.invite())
    field(ann, "Username").fill(name)
    field(ann, "E-mail").fill(email)
    field(ann, "Password").fill(PASSWORD)
    ann.presses("Create an account")
    expect(ann.page.get_by_role("heading", name="Look into your mail")).to_be_focused()
    ann.at(ELSEWHERE).at(house.link(ann, email, "verify#token"))
    ann.is_told("Your e-mail address is confirmed.")
    ann.at("/settings/account")
    signs_in(ann, name)
    expect(ann.page.get_by_role("heading", name="Account and security")).to_be_visible()
    ann.is_told("confirmed")

    unfolds(ann, "Change the address")
    field(ann, "New e-mail").fill(later)
    proves(ann, "Change the address")
    ann.is_told(f"A mail is on its way to {later}")
    ann.at(house.link(ann, later, "verify#change"))
    ann.is_told("Your new e-mail address counts from now on.")

    stranger = people.visitor(house.server).at("/sign-in")
    stranger.page.get_by_role("link", name="Forgotten your password?").click()
    field(stranger, "E-mail").fill(later)
    stranger.presses("Send the link")
    stranger.is_told(f"If {later} has an account here")
    stranger.at(ELSEWHERE).at(house.link(stranger, later, "reset#token"))
    field(stranger, "New password").fill(ANOTHER)
    with ann.excused(REFUSED, "HTTP Authentication failed"):  # every session ends
        stranger.presses("Set a new password")
        stranger.is_told("Your new password counts.")
        expect(field(ann.at("/"), "Password")).to_be_visible()
    stranger.page.get_by_role("link", name="Sign in").click()
    signs_in(stranger, later, ANOTHER)
    stranger.is_signed_in()
    with stranger.excused(REFUSED):
        stranger.at(f"/verify#token={'0' * 43}")
        expect(wrong(stranger)).to_have_text("This link is not good any more. Ask for a new one.")


def test_what_there_is_to_know_stands_above_everything(people: People, house: House) -> None:
    """An address nobody has confirmed, and a server that is another by now."""
    root = people.device(house.server, house.root)

    def another_edition(route: playwright.Route) -> None:
        if route.request.resource_type == "fetch":
            route.fulfill(body='<script src="/app/0123456789abcdef/main.js"></script>')
        else:
            route.continue_()

    root.page.route(f"{house.server.url}/", another_edition)
    root.at("/")
    banners = root.page.locator("sc-banner")
    updated = banners.filter(has_text="The server was updated.")
    expect(updated.get_by_role("button", name="Reload")).to_be_visible()
    expect(banners).to_contain_text(f"Your address {house.root.email} is not confirmed.")
    root.presses("Send the mail")
    root.is_told(f"Look into your mail: a link was sent to {house.root.email}.")
    expect(root.page.get_by_text("is not confirmed")).to_have_count(0)
    root.at(house.link(root, house.root.email, "verify#token"))
    root.is_told("Your e-mail address is confirmed.")
    root.comes_to("app.state.me.peek()?.email_verified === true")

    def closed(route: playwright.Route) -> None:
        told = route.fetch().json()
        told["data"]["registration"] = "closed"
        route.fulfill(json=told)

    visitor = people.visitor(house.server)
    visitor.page.route("**/v1/server", closed)
    visitor.at("/sign-up").is_told("This server takes no new accounts. Ask whoever runs it.")
    expect(field(visitor, "Username")).to_have_count(0)
    visitor.page.get_by_role("link", name="Sign in").click()
    expect(visitor.page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(visitor.page.get_by_role("link", name="Create an account")).to_have_count(0)


def test_who_guesses_is_told_until_when_it_is_locked(people: People, house: House) -> None:
    visitor = people.visitor(house.server).at("/sign-in")
    with visitor.excused(REFUSED):
        for _ in range(5):
            signs_in(visitor, "somebody", "a guess or so")
            expect(wrong(visitor)).to_have_text("The name or the password is wrong.")
        signs_in(visitor, "somebody", "a guess or so")
        expect(wrong(visitor)).to_have_text(re.compile(r"Try again at \d\d:\d\d, in 15 min\."))


def test_a_wrong_password_counts_once(people: People, server: Server) -> None:
    """Were it sent again with another token, the fourth would find the account locked."""
    [ann] = people.enter(server, "Ann")
    unfolds(ann.at("/settings/account"), "Change the password")
    field(ann, "New password").fill(ANOTHER)
    with ann.excused(REFUSED):
        for _ in range(4):
            proves(ann, "Change the password", "a guess or so")
            expect(wrong(ann)).to_have_text("The password is wrong.")
            expect(field(ann, "Your password")).to_be_focused()
    proves(ann, "Change the password")
    ann.is_told("Your new password counts.")


def test_second_factor(people: People, ann: Person, server: Server) -> None:
    ann.goes("/settings/account")
    unfolds(ann, "Turn it on")
    proves(ann, "Go on")
    expect(ann.page.get_by_role("img", name="QR code for the authenticator app")).to_be_visible()
    secret = ann.page.locator(".secret").inner_text().replace(" ", "")
    field(ann, "Code that the app shows").fill("000000")
    with ann.excused(REFUSED):
        ann.presses("Turn it on")
        expect(wrong(ann)).to_contain_text("The code is wrong.")
    app = pyotp.TOTP(secret)
    field(ann, "Code that the app shows").fill(app.now())
    ann.presses("Turn it on")
    listed = ann.page.get_by_role("list", name="Recovery codes").get_by_role("listitem")
    expect(listed.first).to_be_visible()
    codes = listed.all_inner_texts()
    ann.presses("I have kept them")
    ann.is_told(f"{len(codes)} recovery codes are left.")

    phone = people.visitor(server).at("/sign-in")
    with phone.excused(REFUSED):
        signs_in(phone, ann.me.username)
        expect(field(phone, "Code from your authenticator app")).to_be_focused()
        phone.page.keyboard.type(codes[0])
        phone.page.keyboard.press("Enter")
        phone.is_signed_in()
    phone.goes("/settings/account")
    phone.is_told(f"{len(codes) - 1} recovery codes are left.")
    unfolds(phone, "Turn it off")
    field(phone, "Code from your authenticator app").fill(app.at(int(time.time()) + STEP_S))
    proves(phone, "Turn it off")
    phone.is_told("The second factor is off.")


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (
            "otpauth://totp/example.org:ann?secret=OSYS3JJBD5S3RQRRA2NG6OMQYKYQCSTW&issuer=example.org",
            "3e6077679d20aaf4",
        ),
        ("x" * 271, "9d643ac3fa185ad1"),
    ],
)
def test_what_cameras_read(ann: Person, text: str, digest: str) -> None:
    """The modules as they were when ZXing and OpenCV read them; a reader would be the only other test."""
    rows = ann.page.evaluate(
        """async (text) => {
          const main = document.querySelector('script[type="module"]').src;
          const { qrOf } = await import(new URL("parts/qr.js", main).href);
          return qrOf(text).map((row) => row.map(Number).join("")).join(" ");
        }""",
        text,
    )
    assert hashlib.sha256(rows.encode()).hexdigest()[:16] == digest


def test_a_device_is_signed_out_from_another(people: People, ann: Person, server: Server) -> None:
    other = people.device(server, ann.me, session=ann.me.log_in()).at("/")
    other.is_online()
    ann.goes("/settings/devices")
    rows = ann.page.get_by_role("main").get_by_role("listitem").filter(has=ann.page.get_by_role("button"))
    expect(rows.nth(1)).to_be_visible()
    rows.filter(has_text="This device").get_by_role("button", name="Rename").click()
    field(ann, "Name of the device").fill("The old laptop")
    ann.presses("Save")
    expect(rows.filter(has_text="This device")).to_contain_text("The old laptop")
    ann.page.get_by_role("main").get_by_role("button", name="Sign out all others").click()
    with other.excused(REFUSED):
        ann.page.get_by_role("dialog").get_by_role("button", name="Sign out all others").click()
        other.is_told("Your session has ended. Sign in again.")
    expect(rows).to_have_count(1)


def test_what_is_chosen_is_kept(people: People, server: Server) -> None:
    """At the server what others see, in the browser how it looks."""
    ann, bob = people.enter(server, "Ann", "Bob")
    ann.at("/settings")
    field(ann, "Name").fill("Ann Lee")
    ann.presses("Save")
    expect(ann.page.get_by_role("main").get_by_text("Ann Lee").first).to_be_visible()
    assert bob.me.ask("GET", f"/v1/users/{ann.me.user_id}")["display_name"] == "Ann Lee"

    ann.page.get_by_role("link", name="Privacy").click()
    read = ann.page.get_by_label("Show what I have read")
    expect(read).to_be_checked()
    with ann.page.expect_response("**/privacy"):
        read.uncheck()
    assert ann.me.ask("GET", "/v1/users/me/privacy")["read_receipts"] is False

    ann.page.get_by_role("link", name="Notifications", exact=True).click()
    field(ann, "Reactions to your messages").select_option("Not at all")
    ann.page.get_by_label("Leave me alone at set hours").check()
    field(ann, "From").fill("23:00")
    with ann.page.expect_response("**/preferences"):
        ann.presses("Save")
    chosen = ann.me.ask("GET", "/v1/notifications/preferences")
    assert chosen["kinds"]["reaction"] == "off"
    assert chosen["quiet_hours"] == {"start": "23:00", "end": "07:00", "time_zone": "UTC"}

    ann.page.get_by_role("link", name="Friends").click()
    field(ann, "Username").fill(bob.me.username)
    ann.presses("Ask to be friends")
    ann.is_told("Asked by you")
    bob.at("/settings/people").presses("Accept")
    expect(bob.page.get_by_text("End friendship")).to_be_visible()

    ann.page.get_by_role("link", name="Appearance").click()
    ann.page.get_by_label("Dark").check()
    expect(ann.page.locator("html")).to_have_css("color-scheme", "dark")
    ann.page.get_by_label("Tiếng Việt").check()
    expect(ann.page.get_by_role("heading", name="Giao diện")).to_be_visible()
    expect(ann.page.locator("html")).to_have_attribute("lang", "vi")
    expect(ann.page.locator("html")).to_have_css("color-scheme", "dark")


def test_everything_of_mine_and_leaving(people: People, server: Server) -> None:
    [ann] = people.enter(server, "Ann")
    ann.at("/settings/data")
    with ann.page.expect_download() as download:
        ann.presses("Download")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert "account.json" in archive.namelist()

    unfolds(ann, "Delete the account")
    with ann.excused(REFUSED):  # every session ends; the socket may be told first
        proves(ann, "Delete my account")
        ann.is_told("Your account will be erased after a time of grace.")
    signs_in(ann, ann.me.email)
    ann.presses("Keep")
    expect(ann.page.get_by_text("Your account will be deleted")).to_have_count(0)
    assert "delete_at" not in ann.finds("app.state.me.peek()")


def test_nothing_stays_of_who_signs_out(people: People, server: Server) -> None:
    """In no tab, nor for the next person at this browser. What waits to be sent is not lost unsaid."""
    ann, bob, eve = people.enter(server, "Ann", "Bob", "Eve")
    conversation = ann.me.direct(bob.me)
    bob.me.says(conversation, "between the two of us")
    ann.at(f"/c/{conversation}").sees("between the two of us")
    tab = ann.opens_tab()
    tab.sees("between the two of us")
    sign_out = ann.page.get_by_role("main").get_by_role("button", name="Sign out")
    ann.page.get_by_role("link", name="Settings").click()
    expect(sign_out).to_be_visible()
    ann.page.go_back()
    with ann.excused(AWAY, "fetching the script"):
        ann.context.set_offline(True)
        ann.writes("of no avail")
        ann.page.evaluate("localStorage.setItem('sc.recordings.unsent', '1')")  # as while a call is recorded
        ann.page.get_by_role("link", name="Settings").click()
        sign_out.click()
        ann.is_told("1 message was not sent yet and would be lost.")
        ann.is_told("A recording of a call was not sent yet and would be lost.")
        ann.page.get_by_role("dialog").get_by_role("button", name="Sign out", exact=True).click()
        ann.is_told("The server was not told")
        ann.context.set_offline(False)
        ann.page.keyboard.press("Escape")
    ann.has_sent()
    tab.is_online()
    ann.settles()  # what is asked in either tab is not refused then
    sign_out.click()
    ann.page.get_by_role("dialog").get_by_role("button", name="Sign out", exact=True).click()
    expect(field(ann, "Password")).to_be_visible()
    tab.is_told("You signed out in another tab.")

    ann.comes_to("(await indexedDB.databases()).length === 0")
    kept = ann.page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
    assert not re.search(f"{ann.me.username}|{ann.me.user_id}|token", kept)
    signs_in(ann, eve.me.username)
    ann.is_signed_in()
    expect(ann.page.get_by_text("between the two of us")).to_be_hidden()
    ann.comes_to("app.state.isSynced.peek() && app.state.conversations.ids.peek().length === 0")
