from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from engine.retrieval.index import unit
from engine.retrieval.lexical import lexical_view, pairs_of_words, words_and_years

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


def test_years_have_their_decade_and_century() -> None:
    assert words_and_years("Born in 1832, in the 1850s.") == (
        ["born", "in", "1832", "in", "the", "1850s", "183x", "18xx", "185x", "18xx"]
    )
    assert words_and_years("It weighs 18320 kg, and 999 or 2150 are no years") == (
        ["it", "weighs", "18320", "kg", "and", "999", "or", "2150", "are", "no", "years"]
    )


def test_pairs_are_of_neighbouring_words() -> None:
    assert pairs_of_words("New York, a city") == ["new york", "york city"]  # a letter alone is no word
    assert pairs_of_words("one") == []


def test_lexical_scores_are_those_of_a_plain_decomposition() -> None:
    """U * sqrt(S) of the TF-IDF matrix, rows scaled to 1, up to the sign of each direction."""
    texts = [f"{text} {1830 + i}" for i, text in enumerate(DOCUMENTS[:4])] * 3
    columns = []
    for features, least, weight in ((words_and_years, 2, 1.0), (pairs_of_words, 3, 0.5)):
        counts = [Counter(features(text)) for text in texts]
        having = Counter(feature for count in counts for feature in count)
        for feature, n in having.items():
            if least <= n <= len(texts) / 2:
                idf = math.log((1 + len(texts)) / (1 + n)) + 1
                columns.append(
                    [weight * idf * (1 + math.log(c[feature])) if c[feature] else 0.0 for c in counts]
                )
    u, s, _ = np.linalg.svd(unit(np.array(columns).T))
    plain = unit(u[:, :2] * np.sqrt(s[:2]))
    found = lexical_view(texts, dims=2)
    np.testing.assert_allclose(np.abs(found @ found.T), np.abs(plain @ plain.T), atol=1e-3)
