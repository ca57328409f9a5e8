"""A real HAProxy, nginx or Caddy, run from the very file that operators read, with addresses filled in."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme

from kit.keeper import keep
from kit.ports import free_port

CONFIG = Path(__file__).parents[2] / "config"
START_S = 10.0
STOP_S = 10.0

# what the files say of the two nodes
ADDRESSES = ("10.0.0.11:8080", "10.0.0.12:8080")
STORE = "10.0.0.22:9000"
NOWHERE = "127.0.0.1:9"
# its name for the store, and the one it has here: the loopback has more than one address
FILES, FILES_HERE = "files.example.org", "127.0.0.2"
NODE_IDS = ("00000000-0000-7000-8000-00000000000a", "00000000-0000-7000-8000-00000000000b")


def fill_in(text: str, changes: dict[str, str]) -> str:
    """Each of these must be there, or the file says something the tests do not know."""
    for old, new in changes.items():
        assert old in text, f"{old!r} is not in the file"
        text = text.replace(old, new)
    return text


def certificate(folder: Path) -> tuple[Path, Path]:
    """A chain and its key."""
    made = trustme.CA().issue_cert("chat.example.org")
    chain, key = folder / "chat.crt", folder / "chat.key"
    chain.write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    return chain, key


class Balancer(ABC):
    """One balancer before these nodes, on a free port of the loopback, without TLS.

    nodes: `host:port` of each.  node_ids: as they stand in the path of a spooled file.  port: a free one
    unless given.  store: `host:port` of what keeps files; HAProxy leads there who asks for FILES_HERE.
    """

    program = ""

    def __init__(
        self,
        folder: Path,
        nodes: Sequence[str],
        node_ids: Sequence[str] = NODE_IDS,
        *,
        port: int | None = None,
        store: str = NOWHERE,
    ) -> None:
        if shutil.which(self.program) is None:
            pytest.skip(f"no {self.program}")
        self.port = port or free_port()
        self.store = store
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._log = folder / f"{self.program}.log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        changes = dict(zip(ADDRESSES, nodes, strict=True)) | dict(zip(NODE_IDS, node_ids, strict=True))
        self.file = folder / self.program
        self.file.write_text(self.filled_in(changes))

    @abstractmethod
    def filled_in(self, changes: dict[str, str]) -> str:
        """The operator's file with this test's addresses."""

    @abstractmethod
    def command(self) -> list[str]: ...

    def start(self) -> None:
        """Returns when it listens."""
        with self._log.open("ab") as log:
            self._process = keep(subprocess.Popen(self.command(), stdout=log, stderr=subprocess.STDOUT))
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.close()
        raise AssertionError(f"{self.program} does not listen:\n{self.output()}")

    def output(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class Haproxy(Balancer):
    program = "haproxy"

    def filled_in(self, changes: dict[str, str]) -> str:
        return fill_in(
            (CONFIG / "haproxy.cfg").read_text(),
            changes
            | {
                "maxconn 40000": "maxconn 2000",  # as many descriptors as anybody may open
                "    user haproxy\n    group haproxy\n": "",
                "    stats socket /run/haproxy/admin.sock mode 600 level admin\n": "",
                "bind :80\n": f"bind 127.0.0.1:{self.port},{FILES_HERE}:{self.port}\n",
                STORE: self.store,
                FILES: FILES_HERE,
                "    bind :443 ssl crt /etc/haproxy/chat.pem alpn h2,http/1.1\n": "",
                "    http-request redirect scheme https code 308 unless { ssl_fc }\n": "",
            },
        )

    def command(self) -> list[str]:
        return ["haproxy", "-db", "-f", str(self.file)]


class Nginx(Balancer):
    program = "nginx"

    def filled_in(self, changes: dict[str, str]) -> str:
        folder = self._folder
        whole = (CONFIG / "nginx.conf").read_text()
        plain = whole.index("    server {\n        listen 80;")  # the one that sends people to TLS
        rest = whole.index("    server {\n        listen 443")
        text = fill_in(
            whole[:plain] + whole[rest:],
            changes
            | {
                "worker_processes auto": "worker_processes 1",
                "worker_rlimit_nofile 65536": "worker_rlimit_nofile 1024",
                "worker_connections 32768": "worker_connections 512",
                "pid /run/nginx.pid": f"pid {folder}/nginx.pid",
                "listen 443 ssl http2": f"listen 127.0.0.1:{self.port}",
                "        ssl_certificate     /etc/nginx/chat.crt;\n": "",
                "        ssl_certificate_key /etc/nginx/chat.key;\n": "",
            },
        )
        own = "".join(
            f"    {kind}_temp_path {folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return fill_in(text, {"http {\n": "http {\n" + own})

    def command(self) -> list[str]:
        return ["nginx", "-c", str(self.file), "-p", str(self._folder), "-g", "daemon off;"]


class Caddy(Balancer):
    program = "caddy"

    def filled_in(self, changes: dict[str, str]) -> str:
        text = fill_in(
            (CONFIG / "Caddyfile").read_text(),
            changes | {"chat.example.org {": f"http://127.0.0.1:{self.port} {{"},
        )
        return "{\n\tadmin off\n}\n" + text

    def command(self) -> list[str]:
        keeps = [f"XDG_{kind}_HOME={self._folder}" for kind in ("DATA", "CONFIG")]
        return ["env", *keeps, "caddy", "run", "--adapter", "caddyfile", "--config", str(self.file)]
