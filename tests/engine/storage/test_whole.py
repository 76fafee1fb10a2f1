"""Files that were cut are told from whole ones, wherever the cut is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from engine.errors import StorageError
from engine.storage.parts import PartFolder, check_whole, read_pointer
from engine.storage.store import Store
from engine.storage.whole import fault_in, fault_of, sizes_of

KINDS = ["a.npy", "a.safetensors", "a.parquet", "a.json"]


def write(path: Path) -> None:
    """Write a small file of the kind that its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, np.arange(30, dtype=np.uint16).reshape(3, 10))
    elif path.suffix == ".safetensors":
        save_file({"a": torch.arange(6.0), "b": torch.ones(2, 2)}, path, {"format": "pt"})
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"a": range(9)}), path)
    else:
        path.write_text('{"a": [1, 2]}\n')


@pytest.mark.parametrize("name", KINDS)
def test_a_cut_anywhere_is_told(tmp_path: Path, name: str) -> None:
    file = Store.open(tmp_path / name)
    write(tmp_path / name)
    assert fault_of(file) is None
    content = file.read_bytes()
    end = len(content) - (2 if name.endswith("json") else 1)  # JSON is whole without its line's end
    for size in {*range(0, end, 7), 1, 8, 9, end}:
        (tmp_path / name).write_bytes(content[:size])
        assert fault_of(file) is not None, size
        with pytest.raises(ValueError, match=name):
            check_whole(file)
    (tmp_path / name).write_bytes(bytes(len(content)))  # as a disk leaves it that lost its power
    assert fault_of(file) is not None
    (tmp_path / name).unlink()
    assert fault_of(file) == "is missing"


def test_empty_arrays_are_whole(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.empty((0, 8), np.float32))
    save_file({}, tmp_path / "a.safetensors")
    assert fault_in(Store.open(tmp_path)) is None


def test_a_folder_is_whole_if_all_is_there_in_its_size(tmp_path: Path) -> None:
    for name in (*KINDS, "sub/b.json", "note.txt"):
        write(tmp_path / name)
    folder, sizes = Store.open(tmp_path), sizes_of(tmp_path)
    assert sizes["sub/b.json"] == 14
    assert fault_in(folder, sizes) is None
    (tmp_path / "note.txt").write_text("{")
    assert fault_in(folder, sizes) == "note.txt has 1 of 14 bytes"
    assert fault_in(folder) is None, "its form does not tell"
    (tmp_path / "note.txt").unlink()
    assert fault_in(folder, sizes) == "note.txt is missing"
    (tmp_path / "sub/b.json").write_text("{")
    assert fault_in(folder) == "sub/b.json is cut or damaged"


def test_a_file_in_a_bucket_is_told_too(s3: str, tmp_path: Path) -> None:
    write(tmp_path / "a.npy")
    file = Store.open(f"{s3}/a.npy")
    file.write_bytes((tmp_path / "a.npy").read_bytes())
    assert fault_of(file) is None
    file.write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    assert fault_of(file) == "has 187 of 188 bytes"


def test_a_part_one_of_whose_files_is_cut_is_made_again(tmp_path: Path) -> None:
    parts = PartFolder(Store.open(tmp_path), (".npy", ".json"), check_whole, fault_of)
    for name in ("a", "b", "c"):
        for suffix in parts.suffixes:
            write(Path(parts.file(name, suffix).path))
    assert list(parts.finished()) == ["a", "b", "c"]
    for name, suffix in (("a", ".npy"), ("c", ".json")):
        file = parts.file(name, suffix)
        file.write_bytes(file.read_bytes()[:-3])
    assert list(parts.finished()) == ["b"]
    way_out = r"2 of 3 parts are missing \(part-a.json: cut, part-c.json: cut\); run it again"
    with pytest.raises(StorageError, match=way_out):
        parts.check_complete(["a", "b", "c"], "run it again")


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff", b"../a"])
def test_a_pointer_that_holds_no_name_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "CURRENT").write_bytes(content)
    with pytest.raises(StorageError, match=r"CURRENT: names no folder beside it .*writes it again"):
        read_pointer(Store.open(tmp_path))
