"""Files at the web client: chosen, carried to the server whatever breaks, and shown to others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import playwright.sync_api as playwright
import pytest
from playwright.sync_api import FilePayload, expect

from kit.fixtures import StartServer
from kit.server import Server
from kit.store import ObjectStore

from .people import AWAY, People, Person

MB = 1024 * 1024
PART_MB = 5
FILE_MB = 24

Pair = tuple[Person, Person, str]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small parts, and room for little."""
    folder: Path = tmp_path_factory.mktemp("shelf") / "data"
    limits = {"PART_MB": PART_MB, "MAX_FILE_MB": FILE_MB, "QUOTA_MB": 60}
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
    target = person.page.get_by_label("Messages" if how == "drop" else "Write a message", exact=True)
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


def drop_large(person: Person, name: str, size: int) -> bytes:
    """A file made in the page; its content."""
    block = bytes(range(256))
    person.page.get_by_label("Messages", exact=True).evaluate(
        """(target, [name, size, block]) => {
          const blocks = new Array(Math.ceil(size / block.length)).fill(new Uint8Array(block));
          const data = new DataTransfer();
          data.items.add(new File([new Blob(blocks).slice(0, size)], name));
          const dropped = { bubbles: true, cancelable: true, dataTransfer: data };
          target.dispatchEvent(new DragEvent("drop", dropped));
        }""",
        [name, size, list(block)],
    )
    return (block * (size // len(block) + 1))[:size]


@contextmanager
def slow(person: Person, bytes_s: int = 3 * MB) -> Iterator[None]:
    """What the page sends takes its time."""
    session = person.context.new_cdp_session(person.page)

    def emulate(upload: int) -> None:
        conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": upload}
        session.send("Network.emulateNetworkConditions", conditions)

    emulate(bytes_s)
    yield
    emulate(-1)
    session.detach()


def parts_done(person: Person) -> int:
    """Of the only file on its way, as the server knows it."""
    file_id = person.finds("app.mine.outbox.entries.peek()[0]?.files[0].file_id")
    return len(person.me.ask("GET", f"/v1/storage/uploads/{file_id}")["parts_done"]) if file_id else 0


def sends(person: Person, name: str, size: int = 12 * MB) -> bytes:
    """A file in parts; returns when the first one has arrived, with the content of all."""
    content = drop_large(person, name, size)
    has_chosen(person, name)
    person.writes(f"Here is {name}")
    expect(person.page.get_by_role("progressbar", name=name)).to_be_visible()
    assert person.waits(lambda: parts_done(person) > 0)
    return content


def arrives(person: Person, place: str, name: str, content: bytes) -> None:
    """Once, and whole: what was announced is what the server has looked at."""
    person.sees_once(f"Here is {name}")
    files = person.me.ask("GET", "/v1/storage/files", conversation_id=place)["files"]
    (file,) = (each for each in files if each["file_name"] == name)
    assert file["checksum_sha256"] == hashlib.sha256(content).hexdigest()


def test_an_upload_is_cancelled_and_leaves_nothing(pair: Pair) -> None:
    ann, _, place = pair
    before = ann.me.ask("GET", "/v1/storage/quota")["used_bytes"]
    with slow(ann):
        sends(ann, "never.bin")
        ann.page.get_by_role("button", name="Cancel never.bin").click()
        expect(ann.messages("never.bin")).to_have_count(0)
    ann.has_sent()
    quota = ann.me.ask("GET", "/v1/storage/quota")
    assert (quota["used_bytes"], quota["reserved_bytes"]) == (before, 0)
    assert "Here is never.bin" not in ann.me.said(place)


def test_an_upload_rests_and_goes_on_after_a_reload_and_holds_up_nothing(pair: Pair) -> None:
    ann, bob, place = pair
    with slow(ann):
        content = sends(ann, "rests.bin")
        ann.presses("Pause rests.bin")
        expect(ann.messages("rests.bin")).to_contain_text("Paused")
        ann.writes("Meanwhile")
        bob.sees("Meanwhile")
        ann.presses("Go on with rests.bin")
        ann.page.reload()
    arrives(bob, place, "rests.bin", content)
    ann.has_sent()
    ann.sees_once("Here is rests.bin")


def test_an_upload_goes_on_when_the_server_was_killed(pair: Pair, shelf: Server) -> None:
    ann, bob, place = pair
    sent: list[int] = []
    ann.page.on("response", lambda got: sent.append(got.status) if got.request.method == "PUT" else None)
    with ann.excused(AWAY, "ERR_"), bob.excused(AWAY, "ERR_"):
        with slow(ann):
            content = sends(ann, "broken off.bin")
            shelf.kill()
            shelf.start()
        arrives(bob, place, "broken off.bin", content)
        ann.has_sent()
    assert (
        sent.count(204) <= 3
    )  # no part that had arrived was sent again; that one had, nobody may have heard


def test_a_file_that_is_gone_from_the_browser_is_chosen_again(pair: Pair) -> None:
    ann, bob, place = pair
    content = b"lost and found" * 9_000
    with slow(ann, len(content) // 20):
        choose(ann, named("lost.bin", content))
        ann.writes("Here is lost.bin")
        ann.presses("Pause lost.bin")
        ann.finds("app.mine.disk.delete('blobs', app.mine.outbox.entries.peek()[0].files[0].upload_id)")
        ann.page.reload()
    ann.presses("Go on with lost.bin")
    expect(ann.messages("lost.bin")).to_contain_text("The browser no longer has this file")
    again = ann.messages("lost.bin").locator("input[type=file]")
    again.set_input_files(named("lost.bin", content[1:]))
    expect(ann.messages("lost.bin")).to_contain_text("its size differs")
    again.set_input_files(named("lost.bin", content))
    arrives(bob, place, "lost.bin", content)


def test_what_cannot_be_sent_is_said_before(pair: Pair) -> None:
    _, bob, _ = pair
    problem = bob.page.locator(".tray").get_by_role("alert")
    drop_large(bob, "huge.bin", FILE_MB * MB + 1)
    expect(problem).to_contain_text("“huge.bin” is larger than this server takes")
    choose(bob, named("nothing.txt", b""))
    expect(problem).to_contain_text("“nothing.txt” is empty")
    for name in ("a.bin", "b.bin"):
        drop_large(bob, name, FILE_MB * MB)
    has_chosen(bob, "a.bin", "b.bin")
    drop_large(bob, "c.bin", FILE_MB * MB)
    expect(problem).to_contain_text("There is not enough room for this")
    for name in ("a.bin", "b.bin"):
        bob.presses(f"Remove {name}")
    names = [f"{number}.txt" for number in range(21)]
    choose(bob, *(named(name, b"x") for name in names))
    expect(problem).to_contain_text("at most 20 files")
    has_chosen(bob, *names[:20])
    bob.page.reload()


def test_a_film_plays_and_goes_on_when_its_address_is_over(pair: Pair) -> None:
    ann, bob, _ = pair
    film = ann.page.evaluate(
        """async () => {
          const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 48 });
          const brush = canvas.getContext("2d");
          const recorder = new MediaRecorder(canvas.captureStream(25), { mimeType: "video/webm;codecs=vp8" });
          const pieces = [];
          recorder.ondataavailable = ({ data }) => pieces.push(data);
          recorder.start();
          for (let frame = 0; frame < 12; frame += 1) {
            brush.fillStyle = frame % 2 ? "teal" : "orange";
            brush.fillRect(0, 0, 64, 48);
            await new Promise(requestAnimationFrame);
          }
          const stopped = new Promise((resolve) => (recorder.onstop = resolve));
          recorder.stop();
          await stopped;
          return [...new Uint8Array(await new Blob(pieces).arrayBuffer())];
        }"""
    )
    refused: list[str] = []

    def refuse_the_first(route: playwright.Route) -> None:
        """Whenever that address is asked for."""
        if route.request.resource_type == "media":  # and no picture above it
            refused.append(route.request.url)
        if route.request.url in refused[:1]:
            route.fulfill(status=403)
        else:
            route.continue_()

    bob.page.route("**/v1/storage/objects/*", refuse_the_first)
    with bob.excused("403"):
        choose(ann, named("film.webm", bytes(film), "video/webm"))
        ann.writes("")
        video = bob.page.get_by_label("film.webm", exact=True).locator("visible=true")
        expect(video).to_have_js_property("videoWidth", 64)
    assert len(set(refused)) == 2
    bob.page.unroute_all()
    video.evaluate("video => { video.muted = true; return video.play(); }")
    expect(video).not_to_have_js_property("currentTime", 0)


def test_ones_own_files_are_listed_and_deleted(pair: Pair) -> None:
    _, bob, place = pair
    bob.goes("/settings/files")
    expect(bob.page.get_by_role("meter")).to_be_visible()
    expect(bob.page.get_by_text("You have no files here yet")).to_be_visible()
    bob.goes(f"/c/{place}")
    choose(bob, named("mine.txt", b"mine", "text/plain"))
    bob.writes("Here is mine.txt")
    bob.has_sent()
    bob.goes("/settings/files")
    bob.presses("Delete mine.txt")
    bob.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(bob.page.get_by_text("mine.txt is deleted")).to_be_visible()
    expect(bob.page.get_by_role("list", name="Your files").get_by_role("listitem")).to_have_count(0)
    assert bob.me.ask("GET", "/v1/storage/quota")["used_bytes"] == 0
    with bob.excused("404"):
        bob.at(f"/c/{place}")
        expect(bob.messages("Here is mine.txt")).to_contain_text("This file is no longer there")


def test_a_deleted_file_says_so_where_it_was(pair: Pair) -> None:
    ann, bob, _ = pair
    choose(ann, named("brief.txt", b"for a moment", "text/plain"))
    ann.writes("Read this")
    expect(bob.page.get_by_role("button", name="Download brief.txt")).to_be_visible()
    (file,) = (
        each for each in ann.me.ask("GET", "/v1/storage/files")["files"] if each["file_name"] == "brief.txt"
    )
    ann.me.ask("DELETE", f"/v1/storage/files/{file['file_id']}")
    with bob.excused("404"):
        expect(bob.messages("Read this")).to_contain_text("This file is no longer there")
        bob.page.reload()
        expect(bob.messages("Read this")).to_contain_text("This file is no longer there")


def test_a_file_on_a_server_that_is_away_is_waited_for(pair: Pair) -> None:
    """The server says so of what lies with another one; what it says is put in its place here."""
    ann, bob, _ = pair
    away = {"success": False, "error": {"code": "FILE_ON_AWAY_NODE", "message": "-"}, "meta": {}}
    bob.page.route("**/download-url/*", lambda route: route.fulfill(status=503, json=away))
    text = "This file lies on a server that cannot be reached right now."
    with bob.excused("status of 503"):
        choose(ann, picture(ann, "far.png"), named("far.txt", b"away", "text/plain"))
        ann.writes("Over there")
        message = bob.messages("Over there")
        message.scroll_into_view_if_needed()
        expect(message.get_by_text(text)).to_be_visible()
        bob.page.get_by_role("button", name="Download far.txt").click()
        expect(bob.page.get_by_role("status").filter(has_text=text)).to_be_visible()
        bob.page.unroute_all()
    message.get_by_role("button", name="Try again").click()
    expect(message.locator("img")).to_have_js_property("naturalWidth", 800)


def test_nobody_but_members_has_what_is_sent_sealed(people: People, shelf: Server) -> None:
    ann, bob = people.enter(shelf, "ann", "bob")
    sealed = {
        "type": "group",
        "title": "Sealed",
        "participant_ids": [bob.me.user_id],
        "is_e2ee_enabled": True,
    }
    place = ann.me.ask("POST", "/v1/conversations", sealed)["conversation_id"]
    for person in (ann, bob):
        person.at(f"/c/{place}").is_online()
        person.finds("app.mine.secrecy.crypto().then((crypto) => crypto.ready())")
    drawn, plan = picture(ann, "plan.png"), b"to be kept from others " * 240_000  # more than one part
    choose(ann, drawn, named("plan.txt", plan, "text/plain"))
    ann.writes("Here is the plan")
    shown = bob.page.get_by_role("button", name="View plan.png")
    expect(shown.locator("img")).to_have_js_property("naturalWidth", 800)
    assert saved(bob, "plan.txt") == plan
    files = bob.me.ask("GET", "/v1/storage/files", conversation_id=place)["files"]
    assert [(each["file_name"], each["is_encrypted"]) for each in files] == [("encrypted", True)] * 2
    kept = [path.read_bytes() for path in shelf.data_dir.rglob("*") if path.is_file()]
    assert not [1 for each in kept if b"kept from others" in each or b"plan.png" in each]


@pytest.mark.parametrize("world", ["real"], indirect=True)
def test_the_store_takes_and_gives_files_itself(
    start_server: StartServer, store: ObjectStore, people: People
) -> None:
    """It is another origin than the page's."""
    server = start_server(STORAGE__PART_MB=str(PART_MB))
    ann, bob = people.enter(server, "ann", "bob")
    place = ann.me.direct(bob.me)
    for person in (ann, bob):
        person.allows(store.url)
        person.at(f"/c/{place}")
    content = drop_large(ann, "large.bin", 11 * MB)
    choose(ann, picture(ann, "small.png"))
    has_chosen(ann, "large.bin", "small.png")
    ann.writes("Here is large.bin")
    shown = bob.page.get_by_role("button", name="View small.png")
    expect(shown.locator("img")).to_have_js_property("naturalWidth", 800)
    assert saved(bob, "large.bin") == content
    assert [each for each in ann.asked if each.startswith(store.url)]
