"""What holds of every method's answers, whatever it computes: asked of a small bundle of random vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain

import numpy as np
import pytest

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
def ask(request: pytest.FixtureRequest, opened: Callable[[str], LocalPipeline]) -> Ask:
    """Return what answers queries by a method, each in turn."""
    run = opened(request.param)
    return lambda *queries: run(queries, strict=True)


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
        replace(QUERY, exclude=out),
        replace(QUERY, exclude=tuple(range(N))),
    )
    assert ids(cut) == [
        i for i, score in zip(ids(whole), whole.ranking.scores, strict=True) if score >= least
    ]
    assert ids(left)
    assert not set(ids(left)) & {*out, *QUERY.seeds}
    assert ids(nothing) == []
