"""What lies in config/ for operators of several nodes is valid, and agrees with the program."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from journeys.test_nodes import online
from kit.balancer import ADDRESSES, CONFIG, NODE_IDS, Caddy, certificate, fill_in
from kit.people import direct, next_event, people
from kit.server import Server
from secureconnect.config import GatewayConfig
from secureconnect.config_file import load


def check(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "warn" not in (done.stderr + done.stdout).lower(), done.stderr + done.stdout


def test_haproxy_takes_its_file(tmp_path: Path) -> None:
    if shutil.which("haproxy") is None:
        pytest.skip("no haproxy")
    chain, key = certificate(tmp_path)
    both = tmp_path / "chat.pem"
    both.write_bytes(chain.read_bytes() + key.read_bytes())
    file = tmp_path / "haproxy.cfg"
    text = (CONFIG / "haproxy.cfg").read_text()
    file.write_text(
        fill_in(
            text,
            {"/etc/haproxy/chat.pem": str(both), "/run/haproxy/admin.sock": str(tmp_path / "admin.sock")},
        )
    )
    check("haproxy", "-c", "-f", file)


def test_nginx_takes_its_file(tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        pytest.skip("no nginx")
    chain, key = certificate(tmp_path)
    file = tmp_path / "nginx.conf"
    text = (CONFIG / "nginx.conf").read_text()
    file.write_text(
        fill_in(
            text,
            {
                "/etc/nginx/chat.crt": str(chain),
                "/etc/nginx/chat.key": str(key),
                "/run/nginx.pid": str(tmp_path / "nginx.pid"),
            },
        )
    )
    check("nginx", "-t", "-q", "-c", file, "-p", tmp_path)


def test_caddy_takes_its_file(tmp_path: Path) -> None:
    if shutil.which("caddy") is None:
        pytest.skip("no caddy")
    file = tmp_path / "Caddyfile"
    nowhere = dict(zip(ADDRESSES, ("127.0.0.1:1", "127.0.0.1:2"), strict=True))  # it asks them at once
    file.write_text(fill_in((CONFIG / "Caddyfile").read_text(), nowhere))
    check("caddy", "validate", "--adapter", "caddyfile", "--config", file)


async def test_requests_and_sockets_pass_through_caddy(server: Server, tmp_path: Path) -> None:
    """The other two are before the nodes of journeys."""
    host, port = "127.0.0.1", server.port
    balancer = Caddy(tmp_path / "caddy", [f"{host}:{port}", f"localhost:{port}"])
    try:
        await trio.to_thread.run_sync(balancer.start)
        async with people(balancer.url, "ann", "bob") as [ann, bob]:
            room = await direct(ann, bob)
            async with online(ann, bob) as [at_ann, at_bob]:
                ack = await at_ann.send(room, "through Caddy")
                await next_event(at_bob, "chat", message_id=ack["message_id"])
    finally:
        balancer.close()


@pytest.mark.parametrize("file", ["haproxy.cfg", "nginx.conf", "Caddyfile"])
def test_each_leads_a_spooled_file_to_its_node(file: str) -> None:
    text = (CONFIG / file).read_text()
    for address, node_id in zip(ADDRESSES, NODE_IDS, strict=True):
        assert address in text
        assert f"/v1/storage/spool/{node_id}/" in text


def test_the_settings_of_a_node_among_others() -> None:
    config = load(str(CONFIG / "two-nodes.toml"), {})
    assert config.postgres.url
    assert config.redis.url
    assert config.minio.endpoint
    assert config.gateway.trusted_proxies
    assert config.gateway.drain_notice_s == 5


def seconds(file: str, pattern: str) -> float:
    found = re.search(pattern, (CONFIG / file).read_text(), re.MULTILINE)
    assert found is not None, pattern
    return float(found.group(1))


def test_no_balancer_cuts_what_lives() -> None:
    """Each timeout of theirs is longer than what the node allows itself."""
    gateway = load(str(CONFIG / "two-nodes.toml"), {}).gateway
    assert seconds("haproxy.cfg", r"^\s+timeout tunnel (\d+)s") > gateway.ws_silence_s
    assert seconds("haproxy.cfg", r"^\s+timeout server (\d+)s") > gateway.request_deadline_s
    assert seconds("nginx.conf", r"proxy_read_timeout (\d+)s") > gateway.ws_silence_s
    assert seconds("Caddyfile", r"response_header_timeout (\d+)s") > gateway.request_deadline_s
    for file, pattern in (
        ("nginx.conf", r"keepalive_timeout (\d+)s"),
        ("Caddyfile", r"keepalive (\d+)s"),
    ):
        assert seconds(file, pattern) < gateway.keep_alive_s


def test_a_drain_is_announced_long_enough_to_be_seen() -> None:
    """Two checks of a balancer, each with its limit, end within the notice."""
    notice = load(str(CONFIG / "two-nodes.toml"), {}).gateway.drain_notice_s
    assert notice > GatewayConfig().drain_notice_s
    inter, limit = seconds("haproxy.cfg", r"inter (\d+)s"), seconds("haproxy.cfg", r"timeout check (\d+)s")
    assert notice > 2 * (inter + limit)
    assert notice > 2 * (
        seconds("Caddyfile", r"health_interval (\d+)s") + seconds("Caddyfile", r"health_timeout (\d+)s")
    )
