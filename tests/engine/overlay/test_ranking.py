"""Methods over a bundle with an overlay answer as over a bundle whose index holds the same vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.methods import METHODS
from engine.overlay.state import AddedEntity, OverlayLayer, OverlayState, lay_over
from engine.query import Expansion, NewEntity, Query, Selection
from engine.retrieval.index import unit
from engine.retrieval.opening import open_index
from engine.stages.explain import Explain
from engine.stages.overlay import UNRANKED, taken_by, without_gone
from engine.stages.retrieve import Retrieve
from engine.stages.select import Select
from engine.stages.setexpan import SetExpan
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import publish_vectors

N, ADDED, D = 80, 6, 8
VIEWS = ("mask", "joint", "lexical", "description")
QUERIES = [
    Query("plain", (1, 2, 3), (4, 5), 40),
    Query("pages", (1, 2), (), 10, selection=Selection(5)),
    Query("alone", (), (4,), 200),
    Query("left out", (9,), (8,), 200, exclude=(10, N + 1), deleted=(11, 12)),
    Query("weighed", (1, 2), (4,), 30, weights=((1, 5.0),)),
    Query("diverse", (1, 2), (4,), 20, selection=Selection(diversity=0.5)),
]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """A bundle with an overlay, and the plain one of all."""
    random = np.random.default_rng(3)
    vectors = {view: unit(random.normal(size=(N + ADDED, D))) for view in VIEWS}
    hubs = random.uniform(0, 0.4, N + ADDED).astype(np.float32)
    names = [f"entity {i}" for i in range(N + ADDED)]

    def publish(n: int) -> Bundle:
        root: Path = tmp_path_factory.mktemp("w")
        own = {view: one[:n] for view, one in vectors.items()}
        return publish_vectors(Workspace.open(root), names[:n], own, {"joint": hubs[:n]})

    overlaid, plain = publish(N), publish(N + ADDED)
    indexes = {view: open_index(plain, view) for view in VIEWS}
    added = {}
    for i in range(N, N + ADDED):
        own = {view: index.vectors_of([i])[0] for view, index in indexes.items()}
        added[i] = AddedEntity(NewEntity(names[i], ("x",), own, {"joint": float(hubs[i])}))
    lay_over(overlaid).state = OverlayState(1, added)
    return overlaid, plain


@pytest.mark.parametrize(
    "name", ["default", "retexpan", "retexpan-negative", "retexpan+cds", "joint", "lexical"]
)
def test_the_order_and_the_scores_are_those_of_one_index(two: tuple[Bundle, Bundle], name: str) -> None:
    pipeline = METHODS[name] >> Select(view="mask") >> Explain(view="mask")
    asked = QUERIES if name != "retexpan" else [q for q in QUERIES if q.positive]
    mine, theirs = (pipeline.open(bundle)(asked) for bundle in two)
    for one, other in zip(mine, theirs, strict=True):
        assert one.ranking.ids.tolist() == other.ranking.ids.tolist()
        assert one.ranking.scores.tolist() == other.ranking.scores.tolist()
        for column, values in other.ranking.evidence.items():
            np.testing.assert_array_equal(one.ranking.evidence[column], values)
        assert one.degraded == other.degraded
    assert any(i >= N for one in mine for i in one.ranking.ids)


def test_a_stage_of_the_bundle_alone_sees_no_entity_of_the_overlay(two: tuple[Bundle, Bundle]) -> None:
    (found,) = Retrieve(view="mask").open(two[0])([Expansion(replace(QUERIES[0], exclude=(7, N + 1)))])
    layer = OverlayLayer(N, OverlayState(1, {N: AddedEntity(NewEntity("a", ("a",)))}))

    taken = taken_by(SetExpan(), found, layer)

    assert (taken.ranking.ids < N).all()
    assert taken.query.exclude == (7,)
    assert taken.degraded == (f"SetExpan: {UNRANKED} (1)",)
    assert taken_by(Retrieve(), found, layer) is found
    assert taken_by(SetExpan(), found, OverlayLayer(N)).degraded == ()


def test_what_is_gone_meanwhile_is_cut_from_an_answer(two: tuple[Bundle, Bundle]) -> None:
    (found,) = Retrieve(view="mask").open(two[0])([Expansion(Query("q", (1,), (), 500))])
    left = without_gone(
        found, OverlayLayer(N, OverlayState(2, {N: AddedEntity(NewEntity("a", ("a",)))}, (3,)))
    )
    assert set(found.ranking.ids) - set(left.ranking.ids) == {3, *range(N + 1, N + ADDED)}
    assert without_gone(found, None) is found
