"""Look names up in a bundle's vocabulary and an overlay together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import chain, islice
from typing import TypeVar, overload

from rapidfuzz import fuzz

from engine.overlay.state import OverlayLayer, OverlayState
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


class _Moment:
    """The names of a bundle and of one state of an overlay."""

    def __init__(self, base: Vocabulary, state: OverlayState) -> None:
        self.state, self.ids = state, list(state.added)
        added = state.added
        self.own = Vocabulary([one.name for one in added.values()], [one.aliases for one in added.values()])
        self.names = _Column(base.names, {i: one.name for i, one in added.items()}, "")
        self.aliases = _Column(base.aliases, {i: list(one.aliases) for i, one in added.items()}, [])
        self.deleted = frozenset(state.deleted)
        self.removed = base.removed | self.deleted


class OverlaidVocabulary(Vocabulary):
    """The entities of a bundle and of an overlay; the deleted ones of the bundle are found by no name.

    A name that both have is the overlay's: that of the bundle is deleted then. Of what a search finds in both
    by the same kind of match, the overlay's comes first. Each call sees the newest state.

    Args:
        base: the bundle's.
        layer: what is laid over it.
    """

    def __init__(self, base: Vocabulary, layer: OverlayLayer) -> None:
        self.base, self._layer = base, layer
        self._known = _Moment(base, layer.state)

    def _now(self) -> _Moment:
        known = self._known
        if known.state is not self._layer.state:
            known = self._known = _Moment(self.base, self._layer.state)
        return known

    @property
    def names(self) -> Sequence[str]:  # type: ignore[override]
        """The names by id; "" for an id that the overlay has no more."""
        return self._now().names

    @property
    def aliases(self) -> Sequence[list[str]]:  # type: ignore[override]
        """The aliases by id."""
        return self._now().aliases

    @property
    def removed(self) -> frozenset[int]:  # type: ignore[override]
        """The ids of the bundle's entities that are gone."""
        return self._now().removed

    def __len__(self) -> int:
        return len(self.names)

    def ids(self, passed: int = 0) -> Iterator[int]:
        """Return the ids of all entities that are there, ascending, after the first ``passed``."""
        now = self._now()
        there = len(self.base) - len(now.removed)
        if passed >= there:
            return iter(now.ids[passed - there :])
        if not now.removed:
            return chain(range(passed, len(self.base)), now.ids)
        every = chain((i for i in range(len(self.base)) if i not in now.removed), now.ids)
        return islice(every, passed, None)

    def find(self, given: str | int) -> int | None:
        """Return the id of a name, an alias or an id; None if there is no such entity."""
        if isinstance(given, bool):
            return None
        now, base = self._now(), self.base.find(given)
        base = None if base in now.deleted else base
        if isinstance(given, int):
            return given if given in now.state.added else base
        own = now.own.find(given)
        if own is None or base is None:
            return base if own is None else now.ids[own]
        kinds = _kind(given, base, self.base), _kind(given, own, now.own)
        if kinds[0] == kinds[1]:
            return base if kinds[0] < _FOLDED else None  # exact ones: the first, as in one vocabulary
        return base if kinds[0] < kinds[1] else now.ids[own]

    def near(self, text: str, n: int) -> list[tuple[str, int]]:
        """Return up to ``n`` spellings most like ``text``, each with its entity's id."""
        now = self._now()
        base = [one for one in self.base.near(text, n + len(now.deleted)) if one[1] not in now.deleted]
        own = [(spelling, now.ids[place]) for spelling, place in now.own.near(text, n)]
        asked = look_key(text[:MAX_NAME_LENGTH])
        return sorted(own + base, key=lambda one: -fuzz.WRatio(asked, one[0]))[:n]

    def prepare(self) -> None:
        """Make the tables of all look-ups now, not under the first one."""
        self.base.prepare()

    def ranked(self, text: str) -> Iterator[tuple[int, Found]]:
        """Yield what a text finds, best first, with the number of its kind of match."""
        now = self._now()
        base = (one for one in self.base.ranked(text) if one[1].entity not in now.deleted)
        own = ((kind, Found(now.ids[one.entity], one.spelling)) for kind, one in now.own.ranked(text))
        return merge(own, base, key=lambda one: one[0])

    def starting_with(self, prefix: str, n: int = 10) -> list[str]:
        """Return up to ``n`` names that have a spelling (case ignored) beginning with ``prefix``."""
        now = self._now()
        base = self.base.starting_with(prefix, n + len(now.deleted))
        gone = {self.base.names[i] for i in now.deleted}
        return [*now.own.starting_with(prefix, n), *(name for name in base if name not in gone)][:n]


_FOLDED = 2


def _kind(given: str, entity: int, vocabulary: Vocabulary) -> int:
    """Return how a text is an entity's: its name, an alias, or one of these but for case and look."""
    if vocabulary.names[entity] == given:
        return 0
    return 1 if given in vocabulary.aliases[entity] else _FOLDED
