"""Who is typing where, of the people on this node."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ...config import ChatConfig
from ...identity import ConversationId, UserId
from .. import frames
from ..live import Live

TYPING_PAUSE_S = 1.0  # between two words about the same person in the same conversation


class _Mark:
    __slots__ = ("ends_at", "is_told", "is_typing", "told_at")

    def __init__(self) -> None:
        self.is_typing = False
        self.is_told = False
        self.told_at = -TYPING_PAUSE_S
        self.ends_at = 0.0


class Typing:
    """Told at most once a second, and ended for those who do not say so."""

    def __init__(self, config: ChatConfig, tell: Callable[[Live], None]) -> None:
        self._config = config
        self._tell = tell
        self._marks: dict[tuple[ConversationId, UserId], _Mark] = {}

    def mark(self, conversation: ConversationId, user: UserId, is_typing: bool) -> None:
        key = (conversation, user)
        mark = self._marks.get(key)
        if mark is None:
            if not is_typing or len(self._marks) >= self._config.hub_conversations:
                return
            mark = self._marks[key] = _Mark()
        mark.is_typing = is_typing
        now = trio.current_time()
        mark.ends_at = now + self._config.typing_ttl_s
        self._look(key, mark, renew=is_typing and now - mark.told_at >= self._config.typing_ttl_s / 2)

    def beat_once(self) -> None:
        now = trio.current_time()
        for key, mark in tuple(self._marks.items()):
            if mark.ends_at <= now:
                mark.is_typing = False
            self._look(key, mark)
            if not mark.is_typing and not mark.is_told and now - mark.told_at >= TYPING_PAUSE_S:
                del self._marks[key]

    def _look(self, key: tuple[ConversationId, UserId], mark: _Mark, *, renew: bool = False) -> None:
        """Tell a change, unless something was told just now."""
        now = trio.current_time()
        if (mark.is_typing != mark.is_told or renew) and now - mark.told_at >= TYPING_PAUSE_S:
            mark.is_told = mark.is_typing
            mark.told_at = now
            self._tell(frames.typing_mark(*key, mark.is_typing))
