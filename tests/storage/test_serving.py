"""As what a file is served: by what it holds, under a name that nobody is deceived by."""

from __future__ import annotations

import pytest

from secureconnect.clock import MINUTE_US
from secureconnect.identity import FileId, UserId
from secureconnect.storage.accesses import Access, Accesses
from secureconnect.storage.serving import (
    ANYTHING,
    HEAD_BYTES,
    TEXT,
    disposition,
    media_type_of,
    saved_as,
)

from .rig import ADDRESS

MP4 = b"\0\0\0\x20ftyp"


@pytest.mark.parametrize(
    ("head", "announced", "served"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "text/html", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg", "image/jpeg"),
        (b"GIF89a<script>alert(1)</script>", "text/html", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp", "image/webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio/wav", "audio/wav"),
        (b"RIFF\0\0\0\0ACON", "image/webp", ANYTHING),
        (MP4 + b"isom", "text/html", "video/mp4"),
        (MP4 + b"avif", "image/avif", "image/avif"),
        (MP4 + b"evil", "video/mp4", ANYTHING),
        (b"\x1a\x45\xdf\xa3\x01\0\0\0B\x82\x84webm", "audio/webm", "audio/webm"),
        (b"\x1a\x45\xdf\xa3\x01\0\0\0B\x82\x88matroska", "video/webm", ANYTHING),
        (b"OggS\0\x02", "video/ogg", "video/ogg"),
        (b"%PDF-1.7", "application/pdf", "application/pdf"),
        (b"<script>alert(1)</script>", "text/html", TEXT),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "image/svg+xml", ANYTHING),
        (b"<html>", "image/png", ANYTHING),
        (b"# Notes\r\n\tyes", "text/markdown", TEXT),
        (b"a\0b", "text/plain", ANYTHING),
        (b"\xff\xfea\0", "text/plain", ANYTHING),
        (b"caf\xc3", "text/plain", ANYTHING),
        ("é".encode() * 300, "text/plain", TEXT),
        (b"a" + "é".encode() * 300, "text/plain", TEXT),  # cut in the middle of a character
        (b"MZ\x90\0", "image/png", ANYTHING),
        (b"", "text/plain", TEXT),
        (b"", "image/png", ANYTHING),
    ],
)
def test_the_content_tells_the_type(head: bytes, announced: str, served: str) -> None:
    assert media_type_of(head[:HEAD_BYTES], announced) == served


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("notes.md", "notes.md"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("C:\\Windows\\a.exe", "C__Windows_a.exe"),
        (".bashrc", "bashrc"),
        ("invoice\u202egpj.exe", "invoicegpj.exe"),
        ("a\u2028b\x9f.txt", "ab.txt"),
        ("Grüße 👩\u200d👧.png", "Grüße 👩\u200d👧.png"),
        ('"><img src=x>.png', "___img src=x_.png"),
        (" . ", "file"),
        ("x" * 255 + ".png", "x" * 146 + ".png"),
        ("." * 200, "file"),
    ],
)
def test_names_deceive_nobody(name: str, saved: str) -> None:
    assert saved_as(name) == saved


def test_the_header_is_read_by_old_and_new() -> None:
    assert disposition("notes.md") == "attachment; filename=\"notes.md\"; filename*=UTF-8''notes.md"
    assert disposition('Grüße "%41".txt') == (
        "attachment; filename=\"Gr__e __41_.txt\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe%20_%2541_.txt"
    )


def test_accesses_are_merged_and_bounded() -> None:
    accesses = Accesses(2)
    access = Access(UserId("ann"), FileId("f"), ADDRESS)
    assert accesses.is_news(access, 0)
    assert accesses.is_news(access, 0), "until it is in the log"
    accesses.note(access, 0)
    assert not accesses.is_news(access, MINUTE_US - 1)
    assert accesses.is_news(access, MINUTE_US), "in the next minute it is news again"
    accesses.note(access, MINUTE_US)
    others = (access._replace(client="192.0.2.8"), access._replace(user=UserId("bob")))
    for other in others:
        assert accesses.is_news(other, MINUTE_US)
        accesses.note(other, MINUTE_US)
    assert accesses.is_news(access, MINUTE_US), "forgotten for newer ones"
