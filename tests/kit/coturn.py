"""A private coturn with the settings of `config/coturn.conf`, but for where it is and whom it relays to."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import trustme

from .keeper import keep
from .ports import free_port

PROGRAM = "turnserver"
CONF = Path(__file__).parents[2] / "config" / "coturn.conf"
SECRET = "a secret of coturn and us, 32 bytes"
START_S = 10.0
STOP_S = 10.0
ASKED_S = 1.0
BINDING = bytes.fromhex("000100002112a442") + bytes(12)
AF = (socket.AF_INET, socket.AF_INET6)


class Coturn:
    """On the loopback, IPv4 and IPv6. It relays to the loopback too, which the file denies.

    options: further ones of its command line, which go before those of the file.
    is_strict: whom it relays to is left as it is in the file.
    """

    def __init__(self, folder: Path, *options: str, is_strict: bool = False) -> None:
        found = shutil.which(PROGRAM)
        if found is None:
            pytest.skip(f"no {PROGRAM}")
        self._program = found
        self._folder = folder
        loopback = ["--allow-loopback-peers", "--allowed-peer-ip=127.0.0.1", "--allowed-peer-ip=::1"]
        self._options = [*([] if is_strict else loopback), *options]
        self.authority_file = folder / "authority.pem"  # whom to trust for its certificate
        self.port, self.tls_port = free_port(), free_port()
        self.secret = SECRET
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"turn:127.0.0.1:{self.port}?transport=udp"

    @property
    def tls_url(self) -> str:
        return f"turns:127.0.0.1:{self.tls_port}?transport=tcp"

    @property
    def log(self) -> str:
        return (self._folder / "coturn.log").read_text("utf-8", "replace")

    def start(self) -> None:
        """Returns when it answers."""
        self._folder.mkdir(exist_ok=True)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority_file)
        certificate = self._folder / "coturn.pem"
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
            certificate
        )
        where = [f"--{kind}-ip={ip}" for kind in ("listening", "relay") for ip in ("127.0.0.1", "::1")]
        ports = [f"--listening-port={self.port}", f"--tls-listening-port={self.tls_port}"]
        files = [f"--pidfile={self._folder / 'pid'}", f"--userdb={self._folder / 'db'}", "--log-file=stdout"]
        files += [f"--cert={certificate}", f"--pkey={certificate}"]
        with (self._folder / "coturn.log").open("wb") as log:
            self._process = keep(
                subprocess.Popen(
                    [
                        *(self._program, "-c", str(CONF), "--relay-threads=1"),
                        *(*where, *ports, *files, f"--static-auth-secret={self.secret}", *self._options),
                    ],
                    cwd=self._folder,
                    stdout=log,
                    stderr=log,
                )
            )
        give_up = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, f"{PROGRAM} ended at once:\n{self.log}"
            assert time.monotonic() < give_up, f"{PROGRAM} does not answer:\n{self.log}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        """Wherever it is asked: it opens its ports one after another."""
        try:
            for host in ("127.0.0.1", "::1"):
                for port in (self.port, self.tls_port):
                    socket.create_connection((host, port), ASKED_S).close()
                with socket.socket(AF[":" in host], socket.SOCK_DGRAM) as asking:
                    asking.settimeout(ASKED_S)
                    asking.connect((host, self.port))
                    asking.send(BINDING)
                    asking.recv(1_500)
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_S)
