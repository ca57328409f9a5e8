"""Runs faults under load, and judges after each."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import trio

from chaos import deeds, verdict
from chaos.calls import Speaker, across, call_is_kept
from chaos.deeds import Deeds
from chaos.load import Gate, SignedOut, Writer, is_refused, sign_in, sign_out
from chaos.plan import Fault
from chaos.verdict import AWAY, REVOKED_S, Footprint
from chaos.witness import Witness, longest_pause
from kit.cluster import Cluster, Member
from kit.people import group, people
from kit.wait import until
from secureconnect.client import Client, Credentials
from secureconnect.deps import signal_order

PEOPLE = 6
ROOMS = 2
HOLD_S = 2.5  # how long a fault lasts
FLOW = 20  # messages stored, by which the load is known to flow
FLOW_S = 20.0
WHOLE_S = 20.0
REST_S = 40.0  # until every message is settled and everybody has seen it
SLACK = 5  # a busy machine may take so many times as long as promised
DEGRADE_S, RECOVER_S = 1.5, 2.0
HEARD_S = 1.0  # until people on the other node have a message, whatever carries it
SESSIONS_KEPT = 40
CUT_OFF_S = 9.0  # nearly all of the time for which nodes keep what they could not tell each other

Span = tuple[float, float]  # from, to; on the wall clock


@dataclass
class Round:
    """What one fault did.  Seconds; by dependency, the slowest node's.

    silence_s: the longest time in which nobody heard a message of anybody, stored or accepted.
    unstored_s: in which none was stored.
    settled_s: after the load was stopped, until everybody held everything.
    revoked_s: until the last node refused a token signed out.
    """

    fault: str
    stored: int = 0
    degrade_s: dict[str, float] = field(default_factory=dict)
    recover_s: dict[str, float] = field(default_factory=dict)
    silence_s: float = 0.0
    unstored_s: float = 0.0
    settled_s: float = 0.0
    revoked_s: float | None = None
    reconnects: int = 0
    provisional: int = 0
    returned: int = 0
    sign_outs: list[int | None] = field(default_factory=list)
    loudest: tuple[str, int] = ("", 0)


class Chaos:
    def __init__(
        self,
        cluster: Cluster,
        clients: Sequence[Client],
        writers: Sequence[Writer],
        witnesses: Sequence[Witness],
        doers: Sequence[Deeds],
        speakers: Sequence[Speaker],
        seed: int,
    ) -> None:
        self.cluster = cluster
        self.gate = writers[0].gate
        self.sessions: list[SignedOut] = []
        self._clients = clients
        self._writers = writers
        self._witnesses = witnesses
        self._doers = doers
        self._speakers = speakers
        self._rooms = writers[0].rooms
        self._chance = random.Random(seed)
        self._bases: dict[int, Footprint] = {}  # by process

    async def strike(self, fault: Fault, hold_s: float = HOLD_S) -> Round:
        """One fault from beginning to end. Raises AssertionError, or TooSlowError, if anything is not as
        promised."""
        done = Round(fault.name)
        before = self._counts()
        logs = [len(member.server.output) for member in self.cluster.nodes]
        victims = [await self._sign_in(each) for each in self.cluster.nodes]
        self.gate.open()
        await self._flows()
        began = time.time()
        await fault.begin(self.cluster)
        await trio.sleep(hold_s * self._chance.uniform(0.1, 0.6))
        async with (
            trio.open_nursery() as nursery
        ):  # ends before the fault: what is promised holds without its end
            for member, victim in zip(self.cluster.nodes, victims, strict=True):
                if member is not self._struck(fault):
                    nursery.start_soon(self._sign_out, fault, member, victim, done)
        await trio.sleep(max(0.0, began + hold_s - time.time()))
        rest = (began, began)
        if fault.node is None and "postgres" not in fault.away:
            rest = await self._everybody_hears(fault)
        ending = time.time()
        await fault.end(self.cluster)
        ended = time.time()
        await self.cluster.is_whole(WHOLE_S)
        noticed = time.time()
        # a node that has the bus again waits so long for what it missed, which comes with the database
        is_late = noticed - ending > signal_order.HOLD_S or noticed - began > CUT_OFF_S
        await self._flows()
        whole = time.time()
        self.gate.close()
        await self._settle(done)
        await self._judge(fault, began, ended, done, cut_off={"postgres", "redis"} <= fault.away and is_late)
        self._measure(((began, rest[0]), (rest[1], whole)), before, logs, done)
        return done

    @property
    def deeds_done(self) -> set[str]:
        """The kinds of which at least one was answered well."""
        done = [each.done for each in self._doers] + [each.done for each in self._speakers]
        return {kind for each in done for kind in each}

    async def _flows(self) -> None:
        goal = self._stored() + FLOW

        def has_grown() -> bool:
            return self._stored() >= goal

        await until(has_grown, FLOW_S)

    def _stored(self) -> int:
        return sum(len(writer.acks) for writer in self._writers)

    async def _settle(self, done: Round) -> None:
        """The load comes to rest, and everybody sees all of it."""
        start = trio.current_time()
        with trio.fail_after(REST_S):
            await self._rests()
            _, heads = await verdict.stored(self.cluster, self._rooms)
            for witness in self._witnesses:
                await witness.reaches(heads)
                await witness.clears()
        done.settled_s = trio.current_time() - start

    async def _rests(self) -> None:
        """Until nothing of the load is under way, once the gate is closed."""
        everybody = len(self._writers) + len(self._doers) + len(self._speakers)
        await until(lambda: self.gate.waiting == everybody, REST_S)
        for writer in self._writers:
            await writer.stream.drained()
            writer.look()

    async def _everybody_hears(self, fault: Fault) -> Span:
        """What is stored is seen on both nodes though the fault lasts, and though nothing follows it. Returns
        when the load was at rest for that."""
        began = time.time()
        self.gate.close()
        await self._rests()
        _, heads = await verdict.stored(self.cluster, self._rooms)
        with trio.move_on_after(SLACK * HEARD_S) as limit:
            for witness in self._witnesses:
                await witness.reaches(heads)
        assert not limit.cancelled_caught, f"{fault.name}: {witness.name} is not told what the other node has"
        self.gate.open()
        return began, time.time()

    def _struck(self, fault: Fault) -> Member | None:
        return None if fault.node is None else self.cluster.nodes[fault.node]

    async def _sign_in(self, member: Member) -> Credentials:
        """A further session, whose token every node has seen, so that it need not ask the database again."""
        session = await sign_in(member.url, self._clients[0].me.username)
        for each in self.cluster.nodes:
            assert await is_refused(each.url, session.access_token) is False
        return session

    async def _sign_out(self, fault: Fault, member: Member, victim: Credentials, done: Round) -> None:
        """From its answer on this node refuses the token, and soon every other that can know."""
        session = await sign_out(member.url, victim)
        done.sign_outs.append(session.status)
        if session.status not in (200, 202):
            return
        self.sessions.append(session)
        assert await is_refused(member.url, session.token) is not False, (
            f"{fault.name}: the node that said {session.status} to a sign-out takes the token"
        )
        if session.status == 200 and not {"postgres", "redis"} <= fault.away:
            for other in self.cluster.nodes:
                if other is not self._struck(fault):
                    await verdict.refuses(other, session, SLACK * REVOKED_S)
            done.revoked_s = max(done.revoked_s or 0.0, time.time() - session.at)

    async def _judge(self, fault: Fault, began: float, ended: float, done: Round, *, cut_off: bool) -> None:
        """cut_off: as of `call_is_kept`."""
        table, heads = await verdict.stored(self.cluster, self._rooms)
        verdict.messages_are_kept(table, self._writers)
        verdict.everybody_saw_it(table, heads, self._witnesses)
        await verdict.nodes_tell_it(self.cluster, table, self._clients[0])
        await verdict.mentions_are_told(self.cluster, self._writers)
        await verdict.search_finds(self.cluster, self._writers, self._clients[0], self._chance)
        await deeds.votes_are_kept(self.cluster, self._doers)
        await deeds.reactions_are_kept(self.cluster, self._doers, self._witnesses)
        await deeds.files_are_kept(self.cluster, self._doers, self._chance)
        await call_is_kept(self.cluster, self._speakers, cut_off=cut_off)
        for session in self.sessions[-SESSIONS_KEPT:]:
            for member in self.cluster.nodes:
                await verdict.refuses(member, session, SLACK * REVOKED_S)
        for number, member in enumerate(self.cluster.nodes):
            for dependency in member.tolls if member is not self._struck(fault) else ():
                is_away = fault.is_away(dependency, number)
                times = 1 if is_away else None if fault.away or fault.passing else 0
                verdict.one_line_each(member.server, dependency, began, times=times)
                for msg, at in verdict.turns(member.server, dependency, began) if is_away else ():
                    if msg == AWAY:
                        _worst(done.degrade_s, dependency, at - began)
                    else:
                        _worst(done.recover_s, dependency, at - ended)
            now = await Footprint.of(member)
            base = self._bases.setdefault(member.server.pid, now)
            verdict.is_flat(base, now, sockets=PEOPLE)
            member.server.check()
        assert all(took <= SLACK * DEGRADE_S for took in done.degrade_s.values()), done
        assert all(took <= SLACK * RECOVER_S for took in done.recover_s.values()), done

    def _counts(self) -> tuple[int, int, int, int]:
        return (
            self._stored(),
            sum(len(each.offline) for each in self._witnesses),
            sum(seen.provisionals for each in self._witnesses for seen in each.rooms.values()),
            sum(verdict.returned(each.sent) for each in self._writers),
        )

    def _measure(
        self, spans: Sequence[Span], before: tuple[int, ...], logs: Sequence[int], done: Round
    ) -> None:
        """spans: in which the load flowed."""
        now = [after - earlier for after, earlier in zip(self._counts(), before, strict=True)]
        done.stored, done.reconnects, done.provisional, done.returned = now
        acks = [at for writer in self._writers for at in writer.acks]
        heard = [at for each in self._witnesses for at in each.heard]
        done.unstored_s = max(longest_pause(acks, *span) for span in spans)
        done.silence_s = max(longest_pause(heard, *span) for span in spans)
        said = Counter(
            line["msg"]
            for member, first in zip(self.cluster.nodes, logs, strict=True)
            for line in member.server.logs(first)
            if line["level"] == "warning"
        )
        done.loudest = said.most_common(1)[0] if said else ("", 0)


def _worst(times: dict[str, float], dependency: str, took: float) -> None:
    times[dependency] = max(times.get(dependency, 0.0), took)


@asynccontextmanager
async def under_load(cluster: Cluster, seed: int) -> AsyncIterator[Chaos]:
    """People in two rooms, with sockets through the balancer, and a call of some of them; the load waits for
    the first fault."""
    gate = Gate()
    names = [f"p{number}" for number in range(PEOPLE)]
    async with people(cluster.url, *names) as clients, AsyncExitStack() as stack:
        rooms = [await group(clients[0], *clients[1:], title=f"room {number}") for number in range(ROOMS)]
        ask = {"question": "When?", "options": ["now", "later", "never"]}
        polls = [await clients[0].create("/v1/polls", ask | {"conversation_id": room}) for room in rooms]
        _, heads = await verdict.stored(cluster, rooms)
        nursery = await stack.enter_async_context(trio.open_nursery())
        writers: list[Writer] = []
        witnesses: list[Witness] = []
        for number, (client, name) in enumerate(zip(clients, names, strict=True)):
            stream = await stack.enter_async_context(client.stream())
            user = client.me.user_id
            others = [each.me.user_id for each in clients if each is not client]
            writers.append(
                Writer(name, user, stream, rooms, others, random.Random(seed * 100 + number), gate)
            )
            witnesses.append(Witness(name, user, stream, heads))
            nursery.start_soon(witnesses[-1].follow)
            nursery.start_soon(writers[-1].write)
        await until(lambda: all(writer.stream.is_online for writer in writers))
        said = [await _said(writers[0], room) for room in rooms]
        doers = [
            Deeds(client, writer.stream, polls, said, random.Random(seed * 200 + number), gate)
            for number, (client, writer) in enumerate(zip(clients, writers, strict=True))
        ]
        for doer in doers:
            nursery.start_soon(doer.go_on)
        speakers = await stack.enter_async_context(across(cluster, clients, seed, gate))
        yield Chaos(cluster, clients, writers, witnesses, doers, speakers, seed)
        nursery.cancel_scope.cancel()


async def _said(writer: Writer, room: str) -> str:
    """The id of a message that stays as it is."""
    one = writer.post(room)
    one.sure = False
    return str((await writer.stream.stored(one.entry))["message_id"])
