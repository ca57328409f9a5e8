"""What the library of the web client once said to a server, said again: it is taken, and answered as it was.

How it is recorded: `kit.record_olm`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from secureconnect.deps.contracts import Tx
from secureconnect.identity import DeviceId, Principal, SessionId, UserId

from .harness import PASSWORD, Node, Site
from .test_devicekeys import bring_together

RECORDING = json.loads(Path(__file__).with_name("olm_recording.json").read_text("utf-8"))
_TIMES = re.compile(r'"(position|next_since)": ?"[0-9.]+"')


def timeless(answer: Any) -> Any:
    """Without what another time makes another: places in a queue."""
    return json.loads(_TIMES.sub(r'"\1": ""', json.dumps(answer)))


async def take_over(node: Node, user: str, recorded: dict[str, str]) -> Principal:
    """A fresh account gets the ids that are signed in the recording."""
    person = await node.register(user)

    async def unit(tx: Tx) -> None:
        for table in ("users", "devices", "sessions"):
            ids = (recorded["user_id"], person.user_id)
            await tx.run(f"UPDATE {table} SET user_id = $1 WHERE user_id = $2", *ids)
        for table in ("devices", "sessions"):
            ids = (recorded["device_id"], person.device_id)
            await tx.run(f"UPDATE {table} SET device_id = $1 WHERE device_id = $2", *ids)

    await node.db.write(unit)
    caller = (UserId(recorded["user_id"]), SessionId(person.session_id), DeviceId(recorded["device_id"]))
    return Principal(*caller, "user", node.db.now_us() + 900_000_000)


async def test_the_recording_is_taken_and_answered_as_it_was(site: Site) -> None:
    node = await site.node(server_name=RECORDING["server_name"])
    callers = [
        await take_over(node, name, each)
        for name, each in zip(("ann", "bob"), RECORDING["people"], strict=True)
    ]
    await bring_together(node.db, *callers)
    since: dict[int, str] = {}
    for number, each in enumerate(RECORDING["exchanges"]):
        path, person = each["path"].partition("?")[0], each["person"]
        body = each["body"]
        if path.endswith("/signing-keys"):
            body = body | {"password": PASSWORD}
        is_sync = path.endswith("/sync")
        answer = await node.call(
            each["method"],
            path,
            body,
            callers[person],
            {"since": since[person]} if is_sync and person in since else {},
        )
        if is_sync:
            since[person] = answer["next_since"]
        assert timeless(answer) == timeless(each["answer"]), (number, path)
    said = {each["path"].split("/")[3].partition("?")[0] for each in RECORDING["exchanges"]}
    assert said == {"keys", "sync", "signing-keys", "signatures", "to-device"}
