"""Build the views of what a head predicts: mean states of contexts, and predicted distributions.

Of the multi-modal encoder both, with the images; of the text encoder the distributions alone. A pool of
actors takes entities, some at a time, with all contexts of each: a mean of predictions must be whole before
its largest are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from engine.models.device import worker_device
from engine.models.multimodal import EntityPredictionModel
from engine.models.text import TextEncoder
from engine.retrieval.distributions import EntityDistributions
from engine.retrieval.index import Vectors, unit
from engine.retrieval.views import centred
from engine.storage.store import local_folder
from engine.storage.workspace import Workspace
from engine.training.cache import FrozenCache
from engine.training.contexts import Contexts
from engine.training.multimodal_data import open_contexts
from engine.training.settings import Modality
from engine.training.text_head import TextContexts, TextPredictionModel
from jobs import console
from jobs.steps.encoder_training import Trained
from jobs.workers.executor import Executor

ENTITIES_A_TASK = 128
"""Their dense predictions and logarithms are 2 * 128 * 50,000 * 8 B = 100 MB in a vocabulary of 50,000."""

CONTEXTS = 64
"""Contexts of a forward pass."""


@dataclass(frozen=True)
class ViewSource:
    """The inputs of a view that an actor opens: the run, the text side, and the modality."""

    workspace: str
    trained: Trained
    cache: FrozenCache
    modality: Modality
    temperature: float

    def contexts(self) -> Contexts:
        """Open the contexts."""
        model = self.trained.model
        text = TextEncoder.load(model)
        return open_contexts(Workspace.open(self.workspace), self.cache, self.trained.features, text, model)

    def predictor(self) -> EntityPredictionModel:
        """Load the trained encoder and its head."""
        folder = Path(local_folder(f"{self.trained.folder.uri}"))
        return EntityPredictionModel.load(folder, TextEncoder.load(str(folder / "text")))


@dataclass(frozen=True)
class TextSource:
    """The same of the text encoder."""

    trained: Trained
    cache: FrozenCache
    temperature: float
    modality: Modality = "text"

    def contexts(self) -> TextContexts:
        """Open the contexts."""
        return TextContexts(self.cache.open())

    def predictor(self) -> TextPredictionModel:
        """Load the trained encoder and its head."""
        return TextPredictionModel.load(Path(local_folder(self.trained.folder.uri)))


class Means(NamedTuple):
    """The means of n entities: states, float64 [n, D], and distributions."""

    states_nD: npt.NDArray[np.float64]
    distributions: EntityDistributions


def multimodal_view(
    source: ViewSource, n_entities: int, executor: Executor
) -> tuple[Vectors, EntityDistributions]:
    """Return each entity's unit mean state, centred, [N, D], and its distributions."""
    found = _entity_means(source, n_entities, executor, "multi-modal view, entities")
    return centred(unit(found.states_nD)), found.distributions


def text_distributions(source: TextSource, n_entities: int, executor: Executor) -> EntityDistributions:
    """Return what the text encoder's head predicts of each entity."""
    return _entity_means(source, n_entities, executor, "distributions of the text, entities").distributions


def _entity_means(source: ViewSource | TextSource, n_entities: int, executor: Executor, label: str) -> Means:
    firsts = list(range(0, n_entities, ENTITIES_A_TASK))
    found: dict[int, Means] = {}
    with console.meter(label, n_entities) as meter:
        for place, means in executor.map(EntityMeansWorker, (source, n_entities), firsts, gpu=True):
            found[place] = means
            meter.add(len(means.distributions))
    parts = [found[place] for place in sorted(found)]
    return Means(
        np.concatenate([part.states_nD for part in parts]),
        EntityDistributions.concatenate([part.distributions for part in parts]),
    )


class EntityMeansWorker:
    """A worker that computes mean states and distributions of some entities, over all contexts of each."""

    def __init__(self, source: ViewSource | TextSource, n_entities: int) -> None:
        self._source, self._n = source, n_entities
        self._device = worker_device()
        self._contexts = source.contexts()
        self._predictor = source.predictor().to(self._device)

    def __call__(self, first: int) -> Means:
        """Return the means of :data:`ENTITIES_A_TASK` entities from ``first`` on."""
        states, shares, logs = self.means(first, min(ENTITIES_A_TASK, self._n - first))
        return Means(states, EntityDistributions.of(shares, logs))

    def means(self, first: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the means over the contexts of n entities; zeros for none.

        Returns:
            Of the states [n, D], of the predicted distributions [n, N], and of their logarithms [n, N].
        """
        data, modality = self._contexts, self._source.modality
        usable = data.usable(modality)
        own = usable[(data.entity_id[usable] >= first) & (data.entity_id[usable] < first + n)]
        own = own[np.argsort(data.lengths[own], kind="stable")]
        states = np.zeros((n, self._predictor.dim))
        shares, logs = np.zeros((n, self._n)), np.zeros((n, self._n))
        with torch.inference_mode():
            for start in range(0, len(own), CONTEXTS):
                rows = own[start : start + CONTEXTS]
                context = data.gather(rows, modality).to(self._device)
                states_BD, logits_BN = self._predictor(context)
                logs_BN = (logits_BN.float() / self._source.temperature).log_softmax(dim=1)
                places = data.entity_id[rows] - first
                for total, some in ((states, states_BD), (shares, logs_BN.exp()), (logs, logs_BN)):
                    # Row by row: quicker than np.add.at where rows are long, and in the same order.
                    for place, row in zip(places, some.double().cpu().numpy(), strict=True):
                        total[place] += row
        counts = np.maximum(np.bincount(data.entity_id[own] - first, minlength=n), 1)[:, None]
        return states / counts, shares / counts, logs / counts
