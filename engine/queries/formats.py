"""Read query files: UltraWiki's and MESED's layouts, JSON lines and Parquet become resolved queries.

A record names its seeds by name, alias or id, and may carry its truth::

    # UltraWiki: <class>.json, a list of
    {"query_id": "countries-3-0", "group_id": 3, "pos_seeds": [...], "neg_seeds": [...],
     "pos_gt": [...], "neg_gt": [...]}
    # JSON lines and Parquet, one query a line or row
    {"id": "q1", "positive": ["iron", 17], "negative": [], "top_k": 50, "class": "metals",
     "filter": {"state": ["solid"]}, "options": {"SegmentRerank.length": 8}}

A seed that the vocabulary does not hold is an object, ``{"name": ..., "sentences": [...]}``; such seeds and
filters are for those who expand, as over HTTP.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.catalogue import Catalogue
from engine.corpus.importing.mentions import mentions_of_new
from engine.corpus.readers.compression import BrokenStreamError, open_text, without_ending
from engine.corpus.readers.json_stream import BLOCK, line_object, lines, wrong_type
from engine.corpus.readers.rows import batch_rows
from engine.corpus.readers.source_files import list_source, partition_of, refuse_left_out, shown
from engine.errors import FormatError, QueryError, UnknownEntityError, UserError
from engine.queries.columns import QueryColumns
from engine.queries.fields import NewSeed, NewSeeds
from engine.queries.mesed import SUFFIX, RawRecord, mesed_records, query_texts
from engine.queries.records import (
    FIELDS,
    SPELLINGS,
    QueryRecord,
    plain,
    validated,
)
from engine.query import Filters, Query
from engine.refusals import Code, Refusal, encodable
from engine.repeated_keys import json_records
from engine.storage.store import Store
from engine.text.spelling import clean_name, look_key
from engine.vocabulary import Vocabulary

SUFFIXES = (".json", ".jsonl", ".parquet")
_ENDINGS = f"{', '.join(SUFFIXES)} (the first two also compressed), or, in MESED's layout, {SUFFIX}"

_EXPANDED = "is taken by `seedset expand` and over HTTP alone"
"""What is said where other commands read such a query."""

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
    """

    query: Query
    label: str
    positive: Truth = Truth()
    negative: Truth = Truth()


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
    unread: list[str] = field(default_factory=list)
    """Columns that were not read, as others were named."""

    @property
    def missing(self) -> int:
        """Truth names that the vocabulary lacks, over all queries."""
        return sum(len(q.positive.missing) + len(q.negative.missing) for q in self.queries)

    @property
    def digest(self) -> str:
        """Hex digest of the usable queries in order, all that a method is asked; not their truth."""
        digest = hashlib.sha256()
        for q in (labelled.query for labelled in self.queries):
            given: list[Any] = [q.class_name, q.positive_attributes, q.negative_attributes]
            given += [dict(q.options)] if q.options else []
            given += [{"filter": q.filters}] if q.filters else []
            given += [{"new": [(one.name, one.sentences) for one in q.new]}] if q.new else []
            digest.update(json.dumps([q.id, q.positive, q.negative, q.top_k, *given]).encode() + b"\n")
        return digest.hexdigest()[:16]

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
    columns: Mapping[str, str] = MappingProxyType({}),
) -> QuerySet:
    """Read a query file, or all of a folder (of its ``query`` folder, if any).

    Args:
        source: of the queries.
        vocabulary: that they are about.
        catalogue: knows the attributes that filters name; opened where there is one. None: queries with
            filters or new entities are refused.
        columns: what fields are called there, by our names, see :class:`QueryColumns`.

    Raises:
        StorageError: nothing is there.
        FormatError: no file of a known format, or no record in any of them; no column of a name given.
        QueryError: every record was refused; names the first reason.
    """
    found = QuerySet()
    reader, named = _Reader(vocabulary, catalogue), QueryColumns(columns)
    for file, position, record in _found(_files(source)):
        answer = reader.take(file, position, named.take(record))
        if isinstance(answer, RefusedQuery):
            found.refused.append(answer)
        else:
            found.queries.append(answer)
    if not found.queries and not found.refused:
        raise FormatError(f"{source.uri}: holds no query")
    named.check(source.uri)
    found.unread.extend(sorted(named.unread))
    if not found.queries:
        raise QueryError(
            f"{source.uri}: none of its {len(found.refused)} queries can be used; the first: "
            f"{found.refused[0]}"
        )
    return found


