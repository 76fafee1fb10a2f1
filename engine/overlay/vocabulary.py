"""Look names up in a bundle's vocabulary and an overlay together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import chain
from typing import TypeVar, overload

from rapidfuzz import fuzz

from engine.overlay.state import OverlayState
from engine.text.spelling import look_key
from engine.vocabulary import MAX_NAME_LENGTH, Found, Vocabulary

T = TypeVar("T")


class _Column(Sequence[T]):
    """A column of the bundle's entities, with that of the added ones behind it, by id."""

    def __init__(self, base: Sequence[T], added: dict[int, T], missing: T) -> None:
        self._base, self._added, self._missing = base, added, missing
        self._length = max(self._added, default=len(base) - 1) + 1

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...
    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not 0 <= place < self._length:
            raise IndexError(place)
        return self._base[place] if place < len(self._base) else self._added.get(place, self._missing)


class OverlaidVocabulary(Vocabulary):
    """The entities of a bundle and of an overlay; the deleted ones of the bundle are found by no name.

    A name that both have is the overlay's: that of the bundle is deleted then. Of what a search finds in both
    by the same kind of match, the overlay's comes first.

    Args:
        base: the bundle's.
        state: what is laid over it.
    """

    def __init__(self, base: Vocabulary, state: OverlayState) -> None:
        self._base, self._ids, self._state = base, list(state.added), state
        added = state.added.values()
        self._own = Vocabulary([one.name for one in added], [one.aliases for one in added])
        self.names = _Column(base.names, {i: one.name for i, one in state.added.items()}, "")  # type: ignore[assignment]
        self.aliases = _Column(base.aliases, {i: list(one.aliases) for i, one in state.added.items()}, [])  # type: ignore[assignment]
        self._deleted = frozenset(state.deleted)
        self.removed = base.removed | self._deleted

    def __len__(self) -> int:
        return len(self.names)

    def ids(self, passed: int = 0) -> Iterator[int]:
        """Return the ids of all entities that are there, ascending, after the first ``passed``."""
        there = len(self._base) - len(self.removed)
        if passed >= there:
            return iter(self._ids[passed - there :])
        if not self.removed:
            return chain(range(passed, len(self._base)), self._ids)
        every = chain((i for i in range(len(self._base)) if i not in self.removed), self._ids)
        for _ in range(passed):
            next(every, None)
        return every

    def find(self, given: str | int) -> int | None:
        """Return the id of a name, an alias or an id; None if there is no such entity."""
        if isinstance(given, bool):
            return None
        if isinstance(given, int):
            return given if given in self._state.added or self._in_base(self._base.find(given)) else None
        base, own = self._base.find(given), self._own.find(given)
        base = base if self._in_base(base) else None
        if own is None or base is None:
            return base if own is None else self._ids[own]
        return self._better(given, base, own)

    def _better(self, given: str, base: int, own: int) -> int | None:
        """Return which of two entities a name or an alias means; None where it means both alike."""
        kinds = [self._kind(given, base, self._base), self._kind(given, own, self._own)]
        if kinds[0] == kinds[1]:
            return base if kinds[0] < 2 else None  # exact ones: the first that has it, as in one vocabulary
        return base if kinds[0] < kinds[1] else self._ids[own]

    @staticmethod
    def _kind(given: str, entity: int, vocabulary: Vocabulary) -> int:
        if vocabulary.names[entity] == given:
            return 0
        return 1 if given in vocabulary.aliases[entity] else 2

    def _in_base(self, entity: int | None) -> bool:
        return entity is not None and entity not in self._deleted

    def near(self, text: str, n: int) -> list[tuple[str, int]]:
        """Return up to ``n`` spellings most like ``text``, each with its entity's id."""
        base = [one for one in self._base.near(text, n + len(self._deleted)) if one[1] not in self._deleted]
        own = [(spelling, self._ids[place]) for spelling, place in self._own.near(text, n)]
        asked = look_key(text[:MAX_NAME_LENGTH])
        return sorted(own + base, key=lambda one: -fuzz.WRatio(asked, one[0]))[:n]

    def prepare(self) -> None:
        """Make the tables of all look-ups now, not under the first one."""
        self._own.prepare()

    def search(self, text: str) -> Iterator[Found]:
        """Yield the entities that a text finds, best first, each once."""
        for _, found in self.ranked(text):
            yield found

    def ranked(self, text: str) -> Iterator[tuple[int, Found]]:
        """Yield what is found with the kind of match."""
        base = (one for one in self._base.ranked(text) if one[1].entity not in self._deleted)
        own = ((kind, Found(self._ids[one.entity], one.spelling)) for kind, one in self._own.ranked(text))
        return merge(own, base, key=lambda one: one[0])

    def starting_with(self, prefix: str, n: int = 10) -> list[str]:
        """Return up to ``n`` names that have a spelling (case ignored) beginning with ``prefix``."""
        base = self._base.starting_with(prefix, n + len(self._deleted))
        gone = {self._base.names[i] for i in self._deleted}
        return [*self._own.starting_with(prefix, n), *(name for name in base if name not in gone)][:n]
