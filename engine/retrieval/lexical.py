"""Build the lexical view: latent semantic analysis of each entity's texts.

Shape letters: N entities, D dimensions, F features.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from engine.retrieval.index import Vectors, unit
from engine.text.words import words_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

DIMS = 512
PAIR_WEIGHT = 0.5
"""Weight of a pair of words, where a word has 1: there are many more pairs, and most say what a word says."""
MIN_DOCUMENTS, MIN_DOCUMENTS_OF_PAIR = 2, 3
_YEAR = re.compile(r"(?<!\d)(1\d|20)(\d)\d(?!\d)")


def lexical_view(documents: Iterable[str], dims: int = DIMS, seed: int = 13) -> Vectors:
    """Return unit vectors [N, D] of documents, one an entity, by latent semantic analysis.

    TF-IDF of words and, at :data:`PAIR_WEIGHT`, of pairs of neighbouring words (logarithmic counts; features
    of at least two documents, or three for pairs, and at most half of them, no list of stop words, and
    :func:`engine.text.words.words_of`, so that any language will do), its largest singular directions
    weighted by the root of their singular values, so that the few strongest topics do not drown the rest. A
    document without a usable word gets a vector of zeros.
    """
    # Imported here: it takes seconds, in every process that reads the other views.
    from sklearn.decomposition import TruncatedSVD

    texts = list(documents)
    weighted = _weighted(texts)
    if weighted is None:
        return np.zeros((len(texts), 1), np.float32)
    dims = min(dims, weighted.shape[1] - 1, weighted.shape[0] - 1)
    if dims < 1:
        return np.zeros((len(texts), 1), np.float32)
    svd = TruncatedSVD(dims, n_iter=2, random_state=seed, power_iteration_normalizer="QR")
    scores = svd.fit_transform(weighted)
    scores /= np.sqrt(np.maximum(svd.singular_values_, 1e-12))
    return unit(scores)


def words_and_years(text: str) -> list[str]:
    """Return the words of a text, and the decade and the century of each year from 1000 to 2099.

    Two people born in 1832 and 1835 share no year; they share ``183x`` and ``18xx``.
    """
    found = words_of(text)
    for hundreds, tens in _YEAR.findall(text):
        found += [f"{hundreds}{tens}x", f"{hundreds}xx"]
    return found


def pairs_of_words(text: str) -> list[str]:
    """Return the pairs of neighbouring words of a text."""
    return [" ".join(pair) for pair in pairwise(words_of(text))]


def _weighted(texts: Sequence[str]) -> csr_matrix | None:
    """Return the weights [N, F] of words and pairs, rows scaled to 1; None if no word is left."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.preprocessing import normalize

    words = _tf_idf(texts, words_and_years, MIN_DOCUMENTS)
    if words is None:
        return None
    pairs = _tf_idf(texts, pairs_of_words, MIN_DOCUMENTS_OF_PAIR)
    both = words if pairs is None else hstack([words, PAIR_WEIGHT * pairs])
    return csr_matrix(normalize(both, copy=False))


def _tf_idf(texts: Sequence[str], features: Callable[[str], list[str]], least: int) -> csr_matrix | None:
    """Return the weights [N, F] of features that at least so many texts have; None if there are none."""
    from sklearn.feature_extraction.text import TfidfVectorizer

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
