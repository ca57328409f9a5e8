"""TLS: the certificate this server shows, and a transport through it.

The transport works on memory (`ssl.MemoryBIO`), not on the socket: encrypting never waits, so that whoever
sends treats TLS and plain alike.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import structlog
import trio

from ..config import GatewayConfig
from ..metrics import gauge
from ..settings import BadSetting
from .transport import DISK, RECEIVE_BYTES, SEND_BYTES, Transport

log = structlog.get_logger(module="gateway")

EXPIRES = gauge(
    "secureconnect_gateway_certificate_expires_seconds",
    "When the certificate in use ends, in Unix seconds; 0 without TLS.",
)

RECORD_BYTES = 16_384  # of plain text in the largest record
SLICE_BYTES = 4_096  # that pass a memory BIO at once: it never gives back what it once grew to
OVERHEAD_BYTES = (
    65_536  # of what brings no data: handshakes, key updates, empty records, the start of a record
)
UNTAKEN_BYTES = (
    2 * SEND_BYTES
)  # may wait when OpenSSL says something of its own; a client's data waits elsewhere
OVERHEAD_PER_BYTE = 64  # and for each byte of data, so that a record of one byte pays for itself


class Certificates:
    """The certificate for new connections. Raises BadSetting when its files cannot be used."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self.context: ssl.SSLContext | None = None
        if config.tls_certificate:
            self._use(*_load(config))
        elif config.tls_key:
            raise BadSetting("gateway.tls_key is set, but gateway.tls_certificate is not")

    async def reload(self) -> None:
        """Read the files again; what cannot be used is logged, and the old certificate stays."""
        if self.context is None:
            return
        try:
            self._use(*await trio.to_thread.run_sync(_load, self._config))
        except BadSetting as exc:
            log.error("certificate_not_reloaded", error=str(exc))

    def _use(self, context: ssl.SSLContext, ends: datetime) -> None:
        self.context = context
        EXPIRES.set(ends.timestamp())
        log.info("certificate_loaded", ends=ends.isoformat())


