"""Whatever is said and asked: the index finds what a look at every message finds."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from secureconnect.chat import Chat
from secureconnect.chat.search.question import MOST_WORDS, find, parse, snippet
from secureconnect.chat.search.search import Asked
from secureconnect.chat.search.words import words
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import Invalid
from secureconnect.identity import UserId

from .rig import make_group, running, say

BITS = (
    *(
        "a",
        "ab",
        "abc",
        "b",
        "Ba",
        "đ",
        "Đ",
        "é",
        "e\N{COMBINING ACUTE ACCENT}",
        "東",
        "京",
        "ก",
        "ﬁ",
        "½",
        "İ",
    ),
    *(
        "\N{THUMBS UP SIGN}",
        "1",
        "'",
        "-",
        "_",
        ".",
        "*",
        ":",
        "^",
        "(",
        ")",
        "|",
        "&",
        "!",
        "\\",
        "<->",
        "@",
    ),
    *("AND", "OR", "NOT", "NEAR", "\N{ZERO WIDTH JOINER}", "\N{RIGHT-TO-LEFT MARK}", "\ufe0f", "\t", "%"),
)
piece = st.sampled_from(BITS) | st.sampled_from([" "])
said = st.lists(piece, min_size=1, max_size=12).map("".join)
asked = st.lists(piece | st.sampled_from(['"', "“"]), min_size=1, max_size=6).map("".join)


def texts(text: str) -> list[str]:
    return [each.text for each in words(text)]


@given(asked | st.text(max_size=40))
@example('"')
@example("“")
def test_a_question_is_understood_or_refused(text: str) -> None:
    with suppress(Invalid):
        terms = parse(text)
        assert 0 < sum(len(term.words) for term in terms) <= MOST_WORDS
        assert not any(begun.is_begun for begun in terms[:-1])


@given(said | st.text(max_size=80))
def test_words_stand_where_they_are_said_to(text: str) -> None:
    found = words(text)
    assert all(each.text and 0 <= each.start < each.end <= len(text) for each in found)
    assert [each[1:] for each in found] == sorted(each[1:] for each in found)
    for each in found:
        assert each.text in texts(text[each.start : each.end])


@given(said | st.text(max_size=400), st.data())
def test_a_text_is_found_by_any_of_its_words(text: str, data: st.DataObject) -> None:
    whole = [each for each in words(text) if texts(text[each.start : each.end]) == [each.text]]
    if not whole:  # a part of a character, as in ½, is no word to ask for
        return
    word = data.draw(st.sampled_from(whole))
    hit = find(parse(text[word.start : word.end]), text)
    assert hit is not None
    shown = snippet(text, hit.ranges)
    assert shown.text in text
    assert shown.ranges
    assert all(0 <= each.start < each.end <= len(shown.text) for each in shown.ranges)


async def test_the_index_finds_what_a_look_at_every_message_finds(
    db: Database, bus: MemoryBus, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    async with running(db, bus, ChatConfig(search_pass_s=3_600)) as room:
        messages = [text for text in samples(said, 100) if text.strip()]
        group = await make_group(room, ann, bob)
        for text in messages:
            await say(room, ann, group, text)
        while not await room.index.pass_once():
            pass
        for question in samples(asked, 60):
            await agrees(room, bob, messages, question)


def samples(texts: st.SearchStrategy[str], count: int) -> list[str]:
    """Some of them, the same each time."""
    made: list[str] = []

    @settings(max_examples=count, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(texts)
    def gather(text: str) -> None:
        made.append(text)

    gather()
    return made


async def agrees(room: Chat, caller: UserId, messages: list[str], question: str) -> None:
    try:
        terms = parse(question)
    except Invalid:
        return
    told: list[str] = []
    after = None
    while True:
        results = await room.search.find(caller, Asked(terms, None, None, None, None, 50), after)
        told += [hit.message.content for hit in results.hits]
        after = results.next
        if after is None:
            break
    assert sorted(told) == sorted(text for text in messages if find(terms, text)), terms
