"""Run all layers of an encoder over sentences and return the states at their masks.

Of the last layer the mask's state alone is computed (:mod:`engine.models.text`), and sentences of like
lengths run together. One function makes the vectors of sentences as they are and under a query, so that the
two can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence

from engine.models.text import TextEncoder, fast_dtype

BATCH_TOKENS = 4096
"""Tokens of a forward pass, padding included: enough for full speed, small enough for the caches."""


def mask_states(
    encoder: TextEncoder,
    sentences: Sequence[Sequence[int] | npt.NDArray[np.integer]],
    mask_index: Sequence[int],
    before_pass: Callable[[], None] = lambda: None,
    compute: torch.dtype | None = None,
) -> npt.NDArray[np.float32]:
    """Return the state at the mask of each sentence, [n, D], in the order of the sentences.

    Args:
        encoder: its device is used.
        sentences: token ids, special ones too.
        mask_index: the mask's place in each sentence.
        before_pass: called before each forward pass; what it raises ends the work.
        compute: type of the products; default: bfloat16 where the hardware computes in it.
    """
    found_nD = np.zeros((len(sentences), encoder.dim), np.float32)
    device = next(encoder.last.parameters()).device
    dtype = compute or fast_dtype(device)
    masks = torch.tensor(mask_index, dtype=torch.int64)
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        for rows in length_batches([len(one) for one in sentences]):
            before_pass()
            ids_BL = pad_sequence(
                [torch.from_numpy(np.asarray(sentences[row], np.int64)) for row in rows], batch_first=True
            ).to(device)
            lengths_B = torch.tensor([len(sentences[row]) for row in rows], device=device)
            states_BLD = encoder.lower_states(ids_BL, lengths_B)
            at_mask_BD = encoder.last(states_BLD, lengths_B, masks[rows].to(device))
            found_nD[rows] = at_mask_BD.float().cpu().numpy()
    return found_nD


def length_batches(
    lengths: npt.ArrayLike, max_tokens: int = BATCH_TOKENS, multiple: int = 1
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield row numbers, sorted by length, in batches of at most ``max_tokens`` padded tokens, or one row.

    Args:
        lengths: tokens of each row.
        max_tokens: of a batch, padding included.
        multiple: of which a batch of more rows is one, but for the last: batches then have fewer shapes.
    """
    lengths_n = np.asarray(lengths, np.int64)
    order = np.argsort(lengths_n, kind="stable")
    longest_n, start = lengths_n[order], 0
    while start < len(order):
        n = 1
        while start + n < len(order) and longest_n[start + n] * (n + 1) <= max_tokens:
            n += 1
        if n > multiple and start + n < len(order):
            n -= n % multiple
        yield order[start : start + n]
        start += n
