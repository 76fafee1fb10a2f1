from __future__ import annotations

import numpy as np
import pytest

from engine.retrieval import views
from engine.retrieval.index import unit
from engine.retrieval.views import centred, hubness, joint_view, lexical_view, scale_to_unit_similarity_std

DOCUMENTS = [
    "iron steel forge smith hammer",
    "copper wire forge smith kettle",
    "violin bow string orchestra",
    "cello bow string orchestra",
    "",
]


def test_documents_that_share_words_are_near() -> None:
    vectors = lexical_view(DOCUMENTS * 3, dims=2)[:5]
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > cosines[0, 2] + 0.5
    assert cosines[2, 3] > cosines[2, 1] + 0.5
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 1, 0], atol=1e-5)


@pytest.mark.parametrize(
    "texts",
    [
        ["港口城市开市场", "市场城市", "山上的古庙", "古庙在山上"],
        ["เมืองท่าริมทะเล", "ท่าเรือริมทะเล", "วัดบนภูเขา", "ภูเขามีวัด"],
        ["समुद्र किनारे", "किनारे समुद्र", "पहाड़ मंदिर", "मंदिर पहाड़"],
    ],
)
def test_documents_of_every_script_have_words(texts: list[str]) -> None:
    vectors = lexical_view(texts * 3, dims=2)[:4]
    cosines = vectors @ vectors.T
    assert vectors.any(axis=1).all()
    assert cosines[0, 1] > cosines[0, 2] + 0.5
    assert cosines[2, 3] > cosines[2, 1] + 0.5


def test_the_lexical_view_is_the_same_every_time() -> None:
    np.testing.assert_array_equal(lexical_view(DOCUMENTS * 3), lexical_view(DOCUMENTS * 3))


def test_no_words_at_all_give_no_vectors() -> None:
    assert not lexical_view(["", "", ""]).any()
    assert lexical_view(["one"]).shape[0] == 1


def test_lexical_scores_are_those_of_a_plain_decomposition() -> None:
    """U * sqrt(S) of the TF-IDF matrix, rows scaled to 1, up to the sign of each direction."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = DOCUMENTS[:4] * 3
    counts = TfidfVectorizer(sublinear_tf=True, min_df=2, max_df=0.5).fit_transform(texts).toarray()
    u, s, _ = np.linalg.svd(counts)
    plain = unit(u[:, :2] * np.sqrt(s[:2]))
    found = lexical_view(texts, dims=2)
    np.testing.assert_allclose(np.abs(found @ found.T), np.abs(plain @ plain.T), atol=1e-3)


def test_centring_takes_the_common_part_off_and_leaves_the_absent_absent() -> None:
    vectors = unit(np.array([[3.0, 1.0], [3.0, -1.0], [0.0, 0.0]]))
    found = centred(vectors)
    np.testing.assert_allclose(found, [[0, 1], [0, -1], [0, 0]], atol=1e-6)


def test_a_joint_product_is_the_mean_of_the_cosines() -> None:
    rng = np.random.default_rng(0)
    parts = [unit(rng.normal(size=(6, d))) for d in (3, 5, 8)]
    joint = joint_view(parts)
    expected = sum(p @ p.T for p in parts) / 3
    np.testing.assert_allclose(joint @ joint.T, expected, atol=1e-6)


def test_views_of_unit_similarity_std_have_equal_weight() -> None:
    """By hand: the narrow view's differences weigh as much as the wide one's, ten times as large."""
    rng = np.random.default_rng(1)
    wide = unit(rng.normal(size=(40, 6)))
    narrow = unit(wide[::-1] * 0.1 + [1, 0, 0, 0, 0, 0])
    apart = ~np.eye(40, dtype=bool)
    for view in (wide, narrow):
        assert (scale_to_unit_similarity_std(view) @ scale_to_unit_similarity_std(view).T)[
            apart
        ].std() == pytest.approx(1, abs=1e-5)
    joint = joint_view([scale_to_unit_similarity_std(wide), scale_to_unit_similarity_std(narrow)])
    products = (joint @ joint.T)[apart]
    shares = [np.corrcoef(products, (view @ view.T)[apart])[0, 1] for view in (wide, narrow)]
    plain = joint_view([wide, narrow])
    drowned = np.corrcoef((plain @ plain.T)[apart], (narrow @ narrow.T)[apart])[0, 1]
    assert shares[0] == pytest.approx(shares[1], abs=0.1)
    assert drowned < shares[1] - 0.2


@pytest.mark.parametrize("vectors", [np.zeros((3, 2)), np.ones((1, 2)), np.ones((4, 2)) / np.sqrt(2)])
def test_vectors_without_a_spread_stay_as_they_are(vectors: np.ndarray) -> None:
    np.testing.assert_array_equal(
        scale_to_unit_similarity_std(vectors.astype(np.float32)), vectors.astype(np.float32)
    )


def test_hubness_is_the_mean_cosine_to_the_nearest_others() -> None:
    vectors = unit(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]]))
    half = np.sqrt(0.5)
    # nearest two others of each: 0 -> (1, 2), 1 -> (0, 2), 2 -> (1, then 0 or 3 at 0), 3 -> (2, 1)
    np.testing.assert_allclose(hubness(vectors, 2), [half / 2, half, half / 2, -half / 2], atol=1e-6)
    assert hubness(vectors[:1]).tolist() == [0.0]


def test_hubness_of_many_entities_is_estimated_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(3000, 16)))
    exact = hubness(vectors, 60)
    monkeypatch.setattr(views, "MAX_REFERENCE", 1000)
    assert np.abs(hubness(vectors, 60) - exact).mean() < 0.02
