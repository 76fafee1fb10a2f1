"""Fill a report cell by cell: every method, every value of a sweep, what `expand` wrote."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from cluster.errors import user_error
from engine.errors import BundleError, UserError
from engine.evaluation import ablation
from engine.evaluation.cells import Measured, Measuring, measure_cell, measure_into, with_confusion
from engine.evaluation.comparison import (
    Against,
    Document,
    Row,
    document,
    main_column,
    missing_row,
    row_of,
)
from engine.evaluation.kept_stages import KeptStages
from engine.evaluation.measuring import by_truth
from engine.evaluation.metrics import CUTOFFS
from engine.evaluation.plots import Points
from engine.evaluation.projection import groups, named, plane
from engine.evaluation.report import refused_of
from engine.evaluation.scores import REPORT, Scores, finished
from engine.evaluation.sweeps import SWEEPS, TRAINED_SWEEPS, Sweep, TrainedSweep, sample
from engine.evaluation.tables import Table
from engine.generation.files import LM_FILES
from engine.queries.formats import QuerySet
from engine.queries.stored import StoredResults
from engine.retrieval.entity_sentences import CONTRAST
from engine.retrieval.index import index_file
from engine.retrieval.mention_states import PROBING
from engine.retrieval.opening import open_index
from engine.stages.base import Pipeline, Stage
from engine.storage.bundle import Bundle, how_made
from engine.storage.parts import content_key
from engine.storage.workspace import Workspace
from jobs import console
from jobs.steps.measuring import CELLS, asked_of_results, named_results
from jobs.steps.method_notes import MethodNotes
from jobs.steps.query_options import with_checked_options

VIEW = "mask"
"""The view that training changes."""

STAGES = "stages"
"""The folder of a workspace's runs with what slow first stages answered; see :class:`KeptStages`."""

GENERATING_BATCH = 8
"""Queries that a method that asks a language model is handed at once; a stopped run loses one batch."""


@dataclass(frozen=True)
class ReportPlan:
    """What a report measures.

    Args:
        workspace, bundle, queries: on which data.
        how: it is measured.
        methods: pipelines by name, in the order of the rows.
        results: outputs of batch expansions, rows of their own.
        others: methods on other bundles of the same entities, by the names of their rows.
        absent: rows of the papers' tables that no method of this bundle fills, and why.
        baseline: the method that the others are tested against.
        generating: queries for methods that need a language model; None: all.
        sweeps: names of :data:`SWEEPS`.
        sweep_sample: queries of each value of a sweep; None: all.
        trained: bundles by the value of a setting of their training, by name of :data:`TRAINED_SWEEPS`.
        before: a bundle from before the training.
        batch_size: queries handed over at once.
        again: measure finished cells again.
        kept: what slow first stages answered, by bundle; filled while measuring.
    """

    workspace: Workspace
    bundle: Bundle
    queries: QuerySet
    how: Measuring
    methods: Mapping[str, Pipeline]
    results: Sequence[StoredResults] = ()
    others: Mapping[str, tuple[Pipeline, Bundle]] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    baseline: str = "retexpan"
    generating: int | None = None
    sweeps: Sequence[str] = ()
    sweep_sample: int | None = None
    trained: Mapping[str, Mapping[float, Bundle]] = field(default_factory=dict)
    before: Bundle | None = None
    batch_size: int = 64
    again: bool = False
    kept: dict[str, KeptStages] = field(default_factory=dict)


class Filled(NamedTuple):
    """A filled report: the document, and what a query took by method, which is no part of it."""

    document: Document
    seconds: dict[str, float | None]


