"""Web Push as it goes over the wire: what is sent, sealed for one browser, and who sends it.

Sources: RFC 8291 (encryption), RFC 8188 (its coding), RFC 8292 (VAPID).
"""

from __future__ import annotations

import base64
import os
from collections import OrderedDict

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    derive_private_key,
    generate_private_key,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CURVE = SECP256R1()
POINT_BYTES = 65
AUTH_BYTES = 16
KEY_BYTES = 32
TAG_BYTES = 16
RECORD_BYTES = 4096  # RFC 8291, section 4: what every push service takes
PADDED_BYTES = 256  # the length tells nothing of what is sent
CLAIM_S = 12 * 3_600  # 24 h at most
RENEW_S = 6 * 3_600
ORIGINS = 1_000  # whose signed claims are kept


def encrypt(
    content: bytes,
    p256dh: bytes,
    auth: bytes,
    *,
    padded_bytes: int = PADDED_BYTES,
    salt: bytes | None = None,
    key: EllipticCurvePrivateKey | None = None,
) -> bytes:
    """The body of a push, `aes128gcm`, in one record.

    p256dh, auth: of the subscription.  salt, key: of this one alone; random if left out.  Raises ValueError
    for what is no point of the curve, and for what is too long.
    """
    salt = os.urandom(16) if salt is None else salt
    key = generate_private_key(CURVE) if key is None else key
    record = content + b"\x02" + bytes(max(0, padded_bytes - len(content)))
    if len(record) + TAG_BYTES > RECORD_BYTES:
        raise ValueError("a push of more than one record")
    own = point_of(key.public_key())
    shared = key.exchange(ECDH(), EllipticCurvePublicKey.from_encoded_point(CURVE, p256dh))
    secret = _hkdf(shared, auth, b"WebPush: info\0" + p256dh + own, 32)
    content_key = _hkdf(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _hkdf(secret, salt, b"Content-Encoding: nonce\0", 12)
    header = salt + RECORD_BYTES.to_bytes(4, "big") + bytes([len(own)]) + own
    return header + AESGCM(content_key).encrypt(nonce, record, None)


def is_point(p256dh: bytes) -> bool:
    """Whether pushes can be sealed for it."""
    try:
        EllipticCurvePublicKey.from_encoded_point(CURVE, p256dh)
    except ValueError:
        return False
    return len(p256dh) == POINT_BYTES  # its short form browsers do not make


def new_key() -> bytes:
    """A private key for `Vapid`, 32 bytes."""
    return generate_private_key(CURVE).private_numbers().private_value.to_bytes(KEY_BYTES, "big")


class Vapid:
    """Says to push services who sends.  key: of `new_key`.  contact: a mailto: or https: address of the
    operator."""

    def __init__(self, key: bytes, contact: str) -> None:
        self._key = derive_private_key(int.from_bytes(key, "big"), CURVE)
        self._contact = contact
        self.public_key = to_base64url(point_of(self._key.public_key()))
        self._signed: OrderedDict[str, tuple[int, str]] = OrderedDict()

    def authorization(self, origin: str, now_s: int) -> str:
        """The header for a push service.  origin: scheme, host and port of the endpoint."""
        signed_s, token = self._signed.get(origin, (0, ""))
        if now_s >= signed_s + RENEW_S:
            claims = {"aud": origin, "exp": now_s + CLAIM_S, "sub": self._contact}
            token = jwt.encode(claims, self._key, algorithm="ES256")
            self._signed[origin] = now_s, token
            if len(self._signed) > ORIGINS:
                self._signed.popitem(last=False)
        return f"vapid t={token}, k={self.public_key}"


def point_of(key: EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def to_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(secret)
