"""One order of the stages of several methods, which is that of each of them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.methods import METHODS
from engine.query import Expansion, NewEntity, Query, Selection
from engine.refusals import Code, Refusal
from engine.stages.encode_new_entities import EncodeNewEntities
from engine.stages.explain import Explain
from engine.stages.select import Select
from jobs.workers.chain import Chain, Row

NAMES = st.lists(st.sampled_from(sorted(METHODS)), min_size=1, max_size=8, unique=True)
PLAIN = Query("q", (1,))


def stages_of(chain: Chain, row: Row) -> list[object]:
    return [stage for place, stage in enumerate(chain.stages) if chain.passes(row, place)]


@given(NAMES, st.booleans(), st.booleans())
def test_a_row_passes_the_stages_of_its_method_in_their_order(
    names: list[str], new: bool, explained: bool
) -> None:
    explain, select = Explain(view="mask"), Select(view="mask")
    last = [select, explain] if explained else [select]
    chain = Chain.of({name: METHODS[name] for name in names}, new, *last)
    assert len(chain.stages) <= sum(len(METHODS[name].stages) for name in names) + new + len(last)
    for name in names:
        own = list(METHODS[name].stages)
        assert stages_of(chain, Row(Expansion(PLAIN), name)) == own
        assert stages_of(chain, Row(Expansion(PLAIN), name, refusal=Refusal(Code.TIMEOUT, ""))) == []
        if explained:
            assert stages_of(chain, Row(Expansion(PLAIN), name, explain=True)) == [*own, explain]
            diverse = replace(PLAIN, selection=Selection(diversity=0.5))
            assert stages_of(chain, Row(Expansion(diverse), name, explain=True)) == [*own, select, explain]
        if new:
            query = Query("q", (-1,), new=(NewEntity("x", ("x.",)),))
            assert stages_of(chain, Row(Expansion(query), name)) == [EncodeNewEntities(), *own]


@pytest.mark.parametrize(
    ("names", "pools"),
    [
        (["retexpan"], [(0, 1)]),
        (["genexpan"], [(0, 1)]),
        (["default+lm-rerank"], [(0,), (1,), (2,)]),
        (["retexpan+genexpan", "genexpan+retexpan"], None),
    ],
)
def test_neighbours_of_a_kind_share_a_process(names: list[str], pools: list[tuple[int, ...]] | None) -> None:
    chain = Chain.of({name: METHODS[name] for name in names})
    if pools is not None:
        assert chain.pools == pools
    assert [place for pool in chain.pools for place in pool] == list(range(len(chain.stages)))
    with_model = [{chain.stages[place].language_model for place in pool} for pool in chain.pools]
    assert all(len(kinds) == 1 for kinds in with_model)
    assert all(one != other for one, other in itertools.pairwise(with_model)), "nothing is cut without need"
