"""The whole multi-modal way as commands: pictures, training with an objective off, index, answers."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.evaluation.ablation import OF_TOKENS, TABLES, Row
from engine.methods import method
from engine.query import Query
from engine.retrieval.index import read_vectors
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from engine.typing.model import TypingModel
from jobs import (
    ablate,
    build_index,
    evaluate,
    expand,
    image_features,
    import_corpus,
    preprocess,
    reproduce,
    train_encoder,
)
from jobs.steps import ablation
from tests.jobs.conftest import METALS, TOLD
from tests.support.commands import run_command
from tests.support.corpora import jsonl
from tests.support.encoders import write_encoder
from tests.support.images import backbone, image_bytes

COLOURS = ["red", "maroon", "orange", "blue", "navy", "teal"]
UNTOLD, UNSEEN = "neon", "boron"
TRAINING = [
    *("--modality", "text+image", "--epochs", 1, "--batch-size", 16),
    *("--visual-layers", 1, "--cross-layers", 1, "--no-clustering"),
]
POSITIVE, NEGATIVE = ["iron", "gold"], ["tin"]


def records() -> list[dict[str, Any]]:
    """Metals told and shown; one entity is shown only, one told only, and one picture is none."""
    pictures = {n: base64.b64encode(image_bytes(c)).decode() for n, c in zip(METALS, COLOURS, strict=True)}
    told = [
        {"entity": n, "sentence": f"We know that {n} {t}.", "image_bytes": pictures[n]}
        for n in METALS
        for t in TOLD
    ]
    shown = [{"entity": UNTOLD, "image_bytes": base64.b64encode(image_bytes("red", "BMP")).decode()}]
    read = [{"entity": UNSEEN, "sentence": f"We know that {UNSEEN} {t}."} for t in TOLD]
    broken = {"entity": UNSEEN, "sentence": f"Here {UNSEEN} is.", "image": "not-there.png"}
    return [*told, *shown, *read, broken]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, in_this_process: None) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    (root / "raw").mkdir()
    jsonl(root / "raw" / "sentences.jsonl", records())
    write_encoder(root / "text")
    where = ("--workspace", root / "w")
    steps: list[tuple[Any, ...]] = [
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


def test_the_joint_view_has_texts_and_states_scaled_alike_and_no_types(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "w", tmp_path / "w")
    (tmp_path / "types").mkdir()
    TypingModel.begin(str(trained / "text"), ["metal", "person"]).save(tmp_path / "types")
    assert run_command(build_index.main, "--workspace", tmp_path / "w", "--types", tmp_path / "types") == 0
    assert "the joint view with images is made without types" in capsys.readouterr().err
    bundle = Bundle.open(Workspace.open(tmp_path / "w"))
    views = {
        name: read_vectors(bundle.path(f"index/{name}.faiss")).astype(np.float64)
        for name in ("description", "lexical", "multimodal", "types", "joint")
    }
    assert views["types"].any()
    assert not views["description"].any(), "these entities have none"
    scaled = []
    for name, weight in (("lexical", 1.0), ("multimodal", 2**0.5)):
        present = views[name][views[name].any(axis=1)]
        products = present @ present.T
        spread = products[~np.eye(len(present), dtype=bool)].std()
        scaled.append(weight * views[name] / np.sqrt(spread))
    joint = np.concatenate(scaled, axis=1)
    joint /= np.linalg.norm(joint, axis=1, keepdims=True)
    np.testing.assert_allclose(views["joint"], joint, atol=1e-5)


def test_a_batch_answers_as_a_process_does(trained: Path) -> None:
    name = "multiexpan+segments"
    query = {"id": "q", "positive": POSITIVE, "negative": NEGATIVE}
    (trained / f"{name}.jsonl").write_text(json.dumps(query))
    output = trained / f"out-{name}"
    words = ("--workspace", trained / "w", "--queries", trained / f"{name}.jsonl", "--method", name)
    assert run_command(expand.main, *words, "--output", output) == 0
    bundle = Bundle.open(Workspace.open(trained / "w"))
    liked, not_liked = (tuple(map(bundle.vocabulary.resolve, names)) for names in (POSITIVE, NEGATIVE))
    (local,) = method(name).open(bundle)([Query("q", liked, not_liked)])
    rows = pq.read_table(output).to_pylist()
    assert [row["entity_id"] for row in rows] == local.ranking.ids.tolist()
    np.testing.assert_array_equal(np.array([row["score"] for row in rows], np.float32), local.ranking.scores)
    assert {row["name"] for row in rows}.isdisjoint(POSITIVE + NEGATIVE)
    assert len(rows) >= 5
    named = {row["name"]: row["images"] for row in rows}
    assert named[UNSEEN] == [], "an image that could not be used is not named"
    workspace = Workspace.open(trained / "w")
    assert workspace.image(named[UNTOLD][0]).read_bytes() == image_bytes("red", "BMP")


@pytest.fixture
def queries(trained: Path) -> Path:
    """A class of six metals in the layout of MESED."""
    folder = trained / "mesed" / "query"
    for one in (folder, folder.parent / "gt"):
        one.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}\t{100 + i}\n" for i, name in enumerate(METALS)]
    (folder.parent / "entity2id.txt").write_text("".join(lines))
    (folder / "metals.txt").write_text("100 101 102\nEXIT\n")
    true = [f"{100 + i}\t{n}\t1\n" for i, n in enumerate(METALS)]
    (folder.parent / "gt" / "metals.txt").write_text("".join(true))
    return folder


def test_queries_in_the_layout_of_mesed_are_measured(trained: Path, queries: Path) -> None:
    words = ("--workspace", trained / "w", "--queries", queries, "--json", trained / "report.json")
    assert run_command(evaluate.main, *words, "--method", "multiexpan", "--method", "default") == 0
    report = json.loads((trained / "report.json").read_bytes())
    for name in ("multiexpan", "default"):
        assert report[name]["overall"]["queries"] == 1
        assert 0 < report[name]["overall"]["PosMAP@10"] <= 100


def test_an_ablation_trains_once_and_leaves_the_workspace_as_it_was(
    trained: Path,
    queries: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    off = {"clustering": False}
    rows = (Row("full", off), Row("w/o text of seeds", off, seeds="image"))
    monkeypatch.setattr(ablation, "TABLES", {"modalities": rows})
    workspace = Workspace.open(trained / "w")
    pointers = (workspace.bundles / "CURRENT", workspace.runs("train_multimodal") / "CURRENT")
    before = [pointer.read_bytes() for pointer in pointers]
    words = ("--workspace", trained / "w", "--queries", queries, "--table", "modalities")
    assert run_command(ablate.main, *words, *TRAINING[2:-1]) == 0
    out, err = capsys.readouterr()
    assert "training 1 of 1" in err
    assert "this run is finished" in err, "the same training has one name wherever it is started"
    assert "rows=2 trainings=1 queries=1" in out
    assert [pointer.read_bytes() for pointer in pointers] == before
    report = json.loads((workspace.runs("ablate") / "report.json").read_bytes())
    assert [(m["row"], m["read_out"]) for m in report["measured"]] == [
        (row.name, read_out) for row in rows for read_out in ("multiexpan", "multimodal")
    ]
    # Of the state at the mask: what the published bundle's own method measures.
    runs = workspace.runs("evaluate")
    assert run_command(evaluate.main, *words[:4], "--method", "multimodal") == 0
    published = json.loads((runs / "multimodal" / "report.json").read_bytes())
    assert report["measured"][1]["reports"][0]["overall"] == published["overall"]
    cells = {f.path: f.read_bytes() for f in workspace.runs("cells").files("report.json")}
    assert len(cells) == 4, "two rows under two read-outs"
    assert run_command(ablate.main, *words, *TRAINING[2:-1]) == 0
    assert "entities by" not in capsys.readouterr().err, "what was made is not made again"
    assert {f.path: f.read_bytes() for f in workspace.runs("cells").files("report.json")} == cells
    # The same training, read out at the paper's temperature: other distributions.
    assert run_command(ablate.main, *words, *TRAINING[2:-1], "--temperature", 1) == 0
    shown = capsys.readouterr().err
    assert "this run is finished" in shown
    assert "entities by text+image" in shown
    again = json.loads((workspace.runs("ablate") / "report.json").read_bytes())
    assert (report["temperature"], again["temperature"]) == (4, 1)
    states = [[m["reports"][0]["overall"] for m in r["measured"][1::2]] for r in (report, again)]
    assert states[0] == states[1], "the state at the mask has no temperature"
    assert len(list(workspace.runs("cells").files("report.json"))) == 8
    # Begun at random, as the paper does, it is another training, whose trained head is read.
    assert run_command(ablate.main, *words, *TRAINING[2:-1], "--init", "random", "--row", "full") == 0
    assert "this run is finished" not in capsys.readouterr().err
    settings = json.loads((workspace.runs("ablate") / "report.json").read_bytes())["settings"]
    assert (settings["summary"], settings["identity"]) == (False, False)
    assert settings.get("head", "trained") == "trained"
    # The same by a preset's chain of commands.
    sizes = "epochs: 1, batch_size: 16, visual_layers: 1, cross_layers: 1"
    preset = tmp_path / "ablations.yaml"
    preset.write_text(f"ablate: {{table: modalities, temperature: 1, {sizes}}}\n")
    chain = ("--preset", preset, "--source", "nowhere", *words[:4])
    assert run_command(reproduce.main, *chain) == 0
    out, err = capsys.readouterr()
    assert "entities by" not in err
    assert "preset=ablations steps=1 made=1" in out


def test_baselines_are_measured_where_the_input_of_the_last_block_was_kept(
    trained: Path, queries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "w", tmp_path / "w")
    where = ("--workspace", tmp_path / "w")
    assert run_command(train_encoder.main, *where, "--baseline", "albef") == 2
    assert "image-features --patches tokens" in capsys.readouterr().err
    features = ("--model", trained / "vision", "--patches", "tokens")
    assert run_command(image_features.main, *where, *features) == 0
    assert run_command(train_encoder.main, *where, "--baseline", "beit") == 2
    assert "of type resnet" in capsys.readouterr().err
    words = (*where, "--queries", queries, "--table", "baselines", "--epochs", 1, "--batch-size", 16)
    assert run_command(ablate.main, *words, "--cross-layers", 1) == 0
    report = json.loads((tmp_path / "w" / "runs" / "ablate" / "report.json").read_bytes())
    rows = [m["row"] for m in report["measured"] if m["read_out"] == "multimodal"]
    assert rows == [row.name for row in TABLES[OF_TOKENS]]
    assert all(m["reports"][0]["overall"]["PosMAP@10"] > 0 for m in report["measured"])
