"""HTTP/2 through the real gateway, with clients that others wrote."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from .house import open_house
from .port import authority


@pytest.mark.parametrize("secure", [False, True])
async def test_httpx(tmp_path: Path, secure: bool) -> None:
    settings: dict[str, Any] = {}
    verify: Any = True
    if secure:
        config = authority().issue(tmp_path)
        settings = {"tls_certificate": config.tls_certificate, "tls_key": config.tls_key}
        verify = authority().client("h2", "http/1.1")
    async with open_house(**settings) as house:
        base = f"http{'s' if secure else ''}://127.0.0.1:{house.port}"
        async with httpx.AsyncClient(http1=secure, http2=True, verify=verify, base_url=base) as client:
            async with trio.open_nursery() as nursery:

                async def ask(number: int) -> None:
                    answer = await client.get(f"/v1/named/{number}")
                    assert (answer.status_code, answer.http_version) == (200, "HTTP/2")

                for number in range(40):
                    nursery.start_soon(ask, number)
            written = await client.post("/v1/notes", json={"text": "x" * 100_000})
            assert written.json()["data"]["text"] == "x" * 100_000
            large = await client.get("/v1/large", timeout=20)
            assert len(large.json()["data"]["text"]) == 20_000_000
            refused = await client.get("/v1/mine")
            assert refused.status_code == 401
            assert refused.json()["meta"]["request_id"] == refused.headers["x-request-id"]


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}")
    return found


async def run(*command: str) -> str:
    with trio.fail_after(20):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


async def test_curl(tmp_path: Path) -> None:
    curl = program("curl")
    config = authority().issue(tmp_path)
    trusted = str(authority().trust(tmp_path))
    secure = {"tls_certificate": config.tls_certificate, "tls_key": config.tls_key}
    options = ["-sS", "-w", "%{http_code} %{http_version}", "-o", str(tmp_path / "out")]
    for scheme, settings, how in (
        ("http", {}, ["--http2-prior-knowledge"]),
        ("https", secure, ["--http2", "--cacert", trusted]),
        ("https", secure, ["--http1.1", "--cacert", trusted]),
    ):
        async with open_house(**settings) as house:  # type: ignore[arg-type]
            base = f"{scheme}://127.0.0.1:{house.port}"
            spoken = "1.1" if "--http1.1" in how else "2"
            assert await run(curl, *options, *how, f"{base}/v1/open") == f"200 {spoken}"
            body = ["-H", "content-type: application/json", "-d", '{"text": "x"}']
            assert await run(curl, *options, *how, *body, f"{base}/v1/notes") == f"200 {spoken}"
            large = await run(curl, *options, *how, f"{base}/v1/large")
            assert large == f"200 {spoken}"


async def test_nghttp(tmp_path: Path) -> None:
    nghttp = program("nghttp")
    async with open_house() as house:
        base = f"http://127.0.0.1:{house.port}"
        said = await run(nghttp, "-nv", "-m", "20", f"{base}/v1/open", f"{base}/v1/nowhere")
        assert said.count(":status: 200") == 20
        assert said.count(":status: 404") == 20
        assert "RST_STREAM" not in said
        body = tmp_path / "body"
        body.write_text('{"text": "%s"}' % ("x" * 500_000))
        said = await run(
            nghttp, "-v", "-d", str(body), "-H", "content-type: application/json", f"{base}/v1/notes"
        )
        assert ":status: 200" in said


async def test_h2load(tmp_path: Path) -> None:
    h2load = program("h2load")
    async with open_house() as house:
        said = await run(h2load, "-n", "500", "-c", "5", "-m", "50", f"http://127.0.0.1:{house.port}/v1/open")
        assert "500 succeeded, 0 failed, 0 errored" in said
