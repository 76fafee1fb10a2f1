"""Read query files: UltraWiki's and MESED's layouts, JSON lines and Parquet become resolved queries.

A record names its seeds by name, alias or id, and may carry its truth::

    # UltraWiki: <class>.json, a list of
    {"query_id": "countries-3-0", "group_id": 3, "pos_seeds": [...], "neg_seeds": [...],
     "pos_gt": [...], "neg_gt": [...]}
    # JSON lines and Parquet, one query a line or row
    {"id": "q1", "positive": ["iron", 17], "negative": [], "top_k": 50, "class": "metals",
     "filter": {"state": ["solid"]}, "options": {"SegmentRerank.length": 8},
     "method": "retexpan", "explain": true, "deadline_ms": 2000}

A seed that the vocabulary does not hold is an object, ``{"name": ..., "sentences": [...]}``; such seeds,
filters, and what else says how to answer are for those who expand, as over HTTP.

``pos_attrs`` and ``neg_attrs`` ({attribute: value or values}) say what the seeds of either kind share; they
and the class are for methods that are given these.

Both spellings are understood in every format. A field that is none of these, and not null, refuses the
record: a mistyped ``negatives`` would answer another question. MESED's files are those of
:mod:`engine.queries.mesed`. A record that cannot be used is returned as a :class:`RefusedQuery`, never
dropped. Knows nothing of methods.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from engine.catalogue.entities import Catalogue
from engine.corpus.importing.mentions import mentions_of_new
from engine.corpus.readers.compression import without_ending
from engine.errors import FormatError, QueryError, UnknownEntityError, UserError
from engine.filters import Filters
from engine.queries.columns import SAME_NAMES, QueryColumns
from engine.queries.digest import QueriesDigest
from engine.queries.fields import NewSeeds, NotHeld, SeedSides
from engine.queries.files import query_files, records_of
from engine.queries.records import ASKED, QueryRecord, plain, validated
from engine.queries.seen_ids import SeenIds
from engine.query import DEFAULT_TOP_K, Query
from engine.refusals import Code, Refusal, encodable
from engine.storage.store import Store
from engine.text.spelling import clean_name, look_key
from engine.vocabulary import Vocabulary

_EXPANDED = "is taken by `seedset expand` and over HTTP alone"
"""What is said where other commands read such a query."""

POSITION_BITS = 40
"""Bits of the position in a file; its file's number stands before them."""

_SHOWN = 240
"""Characters of a reason that are kept: a refused record may hold anything."""


@dataclass(frozen=True)
class Truth:
    """One side's ground truth: ids of the vocabulary, and names that the vocabulary lacks.

    A missing name can never be found, yet it counts in the size of the truth: a candidate list that
    lacks an entity must not make the same ranking look better. ``seeds`` are the query's seeds that the file
    names among the truth; they are in ``ids`` of no query, and some protocols count them all the same.
    """

    ids: frozenset[int] = frozenset()
    missing: tuple[str, ...] = ()
    seeds: frozenset[int] = frozenset()

    @property
    def size(self) -> int:
        """The number of entities that ought to be found."""
        return len(self.ids) + len(self.missing)


@dataclass(frozen=True)
class LabelledQuery:
    """A query, the fine-grained class that it belongs to, and its truth on both sides (if given).

    ``positive`` is P − N and ``negative`` is N, both without the query's seeds (never returned).
    ``method``, ``explain``, ``deadline_ms`` and ``bundle`` are what the record says of how to answer, and
    ``place`` is its file and position, from 1.
    """

    query: Query
    label: str
    positive: Truth = Truth()
    negative: Truth = Truth()
    method: str | None = None
    explain: bool = False
    deadline_ms: int | None = None
    bundle: str | None = None
    place: tuple[str, int] = ("", 0)

    @property
    def how(self) -> dict[str, Any]:
        """What the record says of how to answer; the bundle changes no answer."""
        said = {"method": self.method, "explain": self.explain, "deadline_ms": self.deadline_ms}
        return {name: value for name, value in said.items() if value}

    def refused(self, refusal: Refusal) -> RefusedQuery:
        """Return the query as one that cannot be used."""
        return RefusedQuery(*self.place, self.query.id, _short(refusal))


