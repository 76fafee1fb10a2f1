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

Hit = tuple[int, int, int]
"""Key, start and end of a place that is spelt like a name."""

_IN_WORD = bytes(chr(code).isalnum() or chr(code) == "_" for code in range(256))


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


class Match(NamedTuple):
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
        # Not the form with a whole table for each state: a million names have some ten million states.
        self._automaton = AhoCorasick(lexicon.keys, implementation=Implementation.ContiguousNFA)

    def find(self, text: str) -> list[Match]:
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
            places.append(Match(start, -minus_end, key, entities, verdict))
        covered = [(one.start, one.end) for one in places]
        for start, minus_end, key in others:
            if not any(a <= start and -minus_end <= b for a, b in covered):
                places.append(
                    Match(
                        start, -minus_end, key, entities_of(self._lexicon.spellings[key]), Verdict.OTHER_CASE
                    )
                )
        if squeezed:
            places = [self._given(one, *squeezed.span(one.start, one.end)) for one in places]
        return sorted(places)

    def spelt_like_names(self, folded: str) -> list[Hit]:
        """Return key, start and end of every place of a folded text that is spelt so, parts of words too."""
        found: list[Hit] = self._automaton.find_matches_as_indexes(folded, overlapping=True)
        return found

    @staticmethod
    def _given(place: Match, start: int, end: int) -> Match:
        return place._replace(start=start, end=end)

    def _candidates(
        self, plain: str
    ) -> tuple[list[tuple[int, int, int, list[Spelling]]], list[tuple[int, int, int]]]:
        """Return whole words that fit in case, leftmost and then longest first; and those that do not."""
        fits, others = [], []
        for key, start, end in _whole_words(plain, self.spelt_like_names(fold(plain))):
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
        if len(spellings) == 1:
            return spellings if case_fits(spellings[0], plain, start, end, self._rules.case) else []
        held = plain[start:end]
        if exact := [one for one in spellings if one.text == held]:
            return exact
        return [one for one in spellings if case_fits(one, plain, start, end, self._rules.case)]

    def _verdict(self, spellings: Sequence[Spelling], plain: str, start: int, end: int) -> Verdict:
        rules = self._rules
        if rules.unlisted_names and all(part_of_unlisted_name(one, plain, start, end) for one in spellings):
            return Verdict.IN_UNLISTED_NAME
        if rules.compounds and part_of_compound(plain, start, end):
            return Verdict.IN_COMPOUND
        return Verdict.LINKED if len(entities_of(spellings)) == 1 else Verdict.AMBIGUOUS


def _whole_words(plain: str, hits: list[Hit]) -> list[Hit]:
    """Return the hits beside which words may end, see :func:`is_parted`.

    Of a million names some stand inside every other word. What two neighbouring letters of Latin-1 say is
    asked of all hits at once; where there are other signs, the hits that are left are looked at one by one.
    """
    if not hits:
        return hits
    in_word = b"\0" + plain.encode("latin-1", "replace").translate(_IN_WORD) + b"\0"  # of the sign before
    found = [
        hit
        for hit in hits
        if not ((in_word[hit[1]] and in_word[hit[1] + 1]) or (in_word[hit[2]] and in_word[hit[2] + 1]))
    ]
    return found if plain.isascii() else [hit for hit in found if is_parted(plain, hit[1], hit[2])]
