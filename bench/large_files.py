"""Measures large files on this machine and prints Markdown tables: what the server's memory does while they
pass, and how fast they are sent, beside nginx on the same file.

    .venv/bin/python bench/large_files.py folder --mb 5120
    .venv/bin/python bench/large_files.py store --mb 1024      # MinIO or SeaweedFS, as the tests start it
    .venv/bin/python bench/large_files.py nginx --mb 1024 --rounds 5

The server, or nginx, has core 0, the client core 1. What is sent comes from a sparse file, which costs
the client nothing; on the server's side it takes the room it says.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from report import conditions, middle, table
from secureconnect.bench.people import Person, register
from secureconnect.bench.wire import call
from server import CHEAP_PASSWORDS, LOAD_CORE, SERVER_CORE, UNLIMITED, Server, server

MB = 1024 * 1024
GENEROUS = UNLIMITED | CHEAP_PASSWORDS | {"STORAGE__MAX_FILE_MB": "102400", "STORAGE__QUOTA_MB": "1024000"}
POLL_S = 0.05
READY_S = 10.0


@dataclass(slots=True)
class Passed:
    """One way of a file.  grew_kb: the server's memory at its highest, beyond what it was before."""

    took_s: float
    cpu_s: float
    grew_kb: int


@contextmanager
def watched(running: Server, passed: list[Passed]) -> Iterator[None]:
    before_kb, cpu_s, began = running.rss_kb(), running.cpu_s(), time.perf_counter()
    Path(f"/proc/{running.pid}/clear_refs").write_text("5")  # forget how much it was
    yield
    took_s = time.perf_counter() - began
    passed.append(Passed(took_s, running.cpu_s() - cpu_s, highest_kb(running.pid) - before_kb))


def highest_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise RuntimeError("the server is gone")


def put(url: str, port: int, source: int, start: int, size: int) -> None:
    """`size` bytes of an open file from `start` on, without copying them through this process."""
    where = urlsplit(url)
    host, at = (where.hostname or "127.0.0.1", where.port or port)
    target = url if not where.scheme else f"{where.path}?{where.query}"
    with socket.create_connection((host, at)) as connection:
        head = f"PUT {target} HTTP/1.1\r\nHost: {host}:{at}\r\nContent-Length: {size}\r\n"
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        sent = 0
        while sent < size:
            sent += os.sendfile(connection.fileno(), source, start + sent, size - sent)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        said = answer.read()
        if answer.status not in (200, 204):
            raise RuntimeError(f"{answer.status}: {said[:500]!r}")


def send(running: Server, person: Person, source: int, size: int, sha256: str) -> str:
    """The id of a file all parts of which are there."""
    announced = {
        "file_name": "large",
        "file_size": size,
        "content_type": "video/mp4",
        "checksum_sha256": sha256,
    }
    begun = call(running.site(), "POST", "/v1/storage/upload-url", announced, person.token)
    file_id = str(begun["file_id"])
    while begun["parts"]:
        for part in begun["parts"]:
            start = (part["number"] - 1) * begun["part_size"]
            put(part["upload_url"], running.port, source, start, min(size - start, begun["part_size"]))
        where = f"/v1/storage/uploads/{file_id}?after={begun['parts'][-1]['number']}"
        begun = call(running.site(), "GET", where, None, person.token)
    return file_id


def complete(running: Server, person: Person, file_id: str) -> None:
    asked = {"file_id": file_id}
    done = call(running.site(), "POST", "/v1/storage/upload-complete", asked, person.token)
    while done["status"] == "verifying":
        time.sleep(POLL_S)
        done = call(running.site(), "GET", f"/v1/storage/files/{file_id}", None, person.token)
    if done["status"] != "completed":
        raise RuntimeError(f"the file is {done['status']}")


def upload(running: Server, person: Person, source: int, size: int, sha256: str) -> str:
    file_id = send(running, person, source, size, sha256)
    complete(running, person, file_id)
    return file_id


def download(port: int, path: str, size: int) -> float:
    """Seconds until all of it was here, and thrown away unread by the kernel."""
    where = urlsplit(path)
    began = time.perf_counter()
    with socket.create_connection((where.hostname or "127.0.0.1", where.port or port)) as connection:
        target = path if not where.scheme else f"{where.path}?{where.query}"
        host = f"{where.hostname or '127.0.0.1'}:{where.port or port}"
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(1)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        received, buffer = 0, bytearray(MB)
        while taken := connection.recv_into(buffer, MB, socket.MSG_TRUNC):
            received += taken
    if received < size:
        raise RuntimeError(f"{received} bytes of {size}")
    return time.perf_counter() - began


def address(running: Server, person: Person, file_id: str) -> str:
    told = call(running.site(), "GET", f"/v1/storage/download-url/{file_id}", None, person.token)
    return str(told["download_url"])


