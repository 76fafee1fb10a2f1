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


def test_batches_of_a_multiple_have_few_shapes_and_every_row_once() -> None:
    shapes: dict[int, set[tuple[int, int]]] = {1: set(), 16: set()}
    for seed in range(30):
        lengths = np.random.default_rng(seed).integers(10, 56, 2000)
        for multiple, found in shapes.items():
            batches = list(length_batches(lengths, 4096, multiple))
            assert sorted(np.concatenate(batches)) == list(range(2000))
            sizes = [(len(rows), int(lengths[rows].max())) for rows in batches]
            assert all(n * longest <= 4096 for n, longest in sizes)
            assert all(n % multiple == 0 for n, _ in sizes[:-1])
            found |= set(sizes[:-1])
    assert len(shapes[16]) < len(shapes[1]) * 0.6
    assert [len(rows) for rows in length_batches([9, 1, 1, 9, 9], 18, 16)] == [2, 2, 1]
