"""A server that dies, a network that goes, tabs that close: nothing is lost and nothing is said twice."""

from __future__ import annotations

import json
from collections.abc import Iterator

import playwright.sync_api as playwright
import pytest
from playwright.sync_api import expect

from kit.fixtures import StartServer
from kit.people import unique
from kit.postgres import PostgresServer
from kit.redis import RedisServer
from kit.server import Server

from .people import AWAY, People, Person

UNAVAILABLE = "status of 503"

Garden = tuple[Person, Person, str]


def in_group(server: Server, people: People) -> tuple[Person, Person, str]:
    """Two, with a group open in front of both; its id."""
    ann, bob = people.enter(server, "ann", "bob")
    group = ann.me.group("Garden", bob.me)
    for person in (ann, bob):
        person.at(f"/c/{group}").is_online()
    return ann, bob, group


@pytest.fixture(scope="module")
def couple(browser: playwright.Browser) -> Iterator[People]:
    """Two who stay for several tests, at pages that have been loaded."""
    people = People(browser)
    yield people
    people.clear()


@pytest.fixture
def garden(couple: People, server: Server, request: pytest.FixtureRequest) -> Iterator[Garden]:
    """The two, with a group of the test's own open in front of both; its id. They leave all as it was."""
    failed_before = request.session.testsfailed
    if not couple.all:
        for person in couple.enter(server, "ann", "bob"):
            person.at("/").is_online()
    ann, bob = couple.all
    group = ann.me.group(unique("garden"), bob.me)
    for person in (ann, bob):
        person.comes_to("app.state.conversations.peek(given[0]) !== undefined", group)
        person.goes(f"/c/{group}")
    yield ann, bob, group
    if request.session.testsfailed == failed_before:
        couple.check()
    else:
        couple.clear()  # the next test has others


def test_a_server_dies_in_the_middle_of_sending(people: People, start_server: StartServer) -> None:
    server = start_server()
    ann, bob, group = in_group(server, people)
    said = [f"line {number}" for number in range(9)]
    ann.excuses(AWAY)
    bob.excuses(AWAY)
    for text in said[:4]:
        ann.writes(text)
    server.kill()
    for text in said[4:]:
        ann.writes(text)
    ann.is_told("Connection lost")
    server.start()
    ann.has_sent()
    bob.is_online()
    ann.sees_once(*said)
    bob.sees_once(*said)
    assert ann.me.said(group) == said
    expect(ann.page.get_by_text("Connection lost")).to_have_count(0)


def test_a_message_whose_answer_is_lost_is_stored_once(people: People, server: Server) -> None:
    ann, bob = people.enter(server, "ann", "bob")
    group = ann.me.group("Garden", bob.me)
    ann.page.route_web_socket("**/v1/ws/chat*", Lossy())
    for person in (ann, bob):
        person.at(f"/c/{group}").is_online()
    ann.writes("once")
    bob.sees("once")
    ann.has_sent()
    assert ann.me.said(group) == ["once"]
    ann.sees_once("once")


KEEP_SOCKETS = """globalThis.sockets = [];
globalThis.WebSocket = class extends WebSocket {
  constructor(...given) { super(...given); sockets.push(this); }
}"""


def test_what_is_said_while_the_link_is_being_closed_is_not_taken_for_said(
    people: People, server: Server
) -> None:
    [ann] = people.enter(server, "ann", scripts=(KEEP_SOCKETS,))
    ann.at("/").is_online()
    say = "app.mine.socket.say({ type: 'ping' })"
    assert ann.finds(say) is True
    closing = "(() => { for (const socket of sockets) socket.close(); })()"
    assert ann.finds(f"[{closing}, {say}][1]") is False
    ann.is_online()


class Lossy:
    """A network that breaks just before the first answer to a message, and is a good one from then on."""

    def __init__(self) -> None:
        self._is_good = False

    def __call__(self, page: playwright.WebSocketRoute) -> None:
        server = page.connect_to_server()
        if self._is_good:
            return

        def forward(frame: str | bytes) -> None:
            if json.loads(frame)["type"] not in ("ack", "chat", "stored"):
                page.send(frame)
                return
            self._is_good = True
            page.close(code=4000)
            server.close()

        server.on_message(forward)


