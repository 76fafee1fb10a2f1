"""Gather the contexts of a multi-modal encoder: cached text states and patch features.

A modality that the settings leave out, or a context lacks, is absent for the encoder: without text the input
is the bare mask between begin and end; the patches of no image are masked out of attention.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch

from engine.corpus.inputs.format import Inputs
from engine.images.features import NO_IMAGE, ImageFeatures
from engine.models.text import BARE_TOKENS, TextEncoder
from engine.storage.workspace import Workspace
from engine.training.cache import CachedStates
from engine.training.order import Rows
from engine.training.settings import Modality

Tensor = torch.Tensor


class Context(NamedTuple):
    """A batch: the arguments of :class:`engine.models.multimodal.MultimodalEncoder`, in its order."""

    states_BLD: Tensor
    lengths_B: Tensor
    mask_B: Tensor
    features_BPC: Tensor
    has_image_B: Tensor

    def to(self, device: torch.device) -> Context:
        """Return the batch on a device."""
        return Context(*(t.to(device) for t in self))


class Contexts:
    """All contexts, gathered batch by batch.

    Args:
        states: the frozen text states.
        image_row: the feature row of each context's image, [n], -1: none.
        features: of the images.
        bare: the frozen states of an input without text, [3, D] (:func:`bare_states`).
    """

    def __init__(
        self,
        states: CachedStates,
        image_row: npt.NDArray[np.signedinteger],
        features: ImageFeatures,
        bare: Tensor,
    ) -> None:
        self._states, self.image_row, self.features, self._bare = states, image_row, features, bare
        self.lengths, self.entity_id = states.lengths, states.entity_id

    def __len__(self) -> int:
        return len(self.lengths)

    def usable(self, modality: Modality) -> Rows:
        """Return the contexts that have a modality, ascending."""
        with_text, with_image = self.lengths > BARE_TOKENS, self.image_row != NO_IMAGE
        kept = {"text": with_text, "image": with_image, "text+image": with_text | with_image}[modality]
        return np.flatnonzero(kept)

    def entities_of(self, rows: Rows) -> Tensor:
        """Return the entities of some contexts, int64 [B]."""
        return self._states.entities_of(rows)

    def owners_of(self, batch: Rows, world: int, together: int = 1) -> Rows:
        """Return the worker of each row; see :meth:`engine.training.cache.CachedStates.owners_of`."""
        return self._states.owners_of(batch, world, together)

    def images_of_worker(self, rank: int) -> Rows:
        """Return the feature rows of the contexts that a worker may take of some batch, each once."""
        rows = np.unique(self.image_row[self._states.rows_of_worker(rank)])
        return rows[rows != NO_IMAGE]

    def gather(self, rows: Rows, modality: Modality, dtype: torch.dtype = torch.float32) -> Context:
        """Return some contexts, with the modality or modalities that are used."""
        if modality == "image":
            n = len(rows)
            states = self._bare.to(dtype).expand(n, -1, -1)
            lengths, mask = torch.full((n,), BARE_TOKENS), torch.ones(n, dtype=torch.long)
        else:
            states, lengths, mask, _ = self._states.gather(rows, dtype)
        image_row = np.full_like(rows, NO_IMAGE) if modality == "text" else self.image_row[rows]
        seen = torch.from_numpy(image_row != NO_IMAGE)
        return Context(states, lengths, mask, self.features.gather(image_row).to(dtype), seen)

    def without(self, context: Context, text_B: Tensor, image_B: Tensor) -> Context:
        """Return a batch without the text of some contexts and without the images of some.

        Args:
            context: from :meth:`gather`.
            text_B: bool, true where the text is removed.
            image_B: bool, true where the image is removed.
        """
        states_BLD = torch.where(text_B[:, None, None], 0, context.states_BLD)
        states_BLD[text_B, :BARE_TOKENS] = self._bare.to(states_BLD)
        return Context(
            states_BLD,
            torch.where(text_B, BARE_TOKENS, context.lengths_B),
            torch.where(text_B, 1, context.mask_B),
            context.features_BPC,
            context.has_image_B & ~image_B,
        )


def bare_states(encoder: TextEncoder, first: int, mask: int, last: int) -> Tensor:
    """Return the frozen states of begin, mask and end alone, [3, D]: a context without text."""
    with torch.inference_mode():
        ids, lengths = torch.tensor([[first, mask, last]]), torch.tensor([BARE_TOKENS])
        return encoder.lower_states(ids, lengths)[0].clone()


def image_rows(workspace: Workspace, inputs: Inputs, features: ImageFeatures) -> npt.NDArray[np.int32]:
    """Return the feature row of each input's image, int32 [n], -1: none; in the order of the inputs."""
    found, begin = np.empty(sum(inputs.rows), np.int32), 0
    for source, mentions in zip(inputs.parts, workspace.mentions(), strict=True):
        with source.open_input() as stream:
            own = pq.read_table(stream, columns=["row"])["row"]
        with mentions.open_input() as stream:
            addresses = pq.read_table(stream, columns=["image"])["image"]
        found[begin : begin + len(own)] = features.rows_of(addresses.take(own).to_pylist())
        begin += len(own)
    return found


def image_means(
    features: ImageFeatures,
    image_row: npt.NDArray[np.signedinteger],
    entity_id: npt.NDArray[np.signedinteger],
    n_entities: int,
) -> npt.NDArray[np.float64]:
    """Return each entity's mean over patches and distinct images, [N, C]; zeros where it has none."""
    seen = image_row != NO_IMAGE
    # As one number each: to sort pairs takes many times as long.
    images = int(image_row.max(initial=0)) + 1
    pairs = np.stack(
        np.divmod(np.unique(entity_id[seen].astype(np.int64) * images + image_row[seen]), images)
    )
    total = np.zeros((n_entities, features.dim))
    for start in range(0, pairs.shape[1], 512):
        entities, rows = pairs[:, start : start + 512]
        np.add.at(total, entities, features.gather(rows).mean(dim=1).double().numpy())
    return total / np.maximum(np.bincount(pairs[0], minlength=n_entities), 1)[:, None]
