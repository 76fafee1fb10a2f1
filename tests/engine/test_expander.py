from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.errors import QueryError, UnknownAttributeError, UnknownEntityError
from engine.expander import Expander
from engine.methods import METHODS, method, register
from engine.query import Query, Selection
from engine.retrieval.opening import open_index
from engine.stages.retrieve import Retrieve
from tests.support.bundles import method_bundle


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("w")
    method_bundle(root, n=60)
    return root


def test_an_answer_is_the_pipelines_with_names(workspace: Path) -> None:
    expander = Expander.open(workspace, "retexpan")
    answer = expander.expand(["entity 1", 2], ["entity 3"], top_k=7)
    (same,) = method("retexpan").open(expander.bundle)([Query("q", (1, 2), (3,), 7)])
    assert [found.id for found in answer.results] == same.ranking.ids.tolist()
    assert [found.score for found in answer.results] == same.ranking.scores.tolist()
    assert [found.rank for found in answer.results] == [*range(1, 8)]
    first = answer.results[0]
    assert first.name == f"entity {first.id}"
    assert first.evidence["negative"] == same.ranking.evidence["negative"][0]
    assert answer.degraded == ()


def test_settings_hold_for_all_queries_and_options_for_one(workspace: Path) -> None:
    asked = ([1, 2, 3], [4, 5], 20)
    plain = Expander.open(workspace, "retexpan")
    changed = Expander.open(workspace, "retexpan", settings={"SegmentRerank.length": 9})
    answer = plain.expand(*asked, options={"SegmentRerank.length": 9})
    assert answer.options == {"SegmentRerank.length": 9}
    assert answer.results == changed.expand(*asked).results
    assert answer.results != plain.expand(*asked).results
    assert plain.expand(*asked).options == {}
    assert plain.changeable["SegmentRerank.length"] == {"value": 4, "minimum": 1, "maximum": 1000}
    with pytest.raises(QueryError, match=r"Retrieve.view: no query may change it; it may change Retrieve.k"):
        plain.expand(*asked, options={"Retrieve.view": "joint"})
    with pytest.raises(QueryError, match="did you mean length"):
        Expander.open(workspace, "retexpan", settings={"SegmentRerank.lenght": 9})


def test_a_stage_alone_is_a_method(workspace: Path) -> None:
    odd = Expander.open(workspace, Retrieve(view="lexical")).expand([0], filters={"parity": ["odd"]})
    assert len(odd.results) == 30
    assert all(found.id % 2 for found in odd.results)


def test_a_call_says_what_of_the_ranking_is_shown(workspace: Path) -> None:
    expander = Expander.open(workspace, "joint")
    whole = expander.expand([1, 2], top_k=12).results
    assert expander.expand([1, 2], top_k=7, offset=5).results == whole[5:]
    least = whole[4].score
    assert expander.expand([1, 2], top_k=12, min_score=least).results == whole[:5]
    without = expander.expand([1, 2], top_k=10, exclude=[whole[0].name, whole[3].id]).results
    assert [found.id for found in without] == [found.id for found in whole if found.rank not in (1, 4)]
    for wrong, words in (
        ({"offset": -1}, "offset: Input should be greater"),
        ({"exclude": [{"name": "x"}]}, r"exclude\.0: an entity is a name or an entity id"),
        ({"min_score": "much"}, "min_score: Input should be a valid number"),
        ({"min_scor": 1}, "min_scor: .*there are filter, exclude, min_score, offset"),
    ):
        with pytest.raises(QueryError, match=words):
            expander.expand([1], **wrong)
    with pytest.raises(UnknownEntityError, match=r"exclude.*did you mean"):
        expander.expand([1], exclude=["entty 3"])


