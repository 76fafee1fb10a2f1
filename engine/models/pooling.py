"""The vector of a whole text: the mean of its token states, as sentence encoders are trained to be read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from engine.models.text import TextEncoder, fast_dtype

MAX_TEXT_TOKENS = 256
"""Tokens of a description that are read."""


def mean_pooled(
    encoder: TextEncoder, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> npt.NDArray[np.float32]:
    """Return the mean token state of each text through all layers, [n, D]; zeros for an empty text."""
    device = next(encoder.last.parameters()).device
    vectors = np.zeros((len(texts), encoder.dim), np.float32)
    filled = [i for i, text in enumerate(texts) if text.strip()]
    dtype = fast_dtype(device)
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        for start in range(0, len(filled), 64):
            chosen = filled[start : start + 64]
            batch = tokenizer(
                [texts[i] for i in chosen],
                padding=True,
                truncation=True,
                max_length=MAX_TEXT_TOKENS,
                return_tensors="pt",
            )
            mask = batch["attention_mask"].to(device)
            states = encoder.states(batch["input_ids"].to(device), mask.sum(dim=1)).float()
            summed = (states * mask[:, :, None]).sum(dim=1)
            vectors[chosen] = (summed / mask.sum(dim=1, keepdim=True)).cpu().numpy()
    return vectors
