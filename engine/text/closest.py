"""Find the known texts that are spelt most like a given one, in bounded time however many there are.

Comparing one text with 50,000 takes a tenth of a second and more, in which no other thread runs. So among
many texts only those are compared that share most groups of three characters with the given one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from rapidfuzz import fuzz, process

COMPARED = 128
"""Characters of a text that is looked for: more says no more about a name, and comparing costs by length."""

ALL = 2000
"""Texts up to which all are compared."""

CANDIDATES = 200
"""Texts compared of more: so many by the share of groups in both, so many by that in the shorter one."""

POSTINGS = 200_000
"""Occurrences of groups that are counted for one text, the rarest groups first."""

CUTOFF = 50
"""Similarity, of 100, below which nothing is suggested."""

_BITS = 21
"""Of a character's number; three fit into 64."""

Numbers = npt.NDArray[np.int64]


class ClosestTexts:
    """Texts to compare others with, without regard to case.

    The groups are indexed when they are first needed: 51,000 names take a quarter of a second and 12 MB.

    Args:
        texts: in the order in which equally similar ones are returned.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = [text.casefold() for text in texts]

    def closest(self, text: str, n: int) -> list[int]:
        """Return the places of up to ``n`` texts that are most like ``text``, the most similar first."""
        asked = text.strip()[:COMPARED].strip().casefold()
        if len(self._texts) <= ALL:
            found = process.extract(asked, self._texts, scorer=fuzz.WRatio, limit=n, score_cutoff=CUTOFF)
            return [place for _, _, place in found]
        places = self._candidates(asked).tolist()
        some = [self._texts[place] for place in places]
        found = process.extract(asked, some, scorer=fuzz.WRatio, limit=n, score_cutoff=CUTOFF)
        return [places[place] for _, _, place in found]

    def candidates(self, text: str) -> list[int]:
        """Return the places, ascending, of the texts that may be most like ``text``; of few texts, all."""
        if len(self._texts) <= ALL:
            return list(range(len(self._texts)))
        found: list[int] = self._candidates(text.strip()[:COMPARED].strip().casefold()).tolist()
        return found

    def prepare(self) -> None:
        """Make the index now, not under the first call."""
        if len(self._texts) > ALL:
            _ = self._index

    @cached_property
    def _index(self) -> tuple[Numbers, Numbers, npt.NDArray[np.int32], Numbers]:
        """Groups, ascending; where each group's texts begin, and the end; the texts; groups of each text."""
        groups, owners = _groups_of(self._texts)
        order = np.argsort(groups, kind="stable")
        distinct, starts = np.unique(groups[order], return_index=True)
        lengths = np.bincount(owners, minlength=len(self._texts))
        return distinct, np.append(starts, len(groups)), owners[order].astype(np.int32), lengths

    def _candidates(self, asked: str) -> Numbers:
        """Return the places, ascending, of the texts that may be most like one."""
        distinct, starts, owners, lengths = self._index
        groups = np.unique(_groups_of([asked])[0])
        places = np.searchsorted(distinct, groups)
        places = places[places < len(distinct)]
        places = places[np.isin(distinct[places], groups)]
        sizes = starts[places + 1] - starts[places]
        rarest = np.argsort(sizes, kind="stable")
        kept = places[rarest[np.cumsum(sizes[rarest]) <= POSTINGS]]
        hits = [owners[starts[place] : starts[place + 1]] for place in kept]
        shared = np.bincount(np.concatenate([np.zeros(0, np.int32), *hits]), minlength=len(lengths))
        some = np.flatnonzero(shared)
        in_both = 2 * shared[some] / (len(groups) + lengths[some])
        in_shorter = shared[some] / np.minimum(len(groups), lengths[some])
        return some[np.union1d(_largest(in_both), _largest(in_shorter + 0.01 * in_both))]


def _largest(values: npt.NDArray[np.float64]) -> Numbers:
    """Return the places of the :data:`CANDIDATES` largest values; of equal ones the first."""
    if len(values) <= CANDIDATES:
        return np.arange(len(values))
    return np.argsort(-values, kind="stable")[:CANDIDATES]


def _groups_of(texts: Sequence[str]) -> tuple[Numbers, Numbers]:
    """Return every group of three neighbouring characters as a number, and the place of its text.

    A text begins with two spaces more and ends with one, so that its first letters count more.
    """
    padded = [f"  {' '.join(text.split())} " for text in texts]
    # Half a surrogate pair is no character; it may be asked for all the same.
    letters = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    owners = np.repeat(np.arange(len(padded)), [len(text) for text in padded])
    groups = (letters[:-2] << 2 * _BITS) | (letters[1:-1] << _BITS) | letters[2:]
    whole = owners[:-2] == owners[2:]
    return groups[whole], owners[:-2][whole]
