"""Bytes in a file of a backup: what goes in comes out, and nothing else passes for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from secureconnect.backup.sheets import SheetWriter, pages
from secureconnect.backup.streams import CHUNK_BYTES, SALT_BYTES, TAG_BYTES, Damaged, Writer, read, told

KEY = bytes(range(32))
LENGTHS = (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES)
CHUNK = CHUNK_BYTES + TAG_BYTES


def content_of(length: int) -> bytes:
    return (b"0123456789abcde" * (length // 15 + 1))[:length]


def written(path: Path, content: bytes, key: bytes | None, label: str = "one") -> Path:
    writer = Writer(path, key, label)
    for start in range(0, len(content), 100_000):
        writer.write(content[start : start + 100_000])
    writer.finish()
    return path


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "sealed"])
@pytest.mark.parametrize("length", LENGTHS)
def test_what_goes_in_comes_out(tmp_path: Path, length: int, key: bytes | None) -> None:
    content = content_of(length)
    path = written(tmp_path / "a", content, key)
    assert b"".join(read(path, key, "one")) == content
    assert told(path, key, "one").size_bytes == length
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "sealed"])
@pytest.mark.parametrize("length", LENGTHS)
def test_no_beginning_of_a_file_passes_for_it(tmp_path: Path, length: int, key: bytes | None) -> None:
    path = written(tmp_path / "a", content_of(length), key)
    whole = path.read_bytes()
    head = SALT_BYTES if key else 0
    ends = {0, 1, head, len(whole) - 1, len(whole) - 32, len(whole) - 48}
    ends |= {head + at * CHUNK for at in range(4)} | {head + at * CHUNK + 48 for at in range(4)}
    for end in sorted(each for each in ends if 0 <= each < len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(Damaged):
            list(read(path, key, "one"))
    path.write_bytes(whole + b"\0")
    with pytest.raises(Damaged):
        list(read(path, key, "one"))


def test_chunks_are_where_they_were(tmp_path: Path) -> None:
    whole = written(tmp_path / "a", content_of(3 * CHUNK_BYTES), KEY).read_bytes()
    head, rest = whole[:SALT_BYTES], whole[SALT_BYTES:]
    first, second, third, end = (rest[at * CHUNK : (at + 1) * CHUNK] for at in range(4))
    path = tmp_path / "b"
    for chunks in (
        (second, first, third),
        (first, third),
        (first, second, second),
        (first, second, third[::-1]),
    ):
        path.write_bytes(head + b"".join(chunks) + end)
        with pytest.raises(Damaged):
            list(read(path, KEY, "one"))
    other = written(tmp_path / "c", content_of(3 * CHUNK_BYTES), KEY).read_bytes()
    path.write_bytes(head + first + second + other[SALT_BYTES + 2 * CHUNK :])
    with pytest.raises(Damaged, match="at chunk 2"):
        list(read(path, KEY, "one"))


@pytest.mark.parametrize(("key", "label"), [(KEY[::-1], "one"), (KEY, "another")])
def test_another_key_or_label_opens_nothing(tmp_path: Path, key: bytes, label: str) -> None:
    path = written(tmp_path / "a", b"abc", KEY)
    with pytest.raises(Damaged):
        list(read(path, key, label))
    with pytest.raises(Damaged):
        told(path, key, label)


def test_what_was_not_finished_is_not_there(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a", None, "one")
    writer.write(b"abc")
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_rows_keep_their_values(tmp_path: Path) -> None:
    rows = [("ü", 2**62, -1, None, b"\0\xff", 1.5, True), ("", 0, 0, None, b"", -0.0, False)]
    writer = SheetWriter(tmp_path / "a", KEY, "rows")
    for _ in range(3):
        writer.add(rows)
    writer.add([])
    writer.finish()
    found = [tuple(row) for page in pages(tmp_path / "a", KEY, "rows") for row in page]
    assert found == rows * 3
    assert [type(each) for each in found[0]][-1] is int, "databases have 0 and 1"


def test_a_page_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a", b"\xff\xff\xff\xff" + b"0" * 100, None)
    with pytest.raises(Damaged, match="a page of"):
        list(pages(path, None, "one"))
