"""Settings of stages changed by name: for a whole pipeline, and by a query within limits."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.errors import QueryError
from engine.methods import METHODS, method
from engine.query import Expansion, Query
from engine.stages.base import Pipeline
from engine.stages.generate import Generate
from engine.stages.generative_rerank import GenerativeRerank
from engine.stages.options import OptionError, change, change_methods, checked_options, offered
from engine.stages.rerank import SegmentRerank
from engine.stages.retrieve import Retrieve
from engine.stages.window_search import WindowSearch
from engine.storage.bundle import Bundle
from tests.support.bundles import method_bundle

TWICE = Retrieve(k=50) >> SegmentRerank(length=2) >> SegmentRerank(view="joint")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("w"), n=150)


def test_texts_are_read_as_the_settings_type() -> None:
    pipeline = Generate(k=5) >> SegmentRerank(confidence=0.03)
    given = {"Generate.top_p": "0.5", "Generate.descriptions": "true", "SegmentRerank.confidence": "none"}
    changed = change(pipeline, given | {"Generate.beams": " 7 ", "SegmentRerank.by": "likelihood"})
    assert changed == Generate(k=5, top_p=0.5, descriptions=True, beams=7) >> SegmentRerank(by="likelihood")
    assert str(pipeline) == "Generate(k=5) >> SegmentRerank(confidence=0.03)", "it stays as it is"


def test_a_former_name_of_a_setting_is_taken() -> None:
    assert change(Pipeline((Generate(),)), {"Generate.at_once": 2}).stages == (Generate(query_batch_size=2),)


def test_one_of_two_stages_of_a_name_is_told_by_its_number() -> None:
    changed = change(TWICE, {"SegmentRerank[2].length": "8", "SegmentRerank[1].view": "lexical"})
    assert str(changed) == (
        "Retrieve(k=50) >> SegmentRerank(view='lexical', length=2) >> SegmentRerank(view='joint', length=8)"
    )
    assert [stage.number for stage in changed.stages] == [1, 1, 2]
    assert change(TWICE, {"Retrieve[1].k": 7}).stages[0] == Retrieve(k=7), "also where there is one alone"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "SegmentRerankk.length",
            8,
            "no stage is called so here; did you mean SegmentRerank? There are Retr",
        ),
        ("Window.k", 8, "Window.k: no stage is called so here; There are Retrieve, SegmentRerank"),
        ("SegmentRerank.length", 8, "write SegmentRerank[1].length or SegmentRerank[2].length"),
        ("SegmentRerank[3].length", 8, "no SegmentRerank of number 3, but 2 in all"),
        (
            "Retrieve.kk",
            8,
            "Retrieve has no such setting; did you mean k? It has k, view, seed_view, hubness",
        ),
        ("Retrieve.K", "x", "Retrieve.K: Retrieve has no such setting; did you mean k"),
        ("Retrieve.k", "many", "Retrieve.k: many: Input should be a valid integer"),
        ("Retrieve.k", 0, "Retrieve.k: 0: Input should be greater than or equal to 1"),
        ("Retrieve.hubness", "inf", "Retrieve.hubness: inf: Input should be a finite number"),
        ("Retrieve.k", "none", "Retrieve.k: none: Input should be a valid integer"),
        ("k", 8, "k: write Stage.setting, such as SegmentRerank.length"),
        ("Retrieve[0].k", 8, "write Stage.setting"),
        ("Retrieve." + "k" * 999, 8, "k…: Retrieve has no such setting"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(key: str, value: object, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        change(TWICE, {key: value})
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_of_several_methods_those_with_the_stage_are_changed() -> None:
    given = {"retexpan": method("retexpan"), "default": method("default")}
    changed = change_methods(given, {"SegmentRerank.length": "8"})
    assert changed["default"] == given["default"]
    assert changed["retexpan"] == Retrieve() >> SegmentRerank(length=8)
    with pytest.raises(OptionError, match="There are Retrieve, SegmentRerank, ContrastRerank"):
        change_methods(given, {"WindowSearch.mu": 2})


def test_a_query_may_change_what_is_declared_within_its_bounds() -> None:
    stages = method("retexpan").stages
    options: dict[str, Any] = {
        "SegmentRerank[1].length": 8,
        "Retrieve.k": 30,
        "SegmentRerank.confidence": None,
    }
    assert checked_options(stages, options) == (
        ("Retrieve.k", 30),
        ("SegmentRerank.confidence", None),
        ("SegmentRerank.length", 8),
    )
    options["SegmentRerank.confidence"] = "none"
    assert dict(checked_options(stages, options))["SegmentRerank.confidence"] is None
    assert checked_options(TWICE.stages, {"SegmentRerank[2].length": 8}) == (("SegmentRerank[2].length", 8),)
    assert offered(stages)["SegmentRerank.length"] == {"value": 4, "minimum": 1, "maximum": 1000}
    assert list(offered(TWICE.stages))[-1] == "SegmentRerank[2].confidence"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"Retrieve.view": "joint"}, r"no query may change it; it may change Retrieve.k \(1 to 2000\), "),
        ({"Retrieve.k": 10**400}, "out of bounds: give 1 to 2000"),
        ({"SegmentRerank.length": 0}, "0 is out of bounds: give 1 to 1000"),
        ({"SegmentRerank.length": "8"}, "8: Input should be a valid integer"),
        ({"SegmentRerank.length": 8.5}, "8.5: Input should be a valid integer"),
        ({"SegmentRerank.length": True}, "True: Input should be a valid integer"),
        ({"SegmentRerank.length": None}, "None: Input should be a valid integer"),
        ({"SegmentRerank.length": "none"}, "none: Input should be a valid integer"),
        ({"SegmentRerank.confidence": 1}, "1: Input should be less than 1"),
        (
            {"SegmentRerank.length": 8, "SegmentRerank[1].length": 9},
            "given a second time, in another spelling",
        ),
        ({"Explain.view": 1}, "no stage is called so"),
    ],
)
def test_a_query_may_change_nothing_else(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        checked_options(method("retexpan").stages, options)


def test_every_declared_setting_is_one_of_its_stage_and_its_bounds_are_allowed() -> None:
    for pipeline in METHODS.values():
        for key, about in offered(pipeline.stages).items():
            for bound in (about["minimum"], about["maximum"]):
                if not key.endswith(".confidence"):  # a share: without its ends
                    change(pipeline, {key: bound})


FEW: dict[str, dict[str, int]] = {
    "genexpan": {"Generate.beams": 6, "Generate.max_rounds": 3, "Generate.query_batch_size": 2},
    "cgexpan": {"CGExpan.iterations": 3, "CGExpan.draws": 1, "CGExpan.least": 1},
}

CHANGED = [
    ("retexpan", {"SegmentRerank.length": 9}),
    ("retexpan", {"Retrieve.k": 12, "SegmentRerank.length": 3}),
    ("retexpan", {"SegmentRerank.confidence": 0.2}),
    ("retexpan+cds", {"SegmentRerank.confidence": None, "SegmentRerank.length": 6}),
    ("default", {"Retrieve.hubness": 1.5, "ContrastRerank.temperature": 0.5}),
    ("default", {"Retrieve.hubness": 0}),
    ("composed", {"GenerativeRerank.weight": 2.5, "GenerativeRerank.prompts": 2, "SegmentRerank.length": 2}),
    ("retexpan+lm-rerank", {"GenerativeRerank.contrast": 3, "Retrieve.k": 40}),
    ("multiexpan", {"WindowSearch.k": 30, "WindowSearch.mu": 0.5, "WindowSearch.first_window": 7}),
    ("genexpan", {"Generate.top_p": 0.3, "Generate.k": 15}),
    ("genexpan", {"Generate.beams": 3, "Generate.max_rounds": 2, "Generate.patience": 1}),
    ("setexpan", {"SetExpan.rank": 25}),
    ("setexpan", {"SetExpan.rank": 30, "SetExpan.iterations": 1, "SetExpan.k": 2}),
    ("case", {"CaSE.power": 2, "CaSE.k": 5}),
    ("cgexpan", {"CGExpan.pool": 9, "CGExpan.iterations": 2, "CGExpan.k": 4}),
]


@pytest.mark.parametrize(("name", "options"), CHANGED)
def test_a_query_with_options_is_answered_as_by_a_pipeline_with_these_settings(
    name: str, options: dict, bundle: Bundle
) -> None:
    pipeline = change(method(name), FEW.get(name, {}))
    asked = checked_options(pipeline.stages, options)
    plain = [Query("a", (1, 2, 3), (4, 5), top_k=10), Query("b", (6, 9)), Query("c", (7,), (8, 10), top_k=25)]
    with_options = [Query(q.id, q.positive, q.negative, q.top_k, options=asked) for q in plain]
    # Those that change settings and those that do not, in one call.
    mixed = [with_options[0], plain[1], with_options[1], plain[0], with_options[2]]
    found = pipeline.open(bundle)(mixed, strict=True)
    own = change(pipeline, options).open(bundle)(plain, strict=True)
    before = pipeline.open(bundle)(plain, strict=True)
    expected = [own[0], before[1], own[1], before[0], own[2]]
    for one, other in zip(found, expected, strict=True):
        assert_same_ranking(one, other)
    assert [e.query for e in found] == mixed
    differs = [a.ranking.ids.tolist() != b.ranking.ids.tolist() for a, b in zip(own, before, strict=True)]
    assert any(differs), "the settings make a difference"


def assert_same_ranking(one: Expansion, other: Expansion) -> None:
    np.testing.assert_array_equal(one.ranking.ids, other.ranking.ids)
    # A language model's products may differ in the last digits between batches; retrieval's do not.
    np.testing.assert_allclose(one.ranking.scores, other.ranking.scores, rtol=1e-4)
    assert one.degraded == other.degraded


def test_the_second_of_two_stages_has_its_own_settings(bundle: Bundle) -> None:
    plain = Query("q", (1, 2, 3), (4, 5), top_k=40)
    for key in ("SegmentRerank[1].length", "SegmentRerank[2].length"):
        options = checked_options(TWICE.stages, {key: 13})
        (found,) = TWICE.open(bundle)([Query("q", (1, 2, 3), (4, 5), top_k=40, options=options)])
        (expected,) = change(TWICE, {key: 13}).open(bundle)([plain])
        assert_same_ranking(found, expected)


def test_hubness_that_the_bundle_lacks_is_refused_to_the_query_alone(bundle: Bundle) -> None:
    pipeline = method("retexpan")  # the mask view has none
    asked = Query("h", (1, 2), options=checked_options(pipeline.stages, {"Retrieve.hubness": 0.5}))
    with pytest.raises(QueryError, match="the bundle has none of the view 'mask'"):
        pipeline.open(bundle)([asked], strict=True)
    refused, answered = pipeline.open(bundle)([asked, Query("b", (3,))])
    assert "hubness" in refused.degraded[0]
    assert len(answered.ranking)
    assert not answered.degraded


def test_the_composed_methods_are_in_the_order_of_the_task() -> None:
    def kinds(name: str) -> list[type]:
        return [type(stage) for stage in method(name).stages]

    assert kinds("composed") == [Retrieve, GenerativeRerank, SegmentRerank]
    assert kinds("composed+images") == [WindowSearch, GenerativeRerank, SegmentRerank]


@pytest.mark.parametrize("name", ["composed", "composed+images"])
def test_negative_seeds_move_entities_in_the_last_step_of_composed_alone(name: str, bundle: Bundle) -> None:
    whole = method(name).open(bundle)
    recall = Pipeline(method(name).stages[:2]).open(bundle)
    seeds, negative = (1, 2, 3), (4, 5)
    (answer,) = whole([Query("q", seeds, negative, top_k=40)])
    segments = answer.ranking.evidence["segment"]
    own = answer.ranking.evidence["negative"]
    for number in np.unique(segments):
        assert (np.diff(own[segments == number]) >= 0).all()
    top = recall([Query("q", seeds, negative, top_k=200)])[0].ranking.ids[:40].tolist()
    assert sorted(answer.ranking.ids.tolist()) == sorted(top), "ten whole segments: only the order in each"
    # Before the segments, whoever the negative seeds are changes no score.
    recalled = Pipeline(method(name).stages[:1]).open(bundle)([Query("q", seeds, negative, top_k=200)])
    rerank = method(name).stages[1].open(bundle)
    others = [replace(e, query=replace(e.query, negative=(9, 30))) for e in recalled]
    for one, other in zip(rerank(recalled), rerank(others), strict=True):
        assert_same_ranking(one, other)
