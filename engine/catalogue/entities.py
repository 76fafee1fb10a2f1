"""Look up what a bundle holds of its entities: descriptions, attributes, sentences, images.

Kept as Arrow columns and flat arrays: of 50,000 entities with 300 bytes each, nothing becomes a Python
object before somebody asks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.attributes import TYPE, AttributeColumns
from engine.catalogue.sentences import MentionSentence, SentenceFile
from engine.entity_types import EntityTypes
from engine.errors import FilterError, UnknownAttributeError
from engine.filters import Filters
from engine.query import MAX_FACETS, Expansion, Ids, Selection
from engine.vocabulary import read_removed

EVALUATED = 16
"""Filters whose entities are kept: four bytes an entity each, at most."""

FACET_VALUES = 100
"""Values of an attribute that are counted of an answer: those of most of its entities."""

MAX_ATTRIBUTES = 100
MAX_VALUES = 200
"""Attributes, and values of one, that :meth:`Catalogue.attributes` lists."""


class Value(NamedTuple):
    """A value of an attribute, and how many entities have it."""

    value: str
    entities: int


class Facet(TypedDict):
    """A value of an attribute: of how many entities of an answer, and of all that could be in it."""

    value: str
    count: int
    entities: int


Facets = dict[str, list[Facet]]
"""Values by attribute, those of most entities of the answer first, then by text."""


class Attribute(NamedTuple):
    """An attribute's most frequent values, and whether there are more."""

    name: str
    values: list[Value]
    more: bool


