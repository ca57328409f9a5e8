"""Settings of what stands between the rooms and what lies outside."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import FOLDER, setting


@dataclass(frozen=True, slots=True)
class OutboxConfig:
    """Mail on its way out."""

    poll_s: float = setting(1.0, "seconds between two looks for mail to send", low=0.05, high=60)
    senders: int = setting(4, "mails handed over at the same time", low=1, high=100)
    waiting: int = setting(
        10_000, "mails that may wait before requests that need one are answered 503", low=1, high=1_000_000
    )
    retry_s: float = setting(
        1.0, "seconds before a mail is tried again, doubled each time", low=0.05, high=3_600
    )
    longest_retry_s: float = setting(60.0, "seconds between two tries at most", low=0.05, high=86_400)
    notice_s: int = setting(
        86_400, "seconds in which a notice must be sent, or is dropped", low=60, high=2_592_000
    )


@dataclass(frozen=True, slots=True)
class JournalConfig:
    """What is accepted while the database is away."""

    limit_mb: int = setting(
        256,
        "megabytes of accepted messages kept while the database is away; beyond, sending is answered 503",
        low=1,
        high=65_536,
    )
    age_s: int = setting(
        86_400,
        "seconds the oldest of them may wait before no more are accepted; none is dropped",
        low=1,
        high=31_536_000,
    )
    trust_s: int = setting(
        600,
        "seconds before the database went away in which members and blocks must have been read",
        low=1,
        high=86_400,
    )
    write_s: float = setting(5.0, "seconds the disk may take to keep a message", low=0.1, high=60)
    retry_s: float = setting(
        0.5, "seconds at most between two attempts to store what was accepted", low=0.01, high=60
    )


@dataclass(frozen=True, slots=True)
class SignalsConfig:
    """What nodes and rooms tell each other."""

    payload_bytes: int = setting(65_536, "bytes of a signal", low=1024, high=1_048_576)
    poll_ms: int = setting(
        500, "milliseconds between two looks for signals while the bus is away", low=50, high=10_000
    )
    kept_s: float = setting(
        10.0, "seconds this node's own signals are kept, to be told again without the bus", low=2, high=30
    )
    kept_mb: int = setting(16, "megabytes of them", low=2, high=1_024)


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """The audit log and its seals."""

    seal_ms: int = setting(1_000, "milliseconds between two seals", low=10, high=2_000)
    denials_waiting: int = setting(10_000, "refusals waiting to be written", low=10, high=1_000_000)
    keep_days: int = setting(0, "days an audit row is kept; 0 keeps for ever", low=0, high=36_500)
    cut_pass_s: float = setting(
        3_600.0, "seconds between two looks for audit rows past their term", low=0.1, high=86_400
    )


@dataclass(frozen=True, slots=True)
class BackupConfig:
    folder: str = setting(
        "", "folder this server makes backups in by itself; empty: it makes none", form=FOLDER
    )
    every_s: float = setting(86_400.0, "seconds between two backups", low=1, high=31_536_000)
    keep: int = setting(
        7, "backups kept in that folder, the newest; older ones are removed", low=1, high=10_000
    )
    passphrase_file: str = setting(
        "", "file whose first line seals them, the master key included; empty: they are not sealed"
    )
    share: float = setting(
        0.5, "of the time that making one may take; the rest is left to people", low=0.01, high=1
    )


@dataclass(frozen=True, slots=True)
class IdempotencyConfig:
    """Answers that are kept for whoever asks again."""

    kept_h: int = setting(24, "hours at least an Idempotency-Key is kept", low=1, high=720)
    prune_s: float = setting(
        600.0, "seconds between two looks for keys kept long enough", low=0.1, high=86_400
    )
