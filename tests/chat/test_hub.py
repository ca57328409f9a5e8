"""The hub alone: what reaches a socket, in memory."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from secureconnect.chat.connection import HELD_BYTES, Connection
from secureconnect.chat.hub import CROWD, CROWDS_KEPT, About, Behind, Hub
from secureconnect.chat.live import RUN, Live, runs_of
from secureconnect.edge import Close, Frame
from secureconnect.identity import ConversationId, UserId, new_id
from secureconnect.metrics import REGISTRY

from .rig import MemorySocket, principal_of

WHERE = ConversationId(new_id())
ANN, BOB = UserId(new_id()), UserId(new_id())
MANY = CROWD + 4


def live(kind: str, change: int, user: UserId | None = None, data: bytes = b"{}") -> Live:
    frame = Frame(b'{"type": "%s", "change": %d, "data": %s}' % (kind.encode(), change, data))
    return Live(kind, WHERE, change, None, user, 1 if kind == "user_joined" else None, frame)


def connect(hub: Hub, user: UserId, only: ConversationId | None = None) -> tuple[MemorySocket, Connection]:
    socket = MemorySocket(principal_of(user))
    connection = Connection(socket, only, 1_000)
    hub.attach(connection)
    return socket, connection


def changes(socket: MemorySocket) -> list[int]:
    return [frame["change"] for frame in socket.seen]


def hub_of(*viewers: UserId) -> Hub:
    """One that stands at change 1 of the conversation."""
    hub = Hub(16)
    hub.fill(WHERE, 1, dict.fromkeys(viewers, 1), [], Behind(None, None))
    return hub


def repair(hub: Hub, lives: list[Live], *viewers: UserId) -> None:
    """What catch-up does, with what stands in the table."""
    taken = hub.take_behind()
    assert taken is not None
    hub.fill(WHERE, hub.change_of(WHERE) or 1, dict.fromkeys(viewers, 1), lives, taken[1])


def said(number: int) -> Live:
    """A message whose seq is its change."""
    return live("chat", number)._replace(seq=number)


def test_messages_that_follow_one_another_are_told_together_and_nothing_else_is() -> None:
    elsewhere = live("chat", 7)._replace(conversation_id=ConversationId(new_id()))
    traced = said(8)._replace(trace="00-1-1-01")
    given = [said(2), elsewhere, said(3), said(5), live("title", 6), said(7), traced, said(9)]
    runs = [list(run) for run in runs_of(given)]
    mine = [[each.change for each in run] for run in runs if run[0].conversation_id == WHERE]
    assert mine == [[2, 3], [5], [6], [7], [8], [9]]
    assert [elsewhere] in runs
    assert [len(run) for run in runs_of(said(number) for number in range(1, 2 * RUN + 2))] == [RUN, RUN, 1]


def test_a_run_is_told_as_its_messages_would_be_one_by_one() -> None:
    hub = Hub(16)
    hub.fill(WHERE, 1, {ANN: 1, BOB: 3}, [], Behind(None, None))
    whole, _ = connect(hub, ANN)
    alone, _ = connect(hub, ANN, WHERE)
    other, _ = connect(hub, ANN, ConversationId(new_id()))
    later, _ = connect(hub, BOB)
    held, connection = connect(hub, ANN)
    connection.hold()
    replayed, released = connect(hub, ANN)
    released.hold()
    released.release({WHERE: 2})
    narrow, _ = connect(hub, ANN)
    narrow.room = 1
    hub.deliver_run([said(2), said(3), said(4)])
    assert changes(whole) == changes(alone) == [2, 3, 4]
    assert changes(other) == []
    assert changes(later) == [3, 4], "of what was said before they may see it, nothing"
    assert changes(replayed) == [3, 4], "what replay has told is not told again"
    assert (changes(narrow), narrow.code) == ([2], Close.TOO_SLOW)
    connection.release({})
    assert changes(held) == [2, 3, 4]
    hub.deliver_run([said(5), said(6)])
    assert changes(whole) == [2, 3, 4, 5, 6]
    hub.deliver_run([said(8), said(9)])
    assert changes(whole)[-1] == 6, "what lies between is read first"


def crowd() -> tuple[Hub, list[tuple[MemorySocket, Connection]]]:
    """A hub at change 2 of a conversation of many, whose hearers are remembered; all are connected."""
    people = [UserId(new_id()) for _ in range(MANY)]
    hub = hub_of(*people)
    sockets = [connect(hub, each) for each in people]
    hub.deliver(said(2))
    return hub, sockets


def deliveries() -> float:
    return REGISTRY.get_sample_value("secureconnect_chat_deliveries_total") or 0


def heard(sockets: list[tuple[MemorySocket, Connection]], change: int) -> list[int]:
    """The places of those who got it."""
    return [place for place, (socket, _) in enumerate(sockets) if change in changes(socket)]


def test_one_of_a_crowd_who_is_told_the_past_hears_nothing_of_what_was_said_before_them() -> None:
    hub, sockets = crowd()
    connection = sockets[4][1]
    visible_from = {each.user_id: 9 if each is connection else 1 for _, each in sockets}
    hub.fill(WHERE, 3, visible_from, [], Behind(None, None))
    told = deliveries()
    connection.hold()
    hub.deliver(live("edited", 4)._replace(seq=3))
    connection.release({})
    assert heard(sockets, 4) == [place for place in range(MANY) if place != 4]
    assert deliveries() == told + MANY - 1


def test_one_of_a_crowd_who_has_to_be_asked_and_cannot_take_it_is_dropped() -> None:
    hub, sockets = crowd()
    socket, connection = sockets[4]
    connection.hold()
    connection.release({ConversationId(new_id()): 7})
    socket.room = 0
    hub.deliver(said(3))
    assert not hub.is_connected(connection.user_id)


def test_whoever_joins_or_leaves_a_crowd_is_told_so_and_from_then_on_or_no_more() -> None:
    hub, sockets = crowd()
    everybody = [*range(MANY)]
    leaver = sockets[3][1].user_id
    sockets.append(connect(hub, BOB))
    sockets.append(connect(hub, leaver, WHERE))
    hub.deliver(said(3))
    assert heard(sockets, 3) == [*everybody, MANY + 1]
    hub.deliver(live("user_joined", 4, BOB)._replace(visible_from_seq=5))
    hub.deliver(said(5))
    assert heard(sockets, 4) == heard(sockets, 5) == [*everybody, MANY, MANY + 1]
    hub.deliver(live("edited", 6)._replace(seq=4))
    assert heard(sockets, 6) == [*everybody, MANY + 1], "of what was said before they may see it, nothing"
    hub.deliver(live("user_left", 7, leaver))
    assert sockets[-1][0].code == Close.NOT_FOUND
    hub.deliver(said(8))
    assert heard(sockets, 7) == [*everybody, MANY, MANY + 1]
    assert heard(sockets, 8) == [each for each in [*everybody, MANY] if each != 3]
    hub.deliver(live("conversation_deleted", 9))
    hub.deliver(said(10))
    assert heard(sockets, 10) == []


def test_sockets_that_come_and_go_hear_a_crowds_conversation_while_they_are_there() -> None:
    hub, sockets = crowd()
    someone = sockets[0][1].user_id
    sockets.append(connect(hub, someone))
    sockets.append(connect(hub, someone, WHERE))
    sockets.append(connect(hub, someone, ConversationId(new_id())))
    hub.deliver(said(3))
    assert heard(sockets, 3) == [*range(MANY + 2)]
    hub.detach(sockets[1][1])
    hub.deliver(said(4))
    assert heard(sockets, 4) == [0, *range(2, MANY + 2)]
    sockets[2][0].close(Close.NORMAL, "")  # its task has yet to hear of it
    sockets[5][0].room = 0
    hub.deliver_run([said(5), said(6)])
    hub.deliver(said(7))
    others = [each for each in range(MANY + 2) if each not in (1, 2, 5)]
    assert heard(sockets, 5) == heard(sockets, 6) == heard(sockets, 7) == others
    assert sockets[5][0].code == Close.TOO_SLOW
    assert not hub.is_connected(sockets[5][1].user_id), "who could not take it comes back and resumes"


def test_a_socket_of_a_crowd_that_is_told_the_past_hears_of_the_present_after_that() -> None:
    hub, sockets = crowd()
    socket, connection = sockets[4]
    connection.hold()
    hub.deliver(said(3))
    assert changes(socket) == [2]
    connection.release({WHERE: 4})
    hub.deliver(said(4))
    assert changes(socket) == [2], "what replay has told is not told again"
    hub.deliver_run([said(5), said(6)])
    assert changes(socket) == [2, 5, 6]
    connection.hold()
    hub.deliver(said(7))
    connection.serve({})
    hub.deliver(said(8))
    assert changes(socket) == [2, 5, 6]
    connection.hold()
    connection.release({})
    hub.deliver(said(9))
    assert changes(socket) == [2, 5, 6, 9]
    assert all(changes(each)[-3:] == [7, 8, 9] for each, other in sockets if other is not connection)


def test_members_of_a_crowd_who_are_read_anew_are_the_ones_who_hear() -> None:
    hub, sockets = crowd()
    stays = [connection.user_id for _, connection in sockets[1:]]
    hub.deliver(live("title", 5))
    taken = hub.take_behind()
    assert taken is not None
    hub.fill(WHERE, 5, dict.fromkeys(stays, 1), [], taken[1])
    hub.deliver(said(6))
    assert heard(sockets, 6) == [*range(1, MANY)]


def test_only_who_was_there_hears_what_was_heard_of_before() -> None:
    hub, sockets = crowd()
    hub.deliver(live("title", 4))
    sockets.append(connect(hub, sockets[0][1].user_id))
    repair(hub, [live("title", 3), live("title", 4)])
    hub.deliver(said(5))
    assert heard(sockets, 3) == heard(sockets, 4) == [*range(MANY)]
    assert heard(sockets, 5) == [*range(MANY + 1)]


def test_crowds_are_remembered_up_to_a_number_and_while_their_sockets_and_conversations_are_there() -> None:
    hub = Hub(CROWDS_KEPT + 8)
    people = [UserId(new_id()) for _ in range(CROWD)]
    sockets = [connect(hub, each) for each in people]

    def fill() -> ConversationId:
        name = ConversationId(new_id())
        hub.fill(name, 1, dict.fromkeys(people, 1), [], Behind(None, None))
        return name

    for _ in range(CROWDS_KEPT + 8):
        hub.deliver(said(2)._replace(conversation_id=fill()))
        assert 0 < len(hub._hearers) <= CROWDS_KEPT
    assert all(len(socket.seen) == CROWDS_KEPT + 8 for socket, _ in sockets)
    for _ in range(CROWDS_KEPT):
        fill()
    assert 0 < len(hub._hearers) <= 8
    hub.detach(sockets[0][1])
    assert not hub._hearers


class Model:
    """What a crowd of sockets is to hear of one conversation, however many of them are asked together."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.change = self.seq = 1
        self.members = {UserId(new_id()): 1 for _ in range(MANY)}
        self.hub = hub_of(*self.members)
        self.sockets: list[tuple[MemorySocket, Connection]] = []
        self.due: dict[Connection, list[int]] = defaultdict(list)
        self.kept: dict[Connection, list[int]] = {}
        for _ in range(2 * MANY):
            self.opens()

    def tell(self, kind: str, seq: int | None = None, user: UserId | None = None, count: int = 1) -> None:
        told = []
        for number in range(count):
            self.change += 1
            at = None if seq is None else seq + number
            told.append(live(kind, self.change, user)._replace(seq=at, visible_from_seq=self.seq + 1))
        for _, connection in list(self.sockets):
            visible_from = self.members.get(connection.user_id)
            if visible_from is not None and connection.only in (None, WHERE):
                seen = [each.change for each in told if each.seq is None or each.seq >= visible_from]
                self.kept.get(connection, self.due[connection]).extend(seen)
        self.hub.deliver_run(told)

    def says(self) -> None:
        count = self.chance.choice((1, 1, 1, 3))
        self.seq += count
        self.tell("chat", self.seq - count + 1, count=count)

    def edits(self) -> None:
        self.tell("edited", self.chance.randint(1, self.seq))

    def joins(self) -> None:
        user = UserId(new_id())
        self.members[user] = self.seq + 1
        self.tell("user_joined", user=user)

    def leaves(self) -> None:
        if len(self.members) > CROWD:
            user = self.chance.choice([*self.members])
            self.tell("user_left", user=user)
            del self.members[user]
            for socket, connection in [each for each in self.sockets if each[1].user_id == user]:
                if connection not in self.kept:
                    assert (socket.code == Close.NOT_FOUND) == (connection.only == WHERE)
                if connection.only == WHERE:
                    self.closes((socket, connection))

    def opens(self) -> None:
        user = self.chance.choice([*self.members])
        only = self.chance.choice((None, None, WHERE, ConversationId(new_id())))
        self.sockets.append(connect(self.hub, user, only))

    def closes(self, which: tuple[MemorySocket, Connection] | None = None) -> None:
        if which is not None or len(self.sockets) > CROWD:
            socket, connection = which or self.chance.choice(self.sockets)
            self.hub.detach(connection)
            self.sockets.remove((socket, connection))
            self.kept.pop(connection, None)
            assert changes(socket) == self.due[connection]

    def holds(self) -> None:
        _, connection = self.chance.choice(self.sockets)
        if connection not in self.kept:
            connection.hold()
            self.kept[connection] = []

    def releases(self) -> None:
        if self.kept:
            connection = self.chance.choice([*self.kept])
            # so much was replayed, and what was kept of it is not told
            told = self.change - self.chance.randint(0, 3)
            self.due[connection] += [each for each in self.kept.pop(connection) if each > told]
            connection.release({WHERE: told})


