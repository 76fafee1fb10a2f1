"""Train a causal language model on blocks of tokens: what differs from other trainings.

Shape letters: B blocks, T tokens, V tokens of the vocabulary, N = B * T.
"""

from __future__ import annotations

import math
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import nn

from engine.corpus.blocks.format import TokenBlocks
from engine.errors import UserError
from engine.training.checkpoint import CheckpointFormat
from engine.training.layout import Layout
from engine.training.lm_models import ROLE
from engine.training.optimizer import parameter_groups
from engine.training.order import Rows, epoch_batches
from engine.training.partitioned import PartitionedCheckpoint
from engine.training.partitioned_model import narrow_weights
from engine.training.settings import LmSettings
from engine.training.trainer import Trainer, Worker

Tensor = torch.Tensor

LOSS_ROWS = 1024
"""Positions whose float32 probabilities exist at a time."""

LARGEST_LOSS = math.log(sys.float_info.max)
"""The mean loss a token from which on a perplexity is no number: 709.8."""

HELDOUT_LOGITS = 1 << 24
"""Logits that exist at a time while the perplexity is measured (64 MiB); one block's where it has more."""


class LmTraining(Trainer):
    """One worker's part of a training run; measures the perplexity before the first step and after epochs.

    Args:
        model: a causal language model of transformers, with float32 weights; trained in place. The workers
            may share it already, at ZeRO stage 3 (:mod:`engine.training.partitioned_model`).
        train: blocks to train on (every worker maps the same files).
        held: blocks for the perplexity.
        settings: equal on all workers.
        layout: equal on all workers.
        worker: this process.
        checkpoint: folder to go on from, of any number of workers and any ZeRO stage.
    """

    CURVES: ClassVar[tuple[str, ...]] = ("losses", "perplexities")

    def __init__(
        self,
        model: Any,
        train: TokenBlocks,
        held: TokenBlocks,
        settings: LmSettings,
        layout: Layout | None = None,
        worker: Worker | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self.model, self.data, self.held = model, train, held
        self.held_sample = heldout_sample(len(held), settings)
        layout = layout or Layout()
        without_dropout(model)
        if layout.activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        narrow = layout.weights == "bfloat16"
        if narrow:
            narrow_weights(model)
        module = TokenLoss(model, narrow)
        groups = parameter_groups(module, settings.weight_decay)
        super().__init__(
            module, settings, groups, worker or Worker(), layout, autocast=True, checkpoint=checkpoint
        )

    @property
    def perplexities(self) -> list[float]:
        """The perplexities of the held-out blocks: before the first step, then after every epoch."""
        return self.curves["perplexities"]

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch."""
        return -(-len(self.data) // self.settings.batch_size)

    def batches(self, epoch: int) -> list[Rows]:
        """Return batches of blocks, which are all of one length."""
        any_length = np.zeros(len(self.data), np.int64)
        return epoch_batches(any_length, self.settings.batch_size, self.settings.seed, epoch)

    def amount(self, batch: Rows) -> int:
        """Return the targets of a global batch: the loss is a mean a token."""
        return self.data.count_targets(batch)

    def before_first_step(self) -> None:
        """Measure what the model knows before it learns, unless the run is a resumed one."""
        if not self.perplexities:
            self.after_epoch()

    def after_epoch(self) -> None:
        """Measure the perplexity."""
        self.perplexities.append(self.evaluate())

    def loss_of(self, own: Rows, total: int) -> Tensor:
        """Return the cross-entropy of some blocks, scaled to the global batch."""
        return self._loss(self.data, own) * self.scale(total)

    @property
    def needs_engine(self) -> bool:
        """Return whether there are steps to take, or the workers share the weights."""
        return self.total_steps > 0 or self.layout.zero_stage == 3

    @torch.no_grad()
    def evaluate(self) -> float:
        """Return the perplexity of the sample of held-out blocks: exp of the mean loss a token.

        nan without any. Memory is bounded by :data:`HELDOUT_LOGITS`, whatever the size of a training step.

        Raises:
            DivergedError: the mean loss is no finite number, or so large that its exp is none.
        """
        targets = self.held.count_targets(self.held_sample)
        if not targets:
            return math.nan
        self.engine.eval()
        share = -(-len(self.held_sample) // self.worker.world)
        own = self.own_rows(self.held_sample)
        together = max(1, HELDOUT_LOGITS // (self.held.width * self.model.config.vocab_size))
        together = min(together, self.micro_batch)
        # Thousands of losses are added up, and their number differs with the workers: in float64.
        summed = torch.zeros((), dtype=torch.float64, device=self.worker.device)
        narrow = self.compute != torch.float32 and self.layout.weights == "float32"
        with torch.autocast(self.worker.device.type, self.compute, enabled=narrow):
            for start in range(0, share, together):  # all workers take part in every pass
                summed += self._loss(self.held, own[start : start + together])
        self.engine.train()
        return self._perplexity(self.worker.summed(summed) / targets)

    def _perplexity(self, mean: float) -> float:
        if mean < LARGEST_LOSS:
            return math.exp(mean)
        if not self.step:
            raise UserError(
                f"{ROLE}: before any training its mean loss a token is {mean:g} on the held-out texts: its "
                "weights are broken, or it is no language model of such texts; copy it again, or take another"
            )
        rate = self.settings.rate(self.step - 1, self.total_steps)
        raise self.diverged(f"the mean loss of the held-out texts after step {self.step}", mean, rate)

    def _loss(self, data: TokenBlocks, rows: Rows) -> Tensor:
        """Return the summed loss of some blocks.

        Without any the model still runs, on nothing that counts: at stage 3 all workers take part in
        every layer.
        """
        ids_BT, targets_BT = data.gather(rows) if len(rows) else data.nothing()
        device = self.worker.device
        loss: Tensor = self.engine(ids_BT.to(device), targets_BT.to(device))
        return loss

    def checkpoint_format(self) -> CheckpointFormat:
        """Return files that all workers gather from their shares."""
        return PartitionedCheckpoint(self.model)


def heldout_sample(available: int, settings: LmSettings) -> Rows:
    """Return the held-out blocks that the perplexity is measured on: all, or as many as are asked for.

    Args:
        available: held-out blocks.
        settings: the size of the sample, and the seed that it is drawn by.
    """
    if available <= settings.held_out_blocks:
        return np.arange(available)
    drawn = np.random.default_rng(settings.seed).choice(available, settings.held_out_blocks, replace=False)
    return np.sort(drawn)


class TokenLoss(nn.Module):
    """A language model that returns the sum of its losses.

    Args:
        model: of transformers.
        narrow: its weights are bfloat16; what its layers add to stays float32, without which the loss stays
            visibly higher.
    """

    def __init__(self, model: Any, narrow: bool = False) -> None:
        super().__init__()
        self.model, self.narrow = model, narrow
        if narrow:
            model.get_input_embeddings().register_forward_hook(lambda module, read, states: states.float())
            for module in model.modules():
                # On a processor torch normalises float32 states with float32 weights alone.
                if isinstance(module, nn.LayerNorm) and module.weight is not None:
                    module.register_forward_pre_hook(lambda norm, read: (read[0].to(norm.weight.dtype),))

    def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Return the summed loss, float32.

        Args:
            ids_BT: input tokens.
            targets_BT: the token after each; -100 where none is wanted.
        """
        with torch.autocast(ids_BT.device.type, torch.bfloat16) if self.narrow else nullcontext():
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
