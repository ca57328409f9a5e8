"""The bench's people on somebody's installation. Whatever happens, what it made there is taken away again."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..client.answers import ApiError
from .people import Person, registration, sign_in
from .wire import Faulty, Limited, Site, answer_to, data_of, is_whole, open_each

AT_ONCE = 4  # registrations under way: each keeps a core of the server busy for a while
LEAVE_S = 180.0  # for taking everything away, the waits for its limits included
LONGEST_WAIT_S = 65.0  # for one of those
GIVE_ACCOUNTS = "make some with `secureconnect user create` on the server, and give them with --accounts FILE"

Tell = Callable[[str], None]  # how far it is, for whoever waits


class CannotBegin(Exception):
    """There are no people to measure with. It says what to do."""


def _words(refusal: ApiError) -> str:
    return f"the server takes {refusal.words}" if isinstance(refusal, Limited) else refusal.message


class Guests:
    """people: who can be measured with.  few: why there are fewer than were asked for.
    title: of the conversations made for them.  made: whether the accounts are the bench's own.
    erased_at: when the server will have erased the last of these."""

    def __init__(self, site: Site, tell: Tell) -> None:
        self.people: list[Person] = []
        self.few = ""
        self.made = True
        self.erased_at = ""
        name = secrets.token_hex(3)
        self.title = f"secureconnect bench {name}"
        self._prefix = f"bench-{name}-"
        self._password = secrets.token_urlsafe(24)
        self._asked: set[str] = set()  # names whose registration was asked for, and not refused
        self._site, self._tell = site, tell

    def register(self, count: int, invite: str) -> None:
        """Raises CannotBegin, OSError, Faulty."""
        names = [f"{self._prefix}{number}" for number in range(1, count + 1)]

        def ask() -> Iterator[bytes]:
            for name in names:
                if self.few:
                    return
                self._asked.add(name)
                yield registration(self._site, name, self._password, invite)

        for line, _ in open_each(self._site, ask(), is_whole, AT_ONCE):
            line.sock.close()
            try:
                person = Person.of(data_of(line.answer), self._password)
            except ApiError as refusal:
                self._asked.discard(names[line.number])
                self.few = _words(refusal)
            else:
                self.people.append(person)
                self._tell(f"registering {len(self.people)} of {count}")
        if len(self.people) < 2:
            raise CannotBegin(f"two accounts could not be registered ({self.few}): {GIVE_ACCOUNTS}")

    def sign_in(self, accounts: Sequence[tuple[str, str]]) -> None:
        """accounts: name and password of each. Raises CannotBegin, OSError, Faulty."""
        self.made = False
        for name, password in accounts:
            self._tell(f"signing in {len(self.people) + 1} of {len(accounts)}")
            try:
                answer = answer_to(self._site, sign_in(self._site, name, password))
            except Limited as limited:
                self.few = _words(limited)
                break
            except ApiError as refusal:
                raise CannotBegin(f"{name} cannot be signed in: {refusal.message}") from None
            self.people.append(Person.of(answer, password))
        if len(self.people) < 2:
            raise CannotBegin(f"two accounts are needed: {self.few or 'give more of them'}")

    def renew(self) -> None:
        """Tokens that are good for as long as a figure takes. Raises ApiError, OSError, Faulty."""
        for person in self.people:
            self._renew(person)

    def leave(self) -> list[str]:
        """Take everything away again, within LEAVE_S. What was left behind, in words."""
        left: list[str] = []
        until = time.monotonic() + LEAVE_S
        try:
            self._find_the_unanswered(until)
            for number, person in enumerate(self.people, 1):
                self._tell(f"taking away what was made: {number} of {len(self.people)}")
                if time.monotonic() > until:
                    left.append(f"the account {person.username}: no time was left")
                    continue
                try:
                    self._take_away(person, until)
                except (ApiError, OSError, Faulty) as exc:
                    left.append(f"what {person.username} has: {exc}")
        except KeyboardInterrupt:
            left.append(f"accounts whose names begin with {self._prefix}: interrupted")
        return left

    def _find_the_unanswered(self, until: float) -> None:
        """Those whose registration was asked for and broken off: perhaps they are there."""
        for name in sorted(self._asked - {person.username for person in self.people}):
            try:
                answer = self._patient(sign_in(self._site, name, self._password), until)
            except (ApiError, OSError, Faulty):
                continue
            self.people.append(Person.of(answer, self._password))

    def _take_away(self, person: Person, until: float) -> None:
        site = self._site
        self._renew(person, until)
        listed = self._patient(site.request("GET", "/v1/conversations?limit=100", token=person.token), until)
        for each in listed["conversations"]:
            if each["title"] == self.title and each["created_by"] == person.user_id:
                path = f"/v1/conversations/{each['conversation_id']}"
                self._patient(site.request("DELETE", path, token=person.token), until)
        if self.made:
            proof = {"password": person.password}
            answer = self._patient(site.request("DELETE", "/v1/users/me", proof, person.token), until)
            self.erased_at = max(self.erased_at, answer["delete_at"])
        else:
            self._patient(site.request("POST", "/v1/auth/logout", {}, person.token), until)

    def _renew(self, person: Person, until: float = math.inf) -> None:
        if time.monotonic() >= person.renew_at:
            asked = {"refresh_token": person.refresh_token}
            person.renew(self._patient(self._site.request("POST", "/v1/auth/refresh", asked), until))

    def _patient(self, request: bytes, until: float = math.inf) -> Any:
        """The answer to it, once the server's limits let it through. Raises ApiError, OSError, Faulty."""
        while True:
            try:
                return answer_to(self._site, request)
            except Limited as limited:
                pause_s = min(limited.retry_after_s or 1.0, LONGEST_WAIT_S)
                if time.monotonic() + pause_s > until:
                    raise
                self._tell(f"waiting {pause_s:.0f} s: the server takes {limited.words}")
                time.sleep(pause_s)
