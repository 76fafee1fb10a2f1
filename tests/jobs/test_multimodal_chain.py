"""The whole multi-modal way as commands: pictures, training with an objective off, index, answers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.bundle import Bundle
from engine.methods import method
from engine.query import Query
from engine.retrieval.index import read_vectors
from engine.storage import Store
from engine.workspace import Workspace
from jobs import build_index, evaluate, expand, image_features, import_corpus, preprocess, train_encoder
from tests.jobs.conftest import METALS, TOLD
from tests.support.commands import run_command
from tests.support.corpora import jsonl
from tests.support.encoders import write_encoder
from tests.support.images import backbone, picture

pytestmark = pytest.mark.slow

COLOURS = ["red", "maroon", "orange", "blue", "navy", "teal"]
UNTOLD, UNSEEN = "neon", "boron"
TRAINING = [
    *("--modality", "text+image", "--epochs", 1, "--batch-size", 16),
    *("--visual-layers", 1, "--cross-layers", 1, "--no-clustering"),
]
POSITIVE, NEGATIVE = ["iron", "gold"], ["tin"]


def records() -> list[dict[str, Any]]:
    """Metals told and shown; one entity is shown only, one told only, and one picture is none."""
    pictures = {n: base64.b64encode(picture(c)).decode() for n, c in zip(METALS, COLOURS, strict=True)}
    told = [
        {"entity": n, "sentence": f"We know that {n} {t}.", "image_bytes": pictures[n]}
        for n in METALS
        for t in TOLD
    ]
    shown = [{"entity": UNTOLD, "image_bytes": base64.b64encode(picture("red", "BMP")).decode()}]
    read = [{"entity": UNSEEN, "sentence": f"We know that {UNSEEN} {t}."} for t in TOLD]
    broken = {"entity": UNSEEN, "sentence": f"Here {UNSEEN} is.", "image": "not-there.png"}
    return [*told, *shown, *read, broken]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    (root / "raw").mkdir()
    jsonl(root / "raw" / "sentences.jsonl", records())
    write_encoder(root / "text")
    where = ("--workspace", root / "w")
    steps = [
        (import_corpus.main, "--source", root / "raw", "--format", "jsonl"),
        (image_features.main, "--model", backbone(root / "vision"), "--grid", 2),
        (preprocess.main, "--images", "--model", root / "text", "--max-length", 64),
        (train_encoder.main, *TRAINING),
        (build_index.main,),
    ]
    for main, *words in steps:
        assert run_command(main, *where, *words) == 0, main.__module__
    return root


def test_the_switched_off_objective_was_off(trained: Path) -> None:
    runs = Workspace.open(trained / "w").runs("train_multimodal")
    name = (runs / "CURRENT").read_bytes().decode().strip()
    summary = json.loads((runs / name / "summary.json").read_bytes())
    assert summary["settings"]["schedule"]["clustering"] is False
    assert summary["settings"]["schedule"]["contrastive"] is True
    assert np.isfinite(summary["losses"]).all()


def test_every_entity_that_is_told_or_shown_has_its_views(trained: Path) -> None:
    bundle = Bundle.open(Workspace.open(trained / "w"))
    has = {
        view: set(np.flatnonzero(read_vectors(bundle.path(f"index/{view}.faiss")).any(axis=1)))
        for view in ("image", "multimodal", "joint")
    }
    ids = {name: bundle.vocabulary.resolve(name) for name in (*METALS, UNTOLD, UNSEEN)}
    assert has["image"] == {ids[n] for n in (*METALS, UNTOLD)}
    assert has["multimodal"] == has["joint"] == set(ids.values())


@pytest.mark.parametrize("name", ["multiexpan+segments", "default"])
def test_a_batch_answers_as_a_process_does(trained: Path, name: str) -> None:
    query = {"id": "q", "positive": POSITIVE, "negative": NEGATIVE}
    (trained / f"{name}.jsonl").write_text(json.dumps(query))
    output = trained / f"out-{name}"
    words = ("--workspace", trained / "w", "--queries", trained / f"{name}.jsonl", "--method", name)
    assert run_command(expand.main, *words, "--output", output) == 0
    bundle = Bundle.open(Workspace.open(trained / "w"))
    seeds = [tuple(bundle.vocabulary.resolve(n) for n in query[kind]) for kind in ("positive", "negative")]
    (local,) = method(name).open(bundle)([Query("q", *seeds)])
    rows = pq.read_table(output).to_pylist()
    assert [row["entity_id"] for row in rows] == local.ranking.ids.tolist()
    np.testing.assert_array_equal(np.array([row["score"] for row in rows], np.float32), local.ranking.scores)
    assert {row["name"] for row in rows}.isdisjoint(query["positive"] + query["negative"])
    assert len(rows) >= 5
    named = {row["name"]: row["images"] for row in rows}
    assert named[UNSEEN] == [], "an image that could not be used is not named"
    workspace = Workspace.open(trained / "w")
    assert workspace.image(named[UNTOLD][0]).read_bytes() == picture("red", "BMP")


def test_queries_in_the_layout_of_mesed_are_measured(trained: Path) -> None:
    folder = trained / "mesed"
    (folder / "query").mkdir(parents=True)
    (folder / "gt").mkdir()
    lines = [f"{name}\t{100 + i}\n" for i, name in enumerate(METALS)]
    (folder / "entity2id.txt").write_text("".join(lines))
    (folder / "query" / "metals.txt").write_text("100 101 102\nEXIT\n")
    (folder / "gt" / "metals.txt").write_text("".join(f"{100 + i}\t{n}\t1\n" for i, n in enumerate(METALS)))
    words = ("--workspace", trained / "w", "--queries", folder / "query", "--json", trained / "report.json")
    assert run_command(evaluate.main, *words, "--method", "multiexpan", "--method", "default") == 0
    report = json.loads(Store.open(trained / "report.json").read_bytes())
    assert "MAP@10" in json.dumps(report)
