"""What is taken away in each row, and that seeds and candidates are taken from views of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import UserError
from engine.evaluation.ablation import (
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
from engine.losses.settings import Schedule
from engine.methods import METHODS
from engine.query import Query
from engine.storage.workspace import Workspace
from engine.training.settings import MultimodalSettings
from jobs.steps.ablation import AblationPlan
from tests.support.bundles import publish_vectors

BASE = MultimodalSettings(schedule=Schedule(clusters=5, smoothing=0.2))


def test_objectives_are_added_one_at_a_time() -> None:
    weights = {row.name: row.settings(BASE).schedule.weights() for row in TABLES["objectives"]}
    assert weights == {
        "masked entity prediction": (1.0, 0, 0, 0),
        "+ contrastive": (0.5, 0.5, 0, 0),
        "+ clustering": (0.8, 0, 0.2, 0),
        "+ distillation": (1.0, 0, 0, 0.02),
        "+ contrastive + clustering": (1.0, 0.5, 0.2, 0),
        "full": (1.0, 0.5, 0.2, 0.02),
    }
    assert all(row.settings(BASE).schedule.smoothing == 0.2 for row in TABLES["objectives"])


def test_modalities_are_taken_away_in_training_and_on_either_side() -> None:
    both = "text+image"
    assert {row.name: (row.settings(BASE).modality, *row.taken) for row in TABLES["modalities"]} == {
        "full": (both, both, both),
        "images only, trained without text": ("image", "image", "image"),
        "text only, trained without images": ("text", "text", "text"),
        "w/o text of seeds and candidates": (both, "image", "image"),
        "w/o text of seeds": (both, "image", both),
        "w/o text of candidates": (both, both, "image"),
        "w/o images of seeds and candidates": (both, "text", "text"),
        "w/o images of seeds": (both, "text", both),
        "w/o images of candidates": (both, both, "text"),
    }


def test_seeds_and_candidates_come_from_their_own_views(tmp_path: Path) -> None:
    """By hand: the seed's text is like entity 1's picture; its picture is like entity 2's."""
    views = {
        view_name("text"): [[1, 0], [0, 1], [0, 1], [1, 0]],
        view_name("image"): [[0, 1], [1, 0], [0, 1], [-1, 0]],
        view_name("text+image"): [[1, 1], [1, 1], [0, 1], [0, -1]],
    }
    bundle = publish_vectors(
        Workspace.open(tmp_path),
        [f"e{i}" for i in range(4)],
        {n: np.array(v, float) for n, v in views.items()},
    )
    query = Query("q", (0,))
    best = {
        (seeds, candidates): int(
            pipeline("multimodal", Row("", seeds=seeds, candidates=candidates))
            .open(bundle)([query])[0]
            .ranking.ids[0]
        )
        for seeds in ("text", "image")
        for candidates in ("text", "image")
    }
    assert best == {("text", "text"): 3, ("text", "image"): 1, ("image", "text"): 1, ("image", "image"): 2}


@pytest.mark.parametrize("name", READ_OUTS)
def test_a_whole_row_is_expanded_as_the_method_of_that_name(name: str) -> None:
    ours = pipeline(name, Row("full")).stages[0]
    assert ours.model_copy(update={"view": "multimodal", "seed_view": None}) == METHODS[name].stages[0]


def measured(row: str, queries: str, *values: float) -> Measured:
    return Measured(
        "t", row, "multimodal", queries, [{"overall": {"PosMAP@10": v, "PosAvg": 2 * v}} for v in values]
    )


def test_a_table_has_a_line_a_row_and_columns_by_set_of_queries() -> None:
    some = [
        measured("full", "3", 10.04),
        measured("full", "5", 20),
        measured("less", "3", 1),
        measured("less", "5", 2),
    ]
    header, rows = table_rows(some, ("PosMAP@10", "PosAvg"))
    assert header == ["", "3 MAP@10", "3 Avg", "5 MAP@10", "5 Avg"]
    assert rows == [["full", "10.0", "20.1", "20.0", "40.0"], ["less", "1.0", "2.0", "2.0", "4.0"]]
    assert list(grouped(some)) == [("t", "multimodal")]
    assert as_json(some)[0]["reports"] == [{"overall": {"PosMAP@10": 10.04, "PosAvg": 20.08}}]


def test_some_rows_are_filled_alone_and_a_name_that_none_has_is_refused() -> None:
    plan = AblationPlan(["objectives", "modalities"], BASE, only=["full", "+ clustering"])
    assert [(table, row.name) for table, row in plan.rows] == [
        ("objectives", "+ clustering"),
        ("objectives", "full"),
        ("modalities", "full"),
    ]
    assert len(plan.trainings()) == 2, "both tables' full rows are one training"
    with pytest.raises(UserError, match=r"--row 'all': no row of the table; it has 'image encoder', "):
        AblationPlan(["baselines"], BASE, only=["all"])


def test_several_trainings_show_their_mean_and_deviation() -> None:
    assert measured("full", "3", 10, 14).cell("PosMAP@10") == "12.0 ± 2.0"