@dataclass(frozen=True)
class RefusedQuery:
    """A record that cannot be used. ``position`` counts from 1; 0 stands for the whole file."""

    source: str
    position: int
    query_id: str | None
    refusal: Refusal

    @property
    def reason(self) -> str:
        """One line for a person."""
        return self.refusal.detail

    def as_json(self) -> dict[str, Any]:
        """Return the refused query as reports and ``_refused.jsonl`` have it."""
        return {
            "source": encodable(self.source),
            "position": self.position,
            "query_id": self.query_id,
            "code": self.refusal.code.value,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        return f"{self.source}:{self.position}: {self.reason}"


@dataclass
class QuerySet:
    """The queries of some files, in file order, and those that were refused."""

    queries: list[LabelledQuery] = field(default_factory=list)
    refused: list[RefusedQuery] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Truth names that the vocabulary lacks, over all queries."""
        return sum(len(q.positive.missing) + len(q.negative.missing) for q in self.queries)

    @property
    def digest(self) -> str:
        """Hex digest of the usable queries in order, all that a method is asked; not their truth."""
        digest = QueriesDigest()
        for labelled in self.queries:
            digest.add(labelled.query, labelled.how)
        return str(digest)

    @property
    def truth_digest(self) -> str:
        """Hex digest of all that figures depend on: :attr:`digest`, classes and truth."""
        digest = hashlib.sha256(self.digest.encode())
        for one in self.queries:
            sides = [[sorted(t.ids), t.missing, sorted(t.seeds)] for t in (one.positive, one.negative)]
            digest.update(json.dumps([one.label, sides]).encode() + b"\n")
        return digest.hexdigest()[:16]


def read_queries(
    source: Store,
    vocabulary: Vocabulary,
    catalogue: Callable[[], Catalogue] | None = None,
    columns: QueryColumns = SAME_NAMES,
) -> QuerySet:
    """Read a query file, or all of a folder (of its ``query`` folder, if any).

    Args:
        source: of the queries.
        vocabulary: that they are about.
        catalogue: knows the attributes that filters name; opened where there is one. None: queries with
            new entities or with a field of :data:`engine.queries.records.ASKED` are refused.
        columns: what fields are called there; afterwards it says what was not read.

    Raises:
        StorageError: nothing is there.
        FormatError: no file of a known format, or no record in any of them; no column of a name given.
        QueryError: every record was refused; names the first reason.
    """
    found = QuerySet()
    for answer in iter_queries(source, vocabulary, catalogue, columns):
        if isinstance(answer, RefusedQuery):
            found.refused.append(answer)
        else:
            found.queries.append(answer)
    if not found.queries:
        raise none_usable(source, len(found.refused), found.refused[0])
    return found


def iter_queries(
    source: Store,
    vocabulary: Vocabulary,
    catalogue: Callable[[], Catalogue] | None = None,
    columns: QueryColumns = SAME_NAMES,
) -> Iterator[LabelledQuery | RefusedQuery]:
    """Yield the queries of a source one by one, as :func:`read_queries` reads them.

    JSON lines and Parquet are read as streams; of millions of queries a few bytes each are kept.

    Args:
        source, vocabulary, catalogue, columns: see :func:`read_queries`.

    Raises:
        StorageError: nothing is there.
        FormatError: no file of a known format, or no record in any of them; no column of a name given.
    """
    reader, count = _Reader(vocabulary, catalogue), 0
    for count, (file, position, record) in enumerate(records_of(query_files(source)), 1):  # noqa: B007
        yield reader.take(file, position, columns.take(record))
    if not count:
        raise FormatError(f"{source.uri}: holds no query")
    columns.check(source.uri)


def none_usable(source: Store, refused: int, first: RefusedQuery) -> QueryError:
    """Return the error of a source of which every query was refused."""
    return QueryError(f"{source.uri}: none of its {refused} queries can be used; the first: {first}")


class _Reader:
    """A reader of records into labelled queries; no two of them may share an id."""

    def __init__(self, vocabulary: Vocabulary, catalogue: Callable[[], Catalogue] | None) -> None:
        self.vocabulary, self._catalogue = vocabulary, catalogue
        self._seen, self._files = SeenIds(), list[str]()
        self._numbers: Counter[str] = Counter()

    def take(self, file: Store, position: int, raw: Any) -> LabelledQuery | RefusedQuery:
        """Return the query of one record, or why it has none; ``raw`` may be a refusal already."""
        record = raw if isinstance(raw, Refusal) else validated(raw)
        if isinstance(record, Refusal):
            self._count(raw, file)
            return RefusedQuery(file.uri, position, _id_of(raw), _short(record))
        label = clean_name(record.label or "") or _stem(file)
        query_id = self._name(record, label)
        if fault := next(filter(None, map(_fault_of_encoding, (query_id, label))), None):
            return RefusedQuery(file.uri, position, encodable(query_id), fault)
        found = self._claim(query_id, file, position) or self._resolved(record, query_id, label)
        if isinstance(found, Refusal):
            return RefusedQuery(file.uri, position, query_id, _short(found))
        return replace(found, place=(file.uri, position))

    def _name(self, record: QueryRecord, label: str) -> str:
        """Return the record's id, or "<class>-<group>-<n>" with n counting within the group."""
        group = label if record.group_id is None else f"{label}-{record.group_id}"
        number = self._numbers[group]
        self._numbers[group] += 1
        return str(record.id) if record.id is not None else f"{group}-{number}"

    def _count(self, raw: Any, file: Store) -> None:
        """Count a record that cannot be read: the ids of those after it stay what they were."""
        given = raw if isinstance(raw, dict) else {}
        names = [given[key] for key in ("class", "label") if isinstance(given.get(key), str)]
        label, group_id = clean_name(next(iter(names), "")) or _stem(file), given.get("group_id")
        self._numbers[label if group_id is None else f"{label}-{plain(group_id)}"] += 1

    def _claim(self, query_id: str, file: Store, position: int) -> Refusal | None:
        if self._files[-1:] != [file.name]:
            self._files.append(file.name)
        number = len(self._files) - 1 << POSITION_BITS | position
        if (taken := self._seen.claim(query_id, number)) is None:
            return None
        there = f"{self._files[taken >> POSITION_BITS]}:{taken & (1 << POSITION_BITS) - 1}"
        return Refusal(Code.DUPLICATE_QUERY_ID, f"query {query_id!r}: the id is taken, by {there}")

    def _resolved(self, record: QueryRecord, query_id: str, label: str) -> LabelledQuery | Refusal:
        where = f"query {query_id!r}"
        asked = [name for name in ASKED if name != "filter" and _is_given(record, name)]
        if asked and self._catalogue is None:
            return Refusal(Code.QUERY_INVALID, f"{where}: {asked[0]} {_EXPANDED}")
        try:
            new = NewSeeds(self.vocabulary, f"{where}: ")
            sides = SeedSides(lambda one, field: self._seed(one, new, where, field))
            positive = sides.take("positive", record.positive)
            negative = sides.take("negative", record.negative)
            self._check_seeds(positive, sides, where)
            query = Query(
                query_id,
                positive,
                negative,
                DEFAULT_TOP_K if record.top_k is None else record.top_k,
                filters=self._filters(record, where),
                new=new.entities,
                class_name=label.replace("_", " "),
                positive_attributes=record.pos_attrs,
                negative_attributes=record.neg_attrs,
                weights=sides.unlike_one,
                context=sides.pairs(record.context),
                options=tuple(record.options.items()),
                exclude=tuple(self.vocabulary.resolve(one, f"{where}: exclude") for one in record.exclude),
                selection=record.selection,
            )
            for entity in (one for one in query.new if not one.is_given):
                mentions_of_new(entity, where)  # what no stage could read is refused before any runs
        except UnknownEntityError as error:
            return Refusal(Code.UNKNOWN_ENTITY, str(error))
        except UserError as error:
            return Refusal(Code.QUERY_INVALID, str(error))
        wanted, unwanted = self._truth(record.pos_gt, query), self._truth(record.neg_gt, query)
        lacking = set(map(look_key, unwanted.missing))
        missing = tuple(name for name in wanted.missing if look_key(name) not in lacking)
        wanted = Truth(wanted.ids - unwanted.ids, missing, wanted.seeds - unwanted.seeds)
        how = (record.method, record.explain, record.deadline_ms, record.bundle)
        return LabelledQuery(query, label, wanted, unwanted, *how)

    def _check_seeds(self, positive: tuple[int, ...], sides: SeedSides, where: str) -> None:
        """Refuse what only those who expand take (QueryError)."""
        if self._catalogue is None and sides.unlike_one:
            raise QueryError(f"{where}: a weight {_EXPANDED}")
        if self._catalogue is None and sides.weights and not positive:
            raise QueryError(f"{where}: a query without a positive seed {_EXPANDED}")

    def _seed(self, given: str | int | NotHeld, new: NewSeeds, where: str, field: str) -> int:
        if not isinstance(given, NotHeld):
            return self.vocabulary.resolve(given, where)
        if self._catalogue is None:
            raise QueryError(f"{where}: the new entity {given.name or field!r} {_EXPANDED}")
        return new.take(given, field)

    def _filters(self, record: QueryRecord, where: str) -> Filters:
        if self._catalogue is not None and (record.group_by or record.facets):
            self._catalogue().check_shown(record.selection)
        if record.filter and self._catalogue is None:
            raise QueryError(f"{where}: filter {_EXPANDED}")
        if record.filter and self._catalogue is not None:
            self._catalogue().matching(record.filter)  # what is unknown is refused before any stage runs
        return record.filter

    def _truth(self, given: Sequence[str | int], query: Query) -> Truth:
        found = {name: self.vocabulary.find(name) for name in given}
        ids = frozenset(i for i in found.values() if i is not None)
        seeds = ids & set(query.seeds)
        missing = {look_key(str(name)): str(name) for name, i in reversed(found.items()) if i is None}
        return Truth(ids - seeds, tuple(reversed(missing.values())), seeds)


def _is_given(record: QueryRecord, name: str) -> bool:
    return bool(getattr(record, name) != QueryRecord.model_fields[name].default)


def _stem(file: Store) -> str:
    # Some disks decompose the names of files: one class must not become two.
    return clean_name(PurePosixPath(file.name[: len(without_ending(file.name))]).stem)


def _id_of(raw: Any) -> str | None:
    """Return the id of a record that cannot be read, if it has one that can be told."""
    given = raw if isinstance(raw, dict) else {}
    ids = (plain(given.get(name)) for name in ("id", "query_id"))
    found = next((one for one in ids if isinstance(one, str | int) and not isinstance(one, bool)), None)
    return None if found is None else encodable(str(found))[:_SHOWN]


def _fault_of_encoding(text: str) -> Refusal | None:
    """Return why an id or a class cannot be written into results and reports, or None."""
    if encodable(text) == text:
        return None
    return Refusal(Code.TEXT_SURROGATE, f"{text!a} holds half of a surrogate pair")


def _short(refusal: Refusal) -> Refusal:
    """Return the refusal with its detail on one line of bounded length."""
    line = " ".join(encodable(refusal.detail).split())
    return replace(refusal, detail=line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…")
