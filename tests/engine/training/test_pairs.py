"""The first expansion, and batches of pairs made of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.retrieval.index import unit
from engine.training.pairs import PairedBatches, first_expansion


def line(n: int) -> np.ndarray:
    """Vectors at growing angles: entity i is nearest to i - 1 and i + 1."""
    angles = np.arange(n) * 0.02
    return unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def test_positives_are_the_nearest_and_negatives_lie_beyond_a_third() -> None:
    vectors = line(30)
    vectors[29] = 0
    lists = first_expansion(vectors)
    assert lists.positive[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert lists.negative[0, :3].tolist() == [11, 12, 13], "after the ten nearest: a third of 30"
    assert lists.positive[29].tolist() == [29, -1, -1, -1, -1, -1]
    assert 29 not in lists.positive[:29]
    assert 29 not in lists.negative[:29]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(4, 40), st.integers(0, 5))
def test_an_epoch_has_every_anchor_in_four_and_pairs_alike(n_rows: int, batch_size: int, seed: int) -> None:
    lists = first_expansion(line(12))
    entity = np.random.default_rng(seed).integers(0, 11, n_rows)  # entity 11 has no context
    usable = np.arange(n_rows)[::2]
    made = PairedBatches(entity, usable, lists, batch_size, seed)
    anchors = []
    for epoch in range(4):
        batches = made.epoch(epoch)
        assert len(batches) == len(made)
        if len(usable) >= 4:  # of fewer, each is an anchor of every epoch
            assert max(map(len, batches)) <= max(batch_size, 4)
        rows = np.concatenate(batches)
        assert np.isin(rows, usable).all()
        anchors += rows[::4].tolist()
        for first, second in rows.reshape(-1, 2):
            assert entity[second] in lists.positive[entity[first]]
        np.testing.assert_array_equal(rows, np.concatenate(made.epoch(epoch)))
    if len(usable) >= 4:
        assert sorted(anchors) == usable.tolist()


def test_pairs_in_a_row_are_hard_negatives() -> None:
    lists = first_expansion(line(60))
    made = PairedBatches(np.arange(60), np.arange(60), lists, 16, 3)
    quads = np.concatenate(made.epoch(0)).reshape(-1, 4)
    assert all(third in lists.negative[first] for first, _, third, _ in quads)
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(np.concatenate(made.epoch(0)), np.concatenate(made.epoch(4)))
