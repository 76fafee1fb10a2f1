"""MESED's protocols against its authors' rules, computed plainly on random lists, and against trec_eval."""

from __future__ import annotations

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import AP, P

from engine.evaluation.metrics import CUTOFFS, fine_columns, measure, recall_columns
from engine.queries.formats import Truth

ENTITIES = st.integers(0, 160)
CASES = st.tuples(
    st.lists(ENTITIES, unique=True, max_size=150),
    st.frozensets(ENTITIES, min_size=1, max_size=140),
    st.lists(ENTITIES, unique=True, min_size=1, max_size=5),
)


def split(
    case: tuple[list[int], frozenset[int], list[int]],
) -> tuple[list[int], frozenset[int], list[int], Truth]:
    """Return list, whole class, seeds, and the truth as a file of queries gives it."""
    ranked, members, seeds = case
    ranked = [e for e in ranked if e not in seeds]
    return ranked, members, seeds, Truth(members - set(seeds), (), members & set(seeds))


@given(CASES)
def test_mesed_divides_by_a_truth_that_holds_the_seeds(case) -> None:
    ranked, members, seeds, truth = split(case)
    columns = measure(ranked, truth, Truth(), "mesed", seeds)
    for k in CUTOFFS:
        hits, total = 0, 0.0
        for place in range(min(k, len(ranked))):
            if ranked[place] in members:
                hits += 1
                total += hits / (place + 1)
        assert columns[f"PosMAP@{k}"] == pytest.approx(100 * total / min(len(members), k))
        assert columns[f"PosP@{k}"] == pytest.approx(100 * hits / min(len(members), k))


@given(CASES)
def test_mesed_is_trec_eval_with_the_seeds_in_the_qrels(case) -> None:
    ranked, members, seeds, truth = split(case)
    columns = measure(ranked, truth, Truth(), "mesed", seeds)
    qrels = {"q": {str(e): 1 for e in members}}
    run = {"q": {str(e): float(-place) for place, e in enumerate(ranked)}}
    found = ir_measures.calc_aggregate([m @ k for m in (AP, P) for k in CUTOFFS], qrels, run)
    for k in CUTOFFS:
        ours = min(len(members), k)
        assert columns[f"PosMAP@{k}"] * ours == pytest.approx(100 * found[AP @ k] * len(members))
        assert columns[f"PosP@{k}"] * ours == pytest.approx(100 * found[P @ k] * k)


@given(CASES)
def test_the_programs_own_rules(case) -> None:
    """Three entries come off seeds and list, however many seeds; over 50 entries divide by their number."""
    ranked, members, seeds, truth = split(case)
    columns = measure(ranked, truth, Truth(), "mesed-program", seeds)
    theirs = (seeds + ranked)[3:]
    for k in CUTOFFS:
        cut = theirs[:k]
        hits = [sum(e in members for e in cut[: i + 1]) for i in range(len(cut))]
        total = sum(hits[i] / (i + 1) for i, e in enumerate(cut) if e in members)
        divisor = min(len(members), len(cut), k) if len(cut) > 50 else min(len(members), k)
        assert columns[f"PosMAP@{k}"] == pytest.approx(100 * total / divisor)
        assert columns[f"PosP@{k}"] == pytest.approx(100 * (hits[-1] if hits else 0) / divisor)


@pytest.mark.parametrize(("length", "share"), [(50, 50), (51, 100)])
def test_the_program_divides_by_the_length_of_a_list_of_more_than_50(length: int, share: float) -> None:
    """All entries are true, of 100: 50 of them are half of these, and 51 are all that there is."""
    truth = Truth(frozenset(range(3, 100)), (), frozenset({0, 1, 2}))
    columns = measure(list(range(3, 3 + length)), truth, Truth(), "mesed-program", [0, 1, 2])
    assert columns["PosMAP@100"] == columns["PosP@100"] == pytest.approx(share)
    assert columns["PosMAP@50"] == pytest.approx(100)


def test_a_perfect_list_reaches_100_by_our_protocol_alone() -> None:
    truth = Truth(frozenset(range(3, 13)), (), frozenset({0, 1, 2}))
    ranked = list(range(3, 13))
    assert measure(ranked, truth, Truth(), "seedset", [0, 1, 2])["PosMAP@100"] == 100
    assert measure(ranked, truth, Truth(), "mesed", [0, 1, 2])["PosMAP@100"] == pytest.approx(1000 / 13)
    assert measure(ranked, truth, Truth(), "mesed", [0, 1, 2])["PosMAP@10"] == 100


def test_the_class_and_recall_by_hand() -> None:
    fine = fine_columns([5, 9, 6], {5, 6, 7})
    assert fine["FineMAP@10"] == pytest.approx(100 * (1 + 2 / 3) / 3)
    assert fine["FineP@10"] == pytest.approx(200 / 3)
    recall = recall_columns([5, 9, *range(20, 40), 6], Truth(frozenset({5, 6, 7}), ("nobody",)))
    assert (recall["Recall@10"], recall["Recall@50"], recall["Recall@1000"]) == (25, 50, 50)
    assert set(recall_columns([], Truth(frozenset({5}))).values()) == {0}
