from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.training.order import (
    POOL_BATCHES,
    draws_at,
    epoch_batches,
    rank_slice,
    row_type,
    rows_by_entity,
)
from engine.training.schedule import one_cycle, warmup_cosine


@given(
    n=st.integers(0, 400),
    batch_size=st.integers(1, 50),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 5),
    world=st.integers(1, 4),
)
def test_every_row_is_seen_once_an_epoch_on_any_number_of_workers(n, batch_size, seed, epoch, world) -> None:
    lengths = np.random.default_rng(n).integers(3, 60, n)
    batches = epoch_batches(lengths, batch_size, seed, epoch)
    slices = [rank_slice(batch, rank, world) for batch in batches for rank in range(world)]
    seen = np.concatenate(slices) if slices else np.empty(0)
    assert sorted(seen) == list(range(n))
    sizes = {len(batch) for batch in batches}
    assert all(size <= batch_size for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_pools_sorted_in_place_are_those_of_the_plain_order() -> None:
    lengths, size = np.random.default_rng(3).integers(3, 60, 5001), 16
    rng = np.random.default_rng([13, 2])
    rows = rng.permutation(len(lengths))
    n_batches = -(-len(rows) // size)
    pools = np.array_split(rows, -(-n_batches // POOL_BATCHES))
    assert len(pools) > 2
    whole = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    batches = np.array_split(whole, n_batches)
    expected = [batches[i] for i in rng.permutation(n_batches)]
    for found, wanted in zip(epoch_batches(lengths, size, 13, 2), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_batches_of_some_rows_are_those_of_their_places_in_the_plain_order() -> None:
    lengths = np.random.default_rng(5).integers(3, 300, 3000)
    rows = np.flatnonzero(lengths > 20)
    plain = [rows[batch] for batch in epoch_batches(lengths[rows], 16, 13, 1)]
    found = epoch_batches(lengths.astype(np.uint16), 16, 13, 1, rows)
    for one, expected in zip(found, plain, strict=True):
        np.testing.assert_array_equal(one, expected)
    assert {one.dtype for one in found} == {np.dtype(np.int32)}
    assert epoch_batches(lengths, 16, 13, 1, rows[:0]) == []


def test_rows_of_an_entity_stand_after_one_another() -> None:
    rng = np.random.default_rng(7)
    entity_id, rows = rng.integers(0, 40, 500), np.sort(rng.choice(500, 300, replace=False))
    found = rows_by_entity(entity_id.astype(np.int32), rows)
    assert found.dtype == np.int32
    assert found.tolist() == sorted(rows.tolist(), key=lambda row: (entity_id[row], row))


@given(st.integers(0, 5), st.lists(st.integers(0, 299), max_size=40))
def test_drawn_numbers_of_some_rows_are_theirs_among_those_of_all(step, rows) -> None:
    plain = np.random.default_rng([13, step]).random(300)
    np.testing.assert_array_equal(draws_at([13, step], np.array(rows, np.int64)), plain[rows])


def test_many_rows_have_wide_numbers() -> None:
    assert (row_type(2**31 - 1), row_type(2**31)) == (np.int32, np.int64)


def test_epochs_differ_and_repeat() -> None:
    lengths = np.full(1000, 7)
    first, again, other = (np.concatenate(epoch_batches(lengths, 10, 13, e)) for e in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_little_padding_is_left() -> None:
    lengths = np.random.default_rng(0).integers(8, 64, 50_000)

    def padded(batches: list) -> float:
        return sum(len(b) * lengths[b].max() for b in batches) / lengths.sum()

    shuffled = np.array_split(np.random.default_rng(1).permutation(50_000), 50_000 // 128)
    assert padded(epoch_batches(lengths, 128, 13, 0)) < 1.05 < 1.5 < padded(shuffled)


def test_one_cycle_rises_to_its_peak_and_falls_to_almost_nothing() -> None:
    rates = [one_cycle(step, 100, 2e-3) for step in range(101)]
    assert rates[0] == pytest.approx(2e-3 / 25)
    assert rates[30] == pytest.approx(2e-3)
    assert rates[15] == pytest.approx((2e-3 / 25 + 2e-3) / 2)
    assert rates[100] == pytest.approx(2e-3 / 25e4)
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)


@pytest.mark.parametrize("warmup", [10, 0.1])
def test_the_cosine_rises_in_a_line_and_falls_to_a_twentieth(warmup: float) -> None:
    rates = [warmup_cosine(step, 100, 2.0, warmup) for step in range(101)]
    assert rates[:10] == pytest.approx([2.0 * (step + 1) / 10 for step in range(10)])
    assert rates[10] == 2.0
    assert rates[55] == pytest.approx((2.0 + 0.1) / 2)
    assert rates[100] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_short_run_with_many_warm_up_steps_still_ends() -> None:
    assert [warmup_cosine(step, 3, 1.0, 100) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1.0])
