"""Re-ranking by types: the formula by hand, its order, and what the seeds are in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.entity_types import TYPES, EntityTypes
from engine.errors import BundleError
from engine.query import Expansion, NewEntity, Query, Ranking
from engine.stages.base import Worker
from engine.stages.explain import Explain
from engine.stages.types import SeedTypes, TypeRerank, class_in_plural
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import publish_vectors

NAMES = ["place", "city", "country", "river_bed"]
CONFIDENCE = np.array(
    [
        [0.9, 0.8, 0.0, 0.0],  # 0 to 2 are cities
        [0.9, 0.6, 0.1, 0.0],
        [0.8, 0.4, 0.2, 0.0],
        [0.9, 0.0, 0.9, 0.0],  # 3 and 4 countries
        [0.7, 0.0, 0.6, 0.0],
        [0.0, 0.0, 0.0, 0.9],
        [0.0, 0.0, 0.0, 0.0],  # nothing is known of 6
    ]
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    entities, types = np.nonzero(CONFIDENCE)
    found = EntityTypes.collect(
        NAMES, entities, types, CONFIDENCE[entities, types], np.ones(len(CONFIDENCE), np.int64)
    )
    names = [f"entity {i}" for i in range(len(CONFIDENCE))]
    return publish_vectors(
        Workspace.open(tmp_path_factory.mktemp("w")),
        names,
        {"joint": np.random.default_rng(0).normal(size=(len(names), 4))},
        more=lambda staged: found.write(staged / TYPES),
    )


@pytest.fixture(scope="module")
def rerank(bundle: Bundle) -> Worker:
    return TypeRerank(weight=0.5, temperature=0.2).open(bundle)


def listed(query: Query, *ids: int, score: float = 1.0) -> Expansion:
    return Expansion(query, Ranking(np.array(ids, np.int32), np.full(len(ids), score, np.float32)))


def plain(entity: int, query: Query) -> float:
    """The docstring's formula, with vectors as long as the types."""
    roots = np.sqrt(CONFIDENCE)
    unit = roots / np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), 1e-12)

    def cosine(seeds: tuple[int, ...]) -> float:
        mean = unit[[s for s in seeds if unit[s].any()]].mean(axis=0)
        return float(unit[entity] @ mean / np.linalg.norm(mean))

    plus = cosine(query.positive)
    if not query.negative:
        return 1 + 0.5 * plus
    return 1 + 0.5 * (plus - 0.2 * np.log1p(np.exp((cosine(query.negative) - plus) / 0.2)))


@pytest.mark.parametrize("negative", [(), (3,), (3, 5)])
def test_scores_are_those_of_the_formula(rerank: Worker, negative: tuple[int, ...]) -> None:
    query = Query("q", (0, 1), negative)
    (found,) = rerank([listed(query, 2, 4, 6)])
    assert found.ranking.ids.tolist() == [2, 4, 6], "the city, the country, and what nothing is known of"
    np.testing.assert_allclose(found.ranking.scores, [plain(e, query) for e in (2, 4, 6)], rtol=1e-5)
    np.testing.assert_allclose(1 + 0.5 * found.ranking.evidence["types"], found.ranking.scores, rtol=1e-5)
    assert found.degraded == ()


def test_a_seed_without_types_is_said_not_to_be_used(rerank: Worker) -> None:
    new = NewEntity("Atlantis", ("Atlantis sank .",))
    query = Query("q", (0, 6, -1), (3,), new=(new,))
    (found,) = rerank([listed(query, 2, 4)])
    assert found.degraded == (
        "TypeRerank: positive seed 6 has no type and was not used",
        "TypeRerank: positive seed 'Atlantis' has no type and was not used",
    )
    np.testing.assert_allclose(
        found.ranking.scores, [plain(e, Query("q", (0,), (3,))) for e in (2, 4)], rtol=1e-5
    )


