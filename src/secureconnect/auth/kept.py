"""What a node knows of ended sessions, kept in its data folder: it outlives the process and the database.

`revocations.snapshot` is the whole set, replaced at once or not at all: a line with the format and a SHA-256,
then JSON. `revocations.journal` is what was ended here since, while the database was away: a line each, with
its own checksum, so that the line a crash has cut is seen to be none. Reading too much of them refuses too
many tokens at worst; so all that is sound counts, but only a snapshot that is whole and private is trusted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import structlog
import trio

from ..clock import SECOND_US
from ..deps.contracts import Revoked
from ..durable import replace_file, sync_folder
from ..errors import Unavailable

log = structlog.get_logger(module="auth")

SNAPSHOT = "revocations.snapshot"
JOURNAL = "revocations.journal"
FORMAT = b"secureconnect-revocations-1"
PAUSE_S = 1.0  # between two snapshots, at least
WRITE_S = 5.0  # a disk that takes longer to keep a line hangs: whoever signs out is not kept waiting for it
SHARE = 20  # and this many times what the last one took: a large set on a slow disk costs 5 % of the time


class VerifyingKey(msgspec.Struct, frozen=True):
    """public: 32 bytes.  retired_us: as in `keys.SigningKey`."""

    kid: str
    public: bytes
    retired_us: int | None


class Snapshot(msgspec.Struct, frozen=True):
    """written_us: when this node knew as much as it could.  away_since_us: when the outage began that lasted
    then.  pending: what the database is not known to have.  All times are the database's."""

    written_us: int
    away_since_us: int | None
    keys: list[VerifyingKey]
    stored: list[Revoked]
    pending: list[Revoked]


class Found(msgspec.Struct, frozen=True):
    """What the files hold.  snapshot: None if there is none that is whole.  trusted: it is private, too.
    journal: the sound lines."""

    snapshot: Snapshot | None
    trusted: bool
    journal: list[Revoked]


class Kept:
    """folder: the data folder."""

    def __init__(self, folder: Path) -> None:
        self._snapshot = folder / SNAPSHOT
        self._journal = folder / JOURNAL
        self._writing = trio.Lock()
        self._thread = trio.CapacityLimiter(1)
        self._next_s = float("-inf")

    async def load(self) -> Found:
        async with self._writing:
            return await trio.to_thread.run_sync(_load, self._snapshot, self._journal, limiter=self._thread)

    @property
    def may_save(self) -> bool:
        return trio.current_time() >= self._next_s

    async def save(self, snapshot: Callable[[], Snapshot]) -> None:
        """Replace the snapshot, which covers the journal, and clear that. Raises Unavailable.

        snapshot: asked once nothing is being appended.
        """
        async with self._writing:
            began_s = trio.current_time()
            try:
                with _naming():
                    await trio.to_thread.run_sync(
                        _save, self._snapshot, self._journal, snapshot(), limiter=self._thread
                    )
            finally:
                now_s = trio.current_time()
                self._next_s = now_s + max(PAUSE_S, SHARE * (now_s - began_s))

    async def append(self, revoked: Sequence[Revoked]) -> None:
        """Returns once a crash cannot lose them. Raises Unavailable, also when the disk does not answer: then
        it may keep them later."""
        with _naming(), trio.move_on_after(WRITE_S, shield=True):
            async with self._writing:
                await trio.to_thread.run_sync(
                    _append, self._journal, revoked, limiter=self._thread, abandon_on_cancel=True
                )
            return
        raise Unavailable("The disk does not answer.")


@contextmanager
def _naming() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise Unavailable("The disk refuses to keep it.") from exc


def _load(snapshot: Path, journal: Path) -> Found:
    lines = list(_sound_lines(_content(journal)))
    content = _content(snapshot)
    if content is None:
        return Found(None, False, lines)
    whole = _decode(content)
    if whole is None:
        log.warning("revocations_snapshot_damaged", size_bytes=len(content))
        return Found(None, False, lines)
    mode = snapshot.stat().st_mode & 0o777
    if mode & 0o077:
        log.warning("revocations_snapshot_open_to_others", mode=f"{mode:04o}")
    return Found(whole, not mode & 0o077, lines)


def _content(path: Path) -> bytes | None:
    """None if there is no such file, or it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        log.warning("revocations_unreadable", file=path.name, reason=exc.strerror)
        return None


def _save(path: Path, journal: Path, snapshot: Snapshot) -> None:
    body = msgspec.json.encode(snapshot)
    replace_file(path, b"%s %s\n%s" % (FORMAT, hashlib.sha256(body).hexdigest().encode(), body))
    if journal.exists() and journal.stat().st_size:
        os.truncate(journal, 0)


def _decode(content: bytes) -> Snapshot | None:
    head, _, body = content.partition(b"\n")
    if head != b"%s %s" % (FORMAT, hashlib.sha256(body).hexdigest().encode()):
        return None
    try:
        return msgspec.json.decode(body, type=Snapshot)
    except msgspec.DecodeError:
        return None


def _append(path: Path, revoked: Sequence[Revoked]) -> None:
    is_new = not path.exists()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "rb+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        # a line that a crash or a full disk has cut must not spoil the next one
        cut = b"\n" if size and os.pread(file.fileno(), 1, size - 1) != b"\n" else b""
        lines = cut + b"".join(map(_line, revoked))
        if file.write(lines) != len(lines):
            raise OSError("a short write")
        os.fsync(file.fileno())
    if is_new:
        sync_folder(path.parent)


def _line(revoked: Revoked) -> bytes:
    body = msgspec.json.encode(revoked)
    return b"%s %s\n" % (hashlib.sha256(body).hexdigest()[:16].encode(), body)


def _sound_lines(content: bytes | None) -> Iterator[Revoked]:
    for line in (content or b"").splitlines():
        mark, _, body = line.partition(b" ")
        try:
            if mark == hashlib.sha256(body).hexdigest()[:16].encode():
                yield msgspec.json.decode(body, type=Revoked)
                continue
        except msgspec.DecodeError:
            pass
        if line:
            log.warning("revocations_journal_line_damaged", size_bytes=len(line))


def refresh_us(token_life_s: int) -> int:
    """How old the snapshot of a running node may grow: far less than a token's life."""
    return min(60 * SECOND_US, token_life_s * SECOND_US // 4)
