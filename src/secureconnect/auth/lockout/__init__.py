"""Lock-out: who may try to prove who they are, and who has failed too often to try again yet.

Failures stand in the database, so that all nodes count together and no restart forgets them. The rules of who
counts where are in `lockout`; what it is asked by is `proofs`.
"""

from .lockout import Attempt, Lockout

__all__ = ["Attempt", "Lockout"]
