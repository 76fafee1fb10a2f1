from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.query import Expansion, NewEntity, Query, Ranking
from engine.stages.explain import Explain
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import publish_vectors

ANGLES = [0, 90, 10, 70, 40, 200]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    radians = np.deg2rad(ANGLES)
    vectors = np.stack([np.cos(radians), np.sin(radians)], axis=1)
    vectors = np.concatenate([vectors, np.zeros((2, 2))])  # entities 6 and 7 have no vector
    return publish_vectors(Workspace.open(tmp_path), [f"e{i}" for i in range(8)], {"joint": vectors})


def ranked(query: Query, *ids: int) -> Expansion:
    return Expansion(query, Ranking(np.array(ids, np.int32), np.linspace(1, 0, len(ids), dtype=np.float32)))


def cosine(a: float, b: float) -> float:
    return float(np.cos(np.deg2rad(a - b)))


def test_each_entity_names_its_nearest_seed_of_either_kind(bundle: Bundle) -> None:
    query = Query("q", (6, 0, 1), (5, 4), top_k=2)
    (found,) = Explain().open(bundle)([ranked(query, 3, 2, 4)])
    evidence = found.ranking.evidence
    assert found.ranking.ids.tolist() == [3, 2], "cut to what will be shown, in the same order"
    assert evidence["nearest_positive"].tolist() == [2, 1]
    assert evidence["nearest_negative"].tolist() == [1, 1]
    assert evidence["nearest_positive_similarity"].tolist() == pytest.approx([cosine(70, 90), cosine(10, 0)])
    assert evidence["nearest_negative_similarity"].tolist() == pytest.approx([cosine(70, 40), cosine(10, 40)])
    assert all(column.dtype == np.float32 for column in evidence.values())


def test_a_seed_is_not_its_own_nearest(bundle: Bundle) -> None:
    (found,) = Explain().open(bundle)([ranked(Query("q", (0, 1, 2), (5,)), 0, 5, 2)])
    assert found.ranking.evidence["nearest_positive"].tolist() == [2, 1, 0]
    assert found.ranking.evidence["nearest_negative"].tolist() == [0, -1, 0]


def test_without_a_vector_nothing_is_claimed(bundle: Bundle) -> None:
    seedless, whole = Explain().open(bundle)([ranked(Query("q", (6,)), 3), ranked(Query("r", (0,)), 7, 2)])
    assert seedless.ranking.evidence["nearest_positive"].tolist() == [-1]
    assert np.isnan(seedless.ranking.evidence["nearest_positive_similarity"]).all()
    assert whole.ranking.evidence["nearest_positive"].tolist() == [-1, 0]
    assert "nearest_negative" not in whole.ranking.evidence


def test_a_new_seed_may_be_the_nearest(bundle: Bundle) -> None:
    new = NewEntity("new", ("new",), {"joint": np.array([np.cos(np.deg2rad(75)), np.sin(np.deg2rad(75))])})
    (found,) = Explain().open(bundle)([ranked(Query("q", (1, -1), new=(new,)), 3)])
    assert found.ranking.evidence["nearest_positive"].tolist() == [1]


def test_an_empty_ranking_stays_empty(bundle: Bundle) -> None:
    (found,) = Explain().open(bundle)([Expansion(Query("q", (0,), (1,)))])
    assert len(found.ranking) == 0
    assert Explain().open(bundle)([]) == []


def test_on_the_plane_entities_lie_alike_in_any_order_and_none_without_a_vector(bundle: Bundle) -> None:
    query, other = Query("q", (0,)), Query("r", (0,), options=(("Explain.plane", True),))
    orders = [(3, 2, 7, 4, 5), (5, 7, 4, 3, 2)]
    first, second = Explain(plane=True).open(bundle)([ranked(query, *order) for order in orders])
    for name in ("x", "y", "off"):
        by_id = [
            dict(zip(e.ranking.ids.tolist(), e.ranking.evidence[name], strict=True)) for e in (first, second)
        ]
        np.testing.assert_equal(by_id[0], by_id[1])
        assert np.isnan(by_id[0][7])
    off = first.ranking.evidence["off"]
    assert np.nanmax(off) == pytest.approx(0, abs=1e-3), "vectors of two dimensions lie on the plane"
    without, asked = Explain().open(bundle)([ranked(query, 3, 2), ranked(other, 3, 2)])
    assert "x" not in without.ranking.evidence
    assert "x" in asked.ranking.evidence, "a query may ask for it"
