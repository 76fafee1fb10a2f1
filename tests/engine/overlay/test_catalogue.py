"""What is told of entities, and which fulfil a filter, equals what one file of all of them gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.catalogue.entities import Catalogue
from engine.catalogue.overlaid import OverlaidCatalogue
from engine.errors import FilterError, UnknownAttributeError
from engine.filters import Among, Clause, Filters, Junction, Prefix, Range
from engine.overlay.state import AddedEntity, OverlayLayer, OverlayState
from engine.query import Expansion, NewEntity, Query, Ranking, Selection
from tests.support.bundles import write_entities

NAMES = ["Japan", "Thailand", "Jordan", "Norway"]
ATTRIBUTES = [
    {"continent": ["Asia"], "founded": ["660"]},
    {"continent": ["Asia"], "king": ["yes"]},
    {"continent": ["Asia", "Near East"]},
    {"continent": ["Europe"]},
]
NEW = ["Atlantia", "Zubrowka"]
NEW_ATTRIBUTES = [{"continent": ["Mars", "Asia"], "moons": ["2"]}, {"founded": ["old"], "king": ["yes"]}]


@pytest.fixture
def overlaid(tmp_path: Path) -> OverlaidCatalogue:
    write_entities(tmp_path / "base.parquet", NAMES, descriptions=["a", "b", "c", "d"], attributes=ATTRIBUTES)
    added = {
        len(NAMES) + place: AddedEntity(
            NewEntity(name, (f"The king of {name} came.", "No king.")),
            description=f"about {name}",
            attributes={key: tuple(values) for key, values in attributes.items()},
        )
        for place, (name, attributes) in enumerate(zip(NEW, NEW_ATTRIBUTES, strict=True))
    }
    layer = OverlayLayer(len(NAMES), OverlayState(1, added))
    return OverlaidCatalogue(Catalogue(tmp_path / "base.parquet", None), layer)


@pytest.fixture
def plain(tmp_path: Path) -> Catalogue:
    write_entities(tmp_path / "whole.parquet", NAMES + NEW, attributes=ATTRIBUTES + NEW_ATTRIBUTES)
    return Catalogue(tmp_path / "whole.parquet", None)


CLAUSES: list[Clause] = [
    ("continent", ("Asia",)),
    ("continent", ("Asia", "Mars")),
    ("continent", ("Mars",)),
    ("moons", ("2",)),
    ("king", ("yes",)),
    ("founded", ("660", "old")),
    Among("continent", "all", ("Asia", "Mars")),
    Among("continent", "none", ("Asia", "Mars")),
    Among("moons", "none", ("2",)),
    Range("moons", (("gte", 1.0),)),
    Range("founded", (("lt", 1000.0),)),
    Prefix("continent", "ma"),
    Prefix("founded", "6"),
    Junction("any", ((("moons", ("2",)),), (("continent", ("Europe",)),))),
    Junction("none", ((("moons", ("2",)),), (("continent", ("Europe",)),))),
]


@pytest.mark.parametrize("clause", CLAUSES, ids=str)
def test_a_filter_lets_the_same_entities_through(
    overlaid: OverlaidCatalogue, plain: Catalogue, clause: Clause
) -> None:
    for filters in ((clause,), (clause, ("continent", ("Asia", "Mars")))):
        np.testing.assert_array_equal(overlaid.matching(filters), plain.matching(filters))


@pytest.mark.parametrize(
    "clause",
    [
        ("continent", ("Atlantis",)),
        ("rivers", ("x",)),
        Range("king", (("gt", 1.0),)),
        Prefix("moons", "9"),
        Among("rivers", "none", ("x",)),
    ],
    ids=str,
)
def test_what_no_entity_has_is_refused(overlaid: OverlaidCatalogue, plain: Catalogue, clause: Clause) -> None:
    with pytest.raises((UnknownAttributeError, FilterError)) as expected:
        plain.matching((clause,))
    with pytest.raises(type(expected.value)):
        overlaid.matching((clause,))


def test_details_and_lists_are_of_both(overlaid: OverlaidCatalogue, plain: Catalogue) -> None:
    assert [overlaid.description(i) for i in (1, 4)] == ["b", "about Atlantia"]
    assert [overlaid.attributes_of(i) for i in range(6)] == [plain.attributes_of(i) for i in range(6)]
    assert sorted(overlaid.attributes()) == sorted(plain.attributes())
    ids = np.arange(6, dtype=np.int32)
    for attribute in ("continent", "moons"):
        overlaid.check_shown(Selection(group_by=attribute, facets=(attribute,)))
        assert overlaid.values_of(ids, attribute) == plain.values_of(ids, attribute)
    with pytest.raises(UnknownAttributeError):
        overlaid.check_shown(Selection(group_by="rivers"))
    (sentence, other) = overlaid.sentences([4], 5)[4]
    assert sentence.text[sentence.start : sentence.end] == "Atlantia"
    assert other.start == other.end


@pytest.mark.parametrize("facets", [True, ("continent", "moons")])
@pytest.mark.parametrize("filters", [(), (("continent", ("Asia",)),)])
def test_facets_count_both(
    overlaid: OverlaidCatalogue, plain: Catalogue, facets: bool | tuple[str, ...], filters: Filters
) -> None:
    ids = np.array([5, 4, 0, 3], np.int32)
    query = Query("q", (1,), filters=filters, selection=Selection(facets=facets))
    shown = Expansion(query, Ranking(ids, np.ones(4, np.float32)))
    assert overlaid.facets(shown) == plain.facets(shown)
    assert overlaid.facets(shown) is not None


def test_an_id_that_is_gone_is_told_nothing_of(overlaid: OverlaidCatalogue) -> None:
    assert (overlaid.description(77), overlaid.attributes_of(77)) == ("", {})
    assert overlaid.sentences([77], 3) == {}
