"""Searching names: against a plain pass over all of them, and what people type."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import OSA

from engine.text.closest import ALL, ClosestTexts
from engine.text.name_search import WORD, NameSearch, allowed_errors
from engine.vocabulary import Found, Vocabulary

PLACES = [
    "saudi arabia",
    "arabian sea",
    "thailand",
    "new zealand",
    "zealand",
    "somalia",
    "mali",
    "mali empire",
]
NAMES = sorted([*PLACES, "c++", "são tomé", "東京都", "o'tool", "king of the hill", "hill"])


def search_of(names: list[str]) -> NameSearch:
    return NameSearch(names, ClosestTexts(names))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("arabia", ["arabian sea", "saudi arabia"]),  # its beginning, then a word of it
        ("mali", ["mali", "mali empire", "somalia"]),  # of equal kind the shorter; then the part of a word
        ("zealand", ["zealand", "new zealand"]),
        ("arabia saudi", ["saudi arabia"]),  # in any order
        ("hill king", ["king of the hill"]),
        ("thialand", ["thailand"]),
        ("saudi arbaia", ["saudi arabia"]),
        ("thalian", ["thailand"]),  # two wrong letters of seven, and the end is still to come
        ("newzealand", ["new zealand"]),
        ("o tool", ["o'tool"]),
        ("京", ["東京都"]),
        ("c++", ["c++"]),
        ("zzzqqq", []),
        ("+", []),
        ("\udc00", []),
    ],
)
def test_what_people_type(text: str, found: list[str]) -> None:
    assert [NAMES[place] for place in search_of(NAMES).places(text)][: len(found) or None] == found


def test_without_a_text_all_come_in_order() -> None:
    assert list(search_of(NAMES).places("")) == list(range(len(NAMES)))
    assert list(search_of([]).places("a")) == list(search_of([]).places("")) == []


letters = st.text("abc -'é", max_size=7)


def kinds_of(name: str, text: str) -> int | None:
    """Return which kind of match a name is by a plain look at it; None: by spelling alone, or none."""
    asked, words = WORD.findall(text), WORD.findall(name)
    if name.startswith(text):
        return 1
    if asked and all(any(word.startswith(one) for word in words) for one in asked):
        return 2
    if asked and all(any(one in word for word in words) for one in asked):
        return 3
    return None


@given(st.lists(letters, unique=True).map(sorted), letters.filter(bool))
def test_exact_kinds_are_a_plain_pass_over_all_names(names: list[str], text: str) -> None:
    found = list(search_of(names).places(text))
    assert len(set(found)) == len(found)
    plain = [(kinds_of(name, text), len(name), place) for place, name in enumerate(names)]
    expected = [place for kind, _, place in sorted((k, n, p) for k, n, p in plain if k is not None)]
    assert found[: len(expected)] == expected


@given(
    st.lists(st.text("abcd", min_size=1, max_size=8), unique=True).map(sorted), st.text("abcd", max_size=8)
)
def test_misspelt_words_are_a_plain_pass_over_all_words(words: list[str], text: str) -> None:
    def errors(word: str) -> int:
        lengths = (len(text) - 1, len(text), len(text) + 1) if len(text) >= 4 else ()
        return min(OSA.distance(text, word[:length]) for length in (*lengths, None))

    found = {words[place] for place in search_of(words).places(text)}
    near = {word for word in words if errors(word) <= allowed_errors(text)}
    assert found == near | {word for word in words if text in word}


def test_words_that_are_near_at_several_lengths_bring_no_others_along() -> None:
    words = ["aada", "ab", "b", "babd"]
    assert [words[place] for place in search_of(words).places("baad")] == ["aada", "babd"]


def test_many_names_are_found_as_few_are() -> None:
    few = [f"{a}{b}{c} island" for a in "bdfg" for b in "aeiou" for c in ("lta", "rno", "nsk")]
    many = sorted({*few, *(f"{i:x} {i * 7919:x} {i * 104729:x}" for i in range(2 * ALL))})
    search = search_of(many)
    search.prepare()
    for name in few:
        wrong = name[:2] + name[3] + name[2] + name[4:]
        assert many[next(search.places(wrong))] == name


def test_a_vocabulary_finds_each_entity_once_and_says_by_which_spelling() -> None:
    vocabulary = Vocabulary(
        ["Thailand", "Saudi\u00a0Arabia", "Mali", "Mali Empire"],
        [["Siam", "Siam (old)"], ["KSA"], [], []],
        [3],
    )
    vocabulary.prepare()
    assert list(islice(vocabulary.search("SIAM"), 2)) == [Found(0, "Siam")]
    assert next(vocabulary.search("arabia")) == Found(1, "Saudi\u00a0Arabia")
    assert next(vocabulary.search("ksa")) == Found(1, "KSA")
    assert [one.entity for one in vocabulary.search("mali")] == [2], "what was removed is not found"
    assert {one.entity for one in vocabulary.search("")} == {0, 1, 2}
    assert list(vocabulary.search("x" * 5000)) == []
