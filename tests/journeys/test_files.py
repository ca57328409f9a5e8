"""Files on two nodes: while the store is away they wait on the node that took them in; nothing is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import httpx
import trio

from kit.balancer import Nginx
from kit.cluster import Cluster, cluster, in_thread
from kit.http import plain
from kit.people import begin_upload, download_url, people, put, upload
from kit.postgres import PostgresServer
from kit.store import ObjectStore
from kit.wait import until
from secureconnect.client import ApiError, Client

CONTENT = bytes(range(256)) * 2_000
QUOTA_MB = 4
SPOOL = "/v1/storage/spool/"
MOVED_S = 20.0  # ten times what it takes
TIMES = 6  # a balancer that asks any node is found out


async def fetch(url: str, client: Client | None = None) -> httpx.Response:
    """client: through whose server instead."""
    if client is not None:
        url = client.server + url[url.index("/v1/") :]
    async with plain(follow_redirects=True, timeout=30) as http:
        return await http.get(url)


async def is_moved(client: Client, *files: str) -> None:
    """Polls the same ids until the store has them all."""

    async def has_all() -> bool:
        return not any([SPOOL in await download_url(client, file_id) for file_id in files])

    await until(has_all, MOVED_S)


async def spooled(nodes: Cluster, ann: Client) -> tuple[str, str, str]:
    """A file that was sent while the store is away: its id, its node, and where it is to be had."""
    file_id, url = await begin_upload(ann, CONTENT)
    assert SPOOL in url
    await put(url, CONTENT)
    completed = await ann.call("POST", "/v1/storage/upload-complete", {"file_id": file_id})
    assert completed["status"] == "completed"
    there = await download_url(ann, file_id)
    node_id = there.partition(SPOOL)[2].partition("/")[0]
    assert node_id == url.partition(SPOOL)[2].partition("/")[0]
    for _ in range(TIMES):
        answer = await fetch(there)
        assert (answer.status_code, answer.content) == (200, CONTENT)
    return file_id, node_id, there


async def test_the_store_freezes_and_dies(
    tmp_path: Path, postgres_server: PostgresServer, store: ObjectStore
) -> None:
    async with cluster(
        tmp_path, postgres_server, store, with_redis=False, STORAGE__QUOTA_MB=str(QUOTA_MB)
    ) as nodes:
        await quota_is_exact(nodes)
        proxy = Nginx(tmp_path / "nginx", _addresses(nodes), [each.node_id for each in nodes.nodes])
        await in_thread(proxy.start)
        async with people(nodes.url, "ann") as [ann], Client(proxy.url, ann.me) as by_nginx:
            before = await upload(ann, CONTENT)
            assert SPOOL not in await download_url(ann, before)

            nodes.freeze("minio")
            await nodes.all_see("minio", "down")
            first, _, there = await spooled(nodes, ann)
            second, _, _ = await spooled(nodes, by_nginx)
            for _ in range(TIMES):
                assert (await fetch(there, by_nginx)).content == CONTENT
            refused = await _refusal(ann, before)
            assert (refused.status, refused.code) == (503, "UNAVAILABLE")
            nodes.thaw("minio")
            await is_moved(ann, first, second)
            for file_id in (before, first, second):
                assert (await fetch(await download_url(ann, file_id))).content == CONTENT

            await nodes.kill("minio")
            await nodes.all_see("minio", "down")
            third, node_id, there = await spooled(nodes, ann)
            holder = next(each for each in nodes.nodes if each.node_id == node_id)
            await holder.kill()
            for client in (ann, by_nginx):

                async def says_so(client: Client = client) -> bool:
                    answer = await fetch(there, client)
                    return answer.status_code == 503 and "FILE_ON_AWAY_NODE" in answer.text

                await until(says_so)
                assert int((await fetch(there, client)).headers["retry-after"]) >= 1
            await holder.start()
            await until(lambda: _is_there(there))
            await nodes.restart("minio")
            await nodes.all_see("minio", "up")
            await is_moved(ann, third)
            assert (await fetch(await download_url(ann, third))).content == CONTENT
            assert (await fetch(there)).content == CONTENT, "the old address leads to the store"
            used = (await ann.call("GET", "/v1/storage/quota"))["used_bytes"]
            assert used == 4 * len(CONTENT)
        await in_thread(proxy.close)
        for node in nodes.nodes:
            assert not list((node.server.data_dir / "spool" / "kept").rglob("*=")), "nothing is left behind"


async def quota_is_exact(nodes: Cluster) -> None:
    """Twenty uploads at once, each from beginning to end, and room for seven."""
    content = b"x" * (QUOTA_MB * 1024 * 1024 // 7)
    a, b = nodes.nodes
    async with people(a.url, "bob") as [bob], Client(b.url, bob.me) as elsewhere:
        outcomes: Counter[str] = Counter()

        async def send(client: Client) -> None:
            try:
                await upload(client, content)
            except ApiError as refusal:
                outcomes[refusal.code] += 1
            else:
                outcomes["completed"] += 1

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(send, (bob, elsewhere)[number % 2])
        assert outcomes == {"completed": 7, "QUOTA_EXCEEDED": 13}
        quota = await elsewhere.call("GET", "/v1/storage/quota")
        assert (quota["used_bytes"], quota["reserved_bytes"]) == (7 * len(content), 0)
        files = (await bob.call("GET", "/v1/storage/files"))["files"]
        assert [file["status"] for file in files] == ["completed"] * 7


def _addresses(nodes: Cluster) -> list[str]:
    return [f"127.0.0.1:{each.server.port}" for each in nodes.nodes]


async def _is_there(url: str) -> bool:
    return (await fetch(url)).is_success


async def _refusal(client: Client, file_id: str) -> ApiError:
    try:
        await download_url(client, file_id)
    except ApiError as refusal:
        return refusal
    raise AssertionError("it was not refused")
