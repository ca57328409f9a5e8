"""What the table of devices has yet to be told: their media, their losses, and what became of them while the
database was away."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog
import trio

from ..errors import Problem, Unavailable
from ..identity import PeerId
from .store import Peer

log = structlog.get_logger(module="signaling")

PAUSE_S = 0.25  # after the database refused
WAITING = 10_000  # devices; beyond that the one that waits longest is left to the reaper


class Note(NamedTuple):
    """How a device is.  is_out: it is not to come back.  is_untold: other nodes could not be told so."""

    peer: Peer
    is_out: bool = False
    is_untold: bool = False


class Notes:
    """In order, the latest of each device alone: it says all that those before it said."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[PeerId, Note] = OrderedDict()
        self._came = trio.Event()

    @property
    def peers(self) -> frozenset[PeerId]:
        """Devices of which the table has yet to be told."""
        return frozenset(self._waiting)

    def add(self, note: Note) -> None:
        waits = self._waiting.get(note.peer.peer_id)
        if waits is None or not waits.is_out:
            is_untold = note.is_untold or (waits is not None and waits.is_untold)
            self._waiting[note.peer.peer_id] = note._replace(is_untold=is_untold)
        if len(self._waiting) > WAITING:
            _, dropped = self._waiting.popitem(last=False)
            log.error("peer_not_noted", call_id=dropped.peer.call_id)
        self._came.set()

    async def write_forever(self, write: Callable[[Note], Awaitable[None]]) -> None:
        """Whatever refuses for a while: nothing is lost, and nothing overtakes."""
        is_away = False
        while True:
            while not self._waiting:
                self._came = trio.Event()
                await self._came.wait()
            peer_id, note = next(iter(self._waiting.items()))
            try:
                await write(note)
            except Unavailable as problem:
                if not is_away:
                    log.warning("peers_not_noted", waiting=len(self._waiting), code=problem.code)
                is_away = True
                await trio.sleep(PAUSE_S)
                continue
            except Problem as problem:  # it will not be taken, however often it is tried
                log.error("peer_not_noted", call_id=note.peer.call_id, code=problem.code)
            is_away = False
            if self._waiting.get(peer_id) is note:
                del self._waiting[peer_id]
