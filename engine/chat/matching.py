"""Match the names that a model lists to the vocabulary: exactly, by alias, then by a bounded fuzzy match."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rapidfuzz import fuzz

from engine.chat.listing import Listing, spellings
from engine.text.spelling import look_key
from engine.vocabulary import MAX_NAME_LENGTH, Vocabulary

How = Literal["name", "alias", "fuzzy", "unknown"]

COMPARED = 5
"""Spellings of the vocabulary that a name is compared with."""

MOST_FUZZY = 300
"""Names of one answer that are looked for by likeness: each costs milliseconds."""

JOINED = 3
"""Neighbouring pieces of a list between commas that may be one name."""

_DIGITS = re.compile(r"\d+")


class Matched(NamedTuple):
    """A listed name and what it was matched to.

    Args:
        name: as the model wrote it.
        entity: its id; None: there is none, the model made it up or means something else.
        how: it was found.
        likeness: of the spellings, 0 to 1; 1 unless fuzzy.
    """

    name: str
    entity: int | None
    how: How
    likeness: float = 1.0


@dataclass(frozen=True)
class NameMatcher:
    """Finds the entities that a model means.

    A name counts as spelt like another if their ratio (1 less the edits over both lengths, by rapidfuzz) is
    at least ``least``, no other entity is spelt as much like it, and both have the same numbers: "Apollo 11"
    is not "Apollo 12", however alike they are.

    Args:
        vocabulary: of the entities.
        least: likeness from which a name counts as another spelling; above 1: none does.
    """

    vocabulary: Vocabulary
    least: float = 0.9

    def match(self, listing: Listing) -> list[Matched]:
        """Return every listed name with what it was matched to, in order."""
        fuzzy_left = MOST_FUZZY
        found = []
        for name in self._joined(listing) if listing.loose else listing.names:
            matched = self.find(name, fuzzy=fuzzy_left > 0)
            fuzzy_left -= matched.how in ("fuzzy", "unknown")
            found.append(matched)
        return found

    def find(self, name: str, fuzzy: bool = True) -> Matched:
        """Return what one listed name was matched to."""
        for spelling in spellings(name):
            if (entity := self.vocabulary.find(spelling)) is not None:
                own = look_key(self.vocabulary.names[entity]) == look_key(spelling)
                return Matched(name, entity, "name" if own else "alias")
        if fuzzy and self.least <= 1:
            return self._alike(name)
        return Matched(name, None, "unknown")

    def _alike(self, name: str) -> Matched:
        """Return the one entity that is spelt most like a name, if it is spelt enough like it."""
        best: dict[int, float] = {}
        for spelling in spellings(name[:MAX_NAME_LENGTH]):
            key = look_key(spelling)
            for known, entity in self.vocabulary.near(spelling, COMPARED):
                likeness = fuzz.ratio(key, known) / 100
                if likeness >= self.least and _DIGITS.findall(key) == _DIGITS.findall(known):
                    best[entity] = max(likeness, best.get(entity, 0))
        ranked = sorted(best.items(), key=lambda one: -one[1])
        if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
            return Matched(name, None, "unknown")
        return Matched(name, ranked[0][0], "fuzzy", ranked[0][1])

    def _joined(self, listing: Listing) -> Iterator[str]:
        """Yield pieces between commas; several are one name where the vocabulary holds that."""
        names, place = listing.names, 0
        while place < len(names):
            for many in range(min(JOINED, len(names) - place), 1, -1):
                whole = ", ".join(names[place : place + many])
                if self.vocabulary.find(whole) is not None:
                    yield whole
                    place += many
                    break
            else:
                yield from self._halves(names[place])
                place += 1

    def _halves(self, piece: str) -> Sequence[str]:
        """Return the two names that "and" stands between, if it does and the vocabulary holds both."""
        halves = piece.split(" and ")
        known = len(halves) == 2 and all(self.vocabulary.find(half) is not None for half in halves)
        return halves if known and self.vocabulary.find(piece) is None else [piece]
