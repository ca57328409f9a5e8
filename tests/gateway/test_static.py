"""Files and texts: which form of them a client gets, and how much of it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from secureconnect.edge import Call, File
from secureconnect.errors import RangeNotSatisfiable
from secureconnect.gateway import static
from secureconnect.gateway.admission import Request
from secureconnect.gateway.replies import Answer
from secureconnect.gateway.routing import Router
from secureconnect.gateway.static import Form

from .house import House

PLAIN, BR, GZIP = (Form(name, b"", size, name) for name, size in (("identity", 9), ("br", 3), ("gzip", 4)))


async def _no_body() -> bytes:
    return b""


def request(method: str = "GET", **headers: str) -> Request:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, b"/", b"", given, 0, "http", "127.0.0.1", _no_body)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "web"
    (folder / "js").mkdir(parents=True)
    for name in (
        "index.html",
        "js/app.3f2a9c1b.js",
        "js/app.3f2a9c1b.js.br",
        "alone.gz",
        ".hidden",
        "odd%2f#",
    ):
        (folder / name).write_text(f"the bytes of {name}; " * 9)
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    return folder


async def fetch(router: Router, path: str, **headers: str) -> Answer:
    endpoint = router.find("GET", path.encode()).endpoint
    assert endpoint is not None, path
    return await endpoint.serve(Call("id", "127.0.0.1", 0), request(**headers))


@pytest.mark.parametrize(
    ("accepted", "form"),
    [
        ("", PLAIN),
        ("gzip, deflate, br", BR),
        ("gzip", GZIP),
        ("GZIP;q=0.5", GZIP),
        ("gzip;q=1.0, br;q=0.5", GZIP),
        ("br;q=0, gzip;q=0.001", GZIP),
        ("*", BR),
        ("br;q=0, *;q=0.5", GZIP),
        ("identity, br;q=0.5", PLAIN),
        ("gzip;q=0", PLAIN),
        ("identity;q=0, zstd", PLAIN),  # nothing it takes is there: better this than nothing
        ("gzip;q=much, zstd", PLAIN),
        (",;q=,;=", PLAIN),
    ],
)
def test_the_form_a_client_likes_best(accepted: str, form: Form) -> None:
    assert static.best((PLAIN, BR, GZIP), accepted) == form


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-5", (2, 4)),
        ("bytes=7-", (7, 3)),
        ("bytes=7-999", (7, 3)),
        ("bytes=-3", (7, 3)),
        ("bytes=-999", (0, 10)),
        ("bytes=9-9", (9, 1)),
        # not understood: the whole
        ("bytes=-", None),
        ("bytes=5-2", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=0x1-2", None),
        (f"bytes=0-{'9' * 5000}", None),
    ],
)
def test_the_part_a_client_asks_for(asked: str, part: tuple[int, int] | None) -> None:
    assert static.part_of(request(range=asked), 10, '"tag"') == part
    assert static.part_of(request(range=asked, if_range='"tag"'), 10, '"tag"') == part
    for other in ('"other"', 'W/"tag"', "Mon, 23 Nov 2026 00:00:00 GMT"):
        assert static.part_of(request(range=asked, if_range=other), 10, '"tag"') is None
    assert static.part_of(request("HEAD", range=asked), 10, '"tag"') is None


@pytest.mark.parametrize(
    ("asked", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-1", 0)]
)
def test_bytes_that_are_not_there(asked: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiable):
        static.part_of(request(range=asked), size, '"tag"')


async def test_only_the_files_of_the_folder_are_there(folder: Path) -> None:
    router = Router(static.files(folder, "/web"))
    served = ("/web/index.html", "/web/js/app.3f2a9c1b.js", "/web/alone.gz", "/web/odd%252f%23")
    for path in served:
        name = path.removeprefix("/web/").replace("%25", "%").replace("%23", "#")
        assert (await fetch(router, path)).body == File(folder / name, (folder / name).stat().st_size)
    (folder / "later.txt").write_text("later")
    for path in (
        "/web/link",
        "/web/.hidden",
        "/web/js",
        "/web/js/app.3f2a9c1b.js.br",
        "/web/later.txt",
        "/web/../secret",
        "/web/%2e%2e/secret",
        "/web/..%2fsecret",
        "/web/js%2fapp.3f2a9c1b.js",
        "/web//etc/passwd",
        "/web/index.html%00",
    ):
        assert router.find("GET", path.encode()).endpoint is None, path


async def test_the_files_beside_a_file_are_its_other_forms(folder: Path) -> None:
    router = Router(static.files(folder, "/web"))
    plain = await fetch(router, "/web/js/app.3f2a9c1b.js", accept_encoding="gzip")
    small = await fetch(router, "/web/js/app.3f2a9c1b.js", accept_encoding="gzip, br")
    assert "content-encoding" not in plain.headers
    assert small.headers["content-encoding"] == "br"
    assert isinstance(small.body, File)
    assert small.body.path.name == "app.3f2a9c1b.js.br"
    assert plain.headers["etag"] != small.headers["etag"]
    for answer in (plain, small):
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["vary"] == "Origin, Accept-Encoding"
    # a part is one of the plain form, whose tag it bears
    part = await fetch(router, "/web/js/app.3f2a9c1b.js", accept_encoding="br", range="bytes=4-8")
    assert (part.status, part.headers["etag"]) == (206, plain.headers["etag"])
    assert "content-encoding" not in part.headers


async def test_a_text_is_compressed_once_and_only_if_that_helps(folder: Path) -> None:
    page, other = (static.Asset(text, "text/html") for text in (b"x" * 1000, b"x"))
    call = Call("id", "127.0.0.1", 0)
    small, again = [await page.serve(call, request(accept_encoding="gzip")) for _ in range(2)]
    assert isinstance(small.body, bytes)
    assert gzip.decompress(small.body) == b"x" * 1000
    assert again.body is small.body
    assert small.headers["cache-control"] == "no-cache"
    assert (await other.serve(call, request(accept_encoding="gzip"))).body == b"x"


async def test_over_the_network(house: House) -> None:
    url = "/docs/swagger-ui-bundle.js"
    whole = await house.ask("GET", url)
    assert (whole.status, whole.headers["accept-ranges"]) == (200, "bytes")
    assert whole.headers["content-type"] == "text/javascript; charset=utf-8"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert len(whole.body) > 1_000_000
    etag = whole.headers["etag"]

    small = await house.ask("GET", url, {"accept-encoding": "gzip"})
    assert small.headers["content-encoding"] == "gzip"
    assert len(small.body) < len(whole.body) / 3
    assert gzip.decompress(small.body) == whole.body

    for method in ("GET", "HEAD"):
        for have in (etag, f'"other", W/{etag}', "*"):
            unchanged = await house.ask(method, url, {"if-none-match": have})
            assert (unchanged.status, unchanged.body, unchanged.headers["etag"]) == (304, b"", etag)
            assert "content-length" not in unchanged.headers
    assert (await house.ask("GET", url, {"if-none-match": '"other"'})).status == 200

    head = await house.ask("HEAD", url)
    assert (head.headers["content-length"], head.body) == (str(len(whole.body)), b"")

    part = await house.ask("GET", url, {"range": "bytes=100-199", "if-range": etag})
    assert (part.status, part.body) == (206, whole.body[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.body)}"
    assert part.headers["content-length"] == "100"

    beyond = await house.ask("GET", url, {"range": "bytes=9999999-"})
    assert (beyond.status, beyond.code) == (416, "RANGE_NOT_SATISFIABLE")
    assert beyond.headers["content-range"] == f"bytes */{len(whole.body)}"

    page = await house.ask("GET", "/docs", {"range": "bytes=0-1"})
    assert (page.status, page.body[:9]) == (200, b"<!doctype")