def fill(plan: ReportPlan) -> Filled:
    """Measure what is not measured yet, and return the report.

    Raises:
        UserError: no method at all could be measured; names the first reason.
    """
    rows: list[Row] = []
    scores: dict[str, Scores] = {}
    seconds: dict[str, float | None] = {}
    stored = named_results(plan.results, [*plan.methods, *plan.others])
    own = MethodNotes(plan.workspace, plan.bundle, plan.queries.queries)
    notes = own.on_rows(stored, plan.methods, plan.others)
    total = len(plan.results) + len(plan.methods) + len(plan.others)
    for number, (name, pipeline, cell) in enumerate(_cells(plan), 1):
        if isinstance(cell, UserError):
            console.say(f"{number} of {total}: {name}: not measured: {cell}")
            rows.append(missing_row(name, pipeline, str(cell)))
            continue
        console.say(f"{number} of {total}: {name}")
        row = row_of(name, cell)
        if note := notes[name]:
            row["note"] = note
        rows.append(row)
        scores[name], seconds[name] = cell.scores, cell.report["seconds_per_query"]
    rows += [missing_row(name, "", why) for name, why in plan.absent.items()]
    if not scores:
        raise UserError(f"nothing could be measured; the first: {rows[0]['method']}: {rows[0]['why_not']}")
    usable, _ = by_truth(plan.queries.queries)
    negatives = any(q.query.negative or q.negative.size for q in usable)
    about = {
        "bundle": plan.bundle.id,
        "truth_digest": plan.queries.truth_digest,
        "queries": len(usable),
        "classes": dict(sorted(Counter(q.label for q in usable).items())),
        "negatives": negatives,
        "protocol": plan.how.measures.protocol,
        "missing_truth": plan.queries.missing,
        "refused": [{**one, "source": _file_name(one["source"])} for one in refused_of(plan.queries)],
    }
    against = Against(plan.baseline, main_column(negatives), scores)
    swept = [*_sweeps(plan), *_trained_sweeps(plan)]
    return Filled(document(about, rows, against, swept), seconds)


def _file_name(uri: str) -> str:
    """Return a file's name without its folder, which differs from machine to machine."""
    return uri.rpartition("/")[2]


def _cells(plan: ReportPlan) -> Iterator[tuple[str, str, Measured | UserError]]:
    """Yield name, pipeline and cell of every row; in a cell's place why there is none."""
    for name, results in named_results(plan.results, [*plan.methods, *plan.others]).items():
        yield name, results.run.pipeline, _tried(lambda results=results: _read(plan, results))
    for name, pipeline in plan.methods.items():
        yield name, str(pipeline), _tried(partial(_cell, plan, name, pipeline, _asked_of(plan, pipeline)))
    for name, (pipeline, bundle) in plan.others.items():
        elsewhere, asked = replace(plan, bundle=bundle), _asked_of(plan, pipeline)
        yield name, str(pipeline), _tried(partial(_cell, elsewhere, name, pipeline, asked))


def _asked_of(plan: ReportPlan, pipeline: Pipeline) -> QuerySet:
    """Return the queries that a method is measured on."""
    return sample(plan.queries, plan.generating) if generates(pipeline) else plan.queries


def generates(pipeline: Pipeline) -> bool:
    """Return whether a pipeline needs a language model, masked ones too, which takes its time."""
    return any(_generates(stage) for stage in pipeline.stages)


def _generates(stage: Stage) -> bool:
    return bool(set(stage.needs()) & {*LM_FILES, PROBING})


def _tried(measure: Any) -> Measured | UserError:
    """Return what is measured, or the mistake that is in its way, such as a model that cannot be read."""
    try:
        found: Measured = measure()
        return found
    except Exception as error:
        found_error = user_error(error)
        if found_error is None:
            raise  # a defect
        return found_error


def check_needs(pipeline: Pipeline, bundle: Bundle) -> None:
    """Refuse a pipeline whose stages need what a bundle lacks, before anything is loaded.

    Raises:
        BundleError: names the files, and says what makes them.
    """
    there = bundle.manifest.files
    needs = dict.fromkeys(name for stage in pipeline.stages for name in stage.needs())
    lacking = [n for n in needs if n not in there and not any(file.startswith(f"{n}/") for file in there)]
    if lacking:
        ways = dict.fromkeys(filter(None, map(how_made, lacking)))
        raise BundleError("; ".join([f"the bundle lacks {', '.join(lacking)}", *ways]))


