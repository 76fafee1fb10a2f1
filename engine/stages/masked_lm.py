"""Ask a masked language model: the likeliest tokens at a mask, and the hidden state there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForMaskedLM

from engine.corpus.inputs.masking import MentionMasker, load_tokenizer
from engine.generation.hearst import Masked
from engine.models.device import worker_device
from engine.models.hub import NamedModel
from engine.retrieval.index import Vectors, unit
from engine.retrieval.mention_states import PROBING, MentionStates
from engine.storage.bundle import Bundle

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WORD_BEGINS = ("\u0120", "\u2581")
"""Signs that begin a word in byte-level and SentencePiece vocabularies; WordPiece marks the other tokens."""

MAX_TOKENS = 128
BATCH = 64


class MaskedLM:
    """A masked language model with its head, and its tokenizer."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._device = worker_device()
        self._model = model.eval().requires_grad_(False).to(self._device)
        self._tokenizer = tokenizer
        self._masker = MentionMasker(tokenizer, MAX_TOKENS)
        self._model.base_model.register_forward_hook(self._keep_masks, with_kwargs=True)

    @classmethod
    def read(cls, folder: Path) -> MaskedLM:
        """Load a folder that ``save_pretrained`` wrote.

        Raises:
            UserError: it is no masked language model.
        """
        named = NamedModel.open(folder, "masked language model")
        return cls(named.model(AutoModelForMaskedLM, torch.float32), load_tokenizer(folder))

    def states(self, texts: Sequence[Masked]) -> Vectors:
        """Return the unit vectors of the last hidden states at the masks, float32 [n, D]."""
        found = [self._at_masks(texts[i : i + BATCH], head=False) for i in range(0, len(texts), BATCH)]
        return unit(torch.cat(found).cpu().numpy())

    def best(self, texts: Sequence[Masked], k: int) -> list[list[str]]:
        """Return for each text the k likeliest tokens at its mask, best first, as words (:func:`_word`)."""
        found: list[list[str]] = []
        for start in range(0, len(texts), BATCH):
            logits = self._at_masks(texts[start : start + BATCH], head=True)
            for ids in logits.topk(k, dim=1).indices.tolist():
                found.append([_word(token) for token in self._tokenizer.convert_ids_to_tokens(ids)])
        return found

    def knows(self, word: str) -> bool:
        """Return whether a word is one token."""
        vocabulary = self._tokenizer.get_vocab()
        return any(f"{mark}{word}" in vocabulary for mark in ("", *_WORD_BEGINS))

    def _at_masks(self, texts: Sequence[Masked], head: bool) -> torch.Tensor:
        """Return states [B, D] or, with the head, logits [B, vocabulary] at the masks."""
        inputs = self._masker.encode(*map(list, zip(*texts, strict=True)))
        ids_BL = pad_sequence([torch.tensor(one.input_ids) for one in inputs], batch_first=True)
        lengths_B = torch.tensor([len(one.input_ids) for one in inputs])
        within_BL = (torch.arange(ids_BL.shape[1]) < lengths_B[:, None]).long()
        run = self._model if head else self._model.base_model
        with torch.inference_mode():
            out = run(input_ids=ids_BL.to(self._device), attention_mask=within_BL.to(self._device))
        found_B1X: torch.Tensor = out.logits if head else out.last_hidden_state
        return found_B1X[:, 0]

    def _keep_masks(self, module: torch.nn.Module, args: Any, named: dict[str, Any], out: Any) -> Any:
        """Leave of the encoder's states those at the masks, one a text: a head reads each state alone, and
        the product with the vocabulary is most of the work."""
        ids_BL = args[0] if args else named["input_ids"]
        out.last_hidden_state = out.last_hidden_state[ids_BL == self._tokenizer.mask_token_id][:, None]
        return out


def _word(token: str) -> str:
    """Return a token in lower case, without the sign that begins a word."""
    return token.lstrip("".join(_WORD_BEGINS)).lower()


class Probing(NamedTuple):
    """A masked language model, the states of all mentions by it, and every entity's unit mean of these."""

    model: MaskedLM
    mentions: MentionStates
    means_ND: Vectors


def open_probing(bundle: Bundle) -> Probing:
    """Return a bundle's masked language model and what goes with it, read once a process.

    Raises:
        BundleError: it was built without.
    """
    return bundle.once(PROBING, _read)


def _read(folder: Path) -> Probing:
    mentions = MentionStates.read(folder / "mentions")
    return Probing(MaskedLM.read(folder / "model"), mentions, mentions.means())