def test_what_is_written_without_a_network_is_sent_with_it(garden: Garden) -> None:
    ann, bob, group = garden
    with ann.excused(AWAY):
        ann.context.set_offline(True)
        ann.writes("from the tunnel")
        ann.is_told("You are offline")
        bob.writes("where are you?")
        bob.has_sent()
        ann.context.set_offline(False)
        ann.has_sent()
    ann.sees_once("from the tunnel", "where are you?")
    bob.sees_once("from the tunnel", "where are you?")
    assert ann.me.said(group) == ["where are you?", "from the tunnel"]


def test_a_reload_in_the_middle_of_sending(people: People, start_server: StartServer) -> None:
    server = start_server()
    ann, bob, group = in_group(server, people)
    said = [f"line {number}" for number in range(5)]
    ann.excuses(AWAY)
    bob.excuses(AWAY)
    server.kill()
    for text in said:
        ann.writes(text)
    ann.sees(*said)
    server.start()
    ann.page.reload()
    ann.has_sent()
    ann.page.reload()
    bob.is_online()
    ann.sees_once(*said)
    bob.sees_once(*said)
    assert ann.me.said(group) == said


def test_a_tab_sends_what_another_has_left(garden: Garden) -> None:
    ann, bob, group = garden
    other = ann.opens_tab()
    other.is_online()
    with ann.excused(AWAY):
        ann.context.set_offline(True)
        other.writes("from the other tab")
        ann.writes("from this one")
        ann.sees("from the other tab")
        other.sees("from this one")
        other.page.close()
        ann.context.set_offline(False)
        ann.has_sent()
    bob.sees_once("from the other tab", "from this one")
    ann.sees_once("from the other tab", "from this one")
    assert sorted(ann.me.said(group)) == ["from the other tab", "from this one"]


def test_what_one_tab_says_another_shows_once(garden: Garden) -> None:
    ann, _, group = garden
    other = ann.opens_tab()
    said = [f"line {number}" for number in range(6)]
    for number, text in enumerate(said):
        (ann, other)[number % 2].writes(text)
    for tab in (ann, other):
        tab.has_sent()
        tab.sees_once(*said)
    assert sorted(ann.me.said(group)) == said
    other.page.close()


def test_one_writes_faster_than_the_disk(garden: Garden) -> None:
    ann, _, group = garden
    said = [f"line {number}" for number in range(20)]
    field = ann.page.get_by_label("Write a message")
    field.evaluate(
        """(field, said) => {
          for (const text of said) {
            field.value = text;
            field.dispatchEvent(new InputEvent("input", { bubbles: true }));
            const enter = { key: "Enter", bubbles: true, cancelable: true };
            field.dispatchEvent(new KeyboardEvent("keydown", enter));
          }
        }""",
        said,
    )
    expect(field).to_have_value("")
    ann.sees_once("line 7", "line 19")
    ann.has_sent()
    assert ann.me.said(group) == said


def test_what_happens_while_it_is_read_is_seen(people: People, server: Server) -> None:
    ann, bob = people.enter(server, "ann", "bob")
    group = ann.me.group("Garden", bob.me)
    for text in ("wrong", "gone"):
        bob.me.says(group, text)
    wrong, gone = bob.me.ask("GET", "/v1/messages", conversation_id=group, limit="2")["messages"]
    answers: list[tuple[playwright.Route, playwright.APIResponse]] = []
    ann.page.route("**/v1/messages?*", lambda route: answers.append((route, route.fetch())))
    ann.at(f"/c/{group}")
    assert ann.waits(lambda: len(answers) == 2), "what lies before the first unread one, and behind"
    bob.me.ask("PATCH", f"/v1/messages/{wrong['message_id']}", {"content": "right"})
    bob.me.ask("DELETE", f"/v1/messages/{gone['message_id']}")
    bob.me.says(group, "new")
    change = bob.me.ask("GET", f"/v1/conversations/{group}")["change"]
    ann.comes_to("app.mine.socket.positions.changes.get(given[0]) === given[1]", group, change)
    for route, answer in answers:
        route.fulfill(response=answer)
    ann.sees_once("right", "new")
    for text in ("wrong", "gone"):
        expect(ann.messages(text)).to_have_count(0)


