"""What is said in a conversation: seen, answered, changed, and read without losing one's place."""

from __future__ import annotations

import re
from typing import Any

import playwright.sync_api as playwright
from playwright.sync_api import expect

from kit.server import Server

from .people import AWAY, People, Person

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


def together(people: People, server: Server, title: str) -> tuple[Person, Person, str]:
    """Two people who look at the same group, and its id."""
    ann, bob = people.enter(server, "ann", "bob")
    group = ann.me.group(title, bob.me)
    for person in (ann, bob):
        person.at(f"/c/{group}")
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


def test_a_message_is_answered_reacted_to_changed_pinned_and_deleted(people: People, server: Server) -> None:
    ann, bob, _ = together(people, server, "Tea party")
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
    chooses(ann, "edited", "What it said before")
    expect(ann.page.get_by_role("dialog").get_by_text("Shall we have tea?", exact=True)).to_be_visible()
    ann.page.keyboard.press("Escape")

    chooses(ann, "edited", "Delete")
    ann.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(bob.messages("This message was deleted.")).to_have_count(2)  # itself, and where it is quoted


def test_people_are_named_and_a_draft_stays(people: People, server: Server) -> None:
    ann, bob, group = together(people, server, "Tea party")
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
    ann.at("/")
    conversations = ann.page.get_by_role("navigation", name="Conversations")
    expect(conversations.get_by_role("link", name="Draft: what I began")).to_be_visible()
    ann.opens("Tea party")
    expect(writing(ann)).to_have_value("what I began")


def test_a_poll_is_asked_answered_and_closed(people: People, server: Server) -> None:
    ann, bob, _ = together(people, server, "Tea party")
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


def test_what_one_reads_stays_where_it_is(people: People, server: Server) -> None:
    ann, bob, group = together(people, server, "Tea party")
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


def test_a_message_that_failed_is_sent_again_in_its_place(people: People, server: Server) -> None:
    ann, bob, group = together(people, server, "Tea party")
    ann.page.context.set_offline(True)
    with ann.excused(AWAY):
        ann.comes_to("app.mine.socket.link.peek() !== 'online'")
        for text in ("first", "second", "third"):
            ann.writes(text)
        expect(ann.messages("first").get_by_text("Sending")).to_be_attached()
        ann.page.context.set_offline(False)
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


def test_what_people_write_is_text(people: People, server: Server) -> None:
    ann, bob, group = together(people, server, HOSTILE[0])
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
