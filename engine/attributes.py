"""Hold the attributes of entities by attribute and value, and find the entities that filters let through.

Columns over distinct values: a filter is evaluated value by value and gives a mask of the entities, without a
Python object for any of these.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.entity_types import THRESHOLD, EntityTypes
from engine.errors import FilterError, UnknownAttributeError
from engine.filters import Among, Clause, Filters, Having, Junction, Prefix, Range, days_of, interval
from engine.query import Ids
from engine.text.closest import ClosestTexts
from engine.text.spelling import SpellingTable, look_key

TYPE = "type"
"""The attribute of what a typing model found."""

SUGGESTED = 3

Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Suggest = Callable[[], bool]
"""Says whether to look for what is spelt like an unknown name: that takes milliseconds."""

NUMBER = r"^\s*[+\-\x{2212}]?[0-9]+(\.[0-9]+)?([eE][+\-]?[0-9]{1,3})?\s*$"
"""A value that is a number, for Arrow's regular expressions."""


@dataclass(frozen=True)
class Postings:
    """The entities of each value of one attribute.

    Attributes:
        values: distinct ones, those of most entities first, then by text.
        starts: where each value's entities begin in ``ids``, and the end, int64 [V + 1].
        ids: entities value by value, ascending within one.
    """

    values: pa.Array
    starts: Index
    ids: Ids

    @cached_property
    def spellings(self) -> tuple[list[str], ClosestTexts]:
        """The values, and what finds those spelt like others."""
        texts = self.values.to_pylist()
        return texts, ClosestTexts(texts)

    @cached_property
    def spelling_table(self) -> SpellingTable[None]:
        """The values, by what one sees of them."""
        return SpellingTable(dict.fromkeys(self.values.to_pylist()))

    @cached_property
    def beginnings(self) -> tuple[list[str], Index]:
        """The values by what one sees of them, in any case, ascending, and the place of each."""
        keys = [look_key(text) for text in self.values.to_pylist()]
        order = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
        return [keys[place] for place in order], order

    @cached_property
    def numbers(self) -> npt.NDArray[np.float64]:
        """The values as numbers, float64 [V]; NaN for what is none."""
        found = np.full(len(self.values), np.nan)
        places = np.flatnonzero(pc.match_substring_regex(self.values, NUMBER))
        if len(places):
            texts = pc.replace_substring(self.values.take(pa.array(places)), "\u2212", "-")
            read = np.array([float(text) for text in texts.to_pylist()])
            found[places] = np.where(np.isfinite(read), read, np.nan)
        return found

    @cached_property
    def days(self) -> npt.NDArray[np.float64]:
        """The first days of values that are dates, float64 [V]; NaN for what is none."""
        dates = (days_of(text.strip()) for text in self.values.to_pylist())
        return np.array([np.nan if days is None else days[0] for days in dates], np.float64)

    def sizes(self, values: Sequence[str], among_N: Mask | None = None) -> list[int]:
        """Return how many entities have each of some values; of a mask's entities."""
        places = pc.index_in(pa.array(values, pa.string()), value_set=self.values).to_pylist()
        none = self.ids[:0]
        own = (none if at is None else self.ids[self.starts[at] : self.starts[at + 1]] for at in places)
        return [len(ids) if among_N is None else int(among_N[ids].sum()) for ids in own]

    def entities(self, places: Sequence[int] | Index, among: int) -> Mask:
        """Return which of so many entities have one of the values at some places."""
        mask_N = np.zeros(among, bool)
        for place in places:
            mask_N[self.ids[self.starts[place] : self.starts[place + 1]]] = True
        return mask_N


