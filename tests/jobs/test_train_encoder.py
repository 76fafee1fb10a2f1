"""Training on real Ray workers: the loss curve does not depend on how many there are, nor on a death."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.corpus.inputs.format import open_inputs
from engine.errors import UserError
from engine.models.hub import EMBEDDED
from engine.models.text import TextEncoder
from engine.storage.workspace import Workspace
from engine.training.text import EncoderSettings, EncoderTraining
from jobs import train_encoder
from jobs.steps.encoder_training import train, trained_encoder
from jobs.steps.frozen_cache import frozen_cache
from tests.jobs.conftest import METALS
from tests.support.commands import run_command
from tests.support.train_workers import kill_a_worker

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("ray_local")]

SETTINGS = EncoderSettings(epochs=3, batch_size=16, learning_rate=1e-3, precision="float32")


WORDS = ("--epochs", 3, "--batch-size", 16, "--learning-rate", 1e-3, "--precision", "float32")
"""The command line of :data:`SETTINGS`."""


def test_the_curve_is_the_same_on_one_worker_and_on_two(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(prepared)
    one = train(workspace, SETTINGS, workers=1)
    check_artefacts(workspace, one, capsys)
    two = train(workspace, SETTINGS, workers=2, restart=True)
    assert one["steps"] == two["steps"] == 12
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-4)


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


@pytest.mark.faults
def test_a_killed_worker_resumes_the_same_curve(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")  # a report waits for the next check
    workspace = Workspace.open(prepared)
    settings = SETTINGS.model_copy(update={"epochs": 100, "seed": 5})
    killed = kill_a_worker(Path(workspace.runs("train_encoder").path))
    resumed = train(workspace, settings, checkpoint_seconds=0.2)
    assert killed, "the run ended before its worker was killed"
    assert resumed["resumed_at"] > 0
    data = frozen_cache(workspace, open_inputs(workspace), EMBEDDED).open()
    whole = EncoderTraining(TextEncoder.load(EMBEDDED), data, len(METALS), settings)
    for _ in whole.run():
        pass
    np.testing.assert_allclose(resumed["losses"], whole.losses, rtol=1e-4)


def test_mistakes_are_named(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no GPU"):
        train(Workspace.open(prepared), SETTINGS, gpu=True)
    with pytest.raises(UserError, match=r"jobs\.preprocess"):
        train(Workspace.open(tmp_path), SETTINGS)