def warm(running: Server, person: Person) -> None:
    """Everything is loaded, and has been used once."""
    with source_of(65 * MB) as (small, sha256):
        file_id = upload(running, person, small, 65 * MB, sha256)
    download(running.port, address(running, person, file_id), 65 * MB)


@contextmanager
def source_of(size: int) -> Iterator[tuple[int, str]]:
    """An open file that has no content but its ends, and its SHA-256."""
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        file.write(b"begins")
        file.seek(size - 4)
        file.write(b"ends")
        file.flush()
        digest = hashlib.sha256()
        file.seek(0)
        while piece := file.read(4 * MB):
            digest.update(piece)
        yield file.fileno(), digest.hexdigest()


def through(name: str, settings: Mapping[str, str], size: int, rounds: int) -> None:
    ways: dict[str, list[Passed]] = {"sent": [], "verified": [], "fetched": []}
    with source_of(size) as (source, sha256), server(settings) as running:
        (person,) = register(running.site(), 1)
        warm(running, person)
        for _ in range(rounds):
            with watched(running, ways["sent"]):
                file_id = send(running, person, source, size, sha256)
            with watched(running, ways["verified"]):
                complete(running, person, file_id)
            with watched(running, ways["fetched"]):
                download(running.port, address(running, person, file_id), size)
            call(running.site(), "DELETE", f"/v1/storage/files/{file_id}", None, person.token)
    mb = size / MB
    columns = ("", "MiB/s", "server CPU s per GiB", "server memory grew by MB")
    rows = (
        (
            way,
            middle([mb / each.took_s for each in passed]),
            middle([each.cpu_s * 1024 / mb for each in passed], 2),
            middle([each.grew_kb / 1e3 for each in passed], 1),
        )
        for way, passed in ways.items()
    )
    table(f"{size // MB:,} MiB through the {name}", columns, rows)


def folder(size: int, rounds: int) -> None:
    through("folder", GENEROUS, size, rounds)


def store(size: int, rounds: int) -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from kit.store import ACCESS_KEY, REGION, SECRET_KEY, ObjectStore

    with tempfile.TemporaryDirectory() as data:
        started = ObjectStore(Path(data))
        started.start()
        try:
            settings = {
                "MINIO__ENDPOINT": started.endpoint,
                "MINIO__ACCESS_KEY": ACCESS_KEY,
                "MINIO__SECRET_KEY": SECRET_KEY,
                "MINIO__REGION": REGION,
            }
            through("store", GENEROUS | settings, size, rounds)
        finally:
            started.close()


NGINX = """
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log {folder}/access.log;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@contextmanager
def nginx_on(root: Path) -> Iterator[int]:
    """Its port; as Debian configures it for files."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        configured = Path(home) / "nginx.conf"
        configured.write_text(NGINX.format(folder=home, port=port, root=root))
        process = subprocess.Popen(
            [program, "-c", str(configured), "-p", home, "-e", f"{home}/error.log"],
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
        )
        try:
            until = time.monotonic() + READY_S
            while not _listens(port):
                if time.monotonic() > until:
                    raise RuntimeError("nginx does not start")
                time.sleep(POLL_S)
            yield port
        finally:
            process.terminate()
            process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def nginx(size: int, rounds: int) -> None:
    """One file in the folder, sent by both in turns; the first round only warms up."""
    took: dict[str, list[float]] = {"SecureConnect": [], "nginx, sendfile": []}
    with (
        tempfile.TemporaryDirectory() as data,
        source_of(size) as (source, sha256),
        server(GENEROUS, data_dir=data) as running,
    ):
        (person,) = register(running.site(), 1)
        file_id = upload(running, person, source, size, sha256)
        ours = address(running, person, file_id)
        root = Path(data) / "objects" / "files"
        [kept] = root.iterdir()
        for each in (Path(data), root.parent, root, kept):
            each.chmod(0o755)  # nginx's worker is somebody else, if it was started by root
        with nginx_on(root) as port:
            for _ in range(rounds + 1):
                took["SecureConnect"].append(download(running.port, ours, size))
                took["nginx, sendfile"].append(download(port, f"/{kept.name}", size))
    rates = {name: [size / MB / each for each in seconds[1:]] for name, seconds in took.items()}
    parts = [a / b for a, b in zip(*rates.values(), strict=True)]
    rows: list[tuple[str, ...]] = [(name, middle(of), "") for name, of in rates.items()]
    rows[0] = (*rows[0][:2], middle(parts, 2))
    table(f"{size // MB:,} MiB from the folder", ("", "MiB/s", "of nginx"), rows)


def main() -> None:
    figures: dict[str, Any] = {"folder": folder, "store": store, "nginx": nginx}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figure", choices=figures)
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    conditions(("trio",), asked.rounds, 0, f"files of {asked.mb:,} MiB, on this machine's disk and cache")
    figures[asked.figure](asked.mb * MB, asked.rounds)


if __name__ == "__main__":
    main()
