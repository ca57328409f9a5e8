"""Recordings of calls: who agrees to one, and what its recorder sends of it.

A device in the call records what it hears and sees, and sends that in numbered parts. They are taken while
everybody in the call has agreed, and not a moment longer. `recordings` are the rules, `finisher` is what
happens by itself: latecomers are asked, a recording whose client is gone ends, and its parts become one file
of the recorder's. The file is the neighbour's (`shelf`).
"""

from .export import export_of
from .finisher import Finisher
from .recordings import Recordings
from .routes import ROUTES

__all__ = ["ROUTES", "Finisher", "Recordings", "export_of"]
