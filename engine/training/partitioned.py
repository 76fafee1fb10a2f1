"""Checkpoint a partitioned training so that any number of workers, at any ZeRO stage, can resume it.

Weights and Adam's moments are gathered parameter by parameter (DeepSpeed's ``safe_get_full_*``) and
written as safetensors in shards of bounded size, each under the parameter's own name; nothing in them
says how the run was spread. Every worker takes part, and each writes files of its own at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from engine.training.checkpoint import CheckpointFormat
from engine.training.optimizer_shares import MOMENTS, OptimizerShares, begin_moments, optimizer_shares

Tensor = torch.Tensor

SHARD_BYTES = 1 << 30
"""Size of a shard, which is in memory whole while it is written (one tensor may be larger)."""


class PartitionedCheckpoint(CheckpointFormat):
    """Shards of safetensors, gathered from all workers' shares.

    Args:
        model: whose parameters that learn are kept under their own names.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def before_engine(self, folder: Path) -> None:
        """Put the weights into the model that DeepSpeed has not wrapped yet."""
        with torch.no_grad():
            parameters = dict(self._model.named_parameters())
            for name, tensor in _tensors(folder):
                if name.startswith("weight."):
                    fill(parameters[name.removeprefix("weight.")], tensor)

    def opened(self, engine: Any, step: int) -> None:
        """Give the optimiser its state before its first step: moments of zero and the count of steps.

        DeepSpeed leaves this to the first step, after whose first group it links the state of all groups to
        their parameters: too early for the others, which then cannot be saved. Adam's count of steps is out
        of reach for its ``safe_set_full_*``, being no tensor of a parameter's shape.
        """
        begin_moments(engine.optimizer, step)

    def restore(self, folder: Path, engine: Any) -> None:
        """Put float32 weights and moments into the engine's optimiser."""
        parameters = dict(self._model.named_parameters())
        with optimizer_shares(changed=True) as shares:
            for name, tensor in _tensors(folder):
                kind, _, parameter = name.partition(".")
                _set(parameters[parameter], tensor, None if kind == "weight" else kind, shares)

    def save(self, folder: Path, engine: Any, first: bool) -> list[str]:
        """Write shards; all workers gather, and each writes some of the parameters."""
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        sizes = {name: elements(parameter) for name, parameter in learning(self._model).items()}
        writer = writers(sizes, world)
        shards = ShardWriter(folder, worker=rank)
        for name, tensor in self._gathered():
            if writer[name.partition(".")[2]] == rank:
                shards.add(name, tensor)
        shards.close()
        return [shard_name(number, rank) for number in range(len(shards.files))]

    def _gathered(self) -> Iterator[tuple[str, Tensor]]:
        from deepspeed.utils import safe_get_full_optimizer_state

        with optimizer_shares() as shares:
            for name, parameter in learning(self._model).items():
                yield f"weight.{name}", _full(parameter, shares)
                for moment in MOMENTS:
                    if hasattr(parameter, "ds_id"):
                        yield f"{moment}.{name}", shares.whole(parameter, moment)
                    else:
                        yield f"{moment}.{name}", safe_get_full_optimizer_state(parameter, moment)


def writers(sizes: Mapping[str, int], workers: int) -> dict[str, int]:
    """Return which worker writes each parameter: the one that has the least to write so far.

    Args:
        sizes: elements of each parameter.
        workers: that write.
    """
    load, found = [0] * workers, {}
    for name, size in sizes.items():
        found[name] = load.index(min(load))
        load[found[name]] += size
    return found


def elements(parameter: Any) -> int:
    """Return a parameter's elements, also where this worker holds a share of them, or holds them packed."""
    if (packed := getattr(parameter, "quant_state", None)) is not None:
        return int(packed.shape.numel())
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def full_weights(
    model: nn.Module, only: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[str, Tensor]]:
    """Yield each parameter of a model whole, in float32, with an engine or without; all workers iterate.

    Args:
        model: whose parameters may be split up.
        only: whether a parameter of a name is wanted.
    """
    with optimizer_shares() as shares:
        for name, parameter in model.named_parameters():
            if only(name):
                yield name, _full(parameter, shares)


