"""A checkpoint of replicated modules: tied weights stand in it once, and come back; strangers are refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from engine.training.checkpoint import TENSORS, ReplicatedCheckpoint


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight


def checkpoint(module: nn.Module) -> tuple[ReplicatedCheckpoint, SimpleNamespace]:
    optimizer = torch.optim.AdamW(module.parameters())
    engine = SimpleNamespace(optimizer=optimizer, module=module)
    return ReplicatedCheckpoint({"module": module}, torch.device("cpu")), engine


def test_tied_weights_are_written_once_and_come_back(tmp_path: Path) -> None:
    module, other = Tied(), Tied()
    form, engine = checkpoint(module)
    form.save(tmp_path, engine, first=True)
    assert sorted(n for n in load_file(tmp_path / TENSORS) if n.startswith("module.")) == [
        "module.first.bias",
        "module.first.weight",
        "module.second.bias",
    ]
    form, engine = checkpoint(other)
    form.restore(tmp_path, engine)
    assert other.second.weight is other.first.weight
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in module.state_dict().items())


def test_a_tensor_of_another_module_is_refused(tmp_path: Path) -> None:
    form, engine = checkpoint(Tied())
    form.save(tmp_path, engine, first=True)
    tensors = load_file(tmp_path / TENSORS)
    save_file({**tensors, "module.third.weight": torch.ones(2)}, tmp_path / TENSORS)
    with pytest.raises(RuntimeError, match="third"):
        form.restore(tmp_path, engine)
