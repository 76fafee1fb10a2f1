"""Train an encoder for every row of the tables that take MultiExpan apart, and measure each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rich.console import Console

from engine.corpus.inputs.format import open_inputs
from engine.errors import BundleError, UserError
from engine.evaluation.ablation import (
    LONG,
    READ_OUTS,
    TABLES,
    Measured,
    Row,
    as_json,
    grouped,
    pipeline,
    table_rows,
    view_name,
)
from engine.evaluation.cells import Measuring, measure_cell
from engine.evaluation.metrics import Protocol
from engine.evaluation.report import markdown_table
from engine.queries.formats import QuerySet
from engine.retrieval.distributions import distributions_folder, log_distributions_folder
from engine.retrieval.index import VectorIndex, index_file
from engine.storage.bundle import Bundle
from engine.storage.publishing import publish
from engine.storage.store import Store, machine_cache
from engine.storage.workspace import Workspace
from engine.training.settings import Modality, MultimodalSettings
from engine.vocabulary import Vocabulary
from jobs import console
from jobs.settings import TEMPERATURE
from jobs.steps.encoder_training import Trained, train, trained_run
from jobs.steps.frozen_cache import frozen_cache
from jobs.steps.measuring import CELLS, measuring
from jobs.steps.multimodal_views import ViewSource, multimodal_view
from jobs.steps.query_tables import read_query_table
from jobs.workers.encoder import MULTIMODAL_JOB
from jobs.workers.executor import given_or_auto
from jobs.workers.trainer import cluster_for


@dataclass(frozen=True)
class AblationPlan:
    """The trainings and measurements of an ablation."""

    tables: Sequence[str]
    base: MultimodalSettings
    repeats: int = 1
    workers: int = 1
    gpu: bool = False
    protocol: Protocol = "seedset"
    only: Sequence[str] = ()
    """Names of the rows that are filled; none: all."""
    temperature: float = TEMPERATURE
    """Of the distributions that the encoders predict."""

    def __post_init__(self) -> None:
        names = dict.fromkeys(row.name for table in self.tables for row in TABLES[table])
        if unknown := next((name for name in self.only if name not in names), None):
            raise UserError(f"--row {unknown!r}: no row of the table; it has {', '.join(map(repr, names))}")

    @property
    def rows(self) -> list[tuple[str, Row]]:
        """Every row that is filled, with its table."""
        every = ((table, row) for table in self.tables for row in TABLES[table])
        return [(table, row) for table, row in every if not self.only or row.name in self.only]

    def trainings(self) -> dict[MultimodalSettings, list[Modality]]:
        """Return the distinct trainings, and what is taken of contexts after each."""
        found: dict[str, tuple[MultimodalSettings, list[Modality]]] = {}
        for _, row in self.rows:
            for settings in self.of(row):
                _, taken = found.setdefault(settings.model_dump_json(), (settings, []))
                taken += [m for m in row.taken if m not in taken]
        return dict(found.values())

    def of(self, row: Row) -> list[MultimodalSettings]:
        """Return the settings of a row's trainings, a seed each."""
        base = row.settings(self.base)
        return [base.model_copy(update={"seed": base.seed + i}) for i in range(self.repeats)]


def ablate(workspace: Workspace, plan: AblationPlan, queries: dict[str, QuerySet]) -> list[Measured]:
    """Train what is not there yet, and measure every row under every read-out on every set of queries.

    Args:
        workspace: with inputs and image features.
        plan: see there.
        queries: by name.
    """
    folder = workspace.runs("ablate")
    bundles = _trained_bundles(workspace, folder, plan)
    return _measure(workspace, bundles, plan, queries)


def _trained_bundles(workspace: Workspace, folder: Store, plan: AblationPlan) -> dict[str, Bundle]:
    """Return the bundle of every training, by its settings as JSON; what is not there yet is trained."""
    bundles: dict[str, Bundle] = {}
    trainings = plan.trainings()
    with cluster_for(plan.workers, plan.gpu, workspace.root):
        for number, (settings, taken) in enumerate(trainings.items(), 1):
            console.say(f"training {number} of {len(trainings)}: {_training_label(settings)}")
            summary = train(workspace, settings, workers=plan.workers, gpu=plan.gpu, make_current=False)
            run = trained_run(workspace.runs(MULTIMODAL_JOB) / summary["run"])
            bundles[settings.model_dump_json()] = _bundle(workspace, folder, run, taken, plan.temperature)
    return bundles