def _full(parameter: Any, shares: OptimizerShares) -> Tensor:
    if hasattr(parameter, "ds_id") and not parameter.requires_grad:
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):  # a frozen one is no part of the optimiser
            return parameter.detach().float().clone()
    if hasattr(parameter, "ds_id"):
        return shares.whole(parameter)
    if hasattr(parameter, "_hp_mapping"):
        from deepspeed.utils import safe_get_full_fp32_param

        whole: Tensor = safe_get_full_fp32_param(parameter)
        return whole
    return parameter.detach().float()


def learning(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a model that learn, by name: what a checkpoint holds."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def held_weights(parameter: Any, rank: int) -> Tensor:
    """Return the weights of a parameter that this worker holds: its share at ZeRO stage 3, else all of them.

    Shares are of equal size; what the last one has beyond the parameter's end was never written.
    """
    share = getattr(parameter, "ds_tensor", None)
    if share is None:
        return parameter.detach()
    left = max(0, parameter.ds_numel - rank * share.ds_numel)
    return share.detach().view(-1)[:left]


def fill(parameter: Any, whole: Tensor) -> None:
    """Put a tensor into a parameter of the same shape, or this worker's share of it where it is split up."""
    share = getattr(parameter, "ds_tensor", None)
    if share is None:
        parameter.copy_(whole)
        return
    start = share.ds_numel * torch.distributed.get_rank()
    part = whole.reshape(-1)[start : start + share.ds_numel]
    share.view(-1)[: len(part)].copy_(part)


def kept_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what a model's saved state holds besides its parameters: routers' corrections, layers' scales.

    Every worker has them whole, with an engine or without.
    """
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield f"{path}.{name}" if path else name, buffer.detach()


def _set(parameter: Any, value: Tensor, moment: str | None, shares: OptimizerShares) -> None:
    """Set this worker's part of a parameter's float32 weights, or of a moment."""
    from deepspeed import utils

    if hasattr(parameter, "ds_id"):
        own = shares.of(parameter, moment)
        start = own.numel() * torch.distributed.get_rank()
        part = value.flatten()[start : start + own.numel()]
        own[: part.numel()].copy_(part)
        own[part.numel() :].zero_()  # the last share reaches beyond the parameter's end
        return
    value = value.to(parameter.device)
    if moment is None:
        utils.safe_set_full_fp32_param(parameter, value)
    else:
        utils.safe_set_full_optimizer_state(parameter, value, moment)


class ShardWriter:
    """A writer of named tensors into safetensors files of bounded size.

    Args:
        folder: made if need be.
        dtype: of the written tensors; None: as they are.
        worker: that writes, of several into one folder.
    """

    def __init__(self, folder: Path, dtype: torch.dtype | None = None, worker: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._dtype, self._worker = folder, dtype, worker
        self._waiting: dict[str, Tensor] = {}
        self._bytes = 0
        self.files: list[list[str]] = []
        """Names of the tensors of each file, ``shard-WWWWW-NNNNN.safetensors``."""

    def add(self, name: str, tensor: Tensor, as_it_is: bool = False) -> None:
        """Add a tensor, ``as_it_is`` in its own type; a copy of it is kept until its shard is full."""
        kept = tensor.detach().to("cpu", None if as_it_is else self._dtype, copy=True).contiguous()
        size = kept.numel() * kept.element_size()
        if self._waiting and self._bytes + size > SHARD_BYTES:
            self._flush()
        self._waiting[name] = kept
        self._bytes += size

    def close(self) -> None:
        """Write what is left."""
        if self._waiting:
            self._flush()

    def _flush(self) -> None:
        save_file(self._waiting, self._folder / shard_name(len(self.files), self._worker), {"format": "pt"})
        self.files.append(list(self._waiting))
        self._waiting, self._bytes = {}, 0


def shard_name(number: int, worker: int = 0) -> str:
    """Return the file name of a worker's shard."""
    return f"shard-{worker:05}-{number:05}.safetensors"


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a checkpoint, one in memory at a time."""
    for path in sorted(folder.glob("shard-*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dict)
                yield name, file.get_tensor(name)
