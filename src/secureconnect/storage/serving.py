"""As what a file is served: never as anything that a browser would run, whatever its sender says of it."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

HEAD_BYTES = 512  # of a file, by which its type is told
ANYTHING = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"
NAME_CHARS = 150

# what a file begins with.  Source: mimesniff.spec.whatwg.org, section 6
_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"\xff\xf1", "audio/aac"),
    (b"\xff\xf9", "audio/aac"),
)
_IN_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
_IN_MP4 = {b"avif": "image/avif", b"avis": "image/avif", b"M4A ": "audio/mp4", b"qt  ": "video/quicktime"}
_MP4 = {b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"M4V ", b"dash", b"mmp4"}

_RISKY = re.compile(r'[\\/:*?"<>|]')
# turn the direction of what follows, so that "exe.jpg" may be read where "gpj.exe" stands
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_GONE = ("Cc", "Cn", "Co", "Cs", "Zl", "Zp")


def media_type_of(head: bytes, announced: str) -> str:
    """head: the first HEAD_BYTES.  announced: by the sender, which only chooses between what the content can
    be."""
    for beginning, media_type in _BEGINNINGS:
        if head.startswith(beginning):
            return media_type
    if head[:4] == b"RIFF":
        return _IN_RIFF.get(head[8:12], ANYTHING)
    if head[4:8] == b"ftyp":
        return _IN_MP4.get(head[8:12], "video/mp4" if head[8:12] in _MP4 else ANYTHING)
    is_sound = announced.startswith("audio/")
    if head[:4] == b"\x1a\x45\xdf\xa3" and b"webm" in head[:64]:
        return "audio/webm" if is_sound else "video/webm"
    if head[:5] == b"OggS\0":
        return "video/ogg" if announced.startswith("video/") else "audio/ogg"
    return TEXT if announced.startswith("text/") and _is_text(head) else ANYTHING


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as broken:
        if broken.end < len(head) or len(head) < HEAD_BYTES:  # not merely cut in the middle of a character
            return False
        text = head[: broken.start].decode()
    return not any(unicodedata.category(char) == "Cc" and char not in "\t\n\r\f" for char in text)


def saved_as(file_name: str) -> str:
    """A name that any system saves where the browser wants it."""
    kept = "".join(
        char for char in file_name if char not in _TURNS and unicodedata.category(char) not in _GONE
    )
    kept = _RISKY.sub("_", kept).strip(" .")
    if len(kept) > NAME_CHARS:
        stem, dot, ending = kept.rpartition(".")
        ending = dot + ending if stem and len(ending) <= 16 else ""
        kept = kept[: NAME_CHARS - len(ending)] + ending
    return kept or "file"


def disposition(file_name: str) -> str:
    """Content-Disposition: a browser saves it, and shows nothing of it.

    Source: RFC 6266, section 4; RFC 8187, section 3.2: the plain name is for those who do not read the other.
    """
    name = saved_as(file_name)
    plain = "".join(char if " " <= char <= "~" and char not in "%'" else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
