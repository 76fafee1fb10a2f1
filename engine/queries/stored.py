"""Answer queries from the output of a batch expansion, so that it can be measured where no model fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.errors import FormatError, QueryError
from engine.queries.formats import QuerySet
from engine.queries.results import ExpansionFolder, RunDescription
from engine.query import Expansion, Ids, Query, Ranking, Scores
from engine.storage.parts import content_key
from engine.storage.store import Store

_READ = ["query_id", "rank", "entity_id", "score", "degraded", "counts"]

_SHOWN = 5
"""Ids of queries that an error names."""


class _Stored(NamedTuple):
    """What was written of a query: ids and scores, best first, what was left out, what stages counted."""

    ids: Ids
    scores: Scores
    degraded: tuple[str, ...]
    counts: dict[str, int]


class WrittenAnswer(NamedTuple):
    """What was written of a query: names and numbers, best first; what was left out, what stages counted.

    ``evidence`` is of the kind that was asked for; None where the method notes none.
    """

    query_id: str
    names: list[str]
    scores: list[float]
    evidence: list[float | None]
    degraded: tuple[str, ...]
    counts: dict[str, int]


@dataclass
class StoredResults:
    """The output of ``seedset expand`` as a runner: queries in, what was written of them out.

    One part is in memory at a time; queries that come in their order are read once.
    """

    folder: ExpansionFolder
    run: RunDescription
    _part: str | None = None
    _answers: dict[str, _Stored] = field(default_factory=dict)
    _parts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Store) -> StoredResults:
        """Open a finished output.

        Raises:
            FormatError: it is none, or not finished.
        """
        output = ExpansionFolder(folder)
        return cls(output, output.finished_run())

    def __str__(self) -> str:
        return self.folder.folder.name

    @property
    def digest(self) -> str:
        """Hex digest of what was written: two runs of one description may have found other things."""
        return content_key(*(self.folder.parts.file(part).sha256() for part in self.run.parts))

    def check(self, queries: QuerySet, cutoff: int) -> None:
        """Check that the output answers these queries, all of them and no others.

        Args:
            queries: in the order of their file.
            cutoff: entities that must have been asked for, so that metrics look at all they want.

        Raises:
            QueryError: results are missing or left over; names them. Or seeds differ, or lists are cut.
        """
        asked = [labelled.query for labelled in queries.queries]
        where = self.folder.folder.uri
        if self.run.queries_digest != queries.digest:
            there = {query_id for part in self.run.parts for query_id in self._ids(part)}
            wanted = {query.id for query in asked}
            if faults := _faults(sorted(wanted - there), sorted(there - wanted)):
                raise QueryError(f"{where}: {faults}; measure it on the queries that it was made of")
            raise QueryError(
                f"{where}: made of other queries of the same ids: seeds, top_k or their order differ "
                f"(digest {self.run.queries_digest}, not {queries.digest}); expand again"
            )
        if short := [query.id for query in asked if query.top_k < cutoff]:
            raise QueryError(
                f"{where}: {_named(short)} asked for fewer than {cutoff} entities (top_k), which the metrics "
                f"look at; leave top_k out or give at least {cutoff}, and expand again"
            )
        for part, place in self.run.parts.items():
            own = dict.fromkeys(query.id for query in asked[place])
            held = self._ids(part)
            if faults := _faults([i for i in own if i not in held], [i for i in held if i not in own]):
                raise QueryError(f"{self.folder.parts.file(part).uri}: {faults}; expand again")
            self._parts.update(dict.fromkeys(own, part))

    def __call__(self, queries: Sequence[Query]) -> list[Expansion]:
        """Return what was written of some of the checked queries."""
        return [self._answer(query) for query in queries]

    def answers(self, evidence: str) -> Iterator[WrittenAnswer]:
        """Yield all that was written, query by query, in their order, with one kind of evidence."""
        for part in self.run.parts:
            table = self._table(part, ["name", "evidence"])
            names, begin = table["name"], 0
            noted = pc.map_lookup(table["evidence"], pa.scalar(evidence), "first")
            for query_id, one in self._read(part):
                size = len(one.ids)
                own_names, own = (column.slice(begin, size).to_pylist() for column in (names, noted))
                yield WrittenAnswer(query_id, own_names, one.scores.tolist(), own, one.degraded, one.counts)
                begin += max(size, 1)  # a query without an answer has a row, too

    def _answer(self, query: Query) -> Expansion:
        part = self._parts[query.id]
        if part != self._part:
            self._answers, self._part = dict(self._read(part)), part
        ids, scores, degraded, counts = self._answers[query.id]
        return Expansion(query, Ranking(ids, scores), {}, degraded, counts=counts)

    def _table(self, part: str, columns: list[str]) -> pa.Table:
        file = self.folder.parts.file(part)
        try:
            with file.open_input() as stream:
                there = pq.read_schema(stream).names  # earlier versions wrote no counts
                stream.seek(0)
                return pq.read_table(stream, columns=[c for c in columns if c in there]).combine_chunks()
        except (pa.ArrowException, ValueError) as error:
            raise FormatError(f"{file.uri}: cannot be read ({error}); run `seedset expand` again") from None

    def _ids(self, part: str) -> dict[str, None]:
        """Return the ids of the queries that a part answers, in its order."""
        return dict.fromkeys(self._table(part, ["query_id"])["query_id"].unique().to_pylist())

    def _read(self, part: str) -> Iterator[tuple[str, _Stored]]:
        """Yield the answers of a part."""
        table = self._table(part, _READ)
        rank = table["rank"].to_numpy()
        begins = np.flatnonzero(rank <= 1)
        names = table["query_id"].take(begins).to_pylist()
        notes = table["degraded"].take(begins).to_pylist()
        counts: list[Any] = [None] * len(begins)
        if "counts" in table.column_names:
            counts = table["counts"].take(begins).to_pylist()
        ends = [*begins[1:], len(rank)]
        for name, note, counted, begin, end in zip(names, notes, counts, begins, ends, strict=True):
            rows = slice(begin, end) if rank[begin] else slice(begin, begin)
            own = table.slice(rows.start, rows.stop - rows.start)
            ids = own["entity_id"].to_numpy().astype(np.int32)
            scores = own["score"].to_numpy().astype(np.float32)
            yield name, _Stored(ids, scores, tuple(note or ()), dict(counted or ()))


def _faults(missing: Sequence[str], surplus: Sequence[str]) -> str:
    """Return in words which queries have no result and which results no query; "" if there are none."""
    found = [f"no result of {_named(missing)}"] if missing else []
    found += [f"results of {_named(surplus)}, which is not asked"] if surplus else []
    return "; ".join(found)


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"{', '.join(map(repr, ids[:_SHOWN]))}{more}"
