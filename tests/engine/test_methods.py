from dataclasses import replace

import numpy as np
import pytest

from engine.errors import QueryError
from engine.methods import ABLATIONS, METHODS, method
from engine.query import Query
from engine.stages.base import Pipeline
from engine.stages.generate import Generate
from engine.stages.generative_rerank import GenerativeRerank
from engine.stages.options import change
from engine.storage.bundle import Bundle
from tests.support.bundles import method_bundle
from tests.support.rankings import GIVEN


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("w"))


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(QueryError, match="unknown method 'retexpand'; known: retexpan, "):
        method("retexpand")


ALL = {**METHODS, **ABLATIONS}
GENERATIVE = [name for name, p in ALL.items() if any(isinstance(s, Generate) for s in p.stages)]
ELSEWHERE = [name for name, p in ALL.items() if any(s.unavailable() for s in p.stages)]
RETRIEVING = [
    name for name, p in ALL.items() if name not in (*GENERATIVE, *ELSEWHERE) and not p.batch_dependent
]


SHORT = ("setexpan", "case", "cgexpan")
"""Methods that rank no more than they find reason to."""

SCORED_BY_LM = [name for name, p in ALL.items() if any(isinstance(s, GenerativeRerank) for s in p.stages)]


def shortened(pipeline: Pipeline) -> Pipeline:
    """Return the same pipeline, its lists grown for a few rounds: a random model goes on for long."""
    few = {"beams": 6, "max_rounds": 4, "query_batch_size": 2}
    stages = [s.model_copy(update=few) if isinstance(s, Generate) else s for s in pipeline.stages]
    return Pipeline(tuple(stages))


@pytest.mark.parametrize("name", GENERATIVE)
def test_a_generating_method_answers_alike_alone_and_in_any_batch(name: str, bundle: Bundle) -> None:
    run = shortened(method(name)).open(bundle)
    queries = [Query("a", (1, 2, 3), (4, 5), top_k=20), Query("b", (6,)), Query("c", (7, 8), (9, 10, 11))]
    queries = [replace(query, **GIVEN) for query in queries]
    together = run(queries)
    for query, found in zip(queries, together, strict=True):
        (alone,) = run([query])
        np.testing.assert_array_equal(found.ranking.ids, alone.ranking.ids)
        np.testing.assert_allclose(found.ranking.scores, alone.ranking.scores, rtol=1e-4)
        assert not set(found.ranking.ids.tolist()) & set(query.seeds)
        assert len(set(found.ranking.ids.tolist())) == len(found.ranking)
        assert found.reasoning == alone.reasoning
        assert found.degraded == ()


@pytest.mark.parametrize("name", RETRIEVING)
def test_every_method_answers_alike_alone_and_in_any_batch(name: str, bundle: Bundle) -> None:
    run = method(name).open(bundle)
    queries = [
        Query("a", (1, 2, 3), (4, 5), top_k=20),
        Query("b", (6,), top_k=300),
        Query("c", (7, 8), (9, 10, 11)),
    ]
    together = run(queries)
    for query, found in zip(queries, together, strict=True):
        (alone,) = run([query])
        assert found.query == query
        np.testing.assert_array_equal(found.ranking.ids, alone.ranking.ids)
        # A language model's products may differ in the last digits between batches; retrieval's do not.
        tolerance = 1e-4 if name in SCORED_BY_LM else 0
        np.testing.assert_allclose(found.ranking.scores, alone.ranking.scores, rtol=tolerance)
        if not name.startswith(SHORT):
            assert len(found.ranking) == query.top_k
        assert 0 < len(found.ranking) <= query.top_k
        assert not set(found.ranking.ids.tolist()) & set(query.seeds)
        assert (np.diff(found.ranking.scores) <= 0).all()


REMOVED = frozenset(range(0, 500, 3))
"""Entities that have been removed: every third, so that any list would hold some."""


@pytest.fixture(scope="module")
def thinned(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("thinned"), removed=REMOVED)


@pytest.mark.parametrize("name", [*RETRIEVING, *GENERATIVE])
def test_no_method_answers_an_entity_that_was_removed(name: str, bundle: Bundle, thinned: Bundle) -> None:
    query = replace(Query("a", (1, 2, 4), (5, 7), top_k=60), **GIVEN)
    (whole,) = shortened(method(name)).open(bundle)([query])
    (found,) = shortened(method(name)).open(thinned)([query])
    if len(whole.ranking) > 10:  # a random model may list few, and without a trie none
        assert set(whole.ranking.ids.tolist()) & REMOVED, "they would be in it"
        assert len(found.ranking)
    assert not set(found.ranking.ids.tolist()) & REMOVED


def test_a_removed_entity_is_found_by_no_name(thinned: Bundle) -> None:
    vocabulary = thinned.vocabulary
    assert len(vocabulary) == len(vocabulary.names) == 500
    assert [vocabulary.find(given) for given in ("entity 3", 3, "ENTITY 3", "entity 4", 4)] == [
        None,
        None,
        None,
        4,
        4,
    ]
    assert "entity 3" not in vocabulary.starting_with("entity 3", 100)
    assert "entity 3" not in vocabulary.closest("entity 3", 20)


TABLE_8 = {
    "genexpan+cot-class-given": {"class_name": "countries"},
    "genexpan+cot-positive-given": {"positive": "with government monarchy"},
    "genexpan+cot-negative-given": {
        "positive": "with government monarchy",
        "negative": "with continent Europe",
    },
}
"""What each method that is given something says of it."""


@pytest.mark.parametrize("name", TABLE_8)
def test_a_method_that_is_given_what_is_reasoned_shows_it_and_refuses_a_query_without(
    name: str, bundle: Bundle
) -> None:
    run = shortened(method(name)).open(bundle)
    query = Query("q", (1, 2, 3), (4, 5))
    (found,) = run([replace(query, **GIVEN)])
    assert found.reasoning.items() >= TABLE_8[name].items()
    assert set(found.reasoning) <= {"class_name", *TABLE_8[name]}
    own = method(name).stages[0]
    assert isinstance(own, Generate)
    settings = {"Generate.cot_level": own.cot_level, "Generate.given": ",".join(own.given)}
    assert change(method("genexpan"), settings).stages[0] == own
    field = {"class_name": "class_name", "positive": "positive_attributes"}[next(iter(TABLE_8[name]))]
    with pytest.raises(
        QueryError, match=f"'q': the method takes {field} from the query, which has none; give"
    ):
        run([query], strict=True)
    refused, answered = run([query, replace(query, id="r", **GIVEN)])
    assert field in refused.degraded[0]
    assert len(refused.ranking) == 0
    assert answered.ranking.ids.tolist() == found.ranking.ids.tolist()
