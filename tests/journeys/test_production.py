"""What docker-compose.production.yml starts, as processes: two nodes with the settings it gives them, Redis
by its own command, the secrets as its script makes them, HAProxy before the nodes and before the store."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import redis
import trio

from journeys.test_nodes import online
from kit.balancer import FILES_HERE, NODE_IDS, STORE, Haproxy, fill_in
from kit.cluster import in_thread
from kit.compose import CONFIG, NODES, PRODUCTION, address, in_shell, make_secrets, services, targets
from kit.http import plain
from kit.keeper import keep
from kit.people import begin_upload, direct, download_url, next_event, people, put
from kit.ports import free_port
from kit.postgres import PostgresServer
from kit.server import Server
from kit.store import SECRET_KEY, ObjectStore
from kit.wait import until

WHOLE_S = 20.0
CONTENT = bytes(range(256)) * 1_000


@dataclass
class Production:
    """The running whole."""

    nodes: list[Server]
    balancer: Haproxy
    redis: redis.Redis

    @property
    def files(self) -> str:
        """What the store is called outside."""
        return f"http://{FILES_HERE}:{self.balancer.port}"


@contextmanager
def redis_of(folder: Path, secrets: Path, port: int) -> Iterator[redis.Redis]:
    """By the service's own command."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    shell, option, script = services(PRODUCTION)["redis"]["command"]
    (conf,) = targets("redis", "configs")
    there = {
        conf: str(CONFIG / "redis.conf"),
        "/run/secrets/redis.password": str(secrets / "redis.password"),
        "redis-server -": f"exec redis-server - --port {port} --bind 127.0.0.1",
    }
    command = [shell, option, fill_in(in_shell(script), there)]
    process = keep(subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True))
    with redis.Redis(
        port=port, password=(secrets / "redis.password").read_text(), socket_timeout=5
    ) as client:
        try:
            yield client
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # the shell, and Redis, which it waits for
            process.wait()


@contextmanager
def production(folder: Path, postgres: PostgresServer, store: ObjectStore) -> Iterator[Production]:
    """Not started but for Redis."""
    ports, front, bus = [free_port() for _ in NODES], free_port(), free_port()
    secrets = folder / "secrets"
    make_secrets(secrets)
    (secrets / "postgres.url").write_text(postgres.url(postgres.create()))
    (secrets / "minio.secret_key").write_text(SECRET_KEY)
    url = secrets / "redis.url"
    url.write_text(fill_in(url.read_text(), {f"{address('redis')}:6379": f"127.0.0.1:{bus}"}))
    settings = folder / "secureconnect.toml"
    settings.write_text(
        fill_in(
            targets(NODES[0], "configs")["/etc/secureconnect.toml"].read_text(),
            {
                'host = "0.0.0.0"': 'host = "127.0.0.1"',
                "https://chat.example.org": f"http://127.0.0.1:{front}",
                "https://files.example.org": f"http://{FILES_HERE}:{front}",
                f'"{address("balancer")}"': '"127.0.0.1"',
                STORE: store.endpoint,
            },
        )
    )
    with ExitStack() as stack:
        nodes = []
        for name, port in zip(NODES, ports, strict=True):
            own = secrets_of(name, secrets, folder / f"secrets-{name}")
            env = services(PRODUCTION)[name]["environment"]
            env = {key.removeprefix("SECURECONNECT_"): value for key, value in env.items()}
            server = Server(folder / name, **env | {"CONFIG": str(settings), "SECRETS": str(own)})
            server.port = port
            stack.callback(server.close)
            nodes.append(server)
        addresses = [f"127.0.0.1:{port}" for port in ports]
        balancer = Haproxy(folder / "haproxy", addresses, NODE_IDS, port=front, store=store.endpoint)
        stack.callback(balancer.close)
        client = stack.enter_context(redis_of(folder, secrets, bus))
        yield Production(nodes, balancer, client)


def secrets_of(node: str, secrets: Path, folder: Path) -> Path:
    """The folder as that container has it."""
    folder.mkdir()
    for path in targets(node, "secrets"):
        name = Path(path).name
        (folder / name).write_bytes((secrets / name).read_bytes())
    return folder


async def test_two_nodes_as_they_are_composed(
    tmp_path: Path, postgres_server: PostgresServer, store: ObjectStore
) -> None:
    with production(tmp_path, postgres_server, store) as whole:
        await until(partial(answers, whole.redis))
        async with trio.open_nursery() as nursery:
            for node in whole.nodes:
                nursery.start_soon(in_thread, node.start)
        await in_thread(whole.balancer.start)
        a, b = whole.nodes
        for node, node_id in zip(whole.nodes, NODE_IDS, strict=True):
            assert (node.data_dir / "node.id").read_text().strip() == node_id
            await until(partial(is_whole, node), WHOLE_S)
        assert whole.redis.config_get("save") == {"save": ""}
        async with people(whole.balancer.url, "ann", "bob") as [ann, bob]:
            room = await direct(ann, bob)
            async with online(ann, bob) as [at_ann, at_bob]:
                ack = await at_ann.send(room, "composed")
                await next_event(at_bob, "chat", message_id=ack["message_id"])
            file_id, there = await begin_upload(ann, CONTENT)
            assert there.startswith(whole.files), "the store is reached through the balancer"
            await put(there, CONTENT)
            await ann.call("POST", "/v1/storage/upload-complete", {"file_id": file_id})
            async with plain() as http:
                assert (await http.get(await download_url(ann, file_id))).content == CONTENT
                assert (await http.get(f"{whole.balancer.url}/metrics")).status_code == 404
                assert (await http.get(f"{whole.balancer.url}/readyz")).status_code == 200
            ice = await ann.call("GET", "/v1/calls/ice-servers")
            assert any("turn.example.org" in url for each in ice["ice_servers"] for url in each["urls"])

            assert await in_thread(a.terminate) == 0
            assert await ann.call("GET", "/v1/conversations")
            await in_thread(a.start)
            await until(partial(is_whole, a), WHOLE_S)
            assert await in_thread(b.terminate) == 0
            assert await bob.call("GET", "/v1/conversations")
        assert await in_thread(a.terminate) == 0
        for node in whole.nodes:
            node.check()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


async def is_whole(node: Server) -> bool:
    async with plain(timeout=5) as http:
        return str((await http.get(f"{node.url}/health")).json()["status"]) == "healthy"
