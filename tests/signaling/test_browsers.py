"""Calls between real browsers, on one server that serves them all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.chromium import Chromium, driven
from kit.coturn import Coturn
from kit.fixtures import StartServer
from kit.server import Server

from .aiortc_device import aiortc_device
from .browser import Person, Somebody, Stage, pages

BACK_S = 5.0  # after the server's return
HOLD = """(() => {
  client.call.held = [];
  client.call.send = (frame) => void client.call.held.push(frame);
})()"""
LET_GO = """(() => {
  delete client.call.send;
  for (const frame of client.call.held) client.call.send(frame);
})()"""
FRAGMENTS = (  # change when ICE is restarted
    "[...client.call.links.values()].map((link) => /ice-ufrag:(.*)/.exec(link.pc.localDescription.sdp)[1])"
)


@pytest.fixture(scope="module")
def shared_stage() -> Iterator[Stage]:
    chromium = Chromium()
    try:
        with pages() as origin, driven(chromium) as browser:
            yield Stage(browser, origin)
    finally:
        chromium.close()


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    yield shared_stage
    shared_stage.clear()


@pytest.fixture(scope="module")
def shared_call_server(shared_stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("calls") / "data", GATEWAY__ALLOWED_ORIGINS=shared_stage.origin)
    try:
        server.start()
        yield server
        assert server.terminate() == 0
    finally:
        server.close()


@pytest.fixture
def server(shared_call_server: Server) -> Iterator[Server]:
    yield shared_call_server
    shared_call_server.check()


def converse(first: Person, *others: Somebody) -> str:
    """The conversation they share now."""
    conversation: str = first.do("client.converse(...given)", *(each.user_id for each in others))
    return conversation


def in_call(conversation: str, *people: Person) -> str:
    """The first calls, and the others answer. The call's id; everybody sees everybody."""
    first, *others = people
    call_id = first.dials(conversation, *others)
    for each in others:
        assert each.answers() == call_id
    everybody_sees(*people)
    return call_id


def everybody_sees(*people: Person) -> None:
    for each in people:
        each.sees(*(other for other in people if other is not each))


def test_two_people_see_each_other(stage: Stage, server: Server) -> None:
    ann, bob = stage.enter(server.url, "ann", "bob")
    call_id = in_call(converse(ann, bob), ann, bob)
    for kind in ("audio", "video"):
        ann.do("client.call.mute(given[0], true)", kind)
        bob.peer(ann, f"peer.{kind} === false")
        ann.do("client.call.mute(given[0], false)", kind)
        bob.peer(ann, f"peer.{kind} === true")
    bob.do("client.call.leave()")
    ended = ann.hears("call_ended")["call"]
    assert (ended["call_id"], ended["status"]) == (call_id, "ended")
    ann.wait("client.call.isOver")


def test_screens_are_shown_beside_cameras(stage: Stage, server: Server) -> None:
    """Both begin at once: their offers cross, and one of them gives way."""
    pair = ann, bob = stage.enter(server.url, "ann", "bob")
    in_call(converse(ann, bob), ann, bob)
    shared = {}
    for each in pair:
        each.do(HOLD)
        shared[each] = each.do("client.call.share()")
    for each in pair:
        each.wait("client.call.held.some(({type}) => type === 'offer')")
    for each in pair:
        each.do(LET_GO)
    for each, other in ((ann, bob), (bob, ann)):
        each.peer(other, "peer.screen")
        each.sees(other, shown="screen", more=2)
        assert each.do("client.call.linkTo(given[0]).screenId", other.user_id) == shared[other]
    everybody_sees(ann, bob)
    ann.do("client.call.unshare()")
    bob.peer(ann, "!peer.screen")
    bob.wait("Object.values(await client.call.decoded()).every((each) => !('screen' in each))")
    ann.sees(bob, shown="screen", more=2)
    everybody_sees(ann, bob)


def test_four_see_each_other_and_a_fifth_is_refused(stage: Stage, server: Server) -> None:
    *four, eve = stage.enter(server.url, "ann", "bob", "cid", "dee", "eve")
    ann = four[0]
    conversation = converse(*four, eve)
    initiate = {"conversation_id": conversation, "call_type": "video"}
    assert ann.do("client.refusal('POST', '/v1/calls/initiate', given[0])", initiate) == [
        400,
        "CALL_CAPACITY",
        "call capacity limit reached (max 4 participants)",
    ]
    call_id = in_call(conversation, *four)
    assert eve.do("client.refusal('POST', given[0])", f"/v1/calls/{call_id}/join") == [
        400,
        "CALL_CAPACITY",
        "call is at full capacity (max 4 participants)",
    ]
    everybody_sees(*four)
    assert not any(each.told("leave", "peer_reconnecting", "error") for each in four)
    assert all(len(each.do("[...client.call.links.keys()]")) == 3 for each in four)


