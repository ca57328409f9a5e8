"""Whether all is as promised: the database, each client and each node's log, held against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

from chaos.load import Sent, SignedOut, Writer, is_refused
from chaos.witness import Key, Witness
from kit.cluster import Cluster, Member
from kit.server import Server
from kit.wait import until
from secureconnect.client import Client

REVOKED_S = 1.0  # until the other nodes refuse a token
BEHIND_S = 20.0  # until what is made behind everything else is made
AWAY, BACK = "dependency_away", "dependency_back"


@dataclass(frozen=True)
class Row:
    """A message as it is stored.  content: None once deleted."""

    message_id: str
    seq: int
    change: int
    content: str | None


Table = Mapping[str, Mapping[Key, Row]]


async def stored(cluster: Cluster, rooms: Iterable[str]) -> tuple[Table, dict[str, int]]:
    """All messages and the heads of all conversations, asked of the database itself; numbers are dense."""
    found: dict[str, dict[Key, Row]] = {}
    heads: dict[str, int] = {}
    for room in rooms:
        where = f"WHERE conversation_id = '{room}'"
        rows = await cluster.ask(
            "SELECT coalesce(json_agg(json_build_array(sender_id, client_message_id, message_id, seq, change,"
            f" CASE WHEN deleted_at IS NULL THEN content END) ORDER BY seq), '[]') FROM messages {where}"
        )
        found[room] = {(sender, key): Row(*rest) for sender, key, *rest in rows}
        assert len(found[room]) == len(rows), "a message is stored twice"
        assert [row[3] for row in rows] == list(range(1, len(rows) + 1)), "seq has a hole"
        head, changes = await cluster.ask(
            f"SELECT json_build_array((SELECT last_change FROM conversations {where}),"
            f" (SELECT json_agg(change ORDER BY change) FROM (SELECT change FROM messages {where}"
            f" UNION ALL SELECT change FROM changes {where}) AS every))"
        )
        assert changes == list(range(1, head + 1)), "change has a hole or a double"
        heads[room] = head
    return found, heads


def messages_are_kept(table: Table, writers: Iterable[Writer]) -> None:
    """Every message is stored once, in order and as last changed: nobody is removed or blocked, so that there
    is no reason to return any."""
    known: set[Key] = set()
    for writer in writers:
        last: dict[str, int] = {}
        for one in writer.sent:
            key = (writer.user_id, one.entry.client_message_id)
            known.add(key)
            answer = one.entry.answer
            assert answer is not None, f"{writer.name} was never told what became of a message"
            row = table[one.room].get(key)
            assert one.is_stored, f"{writer.name} got a message back, though nobody was removed: {answer}"
            assert row is not None, f"{writer.name} was told {answer['type']}, and it is not there"
            assert (row.message_id, row.seq) == (answer["message_id"], answer["seq"])
            assert row.content in one.may_be, f"{writer.name}'s message is {row.content!r}, not {one.may_be}"
            assert row.seq > last.get(one.room, 0), f"{writer.name}'s messages are out of order"
            last[one.room] = row.seq
    strangers = {key for rows in table.values() for key in rows} - known
    assert not strangers, "messages that nobody wrote"


def everybody_saw_it(table: Table, heads: Mapping[str, int], witnesses: Iterable[Witness]) -> None:
    for witness in witnesses:
        for room, seen in witness.rooms.items():
            held = {key: row.content for key, row in table[room].items()}
            assert seen.content == held, f"{witness.name} holds {_difference(seen.content, held)}"
            if not seen.rereads:
                assert seen.changes == list(range(seen.first + 1, heads[room] + 1)), (
                    f"{witness.name} missed some"
                )
            assert not seen.provisional, f"{witness.name} is shown what is not stored"


def _difference(seen: Mapping[Key, str | None], held: Mapping[Key, str | None]) -> str:
    extra = [key for key in seen if key not in held]
    missing = [key for key in held if key not in seen]
    other = [(seen[key], held[key]) for key in seen if key in held and seen[key] != held[key]]
    return f"{len(extra)} too many, {len(missing)} too few, {len(other)} otherwise: {other[:3]}"


async def nodes_tell_it(cluster: Cluster, table: Table, reader: Client) -> None:
    """Over REST, each node tells what the database holds."""
    for member in cluster.nodes:
        async with Client(member.url, reader.credentials) as client:
            for room, rows in table.items():
                told = await client.history(room, len(rows) + 1)
                assert [each["seq"] for each in told] == list(range(1, len(rows) + 1))
                assert {each["message_id"] for each in told} == {row.message_id for row in rows.values()}


async def refuses(member: Member, session: SignedOut, within_s: float) -> None:
    """The node refuses the token within this time."""

    async def does() -> bool:
        return await is_refused(member.url, session.token) is True

    await until(does, within_s)


async def mentions_are_told(cluster: Cluster, writers: Iterable[Writer]) -> None:
    """Whoever a message names has one notification of it; none once it is deleted."""
    due: set[tuple[str, str]] = set()
    over: set[tuple[str, str]] = set()
    for one in (each for writer in writers for each in writer.sent):
        if one.mentions is not None and one.entry.answer is not None:
            whose = (str(one.entry.answer["message_id"]), one.mentions)
            if None not in one.may_be:
                due.add(whose)
            elif one.sure:
                over.add(whose)
    found: list[tuple[str, str]] = []

    async def are_told() -> bool:
        rows = await cluster.ask(
            "SELECT coalesce(json_agg(json_build_array(ref, user_id)), '[]') FROM notifications"
            " WHERE kind = 'mention'"
        )
        found[:] = [(ref, user) for ref, user in rows]
        return due <= set(found)

    await until(are_told, BEHIND_S)
    assert len(found) == len(set(found)), "somebody is told twice"
    assert not over & set(found), "somebody is told of what is deleted"


async def search_finds(cluster: Cluster, writers: Sequence[Writer], reader: Client, chance: Random) -> None:
    """On any node, something that each wrote lately, and nothing that they deleted."""
    for writer in writers:
        member = chance.choice(cluster.nodes)
        kept = [each for each in writer.sent[-50:] if each.is_stored and each.sure]
        async with Client(member.url, reader.credentials) as client:
            for is_there in (True, False):
                those = [each for each in kept if (None not in each.may_be) == is_there]
                if those:
                    await _is_found(client, writer, chance.choice(those), is_there=is_there)


async def _is_found(client: Client, writer: Writer, one: Sent, *, is_there: bool) -> None:
    query = {"q": f'"{writer.name} {writer.sent.index(one)}"', "conversation_id": one.room}
    answer = one.entry.answer
    assert answer is not None

    async def has_it() -> bool:
        hits = (await client.call("GET", "/v1/messages/search", query=query))["hits"]
        return answer["message_id"] in {hit["message"]["message_id"] for hit in hits}

    if is_there:
        await until(has_it, BEHIND_S)
    else:
        assert not await has_it(), "what is deleted is found"


# logs


def moment(line: Mapping[str, Any]) -> float:
    """Unix seconds of a log line."""
    return datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00")).timestamp()


def turns(server: Server, dependency: str, since: float) -> list[tuple[str, float]]:
    """When this node saw the dependency go and come back."""
    return [
        (line["msg"], moment(line))
        for line in server.logs()
        if line["msg"] in (AWAY, BACK) and line["dependency"] == dependency and moment(line) >= since
    ]


def one_line_each(server: Server, dependency: str, since: float, *, times: int | None) -> None:
    """times: how often it was away; None: it may have been, once or not at all."""
    found = [msg for msg, _ in turns(server, dependency, since)]
    allowed = [[AWAY, BACK] * times] if times is not None else [[], [AWAY, BACK]]
    assert found in allowed, f"{dependency}: {found}"


# what a process holds


@dataclass(frozen=True)
class Footprint:
    tasks: int
    descriptors: int
    resident_mb: float

    @classmethod
    async def of(cls, member: Member) -> Footprint:
        process = Path("/proc") / str(member.server.pid)
        pages = int((process / "statm").read_text().split()[1])
        tasks = int(await member.server.metric("secureconnect_tasks"))
        return cls(tasks, len(list((process / "fd").iterdir())), pages * 4096 / 1024**2)


def is_flat(before: Footprint, after: Footprint, *, sockets: int) -> None:
    """sockets: how many of its clients may have come from the other node meanwhile."""
    spare = 4 * sockets + 10
    assert after.tasks <= before.tasks + spare, (before, after)
    assert after.descriptors <= before.descriptors + spare, (before, after)
    assert after.resident_mb <= before.resident_mb + 40, (before, after)


def returned(sent: Sequence[Sent]) -> int:
    return sum(each.entry.answer is not None and not each.is_stored for each in sent)
