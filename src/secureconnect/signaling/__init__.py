"""The room signaling: calls. Who is called and who comes (`calls`), what devices say to each other to set
media up (`sockets`, `rosters`), and how a call outlives what carries it (`reaper`). Media never passes
through here.
"""

from .room import Signaling
from .routes import ROUTES
from .sockets import SOCKETS

__all__ = ["ROUTES", "SOCKETS", "Signaling"]
