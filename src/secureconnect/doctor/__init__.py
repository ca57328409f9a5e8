"""What is wrong with this installation, and how to mend it; `cli/doctor.py` shows it.

It looks with the effective settings, beside a running server or without one, and leaves nothing behind. It
speaks with the outside through the drivers themselves: an adapter says `Unavailable` where a person needs to
hear which of ten reasons it was.
"""

from .examine import examine
from .findings import Finding, worst
from .outside import examine_from_outside

__all__ = ["Finding", "examine", "examine_from_outside", "worst"]
