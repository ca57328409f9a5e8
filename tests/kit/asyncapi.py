"""Frames held against what docs/asyncapi.yaml says of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jsonschema_rs
import trio
import yaml

from kit.wait import until
from secureconnect.client import Client
from secureconnect.client.wire import Lost, Wire, connect

FILE = Path(__file__).parent.parent.parent / "docs" / "asyncapi.yaml"

Json = dict[str, Any]


class Contract:
    """seen: the messages that have gone over a socket so far, as channel and name in the document."""

    def __init__(self) -> None:
        self.document: Json = yaml.load(FILE.read_text("utf-8"), Loader=yaml.CSafeLoader)
        self.seen: set[tuple[str, str]] = set()
        self._schemas = self.document["components"]["schemas"]
        self._validators: dict[str, jsonschema_rs.Draft202012Validator] = {}

    @property
    def messages(self) -> set[tuple[str, str]]:
        return {
            (name, message)
            for name, channel in self.document["channels"].items()
            for message in channel["messages"]
        }

    def check(self, channel: str, side: str, frame: Json) -> None:
        """It is one of the messages that this side says in the channel, and has no field beyond it."""
        faults = {}
        for name, message in self.document["channels"][channel]["messages"].items():
            schema = message["payload"]["$ref"].rpartition("/")[2]
            if name.startswith(side) and frame["type"] in self._schemas[schema]["properties"]["type"]["enum"]:
                fault = self._fault(schema, frame)
                if fault is None:
                    self.seen.add((channel, name))
                    return
                faults[name] = fault
        raise AssertionError(f"{side} says {frame} in {channel}: {faults or 'not documented'}")

    def _fault(self, schema: str, frame: Json) -> str | None:
        if schema not in self._validators:
            whole = {"$ref": f"#/components/schemas/{schema}", "components": {"schemas": self._schemas}}
            self._validators[schema] = jsonschema_rs.Draft202012Validator(whole)
        about = self._schemas[schema]
        further = set() if about.get("additionalProperties") else frame.keys() - about["properties"].keys()
        if further:
            return f"fields that are not documented: {further}"
        errors = self._validators[schema].iter_errors(frame)
        return next((f"{list(each.instance_path)}: {each.message}" for each in errors), None)


class Socket:
    """One that is open; all that goes over it is held against the contract.  heard: what it was told.
    code: with which it was closed."""

    def __init__(self, contract: Contract, channel: str, wire: Wire) -> None:
        self.heard: list[Json] = []
        self.code: int | None = None
        self.wire = wire
        self._contract = contract
        self._channel = channel
        self._refs = 0

    async def listen(self) -> None:
        """Until it is closed."""
        try:
            while True:
                frame = json.loads(await self.wire.receive())
                self._contract.check(self._channel, "server", frame)
                self.heard.append(frame)
        except Lost as lost:
            self.code = lost.code

    def of(self, kind: str, /, **fields: object) -> list[Json]:
        return [each for each in self.heard if each["type"] == kind and fields.items() <= each.items()]

    async def hears(self, kind: str, /, **fields: object) -> Json:
        """The first of its kind with these fields, among all it was told."""
        try:
            await until(lambda: bool(self.of(kind, **fields)))
        except trio.TooSlowError:
            raise AssertionError(f"no {kind} with {fields} in {self.heard}") from None
        return self.of(kind, **fields)[0]

    async def say(self, kind: str, /, **fields: Any) -> Json:
        """The answer."""
        self._refs += 1
        frame = {"type": kind, "ref": self._refs, **fields}
        self._contract.check(self._channel, "client", frame)
        await self.wire.send(json.dumps(frame))
        await until(lambda: any(each.get("ref") == self._refs for each in self.heard))
        return next(each for each in self.heard if each.get("ref") == self._refs)


@asynccontextmanager
async def opened(contract: Contract, channel: str, client: Client, **query: str) -> AsyncIterator[Socket]:
    path = contract.document["channels"][channel]["address"]
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    headers = [(b"authorization", f"Bearer {client.me.access_token}".encode())]
    async with (
        connect(f"ws{client.server.removeprefix('http')}{path}?{asked}", headers) as wire,
        trio.open_nursery() as nursery,
    ):
        socket = Socket(contract, channel, wire)
        nursery.start_soon(socket.listen)
        yield socket
        nursery.cancel_scope.cancel()