def _files(source: Store) -> dict[str, Store]:
    """Return the query files of a source by their path from its folder on.

    Raises:
        FormatError: there is none, or one of the folder would not be read.
    """
    if source.size() >= 0:
        if not _is_query_file(source.name) and not source.name.endswith(SUFFIX):
            raise FormatError(f"{source.uri}: a query file ends in {_ENDINGS}")
        return {source.name: source}
    folder = source / "query" if (source / "query").exists() else source
    if not folder.exists():
        # A path with a typing error is the likeliest mistake: say which of the two it is.
        raise FormatError(f"{folder.uri}: no such file or folder; a query file ends in {_ENDINGS}")
    listing = list_source(folder)
    files = {name: file for name, file in listing.files.items() if _is_query_file(name)}
    if not files and (files := {file.name: file for file in query_texts(folder)}):
        deeper = [n for n in listing.files if "/" in n and n.endswith(SUFFIX) and not n.startswith("gt/")]
        if deeper:
            raise FormatError(
                f"{folder.uri}: not all of it would be read: {shown(deeper)}. Queries in MESED's layout lie "
                "in one folder; name it, or move these files out of it"
            )
    refuse_left_out(listing, files, [""], f"A query file ends in {_ENDINGS}", texts=False)
    if not files:
        raise FormatError(f"{folder.uri}: holds no query file; a query file ends in {_ENDINGS}")
    return files


def _is_query_file(name: str) -> bool:
    return name.endswith(".parquet") or without_ending(name).endswith((".json", ".jsonl"))


def _found(files: Mapping[str, Store]) -> Iterator[RawRecord]:
    listed = list(files.values())
    if listed[0].name.endswith(SUFFIX):
        yield from mesed_records(listed)
        return
    for name, file in files.items():
        given = {key: value for key, value in partition_of(name).items() if key in FIELDS}
        for position, record in _records(file):
            if isinstance(record, dict):
                for key in given.keys() - {
                    twin for pair in SPELLINGS if record.keys() & pair for twin in pair
                }:
                    record.setdefault(key, given[key])  # in place: it may be marked (repeated_keys)
            yield file, position, record


def _records(file: Store) -> Iterator[tuple[int, Any]]:
    """Yield (position, record); in the place of what cannot be read its refusal."""
    if without_ending(file.name).endswith(".jsonl"):
        for line in lines(file):
            if not line.is_blank:
                yield line.number, line_object(line, FIELDS)[0]
        return
    try:
        if file.name.endswith(".parquet"):
            with file.open_input() as stream:
                batches = pq.read_table(stream).to_batches()
            records: Any = [record for batch in batches for record in batch_rows(batch)]
        else:
            with open_text(file) as stream:
                records = json_records(b"".join(iter(lambda: stream.read(BLOCK), b"")))
    except BrokenStreamError as error:
        yield 0, error.refusal
        return
    except (ValueError, OSError, pa.ArrowException, RecursionError) as error:
        yield 0, Refusal(Code.FILE_BROKEN, f"cannot be read: {error}")
        return
    if not isinstance(records, list):
        yield 0, wrong_type("a query file must be a list of queries", records)
        return
    yield from enumerate(records, 1)


