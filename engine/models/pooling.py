"""Pool a whole text into one vector, as the encoder's folder says that its texts are to be read."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from engine.models.plain_text import without_controls
from engine.models.sentence_settings import SentenceSettings
from engine.models.text import TextEncoder, fast_dtype

Tensor = torch.Tensor

TEXTS_A_PASS = 64


class TextVectors(NamedTuple):
    """The vectors of n texts, [n, D], zeros for an empty one; and how many texts were cut."""

    vectors_nD: npt.NDArray[np.float32]
    cut: int


class TextPooler:
    """A pooler that makes one vector of a text: all layers, pooling, and the steps of the model's settings.

    Args:
        encoder: as it came; its device is used.
        tokenizer: its own.
        settings: from :func:`engine.models.sentence_settings.read_settings`.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        tokenizer: PreTrainedTokenizerBase,
        settings: SentenceSettings,
    ) -> None:
        self._encoder, self._tokenizer, self._settings = encoder, tokenizer, settings
        self._prompt_tokens = 0
        if settings.prompt and not settings.include_prompt:
            ids = tokenizer(self._written(""))["input_ids"]
            # The token that ends an input is not the prompt's.
            self._prompt_tokens = len(ids) - (ids[-1] in (tokenizer.sep_token_id, tokenizer.eos_token_id))

    @property
    def dim(self) -> int:
        """Dimensions of a vector, D."""
        return self._settings.dim or self._encoder.dim

    def __call__(self, texts: list[str]) -> TextVectors:
        """Return the vectors of some texts, each of any length."""
        vectors, cut = np.zeros((len(texts), self.dim), np.float32), 0
        filled = [i for i, text in enumerate(texts) if text.strip()]
        with torch.inference_mode():
            for start in range(0, len(filled), TEXTS_A_PASS):
                chosen = filled[start : start + TEXTS_A_PASS]
                # A prompt may have special tokens, a text has none.
                plain = without_controls(self._tokenizer, [texts[i] for i in chosen])
                batch = self._tokenizer(
                    [self._written(text) for text in plain],
                    padding=True,
                    padding_side="right",
                    truncation=True,
                    max_length=self._settings.max_tokens,
                    return_tensors="pt",
                )
                cut += sum(bool(encoding.overflowing) for encoding in batch.encodings)
                found_BD = self._vectors(batch["input_ids"], batch["attention_mask"])
                vectors[chosen] = found_BD.cpu().numpy()
        return TextVectors(vectors, cut)

    def _written(self, text: str) -> str:
        """Return a text as the tokenizer is to get it."""
        whole = self._settings.prompt + text
        return whole.lower() if self._settings.lower_case else whole

    def _vectors(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the vectors of tokenised texts, float32 [B, D]."""
        device = next(self._encoder.last.parameters()).device
        ids_BL, mask_BL = ids_BL.to(device), mask_BL.to(device)
        dtype = fast_dtype(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            states_BLD = self._encoder.states(ids_BL, mask_BL.sum(dim=1)).float()
        if self._prompt_tokens:
            mask_BL[:, : self._prompt_tokens] = 0
        pooled = [pool(mode, states_BLD, mask_BL) for mode in self._settings.modes]
        vectors_BD = pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)
        for step in self._settings.steps:
            vectors_BD = step(vectors_BD)
        return vectors_BD


def pool(mode: str, states_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """Return one vector a text, [B, D].

    Args:
        mode: a value of :data:`engine.models.sentence_settings.MODES`.
        states_BLD: the token states.
        mask_BL: 1 for the tokens that count, at least one a text.
    """
    rows_B, L = torch.arange(len(mask_BL), device=mask_BL.device), mask_BL.shape[1]
    if mode == "cls":
        return states_BLD[rows_B, mask_BL.argmax(dim=1)]
    if mode == "lasttoken":
        return states_BLD[rows_B, L - 1 - mask_BL.flip(1).argmax(dim=1)]
    if mode == "max":
        return states_BLD.masked_fill(mask_BL[:, :, None] == 0, -torch.inf).amax(dim=1)
    weights_BL = mask_BL
    if mode == "weightedmean":
        weights_BL = mask_BL * torch.arange(1, L + 1, device=mask_BL.device)
    summed_BD = (states_BLD * weights_BL[:, :, None]).sum(dim=1)
    total_B1 = weights_BL.sum(dim=1, keepdim=True)
    return summed_BD / (total_B1.sqrt() if mode == "mean_sqrt_len_tokens" else total_B1)
