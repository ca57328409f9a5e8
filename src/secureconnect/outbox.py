"""Mail waiting to be sent: written in the transaction of what it tells of, sent once that is committed.

Each node looks each second; whoever takes a mail has it to itself for longer than a try may take. A mail is
sent by one node, once; it is sent again only if the node dies, or loses the database, between the mail
server's yes and the note of it. A failed try is repeated with growing pauses until the mail expires.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import msgspec
import structlog
import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from . import metrics
from .clock import SECOND_US
from .config import OutboxConfig
from .deps.contracts import Database, Deferred, Mail, Mailer, Row, Tx, Undeliverable, Value
from .errors import Problem, Unavailable
from .identity import UserId, new_id
from .periodic import every

log = structlog.get_logger(module="outbox")

# result: sent; deferred: tried in vain; refused: for good; expired; dropped: a notice, for want of room
MAILS = metrics.counter("secureconnect_outbox_mails_total", "What became of mail.", ["result"])
WAITING = metrics.gauge("secureconnect_outbox_waiting", "Mails waiting to be sent, up to outbox.waiting.")
_SENT, _DEFERRED, _REFUSED, _EXPIRED, _DROPPED = (
    MAILS.labels(each) for each in ("sent", "deferred", "refused", "expired", "dropped")
)

DECOY = "decoy"
NEVER_US = 2**62
NONCE_BYTES = 12
EXPIRE_ROWS = 1_000  # deleted in one transaction
CLAIM_MARGIN_S = 30.0  # beyond the longest try: for the note of how it went
NOTE_S = 5.0  # for the note of what is sent, at shutdown too
LATEST_DOUBLING = 20  # of the pause between two tries

_ADD = (
    "INSERT INTO outbox (mail_id, user_id, kind, sealed, queued_at, due_at, expires_at)"
    " VALUES ($1, $2, $3, $4, $5, $5, $6)"
)
_REPLACE = "DELETE FROM outbox WHERE user_id = $1 AND kind = $2"
_FORGET = "DELETE FROM outbox WHERE user_id = $1"
_DROP_ALL = "DELETE FROM outbox"
# of the indexes alone, and no more of them than there is room for: it is asked every second
_LOOK = (
    "SELECT (SELECT COUNT(*) FROM (SELECT due_at FROM outbox ORDER BY due_at LIMIT $1) AS soonest),"
    " (SELECT MIN(due_at) FROM outbox), (SELECT MIN(expires_at) FROM outbox)"
)
# two nodes that choose the same row: the second finds, once it has the lock, that it is due no longer
_TAKE = (
    "UPDATE outbox SET claim = $2, due_at = $3, attempts = attempts + 1 WHERE due_at <= $1 AND mail_id ="
    " (SELECT mail_id FROM outbox WHERE due_at <= $1 AND expires_at > $1 ORDER BY due_at LIMIT 1)"
    " RETURNING mail_id, sealed, attempts"
)
_DONE = "DELETE FROM outbox WHERE mail_id = $1 AND claim = $2"
_PUT_OFF = "UPDATE outbox SET due_at = $3, claim = NULL WHERE mail_id = $1 AND claim = $2"
_EXPIRE = (
    "DELETE FROM outbox WHERE mail_id IN"  # noqa: S608
    f" (SELECT mail_id FROM outbox WHERE expires_at <= $1 LIMIT {EXPIRE_ROWS}) RETURNING kind"
)


class Letter(msgspec.Struct, frozen=True):
    """What someone is written.  kind: why, one word."""

    kind: str
    to: str
    subject: str
    text: str
    html: str


class _Taken(msgspec.Struct, frozen=True):
    """attempts: this one included."""

    mail: Mail
    claim: str
    attempts: int


class _Seen(NamedTuple):
    """waiting: how many, up to those there is room for.  due_us, ends_us: when the first of them is due, and
    when the first is of no use any more."""

    waiting: int
    due_us: int
    ends_us: int


class Outbox:
    """key: 32 bytes that seal what waits.  try_s: the longest that `mailer` takes for a mail."""

    def __init__(self, config: OutboxConfig, db: Database, mailer: Mailer, key: bytes, try_s: float) -> None:
        self._config = config
        self._db = db
        self._mailer = mailer
        self._aead = AESGCM(key)
        self._claim_us = int((try_s + CLAIM_MARGIN_S) * SECOND_US)
        self._is_full = False

    # writing

    def require_room(self) -> None:
        """Asked before work that ends in a mail nobody can do without. Raises Unavailable."""
        if self._is_full:
            raise Unavailable("Too much mail is waiting to be sent.", retry_after_s=60)

    async def add(
        self, tx: Tx, user: UserId, letter: Letter, *, now_us: int, expires_us: int, replaces: bool
    ) -> None:
        """In the caller's transaction.  replaces: those of this kind that still wait for the same person are
        worth nothing any more."""
        if replaces:
            await tx.run(_REPLACE, user, letter.kind)
        mail_id = new_id()
        sealed = self._seal(mail_id, letter)
        await tx.run(_ADD, mail_id, user, letter.kind, sealed, now_us, expires_us)

    async def add_decoy(self, tx: Tx, user: UserId, letter: Letter, *, now_us: int) -> None:
        """The work of `add`, and nothing is sent: the time an answer takes must not tell whether it is."""
        decoy = msgspec.structs.replace(letter, kind=DECOY)
        await self.add(tx, user, decoy, now_us=now_us, expires_us=now_us, replaces=True)

    async def notify(self, tx: Tx, user: UserId, letter: Letter, *, now_us: int) -> None:
        """`add` for what people should know and can do without: dropped when there is no room."""
        if self._is_full:
            _DROPPED.inc()
            log.warning("notice_dropped", user_id=user, kind=letter.kind)
            return
        expires_us = now_us + self._config.notice_s * SECOND_US
        await self.add(tx, user, letter, now_us=now_us, expires_us=expires_us, replaces=False)

    async def forget(self, tx: Tx, user: UserId) -> None:
        """Nothing that waits for this person is sent any more."""
        await tx.run(_FORGET, user)

    # sending

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send what is due, for ever."""
        task_status.started()
        await every(self._config.poll_s, self.pass_once, log, "outbox_not_read")

    async def pass_once(self) -> None:
        """Send what is due now, each mail once, until the mail server fails. Raises Unavailable."""
        now_us = self._db.now_us()
        seen = await self._db.read(_look, self._config.waiting)
        if seen.ends_us <= now_us:
            await self._expire(now_us)
            seen = await self._db.read(_look, self._config.waiting)
        WAITING.set(seen.waiting)
        self._is_full = seen.waiting >= self._config.waiting
        if seen.due_us > now_us or self._mailer.is_away:
            return
        async with trio.open_nursery() as nursery:
            for _ in range(min(seen.waiting, self._config.senders)):
                nursery.start_soon(self._send_due)

    async def _expire(self, now_us: int) -> None:
        """Delete what is of no use any more."""
        while gone := await self._db.relieve(_all, _EXPIRE, now_us):
            if lost := sum(kind != DECOY for (kind,) in gone):
                _EXPIRED.inc(lost)
                log.warning("mail_expired", count=lost)

    async def _send_due(self) -> None:
        """One mail after another. What keeps one from being sent ends it; the next pass tries again."""
        try:
            while not self._mailer.is_away and (taken := await self._take()) is not None:
                if not await self._try(taken):
                    return
        except Problem as problem:
            log.warning("outbox_not_written", code=problem.code)

    async def _try(self, taken: _Taken) -> bool:
        """Whether the mail server is there."""
        mail_id = taken.mail.mail_id
        try:
            await self._mailer.send(taken.mail)
        except Undeliverable as refusal:
            _REFUSED.inc()
            log.warning("mail_refused", mail_id=mail_id, reason=str(refusal))
            await self._db.relieve(_run, _DONE, mail_id, taken.claim)
            return True
        except (Deferred, Unavailable) as failure:
            _DEFERRED.inc()
            log.info("mail_put_off", mail_id=mail_id, attempts=taken.attempts, reason=str(failure))
            due_us = self._db.now_us() + int(self._pause_s(taken.attempts) * SECOND_US)
            await self._db.relieve(_run, _PUT_OFF, mail_id, taken.claim, due_us)
            return isinstance(failure, Deferred)
        _SENT.inc()
        log.info("mail_sent", mail_id=mail_id, attempts=taken.attempts)
        with trio.move_on_after(NOTE_S, shield=True):  # or it is sent again
            await self._db.relieve(_run, _DONE, mail_id, taken.claim)
        return True

    async def _take(self) -> _Taken | None:
        claim = new_id()
        now_us = self._db.now_us()
        while row := await self._db.relieve(_one, _TAKE, now_us, claim, now_us + self._claim_us):
            mail_id, sealed, attempts = row
            letter = self._unseal(mail_id, bytes(sealed))
            if letter is not None:
                mail = Mail(mail_id, letter.to, letter.subject, letter.text, letter.html)
                return _Taken(mail, claim, attempts)
            log.error("mail_damaged", mail_id=mail_id)
            await self._db.relieve(_run, _DONE, mail_id, claim)
        return None

    def _pause_s(self, attempts: int) -> float:
        doubled: float = self._config.retry_s * 2 ** min(attempts - 1, LATEST_DOUBLING)
        return min(doubled, self._config.longest_retry_s)

    def _seal(self, mail_id: str, letter: Letter) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, msgspec.json.encode(letter), mail_id.encode())

    def _unseal(self, mail_id: str, sealed: bytes) -> Letter | None:
        nonce, content = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return msgspec.json.decode(self._aead.decrypt(nonce, content, mail_id.encode()), type=Letter)
        except (InvalidTag, ValueError):
            return None


async def _look(tx: Tx, limit: int) -> _Seen:
    row = await tx.one(_LOOK, limit)
    if row is None or row[1] is None:
        return _Seen(0, NEVER_US, NEVER_US)
    return _Seen(*row)


async def _run(tx: Tx, sql: str, *args: Value) -> int:
    return await tx.run(sql, *args)


async def _all(tx: Tx, sql: str, *args: Value) -> list[Row]:
    return await tx.all(sql, *args)


async def _one(tx: Tx, sql: str, *args: Value) -> Row | None:
    return await tx.one(sql, *args)


async def drop_all(tx: Tx) -> None:
    """Whatever waits to be sent, whoever it is for: after a restore its links lead nowhere."""
    await tx.run(_DROP_ALL)
