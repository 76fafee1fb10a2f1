"""Look entities up in a bundle and in an overlay over it, as one catalogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from engine.attributes import AttributeColumns
from engine.catalogue.entities import MAX_ATTRIBUTES, MAX_VALUES, Attribute, Catalogue, Value, listed
from engine.catalogue.sentences import MentionSentence
from engine.filters import Filters
from engine.overlay.state import AddedEntity, OverlayLayer, OverlayState
from engine.query import Ids


class OverlaidCatalogue(Catalogue):
    """A bundle's catalogue together with an overlay, whose newest state each call sees.

    Statistics of attributes count the bundle's entities, the deleted ones among them, and those added.

    Args:
        base: the bundle's.
        layer: the overlay.
    """

    def __init__(self, base: Catalogue, layer: OverlayLayer) -> None:
        self._base, self._layer = base, layer
        self._known: tuple[OverlayState, AttributeColumns] | None = None

    def __len__(self) -> int:
        return len(self._base)

    def _added(self, entity: int) -> AddedEntity | None:
        return self._layer.state.added.get(entity) if entity >= self._layer.first else None

    def _own(self) -> tuple[OverlayState, AttributeColumns]:
        """Return the newest state, and the attributes of what it adds, made once a state."""
        state, known = self._layer.state, self._known
        if known is None or known[0] is not state:
            column = pa.chunked_array(
                [[list(one.attributes.items()) for one in state.added.values()]], self._base.attribute_type
            )
            known = self._known = state, AttributeColumns(column, None)
        return known

    def description(self, entity: int) -> str:
        """Return the description of an entity; "" if it has none."""
        if entity < self._layer.first:
            return self._base.description(entity)
        added = self._added(entity)
        return added.description if added else ""

    def attributes_of(self, entity: int) -> dict[str, list[str]]:
        """Return the attributes of an entity."""
        if entity < self._layer.first:
            return self._base.attributes_of(entity)
        added = self._added(entity)
        return {name: list(values) for name, values in added.attributes.items()} if added else {}

    def attributes(self) -> list[Attribute]:
        """Return what entities can be chosen by (:meth:`Catalogue.attributes`)."""
        _, own = self._own()
        found = {one.name: one for one in self._base.attributes()}
        for one in listed(own):
            known = found.get(one.name, Attribute(one.name, [], False))
            counts = Counter({value.value: value.entities for value in known.values})
            counts.update({value.value: value.entities for value in one.values})
            ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
            more = known.more or one.more or len(ordered) > MAX_VALUES
            found[one.name] = Attribute(one.name, [Value(*pair) for pair in ordered[:MAX_VALUES]], more)
        return list(found.values())[:MAX_ATTRIBUTES]

    @property
    def all_are_there(self) -> bool:
        """Whether no entity has been removed from the bundle."""
        return self._base.all_are_there

    def matching(self, filters: Filters, suggest: Callable[[], bool] = lambda: True) -> Ids:
        """Return the entities that are there and fulfil filters (:meth:`Catalogue.matching`).

        Deleted ones of the bundle are among them: queries exclude these.
        """
        state, own = self._own()
        if not state.added:
            return self._base.matching(filters, suggest)
        there = self._base.matching_beside(filters, suggest, own)
        fulfilling = own.matching(filters, lambda: False, beside=self._base.columns)
        return np.concatenate([there, state.ids[fulfilling]])

    def known(self, attribute: str, suggest: Callable[[], bool], where: str) -> str:
        """Return an attribute as entities have it (UnknownAttributeError: none has it)."""
        own, base = self._own()[1], self._base.columns
        return (own if own.has(attribute) and not base.has(attribute) else base).known(
            attribute, suggest, where
        )

    @property
    def attribute_names(self) -> list[str]:
        """All attributes, those of the bundle's entities first."""
        return list(dict.fromkeys([*self._base.attribute_names, *self._own()[1].by_name]))

    def sizes(self, attribute: str, values: Sequence[str], filters: Filters) -> list[int]:
        """Return how many of the entities that fulfil filters have each value (:meth:`Catalogue.sizes`)."""
        mine, ids = self._own()[1], self.matching(filters)
        among_N = np.zeros(self._layer.first, bool)
        among_N[ids[ids < self._layer.first]] = True
        of_base, own = self._base.columns.by_name.get(attribute), mine.by_name.get(attribute)
        found = of_base.sizes(values, among_N) if of_base else [0] * len(values)
        if own is None:
            return found
        added = np.isin(self._own()[0].ids, ids)
        return [one + other for one, other in zip(found, own.sizes(values, added), strict=True)]

    def sentences(self, ids: Sequence[int] | Ids, n: int) -> dict[int, list[MentionSentence]]:
        """Return up to n sentences of each entity (:meth:`Catalogue.sentences`)."""
        found = self._base.sentences([i for i in ids if i < self._layer.first], n)
        for i in ids:
            if n > 0 and (added := self._added(int(i))):
                found[int(i)] = [_mentioning(added, text) for text in added.encoded.sentences[:n]]
        return found

    def images(self, n: int) -> pa.ListArray:
        """Return the addresses of up to n images of every entity of the bundle, by id."""
        return self._base.images(n)


def _mentioning(added: AddedEntity, text: str) -> MentionSentence:
    start = max(0, text.casefold().find(added.name.casefold()))
    end = start + len(added.name) if text[start:].casefold().startswith(added.name.casefold()) else start
    return MentionSentence(text, start, end, None)
