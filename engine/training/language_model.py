"""Training a causal language model on blocks of tokens, one step at a time, on DeepSpeed.

Knows nothing of Ray: a worker of any launcher opens an :class:`LmTraining` and iterates it. What the
run computes (:class:`LmSettings`) is apart from how it is laid out (:class:`Layout`): the global batch,
its order and its loss are the same on any number of workers, ZeRO stage or size of micro-batch.

Shape letters: B blocks, T tokens, V tokens of the vocabulary, N = B * T.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from engine.corpus.blocks.format import TokenBlocks
from engine.models.text import fast_dtype
from engine.training.deepspeed import import_deepspeed
from engine.training.lm_checkpoint import open_states, read_state, restore, restore_weights, save
from engine.training.order import Rows, epoch_batches, rank_slice
from engine.training.schedule import warmup_cosine

Tensor = torch.Tensor

LOSS_ROWS = 1024
"""Positions whose float32 probabilities exist at a time."""

BUCKET_ELEMENTS = 50_000_000
"""Gradients that DeepSpeed averages in one go; its own default sets 2 GB aside."""


class LmSettings(BaseModel):
    """What a run computes. The defaults are the paper's for continued pre-training (section GenExpan)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(
        default=1, ge=0, description="Passes over the corpus; 0 publishes the model as it is."
    )
    batch_size: int = Field(default=16, ge=1, description="Blocks a step, over all workers.")
    learning_rate: float = Field(default=1e-5, gt=0, description="Peak of the schedule.")
    weight_decay: float = Field(default=1e-4, ge=0, description="Not on biases and norms.")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="AdamW's decay of the mean squared gradient.")
    clip: float = Field(default=1.0, gt=0, description="Largest norm of the gradient.")
    warmup: float = Field(
        default=0.03, ge=0, description="Steps of the linear rise; below 1 a share of the run."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Of the products; auto: bfloat16 where the hardware is fast in it."
    )
    """Master weights are float32."""
    seed: int = Field(default=13, description="Of a new model's weights, the order and the held-out draw.")


class Layout(BaseModel):
    """How a run is spread over machines; none of it changes what is computed, but for rounding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    zero_stage: Literal[1, 2, 3] = Field(
        default=1, description="ZeRO: 1 optimiser, 2 gradients, 3 weights shared."
    )
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        description="Blocks of a worker that pass at once.  [default: all of its share]",
    )
    offload: bool = Field(default=False, description="Optimiser (at stage 3 weights too) on the host.")
    activation_checkpointing: bool = Field(default=False, description="Less memory, a third more work.")


@dataclass(frozen=True)
class StepReport:
    """One step done: where the run is, the mean loss of the global batch, and this worker's blocks."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    blocks: Rows
    tokens: int
    """Targets of the global batch."""
    seconds: float
    """That the step took, without the evaluation after an epoch."""


