"""Fill the papers' tables: every method on one set of queries, with intervals, tests, costs and figures.

What is measured once is kept as a cell in ``runs/cells`` of the workspace, so that a report that was stopped
goes on, and a second one of the same bundle and queries measures only what is new.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field
from rich.console import Console

from cluster.commandline import command
from cluster.methods import LIST_METHODS, METHOD_NAME, Changes, MethodSettings, pipelines
from cluster.options import Choices, CommandSettings, Flag, declared
from engine.errors import FormatError, UserError
from engine.evaluation.comparison import FORMAT, Document, differences
from engine.evaluation.metrics import Protocol
from engine.evaluation.page import html, markdown
from engine.evaluation.plots import Plot, available, plots
from engine.evaluation.scores import as_json
from engine.evaluation.sweeps import SWEEPS, TRAINED_SWEEPS, sample
from engine.evaluation.tables import Table, tables
from engine.methods import ABLATIONS, METHODS
from engine.queries.stored import StoredResults
from engine.retrieval.index import index_file
from engine.storage.bundle import Bundle
from engine.storage.relative import check_relative
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console
from jobs.settings import presets
from jobs.steps.measuring import TOLD, measuring
from jobs.steps.query_tables import QueryTableSettings, read_query_table
from jobs.steps.reporting import VIEW, ReportPlan, ablation_tables, absent_rows, fill, planes

EXAMPLES = """
  seedset report --workspace demo-workspace/workspace --queries demo-workspace/sample/queries
  seedset report --workspace work --queries q.jsonl --method retexpan --method default --compare before.json
  seedset report --workspace work --queries mesed/query --protocol mesed --baseline multiexpan --sample 100
