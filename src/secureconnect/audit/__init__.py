"""The audit log: who did what, in rows that cannot be changed unseen (docs/audit.md).

`record` inserts a row in the transaction of the change itself. `log` chains the committed rows each second
and writes refusals, `retention` removes what is past its term, `check` finds tampering, `entries` are rows
to read, `export` tells all.
"""

from .chain import Head, head_of, read_head
from .check import Verdict, verify
from .entries import Asked, Entry, json_of, list_about, list_after, list_before, time_of
from .export import export
from .log import ACTIONS, SEAL_ROWS, Audit, forget, record

__all__ = [
    "ACTIONS",
    "SEAL_ROWS",
    "Asked",
    "Audit",
    "Entry",
    "Head",
    "Verdict",
    "export",
    "forget",
    "head_of",
    "json_of",
    "list_about",
    "list_after",
    "list_before",
    "read_head",
    "record",
    "time_of",
    "verify",
]
