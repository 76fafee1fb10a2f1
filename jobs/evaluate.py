"""Measure methods on queries with known answers: MAP and P at several cut-offs, on both sides.

Where no query has a negative side (MESED) the tables show MAP and P of the positive one alone.

Runs the local runtime in this process. Reports go to ``runs/evaluate/<method>/`` of the workspace.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from rich.console import Console

from cluster.commandline import command
from cluster.methods import LIST_METHODS, METHOD_NAME, Changes, MethodSettings, pipelines
from cluster.options import CommandSettings, Flag, declared
from engine.errors import QueryError
from engine.evaluation.list_view import list_view_note
from engine.evaluation.report import Report, class_rows, evaluate, key_figures, markdown, side_rows
from engine.queries.formats import QuerySet, read_queries
from engine.stages.base import Pipeline
from engine.storage.bundle import Bundle
from engine.storage.relative import check_relative
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console
from jobs.settings import presets
from jobs.steps.query_options import with_checked_options

EXAMPLES = """
  seedset evaluate --workspace demo-workspace/workspace --queries demo-workspace/sample/queries \\
      --method retexpan --method default
  seedset evaluate --workspace work --queries mesed/query_seed=5 --method multiexpan --json report.json
  seedset evaluate --workspace work --queries q.jsonl --method retexpan --set SegmentRerank.length=8
  seedset evaluate --workspace work --queries q.jsonl --method my_module:PIPELINE
"""

SHOWN = 5
"""Refused queries that are shown one by one; the report lists all."""


class EvaluateSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix that holds the bundle.")
    queries: str = Field(
        description="File or folder of queries (.json, .jsonl, .parquet) with pos_gt and neg_gt; or in "
        "MESED's layout a folder of .txt files with gt/ and entity2id.txt in it or beside it."
    )
    method: Annotated[list[str], METHOD_NAME] = Field(
        min_length=1, description="Measure this method. Repeat it to compare several."
    )
    set: Changes = declared(MethodSettings, "set")
    json_file: Annotated[Path | None, Flag("--json")] = Field(
        default=None,
        description="Also write the report to this file; of several methods as {method: report}.",
    )
    bundle: str | None = Field(
        default=None, description="Use the bundle of this id.  [default: the current one]"
    )
    batch_size: int = Field(default=64, ge=1, description="Hand over this many queries at once.")
    strict: bool = Field(default=False, description="Fail if any query is refused.")


@command(EXAMPLES, actions=[LIST_METHODS], presets=presets("evaluate"))
def main(settings: EvaluateSettings) -> None:
    """Measure one or several methods on queries with known answers."""
    if settings.json_file is not None:
        check_relative(settings.json_file)
    workspace = Workspace.open(settings.workspace)
    methods = pipelines(dict.fromkeys(settings.method), settings.set)
    bundle = Bundle.open(workspace, settings.bundle)
    queries = read_queries(Store.open(settings.queries), bundle.vocabulary)
    reports: dict[str, Report] = {}
    for name, pipeline in methods.items():
        asked = with_checked_options(queries, pipeline)
        reports[name] = _measured(name, pipeline, bundle, asked, settings.batch_size)
        _publish(workspace, name, reports[name])
    _write_json(settings.json_file, reports)
    _show(reports)
    refused = _show_refused(queries, reports)
    best = max(reports, key=lambda name: reports[name]["overall"]["Avg"])
    console.result(
        method=best,
        bundle=bundle.id,
        queries=reports[best]["overall"]["queries"],
        refused=refused,
        **key_figures(reports[best]),
    )
    if settings.strict and refused:
        raise QueryError(f"{refused} queries were refused, and --strict was given")


def _measured(name: str, pipeline: Pipeline, bundle: Bundle, queries: QuerySet, batch_size: int) -> Report:
    """Return a method's report, with what it was made of."""
    run = pipeline.open(bundle)
    with console.meter(name, len(queries.queries)) as meter:
        report = evaluate(run, queries, batch_size, meter.add, pipeline.batch_dependent)
    about = {"method": name, "pipeline": str(pipeline), "bundle": bundle.id}
    if note := list_view_note(pipeline, bundle.manifest.settings.get("lm", {})):
        about["note"] = note
        console.say(f"{name}: {note}")
    return {**about, "queries_digest": queries.digest, **report}


def _write_json(file: Path | None, reports: dict[str, Report]) -> None:
    """Write the reports, or the one there is."""
    if file is None:
        return
    content: Any = reports if len(reports) > 1 else next(iter(reports.values()))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_json(content), encoding="utf-8")


def _publish(workspace: Workspace, name: str, report: Report) -> None:
    folder = workspace.runs("evaluate") / name
    heading = f"{name} on bundle {report['bundle']}"
    (folder / "report.md").write_bytes(markdown({name: report}, heading).encode())
    (folder / "report.json").write_bytes(_json(report).encode())
    console.say(f"report: {folder.uri}/report.md")


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


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
    for entry in refused[:SHOWN]:
        console.say(f"REFUSED {entry['source']}:{entry['position']}: {entry['reason']}")
    if refused:
        console.say(f"REFUSED in all: {len(refused)} queries; the report lists them")
    if found.missing:
        console.say(f"{found.missing} truth names are not in the vocabulary; they count as never found")
    return len(refused)


if __name__ == "__main__":
    main.run()
