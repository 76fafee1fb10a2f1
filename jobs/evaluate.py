"""Measure methods on queries with known answers: MAP and P at several cut-offs, on both sides.

Where no query has a negative side (MESED) the tables show MAP and P of the positive one alone.

Methods run in this process; answers that ``seedset expand`` wrote are read. To ``runs/evaluate/<method>/`` of
the workspace go the report and, of every query, its scores and its ranking (:mod:`engine.evaluation.scores`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from rich.console import Console

from cluster.commandline import command
from cluster.methods import LIST_METHODS, METHOD_NAME, Changes, MethodSettings, pipelines
from cluster.options import CommandSettings, Flag, declared
from engine.errors import QueryError, UserError
from engine.evaluation.cells import measure_into, tapped
from engine.evaluation.measuring import Runner
from engine.evaluation.metrics import CUTOFFS, Protocol
from engine.evaluation.report import Report, class_rows, key_figures, markdown, side_rows
from engine.evaluation.scores import as_json
from engine.queries.formats import QuerySet
from engine.queries.stored import StoredResults
from engine.stages.base import Pipeline
from engine.storage.bundle import Bundle
from engine.storage.relative import check_relative
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console
from jobs.settings import presets
from jobs.steps.measuring import TOLD, asked_of_results, measuring, named_results
from jobs.steps.method_notes import MethodNotes
from jobs.steps.query_options import with_checked_options
from jobs.steps.query_tables import QueryTableSettings, read_query_table

EXAMPLES = """
  seedset evaluate --workspace demo-workspace/workspace --queries demo-workspace/sample/queries \\
      --method retexpan --method default
  seedset evaluate --workspace work --queries mesed/query_seed=5 --method multiexpan --protocol mesed
  seedset evaluate --workspace s3://b/w --queries q.parquet --results s3://b/out --json report.json
  seedset evaluate --workspace work --queries q.jsonl --method retexpan --set SegmentRerank.length=8
  seedset evaluate --workspace work --queries q.jsonl --method my_module:PIPELINE
