"""The audit log: who did what, in rows that cannot be changed unseen (docs/audit.md).

`record` inserts a row in the transaction of the change itself. `log` chains the committed rows each second
and writes refusals, `retention` removes what is past its term, `check` finds tampering, `export` tells all.
"""

from .chain import Head, read_head
from .check import Verdict, verify
from .export import export
from .log import ACTIONS, SEAL_ROWS, Audit, forget, record

__all__ = [
    "ACTIONS",
    "SEAL_ROWS",
    "Audit",
    "Head",
    "Verdict",
    "export",
    "forget",
    "read_head",
    "record",
    "verify",
]
