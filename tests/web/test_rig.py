"""What a page must not do is noticed by those who sit at it."""

from __future__ import annotations

import pytest

from kit.server import Server

from .people import People


def test_two_people_write_to_each_other(people: People, server: Server) -> None:
    ann, bob = people.enter(server, "ann", "bob")
    ann.me.direct(bob.me)
    for person, other in ((ann, "bob"), (bob, "ann")):
        person.at("/").opens(other)
    ann.writes("Hello Bob")
    bob.sees("Hello Bob")
    bob.writes("Hello Ann")
    ann.sees_once("Hello Bob", "Hello Ann")


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
def test_a_fault_is_noticed(people: People, server: Server, deed: str, told: str) -> None:
    visitor = people.visitor(server).at("/sign-in")
    visitor.page.evaluate(f"() => {{ {deed} }}")
    assert visitor.waits(lambda: bool(visitor.faults))
    with pytest.raises(AssertionError, match=told):
        visitor.check()
    visitor.faults.clear()


def test_an_excuse_lasts_as_long_as_it_is_given(people: People, server: Server) -> None:
    visitor = people.visitor(server).at("/sign-in")
    with visitor.excused("here"):
        visitor.page.evaluate("console.log('here')")
    visitor.check()
    visitor.page.evaluate("console.log('here')")
    with pytest.raises(AssertionError, match="here"):
        visitor.check()
    visitor.faults.clear()


def test_times_are_written_as_the_browsers_own_english_has_them(people: People, server: Server) -> None:
    written = []
    for locale in ("en-GB", "en-US"):
        visitor = people.visitor(server, locale=locale).at("/sign-in")
        texts = "import(new URL('i18n/index.js', document.querySelector('script[type=module]').src))"
        written.append(visitor.page.evaluate(f"{texts}.then(({{ timeOfDay }}) => timeOfDay(0))"))
    assert written == ["00:00", "12:00 AM"]