class AttributeColumns:
    """The attributes of all entities. Safe for several threads.

    Args:
        column: of the table of entities: a map from attributes to values.
        types: that a typing model found: the attribute "type", unless entities have their own of it.

    Attributes:
        by_name: postings of each attribute, those of most entities first.
        types: those that are an attribute; None: none.
    """

    def __init__(self, column: pa.ChunkedArray, types: EntityTypes | None) -> None:
        self._entities = len(column)
        self.by_name = _postings(column)
        self.types = None if TYPE in self.by_name else types
        if self.types is not None:
            self.by_name = _by_size(self.by_name | _type_postings(self.types))
        self._spellings = SpellingTable(dict.fromkeys(self.by_name))

    def matching(
        self,
        filters: Filters,
        suggest: Suggest,
        where: str = "filter",
        beside: AttributeColumns | None = None,
    ) -> Mask:
        """Return which entities fulfil all clauses, bool [N].

        Args:
            filters: see :mod:`engine.filters`.
            suggest: says, where something is unknown, whether to look for what is spelt like it.
            where: the place of the filter, for what is said of a mistake.
            beside: the attributes of further entities: what only these have is had by none here, and is no
                mistake.

        Raises:
            UnknownAttributeError: an attribute or a value that no entity has.
            FilterError: bounds of an attribute that holds nothing of their kind.
        """
        found_N = np.ones(self._entities, bool)
        for clause in filters:
            found_N &= self._fulfilling(clause, suggest, where, beside)
        return found_N

    def known(self, name: str, suggest: Suggest, where: str) -> str:
        """Return an attribute as entities have it (UnknownAttributeError: none has it)."""
        spelt = self._spellings.spelt(name)
        if spelt is None:
            names = list(self.by_name)
            close = _closest(name, names, ClosestTexts(names)) if suggest() else []
            raise UnknownAttributeError(name, None, close, where)
        return spelt

    def _fulfilling(
        self, clause: Clause, suggest: Suggest, where: str, beside: AttributeColumns | None
    ) -> Mask:
        if isinstance(clause, Junction):
            return self._joined(clause, suggest, f"{where}.{clause.kind}", beside)
        if beside is None:
            return self._here(clause, suggest, where)
        try:
            return self._here(clause, lambda: False, where)
        except (UnknownAttributeError, FilterError):
            return self._beside(clause, suggest, where, beside)

    def _beside(
        self, clause: Range | Prefix | Among | Having, suggest: Suggest, where: str, beside: AttributeColumns
    ) -> Mask:
        """Return which entities fulfil a clause of which something is known of further entities alone."""

        def fulfilling(part: Range | Prefix | Having) -> Mask:
            try:
                return self._here(part, suggest, where)
            except (UnknownAttributeError, FilterError) as error:
                try:
                    beside._here(part, lambda: False, where)
                except FilterError as other:
                    raise (error if isinstance(error, FilterError) else other) from None
                except UnknownAttributeError:
                    raise error from None
                return np.zeros(self._entities, bool)

        if isinstance(clause, Range | Prefix):
            return fulfilling(clause)
        name, values = clause if isinstance(clause, tuple) else (clause.attribute, clause.values)
        each = [fulfilling((name, (value,))) for value in values]
        if isinstance(clause, Among) and clause.kind == "all":
            return np.logical_and.reduce(each)
        one_of: Mask = np.logical_or.reduce(each)
        return ~one_of if isinstance(clause, Among) else one_of

    def _here(self, clause: Range | Prefix | Among | Having, suggest: Suggest, where: str) -> Mask:
        known = self.known(clause[0] if isinstance(clause, tuple) else clause.attribute, suggest, where)
        own = self.by_name[known]
        if isinstance(clause, Range):
            return own.entities(_within(own, clause, where), self._entities)
        if isinstance(clause, Prefix):
            return own.entities(_beginning(own, clause, where), self._entities)
        values = clause[1] if isinstance(clause, tuple) else clause.values
        places = self._places(known, values, suggest, where)
        if isinstance(clause, tuple):
            return own.entities(places, self._entities)
        if clause.kind == "none":
            return ~own.entities(places, self._entities)
        return np.logical_and.reduce([own.entities([place], self._entities) for place in places])

    def _joined(
        self, clause: Junction, suggest: Suggest, where: str, beside: AttributeColumns | None
    ) -> Mask:
        each = [
            self.matching(part, suggest, f"{where}.{place}", beside)
            for place, part in enumerate(clause.parts)
        ]
        if clause.kind == "all":
            return np.logical_and.reduce(each)
        one_of: Mask = np.logical_or.reduce(each)
        return one_of if clause.kind == "any" else ~one_of

    def has(self, name: str) -> bool:
        """Return whether an entity has an attribute, by whatever spelling."""
        return self._spellings.spelt(name) is not None

    def _places(self, name: str, values: Sequence[str], suggest: Suggest, where: str) -> Sequence[int]:
        """Return the places of an attribute's values."""
        own = self.by_name[name]
        places = pc.index_in(pa.array(values, pa.string()), value_set=own.values)
        if places.null_count:
            values = [self._spelt(name, value, suggest, where) for value in values]
            places = pc.index_in(pa.array(values, pa.string()), value_set=own.values)
        found: list[int] = places.to_pylist()
        return found

    def _spelt(self, name: str, value: str, suggest: Suggest, where: str) -> str:
        """Return a value of an attribute as entities have it, given one with look-alike signs."""
        own = self.by_name[name]
        spelt = own.spelling_table.spelt(value)
        if spelt is None:
            close = _closest(value, *own.spellings) if suggest() else []
            raise UnknownAttributeError(name, value, close, where)
        return spelt


