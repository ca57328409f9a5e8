"""The figures of an installation, one after the other, each within what the installation permits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from .figures import Pairs, Room, come_back, gets, logins
from .guests import Guests, Tell
from .installation import Installation
from .people import Person
from .rounds import Run, Target, quantile_s

PACE_PER_S = 50
UNDER_WAY = 8
LISTED = 50  # messages of one answer
CONNECTIONS = 32
OF_EACH = 4  # devices of one person
KEPT_FREE = 0.1  # of what a WebSocket may send
WINDOW_S = 10.0  # in which that is counted


@dataclass(frozen=True, slots=True)
class Figure:
    """One row.  unit: what there were so many of.  quantiles_ms: the 1st to the 99th, of how long each took.
    remark: what else a reader must know."""

    name: str
    what: str
    unit: str
    count: int
    seconds: float
    per_s: float
    quantiles_ms: list[float] = field(repr=False)
    remark: str = ""

    def ms(self, percent: int) -> float:
        return self.quantiles_ms[percent - 1]

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {f"p{percent}_ms": self.ms(percent) for percent in (50, 90, 99)}

    @classmethod
    def of(cls, name: str, what: str, unit: str, run: Run, remark: str) -> Figure:
        quantiles = [round(quantile_s(run.each_s, percent) * 1e3, 3) for percent in range(1, 100)]
        per_s = round(run.per_s, 1)
        return cls(name, what, unit, run.count, round(run.wall_s, 3), per_s, quantiles, remark)


class Course:
    """seconds: of each figure.  missing: figures there are none of, and why."""

    def __init__(self, at: Installation, guests: Guests, seconds: float, tell: Tell) -> None:
        self.missing: list[str] = []
        self._target, self._guests = Target(at.site), guests
        self._seconds, self._tell = seconds, tell
        self._most = max(1, int(at.frames * (1 - KEPT_FREE)))
        self._frames = at.frames

    def run(self, names: Sequence[str]) -> Iterator[Figure]:
        """Raises ApiError, OSError, Faulty."""
        for name in names:
            self._guests.renew()
            for what, unit, measure in FIGURES[name](self):
                self._tell(what)
                run, remark = measure()
                if run.limit:
                    remark = f"limited to {run.limit}: this shows what was done until then"
                if run.each_s:
                    yield Figure.of(name, what, unit, run, remark)
                else:
                    self.missing.append(f"{what}: {remark}")

    # each yields what it measures, its unit, and how

    def login(self) -> Rows:
        def measure() -> tuple[Run, str]:
            return logins(self._target, self._people, UNDER_WAY, self._seconds), ""

        yield f"sign-ins, {UNDER_WAY} under way", "sign-ins", measure

    def store(self) -> Rows:
        for writers, under_way in ((1, 1), (len(self._people) // 2 * 2, UNDER_WAY)):
            pairs = Pairs(self._target, self._people[: max(2, writers)], writers, self._guests.title)

            def measure(pairs: Pairs = pairs, under_way: int = under_way) -> tuple[Run, str]:
                run = pairs.over_websocket(self._seconds, under_way, self._most)
                return run, self._shortened(run)

            who = "1 sender" if writers == 1 else f"{writers} senders"
            yield f"messages stored, {who}, {under_way} under way", "messages", measure

    def deliver(self) -> Rows:
        members = len(self._people)
        pace = min(PACE_PER_S, self._most / WINDOW_S)

        def paced() -> tuple[Run, str]:
            run, share = self._room.paced(self._seconds, pace)
            return run, f"{100 * share:.4g} % came in time"

        yield f"deliveries into a room of {members}, {pace:g} messages/s", "deliveries", paced
        for under_way in (1, UNDER_WAY):

            def measure(under_way: int = under_way) -> tuple[Run, str]:
                run = self._room.saturated(self._seconds, under_way, self._most)
                return run, self._shortened(run)

            yield f"the same, {under_way} under way", "deliveries", measure

    def read(self) -> Rows:
        """By a third of the people each: what one of them may ask is limited."""
        self._room.fill(min(LISTED, self._most * len(self._people)))
        messages = f"/v1/messages?conversation_id={self._room.conversation}&limit={LISTED}"
        asked = (
            (f"the newest {LISTED} messages of a room", messages),
            ("an ordinary route, /v1/users/me", "/v1/users/me"),
            ("first sync", "/v1/conversations?first_sync=1&limit=100"),
        )
        for third, (what, path) in enumerate(asked):
            tokens = [person.token for person in self._people[third % len(self._people) :: len(asked)]]

            def measure(path: str = path, tokens: Sequence[str] = tokens) -> tuple[Run, str]:
                return gets(self._target, path, tokens, CONNECTIONS, self._seconds), ""

            yield f"{what}, {CONNECTIONS} connections", "answers", measure

    def resume(self) -> Rows:
        devices = self._people * OF_EACH

        def measure() -> tuple[Run, str]:
            return come_back(self._target, devices), ""

        yield f"sockets that come back and resume, {len(devices)}", "sockets", measure

    @property
    def _people(self) -> list[Person]:
        return self._guests.people

    @cached_property
    def _room(self) -> Room:
        return Room(self._target, self._people, self._guests.title)

    def _shortened(self, run: Run) -> str:
        if run.wall_s >= self._seconds:
            return ""
        return f"for {run.wall_s:.2g} s: a WebSocket may send {self._frames} frames in 10 s"


Rows = Iterator[tuple[str, str, Callable[[], tuple[Run, str]]]]
FIGURES: dict[str, Callable[[Course], Rows]] = {
    "login": Course.login,  # first, for what is deleted in the end counts as a sign-in
    "store": Course.store,
    "deliver": Course.deliver,
    "read": Course.read,
    "resume": Course.resume,
}
