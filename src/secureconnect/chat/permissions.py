"""Who may do what in a conversation: one table, which `docs/conversations.md` shows.

What stands in no row everybody in it may do, and nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ..errors import Forbidden
from .store import Seat

Standing = Literal["owner", "admin", "member", "direct"]
"""A role in a group; or either of the two people of a direct conversation."""

Action = Literal[
    "describe",
    "configure",
    "pin",
    "delete_others",
    "end_polls",
    "add",
    "remove_member",
    "remove_admin",
    "remove_owner",
    "make_owner",
    "delete_conversation",
]

ALLOWED: Mapping[Action, frozenset[Standing]] = {
    "describe": frozenset({"owner", "admin", "direct"}),
    "configure": frozenset({"owner", "admin", "direct"}),
    "pin": frozenset({"owner", "admin", "direct"}),
    "delete_others": frozenset({"owner", "admin"}),
    "end_polls": frozenset({"owner", "admin"}),
    "add": frozenset({"owner", "admin"}),
    "remove_member": frozenset({"owner", "admin"}),
    "remove_admin": frozenset({"owner"}),
    "remove_owner": frozenset({"owner"}),
    "make_owner": frozenset({"owner"}),
    "delete_conversation": frozenset({"owner"}),
}
REMOVES: Mapping[str, Action] = {"member": "remove_member", "admin": "remove_admin", "owner": "remove_owner"}
"""What it takes to remove somebody of a role, or to give them a lower one."""


def may(seat: Seat, action: Action) -> bool:
    standing: Standing = "direct" if seat.conversation.type == "direct" else seat.member.role
    return standing in ALLOWED[action]


def require(seat: Seat, action: Action, subject: str | None = None) -> None:
    """Raises Forbidden.  subject: what it is done to, if not the conversation."""
    if not may(seat, action):
        raise Forbidden(denial="denied:forbidden", subject=subject or seat.conversation.conversation_id)
