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


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "q.jsonl"


def expand(root: Path, queries: Path, out: Path, *extra: object) -> int:
    words = ["--workspace", root / "w", "--queries", queries, "--method", "retexpan", "--output", out]
    return run_command(main, *words, "--workers", 1, *extra)


def refused(out: Path) -> dict[str | None, dict[str, Any]]:
    lines = map(json.loads, (out / "_refused.jsonl").read_text().splitlines())
    return {one["query_id"]: one for one in lines}


def test_rows_name_their_own_methods(root: Path, tmp_path: Path) -> None:
    rows = [
        {"id": "none", "positive": [1, 2], "negative": [5]},
        {"id": "own", "positive": [1, 2], "negative": [5], "method": "default"},
        {"id": "same", "positive": [1, 2], "negative": [5], "method": "retexpan"},
        {"id": "no", "positive": [1], "method": "retexpam"},
        {"id": "module", "positive": [1], "method": "tests.support.own_methods:LIFTED"},
        {"id": "dependent", "positive": [1], "method": "multiexpan+joint"},
        {"id": "chat", "positive": [1], "method": "chat"},
    ]
    assert expand(root, written(tmp_path, rows), tmp_path / "out") == 0
    ranked: dict[str, list[int]] = {}
    for row in pq.read_table(tmp_path / "out").to_pylist():
        ranked.setdefault(row["query_id"], []).append(row["entity_id"])
    bundle = Bundle.open(Workspace.open(root / "w"))
    for name, of in (("none", "retexpan"), ("same", "retexpan"), ("own", "default")):
        (expected,) = method(of).open(bundle)([Query(name, (1, 2), (5,))])
        assert ranked[name] == expected.ranking.ids.tolist()
    assert ranked["none"] != ranked["own"]
    reasons = refused(tmp_path / "out")
    assert "unknown method 'retexpam'; did you mean 'retexpan'" in reasons["no"]["reason"]
    assert reasons["no"]["position"] == 4
    assert reasons["module"]["reason"].startswith("query 'module': method: unknown method 'tests.")
    assert "unknown method" in reasons["dependent"]["reason"]
    assert "method: 'chat' is not available here" in reasons["chat"]["reason"]
    run = json.loads((tmp_path / "out" / "_run.json").read_text())
    assert run["methods"] == {"default": str(method("default"))}


def test_refused_rows_keep_their_id_whatever_is_wrong(root: Path, tmp_path: Path) -> None:
    bad = ['{"query_id": 7, "positive": "x"}', '{"id": "twice", "id": "twice", "positive": [1]}']
    bad += ['{"id": "field", "positive": [1], "negatives": []}', "not json"]
    (tmp_path / "q.jsonl").write_text("\n".join(['{"id": "good", "positive": [1]}', *bad]))
    assert expand(root, tmp_path / "q.jsonl", tmp_path / "out") == 0
    found = refused(tmp_path / "out")
    assert {name: one["position"] for name, one in found.items()} == {"7": 2, "twice": 3, "field": 4, None: 5}


def test_strict_allows_no_refused_query(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": "good", "positive": [1]}, {"id": "bad", "positive": [1], "bundle": "other"}]
    assert expand(root, written(tmp_path, rows), tmp_path / "out", "--strict") == 2
    shown = capsys.readouterr()
    assert "1 queries were refused, and --strict was given" in shown.err
    assert "bundle: 'other' is not the one that answers" in shown.err
    assert not (tmp_path / "out").exists(), "nothing was begun"
    failing = [rows[0], {"id": "late", "positive": [1], "method": "genexpan+cot-positive-given"}]
    for words, status in (((), 0), (("--strict",), 2)):
        assert expand(root, written(tmp_path, failing), tmp_path / "other", *words) == status
        shown = capsys.readouterr()
        assert "refused=0 failed=1" in shown.out
        assert "REFUSED late: query 'late': the method takes positive_attributes" in shown.err
    assert "1 queries could not be answered, and --strict was given" in shown.err
    (line,) = refused(tmp_path / "other").values()
    assert (line["code"], line["position"]) == ("query_invalid", 2)
    rows = pq.read_table(tmp_path / "other", columns=["query_id", "rank", "degraded"]).to_pylist()
    (late,) = [row for row in rows if row["query_id"] == "late"]
    assert (late["rank"], late["degraded"]) == (0, [line["reason"]])


def test_explained_rows_say_why(root: Path, tmp_path: Path) -> None:
    rows = [{"id": "why", "positive": [1, THULE], "negative": [4], "explain": True, "top_k": 3}]
    (found,) = answers(root, written(tmp_path, rows), tmp_path / "out").values()
    assert len(found) == 3
    for row in found:
        why = row["explanation"]
        assert why["nearest_positive"]["name"] in ("entity 1", "Thule")
        assert why["nearest_negative"]["name"] == "entity 4"
        assert row["name"] in why["sentences"][0]["text"]
        assert not [name for name, _ in row["evidence"] if name.startswith("nearest")]


def test_a_command_that_is_told_to_end_blames_no_query(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Actors that die with the command leave their notes, as those that a query kills do."""

    def ended(*_: Any, **__: Any) -> None:
        (tmp_path / "out" / "_attempts").mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / "_attempts" / "00000-1.json").write_text('{"deaths": 1, "query": "a"}')
        raise SystemExit(143)

    monkeypatch.setattr("jobs.expand.make_parts", ended)
    assert expand(root, written(tmp_path, [{"id": "a", "positive": [1, 2]}]), tmp_path / "out") == 143
    assert not list((tmp_path / "out" / "_attempts").iterdir())


def test_a_poison_query_is_left_out_when_its_process_died_before(root: Path, tmp_path: Path) -> None:
    """As a process leaves it that died twice with the query alone in hand."""
    rows = [{"id": name, "positive": [1, 2]} for name in ("a", "killer", "b")]
    note = {"deaths": 2, "query": "killer", "by_query": {"killer": 1}}
    (tmp_path / "out" / "_attempts").mkdir(parents=True)
    (tmp_path / "out" / "_attempts" / "00000-1.json").write_text(json.dumps(note))
    assert expand(root, written(tmp_path, rows), tmp_path / "out") == 0
    found = pq.read_table(tmp_path / "out").to_pylist()
    assert {row["query_id"] for row in found if row["rank"]} == {"a", "b"}
    (line,) = refused(tmp_path / "out").values()
    assert (line["query_id"], line["code"]) == ("killer", "worker_died")
    assert "SegmentRerank: its worker died 2 times with this query alone in hand" in line["reason"]
    assert not list((tmp_path / "out" / "_attempts").iterdir())
