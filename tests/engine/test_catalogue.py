"""Test the catalogue against plain loops over the same rows."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalogue import entities as module
from engine.catalogue.entities import Attribute, Catalogue, Value
from engine.catalogue.sentences import MentionSentence
from engine.corpus.schema import MENTION_SCHEMA
from engine.entity_types import EntityTypes
from engine.errors import UnknownAttributeError
from engine.query import Expansion, Query, Ranking, Selection
from engine.vocabulary import ENTITY_SCHEMA

ROWS = [
    {"continent": ["Asia"], "class": ["country"]},
    {"continent": ["Asia", "Europe"], "class": ["country"], "language": ["Türkçe"]},
    {"continent": ["Europe"], "class": ["country"], "language": []},
    {"class": ["river"]},
    {},
    None,
]
TEXTS = ["About 0", "", None, "Über 3", "x" * 3000, "About 5"]


def catalogue(
    folder: Path,
    attributes: list,
    texts: list | None = None,
    mentions: list | None = None,
    types: EntityTypes | None = None,
) -> Catalogue:
    names = [f"e{i}" for i in range(len(attributes))]
    columns = {
        "entity_id": range(len(names)),
        "name": names,
        "aliases": [[]] * len(names),
        "description": texts or [None] * len(names),
        "attributes": [a if a is None else list(a.items()) for a in attributes],
    }
    pq.write_table(pa.table(columns, schema=ENTITY_SCHEMA), folder / "entities.parquet", row_group_size=4)
    path = None
    if mentions is not None:
        path = folder / "sentences.parquet"
        rows = [dict(zip(MENTION_SCHEMA.names, m, strict=True)) for m in mentions]
        pq.write_table(pa.Table.from_pylist(rows, MENTION_SCHEMA), path, row_group_size=3)
    return Catalogue(folder / "entities.parquet", path, types)


@pytest.fixture
def known(tmp_path: Path) -> Catalogue:
    return catalogue(tmp_path, ROWS, TEXTS)


def filters(**conditions: list[str]) -> tuple:
    return tuple((name, tuple(values)) for name, values in conditions.items())


def test_descriptions_and_attributes_of_each_entity(known: Catalogue) -> None:
    assert [known.description(i) for i in range(6)] == [t or "" for t in TEXTS]
    assert [known.attributes_of(i) for i in range(6)] == [r or {} for r in ROWS]


def test_entities_with_one_of_the_values_of_every_attribute(known: Catalogue) -> None:
    assert known.matching(()).tolist() == [0, 1, 2, 3, 4, 5]
    assert known.matching(filters(continent=["Asia"])).tolist() == [0, 1]
    assert known.matching(filters(continent=["Europe", "Asia"])).tolist() == [0, 1, 2]
    assert known.matching(filters(continent=["Asia"], language=["Türkçe"])).tolist() == [1]
    assert known.matching(filters(continent=["Asia"], **{"class": ["river"]})).tolist() == []
    assert known.matching(filters(continent=["Asia"])).dtype == np.int32


def shown(ids: Sequence[int], facets: Any, filters: tuple = ()) -> Expansion:
    ranking = Ranking(np.array(ids, np.int32), np.zeros(len(ids), np.float32))
    return Expansion(Query("q", (99,), filters=filters, selection=Selection(facets=facets)), ranking)


def test_facets_count_the_answer_and_what_could_be_in_it(
    known: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asia, europe = (
        {"value": "Asia", "count": 2, "entities": 2},
        {"value": "Europe", "count": 1, "entities": 2},
    )
    country = {"value": "country", "count": 2, "entities": 3}
    assert known.facets(shown([1, 0, 4], False)) is None
    assert known.facets(shown([1, 0, 4], ("continent",))) == {"continent": [asia, europe]}
    language = [{"value": "Türkçe", "count": 1, "entities": 1}]
    every = {"class": [country], "continent": [asia, europe], "language": language}
    assert known.facets(shown([1, 0, 4], True)) == every
    assert known.facets(shown([5], True)) == {}
    assert known.facets(shown([], ("language",))) == {"language": []}
    among = known.facets(shown([1], ("class",), filters(continent=["Europe"])))
    assert among == {"class": [{"value": "country", "count": 1, "entities": 2}]}
    with pytest.raises(UnknownAttributeError, match="facets: no entity has attribute 'continnent'"):
        known.check_shown(Selection(facets=("class", "continnent")))
    monkeypatch.setattr(module, "MAX_FACETS", 1)
    monkeypatch.setattr(module, "FACET_VALUES", 1)
    assert known.facets(shown([1, 0, 3], True)) == {"class": [country]}


def test_attributes_are_listed_by_how_many_entities_have_them(
    known: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert known.attributes() == [
        Attribute("class", [Value("country", 3), Value("river", 1)], False),
        Attribute("continent", [Value("Asia", 2), Value("Europe", 2)], False),
        Attribute("language", [Value("Türkçe", 1)], False),
    ]
    monkeypatch.setattr(module, "MAX_ATTRIBUTES", 2)
    monkeypatch.setattr(module, "MAX_VALUES", 1)
    assert known.attributes() == [
        Attribute("class", [Value("country", 3)], True),
        Attribute("continent", [Value("Asia", 2)], True),
    ]


@pytest.mark.parametrize(
    ("conditions", "field", "suggestions", "words"),
    [
        ({"continnent": ["Asia"]}, "filter.continnent", ["continent"], "attribute 'continnent'"),
        ({"continent": ["asia"]}, "filter.continent", ["Asia"], "'continent' with the value 'asia'"),
        ({"class": ["country", "9"]}, "filter.class", ["country", "river"], "'class' with the value '9'"),
    ],
)
def test_what_no_entity_has_is_an_error_that_names_what_would_work(
    known: Catalogue, conditions, field, suggestions, words
) -> None:
    with pytest.raises(UnknownAttributeError, match=words) as caught:
        known.matching(filters(**conditions))
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.field, error.status) == (field, 422)
        assert error.suggestions[: len(suggestions)] == suggestions
        assert repr(suggestions[0]) in str(error)


TEXT = st.sampled_from(["a", "b", "c", "Ä", ""])
ENTITY = st.none() | st.dictionaries(TEXT, st.lists(TEXT, max_size=3), max_size=3)


@given(st.lists(ENTITY, max_size=12), st.data())
@settings(max_examples=60)
def test_facets_equal_a_plain_loop(tmp_path_factory: pytest.TempPathFactory, rows: list, data: Any) -> None:
    found = catalogue(tmp_path_factory.mktemp("c"), rows)
    plain = [row or {} for row in rows]
    ids = data.draw(st.lists(st.integers(0, max(len(rows) - 1, 0)), unique=True)) if rows else []
    names = {name for row in plain for name, values in row.items() if values}
    asked = data.draw(
        st.just(True) | st.lists(st.sampled_from([*names]), unique=True).map(tuple)
        if names
        else st.just(True)
    )
    facets = found.facets(shown(ids, asked))
    if asked == ():
        assert facets is None
        return
    here = {name for i in ids for name, values in plain[i].items() if values}
    assert facets is not None
    assert set(facets) == (names & here if asked is True else {*asked})
    for name, values in facets.items():
        keys = [(-one["count"], one["value"]) for one in values]
        assert keys == sorted(keys)
        assert {one["value"] for one in values} == {v for i in ids for v in plain[i].get(name, ())}
        for one in values:
            has = [one["value"] in row.get(name, ()) for row in plain]
            assert (one["count"], one["entities"]) == (sum(has[i] for i in ids), sum(has))


@given(
    st.lists(ENTITY, max_size=12), st.dictionaries(TEXT, st.lists(TEXT, min_size=1, max_size=3), max_size=2)
)
@settings(max_examples=60)
def test_conditions_equal_a_plain_loop(tmp_path_factory: pytest.TempPathFactory, rows, conditions) -> None:
    found = catalogue(tmp_path_factory.mktemp("c"), rows)
    plain = [r or {} for r in rows]
    there = {(n, v) for r in plain for n, values in r.items() for v in values}
    if all((n, v) in there for n, values in conditions.items() for v in values):
        expected = [
            i for i, r in enumerate(plain) if all(set(r.get(n, ())) & {*v} for n, v in conditions.items())
        ]
        assert found.matching(filters(**conditions)).tolist() == expected
    else:
        with pytest.raises(UnknownAttributeError):
            found.matching(filters(**conditions))
    for name, values, more in found.attributes():
        counted = [
            (v, sum(v in r.get(name, ()) for r in plain)) for v in sorted({v for n, v in there if n == name})
        ]
        assert values == sorted(counted, key=lambda one: -one[1])
        assert not more


def test_types_that_hold_are_an_attribute_unless_there_is_one_of_that_name(tmp_path: Path) -> None:
    entities, types = np.array([0, 0, 1, 2]), np.array([1, 0, 1, 2])
    sure, mentions = np.array([0.6, 0.9, 0.7, 0.4]), np.ones(3, np.int64)
    found = EntityTypes.collect(["person", "city", "river"], entities, types, sure, mentions)
    known = catalogue(tmp_path, [{"age": ["old"]}, {}, {}], types=found)
    assert [known.attributes_of(e) for e in range(3)] == [
        {"age": ["old"], "type": ["person", "city"]},
        {"type": ["city"]},
        {},
    ]
    assert known.matching(filters(type=["city"])).tolist() == [0, 1]
    assert [(a.name, [tuple(v) for v in a.values]) for a in known.attributes()] == [
        ("type", [("city", 2), ("person", 1)]),
        ("age", [("old", 1)]),
    ]
    with pytest.raises(UnknownAttributeError):
        known.matching(filters(type=["river"]))  # 0.4 is not enough
    own = catalogue(tmp_path, [{"type": ["metal"]}, {}, {}], types=found)
    assert [own.attributes_of(e) for e in range(2)] == [{"type": ["metal"]}, {}]
    assert own.matching(filters(type=["metal"])).tolist() == [0]


def test_a_catalogue_of_nothing(tmp_path: Path) -> None:
    empty = catalogue(tmp_path, [], mentions=[])
    assert empty.attributes() == []
    assert empty.matching(()).tolist() == []
    assert empty.sentences([0], 2) == {}


# Entity 3 lies in three row groups of three rows; entities 1 and 4 have no sentence.
SIZES = {0: 1, 2: 1, 3: 6, 5: 2}
MENTIONS: list[tuple[Any, ...]] = [
    (e, f"e{e} number {i}", 0, 2, None if i else f"{e}.png") for e, n in SIZES.items() for i in range(n)
]


@given(st.lists(st.integers(0, 6), max_size=7), st.integers(0, 8))
@settings(max_examples=40)
def test_sentences_equal_a_plain_loop(tmp_path_factory: pytest.TempPathFactory, ids, n: int) -> None:
    found = catalogue(tmp_path_factory.mktemp("c"), ROWS, mentions=MENTIONS).sentences(ids, n)
    expected = {
        e: [MentionSentence(*about) for one, *about in MENTIONS if one == e][:n]
        for e in ids
        if SIZES.get(e, 0) and n
    }
    assert found == expected


ADDRESSES = st.sampled_from([None, "a.png", "b.png", "c.png"])
PICTURED = st.lists(st.tuples(st.integers(0, 5), ADDRESSES), max_size=20)


@given(PICTURED, st.integers(0, 3))
@settings(max_examples=40)
def test_pictures_of_every_entity_equal_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory, pictured, n: int
) -> None:
    mentions = [(e, "", 0, 0, image) for e, image in sorted(pictured, key=lambda one: one[0])]
    found = catalogue(tmp_path_factory.mktemp("c"), ROWS, mentions=mentions).images(n)
    expected = [
        list(dict.fromkeys(image for e, *_, image in mentions if e == entity and image))[:n]
        for entity in range(len(ROWS))
    ]
    assert found.to_pylist() == expected


def test_only_the_row_groups_that_are_needed_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = catalogue(tmp_path, ROWS, mentions=MENTIONS)
    read: list[int] = []
    plain = pq.ParquetFile.read_row_groups

    def noted(self: pq.ParquetFile, groups: list[int], **options: Any) -> Any:
        read.extend(groups)
        return plain(self, groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", noted)
    assert list(known.sentences(np.array([5, 0]), 1)) == [0, 5]
    assert read == [0, 2, 3]


def test_a_bundle_without_sentences_has_none(known: Catalogue) -> None:
    assert known.sentences([0, 1], 3) == {}
    assert known.images(2).to_pylist() == [[]] * len(ROWS)


def test_conditions_with_look_alike_signs_are_understood(tmp_path: Path) -> None:
    rows = [
        {"first\u00a0name": ["O'Neil"]},
        {"first\u00a0name": ["A-B", "A–B"]},
        {"other": ["Jos\u00e9"]},
    ]
    known = catalogue(tmp_path, rows)
    assert known.matching((("first\u00a0name", ("O\u2019Neil",)),)).tolist() == [0]
    assert known.matching((("first  name\u200b", ("A–B", "O'Neil")),)).tolist() == [0, 1]
    assert known.matching((("other", ("Jose\u0301",)),)).tolist() == [2]
    with pytest.raises(UnknownAttributeError, match=r"'A-B' \(given: U\+2011 at 1 in place of U\+002D\)"):
        known.matching((("first\u00a0name", ("A\u2011B",)),))
