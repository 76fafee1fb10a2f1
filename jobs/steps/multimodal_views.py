"""Build the multi-modal part of a bundle: mask representations, images, predicted distributions.

A pool of actors takes entities, some at a time, with all contexts of each: a mean of predictions must be
whole before its largest are kept.
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
from engine.retrieval.distributions import SparseDistributions, truncate
from engine.retrieval.index import Vectors, unit
from engine.retrieval.views import centred
from engine.storage.store import local_folder
from engine.storage.workspace import Workspace
from engine.training.cache import FrozenCache
from engine.training.contexts import Contexts
from engine.training.multimodal_data import open_contexts
from engine.training.settings import Modality
from jobs import console
from jobs.steps.encoder_training import Trained
from jobs.workers.executor import Executor

ENTITIES_A_TASK = 256
"""Their dense predictions are 256 * 50,000 * 8 B = 100 MB in a vocabulary of 50,000."""

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


class Means(NamedTuple):
    """The means of n entities: states, float64 [n, D], and distributions, the largest of each [n, M]."""

    states_nD: npt.NDArray[np.float64]
    ids_nM: npt.NDArray[np.int32]
    values_nM: npt.NDArray[np.float32]
    rest_n: npt.NDArray[np.float32]


def multimodal_view(
    source: ViewSource, n_entities: int, executor: Executor
) -> tuple[Vectors, SparseDistributions]:
    """Return each entity's unit mean state, centred, [N, D], and its mean distribution."""
    firsts = list(range(0, n_entities, ENTITIES_A_TASK))
    found: dict[int, Means] = {}
    with console.meter("multi-modal view, entities", n_entities) as meter:
        for place, means in executor.map(EntityMeansWorker, (source, n_entities), firsts, gpu=True):
            found[place] = means
            meter.add(len(means.rest_n))
    states, ids, values, rest = (
        np.concatenate(c) for c in zip(*(found[i] for i in sorted(found)), strict=True)
    )
    return centred(unit(states)), SparseDistributions(ids, values, rest)


class EntityMeansWorker:
    """A worker that computes mean states and distributions of some entities, over all contexts of each."""

    def __init__(self, source: ViewSource, n_entities: int) -> None:
        self._source, self._n = source, n_entities
        self._device = worker_device()
        self._contexts = source.contexts()
        self._predictor = source.predictor().to(self._device)

    def __call__(self, first: int) -> Means:
        """Return the means of :data:`ENTITIES_A_TASK` entities from ``first`` on."""
        states, predicted = self.means(first, min(ENTITIES_A_TASK, self._n - first))
        return Means(states, *truncate(predicted))

    def means(self, first: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean state [n, D] and the mean distribution [n, N] of n entities; zeros for none."""
        data, modality = self._contexts, self._source.modality
        usable = data.usable(modality)
        own = usable[(data.entity_id[usable] >= first) & (data.entity_id[usable] < first + n)]
        own = own[np.argsort(data.lengths[own], kind="stable")]
        states = np.zeros((n, self._predictor.encoder.dim))
        predicted = np.zeros((n, self._n))
        with torch.inference_mode():
            for start in range(0, len(own), CONTEXTS):
                rows = own[start : start + CONTEXTS]
                context = data.gather(rows, modality).to(self._device)
                states_BD, logits_BN = self._predictor(context)
                shares_BN = (logits_BN.float() / self._source.temperature).softmax(dim=1)
                places = data.entity_id[rows] - first
                np.add.at(states, places, states_BD.double().cpu().numpy())
                np.add.at(predicted, places, shares_BN.double().cpu().numpy())
        counts = np.maximum(np.bincount(data.entity_id[own] - first, minlength=n), 1)[:, None]
        return states / counts, predicted / counts
