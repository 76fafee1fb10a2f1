"""Fit probabilities to queries with known answers; measured on other classes, published beside the rest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import BundleError
from engine.expander import Expander
from engine.membership import CONSTANTS, MEMBERSHIP, Answered, Constants, all_constants
from engine.stages.membership import open_cohesions
from engine.storage.bundle import Bundle
from engine.storage.publishing import derive
from engine.storage.workspace import Workspace
from jobs.calibrate import halves, main, measure
from tests.support.bundles import method_bundle, publish_vectors
from tests.support.commands import run_command

CLASSES = ("birds", "ships", "towns", "trees")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four classes of 30 entities in directions of their own, and queries of each."""
    random = np.random.default_rng(0)
    vectors = np.repeat(np.eye(4, 12), 30, axis=0) + random.normal(scale=0.25, size=(120, 12))
    names = [f"{name} {number}" for name in CLASSES for number in range(30)]
    views = dict.fromkeys(("joint", "mask"), vectors)
    publish_vectors(Workspace.open(tmp_path / "w"), names, views, {"joint": random.random(120) / 10})
    (tmp_path / "query").mkdir()
    for place, name in enumerate(CLASSES):
        own = names[30 * place : 30 * (place + 1)]
        records = [
            {"query_id": f"{name}-{i}", "pos_seeds": own[i : i + 3], "pos_gt": own[:i] + own[i + 3 :]}
            for i in range(0, 12, 3)
        ]
        (tmp_path / "query" / f"{name}.json").write_text(json.dumps(records))
    return tmp_path


def calibrate(root: Path, *extra: str) -> int:
    return run_command(main, "--workspace", root / "w", "--queries", root / "query", *extra)


def test_what_was_fitted_is_published_and_used(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace.open(root / "w")
    before = Expander.open(root / "w").expand(["birds 0", "birds 1", "birds 2"], top_k=50)
    plot = root / "reliability.png"
    assert calibrate(root, "--plot", str(plot)) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    last = dict(pair.split("=") for pair in capsys.readouterr().out.splitlines()[-1].split())
    assert last["queries"] == "16"
    assert float(last["calibration_error"]) < 0.05, "the other classes are alike"
    assert float(last["proposed_f1"]) > 0.9 * float(last["best_f1"])
    bundle = Bundle.open(workspace)
    assert last["bundle"] == bundle.id
    assert set(all_constants(bundle)) == {"default"}
    assert all_constants(bundle)["default"] != CONSTANTS["default"]
    after = Expander.open(root / "w").expand(["birds 0", "birds 1", "birds 2"], top_k=50)
    assert [r.name for r in after.results] == [r.name for r in before.results]
    proposed = after.results[: after.counts["proposed"]]
    assert sum(r.name.startswith("birds") for r in proposed) > 20
    assert [r.evidence["probability"] for r in after.results] != [
        r.evidence["probability"] for r in before.results
    ]
    # Another method's constants stand beside them.
    assert calibrate(root, "--method", "retexpan-negative") == 0
    assert set(all_constants(Bundle.open(workspace))) == {"default", "retexpan-negative"}


def test_a_dry_run_measures_what_is_there_and_publishes_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Bundle.open(Workspace.open(root / "w"))
    assert calibrate(root, "--dry-run") == 0
    assert f"bundle={before.id} queries=16" in capsys.readouterr().out
    assert calibrate(root, "--dry-run", "--method", "retexpan-negative") == 2
    assert "no constants of 'retexpan-negative' yet" in capsys.readouterr().err
    assert Bundle.open(Workspace.open(root / "w")).id == before.id
    assert MEMBERSHIP not in before.manifest.files


def test_constants_of_a_former_formula_are_replaced(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace.open(root / "w")
    staged = workspace.bundles.staging()
    (workspace.bundles / Bundle.open(workspace).id / "entities.parquet").fetch(staged / "entities.parquet")
    (staged / MEMBERSHIP).write_text(json.dumps({"default": [1, 2, 3, 4], "retexpan": [1, 2, 3, 4]}))
    derive(workspace, staged, {}, replaces=())
    assert calibrate(root, "--dry-run") == 2
    assert "membership.json has constants of 'default' for another formula" in capsys.readouterr().err
    assert calibrate(root) == 0
    assert "are left out; calibrate again: retexpan\n" in capsys.readouterr().err
    assert set(all_constants(Bundle.open(workspace))) == {"default"}


def test_too_few_queries_are_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = root / "query" / "birds.json"
    one.write_text(json.dumps(json.loads(one.read_text())[:3]))
    assert run_command(main, "--workspace", root / "w", "--queries", one) == 2
    assert "at least 4 are needed" in capsys.readouterr().err


def answered(label: str, first_true: int) -> Answered:
    return Answered(label, np.linspace(0.5, 0, 20, dtype=np.float32), np.arange(20) < first_true, first_true)


def test_classes_are_halved_and_lists_of_a_single_class() -> None:
    lists = [answered(label, n) for n, label in enumerate("abcab", 1)]
    assert [[one.label for one in half] for half in halves(lists)] == [["a", "c", "a"], ["b", "b"]]
    assert [[one.size for one in half] for half in halves([answered("a", n) for n in (1, 2, 3)])] == [
        [1, 3],
        [2],
    ]


def test_what_is_measured_by_hand() -> None:
    sure = Constants(-1000.0, 4000.0, 0.0, 0.0)  # scores above 0.25 belong: the first ten
    found = measure([(sure, [answered("a", 10), answered("a", 5)])])
    assert (found.queries, found.best_f1) == (2, 1)
    assert found.proposed_f1 == pytest.approx((1 + 2 * 5 / 15) / 2)
    assert found.same_end_f1 == pytest.approx(found.proposed_f1)
    assert found.reliability.error == pytest.approx(5 / 40)


def test_a_bundle_of_any_method_is_calibrated(tmp_path: Path) -> None:
    method_bundle(tmp_path / "w")
    query = tmp_path / "q.jsonl"
    records = [
        {
            "query_id": str(i),
            "pos_seeds": [f"entity {i}"],
            "neg_seeds": [f"entity {i + 20}"],
            "pos_gt": ["entity 9"],
        }
        for i in range(4)
    ]
    query.write_text("\n".join(map(json.dumps, records)))
    given = ("--workspace", tmp_path / "w", "--queries", query, "--method", "retexpan", "--view")
    assert run_command(main, *given, "mask") == 0
    with pytest.raises(BundleError, match=r"index/none\.faiss"):
        open_cohesions(Bundle.open(Workspace.open(tmp_path / "w")), "none")
