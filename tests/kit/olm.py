"""A device that encrypts: vodozemac behind a client, as a real one would use a server's keys and inboxes."""

from __future__ import annotations

import base64
import json
from typing import Any

import vodozemac as olm

from secureconnect.auth.devicekeys.signing import signable
from secureconnect.client import Client
from secureconnect.identity import new_id

SIGNED = "signed_curve25519"
Json = dict[str, Any]


class OlmDevice:
    """keys: what a server is given of it. sessions: with other devices, by their Curve25519 key."""

    def __init__(self, user_id: str, device_id: str, server_name: str) -> None:
        self.name = f"@{user_id}:{server_name}"
        self.device_id = device_id
        self.account: Any = olm.Account()  # its stubs lack fallback keys
        self.sessions: dict[str, olm.Session] = {}

    @property
    def ed25519(self) -> str:
        return str(self.account.ed25519_key.to_base64())

    @property
    def curve25519(self) -> str:
        return str(self.account.curve25519_key.to_base64())

    def signed(self, document: Json) -> Json:
        signature = self.account.sign(signable(document, "")).to_base64()
        return document | {"signatures": {self.name: {f"ed25519:{self.device_id}": signature}}}

    def device_keys(self) -> Json:
        return self.signed(
            {
                "user_id": self.name,
                "device_id": self.device_id,
                "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
                "keys": {
                    f"ed25519:{self.device_id}": self.ed25519,
                    f"curve25519:{self.device_id}": self.curve25519,
                },
            }
        )

    def master_key(self) -> Json:
        """One that is nobody's yet."""
        public = olm.Account().ed25519_key.to_base64()
        return {"user_id": self.name, "usage": ["master"], "keys": {f"ed25519:{public}": public}}

    def one_time_keys(self, count: int) -> dict[str, Json]:
        self.account.generate_one_time_keys(count)
        keys = self.account.one_time_keys.items()
        made = {f"{SIGNED}:{name}": self.signed({"key": key.to_base64()}) for name, key in keys}
        self.account.mark_keys_as_published()
        return made

    def fallback_key(self) -> dict[str, Json]:
        self.account.generate_fallback_key()
        ((name, key),) = self.account.fallback_key.items()
        self.account.mark_keys_as_published()
        return {f"{SIGNED}:{name}": self.signed({"key": key.to_base64(), "fallback": True})}

    def upload(self, one_time_keys: int = 5) -> Json:
        """The body that publishes it."""
        return {
            "device_keys": self.device_keys(),
            "one_time_keys": self.one_time_keys(one_time_keys),
            "fallback_keys": self.fallback_key(),
        }

    def bundle(self, one_time_keys: int = 20) -> Json:
        """The same in the calls that know bundles, signed over the bytes of the key."""
        self.account.generate_one_time_keys(one_time_keys)
        keys = [
            {"key_id": name, "public_key": key.to_base64()}
            for name, key in self.account.one_time_keys.items()
        ]
        return {
            "identity_key": self.ed25519,
            "signed_pre_key": self.pre_key(),
            "one_time_pre_keys": keys,
        }

    def pre_key(self) -> Json:
        self.account.generate_fallback_key()
        ((name, key),) = self.account.fallback_key.items()
        self.account.mark_keys_as_published()
        signature = self.account.sign(key.to_bytes()).to_base64()
        return {"key_id": name, "public_key": key.to_base64(), "signature": signature}

    # what another device is sent

    def encrypt_for(self, device_keys: Json, key: Json | None, content: Json) -> Json:
        """device_keys: as queried.  key: as claimed, for the first message. Raises olm.SignatureException for
        a key that the other device has not signed."""
        user, device = device_keys["user_id"], device_keys["device_id"]
        other = device_keys["keys"][f"curve25519:{device}"]
        if key is not None:
            signature = key["signatures"][user][f"ed25519:{device}"]
            signer = olm.Ed25519PublicKey.from_base64(device_keys["keys"][f"ed25519:{device}"])
            signer.verify_signature(signable(key, ""), olm.Ed25519Signature.from_base64(signature))
            self.sessions[other] = self.account.create_outbound_session(
                olm.Curve25519PublicKey.from_base64(other), olm.Curve25519PublicKey.from_base64(key["key"])
            )
        kind, body = self.sessions[other].encrypt(json.dumps(content).encode()).to_parts()
        text = base64.b64encode(body).decode()
        return {"sender_key": self.curve25519, "ciphertext": {other: {"type": kind, "body": text}}}

    def decrypt(self, content: Json) -> Json:
        sender = content["sender_key"]
        mine = content["ciphertext"][self.curve25519]
        message = olm.AnyOlmMessage.from_parts(mine["type"], base64.b64decode(mine["body"] + "=="))
        first = message.to_pre_key()
        known = self.sessions.get(sender)
        if known is not None and (first is None or known.session_matches(first)):
            plain = known.decrypt(message)
        else:
            key = olm.Curve25519PublicKey.from_base64(sender)
            self.sessions[sender], plain = self.account.create_inbound_session(key, first)
        opened: Json = json.loads(plain)
        return opened