"""

NO_SWEEP = "none"


class ReportSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix that holds the bundle.")
    queries: str = Field(description="Queries with known answers, as `seedset evaluate` reads them.")
    columns: str = declared(QueryTableSettings, "columns")
    method: Annotated[list[str], METHOD_NAME] = Field(
        default=[], description="Measure this method. Repeat it for several.  [default: every method]"
    )
    set: Changes = declared(MethodSettings, "set")
    results: list[str] = Field(
        default=[], description="A row of the answers in this folder, which `seedset expand` wrote."
    )
    row: list[str] = Field(
        default=[],
        description="NAME=METHOD@BUNDLE: a row of this method on another bundle of the same entities, such "
        "as retexpan+ra=retexpan@0123456789abcdef. Repeat it for several.",
    )
    output: str | None = Field(
        default=None,
        description="Write to this folder or s3:// prefix.  [default: the workspace's runs/report]",
    )
    bundle: str | None = Field(
        default=None, description="Use the bundle of this id.  [default: the current one]"
    )
    before: str | None = Field(
        default=None,
        description="Also draw the entities of this bundle, one from before training.",
    )
    protocol: Protocol = Field(
        default="seedset",
        description="Count as truth what our figures do (without the seeds), MESED's authors (the seeds are "
        "among it), or their program to the letter.",
    )
    baseline: str = Field(default="retexpan", description="Test the others against this method.")
    sweep: Annotated[list[str], Choices((*SWEEPS, NO_SWEEP))] = Field(
        default=[], description="Vary this setting. Repeat it for several.  [default: all]"
    )
    sweep_sample: int = Field(
        default=60,
        ge=0,
        description="Measure each value of a sweep on so many queries, some of every class; 0: on all.",
    )
    smoothing: list[str] = Field(
        default=[],
        description="VALUE=BUNDLE: a bundle trained with this label smoothing, for its sweep.",
    )
    mined: list[str] = Field(
        default=[],
        description="VALUE=BUNDLE: a bundle trained on lists of `seedset mine-contrast --top VALUE`, for the "
        "sweep of the length of L_pos and L_neg.",
    )
    sample: int | None = Field(
        default=None, ge=1, description="Measure on so many queries, some of every class.  [default: all]"
    )
    sample_generating: int = Field(
        default=40,
        ge=0,
        description="Measure methods that ask a language model, which take seconds a query, on so many "
        "queries, some of every class, and compare them with the baseline on those; 0: on all.",
    )
    compare: Path | None = Field(
        default=None, description="Show what is otherwise than in this report.json of another run."
    )
    plots: bool = Field(default=True, description="Draw figures (needs matplotlib, the extra `report`).")
    json_file: Annotated[Path | None, Flag("--json")] = Field(
        default=None, description="Also write the report to this file."
    )
    batch_size: int = Field(default=64, ge=1, description="Hand over this many queries at once.")
    overwrite: bool = Field(default=False, description="Measure again what is measured already.")

    def unused(self) -> dict[str, str]:
        """Return the options that the rows asked for do without, and why."""
        of_methods = ["set", "sweep_sample", *TRAINED_SWEEPS, "sample_generating"]
        of_methods += ["sweep"] if self.sweep != [NO_SWEEP] else []  # "none" says what is so
        found = (
            dict.fromkeys(of_methods, "beside --results alone, without --method or --row")
            if not (self.names or self.row)
            else {}
        )
        if self.sweep == [NO_SWEEP]:
            found |= {"sweep_sample": "beside --sweep none"}
        return found if self.plots else found | {"before": "beside --no-plots"}

    @property
    def names(self) -> list[str]:
        """The methods to measure: those given; all, where neither they nor results are."""
        return self.method or ([] if self.results else [*METHODS, *ABLATIONS])


class OtherRow(NamedTuple):
    """A row of another bundle: its name, the method, and the bundle."""

    name: str
    method: str
    bundle: str

    @classmethod
    def parse(cls, given: str) -> OtherRow:
        """Return what ``NAME=METHOD@BUNDLE`` says.

        Raises:
            UserError: it is not of that form.
        """
        name, _, rest = given.partition("=")
        method, _, bundle = rest.rpartition("@")
        if name and method and bundle:
            return cls(name, method, bundle)
        raise UserError(f"--row {given}: write NAME=METHOD@BUNDLE, as retexpan+ra=retexpan@0123456789abcdef")


@command(EXAMPLES, actions=[LIST_METHODS], presets=presets("report"))
def main(settings: ReportSettings) -> None:
    """Fill the papers' tables on one set of queries: HTML to read, JSON to compare, figures as PNG.

    Without --method every method is measured that the bundle can run; the others are rows that say why not.
    report.json holds no times: the same bundle, queries and settings give the same bytes. What a query took
    is in timings.json.
    """
    started = time.monotonic()
    for path in (settings.json_file, settings.compare):
        if path is not None:
            check_relative(path)
    other = _read_report(settings.compare)
    if settings.plots and not available():
        console.say("no figures: matplotlib is not installed (`pip install 'seedset[report]'`)")
    plan = _plan(settings)
    filled = fill(plan)
    drawn: list[Plot] = []
    if settings.plots and available():
        drawn = list(plots(filled.document, planes(plan)))
    shown = [*tables(filled.document, filled.seconds), *ablation_tables(plan.workspace)]
    if other is not None:
        shown.insert(1, _compared(filled.document, other, settings.compare))
    folder = Store.open(settings.output) if settings.output else plan.workspace.runs("report")
    _write(folder, filled.document, filled.seconds, shown, drawn)
    if settings.json_file is not None:
        settings.json_file.parent.mkdir(parents=True, exist_ok=True)
        settings.json_file.write_bytes(as_json(filled.document))
    _show(shown[: 1 if other is None else 2])
    console.say(f"report: {folder.uri}/report.html")
    rows = filled.document["rows"]
    console.result(
        bundle=plan.bundle.id,
        queries=filled.document["queries"],
        measured=sum("why_not" not in row for row in rows),
        not_measured=sum("why_not" in row for row in rows),
        refused=len(filled.document["refused"]),
        plots=len(drawn),
        seconds=f"{time.monotonic() - started:.1f}",
    )


def _plan(settings: ReportSettings) -> ReportPlan:
    workspace = Workspace.open(settings.workspace)
    names = settings.names
    # Answers that are there are measured by names alone; figures show vectors of the view.
    shown = [*TOLD, index_file(VIEW)] if settings.plots else TOLD
    bundle = Bundle.open(workspace, settings.bundle, None if names else shown)
    other = settings.before
    before = _same_entities("--before", workspace, other, bundle, shown) if other else None
    trained = {
        name: dict(_trained(f"--{name}", workspace, one, bundle) for one in getattr(settings, name))
        for name in TRAINED_SWEEPS
    }
    results = [StoredResults.open(Store.open(folder)) for folder in settings.results]
    given = {one: OtherRow.parse(one) for one in settings.row}
    rows = [*names, *(row.name for row in given.values())]
    if taken := next((row.name for row in given.values() if rows.count(row.name) > 1), None):
        raise UserError(f"--row {taken}=…: {taken} is a row of the report already; give another name")
    chosen = pipelines(dict.fromkeys([*names, *(row.method for row in given.values())]), settings.set)
    others = {
        row.name: (chosen[row.method], _same_entities(f"--row {one}", workspace, row.bundle, bundle))
        for one, row in given.items()
    }
    _check_baseline(settings, [*names, *(one.run.method for one in results), *others])
    found = read_query_table(settings.queries, settings.columns, bundle.vocabulary)
    absent = {} if settings.method or settings.results else absent_rows(workspace, found, others)
    queries = sample(found, settings.sample)
    return ReportPlan(
        workspace,
        bundle,
        queries,
        measuring(workspace, bundle, found, settings.protocol),
        {name: chosen[name] for name in names},
        results,
        others,
        absent,
        settings.baseline,
        settings.sample_generating or None,
        [name for name in settings.sweep or SWEEPS if name != NO_SWEEP],
        settings.sweep_sample or None,
        trained,
        before,
        settings.batch_size,
        settings.overwrite,
    )


def _check_baseline(settings: ReportSettings, names: list[str]) -> None:
    """Refuse a baseline that was asked for and is no row; where it is the default, say that it is none."""
    if settings.baseline in names:
        return
    if "baseline" in settings.model_fields_set:
        raise UserError(f"--baseline {settings.baseline}: not among the report's rows: {', '.join(names)}")
    console.say(f"no tests: the baseline {settings.baseline} is no row; give --baseline with one that is")


def _same_entities(
    option: str, workspace: Workspace, bundle_id: str, bundle: Bundle, only: Sequence[str] | None = None
) -> Bundle:
    """Open another bundle, whose entities must have the ids that the queries were read with."""
    other = Bundle.open(workspace, bundle_id, only)
    if other.vocabulary.names != bundle.vocabulary.names:
        raise UserError(f"{option}: bundle {other.id} has other entities than {bundle.id}")
    return other


def _trained(option: str, workspace: Workspace, given: str, bundle: Bundle) -> tuple[float, Bundle]:
    value, equals, other = given.partition("=")
    try:
        if equals and other:
            return float(value), _same_entities(f"{option} {given}", workspace, other, bundle)
    except ValueError:
        pass
    raise UserError(f"{option} {given}: write VALUE=BUNDLE, such as 10=0123456789abcdef")


def _read_report(file: Path | None) -> Document | None:
    if file is None:
        return None
    try:
        report = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"--compare {file}: {error.strerror or error}") from None
    except ValueError:
        raise FormatError(f"--compare {file}: not JSON; name the report.json of `seedset report`") from None
    if not isinstance(report, dict) or report.get("format") != FORMAT or "rows" not in report:
        raise FormatError(f"--compare {file}: no report of `seedset report` (format {FORMAT})")
    return report


def _compared(new: Document, old: Document, file: Path | None) -> Table:
    remarks, header, rows = differences(new, old)
    return Table(f"Compared with {file}: figures here, and (here less there)", header, rows, remarks)


def _write(
    folder: Store,
    report: Document,
    seconds: dict[str, float | None],
    shown: list[Table],
    drawn: list[Plot],
) -> None:
    """Write the page, the tables as Markdown, the figures, the times, and last the report for programs."""
    title = f"Report on bundle {report['bundle']}"
    (folder / "report.html").write_bytes(html(report, shown, drawn, title).encode())
    (folder / "report.md").write_bytes(markdown(report, shown, title).encode())
    for plot in drawn:
        (folder / "plots" / f"{plot.name}.png").write_bytes(plot.png)
    (folder / "timings.json").write_bytes(as_json({"seconds_per_query": seconds}))
    (folder / "report.json").write_bytes(as_json(report))


def _show(shown: list[Table]) -> None:
    terminal = Console(highlight=False)
    if not terminal.is_terminal:
        terminal.width = 140  # a log: nothing is cut off
    for one in shown:
        terminal.print(console.table(one.title, one.header, one.rows))
        for note in one.notes:
            terminal.print(note, markup=False)


if __name__ == "__main__":
    main.run()
