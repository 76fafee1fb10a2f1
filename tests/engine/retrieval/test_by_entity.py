"""Rows that come part by part go where sorting all of them would put them."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.retrieval.by_entity import ByEntity
from engine.retrieval.mention_states import MentionStates

N = 5
parts_of_entities = st.lists(st.lists(st.integers(0, N - 1), max_size=9), min_size=1, max_size=4)


@given(parts_of_entities, st.integers(1, 6))
def test_places_are_those_of_a_stable_sort_and_ranges_hold_all(parts: list[list[int]], rows: int) -> None:
    arrays = [np.array(part, np.int64) for part in parts]
    together = np.concatenate(arrays)
    by_entity = ByEntity(np.bincount(together, minlength=N))
    places = np.concatenate([by_entity.places(part) for part in arrays])
    np.testing.assert_array_equal(np.argsort(together, kind="stable"), np.argsort(places))
    ranges = list(by_entity.ranges(rows))
    assert [entity for first, end in ranges for entity in range(first, end)] == list(range(N))
    for first, end in ranges:
        of_range = int(by_entity.starts_N1[end] - by_entity.starts_N1[first])
        assert end == first + 1 or max(of_range, end - first) <= rows


def test_mention_states_of_parts_are_those_of_all_together(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    parts = [(random.integers(0, N, n), random.normal(size=(n, 3)).astype(np.float16)) for n in (7, 0, 5)]
    entities, states = (np.concatenate(column) for column in zip(*parts, strict=True))
    counts = np.bincount(entities, minlength=N)
    made = MentionStates.write_parts(tmp_path, counts, 3, parts)
    for found in (made, MentionStates.read(tmp_path)):
        np.testing.assert_array_equal(found.counts_N, counts)
        for entity in range(N):
            np.testing.assert_array_equal(found.of(entity), states[entities == entity].astype(np.float32))
