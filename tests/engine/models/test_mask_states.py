"""States at masks, against a sentence at a time."""

import numpy as np
import pytest
import torch

from engine.models import mask_states as module
from engine.models.mask_states import length_batches, mask_states
from tests.support.encoders import random_encoder


def test_they_are_those_of_the_plain_forward_pass_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fast_dtype", lambda device: torch.float32)
    monkeypatch.setattr(module, "BATCH_TOKENS", 40)
    encoder, random = random_encoder("bert"), np.random.default_rng(0)
    sentences = [random.integers(5, 50, length).astype(np.int32) for length in (9, 3, 14, 5, 8)]
    places = [4, 0, 13, 2, 7]
    passes: list[None] = []
    found = mask_states(encoder, sentences, places, lambda: passes.append(None))
    for own, place, ids in zip(found, places, sentences, strict=True):
        with torch.no_grad():
            whole = encoder.states(torch.from_numpy(ids.astype(np.int64))[None], torch.tensor([len(ids)]))
        np.testing.assert_allclose(own, whole[0, place], atol=1e-5)
    assert passes, "nothing was said before a pass"
    assert mask_states(encoder, [], []).shape == (0, encoder.dim)


def test_batches_hold_every_row_once_and_no_more_tokens_than_they_may() -> None:
    lengths = [7, 3, 20, 3, 5, 60, 4]
    batches = [rows.tolist() for rows in length_batches(lengths, 16)]
    assert sorted(row for rows in batches for row in rows) == list(range(7))
    assert batches == [[1, 3, 6], [4, 0], [2], [5]]
