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
        ends_us: int | None,
    ) -> Problem | None:
        """Let those who may see the message read these files. Returns why not: then nothing is changed.

        ends_us: when the message disappears: from then on nobody reads them by it, deleted or not.
        """
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
    ) -> bool:
        """Everything said before `seq` goes; None: all that was said there. False: not all of it in this
        unit of work: what has been said must stay until another has said True."""
        ...


class NoFiles:
    """Where nobody keeps files, there are none."""

    async def attach(self, *_: object, **__: object) -> Problem | None:
        return no_such_file()

    async def detach(self, *_: object, **__: object) -> None:
        """Nothing was attached."""

    async def detach_before(self, *_: object, **__: object) -> bool:
        return True


def no_such_file() -> Invalid:
    return Invalid("There is no such file.", details={"field": "file_ids"})
