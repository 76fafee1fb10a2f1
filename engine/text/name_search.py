"""Search names by their beginning, by any word or part of one, and by a misspelling, best first.

A search goes through five kinds of match, each of which is looked for only where those before it were not
enough; within a kind, what is nearest comes first, then the shorter spelling, then the order given:

1. the spelling begins with the text;
2. each word of the text begins a word of the spelling, in whatever order;
3. each is a part of a word;
4. each is nearly a word or, from four letters on, the beginning of one: with up to one wrong letter from
   three letters on, up to two from six on (a swap of neighbours counts once);
5. the whole spelling without its spaces and signs is nearly the text ("newzealand").
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import regex
from rapidfuzz import process
from rapidfuzz.distance import OSA

from engine.text.closest import ClosestTexts

WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
BETWEEN_WORDS = r"[^\pL\pM\pN]+"
"""What is no :data:`WORD`, in the syntax of Arrow's regular expressions."""

PARTS = 2000
"""Words of which a text may be a part that are looked at: a part of more words says too little."""

NEAR = 50
"""Misspelt words looked at for one word of the text."""

BEGINNING = 4
"""Letters of a word from which on it may be nearly the beginning of another: fewer are of very many."""

MAX_WORDS = 16
"""Words of the text that are looked for."""

_AFTER_ALL = "\U0010ffff"
_FAR = 100

Places = npt.NDArray[np.int64]


class _Words(NamedTuple):
    """The words of all spellings.

    Attributes:
        distinct: words, ascending, V of them.
        starts_V1: where the spellings of each word begin in ``owners``, and the end, [V + 1].
        owners: places of spellings, word by word.
        text: the words, one a line.
        lines_V: where each begins in it.
        near: finds those spelt alike.
    """

    distinct: list[str]
    starts_V1: Places
    owners: npt.NDArray[np.int32]
    text: str
    lines_V: Places
    near: ClosestTexts


