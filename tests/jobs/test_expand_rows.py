"""Rows of a table may hold filters and new entities, as requests may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.methods import method, with_new_entities
from engine.query import NewEntity, Query
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from jobs.evaluate import main as evaluate
from jobs.expand import main
from tests.support.bundles import method_bundle
from tests.support.commands import run_command

SENTENCES = ["Thule is far.", "Who has seen Thule?"]
THULE = {"name": "Thule", "sentences": SENTENCES}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rows")
    method_bundle(root / "w", n=60, d=8)
    return root


def answers(root: Path, queries: Path, out: Path, name: str = "default") -> dict[str, list[dict[str, Any]]]:
    words = ["--workspace", root / "w", "--queries", queries, "--method", name, "--output", out]
    assert run_command(main, *words) == 0
    found: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(out).to_pylist():
        found.setdefault(row["query_id"], []).append(row)
    return found


def test_filters_and_new_entities_are_obeyed(root: Path, tmp_path: Path) -> None:
    rows = [
        {"id": "all", "positive": [1, 2]},
        {"id": "odd", "positive": [1, 2], "filter": {"parity": "odd"}},
        {"id": "new", "positive": [3, THULE], "negative": [5]},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = answers(root, tmp_path / "q.jsonl", tmp_path / "out")
    assert {row["entity_id"] % 2 for row in found["odd"]} == {1}
    assert [row for row in found["all"] if row["entity_id"] % 2]
    assert len(found["odd"]) == 29, "every odd one but the seed"
    bundle = Bundle.open(Workspace.open(root / "w"))
    new = Query("new", (3, -1), (5,), new=(NewEntity("Thule", tuple(SENTENCES)),))
    (plain,) = with_new_entities(method("default")).open(bundle)([new])
    assert [row["entity_id"] for row in found["new"]] == plain.ranking.ids.tolist()
    assert not any(row["degraded"] for row in found["new"])


def test_parquet_holds_them_as_maps_and_structs(root: Path, tmp_path: Path) -> None:
    seed = pa.struct([("name", pa.string()), ("sentences", pa.list_(pa.string()))])
    columns = {
        "id": pa.array(["q"]),
        "positive": pa.array([[{"name": "entity 3"}, THULE]], pa.list_(seed)),
        "filter": pa.array([[("parity", ["odd"])]], pa.map_(pa.string(), pa.list_(pa.string()))),
    }
    pq.write_table(pa.table(columns), tmp_path / "q.parquet")
    found = answers(root, tmp_path / "q.parquet", tmp_path / "out", "retexpan")
    assert {row["entity_id"] % 2 for row in found["q"]} == {1}
    assert 3 not in [row["entity_id"] for row in found["q"]]


@pytest.mark.parametrize("row", [{"filter": {"parity": "odd"}}, {"positive": [1, THULE]}])
def test_what_measures_answers_refuses_them(
    root: Path, tmp_path: Path, row: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": "bad", "positive": [1], "pos_gt": [2]} | row]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["--workspace", root / "w", "--queries", tmp_path / "q.jsonl", "--method", "retexpan"]
    assert run_command(evaluate, *words) == 2
    assert "is taken by `seedset expand` and over HTTP alone" in capsys.readouterr().err
