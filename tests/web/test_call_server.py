"""What the server carries between devices in a call: pages of several people, a device of another make."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

import playwright.sync_api as playwright
from playwright.sync_api import expect

from kit.aiortc_device import aiortc_device
from kit.coturn import Coturn
from kit.fixtures import StartServer
from kit.server import Server

from .callers import CALL, Enter, all_move, answers, button, calls, in_call, moves, tile
from .people import AWAY, Person

BACK_S = 5.0  # after the server's return
PEER_ID = f"{CALL}.peerId"
FRAGMENTS = (  # change when ICE is restarted
    f"{CALL}.links.peek().map((link) => /ice-ufrag:(.*)/.exec(link.pc.localDescription.sdp)[1])"
)
WAYS = f"""await Promise.all({CALL}.links.peek().map(async (link) => {{
  const stats = await link.pc.getStats();
  const {{ selectedCandidatePairId }} = [...stats.values()].find(({{ type }}) => type === "transport");
  const pair = stats.get(selectedCandidatePairId);
  return [pair.localCandidateId, pair.remoteCandidateId].map((id) => stats.get(id).candidateType);
}}))"""
RELAY_ALONE = """(() => {
  const Connection = RTCPeerConnection;
  globalThis.RTCPeerConnection = class extends Connection {
    constructor(given) {
      super({ ...given, iceTransportPolicy: "relay" });
    }
  };
})()"""
HOLD = f"""(({{ signaling }}) => {{
  signaling.held = [];
  signaling.send = (frame) => void signaling.held.push(frame);
}})({CALL})"""
HOLDS_OFFER = f"{CALL}.signaling.held.some(({{ type }}) => type === 'offer')"
LET_GO = f"""(({{ signaling }}) => {{
  delete signaling.send;
  for (const frame of signaling.held) signaling.send(frame);
}})({CALL})"""


def hears(person: Person) -> list[str]:
    """The types of the frames that come on the signaling sockets of the page from now on."""
    heard: list[str] = []

    def listen(socket: playwright.WebSocket) -> None:
        if "signaling" in socket.url:
            socket.on("framereceived", lambda data: heard.append(json.loads(data)["type"]))

    person.page.on("websocket", listen)
    return heard


def is_back(heard: list[str]) -> bool:
    return "resumed" in heard


def everybody_moves(*people: Person) -> None:
    names = [each.me.name for each in people]
    all_move({each: [name for name in names if name != each.me.name] for each in people})


def test_four_see_each_other_whatever_becomes_of_the_server(start_server: StartServer, enter: Enter) -> None:
    """A fifth is refused. Whoever is away for a moment comes back as who they were."""
    server = start_server()
    *four, eve = enter(server, "Ann", "Bob", "Cid", "Dee", "Eve", silent=True)
    ann, bob = four[:2]
    group = ann.me.group("All", *(each.me for each in (*four[1:], eve)))
    heard = {each.me.name: hears(each) for each in four}
    for each in four[1:]:
        each.at("/").is_online()
    ann.at(f"/c/{group}")
    button(ann, "Video call").click()
    expect(button(ann, "Call")).to_be_disabled()  # there is no room for all of them
    for each in four[1:]:
        ann.page.get_by_label(each.me.name, exact=True).check()
    expect(ann.page.get_by_label("Eve", exact=True)).to_be_disabled()
    button(ann, "Call").click()
    for each in four[1:]:
        answers(each, "Ann")
    everybody_moves(*four)
    with eve.excused("400"):
        joins(eve, group)
        expect(eve.page.get_by_role("dialog")).to_contain_text("The call is full.")
    assert all(each.finds(f"{CALL}.links.peek().length") == 3 for each in four)
    assert not {"leave", "peer_reconnecting", "error"}.intersection(*heard.values())

    before = [(each.finds(PEER_ID), each.finds(FRAGMENTS)) for each in four]
    for each in (*four, eve):
        each.excuses(AWAY)
    server.kill()
    for each in four:
        each.is_told("No connection to the server. The call goes on.")
    everybody_moves(*four)
    assert not any(is_back(each) for each in heard.values())
    server.start()
    give_up = time.monotonic() + BACK_S
    for each, (peer_id, fragments) in zip(four, before, strict=True):
        assert each.waits(partial(is_back, heard[each.me.name]), give_up - time.monotonic())
        assert each.finds(PEER_ID) == peer_id
        each.comes_to(f"{FRAGMENTS}.every((now) => !given[0].includes(now))", fragments)
    everybody_moves(*four)
    button(ann, "Camera off").click()
    for each in four[1:]:
        expect(tile(each, "Ann").get_by_label("Camera off")).to_be_visible()
    button(ann, "Camera off").click()

    peer_id = bob.finds(PEER_ID)
    bob.page.reload()
    button(bob, "Return to the call").click()
    everybody_moves(*four)
    assert bob.finds(PEER_ID) == peer_id
    assert not any("leave" in each for each in heard.values())


def joins(person: Person, conversation: str) -> None:
    """The call that is under way there."""
    person.at(f"/c/{conversation}")
    button(person, "Join the call").click()
    button(person, "Join").click()


def test_screens_that_are_shared_at_once(enter: Enter, server: Server) -> None:
    """Their offers cross, and one of them gives way."""
    pair = ann, bob = enter(server, "Ann", "Bob", silent=True)
    in_call(ann, bob)
    for each in pair:
        each.finds(HOLD)
        button(each, "Share your screen").click()
    for each in pair:
        each.comes_to(HOLDS_OFFER)
    for each in pair:
        each.finds(LET_GO)
    all_move({ann: ["Bob", "Screen of Bob"], bob: ["Ann", "Screen of Ann"]})
    for each, other in ((ann, bob), (bob, ann)):
        shared = other.finds(f"{CALL}.media.screen.peek().id")
        assert each.finds(f"{CALL}.links.peek()[0].screen.peek().id") == shared
    button(ann, "Share your screen").click()
    expect(tile(bob, "Screen of Ann")).to_be_hidden()
    all_move({ann: ["Bob", "Screen of Bob"], bob: ["Ann"]})


def test_media_goes_through_a_relay_alone(start_server: StartServer, enter: Enter, coturn: Coturn) -> None:
    server = start_server(TURN__URLS=coturn.url, TURN__SECRET=coturn.secret)
    pair = enter(server, "Ann", "Bob", silent=True)
    for each in pair:
        each.context.add_init_script(RELAY_ALONE)
    in_call(*pair)
    for each in pair:
        assert each.finds(WAYS) == [["relay", "relay"]]


def test_a_browser_and_aiortc_see_each_other(enter: Enter, server: Server) -> None:
    (ann,) = enter(server, "Ann")
    with aiortc_device(server.url) as bob:
        made = {"type": "direct", "participant_ids": [bob.user_id]}
        conversation = ann.me.ask("POST", "/v1/conversations", made)
        calls(ann, conversation["conversation_id"])
        expect(button(ann, "Leave")).to_be_visible()
        bob.tell(answer=latest_call(ann, conversation)["call_id"])
        bob.hears("joined")
        name = next(
            each["display_name"] for each in conversation["participants"] if each["user_id"] == bob.user_id
        )
        moves(ann, name)
        assert bob.hears("decoded") > 0
        bob.hears("decoded")
        bob.tell(leave=True)
        bob.hears("over")
        ann.is_told(f"The call with {name} has ended.")
        assert latest_call(ann, conversation)["status"] == "ended"


def latest_call(person: Person, conversation: dict[str, Any]) -> dict[str, Any]:
    listed = person.me.ask("GET", "/v1/calls", conversation_id=conversation["conversation_id"])
    call: dict[str, Any] = listed["calls"][0]
    return call
