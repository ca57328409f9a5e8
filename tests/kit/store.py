"""A real S3 server as a process: MinIO when it is installed, else SeaweedFS from PyPI."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from .freeze import freeze
from .keeper import keep, keep_files
from .ports import free_port

ACCESS_KEY = "secureconnect"
SECRET_KEY = "a-secret-for-tests"
REGION = "us-east-1"
START_S = 60.0
STOP_S = 20.0
LOOK_S = 0.05

# one volume for each bucket instead of seven: a test has a bucket of its own
MASTER = "[master.volume_growth]\ncopy_1 = 1\n"


class ObjectStore:
    """One folder and the S3 server on it; its port and data stay the same over restarts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = [free_port() for _ in range(8)]
        for port in self._ports:
            keep_files(_socket_files(port))
        self.endpoint = f"127.0.0.1:{self._ports[0]}"
        self.url = f"http://{self.endpoint}"

    @staticmethod
    def program() -> str | None:
        """The server's path, or None: nothing to test against."""
        beside = Path(sys.executable).parent / "weed"
        return shutil.which("minio") or shutil.which("weed") or (str(beside) if beside.exists() else None)

    def start(self) -> None:
        """Returns when it serves S3."""
        program = self.program()
        assert program is not None
        arguments, env = self._minio() if Path(program).name == "minio" else self._seaweed()
        with (self._folder / "log").open("ab") as log:
            self._process = keep(
                subprocess.Popen([program, *arguments], cwd=self._folder, env=env, stdout=log, stderr=log)
            )
        self._wait()

    def kill(self) -> None:
        """SIGKILL: as when the power goes."""
        self._signal(signal.SIGKILL)
        self._running.wait(STOP_S)

    @property
    def filer_port(self) -> int:
        """Of SeaweedFS: its folder, which asks nobody for a key."""
        return self._ports[5]

    def freeze(self) -> None:
        """It accepts what the kernel accepts for it, and never answers."""
        freeze(self._running.pid)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def heal(self) -> None:
        """Running again, whatever a test has done to it."""
        if self._running.poll() is None:
            self.thaw()
        else:
            self.start()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        for port in self._ports:
            for path in _socket_files(port).parent.glob(_socket_files(port).name):
                path.unlink(missing_ok=True)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the store was not started"
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    def _wait(self) -> None:
        """Until it can store: SeaweedFS opens its ports before it can."""
        until = time.monotonic() + START_S
        with httpx.Client(trust_env=False, verify=False, timeout=2.0) as http:
            while time.monotonic() < until:
                assert self._running.poll() is None, (self._folder / "log").read_text()[-2000:]
                try:
                    if self._stores(http):
                        return
                except httpx.TransportError:
                    pass
                time.sleep(LOOK_S)
        raise AssertionError(
            f"no S3 server within {START_S} s:\n{(self._folder / 'log').read_text()[-2000:]}"
        )

    def _stores(self, http: httpx.Client) -> bool:
        if Path(self.program() or "").name == "minio":
            return http.get(f"{self.url}/minio/health/ready").is_success
        filer = f"http://127.0.0.1:{self.filer_port}"
        written = http.put(f"{filer}/ready", content=b"a file that is too large to be kept in its folder")
        return written.is_success and http.get(self.url).status_code < 500

    def _minio(self) -> tuple[list[str], dict[str, str]]:
        env = os.environ | {
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            "MINIO_REGION": REGION,
            "MINIO_BROWSER": "off",
        }
        return ["server", "--quiet", "--address", self.endpoint, str(self._folder / "data")], env

    def _seaweed(self) -> tuple[list[str], dict[str, str]]:
        s3, master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3_grpc = self._ports
        keys = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        who = {"name": "tests", "credentials": keys, "actions": ["Admin"]}
        (self._folder / "s3.json").write_text(json.dumps({"identities": [who]}))
        (self._folder / "master.toml").write_text(MASTER)
        (self._folder / "data").mkdir(exist_ok=True)
        return [
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={self._folder / 'data'}",
            f"-master.port={master}",
            f"-master.port.grpc={master_grpc}",
            "-master.volumeSizeLimitMB=1024",
            "-master.telemetry=false",
            "-master.electionTimeout=200ms",  # ten seconds by default, after each restart
            "-master.heartbeatInterval=50ms",
            f"-volume.port={volume}",
            f"-volume.port.grpc={volume_grpc}",
            "-volume.max=500",
            "-filer",
            f"-filer.port={filer}",
            f"-filer.port.grpc={filer_grpc}",
            f"-filer.localSocket={self._folder / 'filer.sock'}",
            "-s3",
            f"-s3.port={s3}",
            f"-s3.port.grpc={s3_grpc}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.localSocket={self._folder / 's3.sock'}",
            "-s3.config=s3.json",
        ], dict(os.environ)


def _socket_files(port: int) -> Path:
    """What SeaweedFS leaves behind, which no option moves."""
    return Path(f"/tmp/seaweedfs-*-grpc-{port}.sock")
