"""The relay, begun by the compose file's own command, with a secret that no environment or argument tells."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kit.balancer import certificate, fill_in
from kit.compose import CONFIG, PRODUCTION, in_shell, make_secrets, services, targets
from kit.keeper import keep
from kit.ports import free_port
from kit.wait import until
from secureconnect.config import Config, TurnConfig
from secureconnect.doctor import turn
from secureconnect.doctor.findings import Finding, Report

LIMIT_S = 20.0


@contextmanager
def relay(folder: Path, secrets: Path, port: int) -> Iterator[list[str]]:
    """By the service's own command, whose last words are options, so that more can follow. Yields it."""
    if shutil.which("turnserver") is None:
        pytest.skip("no turnserver")
    shell, option, script = services(PRODUCTION)["coturn"]["entrypoint"]
    (conf,) = targets("coturn", "configs")
    chain, key = certificate(folder)
    there = {
        "/tmp/": f"{folder}/",  # the first, for the others may be in there
        conf: str(CONFIG / "coturn.conf"),
        "/run/secrets/turn.secret": str(secrets / "turn.secret"),
    }
    own = f" --listening-port={port} --tls-listening-port={free_port()} --cert={chain} --pkey={key}"
    own += " --listening-ip=127.0.0.1 --relay-ip=127.0.0.1 --relay-threads=1"
    own += " --allow-loopback-peers --allowed-peer-ip=127.0.0.1"
    command = [shell, option, fill_in(in_shell(script), there) + own]
    process = keep(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    try:
        yield command
    finally:
        process.kill()
        process.wait()


async def looked_at(port: int, secret: str) -> set[str]:
    """What the doctor's findings are."""
    told: list[Finding] = []
    config = Config(turn=TurnConfig(urls=(f"turn:127.0.0.1:{port}?transport=udp",), secret=secret))
    await turn.check(config, Report(config, told.append))
    return {each.status for each in told}


async def test_the_relay_takes_the_secret_from_its_file(tmp_path: Path) -> None:
    make_secrets(tmp_path / "secrets")
    secret = (tmp_path / "secrets" / "turn.secret").read_text()
    port = free_port()
    with relay(tmp_path, tmp_path / "secrets", port) as command:
        assert secret not in " ".join(command)

        async def relays() -> bool:
            return await looked_at(port, secret) == {"ok"}

        await until(relays, LIMIT_S)
        assert "failed" in await looked_at(port, "another")
        assert (tmp_path / "turnserver.conf").stat().st_mode & 0o777 == 0o600
