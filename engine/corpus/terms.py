"""Count the terms of a part of a corpus, for the lexical view.

An entity's text is its description, several times, and then its sentences in the order of the corpus, each
once; pairs of words go from one text to the next, also where a part ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.corpus.drawing import draw_of
from engine.retrieval.lexical import (
    ENDS,
    Ends,
    TermCounts,
    add_up,
    decades_and_centuries,
    terms_of_pairs,
    terms_of_words,
)
from engine.text.hashes import Hashes, of_range
from engine.text.spelling import is_blank
from engine.text.words import words_of

DESCRIPTION_WEIGHT = 8
"""Times that a description counts: it is about the entity alone, a sentence may be about another one."""


RANGE = 1 << 20
"""Sentences of a range of hashes, about."""


class PartTerms(NamedTuple):
    """The terms of a part.

    Attributes:
        counts: see :data:`engine.retrieval.lexical.TERM_COUNTS`.
        ends: of every entity with a text (:data:`engine.retrieval.lexical.ENDS`).
        sentences: a hash of every sentence and its entity, ascending, uint64 [n].
    """

    counts: TermCounts
    ends: Ends
    sentences: Hashes


def description_terms(first: int, descriptions: Sequence[str]) -> PartTerms:
    """Return the terms of the descriptions of entities whose ids follow each other.

    Args:
        first: id of the first.
        descriptions: "" where there is none.
    """
    ids = range(first, first + len(descriptions))
    return PartTerms(*_count(ids, descriptions, DESCRIPTION_WEIGHT), np.empty(0, np.uint64))


def mention_terms(mentions: pa.Table, left_out: Hashes) -> PartTerms:
    """Return the terms of the sentences of a part of mentions.

    Args:
        mentions: with ``entity_id`` and ``sentence``. A sentence with several images is one sentence.
        left_out: hashes of sentences that an earlier part has.
    """
    entities, sentences = mentions["entity_id"].to_pylist(), mentions["sentence"].to_pylist()
    seen = set(left_out.tolist())
    once: dict[int, tuple[int, str]] = {}
    for entity, sentence in zip(entities, sentences, strict=True):
        key = draw_of(str(entity), sentence)
        if key not in seen and not is_blank(sentence):
            once.setdefault(key, (entity, sentence))
    counts, ends = _count([e for e, _ in once.values()], [s for _, s in once.values()])
    return PartTerms(counts, ends, np.sort(np.fromiter(once, np.uint64, len(once))))


def repeated(parts: Sequence[Hashes]) -> dict[int, Hashes]:
    """Return for each part that has any the sentences that an earlier part has, too, ascending.

    Ranges of hashes are looked at one after the other, so that memory does not grow with the parts.

    Args:
        parts: the sentences of every part, each ascending, see :class:`PartTerms`; they may be mapped.
    """
    bits = (sum(map(len, parts)) // RANGE).bit_length()
    found: dict[int, list[Hashes]] = {}
    for place in range(1 << bits):
        own = [np.asarray(part[of_range(part, place, bits)]) for part in parts]
        for number, sentences in _repeated(own).items():
            found.setdefault(number, []).append(sentences)
    return {number: np.concatenate(found[number]) for number in sorted(found)}


def _repeated(parts: Sequence[Hashes]) -> dict[int, Hashes]:
    """Return what :func:`repeated` does, of parts that memory holds several times."""
    together = np.sort(np.concatenate([np.empty(0, np.uint64), *parts]))
    several = np.unique(together[1:][together[1:] == together[:-1]])
    del together
    if not len(several):
        return {}
    met, found = np.zeros(len(several), bool), {}
    for number, sentences in enumerate(parts):
        own = np.isin(several, sentences, assume_unique=True)
        if (own & met).any():
            found[number] = several[own & met]
        met |= own
    return found


def _count(entities: Sequence[int], texts: Sequence[str], times: int = 1) -> tuple[TermCounts, Ends]:
    """Return the terms of texts, and their ends, of each entity.

    Args:
        entities: of the texts.
        texts: blank ones are none.
        times: that each one counts.
    """
    numbers: dict[str, int] = {}
    words: list[int] = []
    more: list[int] = []
    lengths, more_lengths, owners = [], [], []
    for entity, text in zip(entities, texts, strict=True):
        if is_blank(text):
            continue
        found = [numbers.setdefault(word, len(numbers)) for word in words_of(text)] * times
        years = [numbers.setdefault(word, len(numbers)) for word in decades_and_centuries(text)] * times
        words += found
        more += years
        owners.append(entity)
        lengths.append(len(found))
        more_lengths.append(len(years))
    terms = terms_of_words(list(numbers))
    ids = np.array(owners, np.int32)
    order = np.argsort(np.repeat(ids, lengths), kind="stable")
    of_words = np.repeat(ids, lengths)[order]
    ordered = terms[np.array(words, np.int64)][order]
    beside = of_words[1:] == of_words[:-1]
    pairs = terms_of_pairs(ordered[:-1][beside], ordered[1:][beside])
    whole = np.concatenate([ordered, terms[np.array(more, np.int64)], pairs])
    having = np.concatenate([of_words, np.repeat(ids, more_lengths), of_words[1:][beside]])
    return add_up(whole, having, np.ones(len(whole), np.int64)), _ends(ids, of_words, ordered)


def _ends(ids: npt.NDArray[np.int32], of_words: npt.NDArray[np.int32], terms: Hashes) -> Ends:
    """Return the ends of entities with texts, from their words' terms in order."""
    unique = np.unique(ids)
    begin, end = np.searchsorted(of_words, unique), np.searchsorted(of_words, unique, side="right")
    found = np.zeros(len(unique), ENDS)
    found["entity"], found["words"] = unique, end - begin
    some = found["words"] > 0
    found["first"][some], found["last"][some] = terms[begin[some]], terms[end[some] - 1]
    return found
