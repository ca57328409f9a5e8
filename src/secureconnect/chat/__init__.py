"""The chat room: conversations, messages, and telling everybody what happened.

A change goes one way: a rule (`conversations`, `messages`) hands a unit of work to the `writer`, which
commits it and tells the `hub`, which offers it to the sockets of this node, and the `carrier`, which takes it
to the other nodes. What gets lost on that way is found in the table again: by `catchup` for a node, by
`resume` for a client that was away. `presence` is what nobody needs to find again.

While the database is away, `pledges` keeps what is sent, and `recall` tells what `recent` remembers.

Not here: who people are (auth), how bytes travel (gateway), files and calls.
"""

from .notifications.announced import note_announcement
from .notifications.pushes import PushParts
from .presence.store import forget as forget_last_seen
from .room import Chat
from .routes import ROUTES
from .sockets import SOCKETS

__all__ = ["ROUTES", "SOCKETS", "Chat", "PushParts", "forget_last_seen", "note_announcement"]
