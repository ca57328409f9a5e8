"""Files that messages carry: what this room asks of whoever keeps them, each in the unit of the message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..deps.contracts import Tx
from ..errors import Invalid, Problem
from ..identity import ConversationId, FileId, MessageId, UserId


class Attachments(Protocol):
    """Asked only about messages that carry files; the conversation is held meanwhile."""

    async def attach(
        self,
        tx: Tx,
        file_ids: Sequence[FileId],
        *,
        sender: UserId,
        conversation: ConversationId,
        seq: int,
        message: MessageId,
        is_e2ee: bool,
        now_us: int,
    ) -> Problem | None:
        """Let those who may see the message read these files. Returns why not: then nothing is changed."""
        ...

    async def detach(
        self,
        tx: Tx,
        conversation: ConversationId,
        seq: int,
        message: MessageId,
        actor: UserId | None,
        now_us: int,
    ) -> None:
        """The message is deleted.  actor: by whom; None: by itself."""
        ...

    async def detach_before(
        self, tx: Tx, conversation: ConversationId, seq: int | None, actor: UserId | None, now_us: int
    ) -> None:
        """Everything said before `seq` is gone; None: the conversation is, or all that was said in it."""
        ...


class NoFiles:
    """Where nobody keeps files, there are none."""

    async def attach(self, *_: object, **__: object) -> Problem | None:
        return no_such_file()

    async def detach(self, *_: object, **__: object) -> None:
        """Nothing was attached."""

    async def detach_before(self, *_: object, **__: object) -> None:
        """Nothing was attached."""


def no_such_file() -> Invalid:
    return Invalid("There is no such file.", details={"field": "file_ids"})