class _Reader:
    """A reader of records into labelled queries; no two of them may share an id."""

    def __init__(self, vocabulary: Vocabulary, catalogue: Callable[[], Catalogue] | None) -> None:
        self.vocabulary, self._catalogue = vocabulary, catalogue
        self._seen: dict[str, str] = {}
        self._numbers: Counter[str] = Counter()

    def take(self, file: Store, position: int, raw: Any) -> LabelledQuery | RefusedQuery:
        """Return the query of one record, or why it has none; ``raw`` may be a refusal already."""
        record = raw if isinstance(raw, Refusal) else validated(raw)
        if isinstance(record, Refusal):
            self._count(raw, file)
            return RefusedQuery(file.uri, position, None, _short(record))
        label = clean_name(record.label or "") or _stem(file)
        query_id = self._name(record, label)
        if fault := next(filter(None, map(_fault_of_encoding, (query_id, label))), None):
            return RefusedQuery(file.uri, position, encodable(query_id), fault)
        found = self._claim(query_id, f"{file.name}:{position}") or self._resolved(record, query_id, label)
        if isinstance(found, Refusal):
            return RefusedQuery(file.uri, position, query_id, _short(found))
        return found

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

    def _claim(self, query_id: str, place: str) -> Refusal | None:
        if query_id in self._seen:
            reason = f"query {query_id!r}: the id is taken, by {self._seen[query_id]}"
            return Refusal(Code.DUPLICATE_QUERY_ID, reason)
        self._seen[query_id] = place
        return None

    def _resolved(self, record: QueryRecord, query_id: str, label: str) -> LabelledQuery | Refusal:
        where = f"query {query_id!r}"
        try:
            new = NewSeeds(self.vocabulary)
            positive = tuple(self._seed(one, new, where) for one in record.positive)
            negative = tuple(self._seed(one, new, where) for one in record.negative)
            query = Query(
                query_id,
                positive,
                negative,
                filters=self._filters(record, where),
                new=new.entities,
                class_name=label.replace("_", " "),
                positive_attributes=record.pos_attrs,
                negative_attributes=record.neg_attrs,
            )
            for entity in query.new:
                mentions_of_new(entity, where)  # what no stage could read is refused before any runs
            if record.top_k is not None:
                query = replace(query, top_k=record.top_k)
            if record.options:
                query = replace(query, options=tuple(record.options.items()))
        except UnknownEntityError as error:
            return Refusal(Code.UNKNOWN_ENTITY, str(error))
        except UserError as error:
            return Refusal(Code.QUERY_INVALID, str(error))
        wanted, unwanted = self._truth(record.pos_gt, query), self._truth(record.neg_gt, query)
        lacking = set(map(look_key, unwanted.missing))
        missing = tuple(name for name in wanted.missing if look_key(name) not in lacking)
        wanted = Truth(wanted.ids - unwanted.ids, missing, wanted.seeds - unwanted.seeds)
        return LabelledQuery(query, label, wanted, unwanted)

    def _seed(self, given: str | int | NewSeed, new: NewSeeds, where: str) -> int:
        if not isinstance(given, NewSeed):
            return self.vocabulary.resolve(given, where)
        if self._catalogue is None:
            raise QueryError(f"{where}: the new entity {given.name!r} {_EXPANDED}")
        return new.take(given, where)

    def _filters(self, record: QueryRecord, where: str) -> Filters:
        filters = tuple((name, tuple(dict.fromkeys(values))) for name, values in record.filter.items())
        if filters and self._catalogue is None:
            raise QueryError(f"{where}: filter {_EXPANDED}")
        if filters and self._catalogue is not None:
            self._catalogue().matching(filters)  # what is unknown is refused before any stage runs
        return filters

    def _truth(self, given: Sequence[str | int], query: Query) -> Truth:
        found = {name: self.vocabulary.find(name) for name in given}
        ids = frozenset(i for i in found.values() if i is not None)
        seeds = ids & set(query.seeds)
        missing = {look_key(str(name)): str(name) for name, i in reversed(found.items()) if i is None}
        return Truth(ids - seeds, tuple(reversed(missing.values())), seeds)


def _stem(file: Store) -> str:
    # Some disks decompose the names of files: one class must not become two.
    return clean_name(PurePosixPath(file.name[: len(without_ending(file.name))]).stem)


def _fault_of_encoding(text: str) -> Refusal | None:
    """Return why an id or a class cannot be written into results and reports, or None."""
    if encodable(text) == text:
        return None
    return Refusal(Code.TEXT_SURROGATE, f"{text!a} holds half of a surrogate pair")


def _short(refusal: Refusal) -> Refusal:
    """Return the refusal with its detail on one line of bounded length."""
    line = " ".join(encodable(refusal.detail).split())
    return replace(refusal, detail=line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…")