def test_a_list_is_chosen_as_a_whole(workspace: Path) -> None:
    expander = Expander.open(workspace, "default")
    plain = expander.expand([1, 2], top_k=20)
    few = expander.expand([1, 2], top_k=20, group_by="parity", per_group=3)
    wanted = [next(f.id for f in plain.results if f.id % 2 == odd) for odd in (0, 1)]
    assert set(wanted) <= {found.id for found in few.results}
    assert [sum(found.id % 2 == odd for found in few.results) for odd in (0, 1)] == [3, 3]
    assert "proposed" in plain.counts
    assert "proposed" not in few.counts, "it was of another order"
    diverse = expander.expand([1, 2], top_k=20, diversity=0.7).results
    assert diverse[0]._replace(evidence={}) == plain.results[0]._replace(evidence={})
    marginals = [found.evidence["marginal"] for found in diverse[1:]]
    assert marginals == sorted(marginals, reverse=True)
    assert expander.expand([1, 2], top_k=5, offset=2, diversity=0.7).results == diverse[2:7]
    with pytest.raises(UnknownAttributeError, match="group_by: no entity has attribute 'colour'"):
        expander.expand([1, 2], group_by="colour")
    with pytest.raises(QueryError, match="per_group is of the groups of group_by"):
        expander.expand([1, 2], per_group=2)
    with pytest.raises(QueryError, match="diversity: offset and top_k may be 1000 together"):
        expander.expand([1, 2], top_k=1001, diversity=0.1)
    with pytest.raises(QueryError, match="are the stage Select's; add it to the end"):
        expander.pipeline([Query("q", (1,), selection=Selection(diversity=0.5))], strict=True)


def test_context_pairs_are_obeyed_or_refused(workspace: Path) -> None:
    expander = Expander.open(workspace, "best")
    pair = {"positive": "entity 6", "negative": 7}
    paired = expander.expand([1, 2], [4], context=[pair]).results
    assert paired != expander.expand([1, 2], [4]).results
    assert not {6, 7} & {found.id for found in paired}
    odd = expander.expand([1, 2], [4], context=[pair], filters={"parity": ["odd"]}, top_k=5).results
    wanted = [
        found.id for found in expander.expand([1, 2], [4], context=[pair], top_k=50).results if found.id % 2
    ]
    assert [found.id for found in odd] == wanted[:5]
    alone = expander.expand(context=[pair, pair]).results
    assert [found.score for found in alone] == [found.evidence["context"] for found in alone]
    with pytest.raises(QueryError, match=r"context\.0: 'entity 6' and 6 are one entity"):
        expander.expand([1], context=[{"positive": "entity 6", "negative": 6}])
    with pytest.raises(UnknownEntityError, match=r"context\.0\.negative: .*did you mean"):
        expander.expand([1], context=[{"positive": 6, "negative": "entty 3"}])
    with pytest.raises(QueryError, match="Retrieve cannot obey context pairs; leave context out"):
        Expander.open(workspace, "retexpan").expand([1], context=[pair])


def test_a_vector_is_a_seed(workspace: Path) -> None:
    expander = Expander.open(workspace, "default")
    joint = open_index(expander.bundle, "joint").vectors_of([3])[0]
    given = {"vector": {"joint": (7 * joint).tolist()}}
    known = expander.expand([1, 3], [4], top_k=20).results
    found = expander.expand([1, given], [4], top_k=20, exclude=[3]).results
    assert [one.id for one in found] == [one.id for one in known]
    np.testing.assert_allclose([o.score for o in found], [o.score for o in known], atol=1e-5)
    assert expander.expand([given], top_k=1).results[0].id == 3, "a vector is no entity: that nearest to it"
    plain = expander.expand([1], [4])
    assert expander.expand([1, {**given, "weight": 0}], [4]) == plain
    assert (
        expander.expand([1, {**given, "weight": 4}], [4]).results != expander.expand([1, given], [4]).results
    )
    for wrong, words in (
        ({"vector": {"joint": [1.0]}}, r"positive\.0: a vector of the view 'joint' has \d+ numbers, not 1"),
        ({"vector": {"joint": [0] * len(joint)}}, r"positive\.0\.vector\.joint: all numbers are 0"),
        ({"vector": {"joint": [1e9]}}, r"positive\.0\.vector\.joint\.0: Input should be less"),
        ({"vector": {"joint": [float("nan")]}}, "finite number"),
        ({"vector": {"joint": []}}, "at least 1 item"),
        ({"vector": {}}, "at least 1 item"),
        ({"vector": {"mask": joint.tolist()}}, r"the view 'joint'; positive\.0 has vectors of mask"),
        ({"vector": {"joint": joint.tolist(), "x": [1.0]}}, r"has no view 'x'; it has .*joint"),
    ):
        with pytest.raises(QueryError, match=words):
            expander.expand([wrong])
    with pytest.raises(
        QueryError, match="SetExpan needs more of a seed than vectors; ask a method of vectors"
    ):
        Expander.open(workspace, "setexpan").expand([given])


