"""The output of batch expansion: a folder of Parquet parts that are there whole or not at all.

::

    _run.json           what the parts were made from; written first, compared by a later run
    part-00000.parquet  the answers of queries 0 … part_size - 1, see :data:`SCHEMA`
    _refused.jsonl      queries that could not be used: source, position, query_id, code, reason
    _manifest.json      counts; written last: an output without it is not finished

Queries are cut into parts in their order, so a later run with the same input knows which are
missing. Names of what is no answer begin with _, so that readers of Parquet folders pass over them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.catalogue import Catalogue
from engine.errors import FormatError
from engine.queries.formats import RefusedQuery
from engine.query import Expansion
from engine.storage.store import Store
from engine.vocabulary import Vocabulary

RUN, MANIFEST, REFUSED = "_run.json", "_manifest.json", "_refused.jsonl"

SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("entity_id", pa.int32()),
        pa.field("name", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("evidence", pa.map_(pa.string(), pa.float32())),
        pa.field("degraded", pa.list_(pa.string())),
        pa.field("images", pa.list_(pa.string())),
    ]
)
"""One row an answer, best first, ranks from 1. A query without any answer has one row of rank 0
whose entity is null: no query is missing. ``degraded`` says what was skipped for the query; ``images``
are addresses of pictures that the entity is known by, empty in a bundle without pictures."""

IMAGES = 2
"""Pictures named of an entity, as in an explanation over HTTP."""


class Labels(NamedTuple):
    """What stands beside an entity's id: names, string [N], and addresses of pictures, list<string> [N]."""

    names: pa.Array
    images: pa.ListArray


class RunDescription(BaseModel):
    """What an output is made from. Two runs agree if all but ``part_size`` is equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: str
    pipeline: str
    bundle: str
    queries_digest: str
    queries: int = Field(ge=1)
    part_size: int = Field(ge=1)

    def differences(self, other: RunDescription) -> list[str]:
        """Return "field: this, not that" for every field that matters."""
        mine, theirs = self.model_dump(exclude={"part_size"}), other.model_dump()
        return [f"{k}: {theirs[k]}, not {v}" for k, v in mine.items() if v != theirs[k]]

    @property
    def parts(self) -> range:
        """The numbers of all parts."""
        return range(-(-self.queries // self.part_size))

    def slice(self, part: int) -> slice:
        """The places of a part's queries."""
        start = part * self.part_size
        return slice(start, min(start + self.part_size, self.queries))


