"""Training the text encoder by entity prediction, one step at a time, on DeepSpeed.

Knows nothing of Ray: a worker of any launcher opens an :class:`EncoderTraining` and iterates it. The
state is small (one layer and a head), so every worker holds all of it (ZeRO stage 0), and a checkpoint
is one safetensors file that any number of workers can resume from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import nn

from engine.encoders.entity_prediction import EntityPrediction
from engine.encoders.text import TextEncoder, fast_dtype
from engine.errors import FormatError
from engine.training.cache import CachedStates
from engine.training.deepspeed import import_deepspeed
from engine.training.order import Rows, epoch_batches, rank_slice
from engine.training.schedule import one_cycle

Tensor = torch.Tensor


class EncoderSettings(BaseModel):
    """Settings of a training run. The paper's own (lr 4e-5, 20 epochs) need many more steps than these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=12, ge=1)
    batch_size: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    smoothing: float = Field(default=0.075, ge=0, lt=1)
    clip: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; "auto": bfloat16 where the hardware is fast in it."""
    seed: int = 13


@dataclass(frozen=True)
class StepReport:
    """One step done: where the run is, the mean loss over the global batch, sentences of this worker."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    sentences: int


class EncoderTraining:
    """One worker's part of a training run.

    Args:
        encoder: the model; its last layer is trained in place.
        data: all rows (every worker maps the same cache).
        n_entities: size of the vocabulary.
        settings: equal on all workers.
        rank: this worker's number.
        world: workers in all.
        device: where the worker trains.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        data: CachedStates,
        n_entities: int,
        settings: EncoderSettings,
        rank: int = 0,
        world: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.encoder, self.data, self.settings = encoder, data, settings
        self.rank, self.world = rank, world
        self.device = device or torch.device("cpu")
        compute = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
        if settings.precision == "auto":
            compute = fast_dtype(self.device)
        torch.manual_seed(settings.seed)
        self.module = EntityPrediction(encoder.last, n_entities, settings.smoothing, compute)
        self.engine = _open_engine(self.module.to(self.device), settings, world, self.device)
        self.step = 0
        self.losses: list[float] = []

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch."""
        return -(-len(self.data) // self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.settings.epochs

    def run(self) -> Iterator[StepReport]:
        """Go on from ``self.step`` to the end, one report a step."""
        while self.step < self.total_steps:
            epoch, begin = divmod(self.step, self.steps_per_epoch)
            settings = self.settings
            batches = epoch_batches(self.data.lengths, settings.batch_size, settings.seed, epoch)
            for batch in batches[begin:]:
                loss, rate = self.train_on(batch)
                self.step += 1
                self.losses.append(loss)
                own = len(rank_slice(batch, self.rank, self.world))
                yield StepReport(self.step, epoch, loss, rate, own)

    def train_on(self, batch: Rows) -> tuple[float, float]:
        """Take one step on the global batch and return its mean loss and the learning rate."""
        rate = one_cycle(self.step, self.total_steps, self.settings.learning_rate)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        own = rank_slice(batch, self.rank, self.world)
        if len(own):
            states, lengths, mask, entities = (
                t.to(self.device) for t in self.data.gather(own, self.module.compute)
            )
            summed = self.engine(states, lengths, mask, entities)
        else:
            # Fewer rows than workers: this one takes part in the averaging with a gradient of zero.
            summed = torch.stack([p.sum() * 0 for p in self.module.parameters()]).sum()
        # The engine averages gradients over workers; this makes it the mean over the global batch.
        loss = summed * (self.world / len(batch))
        self.engine.backward(loss)
        self.engine.step()
        return self._mean(loss.detach()), rate

    def _mean(self, loss: Tensor) -> float:
        if self.world > 1:
            torch.distributed.all_reduce(loss)
            loss = loss / self.world
        return float(loss)

    def save(self, folder: Path) -> None:
        """Write weights, optimiser state, step and loss curve; call it on one worker."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"module.{n}": t.contiguous() for n, t in self.module.state_dict().items()}
        for i, state in enumerate(self._optimizer_states()):
            tensors |= {f"optimizer.{i}.{n}": t.contiguous() for n, t in state.items()}
        save_file(tensors, folder / "state.safetensors")
        place = {"step": self.step, "losses": self.losses, "settings": self.settings.model_dump()}
        (folder / "state.json").write_text(json.dumps(place), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on where :meth:`save` was called, on the same or another number of workers.

        Raises:
            FormatError: the checkpoint is of a run with other settings.
        """
        place = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if place["settings"] != self.settings.model_dump():
            raise FormatError(
                f"{folder}: this run began with {place['settings']}; go on with these, or start afresh "
                "with --restart"
            )
        tensors = load_file(folder / "state.safetensors", device=str(self.device))
        prefix = "module."
        self.module.load_state_dict(
            {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        )
        for i, parameter in enumerate(self._trained()):
            names = ("step", "exp_avg", "exp_avg_sq")
            self._inner.state[parameter] = {n: tensors[f"optimizer.{i}.{n}"] for n in names}
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


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups: no weight decay on biases and LayerNorm (METHODS: as the authors do)."""
    named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    plain = [p for n, p in named if n.endswith("bias") or "LayerNorm" in n]
    decayed = [p for n, p in named if not (n.endswith("bias") or "LayerNorm" in n)]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def _open_engine(module: nn.Module, settings: EncoderSettings, world: int, device: torch.device) -> Any:
    """Wrap the module in a DeepSpeed engine. The process group must be there if world > 1."""
    deepspeed = import_deepspeed(device)
    groups = parameter_groups(module, settings.weight_decay)
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
