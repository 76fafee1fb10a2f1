"""Measure a method once: a cell is one pipeline on one bundle and one set of queries, under one protocol.

A finished cell is found again by what it was made from, whoever measured it first: `seedset report`,
`seedset ablate`, or a run that was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from engine.errors import QueryError
from engine.evaluation.kept_stages import KeptStages, stage_key
from engine.evaluation.long_tail import confusion
from engine.evaluation.measuring import FirstStage, Measures, Runner
from engine.evaluation.metrics import Protocol
from engine.evaluation.report import Report, evaluate, refused_of
from engine.evaluation.scores import REPORT, Scores, ScoreWriter, as_json, finished
from engine.evaluation.slices import slices, tail
from engine.queries.formats import QuerySet
from engine.stages.base import Pipeline
from engine.storage.bundle import Bundle
from engine.storage.parts import content_key
from engine.storage.store import Store

VERSION = 2
"""Raised where cells hold what they did not hold before: earlier ones are measured again."""


class Cell(BaseModel):
    """What a cell is made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: str
    bundle: str
    queries: str
    protocol: Protocol = "seedset"
    negative_seeds: int | None = None
    measures: str = ""
    version: int = VERSION

    @property
    def key(self) -> str:
        """The name of its folder."""
        return content_key(json.dumps(self.model_dump(), sort_keys=True))


class Measuring(NamedTuple):
    """What is measured, and a digest of what stands neither in the measured queries nor in the bundle.

    That is the numbers of sentences, and the entities of the classes: queries of a sample are measured by the
    classes of the whole file.
    """

    measures: Measures
    digest: str = ""


class Measured(NamedTuple):
    """A finished cell: its report, and the folder with its queries' scores."""

    report: Report
    folder: Store

    @property
    def scores(self) -> Scores:
        """The scores of its queries."""
        return Scores.read(self.folder)

    def check_answered(self) -> None:
        """Refuse a method that has no answer to any query: its columns say nothing.

        Raises:
            QueryError: says why the first query has none.
        """
        if not self.report["answered"]:
            raise QueryError(self.report["no_answer"])


def measure_into(
    folder: Store,
    about: dict[str, Any],
    runner: Runner,
    queries: QuerySet,
    measures: Measures,
    batch_size: int = 64,
    batch_dependent: bool = False,
    on_batch: Callable[[int], None] | None = None,
    timed: bool = True,
) -> Report:
    """Evaluate and write all files of an evaluation into a folder, the report last; return the report.

    Args:
        folder: of the evaluation.
        about: what the report begins with; ``method`` is the run's name in the TREC file.
        runner, queries, measures, batch_size, batch_dependent, on_batch: see
            :func:`engine.evaluation.report.evaluate`.
        timed: False if the runner only reads answers, so that its time says nothing.
    """
    with ScoreWriter(folder, str(about.get("method", "seedset")), measures.protocol) as writer:
        found = evaluate(runner, queries, batch_size, on_batch, batch_dependent, measures, writer.add)
    scores = Scores.read(folder)
    report = {**about, **found, "slices": slices(scores), "tail": tail(scores)}
    report = with_confusion(report, folder, queries, measures)
    if not timed:
        report["seconds_per_query"] = None
    (folder / REPORT).write_bytes(as_json(report))
    return report


def with_confusion(report: Report, folder: Store, queries: QuerySet, measures: Measures) -> Report:
    """Return a report with UltraWiki's table 19; an earlier version's is counted from its rankings."""
    if "confusion" in report:
        return report
    return {**report, "confusion": confusion(folder, queries, measures)}


def measure_cell(
    cells: Store,
    pipeline: Pipeline,
    bundle: Bundle,
    queries: QuerySet,
    how: Measuring,
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
    again: bool = False,
    kept: KeptStages | None = None,
) -> Measured:
    """Return a cell, measured unless it is finished already.

    Args:
        cells: folder of all cells.
        pipeline, bundle, queries: what is measured.
        how: it is measured; notes of the recall stage are made here.
        batch_size, on_batch: see :func:`engine.evaluation.report.evaluate`.
        again: measure a finished cell again.
        kept: answers of first stages that several methods share; None: every stage is run.

    Raises:
        UserError: the bundle lacks what the pipeline needs, or no query can be measured.
    """
    measures = how.measures
    cell = Cell(
        stages=" >> ".join(map(stage_key, pipeline.stages)),
        bundle=bundle.id,
        queries=queries.truth_digest,
        protocol=measures.protocol,
        negative_seeds=measures.negative_seeds,
        measures=how.digest,
    )
    folder = cells / cell.key
    if not again and (there := finished(folder)) is not None:
        if on_batch:
            on_batch(there["overall"]["queries"])
        there = with_confusion(there, folder, queries, measures)
        return Measured(there | {"refused": refused_of(queries)}, folder)
    run, measures = tapped(pipeline, bundle, measures, kept)
    about = {"method": cell.key, "cell": cell.model_dump(), "pipeline": str(pipeline), "bundle": bundle.id}
    dependent = pipeline.batch_dependent
    report = measure_into(folder, about, run, queries, measures, batch_size, dependent, on_batch)
    return Measured(report, folder)


def tapped(
    pipeline: Pipeline, bundle: Bundle, measures: Measures, kept: KeptStages | None = None
) -> tuple[Runner, Measures]:
    """Return an opened pipeline that notes what its first stage recalls, and measures that look at that."""
    first, run = FirstStage(), kept.open(pipeline, bundle) if kept else pipeline.open(bundle)
    return first.noting(run), replace(measures, recalled=first)
