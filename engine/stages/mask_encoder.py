"""Encode new entities by the mask representations of their sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from engine.corpus.importing.mentions import mentions_of_new
from engine.corpus.inputs.masking import MaskedInput, MentionMasker, load_tokenizer
from engine.models.mask_states import mask_states
from engine.models.text import TextEncoder
from engine.query import NewEntity, Query


class MaskEncoder:
    """An encoder of entities by the mask representations of their sentences."""

    def __init__(self, encoder: TextEncoder, masker: MentionMasker) -> None:
        self._encoder, self._masker = encoder, masker

    @classmethod
    def read(cls, folder: Path, max_length: int) -> MaskEncoder:
        """Load a folder with safetensors and a tokenizer.

        Args:
            folder: of a BERT-like model.
            max_length: tokens of a sentence; longer ones are cut around the mention.
        """
        return cls(TextEncoder.load(str(folder)), MentionMasker(load_tokenizer(folder), max_length))

    def vector(self, query: Query, entity: NewEntity) -> npt.NDArray[np.float64]:
        """Return the sum [D] of the mask representations of one of a query's new entities.

        Its sentences alone share forward passes, so that the vector does not depend on other entities.

        Raises:
            QueryError: a sentence does not mention it.
        """
        masked = masked_sentences(self._masker, query, entity)
        ids, places = [one.input_ids for one in masked], [one.mask_index for one in masked]
        states_nD = mask_states(self._encoder, ids, places, compute=torch.float32)
        return np.asarray(states_nD.astype(np.float64).sum(axis=0))


def masked_sentences(masker: MentionMasker, query: Query, entity: NewEntity) -> Sequence[MaskedInput]:
    """Return the inputs of the sentences of one of a query's new entities.

    Raises:
        QueryError: a sentence does not mention it.
    """
    starts, ends, _ = zip(*mentions_of_new(entity, f"query {query.id!r}"), strict=True)
    return masker.encode(entity.sentences, starts, ends)
