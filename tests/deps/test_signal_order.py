"""What comes by two ways, in any order and in part, is told once and in the order it was sent."""

from __future__ import annotations

import random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from kit.scrape import value
from secureconnect.deps.signal_order import HELD, OBJECT_BYTES, PARCEL, SENDERS, Kept, Others, Signal
from secureconnect.errors import Overloaded
from secureconnect.identity import new_id_at

OWN, LATER, EARLIER = new_id_at(2_000_000), new_id_at(3_000_000), new_id_at(1_000_000)
BEGAN_US = 2_000_000


def signals(*numbers: int, sent_us: int = BEGAN_US) -> list[Signal]:
    return [Signal(number, "a", b"%d" % number, sent_us) for number in numbers]


class Told:
    """numbers: told so far."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.others = Others(OWN, BEGAN_US, lambda signal: self.numbers.append(signal.number))


async def test_what_is_missing_is_waited_for_and_then_given_up(autojump_clock: MockClock) -> None:
    told = Told()
    assert told.others.hear(LATER, signals(1, 2))
    assert not told.others.hear(LATER, signals(4, 5))
    assert told.numbers == [1, 2]
    told.others.read(LATER, signals(3))
    assert told.numbers == [1, 2, 3, 4, 5]
    assert not told.others.hear(LATER, signals(7, 9))
    missed_at, lost = trio.current_time(), value("secureconnect_signals_lost_total")
    await trio.sleep(1)
    told.others.give_up(missed_at - 0.5)
    assert told.numbers[5:] == []
    told.others.give_up(missed_at)
    assert told.numbers[5:] == [7, 9]
    assert value("secureconnect_signals_lost_total") == lost + 2
    assert told.others.hear(LATER, signals(6, 8, 9, 10)), "too late, or twice"
    assert told.numbers[5:] == [7, 9, 10]


async def test_what_the_table_leaves_out_never_comes() -> None:
    told = Told()
    told.others.hear(LATER, signals(1))
    told.others.hear(LATER, signals(4, 9))
    told.others.read(LATER, signals(6, 7))
    assert told.numbers == [1, 4, 6, 7]
    told.others.read(LATER, signals(8))
    assert told.numbers == [1, 4, 6, 7, 8, 9]


async def test_where_a_sender_is_taken_up() -> None:
    """One that was there before: with what comes first, but for what was written before our own start."""
    told = Told()
    assert told.others.hear(EARLIER, signals(100))
    assert not told.others.hear(LATER, signals(2)), "its first is missing"
    other = Told()
    other.others.read(EARLIER, [*signals(1, 2, sent_us=BEGAN_US - 1), *signals(3)])
    other.others.read(LATER, signals(5, sent_us=BEGAN_US - 1))
    assert other.numbers == [3]
    assert other.others.next_of(EARLIER) == 4


async def test_what_is_held_and_remembered_is_bounded() -> None:
    told = Told()
    for number in range(2, HELD + 3):
        told.others.hear(LATER, signals(number))
    assert told.numbers == list(range(2, HELD + 3))
    for number in range(SENDERS):
        told.others.hear(new_id_at(number), signals(1))
    assert told.others.next_of(LATER) == 1


@given(st.integers(1, 40), st.integers(), st.floats(0, 0.6))
def test_two_ways_that_overlap(count: int, seed: int, loss: float) -> None:
    """The bus loses what it likes; from the first loss on, or a little before, all is written too. What is
    not was sent so long ago that the bus has brought it."""
    chance = random.Random(seed)
    lost = [number for number in range(1, count + 1) if chance.random() < loss]
    first_written = chance.randint(1, lost[0]) if lost else count + 1

    async def run() -> None:
        told = Told()
        heard, written = 0, first_written - 1
        while heard < count or told.others.next_of(LATER) <= count:
            if heard < count and chance.random() < 0.7:
                heard += 1
                if heard not in lost:
                    told.others.hear(LATER, signals(heard))
            elif heard >= first_written - 1:
                written = chance.randint(written, count)
                first = max(told.others.next_of(LATER), first_written)
                if written >= first:
                    told.others.read(LATER, signals(*range(first, written + 1)))
        assert told.numbers == list(range(1, count + 1))

    trio.run(run)


# one's own


async def test_kept_for_so_long_and_handed_out_in_parcels(autojump_clock: MockClock) -> None:
    kept = Kept(10, 1_000_000)
    for number in range(PARCEL + 5):
        kept.add("a", b"%d" % number, 0, gone=0)
    first = kept.after(0)
    assert [each.number for each in first] == list(range(1, PARCEL + 1))
    assert [each.number for each in kept.after(PARCEL)] == list(range(PARCEL + 1, PARCEL + 6))
    await trio.sleep(9)
    kept.add("a", b"later", 0, gone=0)
    await trio.sleep(1)
    assert [each.payload for each in kept.after(0)] == [b"later"]
    await trio.sleep(9)
    assert kept.after(0) == []
    assert kept.last == PARCEL + 6


async def test_what_has_gone_makes_room_and_what_waits_does_not() -> None:
    kept = Kept(10, 3 * (OBJECT_BYTES + 100))
    for _ in range(3):
        kept.add("a", b"x" * 100, 0, gone=0)
    with pytest.raises(Overloaded):
        kept.add("a", b"", 0, gone=0)
    kept.add("a", b"x" * 100, 0, gone=1)
    assert [each.number for each in kept.after(0)] == [2, 3, 4]
