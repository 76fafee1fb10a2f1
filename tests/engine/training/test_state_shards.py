"""Workers that read their own parts of the states, against one that reads all.

Two train together in ``test_lm_workers``.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.inputs.format import Inputs
from engine.errors import FormatError
from engine.models.text import TextEncoder
from engine.storage import npy_rows
from engine.storage.store import Store
from engine.training import state_shards
from engine.training.cache import CachedStates, FrozenCache
from engine.training.state_shards import copied_states, open_share, parts_of_workers
from tests.support.bucket_reads import counted_reads
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
    own = [batch[one.owners_of(batch, WORLD) == rank] for rank, one in enumerate(shares)]
    assert sorted(np.concatenate(own)) == sorted(batch)
    assert all(map(len, own))
    for share, rows in zip(shares, own, strict=True):
        assert len(share) == len(whole)
        np.testing.assert_array_equal(share.with_text, whole.with_text)
        np.testing.assert_array_equal(share.lengths, whole.lengths)
        assert_same(share.gather(rows), whole.gather(rows))


@pytest.fixture
def distant(cache: FrozenCache, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrozenCache:
    """The same states in a bucket, of which nothing was copied yet."""
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    states = [Store.open(f"{s3}/{one.name}") for one in cache.states]
    for target, source in zip(states, cache.states, strict=True):
        target.write_bytes(source.read_bytes())
    return FrozenCache(cache.inputs, states)


def test_of_a_bucket_a_worker_copies_its_own_parts_and_reads_single_rows_of_others(
    cache: FrozenCache, distant: FrozenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_shards, "PARTS_A_WORKER", 2)
    monkeypatch.setattr(npy_rows, "GAP", 0)
    read, whole = counted_reads(monkeypatch), cache.open()
    for rank, parts in enumerate(parts_of_workers(ROWS, WORLD)):
        read.clear()
        share = open_share(distant, rank, WORLD)
        own = {distant.states[part].name: distant.states[part].size() for part in parts}
        assert read == own
        assert [one.name for one in copied_states(distant, rank, WORLD)] == list(own)
        rows = np.random.default_rng(rank).permutation(share.rows_of_worker(rank))
        assert_same(share.gather(rows), whole.gather(rows))
        assert read == own, "all that it needs is there"
        others = np.setdiff1d(np.arange(len(whole)), rows)
        share.gather(others[:1])  # headers of the files
        read.clear()
        if rank == 0:
            assert_same(share.gather(others[1:3]), whole.gather(others[1:3]))
            tokens = int(whole.lengths[others[1:3]].sum())
            assert read.total() == tokens * 4 * whole.gather(others[:1])[0].shape[2]
        else:
            assert_same(share.gather(others), whole.gather(others))
            assert not read, "the worker before it was of the same machine, and copied these parts"


def test_where_no_states_are_needed_none_are_copied(
    distant: FrozenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_shards, "PARTS_A_WORKER", 2)
    read = counted_reads(monkeypatch)
    for world in (1, 2, 3):
        shares = [open_share(distant, rank, world, with_states=False) for rank in range(world)]
        taken = [one.rows_of_worker(rank) for rank, one in enumerate(shares)]
        assert sorted(set(np.concatenate(taken))) == list(range(sum(ROWS)))
    assert not read


def test_with_few_parts_or_one_worker_each_copies_all(
    distant: FrozenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = counted_reads(monkeypatch)
    for world in (1, 2):
        assert len(copied_states(distant, 0, world)) == len(ROWS)
        assert open_share(distant, 0, world).rows_of_worker(0).tolist() == list(range(sum(ROWS)))
    assert read.total() == sum(one.size() for one in distant.states), "once for the machine"


def assert_same(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


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


@pytest.mark.parametrize("world", [1, WORLD])
def test_a_part_with_other_rows_than_its_manifest_says_is_named(cache: FrozenCache, world: int) -> None:
    parts = dict(cache.inputs.manifest.parts) | {cache.inputs.names[2]: 8}
    manifest = cast(Any, SimpleNamespace(parts=parts))
    other = FrozenCache(Inputs(cache.inputs.key, manifest, cache.inputs.parts), cache.states)
    with pytest.raises(FormatError, match=r"part-00002\.parquet: has 9 rows where the manifest says 8"):
        opened(other, 0, world)


def test_on_a_disk_that_workers_share_states_are_mapped_where_they_are(
    cache: FrozenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_shards, "PARTS_A_WORKER", 1)
    found = open_share(cache, 1, WORLD)
    assert isinstance(found, CachedStates)
    for states, file in zip(found._states, cache.states, strict=True):
        assert isinstance(states, np.ndarray)
        assert isinstance(states.base, np.memmap)
        assert str(states.base.filename) == file.path
