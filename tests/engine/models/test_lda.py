"""The closed-form start of the state at the mask: a discriminant analysis, and two halves side by side."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from engine.models.lda import LdaProjection, discriminant


def drawn(entities: int, each: int, dim: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows about their entity's centre, with noise that is loud in a third of the directions."""
    rng = np.random.default_rng(seed)
    loud = dim // 3
    noise = rng.normal(size=(entities, each, dim)) * ([9.0] * loud + [0.5] * (dim - loud))
    rows = rng.normal(size=(entities, 1, dim)) + noise
    return torch.from_numpy(rows.reshape(-1, dim)), torch.arange(entities).repeat_interleave(each)


def test_by_hand_a_direction_that_differs_within_entities_counts_less() -> None:
    """Two entities at x = -2 and 2; within each, x varies by 2 and y by 0 ... but y tells them apart by 1.

    Within: x 4, y 0, so W = diag(4, 0), tr(W) / 2 = 2, and at s = 0.5 W' = diag(3, 1). Means about their
    mean: (-2, -1) and (2, 1); whitened (2 / sqrt 3, 1); the one direction kept is (2, sqrt 3) / sqrt 7.
    """
    rows = torch.tensor([[-4.0, -1], [0, -1], [0, 1], [4, 1]])
    found, centre = discriminant(rows, torch.tensor([7, 7, 9, 9]), dims=2, shrinkage=0.5)
    torch.testing.assert_close(centre, torch.zeros(2, dtype=torch.float64))
    direction = torch.tensor([2 / 3**0.5, 3**0.5], dtype=torch.float64) / 7**0.5
    torch.testing.assert_close(found[0] * found[0, 0].sign(), direction)
    assert not found[1].any()


def test_it_is_the_librarys_discriminant_analysis_where_nothing_is_shrunk() -> None:
    rows, entities = drawn(entities=12, each=30, dim=5)
    found, centre = discriminant(rows, entities, dims=3, shrinkage=0.0)
    ours = (rows - centre) @ found.T
    library = LinearDiscriminantAnalysis(solver="svd", n_components=3).fit_transform(rows, entities)
    # Both are unique up to the sign of each direction and one common scale.
    for own, theirs in zip(ours.T.numpy(), library.T, strict=True):
        assert abs(np.corrcoef(own, theirs)[0, 1]) == pytest.approx(1, abs=1e-6)


def test_shrunk_to_the_full_it_is_principal_components_of_the_means() -> None:
    rows, entities = drawn(entities=9, each=4, dim=6)
    found, centre = discriminant(rows, entities, dims=2, shrinkage=1.0)
    means = rows.reshape(9, 4, 6).mean(dim=1)
    torch.testing.assert_close(centre, means.mean(dim=0))
    _, _, right = torch.linalg.svd(means - means.mean(dim=0), full_matrices=False)
    for own, theirs in zip(found, right[:2], strict=True):
        assert float((own @ theirs).abs() / own.norm()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("rows", [torch.eye(3), torch.ones(3, 3), torch.ones(1, 3)])
def test_one_row_an_entity_is_enough_for_a_finite_map(rows: torch.Tensor) -> None:
    found, centre = discriminant(rows, torch.arange(len(rows)), dims=5, shrinkage=0.3)
    assert found.shape == (5, 3)
    assert found.isfinite().all()
    assert centre.isfinite().all()


def test_each_modality_has_its_half_and_an_absent_one_leaves_zeros() -> None:
    summary = LdaProjection(dim=7, vision_dim=5)
    torch.manual_seed(0)
    text, image = torch.randn(3, 7), torch.randn(3, 5)
    found = summary(text, torch.tensor([True, False, True]), image, torch.tensor([True, True, False]))
    read, seen = found[:, :4], found[:, 4:]
    assert not read[1].any()
    assert not seen[2].any()
    for half in (read[0], read[2], seen[0], seen[1]):
        assert half.mean().item() == pytest.approx(0, abs=1e-5)
        assert half.std(correction=0).item() == pytest.approx(1, abs=1e-3)


def test_fitted_halves_tell_entities_apart_better_than_the_states_do() -> None:
    """Nearest other row of the same entity: noise drowns the plain rows, not the fitted half."""
    rows, entities = drawn(entities=20, each=10, dim=16)
    summary = LdaProjection(dim=16, vision_dim=3)
    summary.fit_text(rows.float(), entities)
    there = torch.ones(len(rows), dtype=torch.bool)
    half = summary(rows.float(), there, torch.zeros(len(rows), 3), ~there)[:, :8]

    def same(states: torch.Tensor) -> float:
        distance = torch.cdist(states, states).fill_diagonal_(torch.inf)
        return float((entities[distance.argmin(dim=1)] == entities).float().mean())

    assert same(half.detach()) > same(rows) + 0.2
