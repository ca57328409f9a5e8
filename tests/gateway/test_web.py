"""The web client's page and files: where they are served, with what headers, and what is not served."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from trio.testing import MockClock

from secureconnect.config import RateLimitsConfig
from secureconnect.edge import Call
from secureconnect.errors import NotFound
from secureconnect.gateway.replies import Answer
from secureconnect.gateway.routing import Router
from secureconnect.gateway.web import LOOK_S, PAGES, Web, policy_of, without_comments

from .house import House, open_house
from .test_static import request

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types sc"
)
FILES = {
    "index.html": (
        '<!doctype html>\n{{packages}}\n{{preload}}\n<script src="/app/{{version}}/main.js"></script>\n'
    ),
    "sw.js": 'const version = "{{version}}", files = "{{files}}";\n',
    "manifest.webmanifest": '{"icons": [{"src": "/app/{{version}}/icons/icon.svg"}]}\n',
    "main.js": (
        'import { a } from "./api/client.js";\nimport {\n  b,\n} from "./store/state.js";\n'
        'import "./aside.js";\nexport * from "./store/disk.js";\n'
        'const late = () => import("./views/late.js");\nimport("./views/later.js");\n'
    ),
    "api/client.js": 'import { b } from "../store/state.js";\nexport const a = b;\n',
    "store/state.js": 'import { a } from "../api/client.js";\nexport const b = () => a;\n',
    "store/disk.js": "",
    "aside.js": "",
    "call/picture.worker.js": "",
    "views/late.js": "",
    "styles/base.css": "body {}\n",
    "icons/icon.svg": "<svg/>",
    "vendor/pack/pkg/pack.wasm": "not really",
    "vendor/pack/index.mjs": "export {};\n" * 100,
    "vendor/pack/index.d.ts": "",
    "package.json": '{"dependencies": {"pack": "1.2.3"}}',
    "package-lock.json": "{}",
    ".npmrc": "",
}
SERVED = [
    "main.js",
    "call/picture.worker.js",
    "api/client.js",
    "styles/base.css",
    "vendor/pack/index.mjs",
    "vendor/pack/pkg/pack.wasm",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "web" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "web/vendor/pack/pkg/pack.wasm.gz").write_bytes(gzip.compress(b"not really"))
    (tmp_path / "secret.js").write_text("secret")
    return tmp_path / "web"


async def fetch(router: Router, path: str, **headers: str) -> Answer:
    """What the endpoint says to it. Raises NotFound."""
    endpoint, values, _ = router.find("GET", path.encode())
    if endpoint is None:
        raise NotFound
    return await endpoint.serve(Call("id", "127.0.0.1", 0, path=values), request(**headers))


async def text_of(router: Router, path: str) -> str:
    body = (await fetch(router, path)).body
    assert isinstance(body, bytes)
    return body.decode()


async def version_of(router: Router) -> str:
    found = re.search(r"/app/([0-9a-f]{16})/main\.js", await text_of(router, "/"))
    assert found is not None
    return found[1]


async def test_the_page_names_what_it_loads(folder: Path) -> None:
    router = Router(Web(folder=folder).endpoints())
    page, version = await text_of(router, "/"), await version_of(router)
    loaded = re.findall(rf'<link rel="modulepreload" href="/app/{version}/(.+)">', page)
    assert loaded == ["api/client.js", "store/state.js", "aside.js", "store/disk.js"]
    assert "{{" not in page
    assert "pack 1.2.3\n" in page
    worker = re.fullmatch(r'const version = "(.+)", files = (\[.+\]);\n', await text_of(router, "/sw.js"))
    assert worker is not None
    assert worker[1] == version
    files = {name for name in FILES if name.endswith((".js", ".css", ".svg"))} - {"sw.js"}
    assert set(json.loads(worker[2])) == {f"/app/{version}/{name}" for name in files}
    assert f"/app/{version}/icons" in await text_of(router, "/manifest.webmanifest")
    assert (await fetch(router, "/favicon.ico")).headers["content-type"] == "image/svg+xml"


async def test_every_address_of_the_page_is_the_page(folder: Path) -> None:
    router = Router(Web(folder=folder).endpoints())
    whole = await text_of(router, "/")
    for path in PAGES:
        assert await text_of(router, re.sub(r"{\w+}", "0190abcd-any", path)) == whole
    page = await fetch(router, "/")
    assert page.headers == {
        "content-type": "text/html; charset=utf-8",
        "cache-control": "no-cache",
        "vary": "Origin, Accept-Encoding",
        "content-security-policy": POLICY,
        "permissions-policy": "camera=(self), microphone=(self), display-capture=(self)",
        "etag": page.headers["etag"],
    }
    held = await fetch(router, "/", if_none_match=page.headers["etag"])
    assert held.status == 304
    assert held.headers == {name: page.headers[name] for name in page.headers if name != "content-type"}
    apart = await fetch(Router(Web(folder=folder, is_secure=True).endpoints()), "/")
    assert apart.headers == {**page.headers, "cross-origin-opener-policy": "same-origin"}
    worker = await fetch(router, "/sw.js")
    assert worker.headers["service-worker-allowed"] == "/"
    assert worker.headers["content-security-policy"] == POLICY
    assert worker.headers["cache-control"] == "no-cache"


async def test_with_files_in_a_store_of_their_own(folder: Path) -> None:
    router = Router(Web("https://files.example.org:9000", folder).endpoints())
    policy = (await fetch(router, "/")).headers["content-security-policy"]
    told = {name: rest for name, _, rest in (each.partition(" ") for each in policy.split("; "))}
    assert told["connect-src"] == "'self' https://files.example.org:9000"
    assert told["img-src"] == "'self' https://files.example.org:9000 blob: data:"
    assert told["media-src"] == "'self' https://files.example.org:9000 blob:"
    assert told["script-src"] == "'self' 'wasm-unsafe-eval'"


async def test_files_are_served_for_good_under_their_version(folder: Path) -> None:
    router = Router(Web(folder=folder).endpoints())
    version = await version_of(router)
    for name in SERVED:
        answer = await fetch(router, f"/app/{version}/{name}")
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        is_worker = name.endswith(".worker.js")
        assert answer.headers.get("content-security-policy") == (POLICY if is_worker else None)
        again = await fetch(router, f"/app/{version}/{name}", if_none_match=answer.headers["etag"])
        assert again.status == 304
    small = await fetch(router, f"/app/{version}/vendor/pack/pkg/pack.wasm", accept_encoding="gzip")
    assert (small.headers["content-type"], small.headers["content-encoding"]) == ("application/wasm", "gzip")
    module = await fetch(router, f"/app/{version}/vendor/pack/index.mjs", accept_encoding="gzip")
    assert module.headers["content-type"] == "text/javascript; charset=utf-8"
    assert isinstance(module.body, bytes)
    assert gzip.decompress(module.body).decode() == FILES["vendor/pack/index.mjs"]


@pytest.mark.parametrize(
    "name",
    [
        *("index.html", "sw.js", "manifest.webmanifest", "package.json", "package-lock.json", ".npmrc"),
        *("vendor/pack/index.d.ts", "vendor/pack/pkg/pack.wasm.gz", "../secret.js", "..%2fsecret.js"),
        *("%2e%2e/secret.js", "api/../../secret.js", "api", "", "api//client.js", "a/b/c/d/e/f.js"),
        "main.js%00",
    ],
)
async def test_nothing_else_is_served(folder: Path, name: str) -> None:
    router = Router(Web(folder=folder).endpoints())
    version = await version_of(router)
    with pytest.raises(NotFound):
        await fetch(router, f"/app/{version}/{name}")


async def test_another_version_is_gone(folder: Path) -> None:
    router = Router(Web(folder=folder).endpoints())
    with pytest.raises(NotFound):
        await fetch(router, "/app/0123456789abcdef/main.js")


async def test_what_has_changed_is_seen_on_a_reload(folder: Path, mock_clock: MockClock) -> None:
    router = Router(Web(folder=folder).endpoints())
    version = await version_of(router)
    (folder / "main.js").write_text("")
    (folder / "vendor/pack/index.mjs").unlink()
    assert await version_of(router) == version, "it looks once a second at most"
    with pytest.raises(NotFound):
        await fetch(router, f"/app/{version}/vendor/pack/index.mjs")
    mock_clock.jump(LOOK_S)
    assert await version_of(router) != version
    assert "modulepreload" not in await text_of(router, "/")
    with pytest.raises(NotFound):
        await fetch(router, f"/app/{version}/main.js")


def test_comments_are_not_sent() -> None:
    code = """\