def _measure(
    workspace: Workspace, bundles: dict[str, Bundle], plan: AblationPlan, queries: dict[str, QuerySet]
) -> list[Measured]:
    """Measure every row under every read-out on every set of queries."""
    cells = workspace.runs(CELLS)

    @cache
    def measured_by(settings: str, name: str) -> Measuring:
        return measuring(workspace, bundles[settings], queries[name], plan.protocol)

    found = []
    total = len(plan.rows) * len(READ_OUTS) * len(queries) * plan.repeats
    with console.meter("measuring", total) as meter:
        for table, row in plan.rows:
            own = [settings.model_dump_json() for settings in plan.of(row)]
            for read_out, (name, some) in ((r, q) for r in READ_OUTS for q in queries.items()):
                reports = []
                for settings in own:
                    how = measured_by(settings, name)
                    cell = measure_cell(cells, pipeline(read_out, row), bundles[settings], some, how)
                    reports.append(cell.report)
                    meter.add(1, f"{row.name}, {read_out}")
                found.append(Measured(table, row.name, read_out, name, reports))
    return found


def _training_label(settings: MultimodalSettings) -> str:
    weights = settings.schedule.weights()._asdict()
    objectives = ", ".join(name for name, weight in weights.items() if weight)
    return f"{settings.modality}; {objectives}; seed {settings.seed}"


def _bundle(
    workspace: Workspace, folder: Store, run: Trained, taken: Sequence[Modality], temperature: float
) -> Bundle:
    """Return the bundle of an encoder's views, made unless it is there."""
    run_workspace = Workspace(folder / run.name)
    wanted = [log_distributions_folder(view_name(modality)) for modality in taken]
    with suppress(BundleError):  # none yet, or one that is not whole: made
        there = Bundle.open(run_workspace)
        # Bundles of versions that had one temperature name none.
        same = there.manifest.settings.get("temperature", TEMPERATURE) == temperature
        if same and all(any(f.startswith(f"{name}/") for f in there.manifest.files) for name in wanted):
            return there
    inputs = open_inputs(workspace, run.inputs_key)
    cache = frozen_cache(workspace, inputs, run.model)
    staged = run_workspace.bundles.staging()
    workspace.entities.fetch(staged / "entities.parquet")
    n_entities = len(Vocabulary.read(staged / "entities.parquet"))
    for modality in taken:
        console.say(f"entities by {modality}")
        source = ViewSource(workspace.root.uri, run, cache, modality, temperature)
        _write_view(workspace, source, n_entities, staged)
    settings = {"trained": run.name, "modalities": list(taken), "temperature": temperature}
    publish(run_workspace, staged, settings)
    return Bundle.open(run_workspace)


def _write_view(workspace: Workspace, source: ViewSource, n_entities: int, staged: Path) -> None:
    name = view_name(source.modality)
    with given_or_auto(None, workspace.root) as executor:
        states = multimodal_view(source, n_entities, executor, staged / distributions_folder(name))
    VectorIndex(states).write(staged / index_file(name))


def open_queries(workspace: Workspace, given: Sequence[str], columns: str) -> dict[str, QuerySet]:
    """Read the sets of queries, each under its folder's name; ``columns`` is what --columns says."""
    vocabulary = Vocabulary.read(workspace.entities.local_copy(machine_cache()))
    found: dict[str, QuerySet] = {}
    for uri in given:
        store = Store.open(uri)
        queries = read_query_table(uri, columns, vocabulary)
        for refused in queries.refused:
            console.say(f"REFUSED {refused.source}:{refused.position}: {refused.reason}")
        found[store.name if store.name not in found else store.uri] = queries
    return found


def _headed(measured: Sequence[Measured]) -> Iterator[tuple[str, list[Measured]]]:
    for (table, read_out), some in grouped(measured).items():
        yield f"{table}, {read_out}", some


def write_report(folder: Store, measured: Sequence[Measured], plan: AblationPlan) -> bytes:
    """Write the report, for people and as JSON, and return the latter."""
    about = {"settings": plan.base.model_dump(mode="json"), "repeats": plan.repeats}
    about |= {"protocol": plan.protocol, "temperature": plan.temperature}
    lines = ["# MultiExpan taken apart", "", f"`{json.dumps(about)}`", "", "In percent.", ""]
    for title, some in _headed(measured):
        lines += [f"## {title}", "", *markdown_table(*table_rows(some, LONG)), ""]
    (folder / "report.md").write_bytes("\n".join(lines).encode())
    content = json.dumps(about | {"measured": as_json(measured)}, indent=1, ensure_ascii=False)
    report = content.encode() + b"\n"
    (folder / "report.json").write_bytes(report)
    console.say(f"report: {folder.uri}/report.md")
    return report


def show(measured: Sequence[Measured]) -> None:
    """Print a table for each table and read-out."""
    terminal = Console(highlight=False)
    if not terminal.is_terminal:
        terminal.width = 140  # a log: nothing is cut off
    for title, some in _headed(measured):
        terminal.print(console.table(title, *table_rows(some)))
