"""Weigh the words of each entity's texts, for the lexical view: TF-IDF of words and of pairs of words.

Texts are counted part by part, wherever they are (:class:`TermCounts`); counts of a range of terms, of all
parts, are added up and weighed together (:func:`weigh`), as a term's weight needs all that have it. Terms are
known by 63-bit hashes, so that no process holds a vocabulary: of 40 million, two agree with a probability of
1e-4.

Shape letters: N entities, F terms, P pairs (term, entity).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.text.hashes import Hashes, hashes_of

PAIR_WEIGHT = 0.5
"""Weight of a pair of words, where a word has 1: there are many more pairs, and most say what a word says."""
MIN_DOCUMENTS, MIN_DOCUMENTS_OF_PAIR = 2, 3
MAX_SHARE = 0.5
"""Share of the entities that may have a term, of more than :data:`FEW_ENTITIES`; there is no list of stop
words, so that any language will do."""
FEW_ENTITIES = 10

TERM_COUNTS = np.dtype([("term", "<u8"), ("entity", "<i4"), ("count", "<i4")])
"""How often an entity has a term. Rows are sorted by term, then entity, each once."""
ENDS = np.dtype([("entity", "<i4"), ("words", "<i4"), ("first", "<u8"), ("last", "<u8")])
"""How many words an entity's texts have that stand one after the other, and the terms of the first and the
last; 0 where there is none."""

ENDS_TOGETHER = 1 << 20
"""Rows of :data:`ENDS` that are held at a time, about, 24 MiB."""

TermCounts = npt.NDArray[Any]
"""Rows of :data:`TERM_COUNTS`."""
Ends = npt.NDArray[Any]
"""Rows of :data:`ENDS`."""

_YEAR = re.compile(r"(?<!\d)(1\d|20)(\d)\d(?!\d)")
_PAIR = np.uint64(1 << 63)
"""The highest bit of a term says whether it is a pair."""
_ODD = np.uint64(0x9E3779B97F4A7C15)


def decades_and_centuries(text: str) -> list[str]:
    """Return the decade and the century of each year from 1000 to 2099 in a text.

    Two people born in 1832 and 1835 share no year; they share ``183x`` and ``18xx``.
    """
    found = []
    for hundreds, tens in _YEAR.findall(text):
        found += [f"{hundreds}{tens}x", f"{hundreds}xx"]
    return found


def terms_of_words(words: Sequence[str]) -> Hashes:
    """Return the terms of words, uint64 [n]."""
    return hashes_of(words) >> np.uint64(1)


def terms_of_pairs(first: Hashes, second: Hashes) -> Hashes:
    """Return the terms of pairs of words, which are told by their own terms, uint64 [n]."""
    return (first * _ODD + second) >> np.uint64(1) | _PAIR


def add_up(terms: Hashes, entities: npt.NDArray[Any], counts: npt.NDArray[Any]) -> TermCounts:
    """Return the sums of counts, [n] each, by term and entity."""
    order = np.lexsort((entities, terms))
    terms, entities = terms[order], entities[order]
    new = np.ones(len(order), bool)
    new[1:] = (terms[1:] != terms[:-1]) | (entities[1:] != entities[:-1])
    first = np.flatnonzero(new)
    found = np.empty(len(first), TERM_COUNTS)
    found["term"], found["entity"] = terms[first], entities[first]
    found["count"] = np.add.reduceat(counts[order], first) if len(first) else 0
    return found


def ends_by_range(parts: Sequence[Ends], n_entities: int) -> Iterator[Ends]:
    """Yield the ends of all parts, in order, of some entities at a time, which follow each other.

    Args:
        parts: rows of each part, entities ascending; they may be mapped.
        n_entities: N.
    """
    step = -(-n_entities // (1 + sum(map(len, parts)) // ENDS_TOGETHER))
    for first in range(0, n_entities, step):
        places = (np.searchsorted(part["entity"], (first, first + step)) for part in parts)
        yield np.concatenate([part[slice(*place)] for part, place in zip(parts, places, strict=True)])


def pairs_between(ends: Ends) -> TermCounts:
    """Return the pairs of the last word of an entity's texts in a part and its first one in the next part.

    Args:
        ends: of all parts, in order.
    """
    ends = ends[ends["words"] > 0]
    ends = ends[np.argsort(ends["entity"], kind="stable")]
    before, after = ends[:-1], ends[1:]
    same = before["entity"] == after["entity"]
    pairs = terms_of_pairs(before["last"][same], after["first"][same])
    return add_up(pairs, after["entity"][same], np.ones(len(pairs), np.int64))


class TermWeights(NamedTuple):
    """Weights of some terms, column by column: a sparse matrix [N, F].

    Attributes:
        starts_F1: int64, where each term's entities begin, and the last one's end.
        entities_P: int32, ascending within a term.
        weights_P: float32.
    """

    starts_F1: npt.NDArray[np.int64]
    entities_P: npt.NDArray[np.int32]
    weights_P: npt.NDArray[np.float32]


def weigh(counts: TermCounts, n_entities: int) -> TermWeights:
    """Return the weights of all terms of a range that neither too few entities have nor too many.

    Of a count c of a term that d of N entities have: (1 + log c) * (1 + log((1 + N) / (1 + d))), a pair
    :data:`PAIR_WEIGHT` of that.

    Args:
        counts: in the form of :func:`add_up`, of all entities.
        n_entities: N.
    """
    terms = counts["term"]
    first = np.flatnonzero(np.append(True, terms[1:] != terms[:-1])[: len(terms)])
    having = np.diff(np.append(first, len(terms)))
    is_pair = terms[first] >= _PAIR
    least = np.minimum(np.where(is_pair, MIN_DOCUMENTS_OF_PAIR, MIN_DOCUMENTS), n_entities)
    most = n_entities * (MAX_SHARE if n_entities > FEW_ENTITIES else 1.0)
    kept = (least <= having) & (having <= most)
    idf = (1 + np.log((1 + n_entities) / (1 + having))) * np.where(is_pair, PAIR_WEIGHT, 1)
    rows = counts[np.repeat(kept, having)]
    weights = (1 + np.log(rows["count"])) * np.repeat(idf[kept], having[kept])
    return TermWeights(
        np.append(0, np.cumsum(having[kept])).astype(np.int64),
        rows["entity"].astype(np.int32),
        weights.astype(np.float32),
    )
