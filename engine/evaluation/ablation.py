"""Ablate MultiExpan: objectives one by one; modalities in training, in seeds, in candidates.

What the paper's tables 4 and 5 show, as data. A row is a training and what is taken of seeds and of
candidates when sets are expanded; rows of one training share it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.evaluation.report import COLUMNS, Report
from engine.stages.base import Pipeline
from engine.stages.retrieve import Retrieve
from engine.stages.window_search import WindowSearch
from engine.training.settings import ENTITY_PREDICTION_ALONE as ALONE
from engine.training.settings import Baseline, Modality, MultimodalSettings, baseline_settings

BOTH: Modality = "text+image"


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        name: as the paper names it.
        objectives: switches of :class:`~engine.losses.settings.Schedule` that differ from the base's.
        trained: what the encoder is trained on.
        seeds, candidates: what is taken of their contexts in expansion; None: as trained.
        baseline: what is trained in MultiExpan's place, by entity prediction alone.
    """

    name: str
    objectives: Mapping[str, bool] = field(default_factory=dict)
    trained: Modality = BOTH
    seeds: Modality | None = None
    candidates: Modality | None = None
    baseline: Baseline | None = None

    def settings(self, base: MultimodalSettings) -> MultimodalSettings:
        """Return the settings of the row's training."""
        if self.baseline:
            return baseline_settings(base, self.baseline)
        schedule = base.schedule.model_copy(update=dict(self.objectives))
        return base.model_copy(update={"modality": self.trained, "schedule": schedule})

    @property
    def taken(self) -> tuple[Modality, Modality]:
        """The modalities that are used of seeds and of candidates."""
        return self.seeds or self.trained, self.candidates or self.trained


OF_TOKENS = "baselines"
"""The table whose rows need image features of the whole input of the backbone's last block."""

TABLES: Mapping[str, tuple[Row, ...]] = {
    # Table 4; contrast and clustering together are ours.
    "objectives": (
        Row("masked entity prediction", ALONE),
        Row("+ contrastive", {**ALONE, "contrastive": True}),
        Row("+ clustering", {**ALONE, "clustering": True}),
        Row("+ distillation", {**ALONE, "distillation": True}),
        Row("+ contrastive + clustering", {"distillation": False}),
        Row("full"),
    ),
    # Table 5. What the encoder never saw in training it is not asked of in expansion either.
    "modalities": (
        Row("full"),
        Row("images only, trained without text", trained="image"),
        Row("text only, trained without images", trained="text"),
        Row("w/o text of seeds and candidates", seeds="image", candidates="image"),
        Row("w/o text of seeds", seeds="image", candidates=BOTH),
        Row("w/o text of candidates", seeds=BOTH, candidates="image"),
        Row("w/o images of seeds and candidates", seeds="text", candidates="text"),
        Row("w/o images of seeds", seeds="text", candidates=BOTH),
        Row("w/o images of candidates", seeds=BOTH, candidates="text"),
    ),
    # Table 3: what the first row is called there depends on the backbone (ViT, BEiT or CLIP's image side).
    OF_TOKENS: (
        Row("image encoder", trained="image", baseline="image"),
        Row("two towers (CLIP)", baseline="two-towers"),
        Row("cross-attention (ALBEF)", baseline="albef"),
    ),
}


def view_name(modality: Modality) -> str:
    """Return the name of the view and of the distributions that a modality leaves."""
    return f"multimodal:{modality}"


def _window(seeds: str, candidates: str) -> Pipeline:
    return Pipeline((WindowSearch(view=candidates, seed_view=seeds),))


def _states(seeds: str, candidates: str) -> Pipeline:
    return Pipeline((Retrieve(view=candidates, seed_view=seeds),))


READ_OUTS: Mapping[str, Callable[[str, str], Pipeline]] = {"multiexpan": _window, "multimodal": _states}
"""The methods that read an encoder's output: the paper's expansion over predicted distributions, and cosine
of the mask representations."""


def pipeline(read_out: str, row: Row) -> Pipeline:
    """Return what expands the row's sets."""
    seeds, candidates = row.taken
    return READ_OUTS[read_out](view_name(seeds), view_name(candidates))


@dataclass(frozen=True)
class Measured:
    """A row under one read-out on one set of queries: a report for every seed of training."""

    table: str
    row: str
    read_out: str
    queries: str
    reports: Sequence[Report]

    def mean(self, column: str) -> float:
        """Return a column's mean over the trainings, in percent."""
        return float(np.mean([report["overall"][column] for report in self.reports]))

    def spread(self, column: str) -> float:
        """Return the standard deviation over the trainings."""
        return float(np.std([report["overall"][column] for report in self.reports]))

    def cell(self, column: str) -> str:
        """Return a column for a table; with several trainings, its spread too."""
        if len(self.reports) == 1:
            return f"{self.mean(column):.1f}"
        return f"{self.mean(column):.1f} ± {self.spread(column):.1f}"


SHORT = ("PosMAP@10", "PosMAP@100", "PosAvg")
LONG = (*(f"Pos{column}" for column in COLUMNS), "PosAvg")


def table_rows(
    measured: Sequence[Measured], columns: Sequence[str] = SHORT
) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of one table under one read-out: columns by set of queries."""
    sets = list(dict.fromkeys(m.queries for m in measured))
    header = ["", *(f"{name} {column.removeprefix('Pos')}" for name in sets for column in columns)]
    rows = [
        [
            name,
            *(
                m.cell(column)
                for one in sets
                for m in measured
                if (m.row, m.queries) == (name, one)
                for column in columns
            ),
        ]
        for name in dict.fromkeys(m.row for m in measured)
    ]
    return header, rows


def grouped(measured: Sequence[Measured]) -> dict[tuple[str, str], list[Measured]]:
    """Return what was measured by table and read-out, in order."""
    found: dict[tuple[str, str], list[Measured]] = {}
    for one in measured:
        found.setdefault((one.table, one.read_out), []).append(one)
    return found


def as_json(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return everything for programs."""
    return [vars(one) | {"reports": list(one.reports)} for one in measured]