def test_facets_count_the_answer(workspace: Path) -> None:
    expander = Expander.open(workspace, "retexpan")
    plain, counted = (expander.expand([1, 2], [4], top_k=9, facets=facets) for facets in (False, ["parity"]))
    assert (plain.facets, counted._replace(facets={})) == ({}, plain)
    odd = sum(found.id % 2 for found in plain.results)
    assert {one["value"]: one["count"] for one in counted.facets["parity"]} == {"odd": odd, "even": 9 - odd}
    with pytest.raises(UnknownAttributeError, match="facets: no entity has attribute 'colour'"):
        expander.expand([1], facets=["colour"])


def test_a_seed_of_weight_0_is_none_and_other_weights_are_obeyed(workspace: Path) -> None:
    expander = Expander.open(workspace, "retexpan")
    plain = expander.expand([1, 2], [4])
    assert expander.expand([1, {"name": "entity 3", "weight": 0}, 2], [4, {"id": 5, "weight": 0}]) == plain
    assert expander.expand([{"id": 1, "weight": 2}, {"name": "entity 2", "weight": 2}], [4]) == plain
    assert expander.expand([{"id": 1, "weight": 2}, 2], [4]).results != plain.results
    alone = expander.expand(negative=[4, 5]).results
    assert [found.score for found in alone] == [-found.evidence["negative"] for found in alone]
    for seed, words in (
        ({"id": 1, "weight": -1}, r"positive\.0\.weight: Input should be greater"),
        ({"weight": 1}, r"positive\.0: give a name or an id"),
        ({"id": 1, "name": "entity 1", "weight": 1}, "give a name or an id"),
        ({"id": 1, "weight": 0}, "at least one positive seed, or a negative one"),
        ({"name": "Thule", "sentences": ["Thule!"]}, "is not of the vocabulary"),
    ):
        with pytest.raises(QueryError, match=words):
            expander.expand([seed])
    with pytest.raises(UnknownEntityError, match=r"positive\.0.*did you mean"):
        expander.expand([{"name": "entty 1", "weight": 0}])
    with pytest.raises(QueryError, match=r"positive\.1: the seed is given a second time with another weight"):
        expander.expand([1, {"id": 1, "weight": 2}])


def test_mistakes_name_the_input(workspace: Path) -> None:
    expander = Expander.open(workspace, "joint")
    with pytest.raises(UnknownEntityError, match=r"negative.*entty 1.*did you mean"):
        expander.expand(["entity 1"], ["entty 1"])
    with pytest.raises(UnknownAttributeError, match="clas"):
        expander.expand([1], filters={"clas": ["rare"]})
    with pytest.raises(QueryError, match="at least one positive"):
        expander.expand([])
    with pytest.raises(QueryError, match=r"negative: 'entity 3' is one text; give a list"):
        expander.expand(["entity 1"], "entity 3")
    with pytest.raises(QueryError, match=r"filter\.class\.gte: 'rare' is no number"):
        expander.expand([1], filters={"class": {"gte": "rare"}})
    with pytest.raises(QueryError, match="unknown method 'finest'"):
        Expander.open(workspace, "finest")


@pytest.fixture
def registered() -> Iterator[str]:
    register("near", Retrieve(view="joint"))
    yield "near"
    METHODS.pop("near")


def test_an_own_method_has_a_name(workspace: Path, registered: str) -> None:
    near = Expander.open(workspace, registered).expand([5], top_k=3)
    assert near == Expander.open(workspace, "joint").expand([5], top_k=3)
    for taken in (registered, "default", "image"):
        with pytest.raises(QueryError, match=f"'{taken}' is taken"):
            register(taken, Retrieve(view="mask"))
