"""Workers that read their own parts of the states, against one that reads all.

Two train together in ``test_lm_workers``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import FormatError
from engine.models.text import TextEncoder
from engine.storage.store import Store
from engine.training import state_shards
from engine.training.cache import CachedStates, FrozenCache
from engine.training.state_shards import StateShard, open_share, parts_of_workers
from tests.support.encoder_workers import ROWS, filled_cache, opened
from tests.support.encoders import random_encoder
from tests.support.sentences import random_rows

WORLD = 2


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return random_encoder("bert")


@pytest.fixture(scope="module")
def cache(encoder: TextEncoder, tmp_path_factory: pytest.TempPathFactory) -> FrozenCache:
    return filled_cache(tmp_path_factory.mktemp("states"), encoder)


@given(st.lists(st.integers(0, 9000), min_size=1, max_size=60), st.integers(1, 9))
def test_every_part_has_one_worker_and_none_has_more_than_a_part_above_another(rows, world) -> None:
    found = parts_of_workers(rows, world)
    assert sorted(part for parts in found for part in parts) == list(range(len(rows)))
    held = [sum(rows[part] for part in parts) for parts in found]
    assert max(held) - min(held) <= max(rows)


def test_workers_have_all_rows_of_a_batch_and_read_what_all_would(cache: FrozenCache) -> None:
    whole = cache.open()
    batch = np.random.default_rng(2).permutation(len(whole))[:17]
    shares = [opened(cache, rank, WORLD) for rank in range(WORLD)]
    own = [one.share_of(batch, rank, WORLD) for rank, one in enumerate(shares)]
    assert sorted(np.concatenate(own)) == sorted(batch)
    assert all(map(len, own))
    for share, rows in zip(shares, own, strict=True):
        assert len(share) == len(whole)
        np.testing.assert_array_equal(share.with_text, whole.with_text)
        np.testing.assert_array_equal(share.lengths, whole.lengths)
        for found, expected in zip(share.gather(rows), whole.gather(rows), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match="are not this worker's"):
        shares[0].gather(own[1])


def test_a_worker_copies_the_states_of_its_own_parts_alone(
    cache: FrozenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a bucket a file is on this machine when it was asked for as a local copy."""
    asked: list[str] = []
    plain = Store.local_copy

    def local_copy(self: Store, folder: Path) -> Path:
        asked.append(self.name)
        return plain(replace(self, is_local=True), folder)

    monkeypatch.setattr(Store, "local_copy", local_copy)
    monkeypatch.setattr(state_shards, "PARTS_A_WORKER", 2)
    distant = FrozenCache(cache.inputs, [replace(one, is_local=False) for one in cache.states])
    states = [one.name for one in cache.states]
    for rank, parts in enumerate(parts_of_workers(ROWS, WORLD)):
        asked.clear()
        assert isinstance(open_share(distant, rank, WORLD), StateShard)
        assert [name for name in asked if name in states] == [states[part] for part in parts]
    assert isinstance(open_share(distant, 0, 1), CachedStates)
    assert isinstance(open_share(distant, 0, 3), CachedStates), "a worker would have less than two parts"


def test_columns_filled_part_by_part_are_the_joined_ones(tmp_path: Path) -> None:
    """The second part has the first sentences that a byte does not count."""
    parts = [random_rows(n, 70_000, seed=n, longest=longest) for n, longest in ((40, 24), (0, 9), (30, 400))]
    states = []
    for place, rows in enumerate(parts):
        states.append(tmp_path / f"{place}.npy")
        np.save(states[-1], np.zeros((len(rows.ids), 1), np.float32))
    found = [CachedStates(parts, states), CachedStates(iter(parts), states, sum(map(len, parts)))]
    joined = {
        "_starts": [rows.offsets[:-1] for rows in parts],
        "lengths": [rows.lengths for rows in parts],
        "mask_index": [rows.mask_index for rows in parts],
        "entity_id": [rows.entity_id for rows in parts],
    }
    for one in found:
        for name, columns in joined.items():
            np.testing.assert_array_equal(getattr(one, name), np.concatenate(columns))
        np.testing.assert_array_equal(one.parts_of(np.array([0, 39, 40, 69])), [0, 0, 2, 2])
    sizes = [CachedStates(parts[:1], states[:1]).lengths.itemsize, found[0].lengths.itemsize]
    assert sizes == [1, 2]
    with pytest.raises(ValueError, match="70 rows, not 71"):
        CachedStates(iter(parts), states, 71)


@pytest.mark.parametrize("own", [None, [1, 3]])
def test_a_part_with_other_rows_than_its_manifest_says_is_named(cache: FrozenCache, own: list[int]) -> None:
    parts = dict(cache.inputs.manifest.parts) | {cache.inputs.names[2]: 8}
    manifest = cast(Any, SimpleNamespace(parts=parts))
    other = FrozenCache(replace(cache.inputs, manifest=manifest), cache.states)
    with pytest.raises(FormatError, match=r"part-00002\.parquet: has 9 rows where the manifest says 8"):
        other.open() if own is None else StateShard(other, own)


def test_on_a_disk_that_workers_share_states_are_mapped_where_they_are(
    cache: FrozenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_shards, "PARTS_A_WORKER", 1)
    found = open_share(cache, 1, WORLD)
    assert isinstance(found, CachedStates)
    for states, file in zip(found._states, cache.states, strict=True):
        assert isinstance(states.base, np.memmap)
        assert str(states.base.filename) == file.path