async def server_name(client: Client) -> str:
    return str((await client.call("GET", "/v1/server"))["server_name"])


class Encrypting:
    """A signed-in client with its device."""

    def __init__(self, client: Client, server_name: str) -> None:
        self.client = client
        self.device = OlmDevice(client.me.user_id, client.me.device_id, server_name)
        self.since: str | None = None
        self.position = 0
        self.groups: dict[str, olm.InboundGroupSession] = {}

    async def publish(self, one_time_keys: int = 5) -> Json:
        return await self.post("keys/upload", self.device.upload(one_time_keys))

    async def post(self, path: str, body: Json) -> Json:
        answer: Json = await self.client.call("POST", f"/v1/e2ee/{path}", body)
        return answer

    async def query(self, *names: str) -> Json:
        answer = await self.post("keys/query", {"device_keys": {name: [] for name in names}})
        devices: Json = answer["device_keys"]
        return devices

    async def claim(self, name: str, device: str) -> tuple[str, Json] | None:
        """The id of a key and itself."""
        answer = await self.post("keys/claim", {"one_time_keys": {name: {device: SIGNED}}})
        found = answer["one_time_keys"].get(name, {}).get(device)
        return None if found is None else next(iter(found.items()))

    async def send(self, messages: Json, txn: str | None = None, kind: str = "m.room.encrypted") -> Json:
        path = f"/v1/e2ee/to-device/{kind}/{txn or new_id()}"
        answer: Json = await self.client.call("PUT", path, {"messages": messages})
        return answer

    async def sync(self) -> Json:
        """What is new; what came before is thereby acknowledged."""
        query = {} if self.since is None else {"since": self.since}
        told: Json = await self.client.call("GET", "/v1/e2ee/sync", query=query)
        self.since = told["next_since"]
        return told

    # groups

    async def share(self, session: olm.GroupSession, devices: list[Json]) -> None:
        """Give the session to these devices."""
        messages: dict[str, Json] = {}
        for keys in devices:
            claimed = await self.claim(keys["user_id"], keys["device_id"])
            assert claimed is not None
            content = {"session_id": session.session_id, "session_key": session.session_key.to_base64()}
            sealed = self.device.encrypt_for(keys, claimed[1], content)
            messages.setdefault(keys["user_id"], {})[keys["device_id"]] = sealed
        await self.send(messages)

    def take(self, told: Json) -> None:
        """The sessions that others have shared; what was told before is no news."""
        for each in told["to_device"]:
            if int(each["position"]) <= self.position:
                continue
            self.position = int(each["position"])
            content = self.device.decrypt(each["content"])
            key = olm.SessionKey(content["session_key"])
            self.groups[content["session_id"]] = olm.InboundGroupSession(key)

    def read(self, session_id: str, text: str) -> str:
        message = olm.MegolmMessage.from_base64(text)
        return str(self.groups[session_id].decrypt(message).plaintext.decode())