class LmTraining:
    """One worker's part of a training run.

    Args:
        model: a causal language model of transformers, with float32 weights; trained in place.
        train: blocks to train on (every worker maps the same files).
        held: blocks for the perplexity.
        settings: equal on all workers.
        layout: equal on all workers.
        rank: this worker's number.
        world: workers in all.
        device: where the worker trains.
        checkpoint: folder that :meth:`save` wrote, on any number of workers and at any ZeRO stage.

    Raises:
        FormatError: the checkpoint is of a run with other settings.
    """

    def __init__(
        self,
        model: Any,
        train: TokenBlocks,
        held: TokenBlocks,
        settings: LmSettings,
        layout: Layout | None = None,
        rank: int = 0,
        world: int = 1,
        device: torch.device | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self.model, self.data, self.held = model, train, held
        self.settings, self.layout = settings, layout or Layout()
        self.rank, self.world = rank, world
        self.device = device or torch.device("cpu")
        self.step = 0
        self.losses: list[float] = []
        self.perplexities: list[float] = []
        """Of the held-out blocks: before the first step, then after every epoch."""
        if checkpoint:
            place = read_state(checkpoint, settings.model_dump())
            self.step, self.losses = place["step"], place["losses"]
            self.perplexities = place["perplexities"]
            restore_weights(checkpoint, model)
        without_dropout(model)
        if self.layout.activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        share = -(-settings.batch_size // world)
        self.micro_batch = min(self.layout.micro_batch or share, share)
        self.micro_steps = -(-share // self.micro_batch)
        self.compute = compute_dtype(settings.precision, self.device)
        self.module = TokenLoss(model).to(self.device)
        self.engine = _open_engine(self)
        open_states(self.engine, self.step)
        if checkpoint:
            restore(checkpoint, model)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch."""
        return -(-len(self.data) // self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.settings.epochs

    def run(self) -> Iterator[StepReport]:
        """Go on from ``self.step`` to the end, one report a step; perplexity before and after each epoch."""
        if not self.perplexities:
            self.perplexities.append(self.evaluate())
        settings = self.settings
        while self.step < self.total_steps:
            epoch, begin = divmod(self.step, self.steps_per_epoch)
            any_length = np.zeros(len(self.data), np.int64)
            batches = epoch_batches(any_length, settings.batch_size, settings.seed, epoch)
            for batch in batches[begin:]:
                started = time.perf_counter()
                loss, rate = self.train_on(batch)
                seconds = time.perf_counter() - started
                self.step += 1
                self.losses.append(loss)
                if self.step % self.steps_per_epoch == 0:
                    self.perplexities.append(self.evaluate())
                own = rank_slice(batch, self.rank, self.world)
                tokens = self.data.count_targets(batch)
                yield StepReport(self.step, epoch, loss, rate, own, tokens, seconds)

    def train_on(self, batch: Rows) -> tuple[float, float]:
        """Take one step on the global batch and return its mean loss a token and the learning rate."""
        settings = self.settings
        rate = warmup_cosine(self.step, self.total_steps, settings.learning_rate, settings.warmup)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        # The engine averages gradients over workers and micro-steps; this makes it a mean over tokens.
        scale = self.world * self.micro_steps / max(1, self.data.count_targets(batch))
        summed = torch.zeros((), device=self.device)
        for rows in self._micro_batches(batch, self.micro_steps):
            loss = self._loss(self.data, rows) * scale
            self.engine.backward(loss)
            self.engine.step()
            summed += loss.detach()
        return self._over_workers(summed) / (self.world * self.micro_steps), rate

    @torch.no_grad()
    def evaluate(self) -> float:
        """Return the perplexity of the held-out blocks: exp of the mean loss a token (nan without any)."""
        everything = np.arange(len(self.held))
        targets = self.held.count_targets(everything)
        if not targets:
            return math.nan
        self.engine.eval()
        share = -(-len(everything) // self.world)
        summed = torch.zeros((), device=self.device)
        for rows in self._micro_batches(everything, -(-share // self.micro_batch)):
            summed += self._loss(self.held, rows)
        self.engine.train()
        return math.exp(self._over_workers(summed) / targets)

    def _micro_batches(self, batch: Rows, number: int) -> Iterator[Rows]:
        """Yield this worker's rows in ``number`` micro-batches, the last of them maybe empty."""
        own = rank_slice(batch, self.rank, self.world)
        for i in range(number):
            yield own[i * self.micro_batch : (i + 1) * self.micro_batch]

    def _loss(self, data: TokenBlocks, rows: Rows) -> Tensor:
        """Return the summed loss of some blocks.

        Without any the model still runs, on nothing that counts: at stage 3 all workers take part in
        every layer.
        """
        ids_BT, targets_BT = data.gather(rows) if len(rows) else data.nothing()
        return self.engine(ids_BT.to(self.device), targets_BT.to(self.device))

    def _over_workers(self, value: Tensor) -> float:
        if self.world > 1:
            torch.distributed.all_reduce(value)
        return float(value)

    def save(self, folder: Path) -> None:
        """Write weights, optimiser state, step and curves; call it on ALL workers, the first one writes."""
        place = {
            "step": self.step,
            "losses": self.losses,
            "perplexities": self.perplexities,
            "settings": self.settings.model_dump(),
        }
        save(folder, self.model, place, self.rank)


class TokenLoss(nn.Module):
    """A language model that returns the sum of its losses."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Return the summed loss, float32.

        Args:
            ids_BT: input tokens.
            targets_BT: the token after each; -100 where none is wanted.
        """
        logits_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
        return summed_loss(logits_BTV.flatten(0, 1), targets_BT.flatten())


def summed_loss(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Return the sum of cross-entropies over all targets that are not -100, float32.

    Equal to ``cross_entropy`` of the logits in float32, without a float32 copy of them: in a small model
    such copies are most of the memory, and a good part of the time.
    """
    return cast(Tensor, _SummedLoss.apply(logits_NV, targets_N))


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        total = torch.zeros((), device=logits_NV.device)
        log_sums = []
        for part_NV, part_N in zip(logits_NV.split(LOSS_ROWS), targets_N.split(LOSS_ROWS), strict=True):
            wide_NV = part_NV.float()
            log_sums.append(wide_NV.logsumexp(-1))
            wanted = part_N >= 0
            reached = wide_NV.gather(1, part_N.clamp(min=0)[:, None])[:, 0]
            total += ((log_sums[-1] - reached) * wanted).sum()
        ctx.save_for_backward(logits_NV, targets_N, torch.cat(log_sums))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logits_NV, targets_N, log_sum_N = ctx.saved_tensors
        gradient_NV = torch.empty_like(logits_NV)
        for start in range(0, len(targets_N), LOSS_ROWS):
            rows = slice(start, start + LOSS_ROWS)
            part_N = targets_N[rows]
            wide_NV = logits_NV[rows].float().sub_(log_sum_N[rows, None]).exp_()
            wide_NV[torch.arange(len(part_N), device=part_N.device), part_N.clamp(min=0)] -= 1
            gradient_NV[rows] = wide_NV.mul_(((part_N >= 0) * gradients[0])[:, None])
        return gradient_NV, None


def without_dropout(model: nn.Module) -> None:
    """Switch dropout off: the loss would depend on how the batch is spread, and one epoch needs none."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "hidden_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type of the products."""
    if precision == "auto":
        return fast_dtype(device)
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups: no weight decay on what is not a matrix (biases and norms)."""
    parameters = list(module.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _open_engine(training: LmTraining) -> Any:
    """Wrap the module in a DeepSpeed engine. The process group must be there if there are several workers."""
    deepspeed = import_deepspeed(training.device)
    settings, layout = training.settings, training.layout
    groups = parameter_groups(training.module, settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, settings.beta2), fused=True)
    zero: dict[str, Any] = {"stage": layout.zero_stage, "reduce_bucket_size": BUCKET_ELEMENTS}
    if layout.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
        if layout.zero_stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": training.micro_batch,
        "gradient_accumulation_steps": training.micro_steps,
        "gradient_clipping": settings.clip,
        "zero_optimization": zero,
        # Torch's own AdamW: DeepSpeed's is compiled on first use.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    if training.compute == torch.bfloat16:
        # Not DeepSpeed's bf16 mode: with narrow weights and residuals the loss stays visibly higher.
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    engine, *_ = deepspeed.initialize(model=training.module, optimizer=optimizer, config=config)
    return engine
