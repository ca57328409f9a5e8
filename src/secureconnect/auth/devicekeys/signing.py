"""Keys and signatures: base64 and canonical JSON as Olm clients write them, Ed25519, and what is no key.

Source: the Matrix specification, "Signing JSON" and "Unpadded Base64".
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ...errors import Invalid, KeySignatureWrong

KEY_BYTES = 32
SIGNATURE_BYTES = 64
SAFE = 2**53 - 1  # the largest whole number that canonical JSON takes
DEPTH = 32

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P  # of Ed25519. Source: RFC 8032, section 5.1
# u of the points of small order on Curve25519. Source: RFC 7748, section 6.1, and cr.yp.to/ecdh.html.
_SMALL_U = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _P - 1,
    }
)


def _recovered_small_y() -> frozenset[int]:
    """y of the eight points of small order on Ed25519: images of the small u, y = (u - 1)/(u + 1)."""
    found = {_P - 1, 1}  # of u = 0 and of the point at infinity
    for u in _SMALL_U:
        if (u + 1) % _P:
            found.add((u - 1) * pow(u + 1, -1, _P) % _P)
    return frozenset(found)


_SMALL_Y = _recovered_small_y()


def key_of(text: str, field: str, *, is_signing: bool = False) -> bytes:
    """The 32 bytes of a public key in base64, padded or not. Raises Invalid for what is none, for another
    way to write one, and for a point of small order, which makes every secret and every signature the same.

    is_signing: of Ed25519, else of Curve25519.
    """
    key = _decoded(text, KEY_BYTES, field)
    number = int.from_bytes(key, "little")
    if is_signing:
        number &= 2**255 - 1  # the highest bit is the sign of x
    if number % _P in (_SMALL_Y if is_signing else _SMALL_U):
        raise Invalid("This key is weak: it is a point of small order.", details={"field": field})
    if number >= _P or (is_signing and not _is_on_curve(number)):
        raise Invalid("This is no key of its curve.", details={"field": field})
    return key


def _is_on_curve(y: int) -> bool:
    """Whether a point of Ed25519 has this y: x² = (y² - 1)/(dy² + 1) has a root, by Euler's criterion."""
    return pow((y * y - 1) * (_D * y * y + 1), (_P - 1) // 2, _P) == 1


def text_of(key: bytes) -> str:
    """Base64 without padding: the one form keys are kept and compared in."""
    return base64.b64encode(key).rstrip(b"=").decode()


def require_signed(message: bytes, signature: str, key: bytes, field: str) -> None:
    """Raises Invalid for what is no signature, KeySignatureWrong for one that `key` has not made."""
    given = _decoded(signature, SIGNATURE_BYTES, field)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(given, message)
    except (InvalidSignature, ValueError):
        raise KeySignatureWrong(details={"field": field}) from None


def require_signed_document(
    document: dict[str, Any], signer: str, key_id: str, key: bytes, field: str
) -> None:
    """document: with `signatures`, among them the one of `signer` with `key_id`."""
    require_signed(signable(document, field), signature_in(document, signer, key_id, field), key, field)


def signature_in(document: dict[str, Any], signer: str, key_id: str, field: str) -> str:
    signatures = document.get("signatures")
    mine = signatures.get(signer) if isinstance(signatures, dict) else None
    signature = mine.get(key_id) if isinstance(mine, dict) else None
    if not isinstance(signature, str):
        raise Invalid(f"The signature of {key_id} is missing.", details={"field": field})
    return signature


def signable(document: dict[str, Any], field: str) -> bytes:
    """What a signature covers. Raises Invalid for what canonical JSON has no form for, and for `signatures`
    to which none could be added."""
    _require_signatures(document.get("signatures", {}), field)
    covered = {name: value for name, value in document.items() if name not in ("signatures", "unsigned")}
    _require_shallow(covered, field, DEPTH)
    _check(covered, field)
    return json.dumps(covered, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def _require_signatures(given: Any, field: str) -> None:
    try:
        msgspec.convert(given, dict[str, dict[str, str]])
    except msgspec.ValidationError:
        raise Invalid("Signatures are texts, by signer and key.", details={"field": field}) from None


def written(document: Any, field: str) -> str:
    """As it is kept. Raises Invalid for what is nested so deep that nobody could write or read it."""
    _require_shallow(document, field, DEPTH)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _require_shallow(value: Any, field: str, depth: int) -> None:
    if depth == 0:
        raise Invalid("This is nested too deep.", details={"field": field})
    if isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            _require_shallow(each, field, depth - 1)


def _check(value: Any, field: str) -> None:
    if isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            _check(each, field)
    elif isinstance(value, float) or (isinstance(value, int) and not -SAFE <= value <= SAFE):
        raise Invalid("Signed JSON has whole numbers of 53 bits only.", details={"field": field})


def _decoded(text: str, size: int, field: str) -> bytes:
    bare = text.rstrip("=")
    try:
        found = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != size or text_of(found) != bare:
        raise Invalid(f"This is not {size} bytes in base64.", details={"field": field})
    return found