@pytest.mark.parametrize("seed", range(12))
def test_a_crowd_hears_what_each_of_it_would_hear_alone(seed: int) -> None:
    chance = random.Random(seed)
    model = Model(chance)
    steps: list[Callable[[], None]] = [model.joins, model.leaves, model.opens, model.closes]
    steps += [model.holds, model.releases, model.edits, model.says, model.says, model.says, model.says]
    for _ in range(400):
        chance.choice(steps)()
        for socket, connection in model.sockets:
            assert changes(socket) == model.due[connection]


async def test_nothing_is_known_for_certain_while_it_is_read() -> None:
    hub = hub_of(ANN)
    hub.confirm(trio.current_time())
    assert hub.known(WHERE, ANN, 1) is not None
    hub.deliver(live("title", 3))
    assert hub.known(WHERE, ANN, 1) is None
    taken = hub.take_behind()
    assert taken is not None
    assert hub.known(WHERE, ANN, 1) is None, "it is not noted any more, and not told yet"
    hub.fill(WHERE, 1, {ANN: 1}, [live("title", 2)], taken[1])
    assert hub.known(WHERE, ANN, 1) is None
    hub.fill(WHERE, 1, {ANN: 1}, [live("title", 3)], taken[1])
    assert hub.known(WHERE, ANN, 1) is not None
    assert hub.known(WHERE, BOB, 1) is None