def test_a_query_may_change_the_weight(rerank: Worker) -> None:
    query = Query("q", (0,), options=(("TypeRerank.weight", 0.0),))
    (found,) = rerank([listed(query, 4, 2)])
    assert found.ranking.scores.tolist() == [1, 1]


def words_of(
    positive: tuple[int, ...], negative: tuple[int, ...] = (), *, types: EntityTypes
) -> dict[str, str]:
    return SeedTypes.of(Query("q", positive, negative), types).in_words()


def test_what_the_seeds_are_is_told_in_words(rerank: Worker, bundle: Bundle) -> None:
    query = Query("q", (0, 1), (3, 4))
    words = {"class_name": "place", "positive": "city", "negative": "country"}
    (found,) = rerank([listed(query, 2)])
    assert found.reasoning == words
    (shown,) = Explain().open(bundle)([listed(query, 2)])
    assert shown.reasoning == words
    (shown,) = Explain().open(bundle)([Expansion(query, reasoning={"class_name": "towns"})])
    assert shown.reasoning == {**words, "class_name": "towns"}, "a language model's word stays"


def test_the_rarest_shared_type_is_the_class_and_nothing_is_made_up(bundle: Bundle) -> None:
    types = EntityTypes.read(bundle.path(TYPES), len(CONFIDENCE))
    assert words_of((0, 1), types=types) == {"class_name": "city"}, "fewer are cities than places"
    assert words_of((5,), types=types) == {"class_name": "river bed"}
    assert words_of((6,), (0,), types=types) == {"negative": "place, city"}
    assert words_of((0,), (1,), types=types) == {"class_name": "city"}, "nothing tells them apart"


def test_a_type_that_tells_the_seeds_apart_is_not_their_class() -> None:
    """Both hold for the second kind, too, but one of them by much less."""
    sure = np.array([0.9, 0.9, 0.8, 0.6])
    types = EntityTypes.collect(
        ["area", "nation"], np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), sure, np.ones(2, np.int64)
    )
    found = words_of((0,), (1,), types=types)
    assert found == {"class_name": "area", "positive": "nation"}


def test_a_seed_without_types_says_nothing_of_the_others(bundle: Bundle) -> None:
    types = EntityTypes.read(bundle.path(TYPES), len(CONFIDENCE))
    assert words_of((0, 6), (3,), types=types) == words_of((0,), (3,), types=types)


def test_a_bundle_without_types_says_how_to_make_them(tmp_path: Path) -> None:
    bare = publish_vectors(Workspace.open(tmp_path / "w"), ["a"], {"joint": np.ones((1, 2))})
    with pytest.raises(BundleError, match=r"no 'types.parquet'; run `seedset build-index --types newest`"):
        TypeRerank().open(bare)
    (shown,) = Explain().open(bare)([Expansion(Query("q", (0,)))])
    assert shown.reasoning == {}


@pytest.mark.parametrize(
    ("positive", "words"), [((0, 1), "cities"), ((5,), "river beds"), ((6,), ""), ((0, 3), "places")]
)
def test_a_class_is_named_in_the_plural(bundle: Bundle, positive: tuple[int, ...], words: str) -> None:
    types = EntityTypes.read(bundle.path(TYPES), len(CONFIDENCE))
    assert class_in_plural(Query("q", positive, (2,)), types) == words, "whatever the negative seeds are"


def test_which_of_the_words_hold_for_an_entity(bundle: Bundle) -> None:
    types = EntityTypes.read(bundle.path(TYPES), len(CONFIDENCE))
    found = SeedTypes.of(Query("q", (0, 1), (3, 4)), types)
    assert found == SeedTypes(("place",), ("city",), ("country",))
    assert found.held_by(1, types) == SeedTypes(("place",), ("city",))
    assert found.held_by(2, types) == SeedTypes(("place",)), "a city by 0.4 alone"
    assert found.held_by(3, types) == SeedTypes(("place",), (), ("country",))
    assert found.held_by(6, types) == SeedTypes(), "of an entity without types nothing is said"
