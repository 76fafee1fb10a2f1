"""Train the multi-modal encoder by its four objectives (MESED): what differs from other trainings.

Besides the objectives (:mod:`engine.losses.settings`), the authors' program trains at a constant learning
rate without clipping, each entity by 64 contexts an epoch however many it has, and with dropout inside the
text encoder, whose lower layers are not cached. Here, unless the settings say otherwise, the rate is
one-cycle and gradients are clipped; every context is seen once a pass (a pass of pairs has as many, a quarter
of them drawn in turn).

What predicts entities afterwards is the head that was trained, as in the paper, or, ours, a classifier by the
nearest mean of the trained states: label smoothing teaches a head that all wrong entities are equally wrong,
and MultiExpan's search asks which of them are similar.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from engine.errors import UserError
from engine.losses.combined import EntityPredictionModel, Objectives
from engine.losses.distillation import teacher_of, update_teacher
from engine.losses.settings import Objective
from engine.models.image_tower import ImageTower
from engine.models.multimodal import MultimodalEncoder, make_encoder
from engine.models.text import BARE_TOKENS, TextEncoder
from engine.training.checkpoint import CheckpointFormat, ReplicatedCheckpoint
from engine.training.contexts import Context, Contexts
from engine.training.layout import EngineLayout
from engine.training.optimizer import parameter_groups
from engine.training.order import Rows, draws_at, epoch_batches, row_type
from engine.training.own_lists import HeldLists, mean_states, mine_own_lists
from engine.training.pairs import NeighborLists, PairedBatches
from engine.training.settings import MultimodalSettings
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
        lists: positives and hard negatives, for the contrastive and the clustering objective; those that the
            settings refresh begin with these.
        settings: equal on all workers.
        worker: this process.
        checkpoint: folder to go on from.
        tower: the image side of a baseline's architecture; MultiExpan has none.
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
        tower: ImageTower | None = None,
    ) -> None:
        worker = worker or Worker()
        self.text, self.data, self.settings = text, data, settings
        self._rows = data.usable(settings.modality).astype(row_type(len(data)))
        self._lists = HeldLists(lists)
        self._pairs = self._paired()
        if worker.world > (fewest := min(len(b) for b in self.batches(0))):
            raise UserError(
                f"{len(self._rows)} contexts, {fewest} and more a batch, are too few for "
                f"{worker.world} workers; take fewer workers, or a larger --batch-size"
            )
        torch.manual_seed(settings.seed)
        config = settings.config(data.features.n_patches, data.features.dim)
        predictor = EntityPredictionModel(make_encoder(text.last, config, tower), len(lists.positive))
        if isinstance(predictor.encoder, MultimodalEncoder):
            # By one worker, for all: it reads the drawn contexts whosever they are.
            if worker.is_first:
                self._fit(predictor.encoder)
            worker.spread(predictor.encoder.fitted)
        self.predictor = predictor
        self.teacher = teacher_of(predictor).to(worker.device) if settings.schedule.distillation else None
        module = Objectives(predictor, settings.schedule, worker.rank, worker.world)
        self._objectives = module
        groups = _groups(module, settings)
        super().__init__(module, settings, groups, worker, EngineLayout(), checkpoint=checkpoint)
        self.module.train()
        self._pairs = self._paired()  # the lists of the checkpoint
        self._leave_unused_heads_alone()

    def _fit(self, encoder: MultimodalEncoder) -> None:
        """Fit the parts with a closed form: standardisation of features, and the LDA projection."""
        data, rows, modality = self.data, self._sampled(), self.settings.modality
        with_image = rows[data.image_row[rows] >= 0]
        if len(with_image) and modality != "text":
            features_NPC = data.features.gather(data.image_row[with_image])
            encoder.patches.fit(features_NPC)
            if encoder.lda is not None:
                means_NC = encoder.patches.scaled(features_NPC.float()).mean(dim=1)
                encoder.lda.fit_image(means_NC, data.entities_of(with_image))
        with_text = rows[data.lengths[rows] > BARE_TOKENS]
        if len(with_text) and modality != "image" and encoder.lda is not None:
            means_ND = self._text_means(encoder, with_text)
            encoder.lda.fit_text(means_ND, data.entities_of(with_text))

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
        """Global batches of an epoch, over all its passes."""
        return sum(size for _, size in self._passes())

    def batches(self, epoch: int) -> list[Rows]:
        """Return the batches of each pass of an epoch one after the other.

        They are of pairs, or of contexts of about equal length where a pass compares no pairs.
        """
        objectives = self.settings.schedule.epoch()
        paired = sum(self._of_pairs(objective) for objective in objectives)
        found, place = [], epoch * paired
        for objective in objectives:
            if self._of_pairs(objective):
                found += self._pairs.epoch(place)
                place += 1
            else:
                found += self._single(epoch)
        return found

    @property
    def objective(self) -> Objective | None:
        """The objective of the next step; None: the sum of all."""
        left = self.step % self.steps_per_epoch
        for objective, size in self._passes():
            if left < size:
                return objective
            left -= size
        raise AssertionError("no step is behind the last pass")

    def _passes(self) -> list[tuple[Objective | None, int]]:
        """Return the objective of each pass of an epoch, and its batches."""
        single = -(-len(self._rows) // self.settings.batch_size)
        objectives = self.settings.schedule.epoch()
        return [(one, len(self._pairs) if self._of_pairs(one) else single) for one in objectives]

    def _of_pairs(self, objective: Objective | None) -> bool:
        return self.settings.schedule.paired and objective != "prediction"

    def _paired(self) -> PairedBatches:
        data, settings = self.data, self.settings
        lists = self._lists.lists
        return PairedBatches(data.entity_id, self._rows, lists, settings.batch_size, settings.seed)

    def _single(self, epoch: int) -> list[Rows]:
        settings = self.settings
        return epoch_batches(self.data.lengths, settings.batch_size, settings.seed, epoch, self._rows)

    def _leave_unused_heads_alone(self) -> None:
        """Let a pass of one objective neither decay the heads of the others nor go on with their momentum.

        That is what plain torch does with parameters that no gradient reached; ours get one of zeros.
        """

        def leave(*_: Any) -> None:
            for parameter in self._objectives.unused(self.objective):
                parameter.grad = None

        self.engine.optimizer.register_step_pre_hook(leave)

    def own_rows(self, batch: Rows) -> Rows:
        """Return this worker's rows of a global batch: those whose states it reads."""
        return batch[self.data.owners_of(batch, self.worker.world) == self.worker.rank]

    def micro_batches(self, batch: Rows, number: int) -> Iterator[Rows]:
        """Yield this worker's rows at once: a batch may be compared as a whole."""
        assert number == 1
        self._owner = self.data.owners_of(batch, self.worker.world)
        yield self.own_rows(batch)

    def loss_of(self, own: Rows, total: int) -> Tensor:
        """Return the loss of this step's objective, or the weighted sum of all."""
        device, objective = self.worker.device, self.objective
        context = self._shown(own).to(device)
        entities = self.data.entities_of(own).to(device)
        with torch.autocast(device.type, self.compute, enabled=self.compute != torch.float32):
            told = self._told(context) if objective in (None, "prediction") else None
            owner = torch.from_numpy(self._owner)
            loss: Tensor = self.engine(context, entities, told, owner, objective)
        return loss if len(own) else loss + self.no_loss()

    def _told(self, context: Context) -> Tensor | None:
        """Move the teacher towards the model, as the authors do before it is asked; return its logits."""
        if self.teacher is None:
            return None
        update_teacher(self.teacher, self.predictor)
        if not len(context.lengths_B):
            return None
        with torch.no_grad():
            logits_BN: Tensor = self.teacher(context)[1]
        return logits_BN

    def _shown(self, own: Rows) -> Context:
        """Return contexts after modality dropout, a function of seed, step and context."""
        context = self.data.gather(own, self.settings.modality)
        if not (self.settings.modality_dropout and self.settings.modality == "text+image"):
            return context
        drawn_B = torch.from_numpy(draws_at([self.settings.seed, self.step], own))
        both_B = context.has_image_B & (context.lengths_B > BARE_TOKENS)
        share = self.settings.modality_dropout
        return self.data.without(context, both_B & (drawn_B < share), both_B & (drawn_B >= 1 - share))

    def after_epoch(self) -> None:
        """Mine the lists anew where it is their turn; after the last epoch, set a nearest-mean head."""
        schedule = self.settings.schedule
        epoch = self.step // self.steps_per_epoch
        if self.step == self.total_steps:
            if self.settings.head == "nearest-mean":
                present_N = np.bincount(self.data.entity_id[self._rows], minlength=self._n_entities) > 0
                # In float32, as contexts are encoded when the index is built.
                means_ND = torch.from_numpy(self._mean_states(torch.float32)).float().to(self.worker.device)
                self.predictor.head.set_to_means(means_ND, torch.from_numpy(present_N).to(means_ND.device))
        elif schedule.refreshes and epoch % schedule.refresh_pairs == 0:
            self._lists.hold(mine_own_lists(self._mean_states(self.compute)))
            self._pairs = self._paired()

    def _mean_states(self, compute: torch.dtype) -> npt.NDArray[np.float64]:
        modality, n_entities = self.settings.modality, self._n_entities
        return mean_states(self.predictor, self.data, n_entities, modality, self.worker, compute)

    @property
    def _n_entities(self) -> int:
        return len(self._lists.positive)

    def checkpoint_format(self) -> CheckpointFormat:
        """Return one file, with the teacher and the lists that were mined: all workers hold the same."""
        modules: dict[str, nn.Module] = {"module": self.module}
        if self.teacher is not None:
            modules["teacher"] = self.teacher
        if self.settings.schedule.refreshes:
            modules["lists"] = self._lists
        return ReplicatedCheckpoint(modules, self.worker.device)

    def save_encoder(self, folder: Path) -> str:
        """Write the model and the whole text encoder; return the file that is to arrive last."""
        self.text.save(folder / "text")
        return self.predictor.save(folder)


def _groups(module: Objectives, settings: MultimodalSettings) -> list[dict[str, Any]]:
    """Return AdamW's groups; what does not begin anew learns at a share of the rate."""
    own = {id(p) for p in module.predictor.encoder.pretrained}
    groups = []
    for group in parameter_groups(module, settings.weight_decay):
        for begun in (True, False):
            chosen = [p for p in group["params"] if (id(p) in own) == begun]
            share = settings.text_share if begun else 1.0
            groups.append({**group, "params": chosen, "share": share})
    return groups
