"""Contexts with random words and pictures in memory, as multi-modal training reads them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch

from engine.images.features import NO_IMAGE, ImageFeatures
from engine.models.text import TextEncoder
from engine.training.cache import CachedStates
from engine.training.contexts import Contexts, bare_states
from tests.support.sentences import cached, random_rows

FIRST, MASK, LAST = 101, 103, 102


class FeatureRows:
    """Patch features held in memory: what training asks of :class:`ImageFeatures`."""

    def __init__(self, features_NPC: torch.Tensor) -> None:
        self._features = features_NPC
        _, self.n_patches, self.dim = features_NPC.shape

    def gather(self, rows: np.ndarray) -> torch.Tensor:
        found = self._features[np.maximum(rows, 0)].clone()
        found[rows == NO_IMAGE] = 0
        return found


def random_contexts(
    text: TextEncoder, folder: Path, n: int = 60, entities: int = 9, patches: int = 3, channels: int = 7
) -> Contexts:
    """Return n contexts: every sixth has no words, every fifth no picture, every thirtieth neither."""
    rows = random_rows(n, entities, seed=4)
    wordless = np.arange(n) % 6 == 0
    keep = np.ones(len(rows.ids), bool)
    lengths = rows.lengths
    for i in np.flatnonzero(wordless):
        start = rows.offsets[i]
        rows.ids[start : start + 3] = FIRST, MASK, LAST
        keep[start + 3 : rows.offsets[i + 1]] = False
        lengths[i], rows.mask_index[i] = 3, 1
    rows = type(rows)(rows.ids[keep], np.cumsum([0, *lengths]), rows.mask_index, rows.entity_id)
    return contexts_of(cached(text, rows, folder, torch.float32), text, patches, channels)


def contexts_of(states: CachedStates, text: TextEncoder, patches: int, channels: int) -> Contexts:
    """Return contexts of some sentences, of which every fifth has no picture."""
    n, rng = len(states), np.random.default_rng(5)
    # A picture has something of its entity in it.
    entity_id = states.entity_id
    looks = rng.normal(size=(int(entity_id.max()) + 1, 1, channels))[entity_id]
    features = torch.from_numpy((looks + rng.normal(size=(n, patches, channels))).astype(np.float32))
    image_row = np.where(np.arange(n) % 5 == 0, NO_IMAGE, np.arange(n))
    bare = bare_states(text, FIRST, MASK, LAST)
    return Contexts(states, image_row, cast(ImageFeatures, FeatureRows(features)), bare)
