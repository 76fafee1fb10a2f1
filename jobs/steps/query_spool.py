"""Read a table of queries of any length once, and lay its rows down on this machine, part by part."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, islice
from pathlib import Path

from engine.queries.digest import QueriesDigest
from engine.queries.formats import LabelledQuery, RefusedQuery
from engine.queries.results import RunDescription
from engine.refusals import Code, Refusal
from engine.storage.parts import numbered
from jobs.steps.routing import Router
from jobs.workers.chain import Row
from jobs.workers.expansion import PartQueries
from jobs.workers.part_rows import read_rows, write_rows

MAX_PART = 1024
"""Queries of a part: large enough for the file format, small enough to be made twice."""

MIN_PARTS = 16
"""Small tables are cut finer, so that no worker idles while another makes the last part."""

SHOWN = 5
"""Refused queries that are kept in memory."""


def default_part_size(queries: int, batch_size: int) -> int:
    """Return how many queries a part has: a batch at least, :data:`MAX_PART` at most."""
    return max(batch_size, min(MAX_PART, -(-queries // MIN_PARTS)))


@dataclass
class QuerySpool:
    """The queries of a table as rows in files, and those that were refused.

    Args:
        folder: of this machine, to be filled.
        batch_size: of the stages.
        part_size: queries of a part; 0: by their number.
    """

    folder: Path
    batch_size: int
    part_size: int = 0
    queries: int = 0
    refused: int = 0
    first_refused: list[RefusedQuery] = field(default_factory=list)
    digest: QueriesDigest = field(default_factory=QueriesDigest)

    def fill(self, found: Iterable[LabelledQuery | RefusedQuery], router: Router) -> None:
        """Lay down what was found; no more of it is held in memory than a few parts."""
        with self._refused_file.open("w", encoding="utf-8") as file:
            usable = self._usable(found, router, file.write)
            first: list[LabelledQuery] = []
            if not self.part_size:
                first = list(islice(usable, MIN_PARTS * MAX_PART))
                self.part_size = default_part_size(len(first), self.batch_size)
            self._lay_down(map(router.row, chain(first, usable)))

    def cut(self, part_size: int) -> None:
        """Cut the rows into parts of another size, that of a run which was begun before."""
        if part_size != self.part_size:
            old = sorted(self.folder.glob("*.arrow"))
            kept = [file.rename(file.with_suffix(".old")) for file in old]
            self.part_size = part_size
            self._lay_down(row for file in kept for row in read_rows(file))
            for file in kept:
                file.unlink()

    def _lay_down(self, rows: Iterable[Row]) -> None:
        rest = iter(rows)
        for place in count():
            if not (some := list(islice(rest, self.part_size))):
                return
            write_rows(self._file(numbered(place)), numbered(place), some)

    def _usable(
        self, found: Iterable[LabelledQuery | RefusedQuery], router: Router, write: Callable[[str], object]
    ) -> Iterator[LabelledQuery]:
        """Yield the queries that can be asked, counted; the others are written down."""
        for given in found:
            taken = given if isinstance(given, RefusedQuery) else router.take(given)
            if isinstance(taken, RefusedQuery):
                write(json.dumps(taken.as_json()) + "\n")
                self.refused += 1
                self.first_refused += [taken] if self.refused <= SHOWN else []
            else:
                self.digest.add(taken.query, taken.how)
                self.queries += 1
                yield taken

    def tasks(self, run: RunDescription) -> dict[str, PartQueries]:
        """Return the task of each part of a run, by its name."""
        return {
            part: PartQueries(part, self._file(part), place.stop - place.start)
            for part, place in run.parts.items()
        }

    def refusals(self) -> Iterator[RefusedQuery]:
        """Yield the refused queries in their order, from the disk."""
        with self._refused_file.open(encoding="utf-8") as file:
            for line in file:
                one = json.loads(line)
                refusal = Refusal(Code(one["code"]), one["reason"])
                yield RefusedQuery(one["source"], one["position"], one["query_id"], refusal)

    @property
    def _refused_file(self) -> Path:
        return self.folder / "refused.jsonl"

    def _file(self, part: str) -> Path:
        return self.folder / f"{part}.arrow"
