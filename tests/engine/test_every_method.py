"""What holds of every method's answers, whatever it computes: asked of a small bundle of random vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain

import numpy as np
import pytest

from engine.errors import QueryError
from engine.methods import METHODS
from engine.query import Expansion, Query, Selection
from engine.stages.base import LocalPipeline
from engine.stages.options import change_methods
from engine.storage.bundle import Bundle
from tests.support.bundles import method_bundle

N = 60

QUICK = {
    "Generate.beams": 8,
    "Generate.max_rounds": 3,
    "Generate.patience": 2,
    "CGExpan.iterations": 1,
    "CaSE.entities": 3,
    "CaSE.mentions": 6,
}
"""Settings that make what is slow quick, and let a small bundle have answers."""

SAME_STAGES = [name for name in METHODS if name.startswith("genexpan+") and name != "genexpan+retexpan"]
"""Methods of the stages of ``genexpan``, with other words in their prompts."""

PIPELINES = change_methods(
    {
        name: pipeline
        for name, pipeline in METHODS.items()
        if name not in SAME_STAGES and not name.startswith("chat")  # a chat model is behind an endpoint
    },
    QUICK,
)

QUERY = Query(
    "q",
    (1, 2, 3),
    (4, 5),
    top_k=12,
    class_name="things",
    positive_attributes=(("parity", ("odd",)),),
    negative_attributes=(("parity", ("even",)),),
)

Ask = Callable[..., list[Expansion]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("every"), n=N, d=8)


@pytest.fixture(scope="module")
def opened(bundle: Bundle) -> Callable[[str], LocalPipeline]:
    return cache(lambda name: PIPELINES[name].open(bundle))


@pytest.fixture(params=list(PIPELINES))
def name(request: pytest.FixtureRequest) -> str:
    """The name of a method, each in turn."""
    return str(request.param)


@pytest.fixture
def ask(name: str, opened: Callable[[str], LocalPipeline]) -> Ask:
    """Return what answers queries by the method."""
    run = opened(name)
    return lambda *queries: run(queries, strict=True)


NEGATIVES_UNUSED = (
    *("retexpan-negative", "joint", "description", "lexical", "probexpan", "multiexpan", "setexpan", "case"),
    "cgexpan",
)
"""Methods that only keep negative seeds out."""

WEIGHED = (
    *("retexpan", "retexpan+cds", "retexpan-negative", "retexpan+contrast", "retexpan+types", "default"),
    *("default+view-weights", "joint", "description", "lexical", "multimodal", "mean", "best", "sum"),
)
"""Methods that obey the weights of seeds."""

CONTEXT = ("mean", "best", "sum")
"""Methods that obey context pairs."""

NEGATIVE_ALONE = tuple(name for name in WEIGHED if name != "retexpan+types")


def ids(found: Expansion) -> list[int]:
    return [int(i) for i in found.ranking.ids]


def columns(found: Expansion) -> list[Sequence[float]]:
    ranking = found.ranking
    return [ranking.ids.tolist(), ranking.scores.tolist(), *(c.tolist() for c in ranking.evidence.values())]


def test_pages_and_a_least_score_are_cut_from_one_list_and_the_excluded_never_come(ask: Ask) -> None:
    at = ((0, 5), (5, 4), (9, 3), (N, 1))
    whole, *pages = ask(QUERY, *(replace(QUERY, top_k=n, selection=Selection(start)) for start, n in at))
    assert len(whole.ranking) >= 2
    assert np.all(np.diff(whole.ranking.scores) <= 0), "the order is that of the scores"
    assert [list(chain(*parts)) for parts in zip(*map(columns, pages), strict=True)] == columns(whole)
    least = whole.ranking.scores[len(whole.ranking) // 2]
    out = tuple(ids(whole)[::2])
    cut, left, nothing = ask(
        replace(QUERY, selection=Selection(min_score=float(least))),
        replace(QUERY, exclude=out[1:], deleted=out[:1]),
        replace(QUERY, exclude=tuple(range(N))),
    )
    assert ids(cut) == [
        i for i, score in zip(ids(whole), whole.ranking.scores, strict=True) if score >= least
    ]
    assert ids(left)
    assert not set(ids(left)) & {*out, *QUERY.seeds}
    assert ids(nothing) == []


def test_a_negative_seed_changes_the_answer_where_it_is_used(name: str, ask: Ask) -> None:
    asked = replace(QUERY, top_k=N)
    with_one, without = ask(asked, replace(asked, negative=(), exclude=QUERY.negative))
    same = (ids(with_one), with_one.ranking.scores.tolist()) == (
        ids(without),
        without.ranking.scores.tolist(),
    )
    assert same == (name in NEGATIVES_UNUSED)


def test_weights_are_obeyed_or_refused_by_name(name: str, ask: Ask) -> None:
    plain, equal = ask(QUERY, replace(QUERY, weights=tuple((seed, 3.0) for seed in QUERY.seeds)))
    assert columns(plain) == columns(equal), "only what differs within a kind counts"
    unequal = replace(QUERY, weights=((1, 5.0), (4, 0.25)))
    if name not in WEIGHED:
        with pytest.raises(QueryError, match=r"^\w+ cannot weigh seeds; give each the weight 1, or 0"):
            ask(unequal)
        return
    (weighed,) = ask(unequal)
    assert columns(weighed) != columns(plain)
    (nearly,) = ask(replace(QUERY, top_k=N, weights=((1, 1000.0), (2, 1e-6), (3, 1e-6), (4, 1e-6))))
    (alone,) = ask(replace(QUERY, top_k=N, positive=(1,), negative=(5,), exclude=(2, 3, 4)))
    by_id = [dict(zip(ids(one), one.ranking.scores.tolist(), strict=True)) for one in (nearly, alone)]
    assert all(abs(score - by_id[1][i]) < 1e-4 for i, score in by_id[0].items()), "a seed alone is the limit"


def test_negative_seeds_alone_rank_by_distance_or_are_refused_by_name(name: str, ask: Ask) -> None:
    alone = replace(QUERY, positive=(), top_k=N)
    if name not in NEGATIVE_ALONE:
        with pytest.raises(QueryError, match=r"^\w+ needs a positive seed; give one, or ask a method that"):
            ask(alone)
        return
    (found,) = ask(alone)
    assert len(found.ranking) == N - len(alone.negative)
    assert found.ranking.scores.tolist() == (-found.ranking.evidence["negative"]).tolist()
    assert np.all(np.diff(found.ranking.scores) <= 0)


def test_context_pairs_are_obeyed_or_refused_by_name(name: str, ask: Ask) -> None:
    paired = replace(QUERY, top_k=N, context=((6, 7), (8, 1)))
    if name not in CONTEXT:
        with pytest.raises(QueryError, match=r"^\w+ cannot obey context pairs; leave context out, or ask"):
            ask(paired)
        return
    plain, found, alone = ask(replace(QUERY, top_k=N), paired, replace(paired, positive=(), negative=()))
    assert columns(plain) != columns(found)
    assert not {6, 7, 8, 1} & {*ids(found), *ids(alone)}
    assert alone.ranking.scores.tolist() == alone.ranking.evidence["context"].tolist()
    assert alone.ranking.scores.max() <= 0
    assert np.all(np.diff(alone.ranking.scores) <= 0)


def test_a_refused_query_costs_no_other_its_answer(opened: Callable[[str], LocalPipeline]) -> None:
    run = opened("setexpan")
    weighed = replace(QUERY, weights=((1, 2.0),))
    first, refused, last = run([QUERY, weighed, QUERY])
    assert columns(first) == columns(last)
    assert (ids(refused), refused.degraded[0][:24]) == ([], "SetExpan cannot weigh se")
