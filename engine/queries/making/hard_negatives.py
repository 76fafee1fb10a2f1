"""Find hard negatives by BM25: entities of no class whose texts are like those of the classes' entities.

UltraWiki (§4.2, "Difficulty of UltraWiki") put into the candidate vocabulary, "employing the BM25-based
search", entities that are highly similar to the target entities. It says neither what was searched by what,
nor how many were taken, nor which BM25 it was. Here

- the documents are the texts of the entities that are of no class, and N, document frequencies and the mean
  length are those of these documents alone;
- every entity of a class is a query, target or not: the distinct words of its text, in whatever number each
  stands there;
- the best ``number`` of each query that share a word with it are taken, and all of them together, each once,
  are the hard negatives.

BM25 is Lucene's with exact lengths (Kamphuis et al., "Which BM25 do you mean?", ECIR 2020), :data:`K1`, and
:data:`B`::

    score(q, d) = sum over t in q of  idf(t) · tf(t, d) / (tf(t, d) + k1 · (1 - b + b · |d| / mean))
    idf(t) = ln(1 + (N - df(t) + 0.5) / (df(t) + 0.5))

There is no list of stop words: such a list is of one language, and what most documents hold weighs next to
nothing.

Memory: with T words in all documents, P distinct pairs of a word and a document, and D documents, 8 bytes a
word as ids, 12 bytes a pair in the index, and while it is made some 48 bytes a pair more. Of UltraWiki's size
(D = 50,000 of 200 words, 100 of them distinct: T = 10 million, P = 5 million) that is 80 + 60 + 240 MB.

Time: to make the index T words and a sort of P pairs; of a query, the sum of its words' document frequencies,
and D to select the best. A few words are in most documents and decide: 20 of them, with D = 50,000, are a
million additions a query, so that 5,000 queries are 5 · 10⁹ additions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.text.words import words_of

K1, B = 1.5, 0.75
"""How soon a word's repetitions count no more, and how far a document's length counts: bm25s' defaults."""

DIGITS = 6
"""Decimals of a score. Sums that differ by the order of their terms alone are equal with them."""


class HardNegative(NamedTuple):
    """An entity that is like one of a class.

    Args:
        entity: of no class.
        near: the entity of a class whose query found it with the best score; of equals the lowest id.
        score: BM25 of its text and that query.
    """

    entity: int
    near: int
    score: float


class Bm25:
    """BM25 over some texts.

    Args:
        texts: D documents.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        import bm25s  # brings scipy, for which a command's help has no time

        self._words: dict[str, int] = {}
        number = self._words.setdefault
        documents = [[number(word, len(self._words)) for word in words_of(text)] for text in texts]
        self._size = len(documents)
        # float64, and numpy though another backend may be there: its sums differ in the last digits.
        self._index = bm25s.BM25(k1=K1, b=B, method="lucene", dtype="float64", backend="numpy")
        if self._words:
            self._index.index((documents, self._words), create_empty_token=False, show_progress=False)

    def scores(self, text: str) -> npt.NDArray[np.float64]:
        """Return the score of every document for the distinct words of a text, [D]; 0: none in common."""
        asked = [self._words[word] for word in dict.fromkeys(words_of(text)) if word in self._words]
        if not asked:
            return np.zeros(self._size)
        found: npt.NDArray[np.float64] = np.round(self._index.get_scores_from_ids(asked), DIGITS)
        return found


def best(scores_D: npt.NDArray[np.float64], number: int) -> list[int]:
    """Return the places of the best scores above 0, best first, and of equal ones the first place first."""
    places = np.flatnonzero(scores_D > 0)
    if len(places) > number:
        least = np.partition(scores_D[places], -number)[-number]
        places = places[scores_D[places] >= least]
    order = np.argsort(-scores_D[places], kind="stable")
    found: list[int] = places[order][:number].tolist()
    return found


def hard_negatives(
    texts: Sequence[str],
    members: Iterable[int],
    pool: Iterable[int],
    number: int,
    on_member: Callable[[int], None] = lambda _: None,
) -> list[HardNegative]:
    """Return the hard negatives of classes, sorted by id.

    Args:
        texts: of every entity.
        members: entities of the classes, each a query.
        pool: entities to take some of.
        number: of a query, at least 1.
        on_member: called with 1 after each query.
    """
    candidates = sorted(set(pool))
    index = Bm25(texts[entity] for entity in candidates)
    found: dict[int, HardNegative] = {}
    for member in sorted(set(members)):
        scores_D = index.scores(texts[member])
        for place in best(scores_D, number):
            one = HardNegative(candidates[place], member, float(scores_D[place]))
            if one.entity not in found or one.score > found[one.entity].score:
                found[one.entity] = one
        on_member(1)
    return [found[entity] for entity in sorted(found)]