@dataclass(frozen=True)
class ExpansionFolder:
    """An output folder, local or in a bucket."""

    folder: Store

    def begin(self, wanted: RunDescription, overwrite: bool) -> RunDescription:
        """Start an output or go on with the one that is there; return the description that holds.

        The size of parts that were begun stays as it is.

        Raises:
            FormatError: the folder holds another run's output, or files that are not ours to judge.
        """
        if overwrite:
            self._clear()
        there = self._read_run()
        if there is None:
            (self.folder / RUN).write_bytes(wanted.model_dump_json(indent=1).encode() + b"\n")
            return wanted
        if differences := wanted.differences(there):
            raise FormatError(
                f"{self.folder.uri}: holds another run's output ({'; '.join(differences)}); "
                "name another --output, or give --overwrite"
            )
        return there

    def missing(self, run: RunDescription) -> list[int]:
        """The numbers of the parts that are not there yet."""
        there = {file.name for file in self.folder.files(".parquet")}
        return [part for part in run.parts if part_name(part) not in there]

    def write_part(self, part: int, expansions: Sequence[Expansion], labels: Labels) -> int:
        """Write one part and return its rows."""
        table = to_table(expansions, labels)
        empty = sum(len(e.ranking) == 0 for e in expansions)
        counts = {"queries": str(len(expansions)), "empty": str(empty)}
        with (self.folder / part_name(part)).writing() as path:
            pq.write_table(table.replace_schema_metadata(counts), path, compression="zstd")
        return table.num_rows

    def finish(self, run: RunDescription, refused: Sequence[RefusedQuery]) -> dict[str, Any]:
        """Check that every part is there with all its queries, write the manifest and return it.

        Raises:
            FormatError: a part is missing or was not written by us.
        """
        lines = [json.dumps(one.as_json(), ensure_ascii=False) for one in refused]
        if lines:
            (self.folder / REFUSED).write_bytes(("\n".join(lines) + "\n").encode())
        else:
            (self.folder / REFUSED).delete()
        parts = [self._counted(run, part) for part in run.parts]
        manifest = {
            **run.model_dump(),
            "refused": len(refused),
            "empty": sum(part["empty"] for part in parts),
            "rows": sum(part["rows"] for part in parts),
            "parts": parts,
        }
        (self.folder / MANIFEST).write_bytes(json.dumps(manifest, indent=1).encode() + b"\n")
        return manifest

    def _counted(self, run: RunDescription, part: int) -> dict[str, Any]:
        file, place = self.folder / part_name(part), run.slice(part)
        try:
            with file.open_input() as stream:
                footer = pq.ParquetFile(stream).metadata
            queries, empty = (int(footer.metadata[key]) for key in (b"queries", b"empty"))
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{file.uri}: not a part of ours ({error}); remove it") from None
        if queries != place.stop - place.start:
            raise FormatError(f"{file.uri}: answers {queries} queries, not all of its part; remove it")
        return {"file": file.name, "queries": queries, "empty": empty, "rows": footer.num_rows}

    def _read_run(self) -> RunDescription | None:
        file = self.folder / RUN
        if file.exists():
            try:
                return RunDescription.model_validate_json(file.read_bytes())
            except ValidationError:
                raise FormatError(f"{file.uri}: not a run's description; use --overwrite") from None
        if strangers := self.folder.files(".parquet"):
            raise FormatError(
                f"{self.folder.uri}: holds {strangers[0].name}, which no run began; name another --output"
            )
        return None

    def _clear(self) -> None:
        """Remove what a run wrote, the manifest first, and nothing else."""
        ours = {RUN, REFUSED} | {f.name for f in self.folder.files() if _is_part(f.name)}
        for name in [MANIFEST, *sorted(ours)]:
            (self.folder / name).delete()


def part_name(part: int) -> str:
    """The file name of a part."""
    return f"part-{part:05d}.parquet"


def _is_part(name: str) -> bool:
    number = name.removeprefix("part-").removesuffix(".parquet")
    return number.isdigit() and name == part_name(int(number))


def to_table(expansions: Sequence[Expansion], labels: Labels) -> pa.Table:
    """Return the answers of some queries as a table, see :data:`SCHEMA`."""
    return pa.concat_tables([_answer(e, labels) for e in expansions] or [SCHEMA.empty_table()])


def labels_of(vocabulary: Vocabulary, catalogue: Catalogue) -> Labels:
    """Return the names and the pictures by id. Reads from the disk."""
    return Labels(pa.array(vocabulary.names, pa.string()), catalogue.images(IMAGES))


def _answer(expansion: Expansion, labels: Labels) -> pa.Table:
    ranking, n = expansion.ranking, len(expansion.ranking)
    degraded = list(expansion.degraded)
    if n == 0:
        row = {"query_id": expansion.query.id, "rank": 0, "degraded": degraded, "images": []}
        return pa.Table.from_pylist([row], schema=SCHEMA)
    ids = pa.array(ranking.ids)
    keys = list(ranking.evidence)
    values = np.array([ranking.evidence[key] for key in keys], np.float32).T.ravel()
    evidence = pa.MapArray.from_arrays(
        pa.array(np.arange(n + 1, dtype=np.int32) * len(keys)),
        pa.array(keys * n, pa.string()),
        pa.array(values, pa.float32()),
    )
    columns = [
        pa.repeat(expansion.query.id, n),
        pa.array(np.arange(1, n + 1, dtype=np.int32)),
        ids,
        labels.names.take(ids),
        pa.array(ranking.scores),
        evidence,
        pa.array([degraded] * n, pa.list_(pa.string())),
        labels.images.take(ids),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)
