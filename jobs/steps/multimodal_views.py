"""Build the views of what a head predicts: mean states of contexts, and predicted distributions.

Of the multi-modal encoder both, with the images; of the text encoder the distributions alone. A pool of
actors takes entities, some at a time, with all contexts of each: a mean of predictions must be whole before
its largest are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from engine.training.order import rows_by_entity
from engine.training.settings import Modality
from engine.training.text_head import TextContexts, TextPredictionModel
from jobs import console
from jobs.steps.encoder_training import Trained
from jobs.workers.executor import Executor

PREDICTIONS = 1 << 22
"""Predictions of a task at most, for all entities that it takes. With their logarithms and what is in between
they are nine arrays of float64 at most, 300 MB."""
ENTITIES_A_TASK = 128
"""Entities of a task at most."""

CONTEXTS = 64
"""Contexts of a forward pass at most, and no more than make :data:`PREDICTIONS`."""


@dataclass(frozen=True)
class ViewSource:
    """The inputs of a view that an actor opens: the run, the text side, and the modality."""

    workspace: str
    trained: Trained
    cache: FrozenCache
    modality: Modality
    temperature: float

    def contexts(self) -> Contexts:
        """Open the contexts; from a bucket an actor reads those of its tasks."""
        model, workspace = self.trained.model, Workspace.open(self.workspace)
        text, states = TextEncoder.load(model), self.cache.open_rows()
        return open_contexts(workspace, self.cache.inputs, states, self.trained.features, text, model)

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
        """Open the contexts; from a bucket an actor reads those of its tasks."""
        return TextContexts(self.cache.open_rows())

    def predictor(self) -> TextPredictionModel:
        """Load the trained encoder and its head."""
        return TextPredictionModel.load(Path(local_folder(self.trained.folder.uri)))


class Means(NamedTuple):
    """The means of n entities: states, float64 [n, D], and distributions."""

    states_nD: npt.NDArray[np.float64]
    distributions: EntityDistributions


def multimodal_view(source: ViewSource, n_entities: int, executor: Executor, folder: Path) -> Vectors:
    """Return each entity's unit mean state, centred, [N, D], and write its distributions into a folder."""
    states: npt.NDArray[np.float64] | None = None

    def collected() -> Iterator[tuple[int, EntityDistributions]]:
        nonlocal states
        for first, means in _entity_means(source, n_entities, executor, "multi-modal view, entities"):
            if states is None:
                states = np.zeros((n_entities, means.states_nD.shape[1]))
            states[first : first + len(means.states_nD)] = means.states_nD
            yield first, means.distributions

    EntityDistributions.write_parts(folder, n_entities, collected())
    return centred(unit(np.zeros((n_entities, 1)) if states is None else states))


def text_distributions(source: TextSource, n_entities: int, executor: Executor, folder: Path) -> None:
    """Write what the text encoder's head predicts of each entity into a folder."""
    found = _entity_means(source, n_entities, executor, "distributions of the text, entities")
    EntityDistributions.write_parts(
        folder, n_entities, ((first, means.distributions) for first, means in found)
    )


def _entity_means(
    source: ViewSource | TextSource, n_entities: int, executor: Executor, label: str
) -> Iterator[tuple[int, Means]]:
    """Yield the first entity of every task, and the means of its entities."""
    step = max(1, min(ENTITIES_A_TASK, PREDICTIONS // max(n_entities, 1)))
    tasks = [range(first, min(first + step, n_entities)) for first in range(0, n_entities, step)]
    with console.meter(label, n_entities) as meter:
        for place, means in executor.map(EntityMeansWorker, (source, n_entities), tasks, gpu=True):
            yield tasks[place].start, means
            meter.add(len(tasks[place]))


class EntityMeansWorker:
    """A worker that computes mean states and distributions of some entities, over all contexts of each."""

    def __init__(self, source: ViewSource | TextSource, n_entities: int) -> None:
        self._source, self._n = source, n_entities
        self._together = max(1, min(CONTEXTS, PREDICTIONS // max(n_entities, 1)))
        self._device = worker_device()
        self._contexts = source.contexts()
        self._predictor = source.predictor().to(self._device)
        usable = self._contexts.usable(source.modality)
        entities = self._contexts.entity_id[usable]
        self._by_entity = rows_by_entity(self._contexts.entity_id, usable)
        self._starts_N1 = np.cumsum([0, *np.bincount(entities, minlength=n_entities)])

    def __call__(self, entities: range) -> Means:
        """Return the means of some entities whose ids follow each other."""
        states, shares, logs = self.means(entities.start, len(entities))
        return Means(states, EntityDistributions.of(shares, logs))

    def means(self, first: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the means over the contexts of n entities; zeros for none.

        Returns:
            Of the states [n, D], of the predicted distributions [n, N], and of their logarithms [n, N].
        """
        data, modality = self._contexts, self._source.modality
        own = np.sort(self._by_entity[self._starts_N1[first] : self._starts_N1[first + n]])
        own = own[np.argsort(data.lengths[own], kind="stable")]
        states = np.zeros((n, self._predictor.dim))
        shares, logs = np.zeros((n, self._n)), np.zeros((n, self._n))
        with torch.inference_mode():
            for start in range(0, len(own), self._together):
                rows = own[start : start + self._together]
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
