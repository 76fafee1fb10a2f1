"""Write the output of batch expansion: a folder of Parquet parts, each there whole or not at all.

::

    _run.json           what the parts were made from; written first, compared by a later run
    part-00000.parquet  the answers of queries 0 … part_size - 1 (engine.queries.answer_table.SCHEMA)
    _refused.jsonl      queries that could not be used or answered: source, position, query_id, code, reason
    _manifest.json      counts; written last: an output without it is not finished

Queries are cut into parts (:mod:`engine.storage.parts`) in their order, so a later run with the same input
knows which are missing. Names of what is no answer begin with _, so that readers of Parquet folders pass over
them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from engine.errors import FormatError
from engine.queries.answer_table import Labels, Result, to_table
from engine.queries.formats import RefusedQuery
from engine.query import summed
from engine.storage.parts import PartFolder, numbered, read_model, write_model
from engine.storage.store import Store

RUN, MANIFEST, REFUSED = "_run.json", "_manifest.json", "_refused.jsonl"


class PartCounts(NamedTuple):
    """The counts of a part: its queries, those without any answer, its rows, and queries that lack something
    (``degraded``). ``failed`` are those of the empty ones that could not be answered, and say why.

    ``counted`` is the sum of what stages counted of its answers, by name, as its file says it.
    """

    queries: int
    empty: int
    rows: int
    degraded: int = 0
    failed: int = 0
    counted: tuple[tuple[str, int], ...] = ()


class RunDescription(BaseModel):
    """The description of a run. Two runs agree if all but ``part_size`` is equal.

    ``methods`` are the pipelines of other methods that rows name, by the method's name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: str
    pipeline: str
    bundle: str
    queries_digest: str
    queries: int = Field(ge=1)
    part_size: int = Field(ge=1)
    methods: dict[str, str] = {}

    def differences(self, other: RunDescription) -> list[str]:
        """Return "field: this, not that" for every field that matters."""
        mine, theirs = self.model_dump(exclude={"part_size"}), other.model_dump()
        return [f"{k}: {theirs[k]}, not {v}" for k, v in mine.items() if v != theirs[k]]

    @property
    def parts(self) -> dict[str, slice]:
        """The places of each part's queries, by its name."""
        starts = range(0, self.queries, self.part_size)
        ends = (min(start + self.part_size, self.queries) for start in starts)
        return {numbered(i): slice(*place) for i, place in enumerate(zip(starts, ends, strict=True))}