def _within(own: Postings, clause: Range, where: str) -> Index:
    """Return the places of the values that lie within all bounds."""
    is_date = isinstance(clause.bounds[0][1], str)
    values_V = own.days if is_date else own.numbers
    if np.isnan(values_V).all():
        field = f"{where}.{clause.attribute}.{clause.bounds[0][0]}"
        held = f", but such as {own.values[0].as_py()!r}" if len(own.values) else ""
        what = "dates (YYYY, YYYY-MM or YYYY-MM-DD)" if is_date else "numbers"
        other = own.numbers if is_date else own.days
        hint = f"; it holds {'numbers' if is_date else 'dates'}" if not np.isnan(other).all() else ""
        raise FilterError(field, f"{clause.attribute!r} has no values that are {what}{held}{hint}")
    low, high, with_low, with_high = interval(clause)
    above_V = values_V >= low if with_low else values_V > low
    return np.flatnonzero(above_V & (values_V <= high if with_high else values_V < high))


def _beginning(own: Postings, clause: Prefix, where: str) -> Index:
    """Return the places of the values that begin with a text."""
    keys, order = own.beginnings
    wanted = look_key(clause.text)
    first = bisect_left(keys, wanted)
    last = bisect_left(keys, True, first, key=lambda key: not key.startswith(wanted))
    if first == last:
        field = f"{where}.{clause.attribute}.prefix"
        raise FilterError(field, f"no value of {clause.attribute!r} begins with {clause.text!r}")
    return order[first:last]


def _postings(column: pa.ChunkedArray) -> dict[str, Postings]:
    """Return the entities by attribute and value; the attributes of most entities come first."""
    attributes = column.combine_chunks() if column.num_chunks else pa.array([], column.type)
    offsets = np.asarray(attributes.offsets)
    entity_A = np.repeat(np.arange(len(attributes)), np.diff(offsets))
    names = attributes.keys[offsets[0] : offsets[-1]].dictionary_encode()
    lists = attributes.items[offsets[0] : offsets[-1]]
    values = pc.list_flatten(lists).dictionary_encode()
    pair_V = np.asarray(pc.list_parent_indices(lists))
    return _ordered(
        names.dictionary.to_pylist(),
        values.dictionary,
        np.asarray(names.indices)[pair_V],
        np.asarray(values.indices),
        entity_A[pair_V],
    )


def _type_postings(types: EntityTypes) -> dict[str, Postings]:
    """Return the entities of each type that holds; none where no type does."""
    held = np.flatnonzero(types.confidence_M >= THRESHOLD)
    entity_M = np.repeat(np.arange(len(types)), np.diff(types.starts_N1))
    values = pa.array(types.names, pa.string())
    triples = np.zeros(len(held), np.int32), types.types_M[held], entity_M[held]
    return _ordered([TYPE], values, *triples) if len(held) else {}


def _ordered(
    names: list[str],
    values: pa.Array,
    name_V: npt.NDArray[np.int32],
    value_V: npt.NDArray[np.int32],
    entity_V: Index,
) -> dict[str, Postings]:
    """Sort (attribute, value, entity) triples, given by their numbers, into postings."""
    text_order = np.empty(len(values), np.int64)
    text_order[np.asarray(pc.sort_indices(values))] = np.arange(len(values))
    found: dict[str, Postings] = {}
    for number, name in enumerate(names):
        own = np.flatnonzero(name_V == number)
        triples = np.unique(np.stack([value_V[own], entity_V[own]]), axis=1)
        numbers, starts, counts = np.unique(triples[0], return_index=True, return_counts=True)
        order = np.lexsort((text_order[numbers], -counts))
        parts = [triples[1, starts[i] : starts[i] + counts[i]] for i in order]
        ids = np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int32)
        found[name] = Postings(values.take(numbers[order]), np.append(0, np.cumsum(counts[order])), ids)
    return _by_size(found)


def _by_size(found: dict[str, Postings]) -> dict[str, Postings]:
    """Return the attributes of most entities first, then by name."""
    order = sorted(found, key=lambda name: (-len(np.unique(found[name].ids)), name))
    return {name: found[name] for name in order}


def _closest(given: str, known: list[str], spellings: ClosestTexts) -> list[str]:
    """Return the known texts spelt most like what was given; the first ones if none is like it."""
    return [known[place] for place in spellings.closest(given, SUGGESTED)] or known[:SUGGESTED]
