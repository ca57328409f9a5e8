"""What is asked for, and whether and where a text has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ...errors import Invalid
from .words import Word, words

MOST_WORDS = 16
BEGUN = 2  # letters of a word before what begins so is found, too
RANGES = 50  # told of one text
SNIPPET = 160  # characters
BEST = 3  # rank
BEFORE = 40  # of them before what was found, at most

_QUOTES = str.maketrans("“”„«»", '"""""')


class Term(NamedTuple):
    """Words that must stand in a row.  is_begun: the last may go on."""

    words: tuple[str, ...]
    is_begun: bool = False

    def places(self, said: Sequence[Word]) -> list[int]:
        """Where it begins in a text."""
        *firsts, last = self.words
        ends = [
            at
            for at, word in enumerate(said[len(firsts) :])
            if word.text == last or (self.is_begun and word.text.startswith(last))
        ]
        if not firsts:
            return ends
        return [at for at in ends if [word.text for word in said[at : at + len(firsts)]] == firsts]


class Range(NamedTuple):
    """Characters, from 0; `end` is the first after it."""

    start: int
    end: int


class Found(NamedTuple):
    """rank: the higher, the better.  ranges: of what was asked for, in order, without overlap."""

    rank: int
    ranges: tuple[Range, ...]


class Snippet(NamedTuple):
    text: str
    ranges: tuple[Range, ...]


def parse(text: str) -> tuple[Term, ...]:
    """All of the terms must be there. Words in quotes stand in a row, as do parts that no blank separates;
    the last word, unless it is quoted, may be the beginning of one. Raises Invalid."""
    terms: list[Term] = []
    is_open = False
    for number, part in enumerate(text.translate(_QUOTES).split('"')):
        is_quoted = number % 2 == 1
        for piece in [part] if is_quoted else part.split():
            if found := words(piece):
                terms.append(Term(tuple(word.text for word in found)))
                is_open = not is_quoted
    if not terms:
        raise Invalid("There is no word to search for.", details={"field": "q"})
    if sum(len(term.words) for term in terms) > MOST_WORDS:
        raise Invalid(f"Search for at most {MOST_WORDS} words.", details={"field": "q"})
    if is_open and len(terms[-1].words[-1]) >= BEGUN:
        terms[-1] = terms[-1]._replace(is_begun=True)
    return tuple(dict.fromkeys(terms))


def find(terms: Sequence[Term], text: str) -> Found | None:
    """None unless the text has all of them. Best is one that has them in a row, then one that has the last
    word as it was asked for."""
    said = words(text)
    spans: list[tuple[int, int]] = []
    for term in terms:
        places = term.places(said)
        if not places:
            return None
        spans += [(said[at].start, said[at + len(term.words) - 1].end) for at in places]
    last = terms[-1]
    is_whole = not last.is_begun or bool(Term(last.words).places(said))
    row = Term(tuple(word for term in terms for word in term.words), last.is_begun)
    is_row = len(terms) == 1 or bool(row.places(said))
    return Found(2 * is_row + is_whole, _merged(spans))


def _merged(spans: Iterable[tuple[int, int]]) -> tuple[Range, ...]:
    merged: list[Range] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1].end:
            merged[-1] = Range(merged[-1].start, max(end, merged[-1].end))
        elif len(merged) < RANGES:
            merged.append(Range(start, end))
        else:
            break
    return tuple(merged)


def snippet(text: str, ranges: Sequence[Range]) -> Snippet:
    """The part of a text around the first of them, cut between words where there is a blank."""
    first = ranges[0]
    start = max(0, first.start - BEFORE)
    if start:
        blank = _first_blank(text, start, first.start)
        start = start if blank is None else blank + 1
    end = min(len(text), start + SNIPPET)
    if end < len(text):
        blank = _last_blank(text, first.end, end)
        end = end if blank is None else blank
    shown = tuple(
        Range(each.start - start, min(each.end, end) - start) for each in ranges if start <= each.start < end
    )
    return Snippet(text[start:end], shown)


def _first_blank(text: str, low: int, high: int) -> int | None:
    return next((at for at in range(low, high) if text[at].isspace()), None)


def _last_blank(text: str, low: int, high: int) -> int | None:
    return next((at for at in range(high - 1, low - 1, -1) if text[at].isspace()), None)
