"""What people do beside writing: they vote, react and share files; and what must have become of that."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import trio

from chaos.load import Gate
from chaos.witness import Witness
from kit.cluster import Cluster
from kit.http import plain
from kit.people import download_url, put, whole
from secureconnect.client import ApiError, Client, ConnectionLost, Stream

PACE_S = 0.8  # between two deeds of one person, on average
ASK_S = 2.0  # for an answer
EMOJI = "+"
FILE = {"file_name": "a.bin", "content_type": "application/octet-stream"}
LARGEST = 20_000
FILES_READ = 2  # of each person, at each judgement
ADDRESS_S = 10.0  # to be given the address of a download, busy as everything is


class Unsure(Exception):
    """It may have been done, or not."""


@dataclass
class Choice:
    """What somebody has chosen, None for nothing.  may_be: several where an answer was lost.

    sure: all that was asked is answered. What is not may still come, after what was asked later and answered.
    """

    may_be: set[str | None] = field(default_factory=lambda: {None})
    sure: bool = True

    @contextmanager
    def of(self, wanted: str | None) -> Iterator[None]:
        """Around asking for it; leaves it unsure if that raises."""
        was_sure, self.sure = self.sure, False
        self.may_be.add(wanted)
        yield
        if was_sure:
            self.is_known(wanted)

    def is_known(self, kept: str | None) -> None:
        self.may_be, self.sure = {kept}, True


class Deeds:
    """Of one person.  polls: as they were made; everybody votes in each.  said: ids of messages on which
    everybody puts one reaction and takes it away.

    votes, reactions: by poll and by message.  files: contents by id, of those that were said to be complete.
    done: how many of each kind were answered well.
    """

    def __init__(
        self,
        client: Client,
        stream: Stream,
        polls: Sequence[dict[str, Any]],
        said: Sequence[str],
        chance: random.Random,
        gate: Gate,
    ) -> None:
        self.client = client
        self.votes = {str(poll["poll_id"]): Choice() for poll in polls}
        self.reactions = {message_id: Choice() for message_id in said}
        self.files: dict[str, bytes] = {}
        self.done: Counter[str] = Counter()
        self._stream = stream
        self._options = {
            str(poll["poll_id"]): [str(each["option_id"]) for each in poll["options"]] for poll in polls
        }
        self._chance = chance
        self._gate = gate

    async def go_on(self) -> None:
        """Until cancelled."""
        while True:
            await self._gate.passed()
            deed = self._chance.choice((self._vote, self._react, self._share))
            with suppress(Unsure):
                await deed()
            await trio.sleep(self._chance.uniform(0.3, 1.7) * PACE_S)

    async def _vote(self) -> None:
        poll_id, choice = self._chance.choice([*self.votes.items()])
        option_id = self._chance.choice(self._options[poll_id])
        with choice.of(option_id):
            await self._call("POST", f"/v1/polls/{poll_id}/vote", {"option_ids": [option_id]})
        self.done["vote"] += 1

    async def _react(self) -> None:
        message_id, choice = self._chance.choice([*self.reactions.items()])
        wanted = self._chance.choice((EMOJI, None))
        try:
            with choice.of(wanted), trio.fail_after(ASK_S):
                await self._stream.ask("react", message_id=message_id, emoji=EMOJI, on=wanted is not None)
        except (ConnectionLost, trio.TooSlowError):
            raise Unsure from None
        except ApiError as refusal:
            raise _unsure(refusal) from refusal
        self.done["reaction"] += 1

    async def _share(self) -> None:
        content = self._chance.randbytes(self._chance.randrange(1, LARGEST))
        begun = await self._call("POST", "/v1/storage/upload-url", FILE | {"file_size": len(content)})
        try:
            with trio.fail_after(ASK_S):
                await put(whole(self.client, begun["upload_url"]), content)
        except (httpx.TransportError, trio.TooSlowError, AssertionError):  # the store may say what it likes
            raise Unsure from None
        done = await self._call("POST", "/v1/storage/upload-complete", {"file_id": begun["file_id"]})
        if done["status"] == "completed":
            self.files[begun["file_id"]] = content
            self.done["file"] += 1

    async def _call(self, method: str, path: str, body: Any) -> Any:
        try:
            with trio.fail_after(ASK_S):
                return await self.client.call(method, path, body)
        except (httpx.TransportError, trio.TooSlowError):
            raise Unsure from None
        except ApiError as refusal:
            raise _unsure(refusal) from refusal


def _unsure(refusal: ApiError) -> Exception:
    """A server that is in trouble, or a balancer that has none; anything else is a finding."""
    return Unsure() if refusal.status >= 500 else refusal


# what must have become of it


async def votes_are_kept(cluster: Cluster, people: Sequence[Deeds]) -> None:
    """One vote of each, the last, and the counts are those of the votes. What was unsure is known now."""
    rows = await cluster.ask(
        "SELECT coalesce(json_agg(json_build_array(poll_id, user_id, option_id)), '[]') FROM poll_votes"
    )
    found = {(poll, user): option for poll, user, option in rows}
    assert len(found) == len(rows), "somebody's vote counts twice"
    for each in people:
        for poll_id, choice in each.votes.items():
            kept = found.get((poll_id, each.client.me.user_id))
            assert kept in choice.may_be, f"a vote is {kept}, not {choice.may_be}"
            choice.is_known(kept)
    counts = await cluster.ask(
        "SELECT coalesce(json_agg(json_build_array(o.option_id, o.vote_count,"
        " (SELECT count(*) FROM poll_votes v WHERE v.option_id = o.option_id))), '[]') FROM poll_options o"
    )
    wrong = [count for count in counts if count[1] != count[2]]
    assert not wrong, f"votes are counted wrongly: {wrong}"


async def reactions_are_kept(cluster: Cluster, people: Sequence[Deeds], witnesses: Sequence[Witness]) -> None:
    """And every node, and everybody who looked on, counts them right."""
    rows = await cluster.ask(
        "SELECT coalesce(json_agg(json_build_array(message_id, user_id, emoji)), '[]') FROM reactions"
    )
    found = {(message, user): emoji for message, user, emoji in rows}
    for each in people:
        for message_id, choice in each.reactions.items():
            kept = found.get((message_id, each.client.me.user_id))
            assert kept in choice.may_be, f"a reaction is {kept}, not {choice.may_be}"
            choice.is_known(kept)
    counts = {said: sum(message == said for message, _ in found) for said in people[0].reactions}
    for witness in witnesses:
        seen = {said: count for room in witness.rooms.values() for said, count in room.reactions.items()}
        assert {said: seen.get(said, 0) for said in counts} == counts, witness.name
    for member in cluster.nodes:
        async with Client(member.url, people[0].client.credentials) as client:
            for said, count in counts.items():
                told = (await client.call("GET", f"/v1/messages/{said}"))["reactions"]
                assert sum(each["count"] for each in told) == count, f"{member.name}: {told}"


async def _address(client: Client, file_id: str) -> str:
    """Whoever is asked to come back later does."""
    with trio.fail_after(ADDRESS_S):
        while True:
            try:
                return await download_url(client, file_id)
            except ApiError as refusal:
                if refusal.status != 503 or refusal.retry_after_s is None:
                    raise
                await trio.sleep(refusal.retry_after_s)


async def files_are_kept(cluster: Cluster, people: Sequence[Deeds], chance: random.Random) -> None:
    """What was said to be complete is there, byte by byte; quotas are the sum of what there is."""
    for each in people:
        member = chance.choice(cluster.nodes)
        async with Client(member.url, each.client.credentials) as client, plain() as http:
            for file_id in chance.sample([*each.files], min(FILES_READ, len(each.files))):
                answer = await http.get(await _address(client, file_id))
                assert answer.content == each.files[file_id], f"{answer.status_code}: a file is gone"
    rows = await cluster.ask(
        "SELECT coalesce(json_agg(json_build_array(q.used_bytes, coalesce((SELECT sum(file_size) FROM files f"
        " WHERE f.owner_id = q.user_id AND f.status = 'completed'), 0))), '[]') FROM quotas q"
    )
    assert all(used == there for used, there in rows), f"quotas are {rows}"
