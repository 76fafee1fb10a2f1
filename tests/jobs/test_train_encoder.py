"""Training in this process and on real Ray workers: how many there are, and a death, change no loss."""

from __future__ import annotations

import errno
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional

from engine.corpus.inputs.format import open_inputs
from engine.errors import StorageError, UserError
from engine.models.hub import EMBEDDED
from engine.models.text import TextEncoder
from engine.retrieval.distributions import EntityDistributions, distributions_folder
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.training.input_rows import InputRows
from engine.training.settings import EncoderSettings
from engine.training.text import EncoderTraining
from engine.training.text_head import HEAD
from engine.training.trainer import StepReport, Trainer
from jobs import train_encoder
from jobs.steps import multimodal_views
from jobs.steps.encoder_training import train, trained_encoder
from jobs.steps.frozen_cache import frozen_cache
from jobs.steps.masked_lm import NO_MASKED_LM
from jobs.steps.view_builder import BuiltViews, Encoders, Sources
from jobs.steps.views import build_text_distributions
from jobs.workers.executor import LocalExecutor
from jobs.workers.training_run import Events
from jobs.workers.training_sessions import LocalSession
from tests.jobs.conftest import METALS, no_cluster
from tests.support.commands import run_command
from tests.support.corpora import run_import, ultrawiki
from tests.support.train_workers import kill_a_worker

SETTINGS = EncoderSettings(epochs=3, batch_size=16, learning_rate=1e-3, precision="float32")

WORDS = ("--epochs", 3, "--batch-size", 16, "--learning-rate", 1e-3, "--precision", "float32")
"""The command line of :data:`SETTINGS`."""

LONG = SETTINGS.model_copy(update={"epochs": 50, "seed": 5})
"""Enough steps that a worker is killed before the end."""


def in_one_go(workspace: Workspace, settings: EncoderSettings) -> list[float]:
    """Return the losses of the plain loop."""
    data = frozen_cache(workspace, open_inputs(workspace), EMBEDDED, executor=LocalExecutor()).open()
    whole = EncoderTraining(TextEncoder.load(EMBEDDED), data, len(METALS), settings)
    for _ in whole.run():
        pass
    return whole.losses


def _states_of(workspace: Workspace) -> Store:
    return next(file for file in workspace.cache("").files(".npy") if "bfloat16" in file.path)


def train_until(step: int, workspace: Workspace, settings: EncoderSettings) -> None:
    """Train in this process until the checkpoint of a step; then end as if by Ctrl-C."""
    keep = LocalSession.keep

    def stopped(self: LocalSession, report: StepReport, training: Trainer) -> None:
        keep(self, report, training)
        if report.step == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalSession, "keep", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(workspace, settings, checkpoint_seconds=0)


