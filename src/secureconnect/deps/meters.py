"""What both databases measure, under the same names."""

from __future__ import annotations

from .. import metrics

# role: writer, reader
CONNECTIONS = metrics.gauge("db_connections_active", "Database connections at work.", ["role"])
# kind: read, write
DURATION = metrics.histogram("db_query_duration_seconds", "How long transactions took.", ["kind"])

WRITING, READING = CONNECTIONS.labels("writer"), CONNECTIONS.labels("reader")
WRITE_S, READ_S = DURATION.labels("write"), DURATION.labels("read")
