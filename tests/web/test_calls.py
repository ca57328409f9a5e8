"""Calls between people at the web client, who see, hear and press what its screens say."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import playwright.sync_api as playwright
from playwright.sync_api import expect

from kit.fixtures import StartServer
from kit.server import Server

from .callers import CALL, SIZE, Enter, all_move, answers, button, calls, in_call, moves, tile, without
from .people import AWAY, People, Person, kept_session

IN_APP = """async () => {
  const main = document.querySelector('script[type="module"]').src;
  const { app } = await import(new URL("app.js", main).href);
  return %s;
}"""
# packets need a second to go and come
SLOW = """(() => {
  const ask = RTCPeerConnection.prototype.getStats;
  RTCPeerConnection.prototype.getStats = async function () {
    const slow = (each) => each.type === "remote-inbound-rtp" ? { ...each, roundTripTime: 1 } : each;
    return new Map([...(await ask.call(this))].map(([id, each]) => [id, slow(each)]));
  };
})()"""
WEBM = b"\x1a\x45\xdf\xa3"  # what each film begins with
FILM = re.compile(rb"V_VP8|V_VP9|A_OPUS|OpusHead|MediaRecorder|webm\x42")  # and what is in it

# what a server could make of a recording of 100,000 bytes, and what becomes of it
CUT = """(async () => {
  const { RecordingSealer, newRecordingKey, openedRecording } = await import(
    new URL("crypto/recordings.js", main).href);
  const key = newRecordingKey();
  const film = crypto.getRandomValues(new Uint8Array(50000));
  const sealed = async (...pieces) => {
    const sealer = await RecordingSealer.of(key);
    const all = [];
    for (const piece of pieces) all.push(await sealer.add(piece.slice().buffer));
    return new Blob([...all, await sealer.end()]);
  };
  const opened = async (blob) => {
    try {
      const { blob: plain, isWhole } = await openedRecording(blob.stream(), key, "video/webm");
      const bytes = new Uint8Array(await plain.arrayBuffer());
      if (bytes.some((byte, place) => byte !== film[place % 50000])) return "something else";
      return `${isWhole ? "whole" : "cut"} ${bytes.length}`;
    } catch (error) {
      return error.code;
    }
  };
  const one = 16384 + 16;
  const blob = await sealed(film.slice(0, 7), film.slice(7), film);
  const cut = (from, to) => blob.slice(from, to);
  return {
    whole: await opened(blob),
    "in one piece": await opened(await sealed(new Uint8Array([...film, ...film]))),
    "without its last part": await opened(cut(0, 6 * one)),
    "within a part": await opened(cut(0, 6 * one - 9)),
    "without one in the middle": await opened(new Blob([cut(0, one), cut(2 * one)])),
    "in another order": await opened(new Blob([cut(one, 2 * one), cut(0, one), cut(2 * one)])),
    changed: await opened(new Blob([cut(0, 99), "x", cut(100)])),
    nothing: await opened(await sealed()),
  };
})()"""

# a film costs more than all else in a call
SHORT_PARTS = """(() => {
  const start = MediaRecorder.prototype.start;
  MediaRecorder.prototype.start = function () {
    return start.call(this, 1_500);
  };
})()"""

# no candidate comes through; and ten seconds take one
WITHOUT_CANDIDATES = """(() => {
  const { send } = WebSocket.prototype;
  WebSocket.prototype.send = function (data) {
    if (globalThis.isOpen) return send.call(this, data);
    const { type, ...more } = JSON.parse(data);
    if (type === "ice_candidate") return;
    const sdp = more.sdp?.replaceAll(/^a=candidate:.*\\r\\n/gm, "");
    return send.call(this, JSON.stringify({ type, ...more, sdp }));
  };
  const every = setInterval;
  globalThis.setInterval = (work, ms) => every(work, ms === 10_000 ? 1_000 : ms);
})()"""

# the worker asks a page that was loaded anew whether it is in the call
HEAR_ANSWER = """(() => {
  const post = MessagePort.prototype.postMessage;
  MessagePort.prototype.postMessage = function (...given) {
    globalThis.hasAnswered ||= given[0] === true;
    return post.apply(this, given);
  };
})()"""

# no sound before somebody has clicked; and what keeps the device awake
TIMID = """(() => {
  const play = HTMLMediaElement.prototype.play;
  HTMLMediaElement.prototype.play = function () {
    if (globalThis.mayPlay) return play.call(this);
    return Promise.reject(new DOMException("a click first", "NotAllowedError"));
  };
  globalThis.locks = [];
  WakeLock.prototype.request = async () => {
    const lock = { released: false, release: async () => (lock.released = true) };
    locks.push(lock);
    return lock;
  };
})()"""


def hears(person: Person, other: Person) -> bool:
    """They beep."""
    return "speaks" in str(tile(person, other.me.name).get_attribute("class"))


def test_two_people_see_each_other(enter: Enter, server: Server) -> None:
    ann, bob = enter(server, "Ann", "Bob")
    conversation = in_call(ann, bob)

    ann.page.keyboard.press("m")
    expect(button(ann, "Mute")).to_have_attribute("aria-pressed", "true")
    expect(tile(bob, "Ann").get_by_label("Muted")).to_be_visible()
    ann.page.keyboard.press("m")
    expect(tile(bob, "Ann").get_by_label("Muted")).to_be_hidden()

    button(ann, "Camera off").click()
    expect(tile(bob, "Ann").locator("video")).to_be_hidden()
    button(ann, "Camera off").click()
    moves(bob, "Ann")

    button(ann, "Share your screen").click()
    moves(bob, "Screen of Ann")
    ann.finds(f"{CALL}.media.screen.peek().getTracks()[0].dispatchEvent(new Event('ended'))")
    expect(tile(bob, "Screen of Ann")).to_be_hidden()  # the browser has a button for it, too
    expect(button(ann, "Share your screen")).to_have_attribute("aria-pressed", "false")

    expect(tile(bob, "Ann").get_by_label("Good connection")).to_be_visible()
    expect(tile(ann, "Bob").get_by_label("Good connection")).to_be_visible()
    bob.page.evaluate(SLOW)
    expect(tile(bob, "Ann").get_by_label("Poor connection")).to_be_visible()
    expect(tile(ann, "Bob").get_by_label("Good connection")).to_be_visible()  # it is told of each by itself

    button(bob, "Make the call small").click()
    bob.opens("Ann")
    bob.writes("I read meanwhile; mv")  # the keys of the call are letters here
    bob.sees("I read meanwhile; mv")
    expect(button(bob, "Mute")).to_have_attribute("aria-pressed", "false")
    moves(bob, "Ann")
    button(bob, "Leave").click()
    expect(tile(bob, "Ann")).to_be_hidden()
    ann.is_told("The call with Bob has ended.")
    assert ann.me.ask("GET", "/v1/calls", conversation_id=conversation)["calls"][0]["status"] == "ended"


def test_what_does_not_come_about_is_begun_anew(enter: Enter, server: Server) -> None:
    ann, bob = enter(server, "Ann", "Bob", silent=True)
    for person in (ann, bob):
        person.page.add_init_script(WITHOUT_CANDIDATES)
    conversation = ann.me.direct(bob.me)
    bob.at("/").is_online()
    calls(ann, conversation)
    answers(bob, "Ann")
    for person, other in ((ann, "Bob"), (bob, "Ann")):
        person.comes_to(f"{CALL}.links.peek()[0]?.pc.currentRemoteDescription?.sdp !== undefined")
        expect(tile(person, other)).to_contain_text("Connecting…")
    for person in (ann, bob):
        person.page.evaluate("globalThis.isOpen = true")
    all_move({ann: ["Bob"], bob: ["Ann"]})


def test_another_device_and_one_that_is_gone(enter: Enter, server: Server) -> None:
    [ann], [bob] = enter(server, "Ann"), enter(server, "Bob", silent=True)
    in_call(ann, bob)
    held = f"[...{CALL}.media.stream.getTracks()].map((each) => [each.label, each.readyState])"
    button(ann, "Microphone and camera").click()
    chooser = ann.page.get_by_role("dialog", name="Microphone and camera")
    before = ann.finds(held)
    chooser.get_by_role("combobox", name="Camera").select_option("fake_device_1")
    chooser.get_by_role("combobox", name="Microphone").select_option("Fake Audio Input 2")
    other = [["Fake Audio Input 2", "live"], ["fake_device_1", "live"]]
    assert ann.waits(lambda: sorted(ann.finds(held)) == other), ann.finds(held)
    assert sorted(before) != other
    # of its second camera that is none Chromium encodes nothing: one sees it oneself
    moves(ann, "You")
    chooser.get_by_role("combobox", name="Camera").select_option("fake_device_0")
    chooser.get_by_role("button", name="Done").click()
    moves(bob, "Ann")

    # it is unplugged, and another one is there
    ann.finds(f"{CALL}.media.camera.peek().dispatchEvent(new Event('ended'))")
    moves(bob, "Ann")
    assert [state for _, state in ann.finds(held)] == ["live", "live"]
    # and when none is there
    ann.page.evaluate(without("video"))
    ann.finds(f"{CALL}.media.camera.peek().dispatchEvent(new Event('ended'))")
    ann.is_told("No camera was found. The others hear you.")
    expect(tile(bob, "Ann").get_by_label("Camera off")).to_be_visible()
    assert [state for _, state in ann.finds(held)] == ["live"]

    # nothing is held of a call that is over, though its recording could not be kept
    ann.finds(f"{CALL}.recording.close = () => Promise.reject(new Error('the disk is full'))")
    tracks = ann.page.evaluate_handle(IN_APP % f"{CALL}.media.stream.getTracks()")
    button(bob, "Leave").click()
    ann.is_told("The call with Bob has ended.")
    assert tracks.evaluate("(tracks) => tracks.map((each) => each.readyState)") == ["ended"]


def test_a_third_comes_and_the_owner_ends_it_for_all(enter: Enter, server: Server) -> None:
    ann, bob, cid = enter(server, "Ann", "Bob", "Cid", silent=True)
    group = ann.me.group("Trio", bob.me, cid.me)
    bob.at("/").is_online()
    cid.at(f"/c/{group}").is_online()
    calls(ann, group)
    ringing = cid.page.get_by_role("dialog", name="Ann is calling")
    expect(ringing).to_contain_text("In Trio")
    cid.page.keyboard.press("Escape")  # it rings here no more, and goes on
    expect(ringing).to_be_hidden()
    answers(bob, "Ann")  # of which all are told
    moves(ann, "Bob")
    expect(ringing).to_be_hidden()
    button(cid, "Join the call").click()
    button(cid, "Join").click()
    all_move({ann: ("Bob", "Cid"), bob: ("Ann", "Cid"), cid: ("Ann", "Bob")})
    expect(button(bob, "End for everybody")).to_be_hidden()
    button(ann, "End for everybody").click()
    for person in (ann, bob, cid):
        person.is_told("The call with Trio has ended.")


def test_a_call_is_declined_engaged_and_missed(
    start_server: StartServer, enter: Enter, people: People
) -> None:
    server = start_server(SIGNALING__RING_S="5")
    ann, bob, cid = enter(server, "Ann", "Bob", "Cid", silent=True)
    conversation, other = ann.me.direct(bob.me), cid.me.direct(bob.me)
    elsewhere = people.device(server, bob.me, session=bob.me.log_in(), size=SIZE)
    for device in (bob, elsewhere):
        device.at("/").is_online()
    calls(ann, conversation, "Voice call")
    rings = elsewhere.page.get_by_role("dialog", name="Ann is calling")
    expect(rings).to_be_visible()
    answers(bob, "Ann", "Decline")
    ann.is_told("Bob declined.")
    expect(rings).to_be_hidden()
    elsewhere.context.close()
    people.all.remove(elsewhere)

    button(ann, "Call again").click()
    button(ann, "Call").click()
    answers(bob, "Ann")
    expect(tile(ann, "Bob")).to_be_visible()
    calls(cid, other, "Voice call")
    cid.is_told("Bob is in another call.")
    button(bob, "Leave").click()
    ann.is_told("The call with Bob has ended.")

    button(cid, "Call again").click()
    button(cid, "Call").click()
    expect(bob.page.get_by_role("dialog", name="Cid is calling")).to_be_visible()
    cid.is_told("Bob did not answer.")
    bob.is_told("You missed a call from Cid.")


def test_media_goes_on_while_the_server_is_away(start_server: StartServer, enter: Enter) -> None:
    server = start_server()
    [ann], [bob] = enter(server, "Ann"), enter(server, "Bob", silent=True)
    in_call(ann, bob)
    with ann.excused(AWAY), bob.excused(AWAY):
        server.kill()
        for person, other in ((ann, "Bob"), (bob, "Ann")):
            expect(tile(person, other)).to_contain_text("Reconnecting…")
            person.is_told("No connection to the server. The call goes on.")
            moves(person, other, more=5)
        button(ann, "Mute").click()
        server.start()
        for person, other in ((ann, "Bob"), (bob, "Ann")):
            expect(tile(person, other)).not_to_contain_text("Reconnecting…")
            moves(person, other, more=5)
        expect(tile(bob, "Ann").get_by_label("Muted")).to_be_visible()  # said while nobody carried it
        for person in (ann, bob):
            person.page.evaluate("dispatchEvent(new Event('online'))")  # rather than wait for the chat's turn
            person.is_online()


def test_whoever_loads_the_page_anew_returns(enter: Enter, server: Server) -> None:
    [ann], [bob] = enter(server, "Ann", silent=True), enter(server, "Bob")
    in_call(ann, bob)
    button(bob, "Mute").click()
    bob.page.reload()
    bob.is_told("You are in a call with Ann.")
    expect(tile(ann, "Bob")).to_contain_text("Reconnecting…")
    button(bob, "Return to the call").click()
    moves(bob, "Ann")
    moves(ann, "Bob")
    expect(button(bob, "Mute")).to_have_attribute("aria-pressed", "true")
    expect(tile(ann, "Bob").get_by_label("Muted")).to_be_visible()
    other_tab = bob.opens_tab()
    other_tab.goes(urlsplit(ann.page.url).path)
    button(other_tab, "Join the call").click()
    button(other_tab, "Join").click()
    bob.is_told("You are in this call in another tab.")
    moves(other_tab, "Ann")
    moves(ann, "Bob")


def test_a_tab_that_is_closed_leaves_and_one_that_is_loaded_anew_does_not(
    enter: Enter, server: Server
) -> None:
    [ann], [bob] = enter(server, "Ann", silent=True), enter(server, "Bob", silent=True, installs=True)
    bob.page.add_init_script(HEAR_ANSWER)
    in_call(ann, bob)
    bob.comes_to("navigator.serviceWorker.controller !== null")
    bob.page.reload()
    bob.is_told("You are in a call with Ann.")
    bob.comes_to("globalThis.hasAnswered")
    button(bob, "Return to the call").click()
    moves(ann, "Bob")
    bob.page.goto("about:blank")
    gone = time.monotonic()
    ann.is_told("The call with Bob has ended.")
    # neither six seconds after the reload, nor after the 30 for which a device that is lost is waited for
    assert 5 < time.monotonic() - gone < 15


def recorded(enter: Enter, server: Server, *, silent: bool) -> tuple[Person, Person, str]:
    """Ann records a call with Bob, who has agreed. The third is its id."""
    ann, bob = enter(server, "Ann", "Bob", silent=silent)
    conversation = ann.me.direct(bob.me)
    ann.me.ask("PUT", f"/v1/conversations/{conversation}/settings", {"recording_enabled": True})
    in_call(ann, bob)
    return ann, bob, records(ann, bob, conversation)


def records(ann: Person, bob: Person, conversation: str, promise: str = "Whoever is in this") -> str:
    """The id of the call."""
    ann.page.evaluate(SHORT_PARTS)
    button(ann, "Record").click()
    asked = bob.page.get_by_role("dialog", name="May this call be recorded?")
    expect(asked).to_contain_text("Ann wants to record this call.")
    expect(asked).to_contain_text(promise)
    ann.is_told("Asking everybody whether the call may be recorded…")
    bob.page.keyboard.press("Escape")  # is no answer
    asked.get_by_role("button", name="I agree").click()
    bob.is_told("Ann records this call")
    ann.is_told("You record this call")
    return str(ann.me.ask("GET", "/v1/calls", conversation_id=conversation)["calls"][0]["call_id"])


def plays(person: Person) -> None:
    """What is in the dialog, and goes on for half a second."""
    player = person.page.locator("dialog.call-player")
    video = player.locator("video")
    expect(video).to_be_visible()
    assert person.waits(lambda: video.evaluate("(video) => video.currentTime > 0.5"))
    assert video.evaluate("(video) => video.videoWidth") == 1280
    player.get_by_role("button", name="Close").click()


def files(server: Server) -> set[Path]:
    return {path for path in server.data_dir.rglob("*") if path.is_file()}


def until_recorded(person: Person, call_id: str, state: str, parts: int = 0) -> str:
    """The id of the recording, once it is in that state."""
    found: dict[str, object] = {}

    def is_there() -> bool:
        nonlocal found
        found = person.me.ask("GET", f"/v1/calls/{call_id}/recordings")["recordings"][0]
        return found["state"] == state and int(str(found["parts"])) >= parts

    assert person.waits(is_there), found
    return str(found["recording_id"])


def test_a_recording_plays(enter: Enter, server: Server) -> None:
    ann, bob, call_id = recorded(enter, server, silent=False)
    before = files(server)
    until_recorded(ann, call_id, "recording", parts=1)
    button(ann, "Stop recording").click()
    bob.is_told("The recording has ended.")
    until_recorded(bob, call_id, "completed")
    kept = [path.read_bytes() for path in files(server) - before]
    assert any(content.startswith(WEBM) and FILM.search(content) for content in kept)
    button(bob, "Leave").click()
    bob.opens("Ann")
    bob.page.get_by_role("link", name="Details").click()
    button(bob, "Play").click()
    plays(bob)


def test_what_was_recorded_outlives_a_reload_and_consent_is_taken_back(enter: Enter, server: Server) -> None:
    ann, bob, call_id = recorded(enter, server, silent=True)
    until_recorded(ann, call_id, "recording", parts=1)
    assert ann.finds("app.mine.calls.hasUnsent()")
    ann.page.reload()
    until_recorded(ann, call_id, "completed")
    ann.comes_to("!app.mine.calls.hasUnsent()")
    button(ann, "Return to the call").click()
    moves(bob, "Ann")
    moves(ann, "Bob")
    button(ann, "Record").click()
    asked = bob.page.get_by_role("dialog", name="May this call be recorded?")
    asked.get_by_role("button", name="I agree").click()
    button(bob, "I do not agree any more").click()
    ann.is_told("Somebody does not agree any more: the recording has ended.")
    expect(button(ann, "Stop recording")).to_be_hidden()


def test_in_an_encrypted_conversation_all_is_sealed(enter: Enter, server: Server) -> None:
    ann, bob = enter(server, "Ann", "Bob", silent=True)
    made = {"type": "direct", "participant_ids": [bob.me.user_id], "is_e2ee_enabled": True}
    conversation = ann.me.ask("POST", "/v1/conversations", made)["conversation_id"]
    said: list[str] = []

    def listen(socket: playwright.WebSocket) -> None:
        if "signaling" in socket.url:
            socket.on("framesent", lambda data: said.append(str(data)))

    ann.page.on("websocket", listen)
    bob.at("/").is_online()
    calls(ann, conversation)
    answers(bob, "Ann")
    moves(ann, "Bob")
    moves(bob, "Ann")
    offers = [frame for frame in map(json.loads, said) if frame["type"] in ("offer", "answer")]
    assert offers
    assert all("sealed" in frame and "sdp" not in frame for frame in offers)
    assert not any("fingerprint" in frame for frame in said)
    # one in the clear, such as a server could make up, is not taken
    heard = """(async () => {
      const [link] = app.mine.calls.current.peek().links.peek();
      link.hear({ type: "offer", sdp: link.pc.remoteDescription.sdp });
      await link.hearing;
      return link.pc.remoteDescription.type;
    })()"""
    assert ann.finds(heard) == "answer"
    moves(ann, "Bob")

    expect(button(ann, "Record")).to_be_hidden()
    before = files(server)
    ann.me.ask("PUT", f"/v1/conversations/{conversation}/settings", {"recording_enabled": True})
    call_id = records(ann, bob, conversation, "It is encrypted on the device of Ann.")
    until_recorded(ann, call_id, "recording", parts=1)
    button(ann, "Stop recording").click()
    until_recorded(bob, call_id, "completed")
    kept = [path.read_bytes() for path in files(server) - before]
    assert any(len(content) > 16_384 for content in kept)
    assert not [content[:64] for content in kept if WEBM in content[:4] or FILM.search(content)]

    button(bob, "Leave").click()
    bob.opens("Ann")
    bob.messages("Recording of the call").get_by_role("button", name="Recording of the call").click()
    plays(bob)
    ann.is_told("The call with Bob has ended.")
    ann.page.get_by_role("link", name="Details").click()  # there the key is looked for
    button(ann, "Play").click()
    plays(ann)
    assert ann.finds(CUT) == {
        "whole": "whole 100000",
        "in one piece": "whole 100000",
        "without its last part": "cut 98304",
        "within a part": "FILE_SPOILT",
        "without one in the middle": "FILE_SPOILT",
        "in another order": "FILE_SPOILT",
        "changed": "FILE_SPOILT",
        "nothing": "whole 0",
    }


def test_without_a_camera_one_is_heard(enter: Enter, server: Server) -> None:
    ann, bob = enter(server, "Ann", "Bob")
    bob.context.add_init_script(without("video"))
    bob.context.add_init_script(f"if (location.host) {TIMID}")
    conversation = ann.me.direct(bob.me)

    # who thinks better of it while the call is being begun has called nobody
    held: list[playwright.Route] = []
    ann.page.route("**/v1/calls/initiate", lambda route: held.append(route))
    calls(ann, conversation)
    assert ann.waits(lambda: bool(held))
    button(ann, "Cancel").click()
    held[0].continue_()
    ann.page.unroute("**/v1/calls/initiate")

    def is_over() -> bool:
        begun = ann.me.ask("GET", "/v1/calls", conversation_id=conversation)["calls"]
        return bool(begun) and begun[0]["ended_at"] is not None

    assert ann.waits(is_over)
    expect(ann.page.get_by_role("region", name="Call with Bob")).to_be_hidden()

    bob.at("/").is_online()
    calls(ann, conversation)
    answers(bob, "Ann")
    bob.is_told("No camera was found. The others hear you.")
    moves(bob, "Ann")
    expect(tile(ann, "Bob").locator("video")).to_be_hidden()
    expect(tile(ann, "Bob").get_by_label("Camera off")).to_be_visible()
    assert ann.waits(lambda: hears(ann, bob))
    bob.page.evaluate("globalThis.mayPlay = true")
    button(bob, "Your browser plays no sound yet: hear the others").click()
    expect(button(bob, "Your browser plays no sound yet: hear the others")).to_be_hidden()
    locks = "locks.map((lock) => lock.released)"
    assert bob.page.evaluate(locks) == [False]
    button(bob, "Leave").click()
    expect(tile(bob, "Ann")).to_be_hidden()
    assert bob.page.evaluate(locks) == [True]


def test_without_tls_one_is_told_why_there_is_no_camera(enter: Enter, server: Server) -> None:
    ann, bob = enter(server, "Ann", "Bob", silent=True)
    conversation = ann.me.direct(bob.me)
    elsewhere = server.url.replace("127.0.0.1", "lan.test")
    ann.allows(elsewhere)
    session = json.dumps(kept_session(ann.me.session))
    ann.context.add_init_script(f"if (location.host) localStorage.setItem('sc.session', {session})")
    bob.at("/").is_online()
    with ann.excused("Cross-Origin-Opener-Policy header has been ignored"):
        ann.at(f"{elsewhere}/c/{conversation}")
    button(ann, "Video call").click()
    dialog = ann.page.get_by_role("dialog", name="Call Bob")
    expect(dialog).to_contain_text(f"You opened this page at {elsewhere}, without encryption.")
    button(ann, "Call").click()
    answers(bob, "Ann")
    moves(ann, "Bob")  # one sees and hears, and is not seen
    expect(tile(bob, "Ann").get_by_label("Muted")).to_be_visible()
