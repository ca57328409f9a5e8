"""What both databases measure, under the same names."""

from __future__ import annotations

from collections.abc import Callable

from .. import metrics

# role: writer, reader
CONNECTIONS = metrics.gauge("db_connections_active", "Database connections at work.", ["role"])
_LIMIT = metrics.gauge("db_connections_limit", "How many there may be, of both roles together.")
_WAITING = metrics.gauge("db_connections_waiting", "Transactions that wait for one.")
# kind: read, write
DURATION = metrics.histogram("db_query_duration_seconds", "How long transactions took.", ["kind"])

WRITING, READING = CONNECTIONS.labels("writer"), CONNECTIONS.labels("reader")
WRITE_S, READ_S = DURATION.labels("write"), DURATION.labels("read")


def show_pool(limit: int, waiting: Callable[[], int]) -> None:
    """Of the database that the server works on; others are opened for a moment, as for a migration."""
    _LIMIT.set(limit)
    _WAITING.set_function(waiting)
