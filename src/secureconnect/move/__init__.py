"""Carries an embedded installation into Postgres, and its files into MinIO; `cli/move.py` talks about it.

The source is read only. How far the move has come stands in the target, in the transaction of each batch, so
that a move that was killed goes on where it was, and no server takes a half-filled database for its own
(`node.Node.open`). At the end both sides are read again and compared row by row.
"""

from .carry import Batch, Moved, Refused, move
from .compare import Difference
from .files import carry_files

__all__ = ["Batch", "Difference", "Moved", "Refused", "carry_files", "move"]
