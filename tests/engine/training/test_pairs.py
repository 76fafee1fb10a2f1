from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.training.pairs import HARD_RANKS, NeighborLists, PairedBatches, nearest_neighbors


def fan(n: int) -> np.ndarray:
    """Unit vectors in a half circle whose distances grow: no two are equally near to a third at its end."""
    angles = np.linspace(0, 1, n) ** 1.3 * 3
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_nearest_five_are_positive_and_those_farther_off_hard_negatives() -> None:
    lists = nearest_neighbors(fan(12))
    assert lists.positive[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert lists.negative[0].tolist() == [6, 7, 8, 9, 10, 11]
    assert lists.positive[11].tolist() == [11, 10, 9, 8, 7, 6]
    assert lists.negative[11].tolist() == [5, 4, 3, 2, 1, 0]


def test_entities_without_a_vector_are_in_nobodys_list_and_have_themselves_alone() -> None:
    vectors = fan(12)
    vectors[[3, 8]] = 0
    lists = nearest_neighbors(vectors)
    assert lists.positive[0].tolist() == [0, 1, 2, 4, 5, 6]
    assert lists.negative[0].tolist() == [7, 9, 10, 11, -1, -1]
    assert lists.positive[3].tolist() == [3, -1, -1, -1, -1, -1]
    assert lists.negative[3].tolist() == [-1] * 6


def test_in_a_large_vocabulary_hard_negatives_have_the_ranks_of_the_authors() -> None:
    lists = nearest_neighbors(fan(600))
    first, last = HARD_RANKS
    # Entity 0 sees the others in their order: the one at rank r is entity r.
    assert lists.negative[0].tolist() == list(range(first + 1, last + 1))


def test_in_a_small_vocabulary_they_begin_after_a_third_of_it() -> None:
    lists = nearest_neighbors(fan(60))
    assert lists.negative[0].tolist() == list(range(21, 51))


@pytest.mark.parametrize("n", [1, 2, 6, 7])
def test_a_tiny_vocabulary_has_what_there_is(n: int) -> None:
    lists = nearest_neighbors(fan(n))
    near = list(range(min(n, 6)))
    assert lists.positive[0].tolist() == near + [-1] * (6 - len(near))
    assert lists.negative[0].tolist() == list(range(6, n))


def corpus(contexts: int, entities: int, unusable: float = 0.2, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng([contexts, entities, seed])
    entity_id = rng.integers(0, entities, contexts)
    usable = np.flatnonzero(rng.random(contexts) >= unusable)
    usable = usable if len(usable) else np.arange(contexts)
    vectors = rng.standard_normal((entities, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[rng.random(entities) < 0.1] = 0
    return {"entity_id": entity_id, "usable": usable, "lists": nearest_neighbors(vectors)}


corpora = st.builds(corpus, contexts=st.integers(1, 80), entities=st.integers(1, 30), seed=st.integers(0, 20))


@given(data=corpora, batch_size=st.integers(4, 40), cycle=st.integers(0, 2))
def test_every_usable_context_brings_others_along_once_in_four_epochs(data, batch_size, cycle) -> None:
    batches = PairedBatches(**data, batch_size=batch_size, seed=5)
    anchors = [row for e in range(4) for batch in batches.epoch(4 * cycle + e) for row in batch[::4].tolist()]
    usable = data["usable"].tolist()
    assert set(anchors) == set(usable)
    # No batch may be empty: a quarter with fewer contexts than there are batches borrows one.
    assert len(anchors) - len(usable) <= (3 if len(usable) < 4 or batch_size < 8 else 0)


@given(data=corpora, batch_size=st.integers(4, 40), epoch=st.integers(0, 8))
def test_members_of_a_pair_are_alike_and_pairs_side_by_side_are_hard_negatives(
    data, batch_size, epoch
) -> None:
    lists, entity_id = data["lists"], data["entity_id"]
    there = set(entity_id[data["usable"]].tolist())
    for batch in PairedBatches(**data, batch_size=batch_size, seed=5).epoch(epoch):
        assert set(batch.tolist()) <= set(data["usable"].tolist())
        for anchor, like, other, like_other in entity_id[batch].reshape(-1, 4).tolist():
            assert like in lists.positive[anchor]
            assert like_other in lists.positive[other]
            hard = there & set(lists.negative[anchor].tolist())
            assert other in (hard or there)


@given(data=corpora, batch_size=st.integers(4, 40), epoch=st.integers(0, 8))
def test_batches_are_as_many_as_announced_none_empty_and_none_above_its_size(data, batch_size, epoch) -> None:
    batches = PairedBatches(**data, batch_size=batch_size, seed=5)
    sizes = [len(batch) for batch in batches.epoch(epoch)]
    assert len(sizes) == len(batches)
    assert all(4 <= size <= batch_size and size % 4 == 0 for size in sizes)
    quarter = len(data["usable"]) / 4
    assert math.floor(quarter) <= sum(sizes) / 4 <= math.ceil(quarter)


def test_batches_are_a_function_of_seed_and_epoch() -> None:
    data = corpus(60, 12)

    def rows(seed: int, *epochs: int) -> list[list[int]]:
        batches = PairedBatches(**data, batch_size=16, seed=seed)
        return [np.concatenate(batches.epoch(e)).tolist() for e in epochs]

    assert rows(1, 2, 5)[1] == rows(1, 5)[0]
    assert rows(1, 0) != rows(2, 0)
    epochs = rows(1, 0, 1, 4)
    assert all(one != other for one, other in [(epochs[0], epochs[1]), (epochs[0], epochs[2])])


def test_over_epochs_every_alike_entity_and_every_context_of_it_has_its_turn() -> None:
    entity_id = np.array([0, 1, 1, 1, 2, 2, 3])
    positive = np.array([[0, 1, 2, 3], [1, -1, -1, -1], [2, -1, -1, -1], [3, -1, -1, -1]], np.int32)
    lists = NeighborLists(positive, np.array([[2], [-1], [-1], [-1]], np.int32))
    usable = np.array([0, 1, 2, 3, 4, 5])  # entity 3 has no context that may be drawn
    batches = PairedBatches(entity_id, usable, lists, 8, seed=0)
    quads = [quad for e in range(400) for batch in batches.epoch(e) for quad in batch.reshape(-1, 4).tolist()]
    of_zero = [quad for quad in quads if quad[0] == 0]
    assert len(of_zero) == 100
    assert {quad[1] for quad in of_zero} == {0, 1, 2, 3, 4, 5}
    assert {quad[2] for quad in of_zero} == {4, 5}
    # Entities are drawn alike, however many contexts they have.
    shares = np.bincount([entity_id[quad[1]] for quad in of_zero], minlength=3) / 100
    assert shares == pytest.approx([1 / 3] * 3, abs=0.17)


@pytest.mark.parametrize("contexts", [1, 2, 3])
def test_a_corpus_of_a_few_contexts_can_be_learnt_from(contexts: int) -> None:
    batches = PairedBatches(
        np.arange(contexts), np.arange(contexts), nearest_neighbors(fan(contexts)), batch_size=4, seed=0
    )
    assert len(batches) == 1
    for epoch in range(8):
        (batch,) = batches.epoch(epoch)
        assert len(batch) == 4
