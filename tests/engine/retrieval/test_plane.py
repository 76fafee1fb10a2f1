"""A plane of principal components, against the plain way: a singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest

from engine.retrieval.plane import principal_plane


def plain_plane(vectors: np.ndarray) -> np.ndarray:
    """The first two principal components, each turned so that its largest coordinate is positive."""
    centred = vectors - vectors.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    plane = (left * lengths)[:, :2]
    for axis in range(plane.shape[1]):
        if plane[np.abs(plane[:, axis]).argmax(), axis] < 0:
            plane[:, axis] *= -1
    return plane


@pytest.mark.parametrize(("n", "d"), [(3, 2), (7, 40), (60, 5)])
def test_coordinates_are_those_of_a_singular_value_decomposition(n: int, d: int) -> None:
    vectors = np.random.default_rng(n).normal(size=(n, d)).astype(np.float32)
    found = principal_plane(vectors)
    np.testing.assert_allclose(np.column_stack(found[:2]), plain_plane(vectors.astype(np.float64)), atol=1e-5)
    whole = ((vectors - vectors.mean(axis=0)) ** 2).sum(axis=1)
    np.testing.assert_allclose(found.x**2 + found.y**2 + found.off**2, whole, atol=1e-3)


def test_one_without_a_vector_has_no_place_and_moves_no_other() -> None:
    vectors = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    alone = principal_plane(vectors)
    with_one = principal_plane(np.vstack([vectors[:4], np.zeros((1, 4), np.float32), vectors[4:]]))
    for own, others in zip(alone, with_one, strict=True):
        np.testing.assert_array_equal(own, np.delete(others, 4))
        assert np.isnan(others[4])


@pytest.mark.parametrize("n", [0, 1, 2])
def test_of_few_entities_a_plane_is_a_line_or_a_point(n: int) -> None:
    vectors = np.eye(5, dtype=np.float32)[:n]
    found = principal_plane(vectors)
    assert all(column.shape == (n,) and column.dtype == np.float32 for column in found)
    np.testing.assert_allclose(found.x, [0.70711, -0.70711][:n] if n == 2 else np.zeros(n), atol=1e-5)
    np.testing.assert_allclose(found.y, np.zeros(n), atol=1e-6)


def test_equal_vectors_lie_in_one_place() -> None:
    found = principal_plane(np.ones((5, 3), np.float32))
    for column in found:
        np.testing.assert_allclose(column, np.zeros(5), atol=1e-6)
