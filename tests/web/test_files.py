"""Files at the web client: chosen, carried to the server whatever breaks, and shown to others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import playwright.sync_api as playwright
import pytest
from playwright.sync_api import FilePayload, expect

from kit.server import Server

from .people import People, Person

MB = 1024 * 1024
PART_MB = 5
FILE_MB = 24

Pair = tuple[Person, Person, str]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small parts, and room for little."""
    folder: Path = tmp_path_factory.mktemp("shelf") / "data"
    limits = {"PART_MB": PART_MB, "MAX_FILE_MB": FILE_MB, "QUOTA_MB": 30}
    server = Server(folder, **{f"STORAGE__{name}": str(value) for name, value in limits.items()})
    server.start()
    yield server
    server.check()
    server.close()


@pytest.fixture(scope="module")
def met(browser: playwright.Browser, shelf: Server) -> Iterator[Pair]:
    """Two in one conversation, and its id."""
    people = People(browser)
    ann, bob = people.enter(shelf, "ann", "bob")
    place = ann.me.direct(bob.me)
    for person, other in ((ann, "bob"), (bob, "ann")):
        person.at("/").opens(other)
    yield ann, bob, place
    people.clear()


@pytest.fixture
def pair(met: Pair) -> Iterator[Pair]:
    """The same two for every test: each names its own files."""
    yield met
    for person in met[:2]:
        person.check()


def choose(person: Person, *files: FilePayload) -> None:
    """By the button."""
    person.page.locator(".composer input[type=file]").set_input_files(list(files))


def drop(person: Person, *files: FilePayload, how: str = "drop") -> None:
    """On what was said, or pasted into the field where one writes."""
    target = person.page.locator(".timeline" if how == "drop" else ".composer textarea")
    target.evaluate(
        """(target, [how, files]) => {
          const data = new DataTransfer();
          for (const { name, mimeType, bytes } of files) {
            data.items.add(new File([new Uint8Array(bytes)], name, { type: mimeType }));
          }
          const told = { bubbles: true, cancelable: true };
          target.dispatchEvent(how === "paste"
            ? new ClipboardEvent(how, { ...told, clipboardData: data })
            : new DragEvent(how, { ...told, dataTransfer: data }));
        }""",
        [how, [{**each, "buffer": None, "bytes": list(each["buffer"])} for each in files]],
    )


def named(name: str, content: bytes, kind: str = "application/octet-stream") -> FilePayload:
    return {"name": name, "mimeType": kind, "buffer": content}


def picture(person: Person, name: str, width: int = 800, height: int = 300) -> FilePayload:
    """A PNG, made in the page."""
    drawn = person.page.evaluate(
        """async ([width, height]) => {
          const canvas = Object.assign(document.createElement("canvas"), { width, height });
          canvas.getContext("2d").fillRect(0, 0, width / 2, height / 2);
          const blob = await new Promise((resolve) => canvas.toBlob(resolve));
          return [...new Uint8Array(await blob.arrayBuffer())];
        }""",
        [width, height],
    )
    return named(name, bytes(drawn), "image/png")


def has_chosen(person: Person, *names: str) -> None:
    chosen = person.page.get_by_role("list", name="Files to send").get_by_role("listitem")
    expect(chosen).to_have_count(len(names))
    for place, name in enumerate(names):
        expect(chosen.nth(place)).to_contain_text(name)


def saved(person: Person, name: str) -> bytes:
    """What the browser saves when it is asked for this file."""
    with person.page.expect_download() as waiting:
        person.presses(f"Download {name}")
    assert waiting.value.suggested_filename == name
    return Path(waiting.value.path()).read_bytes()


def test_files_are_chosen_dropped_and_pasted_and_come_as_they_were(pair: Pair) -> None:
    ann, bob, _ = pair
    notes = bytes(range(256)) * 20
    choose(ann, named("notes.bin", notes), named("left out.bin", b"no"))
    drop(ann, picture(ann, "wide.png"))
    drop(ann, picture(ann, "pasted.png", 40, 60), how="paste")
    has_chosen(ann, "notes.bin", "left out.bin", "wide.png", "pasted.png")
    ann.presses("Remove left out.bin")
    has_chosen(ann, "notes.bin", "wide.png", "pasted.png")
    ann.writes("Look at these")
    bob.sees_once("Look at these")
    assert saved(bob, "notes.bin") == notes
    shown = bob.page.get_by_role("button", name="View wide.png")
    expect(shown.locator("img")).to_have_js_property("naturalWidth", 800)
    assert shown.evaluate("box => [box.offsetWidth, box.offsetHeight]") == [320, 120]
    ann.has_sent()
    ann.sees_once("Look at these")


def test_a_picture_takes_its_room_before_it_is_there(pair: Pair) -> None:
    ann, bob, _ = pair
    held: list[playwright.Route] = []
    bob.page.route("**/v1/storage/objects/*", lambda route: held.append(route))
    choose(ann, picture(ann, "tall.png", 300, 600))
    ann.writes("")
    shown = bob.page.get_by_role("button", name="View tall.png")
    assert bob.waits(lambda: bool(held))
    before = shown.bounding_box()
    bob.page.unroute_all()  # and those that were held go on
    expect(shown.locator("img")).to_have_js_property("naturalWidth", 300)
    assert shown.bounding_box() == before
    assert before is not None
    assert (before["width"], before["height"]) == (160, 320)


def test_pictures_are_looked_at_one_after_the_other(pair: Pair) -> None:
    ann, _, _ = pair
    choose(ann, picture(ann, "one.png"), picture(ann, "two.png", 100, 100))
    ann.writes("")
    ann.page.get_by_role("button", name="View one.png").click()
    viewer = ann.page.get_by_role("dialog")
    expect(viewer).to_contain_text("1 of 2")
    ann.page.keyboard.press("ArrowRight")
    expect(viewer).to_contain_text("2 of 2")
    expect(viewer.locator("img")).to_have_js_property("naturalWidth", 100)
    ann.presses("Larger")
    expect(viewer.locator(".zoomed img")).to_be_visible()
    ann.page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)
    expect(ann.page.get_by_role("button", name="View one.png")).to_be_focused()
