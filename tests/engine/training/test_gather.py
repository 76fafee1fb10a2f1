"""Negatives come from all workers: four of them have the loss and the gradients of one."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.support.pair_workers import gradients, worker


def test_four_workers_have_the_gradients_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(worker, (4, str(tmp_path)), nprocs=4)
    found, one = load_file(tmp_path / "mean.safetensors"), gradients()
    assert found.keys() == one.keys()
    assert len(one) > 40
    for name, gradient in one.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
