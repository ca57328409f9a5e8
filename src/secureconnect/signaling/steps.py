"""The life of a call: which step leads where. Nothing else decides on a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from .store import State

Step = Literal["answer", "refuse", "engage", "give_up", "vanish", "lose", "regain", "end"]

# answer: somebody who was called joins.  refuse: everybody declined.  engage: everybody is in another call.
# give_up: nobody answers any more, for the time is over or the caller hangs up.  vanish: the caller's device
# is gone for good before anybody answered.  lose, regain: the signaling of those in it.  end: somebody ends
# it, or nobody is left.
LEGAL: Mapping[tuple[State, Step], State] = {
    ("ringing", "answer"): "active",
    ("ringing", "refuse"): "declined",
    ("ringing", "engage"): "busy",
    ("ringing", "give_up"): "missed",
    ("ringing", "vanish"): "failed",
    ("active", "lose"): "recovering",
    ("active", "end"): "ended",
    ("recovering", "regain"): "active",
    ("recovering", "end"): "ended",
}


def after(state: State, step: Step) -> State | None:
    """None: this step is not possible from there."""
    return LEGAL.get((state, step))
