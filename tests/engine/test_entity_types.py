"""Types of entities: means over mentions, the file of a bundle, and cosines by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.entity_types import MAX_TYPES, EntityTypes
from engine.errors import BundleError

NAMES = ["person", "city", "capital"]


@pytest.fixture
def types() -> EntityTypes:
    """Entity 0 with two mentions, 1 with none, 2 with one."""
    entities, kinds = np.array([0, 0, 0, 2]), np.array([0, 1, 0, 2])
    return EntityTypes.collect(NAMES, entities, kinds, np.array([0.8, 0.6, 1.0, 0.7]), np.array([2, 0, 1]))


def test_a_confidence_is_the_mean_over_all_mentions_the_surest_type_first(types: EntityTypes) -> None:
    assert types.of(0, 0) == [("person", pytest.approx(0.9)), ("city", pytest.approx(0.3))]
    assert [name for name, _ in types.of(0)] == ["person"]
    assert types.of(1, 0) == []
    assert types.of(2) == [("capital", pytest.approx(0.7))]
    np.testing.assert_allclose(types.rows([2, 0]), [[0, 0, 0.7], [0.9, 0.3, 0]])
    assert types.frequency_T.tolist() == [1, 0, 1]


def test_cosines_are_of_square_roots(types: EntityTypes) -> None:
    direction = np.array([0.6, 0.8, 0.0])
    wanted = (np.sqrt(0.9) * 0.6 + np.sqrt(0.3) * 0.8) / np.sqrt(1.2)
    np.testing.assert_allclose(
        types.cosines(np.array([1, 0, 2], np.int32), direction), [0, wanted, 0], rtol=1e-6
    )
    assert len(types.cosines(np.array([], np.int32), direction)) == 0


def test_the_file_gives_the_same_back_without_the_types_that_nobody_has(
    types: EntityTypes, tmp_path: Path
) -> None:
    wide = EntityTypes([*NAMES, "nobody"], types.starts_N1, types.types_M, types.confidence_M)
    wide.write(tmp_path / "t")
    again = EntityTypes.read(tmp_path / "t", 3)
    assert again.names == NAMES
    assert [again.of(e, 0) for e in range(3)] == [types.of(e, 0) for e in range(3)]
    rows = pq.read_table(tmp_path / "t").to_pylist()
    assert rows[0] == {"entity_id": 0, "type": "person", "confidence": pytest.approx(0.9)}


def test_none_has_a_type(tmp_path: Path) -> None:
    nothing = np.array([], np.int64)
    none = EntityTypes.collect(NAMES, nothing, nothing, nothing.astype(float), np.zeros(2, np.int64))
    none.write(tmp_path / "t")
    again = EntityTypes.read(tmp_path / "t", 2)
    assert (len(again), again.of(1, 0), again.rows([0]).shape) == (2, [], (1, 0))
    assert again.cosines(np.array([0, 1], np.int32), np.zeros(0)).tolist() == [0, 0]


def test_types_of_other_entities_and_other_tables_are_refused(types: EntityTypes, tmp_path: Path) -> None:
    types.write(tmp_path / "t")
    with pytest.raises(BundleError, match=r"^t: not the types of 2 entities"):
        EntityTypes.read(tmp_path / "t", 2)
    pq.write_table(pa.table({"entity_id": [1]}), tmp_path / "u")
    with pytest.raises(BundleError, match=r"^u: its columns are not those"):
        EntityTypes.read(tmp_path / "u", 2)


@given(st.integers(0, 2**32 - 1))
def test_the_means_are_those_of_a_plain_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    n, kinds = 4, 5
    mentions = random.integers(0, n, 12)
    listed = [(e, t, random.random()) for e in mentions for t in range(kinds) if random.random() < 0.5]
    columns = zip(*listed, strict=True) if listed else ([], [], [])
    entities, types, sure = (np.array(column) for column in columns)
    counts = np.bincount(mentions, minlength=n)
    found = EntityTypes.collect([str(i) for i in range(kinds)], entities, types, sure, counts)
    plain = np.zeros((n, kinds))
    for e, t, p in listed:
        plain[e, t] += p / counts[e]
    np.testing.assert_allclose(found.rows(range(n)), plain, rtol=1e-5)
    for e in range(n):
        assert (np.diff([sure for _, sure in found.of(e, 0)]) <= 0).all()


def test_no_more_than_so_many_are_kept() -> None:
    n = MAX_TYPES + 5
    names, all_of_0 = [str(i) for i in range(n)], np.zeros(n, np.int64)
    sure = np.linspace(0.1, 0.9, n)
    found = EntityTypes.collect(names, all_of_0, np.arange(n), sure, np.ones(1, np.int64))
    assert [name for name, _ in found.of(0, 0)] == names[: -MAX_TYPES - 1 : -1]