def _cell(
    plan: ReportPlan,
    name: str,
    pipeline: Pipeline,
    queries: QuerySet | None = None,
    negative_seeds: int | None = None,
) -> Measured:
    """Return a method's cell, measured unless it is there.

    Raises:
        UserError: it cannot be measured, or no query has an answer.
    """
    check_needs(pipeline, plan.bundle)
    asked, how = with_checked_options(queries or plan.queries, pipeline), plan.how
    if negative_seeds is not None:
        how = how._replace(measures=replace(how.measures, negative_seeds=negative_seeds))
    cells, size, kept = plan.workspace.runs(CELLS), plan.batch_size, None
    if generates(pipeline):
        size = min(size, GENERATING_BATCH)
    if _generates(pipeline.stages[0]):
        kept = plan.kept.setdefault(
            plan.bundle.id, KeptStages(plan.workspace.runs(STAGES), plan.bundle.id, plan.again)
        )
    with console.meter(name, len(by_truth(asked.queries)[0])) as meter:
        cell = measure_cell(cells, pipeline, plan.bundle, asked, how, size, meter.add, plan.again, kept)
    cell.check_answered()
    return cell


def _read(plan: ReportPlan, results: StoredResults) -> Measured:
    """Return the cell of what `expand` wrote.

    Raises:
        UserError: it is of another bundle or other queries, or no query has an answer.
    """
    if results.run.bundle != plan.bundle.id:
        raise UserError(
            f"--results {results}: of bundle {results.run.bundle}, not {plan.bundle.id}; "
            f"give --bundle {results.run.bundle}"
        )
    asked = asked_of_results(plan.queries, results)
    results.check(asked, CUTOFFS[-1])
    made_of = (results.run.model_dump_json(), results.digest, asked.truth_digest)
    key = content_key("results", *made_of, plan.how.measures.protocol, plan.how.digest)
    folder = plan.workspace.runs(CELLS) / key
    report = None if plan.again else finished(folder)
    if report is None:
        about = {"method": results.run.method, "pipeline": results.run.pipeline, "bundle": plan.bundle.id}
        report = measure_into(folder, about, results, asked, plan.how.measures, plan.batch_size, timed=False)
    cell = Measured(with_confusion(report, folder, asked, plan.how.measures), folder)
    cell.check_answered()
    return cell


def _sweeps(plan: ReportPlan) -> Iterator[dict[str, Any]]:
    """Yield every sweep, and of one that the bundle cannot run why not."""
    for name in plan.sweeps:
        sweep = SWEEPS[name]
        # Some of the queries of the method's row, so that what is kept of these is not asked again.
        asked = (
            plan.queries if sweep.method not in plan.methods else _asked_of(plan, plan.methods[sweep.method])
        )
        queries = sample(asked, plan.sweep_sample)
        about = {"name": name, "title": sweep.title, "method": sweep.method, "setting": sweep.field}
        found = _tried(lambda sweep=sweep, queries=queries: list(_points(plan, sweep, queries)))
        if isinstance(found, UserError):
            yield _left_out(about, found)
            continue
        usable, _ = by_truth(queries.queries)
        yield {**about, "queries": len(usable), "values": list(sweep.values), "overall": found}


def _left_out(about: Mapping[str, Any], why: object) -> dict[str, Any]:
    """Return the entry of a sweep that could not be measured, and say why."""
    console.say(f"sweep {about['name']}: left out: {why}")
    return {**about, "why_not": str(why)}


def _points(plan: ReportPlan, sweep: Sweep, queries: QuerySet) -> Iterator[dict[str, float]]:
    if sweep.method not in plan.methods:
        raise UserError(f"{sweep.method} is not among the methods of the report")
    if not sweep.stage and not any(q.query.negative for q in queries.queries):
        raise UserError("no query has negative seeds")
    base = plan.methods[sweep.method]
    for value in sweep.values:
        label = f"{sweep.method}, {sweep.field} {value}"
        cell = _cell(plan, label, sweep.pipeline(base, value), queries, sweep.negative_seeds(value))
        yield cell.report["overall"]


def _trained_sweeps(plan: ReportPlan) -> Iterator[dict[str, Any]]:
    """Yield the sweeps whose values are bundles of trainings that are there."""
    for name, bundles in plan.trained.items():
        if not bundles:
            continue
        sweep = TRAINED_SWEEPS[name]
        about = {"name": name, "title": sweep.title, "method": sweep.method, "setting": name}
        found = _tried(lambda sweep=sweep, bundles=bundles: list(_trained_points(plan, sweep, bundles)))
        if isinstance(found, UserError):
            yield _left_out(about, found)
            continue
        usable, _ = by_truth(_asked_of(plan, plan.methods[sweep.method]).queries)
        yield {**about, "queries": len(usable), "values": list(bundles), "overall": found}


