"""A circuit breaker: whether a dependency may be called, judged by probes and by the calls themselves.

A pure state machine: it does no I/O, awaits nothing, and is told the time by its clock.

closed: calls pass. `probes` failed probes in a row, or `failures` failed calls in a row, open it.
open: no call passes. The first good probe half-opens it.
half-open: `trials` calls at a time may try. One that succeeds closes it, one that fails opens it again; so do
    `probes` further good probes (nobody may be calling), and one failed probe.

Every change begins a new generation. A result counts in the generation its call was let through in and in no
other: a call that was sent to a server which has died since says nothing of the one that came back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NewType

import msgspec

from .contracts import Breaker as State

Reason = Literal["unreachable", "timeout", "outcome_unknown", "unexpected", "answers"]
Generation = NewType("Generation", int)


class Limits(msgspec.Struct, frozen=True):
    """probes, failures: in a row.  trials: calls under way at a time while half-open."""

    probes: int = 2
    failures: int = 5
    trials: int = 3


class Change(msgspec.Struct, frozen=True):
    """One change of state.  at: by the breaker's clock.  reason: of the last failure, or `answers`."""

    old: State
    new: State
    reason: Reason
    at: float


class Breaker:
    """clock: the time that changes are stamped with.  note: told of every change, once it is made."""

    def __init__(
        self, limits: Limits, clock: Callable[[], float], note: Callable[[Change], None] = lambda _: None
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._note = note
        self._state: State = "closed"
        self._generation = Generation(0)
        self._failures = 0  # calls in a row, while closed
        self._probes = 0  # in a row: failed ones while closed, good ones while half-open
        self._trials = 0  # under way, while half-open

    @property
    def state(self) -> State:
        return self._state

    # calls

    def admit(self) -> Generation | None:
        """Let a call through: give the generation back to exactly one of `succeeded`, `failed` and `passed`.
        None: it must not be made."""
        if self._state == "open" or (self._state == "half_open" and self._trials >= self._limits.trials):
            return None
        if self._state == "half_open":
            self._trials += 1
        return self._generation

    def succeeded(self, generation: Generation) -> None:
        if generation != self._generation:
            return
        self._failures = 0
        if self._state == "half_open":
            self._change("closed", "answers")

    def failed(self, generation: Generation, reason: Reason) -> None:
        if generation != self._generation:
            return
        self._failures += 1
        if self._state == "half_open" or self._failures >= self._limits.failures:
            self._change("open", reason)

    def passed(self, generation: Generation) -> None:
        """The call ended, and its end says nothing of the dependency: it was cancelled, say."""
        if generation == self._generation and self._state == "half_open":
            self._trials -= 1

    # probes

    def probe_succeeded(self) -> None:
        if self._state == "open":
            self._change("half_open", "answers")
        elif self._state == "closed":
            self._probes = 0
        else:
            self._probes += 1
            if self._probes >= self._limits.probes:
                self._change("closed", "answers")

    def probe_failed(self, reason: Reason, *, decides: bool = False) -> None:
        """decides: this one alone opens it, as the first probe of all does."""
        if self._state == "half_open" or (self._state == "closed" and decides):
            self._change("open", reason)
        elif self._state == "closed":
            self._probes += 1
            if self._probes >= self._limits.probes:
                self._change("open", reason)

    def _change(self, new: State, reason: Reason) -> None:
        change = Change(self._state, new, reason, self._clock())
        self._state = new
        self._generation = Generation(self._generation + 1)
        self._failures = self._probes = self._trials = 0
        self._note(change)
