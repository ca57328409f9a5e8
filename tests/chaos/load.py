"""Steady load: people who write, edit and delete through the balancer, and sessions that are signed out."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import httpx
import trio

from kit.people import PASSWORD
from secureconnect.client import ApiError, Client, ConnectionLost, Credentials, Stream
from secureconnect.client.held import Entry
from secureconnect.client.wire import Lost, Refused, connect

PACE_S = 0.12  # between two acts of one writer, on average
WINDOW = 200  # messages of one writer on their way
ASK_S = 3.0  # for the answer to an edit
SIGN_OUT_S = 10.0
EDITS, DELETES = 0.12, 0.05
MENTIONS = 0.05


@dataclass
class Sent:
    """A message and what was done to it.

    may_be: what it may hold now; several when the answer to a change was lost.  sure: nobody is waiting, and
    no answer was lost.  mentions: whom it names.
    """

    room: str
    entry: Entry
    may_be: set[str | None]
    sure: bool = True
    mentions: str | None = None

    @property
    def is_stored(self) -> bool:
        return self.entry.answer is not None and self.entry.answer["type"] in ("ack", "stored")


class Gate:
    """Open: the load flows. Closed: it comes to rest, and `at_rest` tells when everybody has."""

    def __init__(self) -> None:
        self._open = trio.Event()
        self.waiting = 0

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._open = trio.Event()

    async def passed(self) -> None:
        if self._open.is_set():
            return
        self.waiting += 1
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1


@dataclass
class Writer:
    """others: user ids.  acks: when each of its messages was settled, on the wall clock."""

    name: str
    user_id: str
    stream: Stream
    rooms: list[str]
    others: list[str]
    chance: random.Random
    gate: Gate
    sent: list[Sent] = field(default_factory=list)
    acks: list[float] = field(default_factory=list)
    changed: int = 0
    refused: int = 0
    _open: list[Sent] = field(default_factory=list)

    async def write(self) -> None:
        """Until cancelled."""
        while True:
            await self.gate.passed()
            self.look()
            if len(self._open) < WINDOW:
                self.post(self.chance.choice(self.rooms))
            fate = self.chance.random()
            if fate < EDITS + DELETES:
                await self._change(deletes=fate < DELETES)
            await trio.sleep(self.chance.uniform(0.3, 1.7) * PACE_S)

    def look(self) -> None:
        """Note what has been settled."""
        done = [each for each in self._open if each.entry.answer is not None]
        self.acks += [time.time()] * len(done)
        self._open = [each for each in self._open if each.entry.answer is None]

    def post(self, room: str) -> Sent:
        text = f"{self.name} {len(self.sent)}"
        whom = self.chance.choice(self.others) if self.chance.random() < MENTIONS else None
        named = {} if whom is None else {"metadata": {"mentions": [whom]}}
        one = Sent(room, self.stream.post(room, text, **named), {text}, mentions=whom)
        self.sent.append(one)
        self._open.append(one)
        return one

    async def _change(self, *, deletes: bool) -> None:
        """Edit or delete one of the latest messages of ours whose state is known for certain."""
        mine = [each for each in self.sent[-50:] if each.is_stored and each.sure and None not in each.may_be]
        if not mine:
            return
        one = self.chance.choice(mine)
        answer = one.entry.answer
        assert answer is not None
        new = None if deletes else f"{next(iter(one.may_be))}, edited"
        one.may_be.add(new)
        one.sure = False
        with trio.move_on_after(ASK_S):
            try:
                if new is None:
                    await self.stream.delete(answer["message_id"])
                else:
                    await self.stream.edit(answer["message_id"], new)
            except ConnectionLost:
                return
            except ApiError as refusal:
                if refusal.status != 503:
                    raise
                self.refused += 1  # perhaps not done, perhaps only not known
                return
            one.may_be = {new}
            one.sure = True
            self.changed += 1


@dataclass
class SignedOut:
    """A session that ended.  status: of the answer, None where there was none.  on: the URL that answered."""

    token: str
    on: str
    status: int | None
    at: float = 0.0


async def sign_in(url: str, username: str) -> Credentials:
    """A further session of a person."""
    async with Client(url) as client:
        await client.login(username, PASSWORD)
        return client.me


async def sign_out(url: str, session: Credentials) -> SignedOut:
    token = session.access_token
    try:
        with trio.fail_after(SIGN_OUT_S):
            async with Client(url, session) as client:
                status = (await client.reply("POST", "/v1/auth/logout")).status_code
    except ApiError as refusal:
        status = refusal.status
    except (httpx.TransportError, trio.TooSlowError):
        return SignedOut(token, url, None)
    return SignedOut(token, url, status, time.time())


async def is_refused(url: str, token: str) -> bool | None:
    """Whether a node refuses the token at the door of its socket. None: it cannot say."""
    address = f"ws{url.removeprefix('http')}/v1/ws/chat?resume=1"
    try:
        async with connect(address, [(b"authorization", f"Bearer {token}".encode())]) as wire:
            await wire.receive()
            return False
    except Refused as refusal:
        return True if refusal.status == 401 else None
    except Lost:
        return None
