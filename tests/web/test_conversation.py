"""What is said in a conversation: seen, answered, changed, and read without losing one's place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import playwright.sync_api as playwright
import pytest
from playwright.sync_api import expect

from kit.server import Server

from .people import AWAY, PHONE, People, Person

Pair = tuple[Person, Person]

BUSY = 5  # times slower than it should be, on a machine with other work
FRAME_MS = 1000 / 60

# Messages nobody has sent, in the place of those of a conversation: [conversation, how many, somebody else].
FILL = """(() => {
  const [conversation_id, count, other] = given;
  const begin = Date.parse("2026-03-02T08:00:00Z");
  const made = Array.from({ length: count }, (_, at) => ({
    message_id: `m${at}`, client_message_id: `c${at}`, conversation_id, seq: at + 1, change: at + 1,
    sender_id: at % 3 ? other : app.session.userId,
    content: `Message ${at} ` + "word ".repeat((at * 79) % 50),
    message_type: "text", is_encrypted: false, reply_to: null, file_ids: [], metadata: null, reactions: [],
    sent_at: new Date(begin + at * 180_000).toISOString(), edited_at: null, deleted_at: null,
  }));
  globalThis.made = made;
  app.state.timeline(conversation_id).reset(made, { hasOlder: false, hasNewer: false });
  return true;
})()"""

# Where the messages in the window end: {id: pixels from its top}.
PLACES = """(scroller) => {
  const { top, height } = scroller.getBoundingClientRect();
  const places = [...scroller.querySelectorAll("article")].map((article) => [
    article.dataset.key.split(" ")[1], article.getBoundingClientRect().bottom - top]);
  return Object.fromEntries(places.filter(([, at]) => at >= 0 && at < height));
}"""

SCROLL = """async (scroller) => {
  const frames = [];
  let most = 0;
  let last = await new Promise(requestAnimationFrame);
  for (let step = 0; step < 90; step++) {
    scroller.scrollTop -= 700;
    const now = await new Promise(requestAnimationFrame);
    frames.push(now - last);
    last = now;
    most = Math.max(most, scroller.querySelectorAll("article").length);
  }
  return { frame: frames.sort((one, other) => one - other)[frames.length >> 1], most };
}"""

HOSTILE = [
    '<img src=x onerror="document.title=1">',
    "javascript:document.title=1 https://example.org/\u202egpj.exe",
    "\u202e\u2066right to left\u2069 https://a.example/<b>bold</b>",
    "w" * 900,
]


@pytest.fixture(scope="module")
def met(browser: playwright.Browser, shared_server: Server) -> Iterator[Pair]:
    people = People(browser)
    ann, bob = people.enter(shared_server, "ann", "bob")
    for person in (ann, bob):
        person.at("/").is_online()
    yield ann, bob
    people.clear()


@pytest.fixture
def pair(met: Pair, server: Server) -> Iterator[Pair]:
    """The same two for every test: each begins a conversation of its own."""
    yield met
    for person in met:
        person.check()


def goes(person: Person, path: str) -> None:
    """There, in the page as it is."""
    person.finds("app.router.go(given[0])", path)


def together(pair: Pair, title: str) -> tuple[Person, Person, str]:
    """Both look at a new group; its id."""
    ann, bob = pair
    group = ann.me.group(title, bob.me)
    for person in pair:
        goes(person, f"/c/{group}")
        expect(person.page.get_by_role("heading", name=title, level=2)).to_be_visible()
        expect(writing(person)).to_be_visible()
    return ann, bob, group


def writing(person: Person) -> playwright.Locator:
    return person.page.get_by_label("Write a message")


def scroller(person: Person) -> playwright.Locator:
    return person.page.get_by_role("group", name="Messages")


def chooses(person: Person, text: str, action: str) -> None:
    """An action of the message that holds the text."""
    person.messages(text).first.click(button="right")
    person.page.get_by_role("menuitem", name=action, exact=True).click()


def test_a_message_is_answered_reacted_to_changed_pinned_and_deleted(pair: Pair) -> None:
    ann, bob, _ = together(pair, "Tea party")
    ann.writes("Shall we have tea?")
    chooses(bob, "Shall we have tea?", "Answer")
    bob.writes("Yes please")
    answer = ann.messages("Yes please")
    expect(answer.get_by_role("button", name="Shall we have tea?")).to_be_visible()

    answer.focus()
    ann.page.keyboard.press("Shift+F10")
    ann.page.get_by_role("group", name="React").get_by_role("button", name="❤️").click()
    bob.messages("Yes please").get_by_role("button", name="❤️, 1 person").click()
    mine = answer.get_by_role("button", name="❤️, 2 people")
    expect(mine).to_have_attribute("aria-pressed", "true")
    mine.click()
    expect(bob.messages("Yes please").get_by_role("button", name="❤️, 1 person")).to_be_visible()

    chooses(ann, "Yes please", "Pin")
    expect(bob.page.get_by_role("button", name="Pinned: bob Yes please")).to_be_visible()

    writing(ann).press("ArrowUp")
    writing(ann).press("End")
    ann.page.keyboard.type(" At five.")
    ann.page.keyboard.press("Enter")
    bob.sees("Shall we have tea? At five.")
    expect(bob.messages("At five.").get_by_text("edited")).to_be_visible()
    expect(writing(ann)).to_have_value("")
    writing(ann).fill("x" * 9_995)
    left = ann.page.get_by_role("status").filter(has_text="5 characters left")
    expect(left).to_have_count(1)  # said when the keys rest
    expect(ann.page.get_by_text("5 characters left").locator("visible=true").first).to_be_visible()
    writing(ann).fill("")
    chooses(ann, "edited", "What it said before")
    expect(ann.page.get_by_role("dialog").get_by_text("Shall we have tea?", exact=True)).to_be_visible()
    ann.page.keyboard.press("Escape")

    chooses(ann, "edited", "Delete")
    ann.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(bob.messages("This message was deleted.")).to_have_count(2)  # itself, and where it is quoted


def test_people_are_named_and_a_draft_stays(pair: Pair) -> None:
    ann, bob, group = together(pair, "Tea party")
    writing(ann).press_sequentially("Hello @bo")
    bob.is_told("ann is typing")
    expect(ann.page.get_by_role("option", name="bob")).to_have_attribute("aria-selected", "true")
    ann.page.keyboard.press("Enter")
    expect(writing(ann)).to_have_value(f"Hello @{bob.me.username} ")
    ann.page.keyboard.press("Enter")
    expect(bob.messages("Hello @bob").locator(".mention.me")).to_have_text("@bob")
    stored = ann.me.ask("GET", "/v1/messages", conversation_id=group)["messages"][-1]
    assert stored["metadata"]["mentions"] == [bob.me.user_id]

    writing(ann).fill("what I began")
    ann.comes_to("(await app.mine.disk.get('drafts', given[0]))?.text === 'what I began'", group)
    goes(ann, "/")
    conversations = ann.page.get_by_role("navigation", name="Conversations")
    expect(conversations.get_by_role("link", name="Draft: what I began")).to_be_visible()
    ann.opens("Tea party")
    expect(writing(ann)).to_have_value("what I began")


def test_a_poll_is_asked_answered_and_closed(pair: Pair) -> None:
    ann, bob, _ = together(pair, "Tea party")
    ann.presses("Ask in a poll")
    for label, text in (("Question", "When?"), ("Answer 1", "Now"), ("Answer 2", HOSTILE[0])):
        ann.page.get_by_label(label).fill(text)
    ann.page.get_by_role("dialog").get_by_role("button", name="Ask", exact=True).click()
    asked, seen = (person.page.get_by_role("article", name="Poll: When?") for person in (ann, bob))
    seen.get_by_label("Now").click()
    expect(asked.get_by_text("1 · 100 %")).to_be_visible()
    asked.get_by_label(HOSTILE[0]).click()
    expect(seen.get_by_text("1 · 50 %")).to_have_count(2)
    seen.get_by_label(HOSTILE[0]).click()
    expect(asked.get_by_text("2 · 100 %")).to_be_visible()
    asked.hover()
    asked.get_by_role("button", name="Actions").click()
    ann.page.get_by_role("menuitem", name="Close the poll").click()
    expect(seen.get_by_text("closed")).to_be_visible()
    expect(seen.get_by_label("Now")).to_be_disabled()


def test_polls_of_several_answers_final_ones_and_those_that_end(pair: Pair) -> None:
    ann, bob, group = together(pair, "Tea party")

    def asks(question: str, **more: object) -> tuple[playwright.Locator, playwright.Locator]:
        """The poll at the pages of both."""
        options = {"conversation_id": group, "question": question, "options": ["Tea", "Cake"]}
        ann.me.ask("POST", "/v1/polls", options | more)
        name = f"Poll: {question}"
        asked, seen = (person.page.get_by_role("article", name=name) for person in (ann, bob))
        expect(seen).to_be_visible()
        return asked, seen

    asked, seen = asks("What?", poll_type="multi")
    expect(seen.get_by_text("several answers possible")).to_be_visible()
    for answer in ("Tea", "Cake"):
        seen.get_by_label(answer).check()
    expect(asked.get_by_text("0 people have voted")).to_be_visible()  # nothing counts before
    seen.get_by_role("button", name="Vote").click()
    expect(asked.get_by_text("1 · 100 %")).to_have_count(2)
    expect(seen.get_by_role("button", name="Vote")).to_have_count(0)
    seen.get_by_role("button", name="Actions").press("Enter")
    bob.page.get_by_role("menuitem", name="Take back my vote").click()
    expect(asked.get_by_text("0 people have voted")).to_be_visible()

    asked, seen = asks("For good?", allow_vote_change=False)
    seen.get_by_label("Tea").check()
    seen.get_by_label("Cake").check()
    seen.get_by_role("button", name="Vote").click()
    expect(asked.get_by_text("1 · 100 %")).to_have_count(1)
    expect(seen.get_by_label("Tea")).to_be_disabled()
    expect(seen.get_by_label("Cake")).to_be_checked()

    soon = datetime.now(UTC) + timedelta(seconds=3)
    _, seen = asks("Quick?", expires_at=soon.isoformat().replace("+00:00", "Z"))
    expect(seen.get_by_text("until")).to_be_visible()
    expect(seen.get_by_text("closed")).to_be_visible()
    expect(seen.get_by_label("Tea")).to_be_disabled()


def test_one_begins_at_what_is_new_and_only_what_was_seen_is_read(people: People, server: Server) -> None:
    ann, bob = people.enter(server, "ann", "bob")
    group = ann.me.group("Tea party", bob.me)
    for number in range(70):
        ann.me.says(group, f"old {number}")
    bob.me.ask("POST", f"/v1/conversations/{group}/read", {"seq": 20})

    def read_to() -> int:
        members = ann.me.ask("GET", f"/v1/conversations/{group}")["participants"]
        return int(next(each["last_read_seq"] for each in members if each["user_id"] == bob.me.user_id))

    bob.at(f"/c/{group}")
    bob.is_told("New messages")
    assert bob.waits(lambda: read_to() > 20)
    bob.comes_to("app.state.conversations.peek(given[0]).unread_count > 0", group)
    assert read_to() < 50, "what was not in the window is not read"
    expect(bob.page.get_by_text("New messages", exact=True)).to_be_visible()
    bob.page.get_by_role("button", name=re.compile("To the latest")).click()
    bob.sees("old 69")
    bob.comes_to("app.state.conversations.peek(given[0]).unread_count === 0", group)
    bob.comes_to("document.querySelector('.pill') === null")


def test_what_one_reads_stays_where_it_is(pair: Pair) -> None:
    ann, bob, group = together(pair, "Tea party")
    ann.finds(FILL, group, 10_000, bob.me.user_id)
    here = scroller(ann)
    here.evaluate("(scroller) => { scroller.scrollTop = scroller.scrollHeight; }")
    ran: dict[str, Any] = here.evaluate(SCROLL)
    assert ran["most"] < 150
    assert ran["frame"] < BUSY * FRAME_MS, ran

    def places() -> dict[str, float]:
        found: dict[str, float] = here.evaluate(PLACES)
        return found

    def holds(before: dict[str, float]) -> None:
        after = places()
        assert before
        assert all(abs(after[key] - at) < 2 for key, at in before.items()), (before, after)

    timeline = "app.state.timeline(given[0])"
    ann.finds(f"{timeline}.reset(globalThis.made.slice(5000), {{ hasOlder: false, hasNewer: false }})", group)
    here.evaluate("(scroller) => { scroller.scrollTop = 0; }")
    expect(ann.messages("Message 5000 ")).to_be_visible()
    ann.page.evaluate("new Promise(requestAnimationFrame)")
    before = places()
    ann.finds(f"{timeline}.prepend(globalThis.made.slice(4900, 5000), false)", group)
    holds(before)
    change = "(held) => ({ ...held, content: 'taller '.repeat(400) })"
    ann.finds(f"{timeline}.change('m4999', {change})", group)
    ann.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    holds(before)


def test_a_message_that_failed_is_sent_again_in_its_place(pair: Pair) -> None:
    ann, bob, group = together(pair, "Tea party")
    ann.context.set_offline(True)
    with ann.excused(AWAY):
        ann.comes_to("app.mine.socket.link.peek() !== 'online'")
        for text in ("first", "second", "third"):
            ann.writes(text)
        expect(ann.messages("first").get_by_text("Sending")).to_be_attached()
        ann.context.set_offline(False)
        bob.sees("first", "second", "third")
        ann.has_sent()
    assert bob.me.said(group) == ["first", "second", "third"]

    too_long = "{ conversation_id: given[0], content: 'refused ' + 'x'.repeat(10_000) }"
    ann.finds(f"app.mine.outbox.add({too_long})", group)
    failed = ann.messages("refused")
    expect(failed.get_by_role("button", name="Try again")).to_be_visible()
    failed.get_by_role("button", name="Try again").click()
    expect(failed.get_by_role("button", name="Discard")).to_be_visible()
    failed.get_by_role("button", name="Discard").click()
    expect(failed).to_have_count(0)


def test_what_people_write_is_text(pair: Pair) -> None:
    ann, bob, group = together(pair, HOSTILE[0])
    ann.me.ask("PATCH", "/v1/users/me", {"display_name": HOSTILE[0]})
    for text in HOSTILE:
        ann.me.says(group, text)
    bob.at(f"/c/{group}")
    bob.sees(HOSTILE[0], "right to left", HOSTILE[3])
    found = bob.page.evaluate(
        """() => ({
          markup: document.querySelectorAll("article img, article b, h2 img").length,
          links: [...document.querySelectorAll("article a")].map(({ href, rel }) => [href, rel]),
          wide: document.scrollingElement.scrollWidth > innerWidth,
        })"""
    )
    rel = "noopener noreferrer"
    links = [["https://example.org/", rel], ["https://a.example/", rel]]
    assert found == {"markup": 0, "links": links, "wide": False}
    expect(bob.page.get_by_role("article", name=f"{HOSTILE[0]},").first).to_be_visible()
    ann.me.ask("PATCH", "/v1/users/me", {"display_name": "ann"})


def test_what_is_decided_in_the_details(pair: Pair) -> None:
    """What was said disappears, and other settings; the last one is that there is no such group any more."""
    ann, bob, group = together(pair, "Tea party")
    ann.page.get_by_role("link", name="Details").click()
    details = ann.page.get_by_role("complementary", name="Details")
    details.get_by_label("Messages disappear after").select_option("5 minutes")
    bob.is_told("ann made messages disappear after 5 minutes")
    details.get_by_label("Messages are kept for").select_option("30 days")
    wanted = {"disappear_after_s": 300, "message_retention_days": 30}
    for name, label in (
        ("history_visible", "New members see what was said before"),
        ("recording_enabled", "Calls may be recorded"),
    ):
        box = details.get_by_role("checkbox", name=label)
        wanted[name] = not box.is_checked()
        box.click()
        expect(box).to_be_checked(checked=bool(wanted[name]))

    def settings() -> dict[str, object]:
        found = bob.me.ask("GET", f"/v1/conversations/{group}")["settings"]
        return {name: found[name] for name in wanted}

    assert bob.waits(lambda: settings() == wanted), settings()
    with ann.page.expect_response(f"**/{group}/notifications"):
        details.get_by_label("Notify me of").select_option("Mentions and replies")
    assert ann.me.ask("GET", f"/v1/conversations/{group}/notifications")["notify"] == "mentions"

    details.get_by_role("button", name="Name and picture").click()
    dialog = ann.page.get_by_role("dialog")
    dialog.get_by_label("Name of the group").fill("")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("Fill this in.")).to_be_visible()
    ann.page.keyboard.press("Escape")

    bob.writes("gone in a while")
    expect(ann.messages("gone in a while").get_by_text("This message disappears")).to_be_attached()
    ann.me.ask("PUT", f"/v1/conversations/{group}/settings", {"disappear_after_s": 2})
    bob.is_told("ann made messages disappear after 2 seconds")
    bob.writes("gone in a moment")
    ann.sees("gone in a moment")
    for person in pair:
        expect(person.messages("gone in a moment")).to_have_count(0)
        expect(person.messages("This message was deleted.")).to_have_count(1)

    details.get_by_role("button", name="Encrypt end to end").click()
    dialog.get_by_role("button", name="Encrypt end to end").click()
    expect(details.get_by_text("End-to-end encrypted")).to_be_visible()
    expect(details.get_by_role("button", name="Encrypt end to end")).to_have_count(0)
    bob.is_told("ann turned encryption on")
    expect(bob.page.get_by_role("button", name="Ask in a poll")).to_have_count(0)
    details.get_by_role("button", name="Delete the group").click()
    dialog.get_by_role("button", name="Delete the group").click()
    bob.is_told("You are no longer in this conversation.")
    expect(ann.page.get_by_text("Choose a conversation")).to_be_visible()


def test_who_is_blocked_is_told_before_they_write(pair: Pair) -> None:
    """As far as one may know: what one has blocked oneself at once, else when something is refused."""
    ann, bob = pair
    direct = ann.me.direct(bob.me)
    for person in pair:
        goes(person, f"/c/{direct}")
        expect(writing(person)).to_be_visible()
    ann.page.get_by_role("link", name="Details").click()
    ann.presses("Block")
    ann.page.get_by_role("dialog").get_by_role("button", name="Block").click()
    ann.is_told("You have blocked bob. Neither of you can write here.")
    expect(writing(ann)).to_have_count(0)
    bob.writes("Are you there?")
    expect(bob.messages("Are you there?").get_by_text("Not sent")).to_be_visible()
    bob.is_told("ann gets nothing of what you write here.")
    expect(writing(bob)).to_have_count(0)
    for person in pair:
        person.page.reload()
        expect(person.page.locator(".cannot-write")).to_be_visible()
        expect(writing(person)).to_have_count(0)

    ann.page.get_by_role("complementary").get_by_role("button", name="Unblock").click()
    expect(writing(ann)).to_be_visible()
    bob.page.locator(".cannot-write").get_by_role("button", name="Try again").click()
    ann.sees("Are you there?")
    expect(writing(bob)).to_be_focused()
    bob.has_sent()
    ann.presses("Block")
    ann.page.get_by_role("dialog").get_by_role("button", name="Block").click()
    ann.page.locator(".cannot-write").get_by_role("button", name="Unblock").click()
    expect(writing(ann)).to_be_focused()


def test_what_is_not_held_is_quoted_and_come_to(people: People, pair: Pair, server: Server) -> None:
    ann, bob = pair
    group = ann.me.group("Long ago", bob.me)
    for number in range(130):
        ann.me.says(group, f"line {number}")
    asked = {"conversation_id": group, "limit": "20", "before_seq": "20"}
    early = ann.me.ask("GET", "/v1/messages", **asked)["messages"]
    [first, third] = [each for each in early if each["content"] in ("line 1", "line 3")]
    ann.me.says(group, "do you remember?", reply_to=first["message_id"])
    bob.me.ask("POST", f"/v1/conversations/{group}/read", {"seq": 132})
    other = people.device(server, bob.me).at(f"/c/{group}")  # which holds nothing yet
    quote = other.messages("do you remember?").get_by_role("button", name="line 1")
    expect(quote).to_be_visible()
    assert other.finds("app.state.timeline(given[0]).find(given[1])", group, first["message_id"]) is None
    quote.click()
    expect(other.messages("line 1").first).to_be_in_viewport()
    other.page.get_by_role("button", name=re.compile("To the latest")).click()
    expect(other.messages("do you remember?")).to_be_in_viewport()
    goes(other, f"/c/{group}/m/{third['message_id']}")
    expect(other.page.locator(".found")).to_contain_text("line 3")
    expect(other.page.locator(".found")).to_be_in_viewport()


def test_a_finger_is_enough(people: People, pair: Pair, server: Server) -> None:
    """A long touch opens the menu, which stays when the finger is lifted; what one hits is large enough."""
    ann, bob, group = together(pair, "Tea party")
    ann.writes("Shall we?")
    bob.sees("Shall we?")
    phone = people.device(server, bob.me, size=PHONE, has_touch=True, is_mobile=True).at(f"/c/{group}")
    message = phone.messages("Shall we?")
    expect(message).to_be_in_viewport()
    box = message.bounding_box()
    assert box is not None
    touches = phone.context.new_cdp_session(phone.page)

    def touch(what: str, *points: dict[str, float]) -> None:
        touches.send("Input.dispatchTouchEvent", {"type": what, "touchPoints": list(points)})

    here = {"x": box["x"] + 20, "y": box["y"] + 20}
    menu = phone.page.get_by_role("menu", name="Actions")
    touch("touchStart", here)
    expect(menu).to_be_visible()
    touch("touchEnd")
    phone.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    expect(menu).to_be_visible()
    phone.page.touchscreen.tap(PHONE[0] - 10, 10)
    expect(menu).to_have_count(0)
    touch("touchStart", here)
    expect(menu).to_be_visible()
    touch("touchEnd")
    phone.page.get_by_role("group", name="React").get_by_role("button", name="👍").tap()
    chip = phone.messages("Shall we?").get_by_role("button", name="👍, 1 person")
    expect(chip).to_be_visible()
    assert chip.evaluate("(chip) => Math.min(chip.offsetWidth, chip.offsetHeight)") >= 40
    touch("touchStart", here)
    expect(menu).to_be_visible()
    touch("touchEnd")
    phone.page.get_by_role("menuitem", name="Copy text").tap()
    toast = phone.page.locator(".toast")
    expect(toast).to_have_text("The browser gives no access to the clipboard here.")  # it was not asked for
    told = toast.bounding_box()
    field = writing(phone).bounding_box()
    assert told is not None
    assert field is not None
    assert told["y"] + told["height"] < field["y"], "where one writes is not covered"


NOTIFIES = """globalThis.told = [];
globalThis.Notification = class extends EventTarget {
  static permission = "granted";
  static requestPermission = async () => "granted";
  constructor(title, how) { super(); told.push({ title, ...how }); this.told = told.at(-1); }
  close() { this.told.isClosed = true; this.onclose?.(); }
};
let seen = "visible";
Object.defineProperty(document, "visibilityState", { get: () => seen });
globalThis.turns = (to) => { seen = to; document.dispatchEvent(new Event("visibilitychange")); };"""


def test_what_comes_while_nobody_looks_is_said_by_the_system(
    people: People, pair: Pair, server: Server
) -> None:
    """Of which the browsers of tests have none: what it is given is looked at."""
    ann, bob = pair
    group = bob.me.group("Tea party", ann.me)
    direct = bob.me.direct(ann.me)
    away = people.device(server, ann.me)
    away.page.add_init_script(NOTIFIES)
    away.at("/").is_online()
    goes(ann, "/settings")

    def told() -> list[str]:
        found: list[str] = away.page.evaluate("told.map(({ body }) => body)")
        return found

    bob.me.says(group, "seen")
    away.comes_to("app.state.conversations.peek(given[0]).unread_count === 1", group)
    assert told() == []
    away.page.evaluate("turns('hidden')")
    bob.me.says(group, "unseen")
    assert away.waits(lambda: told() == ["New message: Tea party"]), told()
    bob.me.says(direct, "psst")
    assert away.waits(lambda: "bob wrote to you" in told()), told()
    ann.me.ask("PUT", f"/v1/conversations/{group}/notifications", {"notify": "mentions"})
    with away.page.expect_response(f"**/conversations/{group}/notifications"):
        bob.me.says(group, "quite unseen")
    away.comes_to("app.state.conversations.peek(given[0]).unread_count === 3", group)
    ann.me.ask("PUT", f"/v1/conversations/{group}/notifications", {"notify": None})
    ann.me.ask("POST", f"/v1/conversations/{group}/mute", {"until": None})
    away.comes_to("app.state.conversations.peek(given[0]).is_muted", group)
    bob.me.says(group, "quite unseen, too")
    bob.me.says(group, "@ann", metadata={"mentions": [ann.me.user_id]})
    assert away.waits(lambda: "bob mentioned you in “Tea party”" in told()), told()
    assert len(told()) == 3
    assert away.page.evaluate("told.some((each) => JSON.stringify(each).includes('unseen'))") is False
    other = away.opens_tab()
    other.is_online()
    before = away.finds("app.state.unreadNotifications.peek()")
    bob.me.says(group, "@ann, seen in the other tab", metadata={"mentions": [ann.me.user_id]})
    other.comes_to("app.state.conversations.peek(given[0]).unread_count === 6", group)
    away.comes_to("app.state.unreadNotifications.peek() === given[0]", before + 1)
    other.page.close()
    bob.me.says(direct, "psst again")
    assert away.waits(lambda: told().count("bob wrote to you") == 2), told()
    assert len(told()) == 4
    away.page.evaluate("turns('visible')")
    away.comes_to("told.every(({ isClosed }) => isClosed)")
