"""Look up what a bundle holds of its entities: descriptions, attributes, sentences, images.

Kept as Arrow columns and flat arrays: of 50,000 entities with 300 bytes each, nothing becomes a Python
object before somebody asks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.attributes import TYPE, AttributeColumns
from engine.entity_types import TYPES, EntityTypes
from engine.errors import FilterError, UnknownAttributeError
from engine.filters import Filters
from engine.overlay.state import AddedEntity, OverlayLayer, OverlayState, overlay_of
from engine.query import MAX_FACETS, Expansion, Ids, Selection
from engine.storage.bundle import Bundle, lost_file
from engine.vocabulary import read_removed

SENTENCES = "sentences.parquet"
"""A bundle's file of sentences: the columns of mentions, sorted by entity. A bundle may have none."""

OVERLAID = "overlaid catalogue"
"""What a bundle with an overlay is provided with, once."""

EVALUATED = 16
"""Filters whose entities are kept: four bytes an entity each, at most."""

FACET_VALUES = 100
"""Values of an attribute that are counted of an answer: those of most of its entities."""

MAX_ATTRIBUTES = 100
MAX_VALUES = 200
"""Attributes, and values of one, that :meth:`Catalogue.attributes` lists."""

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MentionSentence:
    """A sentence with its mention, characters ``start`` to ``end`` (exclusive), and an image's address."""

    text: str
    start: int
    end: int
    image: str | None


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
        self._sentences = _SentenceFile(sentences) if sentences else None

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


def open_catalogue(bundle: Bundle) -> Catalogue:
    """Return the bundle's catalogue, read once a process, with the entities of an overlay if it has one."""
    base, layer = bundle_catalogue(bundle), overlay_of(bundle)
    if layer is None:
        return base
    found = bundle.provided(OVERLAID)
    if not isinstance(found, OverlaidCatalogue):
        found = OverlaidCatalogue(base, layer)
        bundle.provide(OVERLAID, found)
    return found


def bundle_catalogue(bundle: Bundle) -> Catalogue:
    """Return the bundle's own catalogue, read once a process."""

    def read(entities: Path) -> Catalogue:
        sentences = bundle.path(SENTENCES) if SENTENCES in bundle.manifest.files else None
        return Catalogue(entities, sentences, open_types(bundle) if TYPES in bundle.manifest.files else None)

    return bundle.once("entities.parquet", read)


def open_types(bundle: Bundle) -> EntityTypes:
    """Return the types of a bundle's entities, read once a process.

    Raises:
        BundleError: it holds none.
    """
    return bundle.once(TYPES, lambda file: EntityTypes.read(file, len(bundle.vocabulary)))


class _SentenceFile:
    """A file of sentences with an index of which entities lie in which row group."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # The metadata is shared by all readers; the file is opened anew by each, so threads do not meet.
        self._metadata = pq.read_metadata(path)
        every = map(self._metadata.row_group, range(self._metadata.num_row_groups))
        groups = [group.column(0) for group in every if group.num_rows]  # a file of nothing has an empty one
        self._first_G = np.array([g.statistics.min for g in groups], np.int64)
        self._last_G = np.array([g.statistics.max for g in groups], np.int64)

    def read(self, ids: Index, n: int) -> dict[int, list[MentionSentence]]:
        """Return up to n sentences of each entity (ascending ids), from the row groups that hold them."""
        begin = np.searchsorted(self._last_G, ids)
        end = np.searchsorted(self._first_G, ids, side="right")
        groups = sorted({group for b, e in zip(begin, end, strict=True) for group in range(b, e)})
        if not groups:
            return {}
        with self._opened() as file:
            table = file.read_row_groups(groups, use_threads=False)
        entity_R = table["entity_id"].to_numpy()
        place_R = np.arange(len(entity_R)) - np.searchsorted(entity_R, entity_R)
        rows = table.take(np.flatnonzero(np.isin(entity_R, ids) & (place_R < n))).to_pydict()
        found: dict[int, list[MentionSentence]] = {}
        columns = (rows[name] for name in ("entity_id", "sentence", "start", "end", "image"))
        for entity, *about in zip(*columns, strict=True):
            found.setdefault(entity, []).append(MentionSentence(*about))
        return found

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        """Open the file: read, not mapped, since a map of a file that is cut off ends the process.

        Raises:
            BundleError: it is not there any more, or cannot be read.
        """
        try:
            with pq.ParquetFile(self._path, metadata=self._metadata) as file:
                yield file
        except (OSError, pa.ArrowInvalid) as error:
            raise lost_file(self._path.parent.name, self._path.name, error) from None

    def images(self, n_entities: int, n: int) -> pa.ListArray:
        """Return up to n addresses of each entity's images, by id."""
        with self._opened() as file:
            table = file.read(["entity_id", "image"], use_threads=False)
        table = table.filter(pc.is_valid(table["image"]))
        first = table.append_column("row", pa.array(np.arange(table.num_rows)))
        first = first.group_by(["entity_id", "image"], use_threads=False).aggregate([("row", "min")])
        first = first.sort_by("row_min")  # and so by entity: the file is
        entity_R = first["entity_id"].to_numpy()
        place_R = np.arange(len(entity_R)) - np.searchsorted(entity_R, entity_R)
        kept = np.flatnonzero(place_R < n)
        counts = np.bincount(entity_R[kept], minlength=n_entities)
        offsets = pa.array(np.append(0, np.cumsum(counts)).astype(np.int32))
        return pa.ListArray.from_arrays(offsets, first["image"].combine_chunks().take(pa.array(kept)))