def _load(config: GatewayConfig) -> tuple[ssl.SSLContext, datetime]:
    """The context, and when its certificate ends."""
    from cryptography import x509
    from hypercorn.config import Config as EngineConfig

    engine = EngineConfig()
    engine.certfile = config.tls_certificate
    engine.keyfile = config.tls_key or config.tls_certificate
    engine.keyfile_password = ""  # of a locked key OpenSSL would ask the terminal for one
    key = "gateway.tls_certificate"
    path = config.tls_certificate
    try:
        # Each file by itself first: of the two, OpenSSL does not say which it means.
        leaf = x509.load_pem_x509_certificates(Path(path).read_bytes())[0]
        if config.tls_key:
            key, path = "gateway.tls_key", config.tls_key
            Path(path).read_bytes()
        context = engine.create_ssl_context()
    except ssl.SSLError as exc:
        mismatch = exc.reason == "KEY_VALUES_MISMATCH"
        reason = "it is not the certificate's key" if mismatch else f"OpenSSL refuses it ({exc.reason})"
        raise BadSetting(f"{key} = {path!r} cannot be used: {reason}") from exc
    except OSError as exc:
        raise BadSetting(f"{key} = {path!r} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise BadSetting(f"{key} = {path!r} cannot be used: no certificate in PEM") from exc
    assert context is not None
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context, leaf.not_valid_after_utc


class TlsTransport(Transport):
    """A `Transport` through TLS; use nothing but `handshake` before that has returned.

    alpn: the protocol agreed on, or None.
    """

    is_secure = True

    def __init__(
        self, sock: socket.socket, address: str, config: GatewayConfig, context: ssl.SSLContext
    ) -> None:
        super().__init__(sock, address, config)
        self.alpn: str | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._overhead = 0  # bytes received that brought nothing
        self._unread = b""  # decrypted already
        self._is_receiving = False

    async def handshake(self, first: bytes) -> None:
        """Agree with the client; the caller bounds the time. Afterwards `gone` if that failed: the client has
        been told why, unless it does not speak TLS at all.

        first: what was read already.
        """
        sealed = first
        while not self.gone:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._hand_out()
            except ssl.SSLError:
                self._fail()
                return
            else:
                self._hand_out()
                self.alpn = self._tls.selected_alpn_protocol()
                self._unread = self._decrypt(sealed)
                return
            await self.drain()
            sealed = sealed or await super().receive()
            if not sealed:
                self.lose()
            self._incoming.write(sealed[:SLICE_BYTES])
            sealed = sealed[SLICE_BYTES:]

    # reading

    async def receive(self) -> bytes:
        self._is_receiving = True
        try:
            while not self._unread:
                sealed = await super().receive()
                if not sealed:
                    return b""
                self._unread = self._decrypt(sealed)
        finally:
            self._is_receiving = False
        data, self._unread = self._unread, b""
        return data

    def look(self) -> None:
        """Decrypts what has come, unless somebody waits for it: who leaves says so before the FIN."""
        super().look()
        if self._unread or self._is_receiving or self.hung_up:
            return
        try:
            self._unread = self._decrypt(self._sock.recv(RECEIVE_BYTES))
        except BlockingIOError:
            pass
        except OSError:
            self.lose()

    def _decrypt(self, sealed: bytes) -> bytes:
        """What the records say that are whole now."""
        parts = []
        try:
            for start in range(0, len(sealed) or 1, SLICE_BYTES):
                self._incoming.write(sealed[start : start + SLICE_BYTES])
                with suppress(ssl.SSLWantReadError):
                    while self._incoming.pending or self._tls.pending():
                        parts.append(self._tls.read(RECORD_BYTES))
                        if not parts[-1]:  # close_notify
                            self.hung_up = True
                            break
        except ssl.SSLZeroReturnError:  # close_notify, after our own
            self.hung_up = True
        except ssl.SSLError:
            self._fail()
            return b""
        self._hand_out()  # our own part of a key update
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._overhead = max(0, self._overhead + len(sealed) - OVERHEAD_PER_BYTE * len(data))
        if self._overhead > OVERHEAD_BYTES:
            self.cut()
        return data

    # writing

    def send(self, data: bytes | memoryview) -> bool:
        if self.gone or self.ended:
            return True
        sealed = []
        try:
            for start in range(0, len(data), SLICE_BYTES):
                self._tls.write(data[start : start + SLICE_BYTES])
                sealed.append(self._outgoing.read())
        except ssl.SSLError:
            self._fail()
            return True
        return super().send(sealed[0] if len(sealed) == 1 else b"".join(sealed))

    async def send_file(
        self, file: BinaryIO, start: int, size: int, sent: Callable[[int], None] | None = None
    ) -> None:
        """In pieces that are read in a thread: the disk may be slow."""
        await self.drain()
        end = start + size
        while start < end and not self.gone:
            piece = await trio.to_thread.run_sync(
                os.pread, file.fileno(), min(SEND_BYTES, end - start), start, limiter=DISK
            )
            if not piece:
                self.cut()
                return
            start += len(piece)
            await self.send_all(piece)
            if sent is not None:
                sent(len(piece))

    def _hand_out(self) -> None:
        """Send what OpenSSL says of itself. Whoever asks for that and never reads it is cut."""
        if not self._outgoing.pending or super().send(self._outgoing.read()):
            return
        if sum(map(len, self._waiting)) > UNTAKEN_BYTES:
            self.cut()

    # ending

    def end(self) -> None:
        if not self.ended and not self.gone:
            with suppress(ssl.SSLError):  # we do not wait for the client's own close_notify
                self._tls.unwrap()
            self._hand_out()
        super().end()

    def _fail(self) -> None:
        """The client broke the protocol: it gets OpenSSL's alert, if there is one, and no more."""
        self._hand_out()
        super().end()
        self.lose()
