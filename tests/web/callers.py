"""People at the web client who call each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import playwright.sync_api as playwright
from playwright.sync_api import expect

from kit.server import Server

from .people import People, Person

THRIFTY = json.dumps({"thrifty": True})  # what "Use less data" keeps: 320 by 240, ten pictures a second
SMALL_PICTURES = f"if (location.host) localStorage.setItem('sc.call.devices', {THRIFTY!r})"
FRAMES = """() => Object.fromEntries([...document.querySelectorAll("figure")].map((figure) =>
  [figure.ariaLabel, figure.querySelector("video")?.getVideoPlaybackQuality().totalVideoFrames ?? 0]))"""
CALL = "app.mine.calls.current.peek()"
LINKS = f"""{CALL}?.links.peek().map(({{ state, pc }}) => [
  ...[state.peek(), pc.signalingState, pc.iceConnectionState, pc.iceGatheringState],
  ...[pc.localDescription, pc.remoteDescription].map((each) => each?.sdp.match(/^a=candidate.*/gm)),
])"""
FRAME_MS = 100.0
SIZE = (820, 560)  # what moves is drawn without a graphics card

Enter = Callable[..., list[Person]]


def without(kind: str) -> str:
    """A script for browsers that have none.  kind: audio, video."""
    return (
        """(() => {
          const { mediaDevices } = navigator;
          if (!mediaDevices) return; // at no page yet
          const ask = mediaDevices.getUserMedia.bind(mediaDevices);
          mediaDevices.getUserMedia = async (wanted) => {
            if (wanted[KIND]) throw new DOMException("none", "NotFoundError");
            return ask(wanted);
          };
        })()"""
    ).replace("KIND", json.dumps(kind))


def callers(people: People) -> Enter:
    """People who are content with small pictures, at their conversations."""

    def come(server: Server, *names: str, silent: bool = False, **how: Any) -> list[Person]:
        # sounds cost more than small pictures
        scripts = (SMALL_PICTURES, without("audio")) if silent else (SMALL_PICTURES,)
        found = people.enter(server, *names, size=SIZE, scripts=scripts, reduced_motion="reduce", **how)
        for person in found:
            person.page.on("dialog", lambda asked: asked.accept())  # to leave the page during a call
        return found

    return come


def button(person: Person, name: str) -> playwright.Locator:
    return person.page.get_by_role("button", name=name, exact=True)


def tile(person: Person, shown: str) -> playwright.Locator:
    return person.page.get_by_role("figure", name=shown, exact=True)


def moves(person: Person, *shown: str, more: int = 3) -> None:
    """What is shown there is a picture that moves, of so many frames more from now on."""
    all_move({person: shown}, more=more)


def all_move(shown: Mapping[Person, Iterable[str]], *, more: int = 3) -> None:
    """The same at several pages, at once."""
    first: dict[tuple[Person, str], int] = {}
    latest: dict[tuple[Person, str], int] = {}
    for person, names in shown.items():
        for name in names:
            try:
                expect(tile(person, name).locator("video")).to_be_visible()
            except AssertionError as exc:
                exc.add_note(f"links: {person.finds(LINKS)}")
                raise
            first[person, name] = latest[person, name] = 0

    def have_moved() -> bool:
        for person in shown:
            for name, frames in person.page.evaluate(FRAMES).items():
                if (person, name) in first:
                    if frames < latest[person, name] or not latest[person, name]:
                        first[person, name] = frames  # it is another element by now
                    latest[person, name] = frames
        return all(latest[each] >= first[each] + more for each in first)

    assert next(iter(shown)).waits(have_moved, look_ms=FRAME_MS), (first, latest)


def calls(caller: Person, conversation: str, kind: str = "Video call") -> None:
    caller.at(f"/c/{conversation}")
    button(caller, kind).click()
    button(caller, "Call").click()


def answers(person: Person, caller: str, how: str = "Answer") -> None:
    ringing = person.page.get_by_role("dialog", name=f"{caller} is calling")
    ringing.get_by_role("button", name=how, exact=True).click()
    expect(ringing).to_be_hidden()


def in_call(one: Person, other: Person) -> str:
    """Both see each other. The id of their conversation."""
    conversation = one.me.direct(other.me)
    other.at("/").is_online()
    calls(one, conversation)
    answers(other, one.me.name)
    all_move({one: [other.me.name], other: [one.me.name]})
    return conversation
