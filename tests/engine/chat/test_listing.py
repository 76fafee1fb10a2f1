"""Test what is read of answers, in every form that models give them, and how names are matched."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.chat.listing import MOST_NAMES, MOST_OF_NAME, read_listing
from engine.chat.matching import Matched, NameMatcher
from engine.chat.prompts import expansion_messages
from engine.vocabulary import Vocabulary

THREE = ("Norway", "Côte d'Ivoire", "Washington, D.C.")

LISTS = {
    "as asked": '{"entities": ["Norway", "Côte d\'Ivoire", "Washington, D.C."]}',
    "in a fence": '```json\n{"entities": ["Norway", "Côte d\'Ivoire", "Washington, D.C."]}\n```',
    "text around": 'Here is {a list}: {"entities": ["Norway", "Côte d\'Ivoire", "Washington, D.C."]} Enjoy.',
    "a bare list": '["Norway", "Côte d\'Ivoire", "Washington, D.C."]',
    "another key": '{"countries": ["Norway", "Côte d\'Ivoire", "Washington, D.C."], "n": 3}',
    "a key in capitals": '{"note": [], "Entities": ["Norway", "Côte d\'Ivoire", "Washington, D.C."]}',
    "nested": '{"output": {"entities": ["Norway", "Côte d\'Ivoire", "Washington, D.C."]}}',
    "objects": json.dumps([{"name": THREE[0], "why": "x"}, {"Name": THREE[1]}, {"entity": THREE[2]}]),
    "escaped": json.dumps({"entities": list(THREE)}),
    "cut after the last": '{"entities": ["Norway", "Côte d\'Ivoire", "Washington, D.C.", "Swe',
    "cut in an escape": '{"entities": ["Norway", "Côte d\'Ivoire", "Washington, D.C.", "Cura\\u00',
    "numbered": "Here are three:\n\n1. Norway\n2. Côte d'Ivoire\n3) Washington, D.C.\n\nI hope this helps!",
    "bulleted": "Entities:\n- Norway\n* Côte d'Ivoire\n• Washington, D.C.",
    "lines": "These are the entities:\nNorway\nCôte d'Ivoire\nWashington, D.C.",
    "invisible signs": '["Norway\u200b ", "", "Côte\u00a0d\'Ivoire", "\\u200b", "Washington, D.C."]',
}


@pytest.mark.parametrize("form", LISTS)
def test_a_list_is_read_in_any_form(form: str) -> None:
    found = read_listing(LISTS[form])
    assert found.names == THREE
    assert not found.loose


@pytest.mark.parametrize(
    "content",
    [
        "Norway, Sweden and Denmark.",
        "Norway; Sweden; and Denmark",
        "The entities are: Norway, Sweden, and Denmark.",
    ],
)
def test_words_between_commas_are_a_loose_list(content: str) -> None:
    found = read_listing(content)
    matched = NameMatcher(Vocabulary(["Denmark", "Sweden", "Norway"])).match(found)
    assert found.loose
    assert [m.entity for m in matched] == [2, 1, 0]


@pytest.mark.parametrize(
    ("content", "class_name"),
    [
        ('{"class_name": "Monarchies in Asia", "entities": ["Norway"]}', "Monarchies in Asia"),
        ('{"Class Name": "Monarchies in Asia", "entities": ["Norway"]}', "Monarchies in Asia"),
        ('{"class_name": "Monarchies in Asia", "entities": ["Norway", "Swe', "Monarchies in Asia"),
        ("**Class name:** Monarchies in Asia\n\n1. Norway", "Monarchies in Asia"),
        ('{"class_name": 3, "entities": ["Norway"]}', ""),
        ("1. Norway", ""),
    ],
)
def test_a_class_name_is_read(content: str, class_name: str) -> None:
    found = read_listing(content)
    assert (found.class_name, found.names) == (class_name, ("Norway",))


@pytest.mark.parametrize(
    "content", ["", "  \n ", "{}", "[]", '{"entities": []}', '{"entities": "none"}', "[" * 100_000]
)
def test_nothing_listed(content: str) -> None:
    assert not [
        m for m in NameMatcher(Vocabulary(["Norway"])).match(read_listing(content)) if m.entity is not None
    ]


def test_an_answer_that_was_cut_off_loses_its_last_name_alone() -> None:
    assert read_listing("1. Norway\n2. Niger", cut=True).names == ("Norway",)
    assert read_listing("Norway, Sweden, Niger", cut=True).names == ("Norway", "Sweden")
    assert read_listing("1. Norway\n2. Niger").names == ("Norway", "Niger")


def test_an_answer_of_any_length_is_read_in_bounds() -> None:
    many = json.dumps({"entities": [f"name {i}" for i in range(10 * MOST_NAMES)]})
    assert len(read_listing(many).names) == MOST_NAMES
    assert len(read_listing("\n".join(f"- name {i}" for i in range(10 * MOST_NAMES))).names) == MOST_NAMES


LONG = 200_000
HOSTILE = {
    "escaped quotes that do not end": '["Norway", "' + '\\"' * LONG,
    "a class name of marks": "class: a" + "!" * LONG + "b\n1. Norway",
    "a class of colons": "class" + ":" * LONG + "\n1. Norway",
    "a name of marks": json.dumps(["Norway", "a" + "*" * LONG + "b"]),
    "a line of marks": "1. Norway\n2. a" + "*" * LONG + "b",
    "deep": '{"a":' * 3000 + '["x"]' + "}" * 3000 + '{"entities": ["Norway"]}',
}


@pytest.mark.parametrize("form", HOSTILE)
def test_no_answer_keeps_its_reader_busy(form: str) -> None:
    started = time.process_time()
    found = read_listing(HOSTILE[form])
    matched = NameMatcher(Vocabulary(["Norway"])).match(found)
    assert time.process_time() - started < 2, "a look at each place for each place takes minutes"
    assert [m.entity for m in matched if m.entity is not None] == [0]
    assert max(map(len, (*found.names, found.class_name))) <= MOST_OF_NAME


def test_half_a_surrogate_pair_can_be_written() -> None:
    found = read_listing(r'{"class_name": "\ud800 x", "entities": ["Nor\udfff", "Norway"]}')
    assert found.names == ("Nor?", "Norway")
    assert found.class_name == "? x"


@given(st.lists(st.text(min_size=1).filter(lambda text: text.strip()), min_size=1, max_size=5), st.text())
def test_any_names_come_back_from_json_whatever_stands_behind(names: list[str], after: str) -> None:
    vocabulary = Vocabulary(list(dict.fromkeys(names)))
    content = json.dumps({"entities": names})
    expected = [m.entity for m in NameMatcher(vocabulary).match(read_listing(content))]
    assert [m.entity for m in NameMatcher(vocabulary).match(read_listing(content + "\n" + after))] == expected


@given(st.text(max_size=300), st.booleans())
def test_no_answer_is_a_defect(content: str, cut: bool) -> None:
    NameMatcher(Vocabulary(["Norway", "a, b"])).match(read_listing(content, cut))


WORLD = Vocabulary(
    [
        "Norway",
        "Austria",
        "Australia",
        "Apollo 11",
        "Beatles",
        "Washington, D.C.",
        "Niger",
        "Nigeria",
        "Karl Marx",
    ],
    [["Norge"], [], [], [], ["Fab Four"], [], [], [], []],
)

FOUND: dict[str, tuple[int | None, str]] = {
    "Norway": (0, "name"),
    "NORWAY": (0, "name"),
    "norge": (0, "alias"),
    "**Norway**": (0, "name"),
    '"Norway".': (0, "name"),
    "Norway - a kingdom": (0, "name"),
    "Norway: a kingdom": (0, "name"),
    "Norway (kingdom)": (0, "name"),
    "**Norway**: a kingdom": (0, "name"),
    "The Beatles": (4, "name"),
    "Nor\u200bway": (0, "name"),
    "Norwway": (0, "fuzzy"),
    "Karl Marks": (None, "unknown"),
    "Karll Marx": (8, "fuzzy"),
    "Austrlia": (2, "fuzzy"),
    "Apollo 12": (None, "unknown"),
    "Apolo 11": (3, "fuzzy"),
    "Nigera": (7, "fuzzy"),
    "Atlantis": (None, "unknown"),
    "x" * 100_000: (None, "unknown"),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_name_is_found_exactly_by_alias_or_nearly(name: str) -> None:
    found = NameMatcher(WORLD).find(name)
    assert (found.entity, found.how) == FOUND[name]
    assert found.likeness == 1 or (found.how == "fuzzy" and 0.9 <= found.likeness < 1)


def test_two_entities_that_are_spelt_as_much_alike_are_not_guessed() -> None:
    world = Vocabulary(["Anna Schmitt", "Anna Schmidt"])
    assert NameMatcher(world).find("Anna Schmit") == Matched("Anna Schmit", None, "unknown")
    assert NameMatcher(world, least=1.01).find("Anna Schmitd").entity is None


def test_a_name_with_a_comma_in_a_loose_list_is_one() -> None:
    found = NameMatcher(WORLD).match(read_listing("Norway, Washington, D.C., Austria"))
    assert [m.entity for m in found] == [0, 5, 1]


def test_the_prompt_has_both_kinds_of_seeds_and_the_class_first() -> None:
    system, user = expansion_messages(["Norway", 'The "X"'], ["Chad"], 7)
    assert system == ("system", "The output must be a json object.")
    assert (
        'Positive seed entities: ["Norway", "The \\"X\\""]\nNegative seed entities: ["Chad"]\n'
        in user.content
    )
    assert "up to 7 further entities" in user.content
    assert "rather than to the negative seed entities" in user.content
    assert "class_name" not in user.content
    _, alone = expansion_messages(["Norway"], [], 7)
    assert "egative" not in alone.content
    _, named = expansion_messages(["Norway"], ["Chad"], 7, class_name=True)
    assert named.content.index("First reason about the class") < named.content.index("List up to 7")
    assert '{"class_name": "…", "entities": ["…", "…"]}' in named.content
