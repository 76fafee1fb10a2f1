"""The share of neighbours that stay, against sets counted by hand and by a plain loop."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.retrieval.neighbor_overlap import neighbor_overlap


def plain(before: np.ndarray, after: np.ndarray, k: int) -> float:
    n, shares = len(before), []
    for one in range(n):
        near = []
        for view in (before, after[:n]):
            others = sorted((-float(view[one] @ view[other]), other) for other in range(n) if other != one)
            near.append({other for _, other in others[:k]})
        shares.append(len(near[0] & near[1]) / k)
    return float(np.mean(shares))


@given(st.integers(2, 12), st.integers(0, 3), st.integers(1, 4), st.integers(0, 99))
def test_it_is_that_of_a_plain_loop(n: int, new: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = rng.integers(-3, 4, (n, 3)).astype(np.float32)
    after = rng.integers(-3, 4, (n + new, 5)).astype(np.float32)
    assert np.isclose(neighbor_overlap(before, after, k), plain(before, after, min(k, n - 1)))


def test_the_same_view_keeps_all_and_new_entities_displace_none() -> None:
    view = np.eye(5, dtype=np.float32)[:, :4] + 0.1
    assert neighbor_overlap(view, view) == 1
    assert neighbor_overlap(view, np.vstack([view, view, view])) == 1
    assert neighbor_overlap(view[:1], view[:1]) == 1, "an entity alone has none to lose"


def test_half_of_two() -> None:
    before = np.array([[1, 0], [0.9, 0.1], [0.8, 0.2], [0, 1]], np.float32)
    after = before[[0, 1, 3, 2]]
    # Of the first its nearest two were 1 and 2, and are 1 and 3; likewise the second and the others.
    assert neighbor_overlap(before, after, 2) == plain(before, after, 2) < 1
