"""Mine positives and hard negatives out of what a model in training itself finds near.

Every entity is expanded by cosine of the mean states at its masks, which is what the ``multimodal`` method
does with one seed. Workers share the encoding. What they add to an entity's sum are float32 numbers, and the
sum is float64, with 29 bits to spare: it does not depend on who added first, and all workers mine the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed, nn

from engine.models.multimodal import EntityPredictionModel
from engine.retrieval.index import unit
from engine.retrieval.views import centred
from engine.training.contexts import Contexts
from engine.training.pairs import NeighborLists, nearest_neighbors
from engine.training.settings import Modality
from engine.training.trainer import Worker

Tensor = torch.Tensor

CONTEXTS = 64
"""Contexts of a forward pass."""


class HeldLists(nn.Module):
    """Lists in the form in which a checkpoint keeps tensors."""

    positive: Tensor
    negative: Tensor

    def __init__(self, lists: NeighborLists) -> None:
        super().__init__()
        self.register_buffer("positive", torch.tensor(lists.positive))
        self.register_buffer("negative", torch.tensor(lists.negative))

    @property
    def lists(self) -> NeighborLists:
        """The lists as arrays."""
        return NeighborLists(self.positive.numpy(), self.negative.numpy())

    def hold(self, lists: NeighborLists) -> None:
        """Take other lists in place of those that are held."""
        self.positive.copy_(torch.from_numpy(lists.positive))
        self.negative.copy_(torch.from_numpy(lists.negative))


def mean_states(
    predictor: EntityPredictionModel,
    data: Contexts,
    n_entities: int,
    modality: Modality,
    worker: Worker,
    compute: torch.dtype = torch.float32,
) -> npt.NDArray[np.float64]:
    """Return each entity's mean state over its contexts, float64 [N, D]; zeros where it has none.

    All workers call it and get the same. The model is asked as in use: without dropout.

    Args:
        predictor: the model, which is left in the mode that it was in.
        data: all contexts.
        n_entities: N.
        modality: what is taken of a context.
        worker: this process.
        compute: type of the products.
    """
    rows = data.usable(modality)
    rows = rows[np.argsort(data.lengths[rows], kind="stable")]
    own = rows[data.owners_of(rows, worker.world, CONTEXTS) == worker.rank]
    sums_ND = torch.zeros(n_entities, predictor.encoder.dim, dtype=torch.float64, device=worker.device)
    was_training = predictor.training
    predictor.eval()
    autocast = torch.autocast(worker.device.type, compute, enabled=compute != torch.float32)
    with torch.no_grad(), autocast:
        for at in range(0, len(own), CONTEXTS):
            some = own[at : at + CONTEXTS]
            states_BD = predictor.encoder(*data.gather(some, modality).to(worker.device))
            entity_B = data.entities_of(some).to(worker.device)
            sums_ND.index_add_(0, entity_B, states_BD.float().double())
    predictor.train(was_training)
    if worker.world > 1:
        distributed.all_reduce(sums_ND)
    counts_N1 = np.maximum(np.bincount(data.entity_id[rows], minlength=n_entities), 1)[:, None]
    return np.asarray(sums_ND.cpu().numpy() / counts_N1, np.float64)


def mine_own_lists(states_ND: npt.NDArray[np.float64]) -> NeighborLists:
    """Return the lists of entities by their mean states, less the mean that all share, by cosine."""
    return nearest_neighbors(np.ascontiguousarray(centred(unit(states_ND))))
