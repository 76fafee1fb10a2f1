"""Take MultiExpan apart: train it with some objectives or modalities only, and measure each (tables 4 and 5).

Every training runs as ``seedset train-encoder`` runs it, under the same name, so that one that is there
already is not run again. What an encoder makes of the entities goes into a bundle of its own below
``runs/ablate``: the workspace's current encoder and bundle stay what they are.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cluster.commandline import command
from cluster.lock import Writes
from cluster.options import CommandSettings, Flag, Former, Group, declared
from engine.corpus.inputs.format import open_inputs
from engine.evaluation.metrics import Protocol
from engine.storage.relative import check_relative
from engine.storage.workspace import Workspace
from engine.training.settings import MultimodalSettings
from jobs import console
from jobs.settings import (
    CONTRAST_FLAGS,
    MODEL,
    Beginning,
    TrainingProcesses,
    multimodal_headings,
    presets,
    temperature_field,
    unused_of_baseline,
    unused_of_objectives,
)
from jobs.steps.query_tables import QueryTableSettings

EXAMPLES = """
  seedset ablate --workspace demo-workspace/workspace-images \\
      --queries demo-workspace/sample/multimodal/query --table objectives
  seedset ablate --workspace work --queries mesed/query --queries mesed/query_seed=5 --repeat 3
  seedset ablate --workspace work --queries mesed/query --table objectives --repeat 3 \\
      --row "masked entity prediction" --row full
  seedset ablate --workspace work --queries mesed/query --preset mesed-ablations
  seedset image-features --workspace work --model google/vit-base-patch16-224 --patches tokens
  seedset ablate --workspace work --queries mesed/query --table baselines
"""


CHOSEN_BY_ROWS = [
    "modality",
    "summary",
    "identity",
    "architecture",
    "head",
    *(f"schedule.{name}" for name in ("prediction", "contrastive", "clustering", "distillation")),
]
"""Fields of the settings that are no options of theirs: a row of a table or :class:`Beginning` says them, or
nobody may."""


class AblateSettings(CommandSettings):
    """The settings of the command; the rows of the tables say which objectives and modalities are trained."""

    workspace: str = Field(description="Folder or s3:// prefix with model input and image features.")
    queries: list[str] = Field(
        min_length=1,
        description="Queries with known answers, as `seedset evaluate` reads them. Repeat it for other seed "
        "counts.",
    )
    columns: str = declared(QueryTableSettings, "columns")
    table: Literal["objectives", "modalities", "baselines", "all"] = Field(
        default="all",
        description="Fill this table; all is the first two. baselines are the vision and vision-language "
        "rows of the paper's table 3, for features by `seedset image-features --patches tokens`.",
    )
    row: list[str] = Field(
        default=[],
        description="Fill this row alone, by its name in the table. Repeat it for more rows.",
    )
    repeat: int = Field(
        default=1, ge=1, description="Train every row this many times, a seed each, which shows the noise."
    )
    protocol: Protocol = Field(
        default="seedset",
        description="Count as truth what our figures do (without the seeds), MESED's authors (the seeds are "
        "among it), or their program to the letter.",
    )
    base: Annotated[MultimodalSettings, Group(without=CHOSEN_BY_ROWS, flags=CONTRAST_FLAGS)] = (
        MultimodalSettings()
    )
    beginning: Beginning = Beginning()
    temperature: float = temperature_field()
    processes: TrainingProcesses = TrainingProcesses()
    json_file: Annotated[Path | None, Flag("--json")] = Field(
        default=None, description="Also write the report to this file."
    )

    def training(self) -> MultimodalSettings:
        """Return what the trainings of all rows have in common."""
        return self.beginning.settings(self.base, of_baseline=self.table == "baselines")

    def unused(self) -> dict[str, str]:
        """Return the options that no row of the table asked for has a use of, and why."""
        from engine.evaluation.ablation import TABLES

        if self.table != "baselines" and not self.row:
            return {}
        names = ["objectives", "modalities"] if self.table == "all" else [self.table]
        rows = [row for name in names for row in TABLES[name] if not self.row or row.name in self.row]
        of_rows = [
            set(
                unused_of_baseline(row.baseline)
                if row.baseline
                else unused_of_objectives(row.settings(self.base).schedule)
            )
            for row in rows
        ]
        if not of_rows:  # an unknown row, which the run refuses
            return {}
        beside = " and ".join(f"--row {name!r}" for name in self.row) or f"--table {self.table}"
        return dict.fromkeys(sorted(set.intersection(*of_rows)), f"beside {beside}")


@command(
    EXAMPLES,
    headings={**multimodal_headings("base"), "beginning": MODEL, "temperature": MODEL},
    former={"hidden": Former("modality_dropout")},
    presets=presets("ablate"),
    writes=Writes("ablate"),
)
def main(settings: AblateSettings) -> None:
    """Fill the tables that take MultiExpan apart: its objectives one by one; its modalities in training, in
    seeds and in candidates; and what it is compared with.

    Needs `seedset image-features` and `seedset preprocess --images`. Under multiexpan sets are expanded by
    predicted distributions, under multimodal by the state at the mask. Writes runs/ablate/report.md and
    report.json; a run that was stopped goes on where it was. The current encoder and bundle stay as they are.
    """
    from engine.evaluation.ablation import OF_TOKENS
    from engine.images.features import ImageFeatures
    from jobs.steps.ablation import TABLES, AblationPlan, ablate, open_queries, show, write_report
    from jobs.steps.encoder_training import check_baseline

    if settings.json_file is not None:
        check_relative(settings.json_file)
    started = time.monotonic()
    place, processes = Workspace.open(settings.workspace), settings.processes
    tables = [t for t in TABLES if t != OF_TOKENS] if settings.table == "all" else [settings.table]
    trained = processes.workers, processes.gpu
    plan = AblationPlan(
        tables,
        settings.training(),
        settings.repeat,
        *trained,
        settings.protocol,
        settings.row,
        settings.temperature,
    )
    open_inputs(place)
    features = ImageFeatures.open(place)  # a mistake is better known now than after the first training
    for baseline in (row.baseline for _, row in plan.rows):
        if baseline:
            check_baseline(features, baseline)
    queries = open_queries(place, settings.queries, settings.columns)
    measured = ablate(place, plan, queries)
    report = write_report(place.runs("ablate"), measured, plan)
    if settings.json_file is not None:
        settings.json_file.parent.mkdir(parents=True, exist_ok=True)
        settings.json_file.write_bytes(report)
    show(measured)
    console.result(
        rows=len(plan.rows),
        trainings=len(plan.trainings()),
        queries=sum(len(q.queries) for q in queries.values()),
        refused=sum(len(q.refused) for q in queries.values()),
        seconds=f"{time.monotonic() - started:.1f}",
    )


if __name__ == "__main__":
    main.run()
