"""Devices in calls, and what they are told."""

from __future__ import annotations

from kit.wait import until
from secureconnect.client import Event, Signaling, StreamEnded

TOLD_S = 5.0


class Talker:
    """One device in a call.  seen: all it was told.  code: with which it was sent away; None before."""

    def __init__(self, signaling: Signaling) -> None:
        self.signaling = signaling
        self.seen: list[Event] = []
        self.code: int | None = None

    async def listen(self) -> None:
        """Until it is sent away."""
        try:
            async for frame in self.signaling:
                self.seen.append(frame)
        except StreamEnded as ended:
            self.code = ended.code

    def of(self, kind: str, **fields: object) -> list[Event]:
        return [each for each in self.seen if each["type"] == kind and fields.items() <= each.items()]

    async def hears(self, kind: str, within_s: float = TOLD_S, **fields: object) -> Event:
        await until(lambda: bool(self.of(kind, **fields)), within_s)
        return self.of(kind, **fields)[0]
