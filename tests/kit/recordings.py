"""Recording a call over HTTP."""

from __future__ import annotations

import hashlib

import httpx

from kit.http import plain
from kit.wait import until
from secureconnect.client import Client


async def allow_recordings(owner: Client, room: str) -> None:
    await owner.call("PUT", f"/v1/conversations/{room}/settings", {"recording_enabled": True})


async def record(recorder: Client, call: str, *others: Client) -> str:
    """The id of a recording to which everybody in the call has agreed.  call: its path."""
    begun = await recorder.call("POST", f"{call}/recording/start", {})
    name = str(begun["recording_id"])
    for each in others:
        await each.call("POST", f"{call}/recording/consent", {"recording_id": name, "consent": True})
    return name


async def send_part(
    client: Client, call: str, name: str, number: int, content: bytes, sha256: str | None = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {client.me.access_token}"}
    query = {"sha256": hashlib.sha256(content).hexdigest() if sha256 is None else sha256}
    async with plain(timeout=30) as http:
        return await http.put(
            f"{client.server}{call}/recordings/{name}/parts/{number}",
            params=query,
            content=content,
            headers=headers,
        )


async def state(client: Client, call: str, name: str) -> str:
    listed = await client.call("GET", f"{call}/recordings")
    return next(str(each["state"]) for each in listed["recordings"] if each["recording_id"] == name)


async def finish(recorder: Client, call: str, name: str, parts: int) -> None:
    """All parts have been sent, and are one file."""
    await recorder.call("POST", f"{call}/recordings/{name}/complete", {"parts": parts})

    async def is_kept() -> bool:
        return await state(recorder, call, name) == "completed"

    await until(is_kept)
