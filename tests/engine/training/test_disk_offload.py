"""An optimiser whose state lies on a disk: the training of one in memory, checkpoints, what is refused."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import LlamaConfig, LlamaForCausalLM

from engine.errors import UserError
from engine.training import disk_offload
from engine.training.disk_offload import IN_USE, PREFIX, check_locked_memory, disk_of, load_operator
from engine.training.layout import Layout
from engine.training.lm import LmTraining
from engine.training.partitioned import full_weights
from engine.training.settings import LmSettings
from tests.support.file_operator import Builder, without_compiler
from tests.support.token_blocks import VOCABULARY, random_blocks

SETTINGS = LmSettings(epochs=2, batch_size=5, learning_rate=3e-3, weight_decay=0.1, precision="float32")
DATA, HELD = random_blocks(10), random_blocks(2, seed=1)
IN_MEMORY = Layout(zero_stage=3, offload="cpu", micro_batch=3)


def on_disk(folder: Path) -> Layout:
    return Layout(zero_stage=3, offload="nvme", offload_folder=str(folder), micro_batch=3)


def trained(layout: Layout, checkpoint: Path | None = None, save: Path | None = None) -> LmTraining:
    """Train a model of 1M parameters, the most in matrices of more than a MiB: no less goes to a disk."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 2304, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_attention_heads=4, **sizes))
    run = LmTraining(model, DATA, HELD, SETTINGS, layout, checkpoint=checkpoint)
    for step in run.run():
        if save and step.step == 3:
            run.save(save)
    return run


def test_a_training_and_its_checkpoints_are_those_of_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_compiler(monkeypatch)
    layout = on_disk(tmp_path / "disk")
    plain, run = trained(IN_MEMORY, save=tmp_path / "plain"), trained(layout, save=tmp_path / "other")
    assert run.losses == plain.losses
    assert run.perplexities == plain.perplexities
    [own] = (tmp_path / "disk").glob(f"{PREFIX}*")
    sizes = sorted(path.stat().st_size for path in own.rglob("*.swp"))
    matrices = [p.ds_numel for p in run.model.parameters() if len(p.ds_shape) > 1]
    large = sum(size for size in matrices if 4 * size > 1 << 20)
    assert sum(sizes) == pytest.approx(12 * sum(matrices) + 4 * large, rel=1e-3), "gradients, if large"
    weights = dict(full_weights(plain.model))
    for name, tensor in full_weights(run.model):
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)
    for checkpoint, then in (("plain", layout), ("other", Layout(zero_stage=1))):
        again = trained(then, tmp_path / checkpoint)
        np.testing.assert_allclose(again.losses, plain.losses, rtol=1e-5)


class Broken(Builder):
    def load(self, verbose: bool = True) -> Any:
        raise RuntimeError("first\nUnable to JIT load the async_io op")


def test_a_machine_without_headers_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch, Broken)
    with pytest.raises(UserError, match=r"\(Unable to JIT load the async_io op\): .* libaio-dev\); or take"):
        load_operator()


def test_folders_of_killed_processes_are_removed_and_others_stay(tmp_path: Path) -> None:
    first = disk_of(str(tmp_path / "disk"), 1)
    left, strange = first.parent / f"{PREFIX}left", first.parent / "mine"
    for folder in (left, strange):
        folder.mkdir()
        (folder / IN_USE).touch()
    second = disk_of(str(tmp_path / "disk"), 1)
    assert first != second
    assert {path for path in first.parent.iterdir() if path.is_dir()} == {first, second, strange}


def test_a_disk_that_will_not_do_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--offload-folder .*file: (Not a directory|File exists); name"):
        disk_of(str(tmp_path / "file"), 1)
    with pytest.raises(UserError, match=r"GB are free, and the workers of this machine write 1000000000\.00"):
        disk_of(str(tmp_path / "disk"), 10**18)
    assert not list((tmp_path / "disk").glob(f"{PREFIX}*"))


def test_memory_that_may_not_be_locked_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (8_000_000, 8_000_000))
    monkeypatch.setattr(disk_offload, "_locks_more_than", lambda allowed: False)
    check_locked_memory(8_000_000)
    with pytest.raises(UserError, match=r"2\.00 GB are to be locked .* may lock 0\.008 \(ulimit -l"):
        check_locked_memory(2_000_000_000)
    monkeypatch.undo()
    check_locked_memory(0)


def test_a_disk_is_for_stage_3_and_wants_a_folder() -> None:
    with pytest.raises(ValidationError, match="--offload nvme needs --zero-stage 3"):
        Layout(zero_stage=2, offload="nvme", offload_folder="disk")
    for given in ({"offload": "nvme"}, {"offload": "cpu", "offload_folder": "disk"}):
        with pytest.raises(ValidationError, match="--offload nvme and --offload-folder together"):
            Layout.model_validate({"zero_stage": 3, **given})
