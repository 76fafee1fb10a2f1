"""Makers of distributions on a cluster's machines: together they read each sentence's states once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from engine.models.text import TextEncoder
from engine.storage import npy_rows
from engine.storage.store import Store
from engine.training.cache import FrozenCache
from engine.training.settings import Modality
from engine.training.text_head import TextContexts, TextPredictionModel
from jobs.steps.multimodal_views import EntityMeansWorker, TextSource
from tests.support.bucket_reads import counted_reads
from tests.support.encoder_workers import N_ENTITIES, filled_cache
from tests.support.encoders import random_encoder


@dataclass(frozen=True)
class Source:
    """What a maker opens, with a head that was not trained."""

    cache: FrozenCache
    encoder: TextEncoder
    temperature: float = 1.0
    modality: Modality = "text"

    def contexts(self) -> TextContexts:
        return TextContexts(self.cache.open_rows())

    def predictor(self) -> TextPredictionModel:
        return TextPredictionModel(self.encoder, N_ENTITIES).eval()


def test_two_makers_read_what_their_entities_need_and_nothing_twice(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(npy_rows, "GAP", 0)
    encoder = random_encoder("bert")
    local = filled_cache(tmp_path / "states", encoder)
    distant = FrozenCache(local.inputs, [Store.open(f"{s3}/{one.name}") for one in local.states])
    for target, source in zip(distant.states, local.states, strict=True):
        target.write_bytes(source.read_bytes())
    plain = EntityMeansWorker(cast(TextSource, Source(local, encoder)), N_ENTITIES)
    read = counted_reads(monkeypatch)
    for entities in (range(5), range(5, N_ENTITIES)):
        maker = EntityMeansWorker(cast(TextSource, Source(distant, encoder)), N_ENTITIES)
        maker._predictor = plain._predictor
        found, expected = maker(entities), plain(entities)
        np.testing.assert_array_equal(found.states_nD, expected.states_nD)
    data = local.open()
    needed = int(data.lengths[data.with_text].sum()) * encoder.dim * 4
    headers = len(local.states) * 4096
    assert needed <= read.total() <= needed + 2 * headers
    assert not list((tmp_path / "cache").rglob("*.npy")), "nothing of it stays on the disk"
