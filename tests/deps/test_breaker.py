"""The breaker: every event in every state, and long random histories against a model of plain words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from secureconnect.deps.breaker import Breaker, Change, Generation, Limits

LIMITS = Limits(probes=2, failures=3, trials=2)


@dataclass
class Bench:
    """A breaker on a clock that ticks by hand, brought to where a case wants it."""

    now: float = 100.0
    changes: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.breaker = Breaker(LIMITS, lambda: self.now, self.changes.append)

    def opened(self) -> Bench:
        self.breaker.probe_failed("unreachable", decides=True)
        self.changes.clear()
        return self

    def half_opened(self) -> Bench:
        self.opened().breaker.probe_succeeded()
        self.changes.clear()
        return self

    def let_through(self) -> Generation:
        generation = self.breaker.admit()
        assert generation is not None
        return generation

    def call_fails(self) -> None:
        self.breaker.failed(self.let_through(), "timeout")

    def call_succeeds(self) -> None:
        self.breaker.succeeded(self.let_through())

    def call_passes(self) -> None:
        self.breaker.passed(self.let_through())


def closed() -> Bench:
    return Bench()


def closed_after_failed_probe() -> Bench:
    bench = Bench()
    bench.breaker.probe_failed("timeout")
    return bench


def closed_after_failed_calls() -> Bench:
    bench = Bench()
    bench.call_fails()
    bench.call_fails()
    return bench


def opened() -> Bench:
    return Bench().opened()


def half_open() -> Bench:
    return Bench().half_opened()


def half_open_after_good_probe() -> Bench:
    bench = Bench().half_opened()
    bench.breaker.probe_succeeded()
    return bench


def is_refused(bench: Bench) -> None:
    assert bench.breaker.admit() is None


def good_probe(bench: Bench) -> None:
    bench.breaker.probe_succeeded()


def bad_probe(bench: Bench) -> None:
    bench.breaker.probe_failed("timeout")


def first_probe_fails(bench: Bench) -> None:
    bench.breaker.probe_failed("timeout", decides=True)


# every event in every state: what the state is then
EVERY: dict[Callable[[], Bench], dict[Callable[[Bench], None], str]] = {
    closed: {
        Bench.call_succeeds: "closed",
        Bench.call_fails: "closed",
        Bench.call_passes: "closed",
        good_probe: "closed",
        bad_probe: "closed",
        first_probe_fails: "open",
    },
    closed_after_failed_probe: {
        Bench.call_succeeds: "closed",
        Bench.call_fails: "closed",
        Bench.call_passes: "closed",
        good_probe: "closed",
        bad_probe: "open",
        first_probe_fails: "open",
    },
    closed_after_failed_calls: {
        Bench.call_succeeds: "closed",
        Bench.call_fails: "open",
        Bench.call_passes: "closed",
        good_probe: "closed",
        bad_probe: "closed",
        first_probe_fails: "open",
    },
    opened: {
        is_refused: "open",
        good_probe: "half_open",
        bad_probe: "open",
        first_probe_fails: "open",
    },
    half_open: {
        Bench.call_succeeds: "closed",
        Bench.call_fails: "open",
        Bench.call_passes: "half_open",
        good_probe: "half_open",
        bad_probe: "open",
        first_probe_fails: "open",
    },
    half_open_after_good_probe: {
        Bench.call_succeeds: "closed",
        Bench.call_fails: "open",
        Bench.call_passes: "half_open",
        good_probe: "closed",
        bad_probe: "open",
        first_probe_fails: "open",
    },
}


@pytest.mark.parametrize(
    ("begin", "event", "then"),
    [(begin, event, then) for begin, events in EVERY.items() for event, then in events.items()],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_every_event_in_every_state(
    begin: Callable[[], Bench], event: Callable[[Bench], None], then: str
) -> None:
    bench = begin()
    before = bench.breaker.state
    bench.now = 200.0
    event(bench)
    assert bench.breaker.state == then
    noted = [(each.old, each.new, each.at) for each in bench.changes]
    assert noted == ([(before, then, 200.0)] if then != before else [])


def test_a_good_call_forgets_the_failed_ones_before() -> None:
    bench = closed_after_failed_calls()
    bench.call_succeeds()
    bench.call_fails()
    bench.call_fails()
    assert bench.breaker.state == "closed"
    bench.call_fails()
    assert bench.changes == [Change("closed", "open", "timeout", 100.0)]


def test_calls_do_not_make_up_for_failed_probes_nor_probes_for_failed_calls() -> None:
    bench = closed_after_failed_probe()
    bench.call_succeeds()
    bench.breaker.probe_failed("unreachable")
    assert bench.breaker.state == "open"
    bench = closed_after_failed_calls()
    bench.breaker.probe_succeeded()
    bench.call_fails()
    assert bench.breaker.state == "open"


def test_half_open_takes_so_many_trials_at_a_time() -> None:
    bench = half_open()
    first, second = bench.let_through(), bench.let_through()
    assert bench.breaker.admit() is None
    bench.breaker.passed(first)
    third = bench.let_through()
    assert bench.breaker.admit() is None
    bench.breaker.succeeded(second)
    assert bench.breaker.state == "closed"
    bench.breaker.failed(third, "timeout")  # it was let through before
    for _ in range(LIMITS.failures - 1):
        bench.call_fails()
    assert bench.breaker.state == "closed"


@pytest.mark.parametrize("end", ["succeeded", "failed", "passed"])
def test_late_results_of_an_earlier_state_do_not_count(end: str) -> None:
    bench = closed()
    late = [bench.let_through() for _ in range(10)]
    bench.half_opened()
    for generation in late:
        if end == "failed":
            bench.breaker.failed(generation, "timeout")
        else:
            getattr(bench.breaker, end)(generation)
    assert bench.breaker.state == "half_open"
    assert not bench.changes
    assert [bench.breaker.admit() is None for _ in range(3)] == [False, False, True]


def test_the_callback_finds_the_change_made() -> None:
    seen: list[str] = []
    breaker = Breaker(LIMITS, lambda: 0.0, lambda _: seen.append(breaker.state))
    breaker.probe_failed("timeout", decides=True)
    breaker.probe_succeeded()
    breaker.succeeded(breaker.admit() or Generation(-1))
    assert seen == ["open", "half_open", "closed"]


class Model(RuleBasedStateMachine):
    """The same in plain words: what happened since the last change is kept as it happened."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.state = "closed"
        self.spell = 0  # counts the changes
        self.ends: list[str] = []  # of calls of this spell
        self.seen: list[bool] = []  # its probes
        self.under_way = 0  # calls of this spell

    def turn(self, state: str) -> None:
        self.state, self.spell = state, self.spell + 1
        self.ends, self.seen, self.under_way = [], [], 0

    @rule(target=calls)
    def admit(self) -> tuple[Generation | None, int]:
        generation = self.bench.breaker.admit()
        allowed = {"closed": True, "open": False, "half_open": self.under_way < LIMITS.trials}[self.state]
        assert (generation is not None) == allowed
        self.under_way += allowed
        return generation, self.spell

    @rule(call=consumes(calls), end=st.sampled_from(["succeeded", "failed", "passed"]))
    def end(self, call: tuple[Generation | None, int], end: str) -> None:
        generation, spell = call
        if generation is None:
            return
        if end == "failed":
            self.bench.breaker.failed(generation, "timeout")
        else:
            getattr(self.bench.breaker, end)(generation)
        if spell != self.spell:
            return
        self.under_way -= 1
        if end == "passed":
            return
        self.ends.append(end)
        in_a_row = self.ends[-LIMITS.failures :] == ["failed"] * LIMITS.failures
        if self.state == "half_open":
            self.turn("closed" if end == "succeeded" else "open")
        elif in_a_row:
            self.turn("open")

    @rule(good=st.booleans())
    def probe(self, good: bool) -> None:
        if good:
            self.bench.breaker.probe_succeeded()
        else:
            self.bench.breaker.probe_failed("unreachable")
        self.seen.append(good)
        alike = self.seen[-LIMITS.probes :] == [good] * LIMITS.probes
        if self.state == "open":
            if good:
                self.turn("half_open")
        elif self.state == "half_open":
            if not good:
                self.turn("open")
            elif alike:
                self.turn("closed")
        elif not good and alike:
            self.turn("open")

    @invariant()
    def agrees(self) -> None:
        assert self.bench.breaker.state == self.state
        assert len(self.bench.changes) == self.spell
        chain = ["closed", *(each.new for each in self.bench.changes)]
        assert [each.old for each in self.bench.changes] == chain[:-1]


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
