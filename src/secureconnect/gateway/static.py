"""Files known at the start and texts of our own, each at an address of its own, in several encodings.

No path from outside is ever joined to a folder: what is not in the table made at the start does not exist.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import trio

from ..edge import Call, File, Rate
from ..errors import RangeNotSatisfiable
from . import replies
from .admission import Endpoint, Request
from .replies import Answer

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/vnd.microsoft.icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
_ENCODINGS = {".br": "br", ".gz": "gzip"}  # of the files beside a file
_TEXT = re.compile(r"text/|application/(manifest\+)?json|image/svg")
_HASHED = re.compile(r"[.-][0-9a-f]{8,}\.\w+$")  # app.3f2a9c1b.js: other bytes get another name
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)
HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"
_OF_THE_BODY = ("content-disposition", "content-encoding", "content-length", "content-range", "content-type")
_UNASKED = 0.001  # the weight of the plain form for a client that names others only

Source = Path | bytes | Callable[[], bytes]


class Form(NamedTuple):
    """One encoding of an asset.  body: a file where there is one, so that it takes no memory."""

    encoding: str
    body: bytes | File
    size: int
    etag: str


class Asset:
    """A file, a text, or what makes one. Its bytes are looked at (or made) when somebody first asks for it,
    and are then taken to stay.

    A text without a compressed file beside it is compressed in memory. That costs the start nothing, and
    where nobody opens the page no memory either.
    """

    def __init__(self, source: Source, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        self._source = source
        lasts = isinstance(source, Path) and _HASHED.search(source.name)
        self._headers = {
            "content-type": content_type,
            "cache-control": "public, max-age=31536000, immutable" if lasts else "no-cache",
            "vary": "Origin, Accept-Encoding",  # Origin is the gate's
            **(headers or {}),
        }
        self._forms: Sequence[Form] = ()
        self._preparing = trio.Lock()

    async def serve(self, call: Call, request: Request) -> Answer:
        if not self._forms:
            async with self._preparing:
                if not self._forms:
                    compress = _TEXT.match(self._headers["content-type"]) is not None
                    self._forms = await trio.to_thread.run_sync(_forms_of, self._source, compress)
        if "range" in request.headers:
            form = self._forms[0]
        else:
            form = best(self._forms, request.headers.get("accept-encoding", ""))
        answer = Answer(200, form.body, {**self._headers, "etag": form.etag})
        if form.encoding != "identity":
            answer.headers["content-encoding"] = form.encoding
        return conditional(answer, call, request)


def files(folder: Path, prefix: str, names: Iterable[str] | None = None) -> list[Endpoint]:
    """An endpoint for each file of a folder that is there now.  names: of some files; all, if left out."""
    return [
        Endpoint(
            "GET",
            f"{prefix}/{name}",
            Asset(folder / name, TYPES.get(Path(name).suffix, "application/octet-stream")).serve,
            rate=Rate.PUBLIC,
            stream=0,
            route=f"{prefix}/{{file}}",
        )
        for name in (names_in(folder) if names is None else names)
    ]


def conditional(answer: Answer, call: Call, request: Request) -> Answer:
    """What to send of a whole answer with an ETag: nothing, if the client has it; a part of a file, if it
    asks for one; or all of it."""
    body, etag = answer.body, answer.headers.get("etag")
    if etag is None or not isinstance(body, bytes | File):
        return answer
    if is_held(request, etag, answer.headers.get("last-modified")):
        # a browser puts these over what it has kept, the Content-Security-Policy among them
        kept = {name: value for name, value in answer.headers.items() if name not in _OF_THE_BODY}
        return Answer(304, headers=kept)
    if isinstance(body, bytes):
        return answer
    answer.headers["accept-ranges"] = "bytes"
    try:
        part = part_of(request, body.size, etag, answer.headers.get("last-modified"))
    except RangeNotSatisfiable as problem:
        refusal = replies.failure(problem, call.request_id)
        refusal.headers["content-range"] = f"bytes */{body.size}"
        return refusal
    if part is None:
        return answer
    answer.headers["content-range"] = f"bytes {part[0]}-{part[0] + part[1] - 1}/{body.size}"
    return Answer(
        206, msgspec.structs.replace(body, size=part[1], start=body.start + part[0]), answer.headers
    )


def is_held(request: Request, etag: str, modified: str | None) -> bool:
    """Whether the client has what it asks for. Source: RFC 9110, sections 13.1.2, 13.1.3 and 13.2.2."""
    listed = request.headers.get("if-none-match")
    if listed is not None or modified is None:
        return _names(listed or "", etag)
    asked, known = _time(request.headers.get("if-modified-since", "")), _time(modified)
    return asked is not None and known is not None and known <= asked


def part_of(request: Request, size: int, etag: str, modified: str | None = None) -> tuple[int, int] | None:
    """(start, size) of the one range that is asked for; None: everything. Raises RangeNotSatisfiable.

    Source: RFC 9110, sections 13.1.5 and 14.2. Several ranges are answered with the whole.
    """
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if asked is None or request.method != "GET":
        return None
    if request.headers.get("if-range", etag) not in (etag, modified):
        return None
    first, last = asked.groups()
    if not (first or last) or (first and last and int(last) < int(first)):
        return None
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    if start >= end:
        raise RangeNotSatisfiable
    return start, end - start


def best(forms: Sequence[Form], accepted: str) -> Form:
    """The smallest of those that a client likes best; the plain one, which comes first, if it likes none.

    accepted: its Accept-Encoding.
    """
    weights = dict(_weights(accepted))
    if "*" not in weights:
        weights.setdefault("identity", _UNASKED)

    def rank(form: Form) -> tuple[float, int]:
        return weights.get(form.encoding, weights.get("*", 0.0)), -form.size

    liked = max(forms, key=rank)
    return liked if rank(liked)[0] > 0 else forms[0]


def _weights(accepted: str) -> Iterator[tuple[str, float]]:
    for each in accepted.lower().split(","):
        name, _, weight = each.partition(";")
        try:
            yield name.strip(), float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            continue


def _names(listed: str, etag: str) -> bool:
    """Whether a list of ETags has this one; weak ones count (RFC 9110 section 13.1.2)."""
    return listed == "*" or etag in (each.strip().removeprefix("W/") for each in listed.split(","))


def _time(date: str) -> datetime | None:
    """None for what is no date of HTTP."""
    try:
        return datetime.strptime(date, HTTP_DATE)
    except ValueError:
        return None


def names_in(folder: Path) -> list[str]:
    """Without what is hidden, what leads elsewhere, and the compressed files beside another."""
    found = {
        path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    }
    return sorted(
        name.as_posix()
        for name in found
        if not any(part.startswith(".") for part in name.parts)
        and not (name.suffix in _ENCODINGS and name.with_suffix("") in found)
    )


def _forms_of(source: Source, compress: bool) -> list[Form]:
    """The plain one first. Reads files: for a thread."""
    if not isinstance(source, Path):
        data = source if isinstance(source, bytes) else source()
        forms = [_form("identity", data, data)]
    else:
        data = source.read_bytes()
        forms = [_form("identity", data, File(source, len(data)))]
        for suffix, encoding in _ENCODINGS.items():
            beside = source.with_name(source.name + suffix)
            if beside.is_file():
                encoded = beside.read_bytes()
                forms.append(_form(encoding, encoded, File(beside, len(encoded))))
    if compress and len(forms) == 1:
        encoded = gzip.compress(data, mtime=0)
        if len(encoded) < len(data):
            forms.append(_form("gzip", encoded, encoded))
    return forms


def _form(encoding: str, data: bytes, body: bytes | File) -> Form:
    return Form(encoding, body, len(data), f'"{hashlib.sha256(data).hexdigest()[:32]}"')
