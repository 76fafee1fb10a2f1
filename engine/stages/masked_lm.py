"""Ask a masked language model: the likeliest tokens at a mask, and the hidden state there.

**Cost.** A text of 17 tokens takes 17 x 21 MFLOP in the layers of MiniLM, and its mask 23 MFLOP in the
product with the vocabulary: the layers are nearly all. So texts of like lengths run together, and of the last
layer the mask's state alone is computed (:mod:`engine.models.mask_states`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForMaskedLM

from engine.corpus.inputs.masking import MentionMasker, load_tokenizer
from engine.generation.hearst import MASK, PATTERNS, Masked, query
from engine.models.device import worker_device
from engine.models.hub import NamedModel
from engine.models.mask_states import mask_states
from engine.models.masked_lm import head_of
from engine.models.text import TextEncoder
from engine.retrieval.index import Vectors, unit
from engine.retrieval.mention_states import PROBING, MentionStates
from engine.storage.bundle import Bundle

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WORD_BEGINS = ("\u0120", "\u2581")
"""Signs that begin a word in byte-level and SentencePiece vocabularies; WordPiece marks the other tokens."""

MAX_TOKENS = 128
BATCH = 64
"""Masks whose likeliest tokens are computed at once."""
KEPT_NAMES = 4096
"""Class names whose states are kept: 9 KB each at 384 dimensions."""


class MaskedLM:
    """A masked language model with its head, and its tokenizer."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._device = worker_device()
        self._model = model.eval().requires_grad_(False).to(self._device)
        self._tokenizer = tokenizer
        self._masker = MentionMasker(tokenizer, MAX_TOKENS)
        self._encoder = TextEncoder(self._model.base_model)
        self._head = head_of(self._model)

    @classmethod
    def read(cls, folder: Path) -> MaskedLM:
        """Load a folder that ``save_pretrained`` wrote.

        Raises:
            UserError: it is no masked language model, or of a family that is not known.
        """
        named = NamedModel.open(folder, "masked language model")
        return cls(named.model(AutoModelForMaskedLM, torch.float32), load_tokenizer(folder))

    def states(self, texts: Sequence[Masked]) -> Vectors:
        """Return the unit vectors of the last hidden states at the masks, float32 [n, D]."""
        return unit(self._at_masks(texts))

    def best(self, texts: Sequence[Masked], k: int) -> list[list[str]]:
        """Return for each text the k likeliest tokens at its mask, best first, as words (:func:`_word`)."""
        found: list[list[str]] = []
        for states_BD in torch.from_numpy(self._at_masks(texts)).split(BATCH):
            with torch.inference_mode():
                logits_BV = self._head(inputs_embeds=states_BD[:, None].to(self._device)).logits[:, 0]
            for ids in logits_BV.topk(k, dim=1).indices.tolist():
                found.append([_word(token) for token in self._tokenizer.convert_ids_to_tokens(ids)])
        return found

    def knows(self, word: str) -> bool:
        """Return whether a word is one token."""
        vocabulary = self._tokenizer.get_vocab()
        return any(f"{mark}{word}" in vocabulary for mark in ("", *_WORD_BEGINS))

    def _at_masks(self, texts: Sequence[Masked]) -> Vectors:
        """Return the last hidden states at the masks, float32 [n, D]."""
        inputs = self._masker.encode(*map(list, zip(*texts, strict=True))) if texts else []
        ids, places = [one.input_ids for one in inputs], [one.mask_index for one in inputs]
        return mask_states(self._encoder, ids, places, compute=torch.float32)


def _word(token: str) -> str:
    """Return a token in lower case, without the sign that begins a word."""
    return token.lstrip("".join(_WORD_BEGINS)).lower()


class Probing:
    """A masked language model, the states of all mentions by it, and every entity's unit mean of these.

    Args:
        model: the model.
        mentions: the states.
        means_ND: the means.
    """

    def __init__(self, model: MaskedLM, mentions: MentionStates, means_ND: Vectors) -> None:
        self.model, self.mentions, self.means_ND = model, mentions, means_ND
        # A name's texts are run alone, so that its states are the same whatever was asked before.
        self.class_states = lru_cache(KEPT_NAMES)(self._class_states)
        """Return the states at an entity's mask under a class name, one a pattern, [6, D]. They do not depend
        on a query, and are kept from one to the next."""

    def _class_states(self, name: str) -> Vectors:
        return self.model.states([query(pattern, name, [MASK]) for pattern in range(len(PATTERNS))])


def open_probing(bundle: Bundle) -> Probing:
    """Return a bundle's masked language model and what goes with it, read once a process.

    Raises:
        BundleError: it was built without.
    """
    return bundle.once(PROBING, _read)


def _read(folder: Path) -> Probing:
    mentions = MentionStates.read(folder / "mentions")
    return Probing(MaskedLM.read(folder / "model"), mentions, mentions.means())
