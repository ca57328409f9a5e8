"""What a page must not do is noticed by those who sit at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from kit.server import Server

from .people import People, Person


def test_two_people_write_to_each_other(people: People, server: Server) -> None:
    ann, bob = people.enter(server, "ann", "bob")
    ann.me.direct(bob.me)
    for person, other in ((ann, "bob"), (bob, "ann")):
        person.at("/").opens(other)
    ann.writes("Hello Bob")
    bob.sees("Hello Bob")
    bob.writes("Hello Ann")
    ann.sees_once("Hello Bob", "Hello Ann")


@pytest.fixture(scope="module")
def shared_visitor(browser: Browser, shared_server: Server) -> Iterator[Person]:
    people = People(browser)
    yield people.visitor(shared_server).at("/sign-in")
    people.clear()


@pytest.fixture
def visitor(shared_visitor: Person) -> Person:
    """Without a fault yet."""
    for page in shared_visitor.context.pages:
        if page is not shared_visitor.page:
            page.close()
    shared_visitor.page.evaluate("0")  # what was told late of the test before is heard
    shared_visitor.faults.clear()
    return shared_visitor


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        ("console.log('here')", "console: log: here"),
        ("setTimeout(() => { throw new Error('oops') })", "uncaught"),
        (
            "document.body.append(Object.assign(document.createElement('img'), {src: 'http://[::1]:9/'}))",
            "policy",
        ),
        ("fetch('/nowhere')", "404"),
        ("open('http://127.0.0.1:9/')", "went to http://127.0.0.1:9/"),
    ],
)
def test_a_fault_is_noticed(visitor: Person, deed: str, told: str) -> None:
    visitor.page.evaluate(f"() => {{ {deed} }}")
    assert visitor.waits(lambda: bool(visitor.faults))
    with pytest.raises(AssertionError, match=told):
        visitor.check()


def test_an_excuse_lasts_as_long_as_it_is_given(visitor: Person) -> None:
    with visitor.excused("here"):
        visitor.page.evaluate("console.log('here')")
    visitor.check()
    visitor.page.evaluate("console.log('here')")
    with pytest.raises(AssertionError, match="here"):
        visitor.check()


def test_times_are_written_as_the_browsers_own_english_has_them(people: People, server: Server) -> None:
    written = []
    for locale in ("en-GB", "en-US"):
        visitor = people.visitor(server, locale=locale).at("/sign-in")
        texts = "import(new URL('i18n/index.js', document.querySelector('script[type=module]').src))"
        written.append(visitor.page.evaluate(f"{texts}.then(({{ timeOfDay }}) => timeOfDay(0))"))
    assert written == ["00:00", "12:00 AM"]


LEAVE = """async () => {
  localStorage.setItem("sc.left", "here");
  document.cookie = "left=here";
  await (await caches.open("sc.left")).put("/left", new Response("here"));
}"""
LEFT = """async () => [
  ...Object.keys(localStorage).filter((name) => /left|session/.test(name)), document.cookie,
  ...await caches.keys(), ...(await indexedDB.databases()).map(({ name }) => name)].join("")"""

KEPT = """() => performance.getEntriesByType("resource")
  .filter(({ name, transferSize }) => name.includes("/app/") && transferSize === 0).length"""


def test_nobody_finds_what_was_left_by_somebody_before_them(browser: Browser, server: Server) -> None:
    people, own = People(browser), (799, 601)
    [ann] = people.enter(server, "Ann", size=own)
    ann.at("/").is_online()
    ann.page.evaluate(LEAVE)
    assert "left" in ann.page.evaluate(LEFT)
    people.clear()

    visitor = people.visitor(server, size=own)
    assert visitor.profile is ann.profile
    assert visitor.at("/sign-in").page.evaluate(LEFT) == ""
    assert visitor.page.evaluate(KEPT) > 20  # of what both screens are made of
    visitor.context.set_offline(True)
    people.clear()

    assert people.visitor(server, size=own).profile is not visitor.profile
    people.clear()


def test_a_browser_outlives_its_server(browser: Browser, tmp_path: Path) -> None:
    people, seen = People(browser), []
    for folder in "first", "second":
        server = Server(tmp_path / folder)
        server.start()
        seen.append(people.visitor(server, size=(797, 603)).at("/sign-in"))
        server.close()
        people.clear()
    first, second = seen
    assert second.profile is first.profile
    assert not second.faults
