"""The room signaling: calls. Who is called and who comes (`calls`), what devices say to each other to set
media up (`sockets`, `rosters`), and how a call outlives what carries it (`reaper`). Media never passes
through here.
"""

from .bells import Bells, no_bells
from .room import Signaling
from .routes import ROUTES
from .sockets import SOCKETS
from .store import is_called

__all__ = ["ROUTES", "SOCKETS", "Bells", "Signaling", "is_called", "no_bells"]
