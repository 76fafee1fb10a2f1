"""Train the text encoder by entity prediction: what differs from other trainings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from engine.errors import UserError
from engine.losses.entity_prediction import EntityPrediction
from engine.models.text import TextEncoder
from engine.training.cache import CachedStates
from engine.training.checkpoint import CheckpointFormat, ReplicatedCheckpoint
from engine.training.layout import EngineLayout
from engine.training.optimizer import parameter_groups
from engine.training.order import Rows, epoch_batches, row_type
from engine.training.settings import EncoderSettings
from engine.training.text_head import save_head, start_head
from engine.training.trainer import Trainer, Worker, product_dtype

Tensor = torch.Tensor


class EncoderTraining(Trainer):
    """One worker's part of a training run.

    Args:
        encoder: the model; its last layer is trained in place.
        data: all rows, with the states of those at least that this worker takes.
        n_entities: size of the vocabulary.
        settings: equal on all workers.
        worker: this process.
        checkpoint: folder to go on from.
        head: weights that the head begins with (:func:`engine.training.text_head.start_head`); default:
            at random.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        data: CachedStates,
        n_entities: int,
        settings: EncoderSettings,
        worker: Worker | None = None,
        checkpoint: Path | None = None,
        head: Mapping[str, Tensor] | None = None,
    ) -> None:
        worker = worker or Worker()
        self.encoder, self.data = encoder, data
        self._rows = data.with_text.astype(row_type(len(data)))
        if not len(self._rows):
            raise UserError("no context has text to train on; train with --modality text+image or image")
        torch.manual_seed(settings.seed)
        compute = product_dtype(settings, worker.device)
        if settings.last_layer_dropout and not encoder.last.can_drop:
            raise UserError(
                f"--last-layer-dropout {settings.last_layer_dropout:g}: the last layer of this encoder "
                f"({encoder.model.config.model_type}) is computed whole, without dropout; leave it out"
            )
        self.worker = worker
        module = self.made_module(
            encoder.last,
            n_entities,
            settings.smoothing,
            compute,
            settings.last_layer_dropout,
            settings.samples_of(n_entities),
        )
        if head is not None:
            start_head(module.head, head)
        groups = parameter_groups(module, settings.weight_decay)
        super().__init__(module, settings, groups, worker, EngineLayout(), checkpoint=checkpoint)

    def made_module(self, *prediction: Any) -> EntityPrediction:
        """Return what is trained, of the arguments of :class:`EntityPrediction`."""
        return EntityPrediction(*prediction)

    @property
    def contexts(self) -> int:
        """Sentences that are trained on."""
        return len(self._rows)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch."""
        return -(-len(self._rows) // self.settings.batch_size)

    def batches(self, epoch: int) -> list[Rows]:
        """Return batches of sentences of about equal length."""
        settings = self.settings
        return epoch_batches(self.data.lengths, settings.batch_size, settings.seed, epoch, self._rows)

    def own_rows(self, batch: Rows) -> Rows:
        """Return this worker's rows of a global batch: those whose states it reads."""
        return batch[self.owners_of(batch) == self.worker.rank]

    def owners_of(self, batch: Rows) -> Rows:
        """Return the worker that takes each row of a global batch."""
        return self.data.owners_of(batch, self.worker.world)

    def micro_batches(self, batch: Rows, number: int) -> Iterator[Rows]:
        """Yield this worker's rows in ``number`` parts; workers may have more and fewer of them."""
        yield from np.array_split(self.own_rows(batch), number)

    def loss_of(self, own: Rows, total: int) -> Tensor:
        """Return the smoothed cross-entropy of some rows, scaled to the global batch."""
        if not len(own):
            return self.no_loss()
        device = self.worker.device
        states, lengths, mask, entities = (t.to(device) for t in self.data.gather(own, self.compute))
        loss: Tensor = self.engine(states, lengths, mask, entities) * self.scale(total)
        return loss

    def checkpoint_format(self) -> CheckpointFormat:
        """Return one file: all workers hold the same."""
        return ReplicatedCheckpoint({"module": self.module}, self.worker.device)

    def save_encoder(self, folder: Path) -> str:
        """Write the whole text encoder as a Hugging Face folder, and its head beside it.

        Returns:
            The file that is to arrive last.
        """
        save_head(cast(EntityPrediction, self.module).head, folder)
        self.encoder.save(folder)
        return "config.json"
