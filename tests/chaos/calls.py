"""A call across the nodes: its devices offer to each other and mute; and what must have become of that.

One device is with the first node, one with the last, and one comes through the balancer. A fault of a node is
to be over before `signaling.grace_s` is: until then the first two have nowhere to go.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from chaos.load import Gate, sign_in
from kit.cluster import Cluster
from kit.people import group
from kit.talkers import Talker
from kit.wait import until
from secureconnect.client import Client, Event, Signaling

PACE_S = 0.4  # between two frames of one device, on average
ASK_S = 3.0  # for the answer to a frame
MUTES = 0.3  # of the frames; the others are offers
CARRIED_S = 10.0  # twice the time in which a node notices that it alone has lost the bus
BACK_S = 20.0  # until everybody is there again, as the table and all others have it
TOLD_OTHERWISE = {"UNAVAILABLE", "CONFLICT"}

Stand = dict[str, tuple[bool, bool]]  # of devices by their id: whether one has sound, and is connected


@dataclass
class Offer:
    """since: how much the sender had been told by then.  code: of its refusal.  is_acked: neither, where no
    answer came."""

    target: str
    sdp: str
    epoch: int
    since: int
    code: str | None = None
    is_acked: bool = False


class Speaker(Talker):
    """has_sound: as it said last; several where an answer was lost.  done: how many frames of each kind were
    acknowledged."""

    def __init__(self, name: str, signaling: Signaling, chance: random.Random, gate: Gate) -> None:
        super().__init__(signaling)
        self.name = name
        self.offers: list[Offer] = []
        self.has_sound = {True}
        self.done: Counter[str] = Counter()
        self._chance = chance
        self._gate = gate
        self._refs = 0
        self._said_at = 0

    @property
    def peer_id(self) -> str:
        return self.signaling.peer_id

    async def go_on(self, others: Sequence[Speaker]) -> None:
        """Until cancelled."""
        while True:
            await self._gate.passed()
            if self._chance.random() < MUTES:
                await self._mute(muted=self._chance.choice((True, False)))
            else:
                await self._offer(self._chance.choice(others).peer_id)
            await trio.sleep(self._chance.uniform(0.3, 1.7) * PACE_S)

    async def _mute(self, *, muted: bool) -> None:
        self.has_sound.add(not muted)
        answer = await self._ask("mute_audio", muted=muted)
        if answer is not None:
            assert answer["type"] == "ack", f"{self.name} may not mute: {answer}"
            self.has_sound = {not muted}
            self._said_at = len(self.seen)
            self.done["mute"] += 1

    async def say_again(self) -> None:
        """Whether it is muted."""
        await self._mute(muted=True not in self.has_sound)

    async def correct(self) -> None:
        """Say again what the server, which may have lost it with a node, told otherwise on coming back."""
        for told in self.seen[self._said_at :]:
            for peer in told["peers"] if told["type"] == "resumed" else ():
                if peer["peer_id"] == self.peer_id and peer["audio"] not in self.has_sound:
                    await self.say_again()
                    return

    async def _offer(self, target: str) -> None:
        sdp = f"{self.name} {self._refs}"
        offer = Offer(target, sdp, self.signaling.epoch, len(self.seen))
        self.offers.append(offer)
        answer = await self._ask("offer", target_id=target, sdp=sdp)
        if answer is None:
            return
        if answer["type"] == "ack":
            offer.is_acked = True
            self.done["offer"] += 1
        else:
            offer.code = answer["code"]

    async def _ask(self, kind: str, **fields: Any) -> Event | None:
        """The answer; None where none comes."""
        self._refs += 1
        ref, since = self._refs, len(self.seen)

        def has_answer() -> bool:
            return any(each.get("ref") == ref or each["type"] == "offline" for each in self.seen[since:])

        if not await self.signaling.tell(kind, ref=ref, **fields):
            return None
        with trio.move_on_after(ASK_S):
            await until(has_answer, ASK_S + 1)
        return next((each for each in self.seen[since:] if each.get("ref") == ref), None)

    def may_have_missed(self, offer: Offer) -> bool:
        """Whether this sender was told that what it sent may be void: it lost its connection, or the other
        device did, or the call has another epoch."""
        return any(
            each["type"] == "offline"
            or each.get("epoch", 0) > offer.epoch
            or offer.target in (each.get("peer_id"), each.get("peer", {}).get("peer_id"))
            for each in self.seen[offer.since :]
        )

    def sees(self) -> Stand:
        """The others, by what it was told."""
        stand: Stand = {}
        for each in self.seen:
            match each["type"]:
                case "peers" | "resumed":
                    stand = {peer["peer_id"]: _stand(peer) for peer in each["peers"]}
                case "join" | "peer_resumed":
                    stand[each["peer"]["peer_id"]] = _stand(each["peer"])
                case "peer_reconnecting" if each["peer_id"] in stand:
                    stand[each["peer_id"]] = (stand[each["peer_id"]][0], False)
                case "leave":
                    stand.pop(each["peer_id"], None)
                case "mute_audio" if each["sender_id"] in stand:
                    stand[each["sender_id"]] = (not each["muted"], stand[each["sender_id"]][1])
        stand.pop(self.peer_id, None)
        return stand


def _stand(peer: Any) -> tuple[bool, bool]:
    return bool(peer["audio"]), bool(peer["is_connected"])


@asynccontextmanager
async def across(
    cluster: Cluster, clients: Sequence[Client], seed: int, gate: Gate
) -> AsyncIterator[list[Speaker]]:
    """A call of the first three, each with a further session."""
    doors = [cluster.nodes[0].url, cluster.nodes[-1].url, cluster.url]
    three = clients[: len(doors)]
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        room = await group(three[0], *three[1:], title="call")
        devices = [
            await stack.enter_async_context(Client(door, await sign_in(door, client.me.username)))
            for door, client in zip(doors, three, strict=True)
        ]
        begun = {"conversation_id": room, "call_type": "audio"}
        call_id = (await devices[0].create("/v1/calls/initiate", begun))["call_id"]
        speakers: list[Speaker] = []
        for number, device in enumerate(devices):
            if number:
                await device.call("POST", f"/v1/calls/{call_id}/join")
            signaling = await stack.enter_async_context(device.signaling(call_id))
            speakers.append(Speaker(f"device {number}", signaling, random.Random(seed * 300 + number), gate))
            nursery.start_soon(speakers[-1].listen)
            await speakers[-1].hears("peers")
        for speaker in speakers:
            nursery.start_soon(speaker.go_on, [each for each in speakers if each is not speaker])
        yield speakers
        nursery.cancel_scope.cancel()


# what must have become of it


async def call_is_kept(cluster: Cluster, speakers: Sequence[Speaker], *, cut_off: bool) -> None:
    """Everybody is in it, as the table and all others have it; and what was acknowledged has come.

    cut_off: the nodes were, from each other, for long: what was acknowledged before that was noticed may be
    lost.
    """
    for speaker in speakers if cut_off else ():
        await speaker.say_again()
    await _everybody_is_there(cluster, speakers)
    for speaker in speakers:
        assert speaker.code is None, f"{speaker.name} was sent away: {speaker.code}"
        assert not speaker.of("leave"), f"{speaker.name} was told that somebody left"
        for offer in speaker.offers:
            assert offer.code in (None, *TOLD_OTHERWISE), f"{speaker.name} may not offer: {offer}"
        if not cut_off:
            await _offers_have_come(speaker, speakers)
        speaker.offers.clear()
    for speaker in speakers:
        heard = Counter(each["sdp"] for each in speaker.of("offer"))
        twice = [sdp for sdp, times in heard.items() if times > 1]
        assert not twice, f"{speaker.name} heard twice: {twice}"


async def _everybody_is_there(cluster: Cluster, speakers: Sequence[Speaker]) -> None:
    states: list[Stand] = []

    async def are() -> bool:
        for each in speakers:
            await each.correct()
        rows = await cluster.ask(
            "SELECT coalesce(json_agg(json_build_array(peer_id, audio, lost_at IS NULL)), '[]')"
            " FROM call_peers"
        )
        table = {peer_id: (audio, is_there) for peer_id, audio, is_there in rows}
        states[:] = [table, *(each.sees() for each in speakers)]
        return all(
            table.get(each.peer_id) in {(sound, True) for sound in each.has_sound}
            and each.sees() == {peer: stand for peer, stand in table.items() if peer != each.peer_id}
            for each in speakers
        )

    try:
        await until(are, BACK_S)
    except trio.TooSlowError:
        said = [each.has_sound for each in speakers]
        raise AssertionError(f"they said {said}; the table, and each device, have it so: {states}") from None
    state = await cluster.ask("SELECT coalesce(json_agg(state), '[]') FROM calls WHERE ended_at IS NULL")
    assert state == ["active"]


async def _offers_have_come(sender: Speaker, speakers: Sequence[Speaker]) -> None:
    by_id = {each.peer_id: each for each in speakers}
    due = [each for each in sender.offers if each.is_acked and not sender.may_have_missed(each)]

    def missing() -> list[Offer]:
        return [each for each in due if not by_id[each.target].of("offer", sdp=each.sdp)]

    try:
        await until(lambda: not missing(), CARRIED_S)
    except trio.TooSlowError:
        raise AssertionError(f"{sender.name} had acks for what never came: {missing()}") from None
