"""What the words of a text are: of a message that is indexed, and of a question.

Letters are compared without case, marks and width. What is written without blanks between words (Chinese,
Japanese, Thai …) is split into single characters, as are emoji: words are found as characters in a row.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

# What a text gives at most. PostgreSQL keeps neither more places of one word, nor places beyond, nor longer
# words; SQLite is held to the same, so that both find the same.
LONGEST = 64  # characters of a word; the rest of it is not looked at
SAME = 255  # times that a word counts
MOST = 16_000  # words
CHARS = 100_000  # of all of them together

_PLAIN = re.compile(r"[0-9a-z]+")
_WITHOUT_MARK = {
    "đ": "d",
    "ł": "l",
    "ø": "o",
    "ħ": "h",
    "ŧ": "t",
    "ı": "i",
}  # no form of them has the mark apart
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0x20000, 0x3FFFF),
)


class Word(NamedTuple):
    """text: folded.  start, end: where it stands in the original, in characters."""

    text: str
    start: int
    end: int


def words(text: str) -> Sequence[Word]:
    """In their order. The same text always gives the same."""
    if text.isascii():
        found = [Word(m[0][:LONGEST], *m.span()) for m in _PLAIN.finditer(text.lower())]
    else:
        found = list(_split(text))
    return found if len(found) <= SAME else _bounded(found)


def _split(text: str) -> Iterator[Word]:
    letters, start, end = "", 0, 0
    for at, char in enumerate(text):
        for folded, is_word, is_alone in _fold(char):
            if letters and (is_alone or not is_word):
                yield Word(letters[:LONGEST], start, end)
                letters = ""
            if is_alone:
                yield Word(folded, at, at + 1)
            elif is_word:
                start = at if not letters else start
                letters, end = letters + folded, at + 1
        if letters:
            end = at + 1  # with the marks that stand behind a letter
    if letters:
        yield Word(letters[:LONGEST], start, end)


@lru_cache(maxsize=65_536)
def _fold(char: str) -> tuple[tuple[str, bool, bool], ...]:
    """The letters it stands for: each with whether it is part of a word, and whether it is one by itself.
    Nothing for a mark."""
    spread = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return tuple(
        (_WITHOUT_MARK.get(each, each), _is_word(each), _is_alone(each))
        for each in spread
        if not _is_mark(each)
    )


def _is_mark(char: str) -> bool:
    """Also what is not seen: joiners, and words on how the character before is drawn."""
    return (
        unicodedata.combining(char) != 0
        or unicodedata.category(char) == "Cf"
        or "\ufe00" <= char <= "\ufe0f"
        or "\U000e0100" <= char <= "\U000e01ef"
    )


def _is_word(char: str) -> bool:
    return unicodedata.category(char)[0] in "LNM"


def _is_alone(char: str) -> bool:
    code = ord(char)
    is_unspaced = any(low <= code <= high for low, high in _UNSPACED)
    return unicodedata.category(char) == "So" or (is_unspaced and _is_word(char))


def _bounded(found: Sequence[Word]) -> Sequence[Word]:
    seen: Counter[str] = Counter()
    kept: list[Word] = []
    room = CHARS
    for word in found:
        seen[word.text] += 1
        if seen[word.text] > SAME:
            continue
        room -= len(word.text)
        if room < 0 or len(kept) == MOST:
            break
        kept.append(word)
    return kept
