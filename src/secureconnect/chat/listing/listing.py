"""Rules for the list of somebody's conversations."""

from __future__ import annotations

from typing import NamedTuple

from ...config import ChatConfig
from ...deps.contracts import Database, Tx
from ...identity import ConversationId, MessageId, UserId
from ..reactions import store as reactions
from ..store import Message, Participant, Place, Reacted, Summary, list_for
from . import store


class Line(NamedTuple):
    """people: both, of a direct conversation.  newest: ascending; None where they were not asked for."""

    summary: Summary
    people: list[Participant] | None
    newest: list[Message] | None = None


class Listing:
    def __init__(self, config: ChatConfig, db: Database) -> None:
        self._config = config
        self._db = db

    async def page(self, caller: UserId, below: Place, limit: int, *, first_sync: bool = False) -> list[Line]:
        """Those of the caller, the latest active first, below that place.

        limit: `store.PAGE` at most.  first_sync: also the newest messages of the top ones of the page.
        """
        tops = self._config.first_sync_conversations if first_sync else 0
        return await self._db.read(self._page, caller, below, limit, tops)

    async def _page(self, tx: Tx, caller: UserId, below: Place, limit: int, tops: int) -> list[Line]:
        now_us = self._db.now_us()
        summaries = await list_for(tx, caller, below, limit, now_us)
        places = [each.seat.conversation for each in summaries]
        top = [each.conversation_id for each in places[:tops]]
        direct = [each.conversation_id for each in places if each.type == "direct"]
        pairs = await store.pairs(tx, caller, direct)
        newest = await store.newest(tx, caller, top, self._config.first_sync_messages, now_us)
        last = [each.last_message for each in summaries if each.last_message is not None]
        reacted = await reactions.reacted_to(tx, [*newest, *last], caller)
        shown: dict[ConversationId, list[Message]] = {}
        for message in newest:
            shown.setdefault(message.conversation_id, []).append(_with(message, reacted))
        return [
            Line(
                summary._replace(last_message=summary.last_message and _with(summary.last_message, reacted)),
                pairs.get(place.conversation_id) if place.type == "direct" else None,
                shown.get(place.conversation_id, []) if number < tops else None,
            )
            for number, (summary, place) in enumerate(zip(summaries, places, strict=True))
        ]


def _with(message: Message, reacted: dict[MessageId, tuple[Reacted, ...]]) -> Message:
    return message._replace(reactions=reacted.get(message.message_id, ()))
