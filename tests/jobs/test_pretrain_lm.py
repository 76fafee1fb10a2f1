"""Pre-training on real Ray workers: what it leaves behind, and a run that is stopped and goes on."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.corpus.blocks.format import BlockSettings, open_blocks
from engine.errors import UserError
from engine.generation.model import LanguageModel
from engine.generation.tokenizers import load_tokenizer
from engine.generation.trie import Trie
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from engine.training.lm import LmSettings, LmTraining
from engine.training.lm_models import open_model
from jobs import pretrain_lm
from jobs.pretrain_lm import Start, pretrain, start
from jobs.steps.lm_blocks import make_blocks, neighbours_of
from tests.jobs.conftest import METALS, import_metals
from tests.support.bundles import publish_vectors
from tests.support.commands import run_command
from tests.support.train_workers import kill_a_worker, wait_for_checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.ray]

Patch = pytest.MonkeyPatch

EPOCHS = 60
"""Of the run whose worker is killed: enough of them that it is killed before the end."""

TINY = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "config.json"
    path.write_text(json.dumps(TINY))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:
    """A workspace with a corpus, and a bundle of its entities that holds vectors."""
    folder = tmp_path_factory.mktemp("metals")
    import_metals(str(folder / "w"), folder / "raw")
    workspace = Workspace.open(folder / "w")
    vectors = np.eye(len(METALS))
    views = {"mask": vectors, "joint": vectors}
    publish_vectors(workspace, METALS, views, {"joint": np.zeros(len(METALS))})
    published = Bundle.open(workspace).path("entities.parquet")
    workspace.entities.write_bytes(published.read_bytes())  # the same entities, byte by byte
    return folder / "w"


@pytest.mark.faults
def test_a_killed_worker_resumes_the_same_curve_and_leaves_a_whole_run(
    place: Path, config: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")  # a report waits for the next check
    workspace = Workspace.open(place)
    words: tuple[object, ...] = ("--workspace", place, "--init-from-config", config, "--vocab-size", 300)
    words += ("--block", 32)
    words += ("--epochs", EPOCHS, "--held-out", 0.1, "--lists", 3, "--precision", "float32", "--seed", 6)
    words += ("--learning-rate", 1e-3, "--checkpoint-seconds", 0.2)
    killed = kill_a_worker(Path(workspace.runs("pretrain_lm").path))
    assert run_command(pretrain_lm.main, *words) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert killed, "the run ended before its worker was killed"
    bundle = Bundle.open(workspace)
    assert f"bundle={bundle.id}" in last
    folder = Path(workspace.runs("pretrain_lm").path) / bundle.manifest.settings["lm"]["run"]
    summary = json.loads((folder / "summary.json").read_bytes())
    assert 0 < summary["resumed_at"] < summary["steps"]
    _check_run(workspace, summary)
    _check_bundle(bundle, summary)
    _check_events(folder, summary)
    texts = BlockSettings(
        tokenizer="",
        vocab_size=0,
        block=32,
        held_out=0.1,
        lists=3,
        neighbours=neighbours_of(bundle),
        seed=6,
    )
    chosen = pretrain_lm.FROM_SCRATCH.model_dump() | {"epochs": EPOCHS, "learning_rate": 1e-3}
    settings = LmSettings.model_validate(chosen | {"precision": "float32", "seed": 6})
    assert summary["settings"] == settings.model_dump()
    begin = start(workspace, None, str(config), None, 300, texts)
    np.testing.assert_allclose(summary["losses"], _in_one_go(workspace, begin, settings), rtol=1e-4)
    assert run_command(pretrain_lm.main, *words) == 0
    again = capsys.readouterr()
    assert "this run is finished" in again.err
    assert again.out.splitlines()[-1].split(" seconds=")[0] == last.split(" seconds=")[0]
    # The ablation: the same model published as it is, from its own folder.
    base = folder / "lm"
    words = ("--workspace", place, "--model", base, "--block", 32, "--epochs", 0)
    assert run_command(pretrain_lm.main, *words) == 0
    assert "steps=0" in capsys.readouterr().out.splitlines()[-1]
    weights = "model.safetensors"
    assert (Bundle.open(workspace).path("lm") / weights).read_bytes() == (base / weights).read_bytes()


def _check_run(workspace: Workspace, summary: dict[str, Any]) -> None:
    assert summary["steps"] == len(summary["losses"]) == EPOCHS * -(-summary["blocks"] // 16)
    assert summary["perplexity_after"] < summary["perplexity_before"]
    assert len(summary["perplexities"]) == EPOCHS + 1
    blocks = open_blocks(workspace, summary["blocks_key"])
    assert blocks is not None
    *parts, lists = blocks.manifest.parts.values()
    assert sum(part.sentences for part in parts) == 54
    assert (lists.sentences, lists.held_out) == (0, 0)
    assert lists.tokens > 3 * len(METALS) * 8, "a list has eight words and stops at least"
    assert summary["peak_memory_mib"]["process"] > 100


def _check_bundle(bundle: Bundle, summary: dict[str, Any]) -> None:
    assert bundle.path("index/mask.faiss").is_file(), "the vectors of the bundle before are carried over"
    model = LanguageModel.load(bundle.path("lm"))
    assert model.model.num_parameters() == summary["parameters"]
    trie = Trie.load(bundle.path("trie"))
    (tokens,) = model.encode_after([f" {METALS[2]}.\n"], "and")
    sequence = trie.entity_sequence[2]
    assert trie.tokens[trie.starts[sequence] : trie.starts[sequence + 1]].tolist() == tokens


def _check_events(folder: Path, summary: dict[str, Any]) -> None:
    """Check the curves of both lives of the run: what the second did again stands twice."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    found = {e.step: e.value for e in events.Scalars("train/loss")}
    steps = range(1, summary["steps"] + 1)
    assert sorted(found) == list(steps)
    np.testing.assert_allclose([found[step] for step in steps], summary["losses"], rtol=1e-4)
    assert len({e.step for e in events.Scalars("heldout/perplexity")}) == EPOCHS


