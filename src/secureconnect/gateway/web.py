"""The web client: its page, at every address that people open, and the files that the page loads.

Those lie under `/app/<version>/`, and the version is a hash of them all: what is there never changes, so
browsers keep it for good, and a page and its files always belong together. The page is asked for each time.

Nothing is read before somebody opens the page. From then on, once a second at most, a request for the page
looks whether the files have changed: an upgrade, or an edit, shows on the next reload.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import trio

from ..edge import Call, Rate
from ..errors import NotFound, Unavailable
from .admission import Endpoint, Request, Serve
from .replies import Answer
from .static import TYPES, Asset, names_in

FOLDER = Path(__file__).parent.parent / "web"
PAGES = (
    "/",
    "/admin",
    "/admin/{page}",
    "/c/{conversation}",
    "/c/{conversation}/details",
    "/c/{conversation}/m/{message}",
    "/call/{call}",
    "/invite",
    "/invite/{code}",
    "/new",
    "/notifications",
    "/reset",
    "/search",
    "/settings",
    "/settings/{page}",
    "/sign-in",
    "/sign-up",
    "/verify",
)
DEPTH = 5  # segments of a file's name at most
LOOK_S = 1.0

_SERVED = TYPES.keys() - {".html", ".json", ".map", ".txt", ".webmanifest"}
_ICONS = ("icons/favicon.ico", "icons/icon.png", "icons/icon.svg")  # the first there is
_PAGE = {
    "permissions-policy": "camera=(self), microphone=(self), display-capture=(self)",
}
# as the formatter leaves them: at the beginning of a line
_IMPORTED = re.compile(
    r"""^(?:import\s*|(?:import|export)\b[^;'"()]*?\bfrom\s*)["'](\.\.?/[^"']+)["']""", re.MULTILINE
)
# on lines of their own, or behind what ends a piece of code: elsewhere it could be a part of a text
_COMMENT = re.compile(
    r"^[ \t]*(?://.*|/\*(?:[^*]|\*(?!/))*\*/[ \t]*)$|(?<=[;,(){}\[\]])[ \t]+// .*$", re.MULTILINE
)

Seen = Sequence[tuple[str, int, int]]  # name, size, time of the last change


class Edition(msgspec.Struct, frozen=True):
    """The client as it was at one moment.  files: what lies under `/app/<version>/`, by name."""

    seen: Seen
    version: str
    files: Mapping[str, Asset]
    page: Asset | None
    worker: Asset | None
    manifest: Asset | None
    icon: Asset | None


class Web:
    """store_origin: as in `policy_of`.  folder: of the client; what it lacks is answered 404.

    is_secure: browsers come over https. Only then do they keep windows of others apart, and without it they
    complain of being asked to.
    """

    def __init__(
        self, store_origin: str | None = None, folder: Path = FOLDER, *, is_secure: bool = False
    ) -> None:
        self._folder = folder
        self._apart = {"cross-origin-opener-policy": "same-origin"} if is_secure else {}
        self._policy = policy_of(store_origin)
        self._edition: Edition | None = None
        self._look_again_at = 0.0
        self._looking = trio.Lock()

    def endpoints(self) -> list[Endpoint]:
        found = [
            *(_endpoint(path, self._page) for path in PAGES),
            _endpoint("/sw.js", self._serving(lambda now: now.worker)),
            _endpoint("/manifest.webmanifest", self._serving(lambda now: now.manifest)),
            _endpoint("/favicon.ico", self._serving(lambda now: now.icon)),
        ]
        path = "/app/{version}"
        for depth in range(DEPTH):
            path += f"/{{part{depth}}}"
            found.append(_endpoint(path, self._file, route="/app/{version}/{file}"))
        return found

    async def _page(self, call: Call, request: Request) -> Answer:
        answer = await _answer((await self._newest()).page, call, request)
        answer.headers |= self._apart
        return answer

    def _serving(self, choose: Callable[[Edition], Asset | None]) -> Serve:
        async def serve(call: Call, request: Request) -> Answer:
            return await _answer(choose(await self._newest()), call, request)

        return serve

    async def _file(self, call: Call, request: Request) -> Answer:
        edition = self._edition or await self._newest()
        version, *parts = call.path.values()
        asset = edition.files.get("/".join(parts)) if version == edition.version else None
        return await _answer(asset, call, request)

    async def _newest(self) -> Edition:
        async with self._looking:
            if self._edition is None or trio.current_time() >= self._look_again_at:
                try:
                    self._edition = await trio.to_thread.run_sync(
                        edition_of, self._folder, self._policy, self._edition
                    )
                except FileNotFoundError:  # they are being replaced at this moment
                    raise Unavailable from None
                self._look_again_at = trio.current_time() + LOOK_S
            return self._edition


def policy_of(store_origin: str | None) -> str:
    """The Content-Security-Policy of the page and its workers.

    store_origin: where browsers fetch and put files themselves; None: they do so here.
    """
    here = f"'self' {store_origin}" if store_origin else "'self'"
    return (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
        f"img-src {here} blob: data:; media-src {here} blob:; connect-src {here}; "
        "worker-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types sc"
    )


def edition_of(folder: Path, policy: str, known: Edition | None = None) -> Edition:
    """known: given back if nothing has changed since. Reads files: for a thread."""
    names = names_in(folder)
    seen = [(name, (at := (folder / name).stat()).st_size, at.st_mtime_ns) for name in names]
    if known is not None and known.seen == seen:
        return known
    version = _version_of(folder, names)
    files = [name for name in names if Path(name).suffix in _SERVED and name != "sw.js"]
    places = _places(folder, f"/app/{version}/", files) | {"{{version}}": version}
    security = {"content-security-policy": policy}
    lasting = {"cache-control": "public, max-age=31536000, immutable"}

    def at_root(name: str, headers: Mapping[str, str]) -> Asset | None:
        """A file with what is known only now in the places kept for it."""
        if name not in names:
            return None
        text = (folder / name).read_text("utf-8")
        for place, value in places.items():
            text = text.replace(place, value)
        return Asset(text.encode(), TYPES[Path(name).suffix], headers)

    def below(name: str) -> Asset:
        """A worker has the policy that its script comes with; the others need not carry it."""
        path = folder / name
        is_ours = path.suffix in (".css", ".js") and not name.startswith("vendor/")
        source = without_comments(path.read_text("utf-8")).encode() if is_ours else path
        headers = lasting | security if name.endswith(".worker.js") else lasting
        return Asset(source, TYPES[path.suffix], headers)

    icon = next((name for name in _ICONS if name in names), None)
    return Edition(
        seen,
        version,
        {name: below(name) for name in files},
        page=at_root("index.html", security | _PAGE),
        worker=at_root("sw.js", security | {"service-worker-allowed": "/"}),
        manifest=at_root("manifest.webmanifest", {}),
        icon=None if icon is None else Asset(folder / icon, TYPES[Path(icon).suffix]),
    )


def _places(folder: Path, address: str, files: Sequence[str]) -> dict[str, str]:
    """What stands for the modules that the page begins with, for the addresses of all of ours, and for the
    packages of others that are in the page."""
    first = imported_by(folder, "main.js")
    ours = [f"{address}{name}" for name in files if not name.startswith("vendor/")]
    return {
        "{{packages}}": _packages(folder) if len(ours) < len(files) else "",
        "{{preload}}": "\n".join(f'<link rel="modulepreload" href="{address}{name}">' for name in first),
        '"{{files}}"': json.dumps(ours),
    }


def _packages(folder: Path) -> str:
    """Names and versions of what the build has put into `vendor/`."""
    asked_for = json.loads((folder / "package.json").read_text("utf-8"))["dependencies"]
    return ", ".join(f"{name} {version}" for name, version in asked_for.items())


def without_comments(text: str) -> str:
    """A script or style sheet as it is sent: a quarter less. Its lines keep their numbers."""
    return _COMMENT.sub(lambda found: "\n" * found[0].count("\n"), text)


def imported_by(folder: Path, name: str) -> list[str]:
    """Every module that comes with this one, nearest first; not those that `import()` fetches later."""
    found = [name]
    for each in found:  # which grows meanwhile
        text = (folder / each).read_text("utf-8") if (folder / each).is_file() else ""
        for target in _IMPORTED.findall(text):
            module = posixpath.normpath(posixpath.join(posixpath.dirname(each), target))
            if module not in found:
                found.append(module)
    return found[1:]


def _version_of(folder: Path, names: Sequence[str]) -> str:
    """Of the names and bytes of all the files, those that are not served included: they take part in making
    those that are."""
    whole = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            whole.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()[:16]


def _endpoint(path: str, serve: Serve, route: str | None = None) -> Endpoint:
    return Endpoint("GET", path, serve, rate=Rate.ASSETS, stream=0, route=route)


async def _answer(asset: Asset | None, call: Call, request: Request) -> Answer:
    if asset is None:
        raise NotFound
    try:
        return await asset.serve(call, request)
    except FileNotFoundError:  # it is there no more, and nobody had asked for it before
        raise NotFound from None
