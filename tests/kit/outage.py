"""A database that goes away and comes back at a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from secureconnect.chat.append import append
from secureconnect.deps.contracts import ConstraintViolation, Database
from secureconnect.errors import OutcomeUnknown, Problem, Unavailable


class Interrupted:
    """contracts.Database over a real one.

    problem: what every call is answered with, None while all is well.  loses_answers: work is done, and its
    outcome reported unknown, and it goes away.  refused: writes answered with `problem` so far.
    poison: a content no message may have.  ahead_us: of its clock before the real one.
    """

    def __init__(self, inner: Database) -> None:
        self.inner = inner
        self.problem: type[Problem] | None = None
        self.loses_answers = False
        self.refused = 0
        self.poison = ""
        self.ahead_us = 0

    def go_away(self, problem: type[Problem] = Unavailable) -> None:
        self.problem = problem

    def come_back(self) -> None:
        self.problem = None
        self.loses_answers = False

    async def write(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        await self._answer(self.inner.write)
        if self.poison and unit is append and any(draft.content == self.poison for draft in args[0]):
            raise ConstraintViolation("poison")
        value = await self.inner.write(unit, *args, **kwargs)
        if self.loses_answers:
            self.go_away()
            raise OutcomeUnknown
        return value

    relieve = write

    async def read(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        await self._answer(self.inner.read)
        return await self.inner.read(unit, *args, **kwargs)

    def now_us(self) -> int:
        return self.inner.now_us() + self.ahead_us

    async def _answer(self, call: Callable[..., Any]) -> None:
        if (problem := self.problem) is not None:
            await trio.lowlevel.checkpoint()
            self.refused += call == self.inner.write
            raise problem