"""


class EvaluateSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix that holds the bundle.")
    queries: str = Field(
        description="File or folder of queries (.json, .jsonl, .parquet) with pos_gt and neg_gt; or in "
        "MESED's layout a folder of .txt files with gt/ and entity2id.txt in it or beside it."
    )
    columns: str = declared(QueryTableSettings, "columns")
    method: Annotated[list[str], METHOD_NAME] = Field(
        default=[], description="Measure this method. Repeat it to compare several."
    )
    set: Changes = declared(MethodSettings, "set")
    results: list[str] = Field(
        default=[],
        description="Measure the answers in this folder, which `seedset expand` wrote for the same queries.",
    )
    protocol: Protocol = Field(
        default="seedset",
        description="Count as truth what our figures do (without the seeds), MESED's authors (the seeds are "
        "among it), or their program to the letter.",
    )
    negative_seeds: int | None = Field(
        default=None, ge=0, description="Use this many negative seeds of a query at most.  [default: all]"
    )
    json_file: Annotated[Path | None, Flag("--json")] = Field(
        default=None,
        description="Also write the report to this file; of several methods as {method: report}.",
    )
    bundle: str | None = Field(
        default=None, description="Use the bundle of this id.  [default: the current one]"
    )
    batch_size: int = Field(default=64, ge=1, description="Hand over this many queries at once.")
    strict: bool = Field(default=False, description="Fail if any query is refused.")

    def unused(self) -> dict[str, str]:
        """Return the options that are of methods, where there is none, and why."""
        return {} if self.method else {"set": "without --method"}


@command(EXAMPLES, actions=[LIST_METHODS], presets=presets("evaluate"))
def main(settings: EvaluateSettings) -> None:
    """Measure one or several methods on queries with known answers."""
    if settings.json_file is not None:
        check_relative(settings.json_file)
    workspace = Workspace.open(settings.workspace)
    methods = pipelines(dict.fromkeys(settings.method), settings.set)
    stored = [StoredResults.open(Store.open(folder)) for folder in settings.results]
    bundle = _opened_bundle(settings, workspace, stored)
    queries = read_query_table(settings.queries, settings.columns, bundle.vocabulary)
    evaluation = _Evaluation(workspace, bundle, queries, settings)
    reports: dict[str, Report] = {}
    for name, results in named_results(stored, methods).items():
        reports[name] = evaluation.of_results(name, results)
    for name, pipeline in methods.items():
        reports[name] = evaluation.of_method(name, pipeline)
    _write_json(settings.json_file, reports)
    _show(reports)
    refused = _show_refused(queries, reports)
    for name, report in reports.items():
        if "no_answer" in report:
            console.say(f"{name}: {report['no_answer']}; its figures say nothing")
    best = max(reports, key=lambda name: (reports[name]["answered"] > 0, reports[name]["overall"]["Avg"]))
    console.result(
        reports[best]["counts"],
        method=best,
        bundle=bundle.id,
        queries=reports[best]["overall"]["queries"],
        refused=refused,
        **key_figures(reports[best]),
    )
    if not reports[best]["answered"]:
        raise QueryError(f"{best}: {reports[best]['no_answer']}")
    if settings.strict and refused:
        raise QueryError(f"{refused} queries were refused, and --strict was given")


def _opened_bundle(
    settings: EvaluateSettings, workspace: Workspace, stored: Sequence[StoredResults]
) -> Bundle:
    """Return the bundle of methods and results; for results alone it brings no more than the entities.

    Raises:
        UserError: nothing is to be measured, or results are of another bundle.
    """
    if not settings.method and not stored:
        raise UserError("give --method NAME, or --results FOLDER of what `seedset expand` wrote")
    if stored and settings.negative_seeds is not None:
        raise UserError("--negative-seeds: --results were made with all of them; give --method instead")
    wanted = settings.bundle or (stored[0].run.bundle if stored else None)
    bundle = Bundle.open(workspace, wanted, None if settings.method else TOLD)
    for results in stored:
        if results.run.bundle != bundle.id:
            raise UserError(
                f"--results {results}: of bundle {results.run.bundle}, not {bundle.id}; evaluate it by itself"
            )
    return bundle


@dataclass(frozen=True)
class _Evaluation:
    """What all the methods of a call have in common."""

    workspace: Workspace
    bundle: Bundle
    queries: QuerySet
    settings: EvaluateSettings

    def of_method(self, name: str, pipeline: Pipeline) -> Report:
        """Measure a method."""
        about = {"method": name, "pipeline": str(pipeline)}
        report = self._measured(
            about | self._noted(name, self.notes.on(pipeline)),
            pipeline,
            with_checked_options(self.queries, pipeline),
        )
        console.account(pipeline, self.bundle)
        return report

    def of_results(self, name: str, results: StoredResults) -> Report:
        """Measure what was written."""
        asked = asked_of_results(self.queries, results)
        results.check(asked, CUTOFFS[-1])
        about = {"method": name, "pipeline": results.run.pipeline}
        return self._measured(about | self._noted(name, self.notes.on_results(results)), results, asked)

    @cached_property
    def notes(self) -> MethodNotes:
        """Notes on the methods, on all the queries."""
        return MethodNotes(self.workspace, self.bundle, self.queries.queries)

    def _noted(self, name: str, note: str | None) -> dict[str, Any]:
        """Say a note, and return it as an entry of the report."""
        if note is None:
            return {}
        console.say(f"{name}: {note}")
        return {"note": note}

    def _measured(self, about: dict[str, Any], given: Pipeline | StoredResults, queries: QuerySet) -> Report:
        """Write a report, with what it was made of, and return it."""
        settings, name = self.settings, about["method"]
        how = measuring(self.workspace, self.bundle, queries, settings.protocol, settings.negative_seeds)
        folder, measures = self.workspace.runs("evaluate") / name, how.measures
        about |= {"bundle": self.bundle.id, "queries_digest": queries.digest}
        about |= {"truth_digest": queries.truth_digest}
        about |= {"negative_seeds": settings.negative_seeds}
        run: Runner
        if isinstance(given, Pipeline):
            run, measures = tapped(given, self.bundle, measures)
            timed, dependent = True, given.batch_dependent
        else:
            run, timed, dependent = given, False, False
        size = settings.batch_size
        with console.meter(name, len(queries.queries)) as meter:
            report = measure_into(folder, about, run, queries, measures, size, dependent, meter.add, timed)
        heading = f"{name} on bundle {self.bundle.id}"
        (folder / "report.md").write_bytes(markdown({name: report}, heading).encode())
        console.say(f"report: {folder.uri}/report.md")
        return report


def _write_json(file: Path | None, reports: dict[str, Report]) -> None:
    """Write the reports, or the one there is."""
    if file is None:
        return
    content: Any = reports if len(reports) > 1 else next(iter(reports.values()))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(as_json(content))


def _show(reports: dict[str, Report]) -> None:
    """Print the comparison and, for each method, its classes."""
    terminal = Console(highlight=False)
    if not terminal.is_terminal:
        terminal.width = 110  # a log: nothing is cut off
    terminal.print(console.table("overall, in percent", *side_rows(reports)))
    for name, report in reports.items():
        terminal.print(console.table(f"{name} by class", *class_rows(report)))


def _show_refused(found: QuerySet, reports: dict[str, Report]) -> int:
    """Say loudly which queries were not measured, and return how many."""
    refused = next(iter(reports.values()))["refused"]
    console.say_refused(
        [f"{one['source']}:{one['position']}: {one['reason']}" for one in refused], "the report lists them"
    )
    if found.missing:
        console.say(f"{found.missing} truth names are not in the vocabulary; they count as never found")
    return len(refused)


if __name__ == "__main__":
    main.run()