@pytest.mark.usefixtures("alone")
def test_one_worker_without_a_cluster_trains_here_as_the_plain_loop_does(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(prepared)
    summary = train(workspace, SETTINGS)
    assert summary["steps"] == 12
    np.testing.assert_allclose(summary["losses"], in_one_go(workspace, SETTINGS), rtol=1e-4)
    check_artefacts(workspace, summary, capsys)


@pytest.mark.usefixtures("alone")
def test_a_run_that_was_stopped_here_goes_on_where_it_was(prepared: Path) -> None:
    workspace, settings = Workspace.open(prepared), SETTINGS.model_copy(update={"seed": 4})
    train_until(5, workspace, settings)
    summary = train(workspace, settings)
    assert (summary["resumed_at"], summary["steps"]) == (5, 12)
    np.testing.assert_allclose(summary["losses"], in_one_go(workspace, settings), rtol=1e-4)


@pytest.mark.usefixtures("alone")
def test_what_was_cut_of_a_finished_run_is_made_again(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(prepared)
    summary = train(workspace, SETTINGS)
    run = workspace.runs("train_encoder") / summary["run"]
    weights, states = run / "encoder" / "model.safetensors", _states_of(workspace)
    whole = weights.read_bytes(), states.read_bytes()
    for cut in (weights, states, run / "summary.json"):
        cut.write_bytes(cut.read_bytes()[:-9])
        capsys.readouterr()
        if cut != states:
            with pytest.raises(UserError, match=rf"{cut.name}.*train it again.*--restart"):
                trained_encoder(workspace)
        again = train(workspace, SETTINGS)
        assert ("made again" in capsys.readouterr().err) == (cut != states)
        assert again["losses"] == summary["losses"]
        assert (weights.read_bytes(), states.read_bytes()) == whole
        assert trained_encoder(workspace) is not None


@pytest.mark.usefixtures("alone")
def test_the_head_is_kept_and_predicts_each_entity_for_probexpan(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means over an entity's sentences of the distributions and of their logarithms, at a temperature."""
    workspace = Workspace.open(prepared)
    train(workspace, SETTINGS)
    trained = trained_encoder(workspace)
    assert trained is not None
    cache = frozen_cache(workspace, open_inputs(workspace), EMBEDDED, executor=LocalExecutor())
    encoders = Encoders(EMBEDDED, trained.folder.uri)
    sources = Sources(
        workspace,
        cache,
        encoders,
        trained,
        [""] * len(METALS),
        temperature=2,
        distributions=True,
        masked_lm=NO_MASKED_LM,
        types=None,
        lists=None,
        executor=LocalExecutor(),
    )
    monkeypatch.setattr(multimodal_views, "PREDICTIONS", 4 * len(METALS))  # four entities a task
    build_text_distributions(sources, BuiltViews(tmp_path))
    found = EntityDistributions.read(tmp_path / distributions_folder("mask"))
    inputs = InputRows.read(open_inputs(workspace).parts[0].path)
    encoder, weights = TextEncoder.load(trained.folder.path), load_file(f"{trained.folder.path}/{HEAD}")
    with torch.no_grad():
        ids, lengths = inputs.padded_ids(np.arange(len(inputs)))
        states = encoder.states(ids, lengths)[torch.arange(len(inputs)), torch.from_numpy(inputs.mask_index)]
        inner = functional.gelu(functional.linear(states, weights["0.weight"], weights["0.bias"]))
        logits = functional.linear(inner, weights["2.weight"], weights["2.bias"]) / 2
    for entity in range(len(METALS)):
        own = logits[torch.from_numpy(inputs.entity_id == entity)]
        shares = own.softmax(dim=1).mean(dim=0).numpy()
        logs = own.log_softmax(dim=1).mean(dim=0).numpy()
        # The cached states are bfloat16.
        np.testing.assert_allclose(found.probabilities.dense([entity], len(METALS))[0], shares, atol=5e-3)
        expected = (logs - logs.mean()) / logs.std()
        np.testing.assert_allclose(found.logs.dense([entity], len(METALS))[0], expected, atol=0.05)
    headless = replace(trained, folder=Store.open(tmp_path))
    build_text_distributions(replace(sources, trained=headless), nothing := BuiltViews(tmp_path / "no"))
    assert not nothing.staged.exists()
    assert "`seedset train-encoder --restart` makes one" in capsys.readouterr().err
    # A corpus of more entities than the head knows, encoded by `build-index --inputs`.
    grown = Workspace.open(shutil.copytree(prepared, tmp_path / "grown"))
    sentences = {name: [f"We know {name}."] for name in [*METALS, "copper"]}
    run_import(grown.root.uri, ultrawiki(tmp_path / "raw", sentences), "ultrawiki", overwrite=True)
    build_text_distributions(replace(sources, workspace=grown, descriptions=[""] * 7), nothing)
    assert not nothing.staged.exists()
    assert f"the text encoder {trained.name} was trained on another corpus" in capsys.readouterr().err


def check_artefacts(
    workspace: Workspace, summary: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Check what the run of :data:`SETTINGS` left behind, and that the command finds it finished."""
    trained = trained_encoder(workspace)
    assert trained is not None
    assert trained.name == summary["run"]
    before, after = TextEncoder.load(EMBEDDED), TextEncoder.load(trained.folder.path)
    assert after.lower_fingerprint() == before.lower_fingerprint()
    weights = [e.last.layer.attention.self.query.weight for e in (before, after)]
    assert (weights[0] - weights[1]).abs().max() > 1e-5
    folder = Path(workspace.runs("train_encoder").path) / trained.name
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    curve = json.loads((folder / "summary.json").read_text())["losses"]
    np.testing.assert_allclose([e.value for e in events.Scalars("train/loss")], curve, rtol=1e-6)
    started = time.monotonic()
    assert run_command(train_encoder.main, "--workspace", workspace.root.path, *WORDS) == 0
    again = capsys.readouterr()
    assert "this run is finished" in again.err
    assert f"run={trained.name} steps=12 sentences=60" in again.out.splitlines()[-1]
    assert time.monotonic() - started < 10, "a finished run is not trained again"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.faults
def test_a_run_that_began_here_goes_on_under_ray_train_and_survives_a_killed_worker(
    prepared: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker without a cluster, then two on it, one of which is killed: the curve of the plain loop."""
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")  # a report waits for the next check
    workspace = Workspace.open(prepared)
    with no_cluster():
        train_until(5, workspace, LONG)
    killed = kill_a_worker(Path(workspace.runs("train_encoder").path))
    resumed = train(workspace, LONG, workers=2, checkpoint_seconds=0.2)
    assert killed, "the run ended before its worker was killed"
    assert resumed["resumed_at"] > 5
    assert resumed["workers"] == 2
    np.testing.assert_allclose(resumed["losses"], in_one_go(workspace, LONG), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_a_gpu_that_the_cluster_lacks_is_named(prepared: Path) -> None:
    with pytest.raises(UserError, match="no GPU"):
        train(Workspace.open(prepared), SETTINGS, gpu=True)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("place", "method", "seed"), [(Events, "add", 6), (LocalSession, "keep", 7)])
def test_a_disk_that_is_full_on_the_way_is_told_with_the_run_s_folder(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, place: type, method: str, seed: int
) -> None:
    workspace, settings = Workspace.open(prepared), SETTINGS.model_copy(update={"seed": seed})
    whole = getattr(place, method)

    def until_full(self: object, first: Any, *others: Any, **scalars: float) -> None:
        if getattr(first, "step", first) == 9:
            raise OSError(errno.ENOSPC, "No space left on device")  # as a file's own `write` raises it
        whole(self, first, *others, **scalars)

    with monkeypatch.context() as patch:
        patch.setattr(place, method, until_full)
        with pytest.raises(
            StorageError, match=r"/runs/train_encoder/.*: No space left on device; free space"
        ):
            train(workspace, settings, checkpoint_seconds=0)
    summary = train(workspace, settings)
    assert (summary["resumed_at"], summary["steps"]) == (8, 12)
    np.testing.assert_allclose(summary["losses"], in_one_go(workspace, settings), rtol=1e-4)


def test_what_must_run_before_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="seedset preprocess"):
        train(Workspace.open(tmp_path), SETTINGS)


@pytest.mark.usefixtures("alone")
def test_a_run_that_diverges_ends_with_its_last_good_checkpoint_and_publishes_nothing(prepared: Path) -> None:
    workspace = Workspace.open(prepared)
    before = trained_encoder(workspace)
    wild = SETTINGS.model_copy(update={"learning_rate": 1e30})
    for kept in ("its checkpoint of step 1 is kept", "its checkpoint of step 1 is kept"):
        with pytest.raises(UserError, match=rf"the loss of step 2 is nan .*at a learning rate of .*{kept}"):
            train(workspace, wild, checkpoint_seconds=0)
    (state,) = workspace.runs("train_encoder").files("checkpoints/0000000001/state.json")
    run = Store.open(state.path.partition("/checkpoints/")[0])
    assert not (run / "encoder").exists()
    assert not (run / "summary.json").exists()
    assert trained_encoder(workspace) == before


@pytest.mark.usefixtures("alone")
def test_a_run_that_an_earlier_version_trained_to_nan_is_not_taken_for_finished(prepared: Path) -> None:
    workspace, settings = Workspace.open(prepared), SETTINGS.model_copy(update={"seed": 77, "epochs": 1})
    name = train(workspace, settings)["run"]
    file = workspace.runs("train_encoder") / name / "summary.json"
    file.write_bytes(json.dumps(json.loads(file.read_bytes()) | {"loss": float("nan")}).encode())
    with pytest.raises(UserError, match=r"ended with a loss of nan; .* --restart"):
        train(workspace, settings)
