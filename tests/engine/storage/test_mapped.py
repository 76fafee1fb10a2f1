"""Arrays that many numbers are filled into are on disk, and nothing of them stays behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.storage.mapped import scratch_array


def test_a_small_array_needs_no_folder(tmp_path: Path) -> None:
    found = scratch_array(tmp_path / "none", np.int32, (3, 2))
    assert not found.any()
    assert not (tmp_path / "none").exists()


def test_a_large_one_is_mapped_from_a_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.storage.mapped.SMALL", 8)
    found = scratch_array(tmp_path / "new", np.float64, (3, 2))
    assert type(found) is np.ndarray
    assert isinstance(found.base, np.memmap)
    assert found.shape == (3, 2)
    assert not found.any()
    found[1] = 5
    assert found.sum() == 10
    assert not any((tmp_path / "new").iterdir())
