"""What every training of an encoder shares: the loop, the optimiser on DeepSpeed, checkpoints.

Knows nothing of Ray: a worker of any launcher opens a :class:`Training` and iterates it. What learns is
small (a few layers and heads), so every worker holds all of it (ZeRO stage 0), and a checkpoint is one
safetensors file that any number of workers can resume from.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import nn

from engine.errors import FormatError
from engine.models.text import fast_dtype
from engine.training.deepspeed import import_deepspeed
from engine.training.order import Rows, rank_slice
from engine.training.schedule import one_cycle

Tensor = torch.Tensor


class StepSettings(BaseModel):
    """Settings of any training run of an encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=12, ge=1, description="Passes over all contexts.")
    batch_size: int = Field(default=256, ge=1, description="Contexts a step, over all workers.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak of the one-cycle schedule.")
    weight_decay: float = Field(default=0.1, ge=0, description="Not on biases and LayerNorm.")
    clip: float = Field(default=1.0, gt=0, description="Largest norm of the gradient.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Of the matrix products; auto: bfloat16 where the hardware is fast in it.",
    )
    seed: int = Field(default=13, description="Of the head's first weights and the order of sentences.")

    def compute(self, device: torch.device) -> torch.dtype:
        """Return the type of the matrix products on a device."""
        if self.precision == "auto":
            return fast_dtype(device)
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


@dataclass(frozen=True)
class StepReport:
    """One step done: where the run is, the mean loss over the global batch, sentences of this worker."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    sentences: int


class Training(ABC):
    """One worker's part of a training run.

    Args:
        module: what learns; its forward pass is :meth:`loss_of`'s business.
        settings: equal on all workers.
        rank: this worker's number.
        world: workers in all.
        device: where the worker trains.
        groups: parameters for the optimiser, each with a ``weight_decay``, and a ``share`` of the learning
            rate if it is not the whole.
    """

    def __init__(
        self,
        module: nn.Module,
        settings: StepSettings,
        rank: int,
        world: int,
        device: torch.device,
        groups: list[dict[str, Any]],
    ) -> None:
        self.module, self.settings = module, settings
        self.rank, self.world, self.device = rank, world, device
        self.engine = _open_engine(module, groups, settings, world, device)
        self.step = 0
        self.losses: list[float] = []

    @property
    @abstractmethod
    def contexts(self) -> int:
        """Contexts that are trained on."""

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch."""

    @abstractmethod
    def batches(self, epoch: int) -> list[Rows]:
        """Return the rows of each global batch of an epoch, the same on all workers."""

    @abstractmethod
    def loss_of(self, own: Rows, total: int) -> Tensor:
        """Return a loss whose mean over workers is that of the global batch.

        Args:
            own: this worker's rows; there may be none.
            total: rows of the global batch.
        """

    @abstractmethod
    def save_encoder(self, folder: Path) -> str:
        """Write the trained encoder into a folder; return the name of the file that is to arrive last."""

    def after_step(self) -> None:  # noqa: B027
        """Do what follows a step; nothing unless a subclass says so."""

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.settings.epochs

    def run(self) -> Iterator[StepReport]:
        """Go on from ``self.step`` to the end, one report a step."""
        while self.step < self.total_steps:
            epoch, begin = divmod(self.step, self.steps_per_epoch)
            for batch in self.batches(epoch)[begin:]:
                loss, rate = self.train_on(batch)
                self.step += 1
                self.losses.append(loss)
                own = len(rank_slice(batch, self.rank, self.world))
                yield StepReport(self.step, epoch, loss, rate, own)

    def train_on(self, batch: Rows) -> tuple[float, float]:
        """Take one step on the global batch and return its mean loss and the learning rate."""
        rate = one_cycle(self.step, self.total_steps, self.settings.learning_rate)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        # Dropout is a function of seed, step and worker: a resumed run goes on with the same curve.
        torch.manual_seed((self.settings.seed * 1_000_003 + self.step) * 4099 + self.rank)
        loss = self.loss_of(rank_slice(batch, self.rank, self.world), len(batch))
        self.engine.backward(loss)
        self.engine.step()
        self.after_step()
        return self._mean(loss.detach()), rate

    def no_loss(self) -> Tensor:
        """Return a loss of zero with gradients of zero: a worker without rows takes part in the averaging."""
        return torch.stack([p.sum() * 0 for p in self.module.parameters()]).sum()

    def _mean(self, loss: Tensor) -> float:
        if self.world > 1:
            torch.distributed.all_reduce(loss)
            loss = loss / self.world
        return float(loss)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint besides the optimiser's."""
        return {f"module.{n}": t for n, t in self.module.state_dict().items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take what :meth:`state` returned."""
        self.module.load_state_dict(below(tensors, "module."))

    def save(self, folder: Path) -> None:
        """Write weights, optimiser state, step and loss curve; call it on one worker."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = self.state()
        for i, state in enumerate(self._optimizer_states()):
            tensors |= {f"optimizer.{i}.{n}": t for n, t in state.items()}
        save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "state.safetensors")
        place = {"step": self.step, "losses": self.losses, "settings": self.settings.model_dump()}
        (folder / "state.json").write_text(json.dumps(place), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on where :meth:`save` was called, on the same or another number of workers.

        Raises:
            FormatError: the checkpoint is of a run with other settings.
        """
        place = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if place["settings"] != json.loads(self.settings.model_dump_json()):
            raise FormatError(
                f"{folder}: this run began with {place['settings']}; go on with these, or start afresh "
                "with --restart"
            )
        tensors = load_file(folder / "state.safetensors", device=str(self.device))
        self.restore(tensors)
        for i, parameter in enumerate(self._trained()):
            # A parameter that no loss has reached yet has no state.
            if state := below(tensors, f"optimizer.{i}."):
                self._inner.state[parameter] = state
        self.step, self.losses = place["step"], place["losses"]

    @property
    def _inner(self) -> torch.optim.Optimizer:
        """The AdamW under whatever DeepSpeed wrapped around it."""
        optimizer: Any = self.engine.optimizer
        return getattr(optimizer, "optimizer", optimizer)

    def _trained(self) -> list[nn.Parameter]:
        return [p for group in self._inner.param_groups for p in group["params"]]

    def _optimizer_states(self) -> list[dict[str, Tensor]]:
        return [self._inner.state[p] for p in self._trained()]


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups: no weight decay on biases and LayerNorm (METHODS: as the authors do)."""
    named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    plain = [p for n, p in named if n.endswith("bias") or "LayerNorm" in n]
    decayed = [p for n, p in named if not (n.endswith("bias") or "LayerNorm" in n)]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def _open_engine(
    module: nn.Module,
    groups: list[dict[str, Any]],
    settings: StepSettings,
    world: int,
    device: torch.device,
) -> Any:
    """Wrap the module in a DeepSpeed engine. The process group must be there if world > 1."""
    deepspeed = import_deepspeed(device)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": -(-settings.batch_size // world),
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.clip,
        "zero_optimization": {"stage": 0},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    return engine
