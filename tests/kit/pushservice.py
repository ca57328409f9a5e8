"""A push service over TLS: it writes down what comes, checks nothing, and answers as it is told. And what a
browser does with a push."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h11
import jwt
import trio
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

WAIT_S = 10.0
PROJECT = "a-project"
TOKEN_PATH = "/token"
SEND_PATH = f"/v1/projects/{PROJECT}/messages:send"


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Says:
    """raw: instead of HTTP.  freeze: nothing at all."""

    status: int = 201
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes = b""
    freeze: bool = False


class PushService:
    """said: what is answered at each path; 201 to any other.  ca_file: whom to trust for it."""

    def __init__(self, port: int, ca_file: Path) -> None:
        self.origin = f"https://127.0.0.1:{port}"
        self.port = port
        self.ca_file = ca_file
        self.received: list[Received] = []
        self.said: dict[str, Says] = {}
        self._moved = trio.Event()

    def at(self, path: str) -> list[Received]:
        return [each for each in self.received if each.path == path]

    async def wait_for(self, path: str, count: int = 1) -> Received:
        """The `count`-th that came to this path."""
        with trio.fail_after(WAIT_S):
            while len(self.at(path)) < count:
                await self._moved.wait()
        return self.at(path)[count - 1]

    def take(self, received: Received) -> Says:
        self.received.append(received)
        self._moved.set()
        self._moved = trio.Event()
        return self.said.get(received.path, Says())


@asynccontextmanager
async def push_service(folder: Path) -> AsyncIterator[PushService]:
    """folder: for its certificate."""
    authority = trustme.CA()
    ca_file = folder / "push-ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    async with trio.open_nursery() as nursery:

        async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
            with suppress(trio.BrokenResourceError, h11.RemoteProtocolError):
                async with stream:
                    await _serve(stream, service)

        [listener] = await nursery.start(
            partial(trio.serve_ssl_over_tcp, serve, 0, context, host="127.0.0.1", https_compatible=True)
        )
        service = PushService(listener.transport_listener.socket.getsockname()[1], ca_file)
        yield service
        nursery.cancel_scope.cancel()


async def _serve(stream: trio.SSLStream[trio.SocketStream], service: PushService) -> None:
    talk = h11.Connection(h11.SERVER)
    while True:
        request, body = None, b""
        while True:
            event = talk.next_event()
            if event is h11.NEED_DATA:
                talk.receive_data(bytes(await stream.receive_some(65_536)))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                break
        if request is None:
            return
        headers = {name.decode(): value.decode() for name, value in request.headers}
        says = service.take(Received(request.target.decode(), headers, body))
        if says.freeze:
            await trio.sleep_forever()
        if says.raw:
            await stream.send_all(says.raw)
            return
        answer = [*says.headers.items(), ("content-length", str(len(says.body)))]
        sent = talk.send(h11.Response(status_code=says.status, headers=answer))
        await stream.send_all(sent + talk.send(h11.Data(data=says.body)) + talk.send(h11.EndOfMessage()))
        talk.start_next_cycle()


class Browser:
    """One subscription: what a page would hand to the server, and what opens what comes.

    Written after RFC 8291 from the side that receives, with nothing of the product in it.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self._auth = bytes(range(16))

    @property
    def subscription(self) -> dict[str, str]:
        return {
            "service": "webpush",
            "endpoint": self.endpoint,
            "p256dh": _text(self._point),
            "auth": _text(self._auth),
        }

    @property
    def keys(self) -> tuple[bytes, bytes]:
        return self._point, self._auth

    def open(self, body: bytes) -> dict[str, Any]:
        """What a push says."""
        salt, record, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
        sender, sealed = body[21 : 21 + length], body[21 + length :]
        assert len(sealed) <= record
        shared = self._key.exchange(
            ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender)
        )
        secret = _derived(shared, self._auth, b"WebPush: info\0" + self._point + sender, 32)
        key = _derived(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
        nonce = _derived(secret, salt, b"Content-Encoding: nonce\0", 12)
        content, mark, padding = AESGCM(key).decrypt(nonce, sealed, None).rpartition(b"\x02")
        assert mark
        assert not padding.strip(b"\0")
        opened: dict[str, Any] = json.loads(content)
        return opened


def vapid_claims(received: Received, public_key: str, audience: str) -> dict[str, Any]:
    """Of a push, once its signature is verified with the key that the server tells."""
    scheme, _, fields = received.headers["authorization"].partition(" ")
    assert scheme == "vapid"
    parts = dict(each.strip().split("=", 1) for each in fields.split(","))
    assert parts["k"] == public_key
    padded = public_key + "=" * (-len(public_key) % 4)
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), base64.urlsafe_b64decode(padded))
    claims: dict[str, Any] = jwt.decode(parts["t"], point, algorithms=["ES256"], audience=audience)
    return claims


class Google:
    """A service account, and what Google does with the assertions it makes."""

    def __init__(self, service: PushService) -> None:
        self._key = rsa.generate_private_key(65_537, 2_048)
        self._token_uri = f"{service.origin}{TOKEN_PATH}"
        service.said[TOKEN_PATH] = Says(
            200, body=json.dumps({"access_token": "granted", "expires_in": 3_600}).encode()
        )
        service.said[SEND_PATH] = Says(200, body=b'{"name": "projects/a-project/messages/1"}')

    def write_account(self, path: Path) -> str:
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        account = {
            "type": "service_account",
            "project_id": PROJECT,
            "client_email": "push@a-project.example",
            "private_key": pem,
            "token_uri": self._token_uri,
        }
        path.write_text(json.dumps(account))
        return str(path)

    def claims(self, assertion: str) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            assertion, self._key.public_key(), algorithms=["RS256"], audience=self._token_uri
        )
        return claims


def _derived(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(secret)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