async def test_what_became_of_an_accepted_message_is_never_held() -> None:
    hub = hub_of(ANN)
    socket, connection = connect(hub, ANN)
    connection.hold()
    hub.tell_user(ANN, live("settled", 0))
    hub.deliver(live("message_withdrawn", 0))
    hub.deliver(live("title", 2))
    assert [frame["type"] for frame in socket.seen] == ["settled", "message_withdrawn"]


async def test_what_is_heard_with_no_place_to_note_it_counts_too() -> None:
    hub = Hub(1)
    hub.fill(WHERE, 1, {ANN: 1}, [], Behind(None, None))
    hub.confirm(trio.current_time())
    hub.fall_behind(ConversationId(new_id()), None)
    hub.deliver(live("title", 3))
    assert hub.known(WHERE, ANN, 1) is None


def test_leaving_ends_a_socket_for_that_conversation() -> None:
    hub = hub_of(ANN, BOB)
    whole, _ = connect(hub, BOB)
    alone, _ = connect(hub, BOB, WHERE)
    hub.deliver(live("user_left", 2, BOB))
    hub.deliver(live("title", 3))
    assert (changes(whole), whole.code) == ([2], None)
    assert (changes(alone), alone.code) == ([2], Close.NOT_FOUND)


def test_an_earlier_leaving_does_not_end_a_socket_opened_since() -> None:
    """Removed, added again, and only then the socket opened: this node reads of all that late."""
    hub = hub_of(ANN, BOB)
    there, _ = connect(hub, ANN)
    hub.deliver(live("user_joined", 4, BOB))
    alone, _ = connect(hub, BOB, WHERE)
    whole, _ = connect(hub, BOB)
    told = [live("title", 2), live("user_left", 3, BOB), live("user_joined", 4, BOB)]
    repair(hub, told, ANN, BOB)
    hub.deliver(live("title", 5))
    assert changes(there) == [2, 3, 4, 5]
    assert (changes(alone), alone.code) == ([5], None)
    assert changes(whole) == [5]


