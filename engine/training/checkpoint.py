"""Write and read checkpoints: ``state.json`` (step, curves, settings) and tensors in safetensors files.

How the tensors lie depends on how the run is spread: :class:`ReplicatedCheckpoint` where every worker
holds everything, :class:`engine.training.partitioned.PartitionedCheckpoint` where they share it. Any
number of workers goes on from either.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file
from torch import nn

from engine.errors import FormatError, MissingFileError
from engine.storage.store import Store
from engine.storage.whole import fault_in

Tensor = torch.Tensor

STATE, TENSORS = "state.json", "state.safetensors"
_SIZES = "files"
"""Entry of a state with the sizes of the checkpoint's other files."""


def read_state(folder: Path, settings: BaseModel) -> dict[str, Any]:
    """Return the step and the curves of a checkpoint.

    Raises:
        FormatError: the checkpoint is of a run with other settings, or cannot be read.
    """
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_bytes())
        began_with = state["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{folder / STATE}: not the state of a checkpoint ({error}); start afresh with --restart"
        ) from None
    if began_with != settings.model_dump(mode="json"):
        raise FormatError(
            f"{folder}: this run began with {began_with}; go on with these, or start afresh with --restart"
        )
    return state


def write_state(folder: Path, state: dict[str, Any], settings: BaseModel, sizes: dict[str, int]) -> None:
    """Write step, curves and settings, and the sizes of the other files: the last file of a checkpoint.

    Args:
        folder: of the checkpoint; it may lack what other workers wrote into theirs.
        state: step and curves.
        settings: of the run.
        sizes: bytes of each other file, by its name.
    """
    content = state | {"settings": settings.model_dump(mode="json"), _SIZES: sizes}
    (folder / STATE).write_text(json.dumps(content), encoding="utf-8")


def step_of(folder: Store) -> int:
    """Return the step of a checkpoint, -1 if its state cannot be read."""
    try:
        return int(json.loads((folder / STATE).read_bytes()).get("step", 0))
    except (MissingFileError, ValueError, TypeError, AttributeError):
        return -1


def fault_in_checkpoint(folder: Store) -> str | None:
    """Return which file of a checkpoint is not whole, and why; None if all are, as far as sizes tell."""
    try:
        state = json.loads((folder / STATE).read_bytes())
        sizes = state.get(_SIZES)  # checkpoints of an earlier version have none
    except MissingFileError:
        return f"{STATE} is missing"
    except (ValueError, AttributeError):
        return f"{STATE} is cut or damaged"
    return fault_in(folder, sizes if isinstance(sizes, dict) else None)


class CheckpointFormat(ABC):
    """A format in which the tensors of a training are written and read. All workers call every method."""

    def before_engine(self, folder: Path) -> None:  # noqa: B027
        """Put in place what must be there before DeepSpeed wraps the module."""

    def opened(self, engine: Any, step: int) -> None:  # noqa: B027
        """Prepare a new engine's optimiser for a run that is at ``step``."""

    @abstractmethod
    def restore(self, folder: Path, engine: Any) -> None:
        """Put weights and optimiser state into an engine."""

    @abstractmethod
    def save(self, folder: Path, engine: Any, first: bool) -> list[str]:
        """Write weights and optimiser state; return the names of the files that this worker wrote."""


class ReplicatedCheckpoint(CheckpointFormat):
    """One file that the first worker writes: all of them hold the same (ZeRO stage 0).

    Args:
        modules: what has a state, each under the name that its tensors begin with.
        device: where tensors are read to.
    """

    def __init__(self, modules: Mapping[str, nn.Module], device: torch.device) -> None:
        self._modules, self._device = modules, device

    def restore(self, folder: Path, engine: Any) -> None:
        """Read every module's tensors, and the optimiser's state.

        Raises:
            FormatError: the optimiser's state is not under the names of what is trained here.
        """
        tensors = load_file(folder / TENSORS, device=str(self._device))
        for name, module in self._modules.items():
            found = _below(tensors, f"{name}.")
            tied = {n: found[first] for n, first in _first_names(module).items() if first in found}
            module.load_state_dict(found | tied)  # what is not the module's is refused
        optimizer, moments = _adamw(engine), _below(tensors, "optimizer.")
        known = _named(engine)
        if strangers := {name.rpartition(".")[0] for name in moments} - known.keys():
            raise FormatError(
                f"{folder}: of another version, or of another model: it holds the optimiser's state of "
                f"{min(strangers)!r}; start afresh with --restart"
            )
        for name, parameter in known.items():
            # A parameter that no loss has reached yet has no state.
            if state := _below(moments, f"{name}."):
                optimizer.state[parameter] = state

    def save(self, folder: Path, engine: Any, first: bool) -> list[str]:
        """Write one safetensors file, from the ``first`` worker."""
        if not first:
            return []
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, Tensor] = {}
        for name, module in self._modules.items():
            own, firsts = module.state_dict(), _first_names(module)
            found |= {f"{name}.{n}": own[n] for n, first in firsts.items() if n == first}
        optimizer = _adamw(engine)
        for name, parameter in _named(engine).items():
            found |= {f"optimizer.{name}.{n}": t for n, t in optimizer.state[parameter].items()}
        save_file({n: t.contiguous() for n, t in found.items()}, folder / TENSORS)
        return [TENSORS]


def _first_names(module: nn.Module) -> dict[str, str]:
    """Return for each tensor of a module's state the first name of the same one: weights may be tied."""
    first: dict[tuple[int, torch.Size], str] = {}
    return {
        name: first.setdefault((tensor.data_ptr(), tensor.shape), name) if tensor.numel() else name
        for name, tensor in module.state_dict().items()
    }


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _adamw(engine: Any) -> torch.optim.Optimizer:
    """Return the AdamW under whatever DeepSpeed wrapped around it."""
    found: torch.optim.Optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    return found


def _named(engine: Any) -> dict[str, nn.Parameter]:
    """Return what the optimiser trains, by name: the order of its groups may differ between versions."""
    trained = {id(p) for group in _adamw(engine).param_groups for p in group["params"]}
    return {name: p for name, p in engine.module.named_parameters() if id(p) in trained}