@pytest.mark.faults
def test_a_stopped_run_goes_on_with_fewer_workers(place: Path, config: Path) -> None:
    """The curve, over two lives with two workers and one, is that of a run in this process.

    The first life is a program of its own with its own cluster, and is killed whole.
    """
    workspace = Workspace.open(place)
    begin = start(
        workspace, None, str(config), None, 300, BlockSettings(tokenizer="", vocab_size=0, block=16)
    )
    settings = LmSettings(epochs=60, learning_rate=1e-3, precision="float32", seed=5)
    code = (
        "import sys; from tests.support.stopped_pretraining import main; main(*sys.argv[1:])",
        place,
        config,
        settings.model_dump_json(),
    )
    _stopped(Path(workspace.runs("pretrain_lm").path), [sys.executable, "-c", *map(str, code)])
    summary, _ = pretrain(workspace, begin, settings, workers=1, checkpoint_seconds=60)
    assert summary["workers"] == 1
    assert 0 < summary["resumed_at"] < summary["steps"]
    np.testing.assert_allclose(summary["losses"], _in_one_go(workspace, begin, settings), rtol=1e-4)


def _stopped(runs: Path, command: list[str]) -> None:
    """Run a program until it can be resumed, then take it and all that it started away."""
    before = set(runs.glob("*/checkpoint_*"))
    program = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert wait_for_checkpoints(runs, before)
    assert program.poll() is None, "it ended before it was stopped"
    for process in [program, *program.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    program.wait()


def _in_one_go(workspace: Workspace, begin: Start, settings: LmSettings) -> list[float]:
    blocks = make_blocks(workspace, begin.tokenizer, begin.blocks)
    tokens = blocks.open(load_tokenizer(begin.tokenizer).bos_token_id)
    run = LmTraining(open_model(begin.origin, settings.seed), *tokens, settings)
    for _ in run.run():
        pass
    return run.losses


def test_mistakes_are_named(place: Path, config: Path, tmp_path: Path) -> None:
    workspace, texts = Workspace.open(place), BlockSettings(tokenizer="", vocab_size=0, block=16)
    with pytest.raises(UserError, match=r"jobs\.import_corpus"):
        start(Workspace.open(tmp_path), None, "tiny", None, 300, texts)
    with pytest.raises(UserError, match="either --model"):
        start(workspace, None, None, None, 300, texts)
    with pytest.raises(UserError, match=r"--block 65.*takes 64"):
        start(workspace, None, str(config), None, 300, texts.model_copy(update={"block": 65}))
    begin = start(workspace, None, str(config), None, 300, texts)
    with pytest.raises(UserError, match="no GPU"):
        pretrain(workspace, begin, LmSettings(), gpu=True)
