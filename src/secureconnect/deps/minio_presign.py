"""Signed addresses of the store: good for one method, one object, a time and, for what is sent, a length.

Our own, for the driver signs no header but `host`: whoever held such an address could fill the store.
Source: docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import SplitResult, quote

import msgspec
from miniopy_async.helpers import BaseURL

from ..config import MinioConfig

ALGORITHM = "AWS4-HMAC-SHA256"


class Keys(msgspec.Struct, frozen=True):
    """secret_key: as the store's owner has it."""

    access_key: str
    secret_key: str
    region: str


class Signer:
    """Signs for one bucket, at the endpoint that clients reach; asks nobody. Raises ValueError if that is no
    endpoint."""

    def __init__(self, config: MinioConfig) -> None:
        public = config.public_endpoint or config.endpoint
        scheme = "https://" if config.secure else "http://"
        self._endpoint = BaseURL(public if "://" in public else scheme + public, config.region)
        self._bucket = config.bucket
        self._keys = Keys(config.access_key, config.secret_key, self._endpoint.region or config.region)

    def address(
        self,
        method: str,
        name: str,
        expires_s: int,
        query: Mapping[str, str],
        size_bytes: int | None = None,
    ) -> str:
        """size_bytes: as `presigned` has it."""
        url = self._endpoint.build(method, self._keys.region, bucket_name=self._bucket, object_name=name)
        return presigned(self._keys, method, url, query, datetime.now(UTC), expires_s, size_bytes)


def presigned(
    keys: Keys,
    method: str,
    url: SplitResult,
    query: Mapping[str, str],
    at: datetime,
    expires_s: int,
    size_bytes: int | None = None,
) -> str:
    """url: with its path encoded, and no query.  at: from then on, UTC.
    size_bytes: what the Content-Length must be; None: it is not looked at."""
    day, moment = f"{at:%Y%m%d}", f"{at:%Y%m%dT%H%M%SZ}"
    scope = f"{day}/{keys.region}/s3/aws4_request"
    headers = {} if size_bytes is None else {"content-length": str(size_bytes)}
    headers["host"] = url.netloc
    names = ";".join(headers)
    asked = _encoded(
        {
            **query,
            "X-Amz-Algorithm": ALGORITHM,
            "X-Amz-Credential": f"{keys.access_key}/{scope}",
            "X-Amz-Date": moment,
            "X-Amz-Expires": str(expires_s),
            "X-Amz-SignedHeaders": names,
        }
    )
    told = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = "\n".join((method, url.path, asked, told, names, "UNSIGNED-PAYLOAD"))
    signed = "\n".join((ALGORITHM, moment, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{keys.secret_key}".encode()
    for each in (day, keys.region, "s3", "aws4_request"):
        key = _hmac(key, each)
    return url._replace(query=f"{asked}&X-Amz-Signature={_hmac(key, signed).hex()}").geturl()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _encoded(query: Mapping[str, str]) -> str:
    """In the order that is signed."""
    encoded = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in encoded)