def test_an_earlier_leaving_does_not_end_a_socket_that_got_it_by_replay() -> None:
    hub = hub_of(ANN, BOB)
    alone, connection = connect(hub, BOB, WHERE)
    connection.hold()
    connection.release({WHERE: 3})
    hub.deliver(live("user_left", 2, BOB))
    hub.deliver(live("user_joined", 3, BOB))
    hub.deliver(live("title", 4))
    assert (changes(alone), alone.code) == ([4], None)


def test_whoever_left_hears_so_though_the_members_were_read_later() -> None:
    hub = Hub(16)
    socket, _ = connect(hub, BOB)
    hub.deliver(live("user_left", 2, BOB))
    repair(hub, [live("user_left", 2, BOB)], ANN)
    hub.deliver(live("title", 3))
    assert changes(socket) == [2]


def test_members_are_read_anew_where_retention_took_what_changed_them() -> None:
    hub = hub_of(ANN)
    socket, _ = connect(hub, BOB)
    hub.deliver(live("title", 9))
    taken = hub.take_behind()
    assert taken is not None
    hub.fill(WHERE, 8, {ANN: 1, BOB: 1}, [live("title", 9)], taken[1])
    hub.deliver(live("title", 10))
    assert changes(socket)[-1:] == [10]


def test_what_is_held_fits_an_outbox() -> None:
    """Bounded in bytes, too: a few large messages must not end the socket that is about to join."""
    hub = hub_of(ANN)
    _, connection = connect(hub, ANN)
    connection.hold()
    large = b'"%s"' % (b"x" * (HELD_BYTES // 4))
    for change in range(2, 5):
        hub.deliver(live("chat", change, data=large))
    assert not connection.overflowed
    hub.deliver(live("chat", 5, data=large))
    assert connection.overflowed


# what is trusted while the database is away


def known(*, direct: bool = False, e2ee: bool = False, clear: bool = True) -> Hub:
    hub = Hub(16)
    hub.fill(WHERE, 1, {ANN: 1, BOB: 1}, [], Behind(None, None), About(direct, e2ee, clear))
    hub.confirm(trio.current_time())
    return hub


def is_trusted(hub: Hub, user: UserId = ANN) -> bool:
    return hub.trusted(WHERE, user, 600) is not None


async def test_trust_is_what_was_known_when_the_database_went_away(autojump_clock: MockClock) -> None:
    hub = known()
    await trio.sleep(599)
    assert is_trusted(hub)
    hub.lose_sight()
    await trio.sleep(10_000)
    hub.lose_sight()
    assert is_trusted(hub), "the outage began when it was first seen"
    assert not is_trusted(hub, UserId(new_id()))


async def test_what_was_read_too_long_before_is_not_trusted(autojump_clock: MockClock) -> None:
    hub = known()
    await trio.sleep(601)
    hub.lose_sight()
    assert not is_trusted(hub)
    hub.confirm(trio.current_time())
    assert is_trusted(hub)


async def test_what_is_not_read_or_behind_is_not_trusted() -> None:
    hub = Hub(16)
    hub.confirm(trio.current_time())
    assert not is_trusted(hub), "nothing is known"
    hub.set_out([(WHERE, 1, 0)])
    assert not is_trusted(hub), "its members are not"
    hub = known()
    hub.deliver(live("chat", 5))
    assert not is_trusted(hub), "something was missed"
    repair(hub, [live("title", change) for change in (2, 3, 4, 5)], ANN, BOB)
    assert is_trusted(hub)
    hub.deliver(live("user_left", 6, BOB))
    assert (is_trusted(hub), is_trusted(hub, BOB)) == (True, False)


async def test_blocks_of_direct_conversations_grow_old(autojump_clock: MockClock) -> None:
    hub = known(direct=True)
    connect(hub, ANN)
    start = trio.current_time()
    await trio.sleep(400)
    hub.confirm(trio.current_time())
    await trio.sleep(300)
    assert not is_trusted(hub)
    assert hub.unclear(trio.current_time() - 100, 10) == [(WHERE, ANN, BOB)]
    hub.looked(WHERE, True, trio.current_time())
    assert is_trusted(hub)
    assert hub.unclear(start, 10) == []
    await trio.sleep(250)
    hub.deliver(live("chat", 2))
    hub.confirm(trio.current_time())
    await trio.sleep(500)
    assert is_trusted(hub), "a message that was stored says that there is no block"
    hub.looked(WHERE, False, trio.current_time())
    assert not is_trusted(hub)


async def test_a_blocked_pair_is_not_trusted() -> None:
    assert not is_trusted(known(direct=True, clear=False))
    assert is_trusted(known(direct=False, clear=False))


async def test_encryption_switched_on_is_known_at_once() -> None:
    hub = known()
    for change, told in ((2, True), (3, False)):
        hub.deliver(live("conversation_updated", change)._replace(is_e2ee=told))
        view = hub.trusted(WHERE, ANN, 600)
        assert view is not None
        assert view.is_e2ee is True, "and never goes off again"


def test_a_provisional_message_waits_for_nobody() -> None:
    hub = hub_of(ANN, BOB)
    socket, connection = connect(hub, BOB)
    provisional = live("provisional", 0)
    hub.deliver(provisional)
    assert len(socket.seen) == 1
    connection.hold()
    hub.deliver(provisional)
    connection.release({})
    assert len(socket.seen) == 1, "not after a replay"
    hub.deliver(provisional._replace(conversation_id=ConversationId(new_id())))
    assert hub.take_behind() is None, "nor once its members are read"