class NameSearch:
    """Spellings to search in.

    The tables are made when they are first needed: 1,000,000 names take seconds and some 200 MB.

    Args:
        spellings: case-folded, ascending.
        near: the same, to find those that are spelt alike.
    """

    def __init__(self, spellings: Sequence[str], near: ClosestTexts) -> None:
        self._spellings, self._near = spellings, near

    def places(self, text: str) -> Iterator[int]:
        """Yield the places of the spellings that a case-folded text finds, best first, each once.

        Without a text: all of them.
        """
        return (place for _, place in self.ranked(text))

    def ranked(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield what :meth:`places` does, each with the number of its kind of match, from 0."""
        if not text:
            yield from ((0, place) for place in range(len(self._spellings)))
            return
        seen: set[int] = set()
        kinds: list[Callable[[str], Places]] = [self._beginning, self._with_words, self._with_parts]
        for number, kind in enumerate((*kinds, self._with_misspelt, self._alike)):
            if seen and kind == self._alike:
                return
            new = [place for place in kind(text).tolist() if place not in seen]
            seen.update(new)
            yield from ((number, place) for place in new)

    def prepare(self) -> None:
        """Make the tables now, not under the first search."""
        self._words.near.prepare()
        _ = self._lengths

    @cached_property
    def _lengths(self) -> npt.NDArray[np.int16]:
        return np.minimum([len(s) for s in self._spellings] or [0], 32767).astype(np.int16)

    @cached_property
    def _words(self) -> _Words:
        pieces = pc.split_pattern_regex(pa.array(self._spellings, pa.large_string()), BETWEEN_WORDS)
        encoded = pc.list_flatten(pieces).dictionary_encode()
        owners = pc.list_parent_indices(pieces).to_numpy()
        order = pc.sort_indices(encoded.dictionary).to_numpy()
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        ranks = rank[encoded.indices.to_numpy()]
        distinct = encoded.dictionary.take(pa.array(order)).to_pylist()
        by_word = np.argsort(ranks, kind="stable")
        starts = np.append(0, np.cumsum(np.bincount(ranks, minlength=len(distinct))))
        lines = np.append(0, np.cumsum([len(word) + 1 for word in distinct]))[:-1]
        owners = owners[by_word].astype(np.int32)
        return _Words(distinct, starts, owners, "\n".join(distinct), lines, ClosestTexts(distinct))

    def _beginning(self, text: str) -> Places:
        """Return the spellings that begin with a text."""
        first, end = (bisect_left(self._spellings, bound) for bound in (text, text + _AFTER_ALL))
        return self._shortest_first(np.arange(first, end))

    def _with_words(self, text: str) -> Places:
        return self._with_all(text, lambda word: [(0, self._beginning_words(word))])

    def _with_parts(self, text: str) -> Places:
        return self._with_all(text, lambda word: [(0, self._words_with(word))])

    def _with_misspelt(self, text: str) -> Places:
        return self._with_all(text, lambda word: [*self._misspelt(word), (0, self._words_with(word))])

    def _with_all(self, text: str, words_of: Callable[[str], list[tuple[int, Places]]]) -> Places:
        """Return the spellings in which each word of a text is found.

        Args:
            words_of: the words that stand for one, by their number, with the wrong letters in them, the
                worst first.
        """
        asked = WORD.findall(text)[:MAX_WORDS]
        if not asked:
            return np.zeros(0, np.int64)
        errors_N = np.zeros(len(self._spellings), np.int16)
        for word in dict.fromkeys(asked):
            own_N = np.full(len(errors_N), _FAR, np.int16)
            for errors, words in words_of(word):
                own_N[self._owners(words)] = errors
            errors_N += own_N
        found = np.flatnonzero(errors_N < _FAR)
        found = self._shortest_first(found)
        return found[np.argsort(errors_N[found], kind="stable")]

    def _beginning_words(self, beginning: str) -> Places:
        words = self._words.distinct
        first, end = (bisect_left(words, bound) for bound in (beginning, beginning + _AFTER_ALL))
        return np.arange(first, end)

    def _words_with(self, part: str) -> Places:
        """Return the words that a text is a part of: all that it begins, and of others the first ones."""
        text, found, at = self._words.text, list[int](), -1
        while len(found) < PARTS and (at := text.find(part, at + 1)) >= 0:
            found.append(at)
        words = np.searchsorted(self._words.lines_V, np.array(found, np.int64), side="right") - 1
        return np.union1d(self._beginning_words(part), words)

    def _misspelt(self, word: str) -> list[tuple[int, Places]]:
        """Return the words that one is nearly, or nearly the beginning of, with the wrong letters in it."""
        allowed = allowed_errors(word)
        if not allowed:
            return []
        places = self._words.near.candidates(word)
        found: dict[int, list[int]] = {}
        lengths = (len(word) - 1, len(word), len(word) + 1) if len(word) >= BEGINNING else ()
        for length in (*lengths, None):
            texts = {place: self._words.distinct[place][:length] for place in places}
            near = process.extract(word, texts, scorer=OSA.distance, score_cutoff=allowed, limit=NEAR)
            for _, errors, place in near:
                found.setdefault(int(errors), []).append(place)
        return [(errors, np.unique(found[errors])) for errors in sorted(found, reverse=True)]

    def _alike(self, text: str) -> Places:
        """Return the spellings that are nearly a text, without spaces and signs."""
        asked = "".join(WORD.findall(text))
        texts = {
            place: "".join(WORD.findall(self._spellings[place])) for place in self._near.candidates(text)
        }
        limit, cutoff = NEAR, allowed_errors(asked)
        near = process.extract(asked, texts, scorer=OSA.distance, score_cutoff=cutoff, limit=limit)
        return np.array([place for _, _, place in near if texts[place]], np.int64)

    def _owners(self, words: Places) -> npt.NDArray[np.int32]:
        """Return the spellings that have one of some words (ascending)."""
        starts, owners = self._words.starts_V1, self._words.owners
        if len(words) and words[-1] - words[0] + 1 == len(words):
            return owners[starts[words[0]] : starts[words[-1] + 1]]
        return np.concatenate([np.zeros(0, np.int32), *(owners[starts[w] : starts[w + 1]] for w in words)])

    def _shortest_first(self, places: Places) -> Places:
        return places[np.argsort(self._lengths[places], kind="stable")]


def allowed_errors(word: str) -> int:
    """Return how many letters of a word may be wrong, missing or too many."""
    return min(len(word) // 3, 2)
