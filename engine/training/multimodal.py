"""Train the multi-modal encoder by its four objectives (MESED): what differs from other trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.errors import UserError
from engine.losses.combined import EntityPredictionModel, Objectives
from engine.losses.distillation import teacher_of, update_teacher
from engine.models.multimodal import MultimodalEncoder
from engine.models.text import BARE_TOKENS, TextEncoder
from engine.training.checkpoint import CheckpointFormat, ReplicatedCheckpoint
from engine.training.contexts import Context, Contexts
from engine.training.optimizer import parameter_groups
from engine.training.order import Rows, epoch_batches
from engine.training.pairs import NeighborLists, PairedBatches
from engine.training.settings import EngineLayout, MultimodalSettings
from engine.training.trainer import Trainer, Worker

Tensor = torch.Tensor

FIT_CONTEXTS = 4096
"""Contexts that the closed-form parts are fitted to: ten for each dimension of a common text encoder."""
FIT_BATCH = 256


class MultimodalTraining(Trainer):
    """One worker's part of a training run.

    Args:
        text: the text encoder; its last layer is trained in place.
        data: all contexts.
        lists: positives and hard negatives, for the contrastive and the clustering objective.
        settings: equal on all workers.
        worker: this process.
        checkpoint: folder to go on from.
    """

    settings: MultimodalSettings

    def __init__(
        self,
        text: TextEncoder,
        data: Contexts,
        lists: NeighborLists,
        settings: MultimodalSettings,
        worker: Worker | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        worker = worker or Worker()
        self.text, self.data, self.settings = text, data, settings
        self._rows = data.usable(settings.modality)
        self._pairs = PairedBatches(data.entity_id, self._rows, lists, settings.batch_size, settings.seed)
        if worker.world > (fewest := min(len(b) for b in self.batches(0))):
            raise UserError(
                f"{len(self._rows)} contexts, {fewest} and more a batch, are too few for "
                f"{worker.world} workers; take fewer workers, or a larger --batch-size"
            )
        torch.manual_seed(settings.seed)
        config = settings.config(data.features.n_patches, data.features.dim)
        predictor = EntityPredictionModel(MultimodalEncoder(text.last, config), len(lists.positive))
        self._fit(predictor.encoder)
        self.predictor = predictor
        self.teacher = teacher_of(predictor).to(worker.device) if settings.schedule.distillation else None
        module = Objectives(predictor, settings.schedule, worker.rank, worker.world)
        groups = _groups(module, settings)
        super().__init__(module, settings, groups, worker, EngineLayout(), checkpoint=checkpoint)
        self.module.train()

    def _fit(self, encoder: MultimodalEncoder) -> None:
        """Fit the parts with a closed form: standardisation of features, and the LDA projection."""
        data, rows, modality = self.data, self._sampled(), self.settings.modality
        with_image = rows[data.image_row[rows] >= 0]
        if len(with_image) and modality != "text":
            features_NPC = data.features.gather(data.image_row[with_image])
            encoder.patches.fit(features_NPC)
            if encoder.lda is not None:
                means_NC = encoder.patches.scaled(features_NPC.float()).mean(dim=1)
                encoder.lda.fit_image(means_NC, torch.from_numpy(data.entity_id[with_image]))
        with_text = rows[data.lengths[rows] > BARE_TOKENS]
        if len(with_text) and modality != "image" and encoder.lda is not None:
            means_ND = self._text_means(encoder, with_text)
            encoder.lda.fit_text(means_ND, torch.from_numpy(data.entity_id[with_text]))

    def _sampled(self) -> Rows:
        """Return all contexts of randomly drawn entities."""
        entity = self.data.entity_id[self._rows]
        order = np.random.default_rng(0).permutation(int(entity.max(initial=0)) + 1)
        by_entity = np.argsort(order[entity], kind="stable")
        return np.sort(self._rows[by_entity[:FIT_CONTEXTS]])

    @torch.no_grad()
    def _text_means(self, encoder: MultimodalEncoder, rows: Rows) -> Tensor:
        device = next(encoder.last.parameters()).device
        found = []
        for start in range(0, len(rows), FIT_BATCH):
            context = self.data.gather(rows[start : start + FIT_BATCH], "text").to(device)
            found.append(encoder.text_means(context.states_BLD, context.lengths_B).cpu())
        return torch.cat(found)

    @property
    def contexts(self) -> int:
        """Contexts that are trained on."""
        return len(self._rows)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch."""
        if self.settings.schedule.paired:
            return len(self._pairs)
        return -(-len(self._rows) // self.settings.batch_size)

    def batches(self, epoch: int) -> list[Rows]:
        """Return batches of pairs, or of contexts of about equal length where no objective compares pairs."""
        if self.settings.schedule.paired:
            return self._pairs.epoch(epoch)
        settings = self.settings
        lengths = self.data.lengths[self._rows]
        return [self._rows[b] for b in epoch_batches(lengths, settings.batch_size, settings.seed, epoch)]

    def loss_of(self, own: Rows, total: int) -> Tensor:
        """Return the weighted sum of the objectives."""
        device = self.worker.device
        context = self._shown(own).to(device)
        entities = torch.from_numpy(self.data.entity_id[own]).to(device)
        with torch.autocast(device.type, self.compute, enabled=self.compute != torch.float32):
            teacher_logits = None
            if self.teacher is not None:
                with torch.no_grad():
                    _, teacher_logits = self.teacher(context)
            loss: Tensor = self.engine(context, entities, teacher_logits, total)
        return loss

    def _shown(self, own: Rows) -> Context:
        """Return contexts after modality dropout, a function of seed, step and context."""
        context = self.data.gather(own, self.settings.modality)
        if not (self.settings.modality_dropout and self.settings.modality == "text+image"):
            return context
        draws = np.random.default_rng([self.settings.seed, self.step]).random(len(self.data))
        drawn_B = torch.from_numpy(draws[own])
        both_B = context.has_image_B & (context.lengths_B > BARE_TOKENS)
        share = self.settings.modality_dropout
        return self.data.without(context, both_B & (drawn_B < share), both_B & (drawn_B >= 1 - share))

    def after_step(self) -> None:
        """Move the teacher towards the model."""
        if self.teacher is not None:
            update_teacher(self.teacher, self.predictor)

    def checkpoint_format(self) -> CheckpointFormat:
        """Return one file, the teacher's tensors in it: all workers hold the same."""
        modules: dict[str, nn.Module] = {"module": self.module}
        if self.teacher is not None:
            modules["teacher"] = self.teacher
        return ReplicatedCheckpoint(modules, self.worker.device)

    def save_encoder(self, folder: Path) -> str:
        """Write the model and the whole text encoder; return the file that is to arrive last."""
        self.text.save(folder / "text")
        return self.predictor.save(folder)


def _groups(module: Objectives, settings: MultimodalSettings) -> list[dict[str, Any]]:
    """Return AdamW's groups; the text encoder's own layer learns at a share of the rate."""
    own = {id(p) for p in module.predictor.encoder.last.parameters()}
    groups = []
    for group in parameter_groups(module, settings.weight_decay):
        for is_text in (True, False):
            chosen = [p for p in group["params"] if (id(p) in own) == is_text]
            share = settings.text_share if is_text else 1.0
            groups.append({**group, "params": chosen, "share": share})
    return groups
