"""Open the contexts of a workspace, and mine neighbor lists for its entities."""

from __future__ import annotations

import numpy as np

from engine.corpus.inputs.format import Inputs
from engine.corpus.inputs.masking import bare_ids, load_tokenizer
from engine.images.features import ImageFeatures
from engine.models.text import TextEncoder
from engine.retrieval.index import Vectors, unit
from engine.retrieval.views import ViewPart, joint_view
from engine.storage.workspace import Workspace
from engine.training.cache import CachedStates
from engine.training.contexts import Contexts, bare_states, image_means, image_rows
from engine.training.pairs import NeighborLists, nearest_neighbors
from engine.training.settings import Modality


def open_contexts(
    workspace: Workspace,
    inputs: Inputs,
    states: CachedStates,
    features: str | None,
    text: TextEncoder,
    model: str,
) -> Contexts:
    """Open the contexts of a workspace on this machine.

    Args:
        workspace: with a corpus and image features.
        inputs: the model input.
        states: its frozen states.
        features: key of the image features; None: those made last.
        text: the encoder that filled the cache.
        model: its name, for its tokenizer.
    """
    opened = ImageFeatures.open(workspace, features)
    rows = image_rows(workspace, inputs, opened)
    bare = bare_states(text, *bare_ids(load_tokenizer(model)))
    return Contexts(states, rows, opened, bare)


def image_view(data: Contexts, n_entities: int) -> Vectors:
    """Return the unit mean image features of each entity, [N, C]; zeros where it has no image."""
    return unit(image_means(data.features, data.image_row, data.entity_id, n_entities))


def mine_neighbor_lists(
    data: Contexts, n_entities: int, modality: Modality, lexical: Vectors | None
) -> NeighborLists:
    """Return the neighbor lists of entities by their texts, their images, or both.

    Args:
        data: the contexts.
        n_entities: of the vocabulary.
        modality: whether images count.
        lexical: the lexical view, [N, D]; None: texts do not count.
    """
    views = [] if lexical is None else [ViewPart(lexical)]
    if modality != "text":
        views.append(ViewPart.centred(image_view(data, n_entities)))
    return nearest_neighbors(
        np.concatenate([*joint_view([view.with_unit_similarity_std() for view in views])])
    )