def _trained_points(
    plan: ReportPlan, sweep: TrainedSweep, bundles: Mapping[float, Bundle]
) -> Iterator[dict[str, float]]:
    if sweep.method not in plan.methods:
        raise UserError(f"{sweep.method} is not among the methods of the report")
    pipeline = plan.methods[sweep.method]
    for value, bundle in bundles.items():
        elsewhere, label = replace(plan, bundle=bundle), f"{sweep.method}, {value:g}"
        cell = _tried(partial(_cell, elsewhere, label, pipeline, _asked_of(plan, pipeline)))
        if isinstance(cell, UserError):
            raise UserError(f"bundle {bundle.id}: {cell}")
        yield cell.report["overall"]


def planes(plan: ReportPlan) -> list[Points]:
    """Return entities of the most asked attribute by what training changes.

    By the mask view, before training (if given) and after, and by the contrast view, where there is one.
    """
    found = groups(plan.queries.queries)
    if found is None:
        return []
    title, by_value = found
    entities, of = named(by_value)
    after = f"{title}, after training" if plan.before else title
    wanted = [
        (f"{title}, before training", plan.before, VIEW),
        (after, plan.bundle, VIEW),
        (f"{title}, after contrast", plan.bundle, CONTRAST),
    ]
    drawn = []
    for name, bundle, view in wanted:
        if bundle is None or index_file(view) not in bundle.manifest.files or len(entities) < 3:
            continue
        started = time.monotonic()
        drawn.append(Points(name, plane(open_index(bundle, view).vectors_of(entities)), of))
        console.say(f"t-SNE of {len(entities)} entities, {name}: {time.monotonic() - started:.1f} s")
    return drawn


def ablation_tables(workspace: Workspace) -> list[Table]:
    """Return MESED's tables 4 and 5 as `seedset ablate` filled them last; none where it did not run."""
    content = (workspace.runs("ablate") / REPORT).read_if_there()
    if content is None:
        return []
    report = json.loads(content)
    measured = [ablation.Measured(**one) for one in report["measured"]]
    numbers = {"baselines": 3, "objectives": 4, "modalities": 5}
    protocol = report.get("protocol", "seedset")
    return [
        Table(
            f"MESED, table {numbers.get(name, '')}: {name}, by {read_out} (from `seedset ablate`)",
            *ablation.table_rows(some, ablation.LONG),
            [f"Protocol {protocol}; the queries are those of that run."],
        )
        for (name, read_out), some in ablation.grouped(measured).items()
    ]


OTHER_ROWS = {
    "retexpan+ra": "descriptions in front of every sentence make another bundle (see docs/measuring.md); "
    "give it with --row retexpan+ra=retexpan@BUNDLE",
}
"""Rows of UltraWiki's tables that are no method of one bundle, and why they are not filled."""

OTHER_ROWS_OF_IMAGES = ("ViT", "BEiT", "CLIP-IMG", "CLIP", "ALBEF")
"""Rows of MESED's table 3 that are trainings of their own."""


def absent_rows(workspace: Workspace, queries: QuerySet, there: Iterable[str]) -> dict[str, str]:
    """Return the rows of the papers' tables that no method fills, and why.

    Args:
        workspace: with what `seedset ablate` filled last.
        queries: with negative sides they ask for UltraWiki's tables, without for MESED's.
        there: rows that the user gave.
    """
    given = set(there)
    if any(q.query.negative or q.negative.size for q in queries.queries):
        return {name: why for name, why in OTHER_ROWS.items() if name not in given}
    if any("baselines" in table.title for table in ablation_tables(workspace)):
        return {}
    why = (
        "a training of its own: run `seedset image-features --patches tokens` with that backbone, then "
        "`seedset ablate --table baselines`, and the report again"
    )
    return {name: why for name in OTHER_ROWS_OF_IMAGES if name not in given}