def test_who_signs_out_in_one_tab_has_signed_out_in_all(people: People, server: Server) -> None:
    ann, _, group = in_group(server, people)
    ann.me.says(group, "a secret of the garden")
    ann.sees("a secret of the garden")
    other = ann.opens_tab()
    other.sees("a secret of the garden")
    ann.excuses("401")  # the server may tell the other tab first
    ann.finds("app.session.signOut()")
    for tab in (ann, other):
        expect(tab.page.get_by_role("button", name="Sign in")).to_be_visible()
        expect(tab.page.get_by_text("a secret of the garden")).to_have_count(0)
    assert ann.waits(lambda: not ann.page.evaluate("indexedDB.databases()"))
    assert ann.me.user_id not in str(ann.page.evaluate("localStorage.getItem('sc.session')"))


def test_another_device_sees_what_was_said(garden: Garden, people: People, server: Server) -> None:
    ann, bob, group = garden
    ann.writes("seen on both")
    bob.writes("on all of them")
    ann.sees("on all of them")
    phone = people.device(server, ann.me, session=ann.me.log_in()).at(f"/c/{group}")
    phone.sees_once("seen on both", "on all of them")
    phone.writes("from the other device")
    ann.sees_once("from the other device")


def test_who_is_removed_sees_no_more(garden: Garden) -> None:
    ann, bob, group = garden
    ann.writes("before")
    bob.sees("before")
    ann.me.ask("DELETE", f"/v1/conversations/{group}/participants/{bob.me.user_id}")
    ann.writes("after")
    ann.has_sent()
    listed = bob.page.get_by_role("navigation", name="Conversations").get_by_role("link")
    expect(listed.and_(bob.page.locator(f"[href='/c/{group}']"))).to_have_count(0)
    # of what he is told next he is told later than he would have been of the other
    ann.me.says(ann.me.direct(bob.me), "goodbye")
    expect(listed.filter(has_text="goodbye")).to_be_visible()
    assert bob.messages("after").count() == 0


def test_what_is_away_is_told_and_what_is_written_meanwhile_is_stored(
    start_server: StartServer, people: People, own_postgres: PostgresServer, redis_server: RedisServer
) -> None:
    own_postgres.start()
    server = start_server(POSTGRES__URL=own_postgres.url(own_postgres.create()), REDIS__URL=redis_server.url)
    ann, bob, group = in_group(server, people)
    limited = ann.page.get_by_text("Limited at the moment")
    for person in (ann, bob):
        person.excuses(UNAVAILABLE)
    redis_server.freeze()
    expect(limited).to_be_visible()
    ann.writes("without redis")
    bob.sees("without redis")
    redis_server.thaw()
    expect(limited).to_have_count(0)
    with own_postgres.frozen():
        expect(limited).to_contain_text("messages take longer to be stored")
        ann.writes("without postgres")
        bob.sees("without postgres")
        ann.comes_to("app.mine.outbox.entries.peek()[0].state === 'accepted'")
        for person in (ann, bob):
            mark = person.messages("without postgres").get_by_text("Accepted; being stored")
            expect(mark).to_be_attached()
    expect(limited).to_have_count(0)
    ann.has_sent()
    for person in (ann, bob):
        person.sees_once("without redis", "without postgres")
    assert ann.me.said(group) == ["without redis", "without postgres"]


def test_a_conversation_that_is_read_while_the_link_is_away_lacks_no_message(garden: Garden) -> None:
    """What is read of it is later than the messages that are held."""
    ann, bob, place = garden
    ann.me.says(place, "before")
    bob.sees("before")
    bob.finds("app.mine.socket.close()")
    ann.me.says(place, "meanwhile")
    bob.finds("app.mine.sync.conversation(given[0])", place)
    bob.finds("app.mine.socket.open()")
    bob.is_online()
    bob.sees_once("before", "meanwhile")
