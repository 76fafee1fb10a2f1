"""Take the training steps of the text encoder, the multi-modal encoder and the language model.

Knows nothing of Ray: a worker of any launcher opens a subclass of :class:`Trainer` and iterates it. What a
run computes (:class:`TrainerSettings`) is apart from how it is spread (:class:`EngineLayout`): global
batches, their order and their loss are the same on any number of workers.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from engine.errors import UserError
from engine.models.text import fast_dtype
from engine.training.checkpoint import CheckpointFormat, read_state, write_state
from engine.training.layout import EngineLayout
from engine.training.optimizer import open_engine
from engine.training.order import Rows, rank_slice
from engine.training.partitioned import held_weights
from engine.training.settings import TrainerSettings

Tensor = torch.Tensor


@dataclass(frozen=True)
class Worker:
    """One worker: its rank, the number of workers, and its device."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """True for the worker that writes and reports."""
        return self.rank == 0

    def seed(self, seed: int) -> None:
        """Begin this process's random numbers anew, where it computes."""
        if self.device.type == "cpu":
            # torch.manual_seed formats the stack for devices that are not in use: 0.4 ms.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def summed(self, value: Tensor) -> float:
        """Return the sum of a value over all workers."""
        if self.world > 1:
            torch.distributed.all_reduce(value)
        return float(value)

    def spread(self, modules: Iterable[nn.Module]) -> None:
        """Give every worker the first one's weights and buffers of some modules."""
        if self.world == 1:
            return
        for tensor in (one for module in modules for one in module.state_dict().values()):
            shared = tensor.to(self.device)
            torch.distributed.broadcast(shared, 0)
            tensor.copy_(shared)

    def united(self, own: dict[str, int]) -> dict[str, int]:
        """Return the entries of all workers' dictionaries."""
        every = [own]
        if self.world > 1:
            every = [{} for _ in range(self.world)]
            torch.distributed.all_gather_object(every, own)
        return {key: value for one in every for key, value in one.items()}


@dataclass(frozen=True)
class StepReport:
    """One step done: where the run is, and the mean loss of the global batch."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    rows: Rows
    """This worker's."""
    amount: int
    """Size of the global batch, in what a training's speed is counted in (:meth:`Trainer.amount`)."""
    seconds: float
    """Duration of the step, without what follows an epoch."""


def product_dtype(settings: TrainerSettings, device: torch.device) -> torch.dtype:
    """Return the type of the matrix products on a device."""
    if settings.precision == "auto":
        return fast_dtype(device)
    return torch.bfloat16 if settings.precision == "bfloat16" else torch.float32


def all_finite(tensor: Tensor) -> Tensor:
    """Return whether all numbers are finite, a bool scalar, without a copy of the tensor's size.

    The least and the largest are finite if all are: an infinite number is one of them, and both are NaN where
    any number is.
    """
    if not tensor.numel():
        return torch.ones((), dtype=torch.bool, device=tensor.device)
    return torch.isfinite(torch.stack(torch.aminmax(tensor))).all()


class DivergedError(UserError):
    """A training whose loss or weights are no finite numbers any more: nothing good can come of it."""