@dataclass(frozen=True)
class ExpansionFolder:
    """An output folder, local or in a bucket."""

    folder: Store

    @property
    def parts(self) -> PartFolder[PartCounts]:
        """The parts; of each its counts are known, which stand in the footer."""
        return PartFolder(self.folder, (".parquet",), _read_counts)

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
            write_model(self.folder / RUN, wanted)
            return wanted
        if differences := wanted.differences(there):
            raise FormatError(
                f"{self.folder.uri}: holds another run's output ({'; '.join(differences)}); "
                "name another --output, or give --overwrite"
            )
        return there

    def finished_run(self) -> RunDescription:
        """Return what a finished output was made from.

        Raises:
            FormatError: it is no output of a batch expansion, or a part of it may be missing.
        """
        run = self._read_run()
        if run is None:
            raise FormatError(f"{self.folder.uri}: no {RUN}, so this is no output of `seedset expand`")
        if not (self.folder / MANIFEST).exists():
            raise FormatError(
                f"{self.folder.uri}: has no {MANIFEST}: unfinished; run the same `seedset expand` again"
            )
        return run

    def first_note(self, part: str) -> str:
        """Return what was left out first for the first query of a part; "" for nothing."""
        with self.parts.file(part).open_input() as stream:
            notes = pq.ParquetFile(stream).read_row_group(0, ["degraded"])["degraded"][0].as_py()
        return str(notes[0]) if notes else ""

    def write_part(self, part: str, results: Sequence[Result], labels: Labels) -> PartCounts:
        """Write one part and return its counts."""
        table = to_table(results, labels)
        shown = [one.expansion for one in results if one.refusal is None]
        failed = [one.refusal.as_json() for one in results if one.refusal is not None]
        counts = PartCounts(
            queries=len(results),
            empty=sum(len(e.ranking) == 0 for e in shown) + len(failed),
            rows=table.num_rows,
            degraded=sum(bool(e.degraded) for e in shown) + len(failed),
            failed=len(failed),
            counted=tuple(summed(e.counts for e in shown).items()),
        )
        about = {name: str(getattr(counts, name)) for name in ("queries", "empty", "degraded", "failed")}
        about |= {"counted": json.dumps(dict(counts.counted)), "refused": json.dumps(failed)}
        with self.parts.writing(part) as path:
            pq.write_table(table.replace_schema_metadata(about), path, compression="zstd")
        return counts

    def failures(self, part: str) -> list[dict[str, Any]]:
        """Return the queries of a part that could not be answered, as ``_refused.jsonl`` has them."""
        found: list[dict[str, Any]] = json.loads(_footer(self.parts.file(part)).metadata[b"refused"])
        return found

    def finish(self, run: RunDescription, refused: Iterable[RefusedQuery]) -> dict[str, Any]:
        """Check that every part is there with all its queries, write the manifest and return it.

        Args:
            run: of the output.
            refused: queries that could not be used; those that could not be answered stand in the parts.

        Raises:
            FormatError: a part is missing or was not written by us.
        """
        found = self.parts.finished(run.parts)
        count = self._write_refused(refused, [part for part, counts in found.items() if counts.failed])
        parts = [self._checked(part, place, found.get(part)) for part, place in run.parts.items()]
        manifest = {
            **run.model_dump(),
            "refused": count,
            "failed": sum(part["failed"] for part in parts),
            "empty": sum(part["empty"] for part in parts),
            "rows": sum(part["rows"] for part in parts),
            "counts": summed(part["counted"] for part in parts),
            "degraded": sum(part["degraded"] for part in parts),
            "parts": parts,
        }
        (self.folder / MANIFEST).write_bytes(json.dumps(manifest, indent=1).encode() + b"\n")
        return manifest

    def _write_refused(self, refused: Iterable[RefusedQuery], failed: Sequence[str]) -> int:
        """Write the quarantine, one query after the other; return how many could not be used."""
        count = 0
        with (self.folder / REFUSED).writing() as path, path.open("w", encoding="utf-8") as file:
            for one in refused:
                count += 1
                file.write(json.dumps(one.as_json(), ensure_ascii=False) + "\n")
            for part in failed:
                file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in self.failures(part))
        if not count and not failed:
            (self.folder / REFUSED).delete()
        return count

    def _checked(self, part: str, place: slice, counts: PartCounts | None) -> dict[str, Any]:
        file = self.parts.file(part)
        if counts is None:
            raise FormatError(f"{file.uri}: missing, or not a part of ours; run again, it is made anew")
        if counts.queries != place.stop - place.start:
            raise FormatError(f"{file.uri}: answers {counts.queries} queries, not all of its part; remove it")
        return {"file": file.name, **counts._asdict(), "counted": dict(counts.counted)}

    def _read_run(self) -> RunDescription | None:
        file = self.folder / RUN
        if file.exists():
            return read_model(file, RunDescription, "name another --output, or give --overwrite")
        if strangers := self.folder.files(".parquet"):
            raise FormatError(
                f"{self.folder.uri}: holds {strangers[0].name}, which no run began; name another --output"
            )
        return None

    def _clear(self) -> None:
        """Remove what a run wrote, the manifest first, and nothing else."""
        parts = self.parts
        ours = [part for part in parts.names() if part.isdigit() and part == numbered(int(part))]
        for file in [
            self.folder / MANIFEST,
            *map(parts.file, ours),
            self.folder / REFUSED,
            self.folder / RUN,
        ]:
            file.delete()


def _footer(file: Store) -> pq.FileMetaData:
    with file.open_input() as stream:
        return pq.ParquetFile(stream).metadata


def _read_counts(file: Store) -> PartCounts:
    footer = _footer(file)
    about = footer.metadata or {}
    counted = json.loads(about.get(b"counted", b"{}"))
    queries, empty = int(about[b"queries"]), int(about[b"empty"])
    # Parts of an earlier version do not say these two.
    degraded, failed = (int(about.get(name, 0)) for name in (b"degraded", b"failed"))
    return PartCounts(queries, empty, footer.num_rows, degraded, failed, tuple(counted.items()))
