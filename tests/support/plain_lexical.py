"""The lexical view made plainly: all texts in memory, by scikit-learn."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from engine.retrieval.index import Vectors, unit
from engine.text.words import words_of

PAIR_WEIGHT = 0.5
YEAR = re.compile(r"(?<!\d)(1\d|20)(\d)\d(?!\d)")


def plain_lexical_view(texts: Sequence[str], dims: int = 512, seed: int = 13) -> Vectors:
    """Return unit vectors [N, D] of texts, one an entity."""
    weighted = plain_weights(texts)
    dims = min(dims, weighted.shape[1] - 1, weighted.shape[0] - 1)
    if dims < 1:
        return np.zeros((len(texts), 1), np.float32)
    svd = TruncatedSVD(dims, n_iter=2, random_state=seed, power_iteration_normalizer="QR")
    scores = svd.fit_transform(weighted)
    return unit(scores / np.sqrt(np.maximum(svd.singular_values_, 1e-12)))


def plain_weights(texts: Sequence[str]) -> csr_matrix:
    """Return the weights [N, F] of words and pairs, rows scaled to length 1."""
    found = [_tf_idf(texts, _words_and_years, 2), _tf_idf(texts, _pairs_of_words, 3)]
    weights = [1.0, PAIR_WEIGHT]
    kept = [weight * one for weight, one in zip(weights, found, strict=True) if one is not None]
    return csr_matrix(normalize(hstack(kept)) if kept else (len(texts), 0))


def _words_and_years(text: str) -> list[str]:
    found = words_of(text)
    for hundreds, tens in YEAR.findall(text):
        found += [f"{hundreds}{tens}x", f"{hundreds}xx"]
    return found


def _pairs_of_words(text: str) -> list[str]:
    return [" ".join(pair) for pair in pairwise(words_of(text))]


def _tf_idf(texts: Sequence[str], features: Callable[[str], list[str]], least: int) -> csr_matrix | None:
    counter = TfidfVectorizer(
        analyzer=features,
        sublinear_tf=True,
        min_df=min(least, len(texts)),
        max_df=0.5 if len(texts) > 10 else 1.0,
        norm=None,
        dtype=np.float32,
    )
    try:
        return counter.fit_transform(texts)
    except ValueError:  # no feature is left
        return None
