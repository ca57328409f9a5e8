"""What wakes the devices of people who are called; who does that is handed over (`Signaling.connect`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..deps.contracts import Tx
from ..identity import DeviceId, UserId
from .store import Called

Then = Callable[[], None]


def nothing_more() -> None:
    """All is told."""


class Bells(Protocol):
    """Each in the transaction of the step it tells of."""

    async def ring(self, tx: Tx, call: Called, people: Sequence[UserId]) -> None:
        """They are called."""

    async def hush(
        self, tx: Tx, call: Called, people: Sequence[UserId], answered_on: DeviceId | None
    ) -> None:
        """It rings no more for them."""

    async def missed(self, tx: Tx, call: Called, people: Sequence[UserId]) -> Then:
        """The same, and they have missed it. Returns what tells their sockets so after the commit."""
        ...


class NoBells:
    """Nobody's devices are woken."""

    async def ring(self, _: Tx, __: Called, ___: Sequence[UserId]) -> None:
        pass

    async def hush(self, _: Tx, __: Called, ___: Sequence[UserId], ____: DeviceId | None) -> None:
        pass

    async def missed(self, _: Tx, __: Called, ___: Sequence[UserId]) -> Then:
        return nothing_more


def no_bells() -> Bells:
    return NoBells()
