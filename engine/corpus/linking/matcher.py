"""Find names in a text: all of a table at once, by an automaton, as whole words, the longest first.

The text is searched without case and with plain signs for look-alike ones (:mod:`engine.text.spelling`); the
places that the automaton finds are then judged one by one. A place inside a longer name of the table
("Guinea" in "Guinea-Bissau") is no mention. In scripts without spaces every whole sign may begin or end one.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from ahocorasick_rs import AhoCorasick, Implementation

from engine.corpus.linking.lexicon import Lexicon, Spelling, entities_of
from engine.corpus.linking.rules import LinkRules, case_fits, part_of_compound, part_of_unlisted_name
from engine.text.spelling import fold, squeeze
from engine.text.words import is_parted


class Verdict(IntEnum):
    """What became of a place that is spelt like a name."""

    LINKED = 0
    AMBIGUOUS = 1
    """Several entities are spelt so."""
    IN_LONGER_NAME = 2
    """It is part of a longer name of the table."""
    IN_UNLISTED_NAME = 3
    """It is part of a longer name that the table lacks, by the capitals beside it."""
    IN_COMPOUND = 4
    """A hyphen joins it to another word."""
    OTHER_CASE = 5
    """Its case is not that of the name."""


class Place(NamedTuple):
    """A place of a text that is spelt like a name.

    Args:
        start, end: characters of the text as it was given, end exclusive.
        key: number of the spelling in :attr:`Lexicon.keys`.
        entities: that are spelt so, ascending.
        verdict: whether it is a mention.
    """

    start: int
    end: int
    key: int
    entities: tuple[int, ...]
    verdict: Verdict


class Matcher:
    """A matcher of all spellings of a table.

    Args:
        lexicon: the table.
        rules: by which a place is a mention.
    """

    def __init__(self, lexicon: Lexicon, rules: LinkRules) -> None:
        self._lexicon, self._rules = lexicon, rules
        # A contiguous automaton takes a tenth of the memory of one with a table a state, and a million names
        # share little but their beginnings.
        self._automaton = AhoCorasick(lexicon.keys, implementation=Implementation.ContiguousNFA)

    def find(self, text: str) -> list[Place]:
        """Return the places of a text that are spelt like names, in the order in which they begin.

        Linked and ambiguous ones do not overlap. Places whose case does not fit are left out where one
        that fits covers them.
        """
        squeezed = squeeze(text)
        plain = squeezed.text if squeezed else text
        fits, others = self._candidates(plain)
        if not fits and not others:
            return []
        taken = 0
        places = []
        for start, minus_end, key, spellings in fits:
            verdict = Verdict.IN_LONGER_NAME
            if start >= taken:
                taken = -minus_end
                verdict = self._verdict(spellings, plain, start, taken)
            entities = entities_of(spellings)
            places.append(Place(start, -minus_end, key, entities, verdict))
        covered = [(one.start, one.end) for one in places]
        for start, minus_end, key in others:
            if not any(a <= start and -minus_end <= b for a, b in covered):
                places.append(
                    Place(
                        start, -minus_end, key, entities_of(self._lexicon.spellings[key]), Verdict.OTHER_CASE
                    )
                )
        if squeezed:
            places = [self._given(one, *squeezed.span(one.start, one.end)) for one in places]
        return sorted(places)

    @staticmethod
    def _given(place: Place, start: int, end: int) -> Place:
        return place._replace(start=start, end=end)

    def _candidates(
        self, plain: str
    ) -> tuple[list[tuple[int, int, int, list[Spelling]]], list[tuple[int, int, int]]]:
        """Return whole words that fit in case, leftmost and then longest first; and those that do not."""
        fits, others = [], []
        for key, start, end in self._automaton.find_matches_as_indexes(fold(plain), overlapping=True):
            if not _is_parted(plain, start, end):
                continue
            spellings = self._fitting(key, plain, start, end)
            if spellings:
                fits.append((start, -end, key, spellings))
            else:
                others.append((start, -end, key))
        fits.sort(key=lambda one: one[:3])
        return fits, others

    def _fitting(self, key: int, plain: str, start: int, end: int) -> list[Spelling]:
        """Return the spellings that fit in case; where some are written just so, these alone."""
        spellings = self._lexicon.spellings[key]
        if len(spellings) > 1:
            held = plain[start:end]
            if exact := [one for one in spellings if one.text == held]:
                return exact
        return [one for one in spellings if case_fits(one, plain, start, end, self._rules.case)]

    def _verdict(self, spellings: Sequence[Spelling], plain: str, start: int, end: int) -> Verdict:
        if self._rules.unlisted_names and all(
            part_of_unlisted_name(one, plain, start, end) for one in spellings
        ):
            return Verdict.IN_UNLISTED_NAME
        if self._rules.compounds and part_of_compound(plain, start, end):
            return Verdict.IN_COMPOUND
        return Verdict.LINKED if len(entities_of(spellings)) == 1 else Verdict.AMBIGUOUS


def _is_parted(plain: str, start: int, end: int) -> bool:
    """Return what :func:`is_parted` does; most places have a space or ASCII beside them."""
    before = plain[start - 1] if start else " "
    after = plain[end] if end < len(plain) else " "
    if before == " " and after in " .,":
        return True
    if before.isascii() and after.isascii() and plain[start].isascii() and plain[end - 1].isascii():
        return not (
            ((before.isalnum() or before == "_") and (plain[start].isalnum() or plain[start] == "_"))
            or ((after.isalnum() or after == "_") and (plain[end - 1].isalnum() or plain[end - 1] == "_"))
        )
    return is_parted(plain, start, end)