class Catalogue:
    """The entities of a bundle as one reads of them. Safe for several threads.

    Args:
        entities: a bundle's ``entities.parquet``.
        sentences: its ``sentences.parquet``, if it has one.
        types: that a typing model found: the attribute "type", unless entities have their own of it.
    """

    def __init__(self, entities: Path, sentences: Path | None, types: EntityTypes | None = None) -> None:
        table = pq.read_table(entities, columns=["description", "attributes"])
        self._descriptions = table["description"]
        self._everyone = np.setdiff1d(np.arange(len(table), dtype=np.int32), read_removed(entities))
        self._attributes = table["attributes"]
        self.columns = AttributeColumns(self._attributes, types)
        self._evaluated = lru_cache(EVALUATED)(self._evaluate)
        self._sentences = SentenceFile(sentences) if sentences else None

    def __len__(self) -> int:
        return len(self._descriptions)

    def description(self, entity: int) -> str:
        """Return the description of an entity; "" if it has none."""
        return self._descriptions[entity].as_py() or ""

    def attributes_of(self, entity: int) -> dict[str, list[str]]:
        """Return the attributes of an entity."""
        own = {name: values or [] for name, values in self._attributes[entity].as_py() or ()}
        types = self.columns.types
        found = [name for name, _ in types.of(entity)] if types else []
        return own | ({TYPE: found} if found else {})

    def attributes(self) -> list[Attribute]:
        """Return what entities can be chosen by: what most of them have first, within limits."""
        return listed(self.columns)

    @property
    def all_are_there(self) -> bool:
        """Whether no entity has been removed."""
        return len(self._everyone) == len(self)

    def matching(self, filters: Filters, suggest: Callable[[], bool] = lambda: True) -> Ids:
        """Return the entities that are there and fulfil filters (:mod:`engine.filters`): int32, ascending.

        The last filters' answers are kept.

        Args:
            suggest: says, where something is unknown, whether to look for what is spelt like it.

        Raises:
            UnknownAttributeError: an attribute or a value that no entity has.
            FilterError: a clause that no value of its attribute can fulfil or fail.
        """
        if not filters:
            return self._everyone
        try:
            return self._evaluated(filters)
        except UnknownAttributeError:
            if not suggest():
                raise
        return self._evaluate(filters, suggest=lambda: True)

    def matching_beside(self, filters: Filters, suggest: Callable[[], bool], beside: AttributeColumns) -> Ids:
        """Return what :meth:`matching` does where further entities have attributes ``beside`` those here."""
        if not filters:
            return self._everyone
        try:
            return self._evaluated(filters)
        except (UnknownAttributeError, FilterError):
            return self._everyone[self.columns.matching(filters, suggest, beside=beside)[self._everyone]]

    @property
    def attribute_type(self) -> pa.DataType:
        """The type of the column of attributes."""
        return self._attributes.type

    def _evaluate(self, filters: Filters, suggest: Callable[[], bool] = lambda: False) -> Ids:
        return self._everyone[self.columns.matching(filters, suggest)[self._everyone]]

    def known(self, attribute: str, suggest: Callable[[], bool], where: str) -> str:
        """Return an attribute as entities have it (UnknownAttributeError: none has it)."""
        return self.columns.known(attribute, suggest, where)

    @property
    def attribute_names(self) -> list[str]:
        """All attributes, what most entities have first."""
        return list(self.columns.by_name)

    def sizes(self, attribute: str, values: Sequence[str], filters: Filters) -> list[int]:
        """Return how many entities that are there and fulfil filters have each value of an attribute."""
        if attribute not in self.columns.by_name:
            return [0] * len(values)
        among_N = None
        if filters or not self.all_are_there:
            among_N = np.zeros(len(self), bool)
            among_N[self.matching(filters)] = True
        return self.columns.by_name[attribute].sizes(values, among_N)

    def check_shown(self, asked: Selection, suggest: Callable[[], bool] = lambda: True) -> None:
        """Refuse an attribute to group by, or to count, that no entity has (UnknownAttributeError)."""
        if asked.group_by:
            self.known(asked.group_by, suggest, "group_by")
        for name in () if isinstance(asked.facets, bool) else asked.facets:
            self.known(name, suggest, "facets")

    def facets(self, shown: Expansion) -> Facets | None:
        """Return how often values of attributes are among the entities of an answer; None: not asked for.

        Of all attributes those that an entity shown has, the first :data:`~engine.query.MAX_FACETS`; of each
        attribute at most :data:`FACET_VALUES` values. ``entities`` counts those that fulfil the query's
        filters, seeds and excluded ones among them.

        Args:
            shown: an answer as it is shown.

        Raises:
            UnknownAttributeError: an attribute that no entity has.
        """
        asked = shown.query.selection.facets
        if not asked:
            return None
        own = [self.attributes_of(entity) for entity in shown.ranking.ids.tolist()]
        if isinstance(asked, bool):
            held = {name for one in own for name, values in one.items() if values}
            names = [name for name in self.attribute_names if name in held][:MAX_FACETS]
        else:
            names = list(dict.fromkeys(self.known(name, lambda: True, "facets") for name in asked))
        counted = {name: Counter(v for one in own for v in set(one.get(name, ()))) for name in names}
        return {name: self._facets(name, counts, shown.query.filters) for name, counts in counted.items()}

    def _facets(self, name: str, counts: Counter[str], filters: Filters) -> list[Facet]:
        best = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:FACET_VALUES]
        sizes = self.sizes(name, [value for value, _ in best], filters)
        return [
            Facet(value=value, count=count, entities=size)
            for (value, count), size in zip(best, sizes, strict=True)
        ]

    def values_of(self, ids: Ids, attribute: str) -> list[list[str]]:
        """Return the values that entities have of an attribute (UnknownAttributeError: none has it)."""
        known = self.known(attribute, lambda: True, "group_by")
        return [self.attributes_of(int(i)).get(known, []) for i in ids]

    def sentences(self, ids: Sequence[int] | Ids, n: int) -> dict[int, list[MentionSentence]]:
        """Return up to n sentences of each entity, in the corpus' order; entities without any are left out.

        Reads from the disk.
        """
        if self._sentences is None or not len(ids) or n < 1:
            return {}
        return self._sentences.read(np.unique(np.asarray(ids, np.int64)), n)

    def images(self, n: int) -> pa.ListArray:
        """Return the addresses of up to n images of every entity, by id: list<string> [N].

        In the corpus' order, each once. Reads from the disk.
        """
        if self._sentences is None:
            return pa.array([[]] * len(self), pa.list_(pa.string()))
        return self._sentences.images(len(self), n)


def listed(columns: AttributeColumns) -> list[Attribute]:
    """Return what entities have, what most of them have first, within limits."""
    return [
        Attribute(
            name,
            [
                Value(value, int(count))
                for value, count in zip(
                    one.values[:MAX_VALUES].to_pylist(),
                    np.diff(one.starts[: MAX_VALUES + 1]),
                    strict=True,
                )
            ],
            len(one.values) > MAX_VALUES,
        )
        for name, one in list(columns.by_name.items())[:MAX_ATTRIBUTES]
    ]