// why
/** @type {number} */ (a);
  /**
   * how ** so
   */
const b = "/* no */"; // beside
const c = /x/; /* beside,
  too */
  // where
const d = 1;
"""
    assert (
        without_comments(code)
        == """\

/** @type {number} */ (a);



const b = "/* no */";
const c = /x/; /* beside,
  too */

const d = 1;
"""
    )


async def test_the_version_is_of_all_files(folder: Path) -> None:
    versions = set()
    for name in FILES:
        (folder / name).write_text(FILES[name] + "\n")
        versions.add(await version_of(Router(Web(folder=folder).endpoints())))
    assert len(versions) == len(FILES) - 1, "what is hidden is none of its files"


async def test_without_a_client_there_is_none(tmp_path: Path) -> None:
    router = Router(Web(folder=tmp_path / "nothing").endpoints())
    for path in ("/", "/sw.js", "/manifest.webmanifest", "/favicon.ico", "/app/0123456789abcdef/main.js"):
        with pytest.raises(NotFound):
            await fetch(router, path)


async def test_over_the_network(house: House) -> None:
    """The client as it is."""
    page = await house.ask("GET", "/c/0190abcd/m/0190abce")
    assert (page.status, page.headers["content-security-policy"]) == (200, POLICY)
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["ratelimit-policy"] == '"assets";q=6000;w=60'
    assert (await house.ask("GET", "/", {"if-none-match": page.headers["etag"]})).status == 304
    head = await house.ask("HEAD", "/sign-in")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(page.body)))
    loaded = re.findall(r'"(/app/[^"]+)"', page.body.decode())
    assert loaded
    for address in loaded:
        part = await house.ask("GET", address, {"accept-encoding": "gzip"})
        assert part.status == 200, address
        assert "immutable" in part.headers["cache-control"]
        part = await house.ask("HEAD", address)
        assert (part.status, part.body) == (200, b"")
    gone = await house.ask("GET", "/app/0123456789abcdef/main.js")
    assert (gone.status, gone.code) == (404, "NOT_FOUND")
    assert (await house.ask("POST", "/sign-in")).status == 405


async def test_it_counts_for_itself() -> None:
    """A page with its files takes nothing from what the address may ask of the API."""
    async with open_house(RateLimitsConfig(assets=2)) as house:
        statuses = [(await house.ask("GET", "/manifest.webmanifest")).status for _ in range(3)]
        assert statuses[1:] == [statuses[0], 429]
        assert (await house.ask("GET", "/v1/public")).status == 200


async def test_switched_off() -> None:
    async with open_house(web=False) as house:
        for path in ("/", "/sign-in", "/sw.js", "/favicon.ico", "/app/0123456789abcdef/main.js"):
            assert (await house.ask("GET", path)).code == "NOT_FOUND"


def test_the_documentation_tells_it_as_it_is() -> None:
    told = " ".join((Path(__file__).parents[2] / "docs" / "web.md").read_text("utf-8").split())
    assert policy_of(None) in told
    pages = told[told.index("The page is served at") : told.index("always the same bytes")]
    assert set(re.findall(r"`(/[^`]*)`", pages)) == set(PAGES)
