import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.images.selection.scoring import Floats, score_candidates

numbers = st.floats(-4, 4, width=16)
vectors = st.lists(numbers, min_size=3, max_size=3).map(lambda v: np.array(v, np.float32))
tables = st.lists(vectors, min_size=1, max_size=4).map(np.stack)
candidates = st.lists(st.tuples(vectors, tables), min_size=1, max_size=6)
weights = st.sampled_from([0.0, 0.25, 0.5, 1.0])


def rows(*values: list[float]) -> Floats:
    return np.array(values, np.float32)


def test_the_score_is_that_of_equation_1_by_hand() -> None:
    text, typical = rows([1, 0])[0], rows([0, 2])[0]
    images = rows([3, 4], [0, 1])
    objects = [rows([1, 0], [4, 3]), rows([-1, 0], [0, -5])]
    scores = score_candidates(text, images, objects, typical, alpha=0.75)
    assert scores.agreement == pytest.approx([0.6, 0])
    assert scores.similarity == pytest.approx([0.6, 0])
    assert scores.score == pytest.approx([0.75 * 0.6 + 0.25 * 0.6, 0])
    assert score_candidates(text, images, objects, typical, 0.0).score == pytest.approx([0.6, 0])
    assert list(scores.best_first()) == [0, 1]


def test_without_a_typical_image_the_score_is_the_agreement() -> None:
    scores = score_candidates(rows([1, 0])[0], rows([3, 4], [1, 0]), [rows([1, 0])] * 2, None)
    assert scores.similarity is None
    assert scores.score == pytest.approx([0.6, 1])
    assert list(scores.best_first()) == [1, 0]


def test_a_vector_without_length_agrees_with_nothing() -> None:
    scores = score_candidates(rows([1, 0])[0], rows([0, 0]), [rows([0, 0])], rows([1, 1])[0])
    assert list(scores.score) == [0]


def test_at_a_tie_the_earlier_candidate_comes_first() -> None:
    scores = score_candidates(rows([1, 0])[0], rows([1, 0], [2, 0], [0, 1], [3, 0]), None, None)
    assert list(scores.best_first()) == [0, 1, 3, 2]


def test_alpha_lies_within_0_and_1() -> None:
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="alpha"):
            score_candidates(rows([1, 0])[0], rows([1, 0]), None, None, alpha)


def scored(text: Floats, given: list[tuple[Floats, Floats]], typical: Floats, alpha: float) -> Floats:
    images = np.stack([image for image, _ in given])
    return score_candidates(text, images, [objects for _, objects in given], typical, alpha).score


@given(vectors, candidates, vectors, vectors, tables, weights)
def test_one_more_candidate_never_makes_the_choice_worse(
    text: Floats,
    given: list[tuple[Floats, Floats]],
    typical: Floats,
    image: Floats,
    objects: Floats,
    alpha: float,
) -> None:
    before = scored(text, given, typical, alpha)
    after = scored(text, [*given, (image, objects)], typical, alpha)
    assert after.max() >= before.max()
    assert list(after[:-1]) == list(before)


@given(vectors, candidates, vectors, vectors)
def test_alpha_1_ignores_typical_images(
    text: Floats, given: list[tuple[Floats, Floats]], typical: Floats, other: Floats
) -> None:
    assert list(scored(text, given, typical, 1)) == list(scored(text, given, other, 1))


@given(vectors, candidates, vectors, weights, st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(
    text: Floats, given: list[tuple[Floats, Floats]], typical: Floats, alpha: float, rng: object
) -> None:
    order = list(range(len(given)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    plain = scored(text, given, typical, alpha)
    mixed = scored(text, [given[i] for i in order], typical, alpha)
    assert list(mixed) == [plain[i] for i in order]