def test_a_page_that_is_loaded_anew_is_back_in_the_call(stage: Stage, server: Server) -> None:
    ann, bob = stage.enter(server.url, "ann", "bob")
    in_call(converse(ann, bob), ann, bob)
    before = bob.do("client.call.peerId")
    bob.page.reload()
    bob.do("client.comeBack()")
    assert bob.do("client.call.peerId") == before
    everybody_sees(ann, bob)
    assert not ann.told("leave")


def test_a_call_that_is_declined(stage: Stage, server: Server) -> None:
    ann, bob = stage.enter(server.url, "ann", "bob")
    call_id = ann.dials(converse(ann, bob))
    assert bob.hears("call_incoming")["call"]["call_id"] == call_id
    bob.do("client.ask('POST', given[0])", f"/v1/calls/{call_id}/decline")
    assert ann.hears("call_declined")["call"]["call_id"] == call_id
    assert ann.hears("call_ended")["call"]["status"] == "declined"
    ann.wait("client.call.isOver")


def test_a_call_that_is_missed(stage: Stage, start_server: StartServer) -> None:
    server = start_server(GATEWAY__ALLOWED_ORIGINS=stage.origin, SIGNALING__RING_S="5")
    ann, bob = stage.enter(server.url, "ann", "bob")
    call_id = ann.dials(converse(ann, bob))
    assert bob.hears("call_incoming")["call"]["call_id"] == call_id
    assert bob.hears("call_missed")["call"]["status"] == "missed"
    assert ann.hears("call_ended")["call"]["status"] == "missed"
    ann.wait("client.call.isOver")


def test_a_recording_plays(stage: Stage, server: Server) -> None:
    ann, bob = stage.enter(server.url, "ann", "bob")
    conversation = converse(ann, bob)
    ann.do(
        "client.ask('PUT', given[0], {recording_enabled: true})", f"/v1/conversations/{conversation}/settings"
    )
    call_id = in_call(conversation, ann, bob)
    recording_id = ann.do("client.call.askToRecord()")
    bob.wait("client.call.frames.some(({type}) => type === 'recording_requested')")
    bob.do("client.call.agree(given[0])", recording_id)
    for each in (ann, bob):
        each.wait("client.call.frames.some(({type}) => type === 'recording_started')")
    ann.do("client.call.record(given[0], 3, 300)", recording_id)
    bob.wait(
        "(await client.ask('GET', given[0])).recordings.some(({state}) => state === 'completed')",
        f"/v1/calls/{call_id}/recordings",
    )
    assert bob.do("client.play(given[0], given[1])", call_id, recording_id) == [640, 240]
    everybody_sees(ann, bob)


def test_media_goes_on_while_the_server_is_away(stage: Stage, start_server: StartServer) -> None:
    server = start_server(GATEWAY__ALLOWED_ORIGINS=stage.origin)
    people = stage.enter(server.url, "ann", "bob", "cid", "dee")
    in_call(converse(*people), *people)
    before = [(each.do("client.call.peerId"), each.do(FRAGMENTS)) for each in people]
    server.kill()
    for each in people:
        each.wait("client.call.socket.readyState === WebSocket.CLOSED")
    everybody_sees(*people)
    server.start()
    for each, (peer_id, fragments) in zip(people, before, strict=True):
        each.wait("client.call.resumes === 1", within_s=BACK_S)
        assert each.do("client.call.peerId") == peer_id
        each.wait(f"{FRAGMENTS}.every((now) => !given[0].includes(now))", fragments)
    everybody_sees(*people)
    assert not any(each.told("leave") for each in people)
    people[0].do("client.call.mute('audio', true)")
    for each in people[1:]:
        each.peer(people[0], "peer.audio === false")


def test_media_goes_through_a_relay_alone(stage: Stage, start_server: StartServer, coturn: Coturn) -> None:
    server = start_server(
        GATEWAY__ALLOWED_ORIGINS=stage.origin, TURN__URLS=coturn.url, TURN__SECRET=coturn.secret
    )
    people = stage.enter(server.url, "ann", "bob", ice="relay")
    in_call(converse(*people), *people)
    for each in people:
        (other,) = (one for one in people if one is not each)
        way = each.wait("await client.call.linkTo(given[0]).way()", other.user_id)
        assert way == ["relay", "relay"]


def test_a_browser_and_aiortc_see_each_other(stage: Stage, server: Server) -> None:
    (ann,) = stage.enter(server.url, "ann")
    with aiortc_device(server.url) as bob:
        call_id = ann.dials(converse(ann, bob))
        bob.tell(answer=call_id)
        bob.hears("joined")
        ann.sees(bob)
        assert bob.hears("decoded") > 0
        bob.hears("decoded")
        bob.tell(leave=True)
        bob.hears("over")
        assert ann.hears("call_ended")["call"]["status"] == "ended"
