"""Encode new entities by the mask representations of their sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence

from engine.corpus.importing.mentions import MentionFinder
from engine.corpus.inputs.masking import MaskedInput, MentionMasker, load_tokenizer
from engine.errors import QueryError
from engine.models.text import TextEncoder
from engine.query import NewEntity, Query
from engine.refusals import Refusal


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

        Its sentences alone share a forward pass, so that the vector does not depend on other entities.

        Raises:
            QueryError: a sentence does not mention it.
        """
        masked = masked_sentences(self._masker, query, entity)
        ids_BL = pad_sequence([torch.tensor(one.input_ids) for one in masked], batch_first=True)
        lengths_B = torch.tensor([len(one.input_ids) for one in masked])
        position_B = torch.tensor([one.mask_index for one in masked])
        with torch.inference_mode():
            states_BLD = self._encoder.lower_states(ids_BL, lengths_B)
            at_mask_BD = self._encoder.last(states_BLD, lengths_B, position_B)
        total: npt.NDArray[np.float64] = at_mask_BD.double().sum(dim=0).numpy()
        return total


def masked_sentences(masker: MentionMasker, query: Query, entity: NewEntity) -> Sequence[MaskedInput]:
    """Return the inputs of the sentences of one of a query's new entities.

    Raises:
        QueryError: a sentence does not mention it.
    """
    finder = MentionFinder([entity.name], [[]])
    spans = []
    for number, sentence in enumerate(entity.sentences, 1):
        span = finder.find(0, sentence)
        if isinstance(span, Refusal):
            raise QueryError(
                f"query {query.id!r}: sentence {number} of the new entity {entity.name!r} {span}; "
                "give sentences in which the name stands as it is given"
            )
        spans.append(span)
    starts, ends, _ = zip(*spans, strict=True)
    return masker.encode(entity.sentences, starts, ends)
