"""Sharing: files that members of a conversation may read, because a message carries them or because they were
uploaded there. What is shared is a row for each place; who may read it follows from who is a member, so that
leaving needs nothing done here. A file goes with the last message that carried it."""

from .sharing import Sharing

__all__ = ["Sharing"]
