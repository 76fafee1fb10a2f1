"""Write what was measured of every query, and its ranking: Parquet for analyses, TREC files for other tools.

::

    queries.parquet   one row a query: what it asks, its columns in percent, its ranking
    run.trec          query Q0 entity rank score tag, for trec_eval and the like
    positive.qrels    query 0 entity 1: the truth P - N as the protocol counts it; negative.qrels: N
    report.json       means and counts; written last: with it the evaluation is finished

Everything is written as it comes; of the queries no more than a row group is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import MissingFileError
from engine.evaluation.measuring import QueryScore
from engine.evaluation.metrics import Protocol
from engine.queries.formats import Truth
from engine.storage.store import Store

QUERIES, RUN, REPORT = "queries.parquet", "run.trec", "report.json"
QRELS = {"positive": "positive.qrels", "negative": "negative.qrels"}

GROUP_QUERIES = 256
"""Queries of a row group."""

_ATTRIBUTES = pa.map_(pa.string(), pa.list_(pa.string()))
ABOUT = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("class", pa.string(), nullable=False),
        pa.field("positive_seeds", pa.int32()),
        pa.field("negative_seeds", pa.int32()),
        pa.field("positive_attributes", _ATTRIBUTES),
        pa.field("negative_attributes", _ATTRIBUTES),
        pa.field("positive_truth", pa.int32()),
        pa.field("negative_truth", pa.int32()),
        pa.field("ranking", pa.list_(pa.int32())),
        pa.field("scores", pa.list_(pa.float32())),
        pa.field("seconds", pa.float64()),
        pa.field("degraded", pa.list_(pa.string())),
        pa.field("tail_truth", pa.list_(pa.int32())),
        pa.field("tail_found", pa.list_(pa.int32())),
    ]
)
"""Columns of :data:`QUERIES` before those of the metrics. Numbers of seeds and true entities are those that
the file names; ``ranking`` holds entity ids, best first; ``tail_…`` count entities by number of sentences
(:func:`engine.evaluation.measuring.tail_labels`); ``seconds`` is null where nobody took the time."""


class ScoreWriter:
    """Write the files of an evaluation but its report. A context: files appear when it ends well.

    Args:
        folder: of the evaluation.
        tag: the run's name in the TREC file.
        protocol: says whether the truth's seeds stand in the qrels.
    """

    def __init__(self, folder: Store, tag: str, protocol: Protocol = "seedset") -> None:
        self._folder, self._tag, self._protocol = folder, trec_word(tag), protocol
        self._files = ExitStack()
        self._texts: dict[str, TextIO] = {}
        self._table: pq.ParquetWriter | None = None
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        (self._folder / REPORT).delete()  # what is there is not finished from now on
        self._path = self._opened(QUERIES)
        for name in (RUN, *QRELS.values()):
            text = self._opened(name).open("w", encoding="utf-8")
            self._texts[name] = self._files.enter_context(text)
        self._files.push(self._finish)
        return self

    def _opened(self, name: str) -> Path:
        return self._files.enter_context((self._folder / name).writing())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        if self._table is not None:
            self._table.close()

    def add(self, score: QueryScore) -> None:
        """Write one query."""
        self._rows.append(_row(score))
        if len(self._rows) == GROUP_QUERIES:
            self._flush()
        query_id = trec_word(score.query.query.id)
        n = len(score.ranking)
        self._texts[RUN].writelines(
            f"{query_id} Q0 {entity} {place} {n + 1 - place} {self._tag}\n"
            for place, entity in enumerate(score.ranking.ids.tolist(), 1)
        )
        for side, truth in (("positive", score.query.positive), ("negative", score.query.negative)):
            documents = _documents(truth, self._protocol)
            self._texts[QRELS[side]].writelines(f"{query_id} 0 {one} 1\n" for one in documents)

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._table is None:
            metrics = [name for name in self._rows[0] if name not in ABOUT.names]
            schema = pa.schema([*ABOUT, *(pa.field(name, pa.float64()) for name in metrics)])
            self._table = pq.ParquetWriter(self._path, schema, compression="zstd")
        self._table.write_table(pa.Table.from_pylist(self._rows, self._table.schema))
        self._rows = []


def trec_word(text: str) -> str:
    """Return a text as one word of a TREC file, whose columns end at spaces: these are percent-encoded."""
    return "".join(f"%{ord(c):02X}" if c == "%" or c.isspace() else c for c in text) or "%"


def _documents(truth: Truth, protocol: Protocol) -> list[str]:
    """Return the names of the true entities: their ids, and words for those that the vocabulary lacks."""
    ids = truth.ids if protocol == "seedset" else truth.ids | truth.seeds
    return [*map(str, sorted(ids)), *(f"missing-{i}" for i in range(len(truth.missing)))]


def _row(score: QueryScore) -> dict[str, Any]:
    labelled, ranking = score.query, score.ranking
    tail = [None, None] if score.tail is None else score.tail.tolist()
    return {
        "query_id": labelled.query.id,
        "class": labelled.label,
        "positive_seeds": len(labelled.query.positive),
        "negative_seeds": len(labelled.query.negative),
        "positive_attributes": [(name, list(values)) for name, values in labelled.query.positive_attributes],
        "negative_attributes": [(name, list(values)) for name, values in labelled.query.negative_attributes],
        "positive_truth": labelled.positive.size,
        "negative_truth": labelled.negative.size,
        "ranking": ranking.ids,
        "scores": ranking.scores,
        "seconds": score.seconds,
        "degraded": list(score.degraded),
        "tail_truth": tail[0],
        "tail_found": tail[1],
        **score.columns,
    }


@dataclass(frozen=True)
class Scores:
    """What an evaluation wrote of its queries, without their rankings, sorted by the queries' ids."""

    table: pa.Table

    @classmethod
    def read(cls, folder: Store) -> Self:
        """Read it from an evaluation's folder."""
        with (folder / QUERIES).open_input() as stream:
            names = [n for n in pq.read_schema(stream).names if n not in ("ranking", "scores")]
            stream.seek(0)
            return cls(pq.read_table(stream, columns=names).sort_by("query_id"))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def metrics(self) -> list[str]:
        """The names of the measured columns."""
        return [name for name in self.table.column_names if name not in ABOUT.names]

    @property
    def ids(self) -> list[str]:
        """The queries' ids."""
        found: list[str] = self.column("query_id")
        return found

    def column(self, name: str) -> list[Any]:
        """Return a column as Python values, a query each."""
        return list(self.table[name].to_pylist())

    def values(self, names: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return measured columns, float64 [queries, names]."""
        return np.stack([self.table[name].to_numpy() for name in names], axis=1)


def finished(folder: Store) -> dict[str, Any] | None:
    """Return the report of an evaluation's folder; None: there is none, or it is not whole."""
    try:
        report = json.loads((folder / REPORT).read_bytes())
        with (folder / QUERIES).open_input() as stream:
            pq.read_metadata(stream)
    except (MissingFileError, ValueError, pa.ArrowException):
        return None
    return report if isinstance(report, dict) else None


def as_json(content: Any) -> bytes:
    """Return a report as a file."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
