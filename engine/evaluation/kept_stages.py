"""Keep what a slow first stage answered, so that methods that share it run it once.

``genexpan``, ``genexpan-negative`` and every segment length of its sweep begin with the same rounds of
generation; ``cgexpan+segments`` begins with ``cgexpan``. What the stage answered is kept by stage, bundle and
query, in files that are written batch by batch: a report that was stopped goes on in the middle of a method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.queries.rows import EXPANSION_SCHEMA
from engine.query import Expansion, Query
from engine.query_rows import from_rows, to_rows
from engine.stages.base import LocalPipeline, Pipeline, Stage, Worker, timed
from engine.storage.bundle import Bundle
from engine.storage.parts import BROKEN, content_key
from engine.storage.store import Store

VERSION = 1
"""Raised where stages answer otherwise than before: what earlier versions kept is not read."""

SUFFIX = ".parquet"
BUNDLE = "bundle"
"""The entry of a file's metadata that says which bundle answered."""


@dataclass
class KeptStages:
    """Answers of first stages, kept in a folder.

    Args:
        folder: where they are kept.
        bundle: the id of the bundle that answers.
        again: ask the stages anew; what they then answer is kept for the rest of the run.
    """

    folder: Store
    bundle: str
    again: bool = False
    _known: dict[str, dict[str, Expansion]] = field(default_factory=dict)

    def open(self, pipeline: Pipeline, bundle: Bundle) -> LocalPipeline:
        """Open a pipeline as :meth:`keeping` returns it; its first stage when a question is new to it."""
        first, *rest = pipeline.stages
        if first.batch_dependent:
            return pipeline.open(bundle)

        opened = cache(lambda: timed(first, first.open(bundle)))

        def when_asked(expansions: list[Expansion]) -> list[Expansion]:
            return opened()(expansions)

        later = [(stage, timed(stage, stage.open(bundle))) for stage in rest]
        return self.keeping(LocalPipeline([(first, when_asked), *later]))

    def keeping(self, run: LocalPipeline) -> LocalPipeline:
        """Return the same pipeline, whose first stage is asked only what it did not answer before.

        One whose answers depend on the other queries of a call is returned as it is.
        """
        (stage, worker), *rest = run.opened
        if stage.batch_dependent:
            return run
        return LocalPipeline([(stage, self._worker(stage, worker)), *rest])

    def _worker(self, stage: Stage, worker: Worker) -> Worker:
        key = content_key(stage_key(stage), self.bundle, str(VERSION))
        known = self._answers(key)

        def run(expansions: list[Expansion]) -> list[Expansion]:
            keys = [_key(e.query) for e in expansions]
            new = [e for one, e in zip(keys, expansions, strict=True) if one not in known]
            if new:
                answered = worker(new)
                self._keep(self.folder / key, answered)
                known.update((_key(e.query), e) for e in answered)
            return [replace(known[one], query=e.query) for one, e in zip(keys, expansions, strict=True)]

        return run

    def _answers(self, key: str) -> dict[str, Expansion]:
        """Return what is known of a stage by query, read the first time."""
        if key not in self._known:
            found: dict[str, Expansion] = {}
            for file in (self.folder / key).files(SUFFIX):
                if self.again:
                    file.delete()
                    continue
                found.update((_key(e.query), e) for e in _read(file))
            self._known[key] = found
        return self._known[key]

    def _keep(self, folder: Store, answered: Sequence[Expansion]) -> None:
        schema = EXPANSION_SCHEMA.with_metadata({BUNDLE: self.bundle})
        table = pa.Table.from_pylist(to_rows(answered), schema)
        name = content_key(*(_key(e.query) for e in answered))
        with (folder / f"{name}{SUFFIX}").writing() as path:
            pq.write_table(table, path, compression="zstd")


def stage_key(stage: Stage) -> str:
    """Return what tells a stage's answers from another's: its name, settings and source outside the bundle.

    The source is an address, of which only a digest is shown.
    """
    source = stage.source()
    return f"{stage.name} {stage.model_dump_json()}{f' {content_key(source)}' if source else ''}"


def _read(file: Store) -> list[Expansion]:
    """Return the answers of a file; none of one that is gone or is not whole: its queries are asked again."""
    content = file.read_if_there()
    if content is None:
        return []
    try:
        rows: list[Any] = pq.read_table(pa.BufferReader(content)).to_pylist()
        return from_rows(rows)
    except BROKEN:
        return []


def _key(query: Query) -> str:
    """Return a digest of all that a stage is asked."""
    (row,) = to_rows([Expansion(query)])
    asked = ("query_id", "positive", "negative", "top_k", "options", "class_name")
    attributes = (row["positive_attributes"], row["negative_attributes"])
    more = [row[name] for name in ("filters", "exclude", "selection", "weights", "context") if row[name]]
    return content_key(repr([row[name] for name in asked] + more), repr(attributes))
