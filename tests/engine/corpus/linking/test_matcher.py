"""Every name of a table in one pass: the same places as a search name by name, and the rules one by one."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.linking.lexicon import Lexicon
from engine.corpus.linking.matcher import Match, Matcher, Verdict, _whole_words
from engine.corpus.linking.rules import LinkRules
from engine.text.words import is_parted

PLAIN = LinkRules(case="any", unlisted_names=False, compounds=False)


def matcher(*names: str, aliases: dict[str, list[str]] | None = None, **rules: object) -> Matcher:
    lexicon = Lexicon(names, [(aliases or {}).get(name, []) for name in names])
    return Matcher(lexicon, LinkRules.model_validate(rules))


def linked(found: list[Match], text: str) -> list[str]:
    return [text[one.start : one.end] for one in found if one.verdict is Verdict.LINKED]


def verdicts(found: list[Match]) -> list[str]:
    return [one.verdict.name.lower() for one in found]


def plainly(names: list[str], text: str) -> list[tuple[int, int, int]]:
    """Whole words in any case, from the left, the longest first: place by place, name by name."""
    found, at = [], 0
    while at < len(text):
        fitting = [
            (len(name), number)
            for number, name in enumerate(names)
            if re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE).match(text, at)
        ]
        if not fitting:
            at += 1
            continue
        length, number = max(fitting)
        found.append((at, at + length, number))
        at += length
    return found


WORDS = st.sampled_from(["new", "York", "NEW", "yorks", "city", "New-York", "a", "newer", "York."])


@given(
    st.lists(
        st.sampled_from(["new york", "New York City", "york", "City", "a new", "yorks city", "a"]),
        min_size=1,
        unique_by=str.lower,
    ),
    st.lists(WORDS, max_size=12).map(" ".join),
)
def test_the_automaton_finds_what_a_search_name_by_name_finds(names: list[str], text: str) -> None:
    found = Matcher(Lexicon(names, [[]] * len(names)), PLAIN).find(text)
    places = [(one.start, one.end, one.entities[0]) for one in found if one.verdict is Verdict.LINKED]
    assert places == plainly(names, text)


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=5))
def test_places_stand_in_the_text_in_order_and_never_overlap(text: str, names: list[str]) -> None:
    found = Matcher(Lexicon(names, [[]] * len(names)), PLAIN).find(text)
    mentions = [one for one in found if one.verdict in (Verdict.LINKED, Verdict.AMBIGUOUS)]
    assert all(0 <= one.start < one.end <= len(text) for one in found)
    assert all(a.end <= b.start for a, b in pairwise(mentions))


def test_a_name_inside_a_longer_one_is_no_mention() -> None:
    text = "Guinea-Bissau lies near Guinea."
    found = matcher("Guinea", "Guinea-Bissau").find(text)
    assert linked(found, text) == ["Guinea-Bissau", "Guinea"]
    assert verdicts(found) == ["in_longer_name", "linked", "linked"]
    assert found[0].end == len("Guinea")
    # Without the longer one in the table the hyphen says so.
    found = matcher("Guinea").find(text)
    assert verdicts(found) == ["in_compound", "linked"]
    assert verdicts(matcher("Guinea", compounds=False).find(text)) == ["linked", "linked"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("Turkey", "He ate turkey in Turkey.", ["Turkey"]),
        ("Turkey", "TURKEY AND GREECE", ["TURKEY"]),
        ("US", "let us go to the US", ["US"]),
        ("Us", "LET US GO", []),  # two letters in capitals say nothing
        ("hydrogen", "Hydrogen burns; Hydrogen, hydrogen.", ["Hydrogen", "hydrogen"]),
        ("hydrogen", '"Hydrogen" burns', ["Hydrogen"]),
        ("solar system", "The Solar System and a Solar system.", ["Solar System", "Solar system"]),
        ("Ancient Egypt", "in ancient Egypt and Ancient egypt", ["ancient Egypt"]),
        ("iPhone", "IPhone and iPhone and iphone", ["IPhone", "iPhone"]),
        ("1984", "in 1984, 19845", ["1984"]),
    ],
)
def test_the_case_of_a_name_follows_from_its_shape(name: str, text: str, expected: list[str]) -> None:
    assert linked(matcher(name, unlisted_names=False).find(text), text) == expected


def test_case_may_be_exact_or_any() -> None:
    text = "Hydrogen, hydrogen, HYDROGEN"
    assert linked(matcher("hydrogen", case="exact").find(text), text) == ["hydrogen"]
    assert len(linked(matcher("hydrogen", case="any").find(text), text)) == 3
    assert verdicts(matcher("hydrogen", case="exact").find(text)) == ["other_case", "linked", "other_case"]


@pytest.mark.parametrize(
    ("name", "text", "is_part"),
    [
        ("Paris", "He met Paris Hilton.", True),
        ("Paris", "Then Michael Paris came.", True),
        ("Paris", "In Paris they met.", False),  # where a sentence begins a capital says nothing
        ("Paris", "He saw Paris.", False),
        ("Paris", "They went to Paris, France.", False),
        ("New York", "He read the New York Times.", True),
        ("New York", "Old New York is gone.", False),
        ("Bay of Pigs", "The Bay of Pigs Invasion failed.", False),  # three words are a name of their own
        ("lion", "A lion King", False),
    ],
)
def test_capitals_beside_a_short_name_are_part_of_a_longer_one(name: str, text: str, is_part: bool) -> None:
    expected = "in_unlisted_name" if is_part else "linked"
    assert verdicts(matcher(name).find(text)) == [expected]
    assert verdicts(matcher(name, unlisted_names=False).find(text)) == ["linked"]


def test_a_spelling_of_several_entities_is_ambiguous_unless_one_is_written_just_so() -> None:
    own = matcher("Georgia", "Georgia (state)", "turkey", "Turkey", aliases={"Georgia (state)": ["Georgia"]})
    text = "Georgia, turkey, Turkey."
    found = own.find(text)
    assert verdicts(found) == ["ambiguous", "linked", "linked"]
    assert [one.entities for one in found] == [(0, 1), (2,), (3,)]


def test_places_are_those_of_the_text_as_it_was_given() -> None:
    text = "the  Nizhny\u00a0Novgorod oblast, R&amp;D, o\u2019neill"
    found = matcher("Nizhny Novgorod", "R&D", "O'Neill", case="any").find(text)
    assert linked(found, text) == ["Nizhny\u00a0Novgorod", "R&amp;D", "o\u2019neill"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("北京", "我喜欢北京。"),
        ("กรุงเทพ", "ฉันรักกรุงเทพมาก"),
        ("서울", "나는 서울에서 왔다"),
        ("東京", "東京へ行く"),
    ],
)
def test_where_no_spaces_part_words_every_whole_sign_may_end_one(name: str, text: str) -> None:
    assert linked(matcher(name).find(text), text) == [name]


LETTERS = st.text(st.sampled_from("aAé_1 -.北ก\u0e31\u0301\u00ad"), max_size=20)


@given(
    LETTERS, st.lists(st.sampled_from(["a", "é", "1", "aé", "北", "ก", "a-", "_"]), min_size=1, unique=True)
)
def test_whole_words_are_those_of_every_script(text: str, names: list[str]) -> None:
    """What is asked of all hits at once rules out what a look at each rules out."""
    hits = [
        (key, at, at + len(name))
        for key, name in enumerate(names)
        for at in range(len(text))
        if text.startswith(name, at)
    ]
    assert _whole_words(text, hits) == [hit for hit in hits if is_parted(text, *hit[1:])]
