from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.retrieval import views
from engine.retrieval.index import unit
from engine.retrieval.views import EntitySums, ViewPart, centred, hubness, joint_view, mean_view
from tests.support.plain_views import plain_centred, plain_joint


def test_means_in_mapped_files_are_the_plain_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    parts = [
        EntitySums(ids, rng.normal(size=(len(ids), 4)))
        for ids in (np.array([0, 3, 8]), np.array([], int), np.array([3, 5]))
    ]
    total = np.zeros((10, 4))
    for ids, sums in parts:
        total[ids] += sums
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path))
    monkeypatch.setattr("engine.storage.mapped.SMALL", 0)
    monkeypatch.setattr(views, "ROWS", 3)
    found = mean_view(parts, 10)
    assert isinstance(found.base, np.memmap)
    np.testing.assert_array_equal(found, unit(total))
    np.testing.assert_array_equal(mean_view(parts[1:2], 10), np.zeros((10, 1)))


def test_centring_takes_the_common_part_off_and_leaves_the_absent_absent() -> None:
    vectors = unit(np.array([[3.0, 1.0], [3.0, -1.0], [0.0, 0.0]]))
    found = centred(vectors)
    np.testing.assert_allclose(found, [[0, 1], [0, -1], [0, 0]], atol=1e-6)


def test_a_joint_product_is_the_mean_of_the_cosines() -> None:
    rng = np.random.default_rng(0)
    parts = [unit(rng.normal(size=(6, d))) for d in (3, 5, 8)]
    joint = np.concatenate(list(joint_view([ViewPart(part) for part in parts])))
    expected = sum(p @ p.T for p in parts) / 3
    np.testing.assert_allclose(joint @ joint.T, expected, atol=1e-6)


def test_some_rows_at_a_time_the_joint_view_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    first, second = (unit(rng.normal(size=(50, d)) + 1) for d in (4, 7))
    first[[3, 17]] = 0
    expected = plain_joint([plain_centred(first), 0.5 * second])
    for rows in (views.ROWS, 8):
        monkeypatch.setattr(views, "ROWS", rows)
        blocks = list(joint_view([ViewPart.centred(first), ViewPart(second).times(0.5)]))
        assert len(blocks) == -(-50 // rows)
        np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-6)
        np.testing.assert_allclose(centred(first), plain_centred(first), atol=1e-6)


def test_views_of_unit_similarity_std_have_equal_weight() -> None:
    """By hand: the narrow view's differences weigh as much as the wide one's, ten times as large."""
    rng = np.random.default_rng(1)
    wide = unit(rng.normal(size=(40, 6)))
    narrow = unit(wide[::-1] * 0.1 + [1, 0, 0, 0, 0, 0])
    apart = ~np.eye(40, dtype=bool)
    scaled = [ViewPart(view).with_unit_similarity_std().whole() for view in (wide, narrow)]
    for view in scaled:
        assert (view @ view.T)[apart].std() == pytest.approx(1, abs=1e-5)
    joint = plain_joint(scaled)
    products = (joint @ joint.T)[apart]
    shares = [np.corrcoef(products, (view @ view.T)[apart])[0, 1] for view in (wide, narrow)]
    plain = plain_joint([wide, narrow])
    drowned = np.corrcoef((plain @ plain.T)[apart], (narrow @ narrow.T)[apart])[0, 1]
    assert shares[0] == pytest.approx(shares[1], abs=0.1)
    assert drowned < shares[1] - 0.2


@pytest.mark.parametrize("vectors", [np.zeros((3, 2)), np.ones((1, 2)), np.ones((4, 2)) / np.sqrt(2)])
def test_vectors_without_a_spread_stay_as_they_are(vectors: np.ndarray) -> None:
    view = ViewPart(vectors.astype(np.float32))
    np.testing.assert_array_equal(view.with_unit_similarity_std().whole(), view.vectors_ND)


def test_hubness_is_the_mean_cosine_to_the_nearest_others() -> None:
    vectors = unit(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]]))
    half = np.sqrt(0.5)
    # nearest two others of each: 0 -> (1, 2), 1 -> (0, 2), 2 -> (1, then 0 or 3 at 0), 3 -> (2, 1)
    np.testing.assert_allclose(hubness(vectors, 2), [half / 2, half, half / 2, -half / 2], atol=1e-6)
    assert hubness(vectors[:1]).tolist() == [0.0]


@pytest.mark.parametrize("k", [3, 40])
def test_hubness_in_blocks_of_a_mapped_sample_is_the_plain_one(
    k: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vectors = unit(np.random.default_rng(4).normal(size=(50, 5))).astype(np.float32)
    sample = np.sort(np.random.default_rng(13).choice(50, 45, replace=False))
    cosines = vectors @ vectors[sample].T
    cosines[sample, np.arange(45)] = -np.inf
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path))
    monkeypatch.setattr("engine.storage.mapped.SMALL", 0)
    for name, value in {"MAX_REFERENCE": 45, "ROWS": 20, "HUB_ROWS": 16, "HUB_REFERENCE": 7}.items():
        monkeypatch.setattr(views, name, value)
    wanted = -np.sort(-cosines, axis=1)[:, : k * 45 // 50].mean(axis=1)
    np.testing.assert_allclose(hubness(vectors, k), wanted, atol=1e-6)


def test_hubness_of_many_entities_is_estimated_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(3000, 16)))
    exact = hubness(vectors, 60)
    monkeypatch.setattr(views, "MAX_REFERENCE", 1000)
    assert np.abs(hubness(vectors, 60) - exact).mean() < 0.02