class Trainer(ABC):
    """One worker's part of a training run.

    Args:
        module: what learns; only :meth:`loss_of` calls its forward pass, through ``engine``.
        settings: equal on all workers.
        groups: parameters for the optimiser, each with a ``weight_decay``, and a ``share`` of the learning
            rate if it is not the whole.
        worker: this process.
        layout: equal on all workers.
        autocast: let the engine run the module in narrow products, if the settings ask for them; else the
            module does so itself.
        checkpoint: folder that :meth:`save` wrote, on any number of workers.

    Raises:
        FormatError: the checkpoint is of a run with other settings.
    """

    CURVES: ClassVar[tuple[str, ...]] = ("losses",)
    """Names of the lists of numbers that a checkpoint keeps."""

    def __init__(
        self,
        module: nn.Module,
        settings: TrainerSettings,
        groups: list[dict[str, Any]],
        worker: Worker,
        layout: EngineLayout,
        autocast: bool = False,
        checkpoint: Path | None = None,
    ) -> None:
        self.module, self.settings, self.worker, self.layout = module, settings, worker, layout
        self.compute = product_dtype(settings, worker.device)
        self.step = 0
        self.curves: dict[str, list[float]] = {name: [] for name in self.CURVES}
        share = -(-settings.batch_size // worker.world)
        self.micro_batch = min(layout.micro_batch or share, share)
        self.micro_steps = -(-share // self.micro_batch)
        tensors = self.checkpoint_format()
        if checkpoint:
            state = read_state(checkpoint, settings)
            self.step, self.curves = state["step"], {name: state[name] for name in self.CURVES}
            tensors.before_engine(checkpoint)
        module.to(worker.device)
        if not self.needs_engine:
            self.engine: Any = module
            return
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)
        self.engine = open_engine(
            module,
            optimizer,
            layout,
            self.micro_batch,
            self.micro_steps,
            settings.clip,
            worker.device,
            self.compute if autocast else torch.float32,
        )
        tensors.opened(self.engine, self.step)
        if checkpoint:
            tensors.restore(checkpoint, self.engine)

    @property
    def losses(self) -> list[float]:
        """The mean loss of every step so far."""
        return self.curves["losses"]

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch."""

    @abstractmethod
    def batches(self, epoch: int) -> list[Rows]:
        """Return the rows of each global batch of an epoch, the same on all workers."""

    @abstractmethod
    def loss_of(self, own: Rows, total: int) -> Tensor:
        """Return a loss whose mean over workers and micro-batches is that of the global batch.

        Args:
            own: this worker's rows, or a micro-batch of them; there may be none.
            total: :meth:`amount` of the global batch.
        """

    @abstractmethod
    def checkpoint_format(self) -> CheckpointFormat:
        """Return how weights and optimiser state are kept; called once, before the engine is opened."""

    def amount(self, batch: Rows) -> int:
        """Return what the loss of a global batch is a mean over, and its speed is counted in: its rows."""
        return len(batch)

    def before_first_step(self) -> None:  # noqa: B027
        """Do what precedes a run, resumed or not; nothing unless a subclass says so."""

    def after_step(self) -> None:  # noqa: B027
        """Do what follows a step; nothing unless a subclass says so."""

    def after_epoch(self) -> None:  # noqa: B027
        """Do what follows an epoch; nothing unless a subclass says so."""

    @property
    def needs_engine(self) -> bool:
        """Return whether there is an optimiser; without a step to take it would only fill memory."""
        return True

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.settings.rate(self.step, self.total_steps)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.settings.epochs

    def run(self) -> Iterator[StepReport]:
        """Go on from ``self.step`` to the end, one report a step.

        Raises:
            DivergedError: on all workers, at the first loss or gradient that is no finite number.
        """
        self.before_first_step()
        while self.step < self.total_steps:
            epoch, begin = divmod(self.step, self.steps_per_epoch)
            # Copies: a view would hold the order of this epoch while that of the next one is made.
            for batch in (one.astype(np.int64) for one in self.batches(epoch)[begin:]):
                started = time.perf_counter()
                loss, rate = self.train_on(batch)
                seconds = time.perf_counter() - started
                if not math.isfinite(loss):
                    raise self.diverged(f"the loss of step {self.step + 1}", loss, rate)
                # A partitioned optimiser leaves such a step out without a word, and all that follow it.
                if getattr(self.engine, "skipped_steps", 0):
                    raise self.diverged(f"the norm of the gradient of step {self.step + 1}", math.nan, rate)
                self.step += 1
                self.losses.append(loss)
                if self.step % self.steps_per_epoch == 0:
                    self.after_epoch()
                own = self.own_rows(batch)
                yield StepReport(self.step, epoch, loss, rate, own, self.amount(batch), seconds)

    def train_on(self, batch: Rows) -> tuple[float, float]:
        """Take one step on the global batch and return its mean loss and the learning rate."""
        rate = self.rate
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        # Dropout is a function of seed, step and worker: a resumed run continues the same curve.
        self.worker.seed((self.settings.seed * 1_000_003 + self.step) * 4099 + self.worker.rank)
        total = self.amount(batch)
        summed = torch.zeros((), device=self.worker.device)
        for rows in self.micro_batches(batch, self.micro_steps):
            loss = self.loss_of(rows, total)
            self.engine.backward(loss)
            self.engine.step()
            summed += loss.detach()
        self.after_step()
        return self.worker.summed(summed) / (self.worker.world * self.micro_steps), rate

    def scale(self, total: int) -> float:
        """Return what makes a sum of losses one whose mean over workers and micro-batches is the batch's."""
        return self.worker.world * self.micro_steps / max(1, total)

    def own_rows(self, batch: Rows) -> Rows:
        """Return this worker's rows of a global batch."""
        return rank_slice(batch, self.worker.rank, self.worker.world)

    def micro_batches(self, batch: Rows, number: int) -> Iterator[Rows]:
        """Yield this worker's rows in ``number`` micro-batches, the last of them maybe empty."""
        own = self.own_rows(batch)
        for i in range(number):
            yield own[i * self.micro_batch : (i + 1) * self.micro_batch]

    def no_loss(self) -> Tensor:
        """Return a loss of zero with gradients of zero: a worker without rows takes part in the averaging."""
        return torch.stack([p.sum() * 0 for p in self.module.parameters()]).sum()

    def diverged(self, what: str, value: float, rate: float) -> DivergedError:
        """Return the error of a number that is not finite, or too large to go on from."""
        before = f" ({self.losses[-1]:.4g} a step before)" if self.losses else ""
        return DivergedError(
            f"{what} is {value:g}{before}, at a learning rate of {rate:.3g}: take a lower --learning-rate or "
            "--precision float32"
        )

    def _check_weights(self) -> None:
        """Refuse weights that are no finite numbers: those of a step whose gradients overflowed.

        Looked at when a checkpoint is due, not after each step, which would wait for the device once more.
        """
        trained = [p for p in self.module.parameters() if p.requires_grad]
        held = [held_weights(parameter, self.worker.rank) for parameter in trained]
        broken = torch.stack([~all_finite(tensor) for tensor in held]).any()
        if self.worker.summed(broken.float().to(self.worker.device)):
            rate = self.settings.rate(max(0, self.step - 1), self.total_steps)
            raise self.diverged(f"a weight after step {self.step}", math.nan, rate)

    def save(self, folder: Path) -> None:
        """Write weights, optimiser state, step and curves; call it on ALL workers.

        Args:
            folder: each worker's own, or one of all.

        Raises:
            DivergedError: a weight is no finite number; nothing is written.
        """
        if self.needs_engine:
            self._check_weights()
        wrote = self.checkpoint_format().save(folder, self.engine, self.worker.is_first)
        sizes = self.worker.united({name: (folder / name).stat().st_size for name in wrote})
        if self.worker.is_first:
            write_state(folder, {"step": self.step, **self.curves}, self.settings, sizes)
