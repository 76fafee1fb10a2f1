"""Arrow files: streams and files of every kind of column are read as Parquet is; broken ones are named."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from engine.corpus.positions import RowPosition
from engine.corpus.readers.row_files import RowFile, find_row_files
from engine.corpus.readers.rows import Row
from engine.errors import FormatError, StorageError
from engine.refusals import Code, Refusal
from engine.storage.store import Store
from tests.support.corpora import Imported, parquet, run_import
from tests.support.images import image_bytes

NAMES = ["iron", "gold", "tin", "zinc", "lead"]
KINDS: dict[str, Callable[[pa.Schema, Any], Any]] = {
    "stream": lambda schema, sink: ipc.new_stream(sink, schema),
    "file": lambda schema, sink: ipc.new_file(sink, schema),
    "compressed": lambda schema, sink: ipc.new_stream(
        sink, schema, options=ipc.IpcWriteOptions(compression="zstd")
    ),
    "old": lambda schema, sink: ipc.new_stream(
        sink, schema, options=ipc.IpcWriteOptions(use_legacy_format=True)
    ),
}


def arrow(path: Path, table: pa.Table, kind: str = "stream", rows: int = 2) -> Path:
    """Write a table in batches of so many rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as sink, KINDS[kind](table.schema, sink) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def metals(names: list[str] = NAMES) -> pa.Table:
    return pa.table({"entity": names, "sentence": [f"The {name} is heavy." for name in names]})


def saved(folder: Path, tables: list[pa.Table]) -> Path:
    """Write what ``Dataset.save_to_disk`` does."""
    for i, table in enumerate(tables):
        arrow(folder / f"data-{i:05}-of-{len(tables):05}.arrow", table)
    files = [{"filename": f"data-{i:05}-of-{len(tables):05}.arrow"} for i in range(len(tables))]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": None}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder


def entities(got: Imported) -> list[str]:
    return [name for name, _ in got.held]


def read(path: Path, *columns: str) -> list[Row]:
    return list(RowFile(Store.open(path), path.name, "arrow").rows({name: name for name in columns}))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_column_is_read_as_parquet_is(tmp_path: Path, kind: str) -> None:
    table = pa.table(
        {
            "other": pa.array(range(5)),
            "entity": pa.array(NAMES, pa.large_string()),
            "kind": pa.array(["a", "b", None, "a", "b"]).dictionary_encode(),
            "sentence": pa.array(["x"] * 4 + [None]).dictionary_encode(),
            "start": pa.array([0, None, 2, 3, 4], pa.int64()),
            "aliases": pa.array([["Fe"], [], None, ["a", "b"], ["c"]]),
            "attributes": pa.array([[("k", ["v"])]] * 5, pa.map_(pa.string(), pa.list_(pa.string()))),
            "image": pa.array([{"bytes": b"\x89", "path": None}] * 5),
        }
    )
    asked = [name for name in table.column_names if name != "other"]
    pq.write_table(table, tmp_path / "a.parquet")
    expected = list(RowFile(Store.open(tmp_path / "a.parquet"), "a", "parquet").rows({n: n for n in asked}))
    got = read(arrow(tmp_path / "a.arrow", table, kind), *asked)
    assert got == expected
    assert [position for _, position, _ in got] == [RowPosition(i) for i in range(5)]
    file = find_row_files(str(tmp_path / "a.arrow")).files[0]
    assert (file.form, file.columns(), len(list(file.pieces()))) == ("arrow", table.column_names, 1)
    with pytest.raises(FormatError, match=r"no column name \(found: other, entity"):
        read(tmp_path / "a.arrow", "name")


def test_a_saved_data_set_is_imported_with_its_splits(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    saved(folder / "train", [metals(NAMES[:2]), metals(NAMES[2:3])])
    saved(folder / "test", [metals(NAMES[3:])])
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    arrow(folder / "train/cache-0f3a.arrow", metals(["copper"]))  # of Dataset.map
    got = run_import(tmp_path / "w", folder, "auto")
    assert sorted(entities(got)) == sorted(NAMES)
    assert got.manifest.format == "arrow"
    assert got.manifest.unread == ["train/cache-0f3a.arrow"]
    alone = run_import(tmp_path / "v", folder / "test", "arrow")
    assert entities(alone) == NAMES[3:]
    assert not alone.manifest.unread
    texts = find_row_files(str(folder))
    assert [one.name.partition("/")[0] for one in texts.files] == ["test", "train", "train"]
    assert texts.unread == ["train/cache-0f3a.arrow"]


def test_a_copy_from_the_hub_is_imported(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for i, name in enumerate(NAMES[:2]):
        parquet(folder / f"data/train-{i:05}-of-00002.parquet", entity=[name], sentence=[f"A {name}."])
    (folder / "README.md").write_text("---\n---\n")
    (folder / "dataset_infos.json").write_text("{}")
    (folder / ".cache/huggingface").mkdir(parents=True)
    (folder / ".cache/huggingface/a.parquet").write_text("")
    assert entities(run_import(tmp_path / "w", folder, "auto")) == NAMES[:2]
    assert [one.form for one in find_row_files(str(folder)).files] == ["parquet", "parquet"]


def test_tables_of_one_folder_by_their_names(tmp_path: Path) -> None:
    saved(tmp_path / "raw/sentences", [metals()])
    saved(tmp_path / "raw/entities", [pa.table({"name": NAMES, "description": ["Heavy."] * 5})])
    (tmp_path / "raw/dataset_dict.json").write_text('{"splits": ["sentences", "entities"]}')
    got = run_import(tmp_path / "w", tmp_path / "raw", "auto")
    assert [one["description"] for one in got.entities] == ["Heavy."] * 5
    assert (entities(got), got.manifest.unread) == (NAMES, [])


def test_a_json_file_that_belongs_to_no_data_set_is_not_passed_over(tmp_path: Path) -> None:
    arrow(tmp_path / "raw/a.arrow", metals())
    (tmp_path / "raw/state.json").write_text("[]")
    with pytest.raises(FormatError, match=r"not all of it would be read: state.json"):
        find_row_files(str(tmp_path / "raw"))


def test_images_of_a_data_set_are_stored(tmp_path: Path) -> None:
    content = image_bytes("red")
    images = pa.array(
        [{"bytes": content, "path": "a.png"}], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    saved(tmp_path / "set", [pa.table({"entity": ["iron"], "sentence": ["Iron."], "image": images})])
    got = run_import(tmp_path / "w", tmp_path / "set", "auto")
    assert (tmp_path / "w" / got.mentions[0]["image"]).read_bytes() == content


@pytest.mark.parametrize("kind", ["stream", "file", "compressed"])
def test_a_file_cut_anywhere_is_broken_never_short(tmp_path: Path, kind: str) -> None:
    path = arrow(tmp_path / "a.arrow", metals(), kind)
    content = path.read_bytes()
    between = content.find(b"\xff\xff\xff\xff", len(content) // 2)
    for cut in {*range(0, len(content), 7), *range(len(content) - 9, len(content)), between}:
        path.write_bytes(content[:cut])
        *rows, last = read(path, "entity", "sentence")
        assert isinstance(last[0], Refusal), cut
        assert last[0].code == Code.FILE_BROKEN
        assert [row[0]["entity"] for row in rows] == NAMES[: len(rows)]  # type: ignore[index]
        assert last[1] == RowPosition(len(rows))


def test_bytes_that_are_changed_end_no_process(tmp_path: Path) -> None:
    content = bytearray(arrow(tmp_path / "a.arrow", metals()).read_bytes())
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        (tmp_path / "b.arrow").write_bytes(changed)
        try:
            rows = read(tmp_path / "b.arrow", "entity", "sentence")
        except FormatError:  # the name of the column is what was changed
            continue
        assert all(isinstance(row[0], dict | Refusal) for row in rows)


def test_a_text_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    texts = pa.array([b"The iron.", b"\xff gold", b"The tin."]).view(pa.string())
    path = arrow(tmp_path / "sentences.arrow", pa.table({"entity": NAMES[:3], "sentence": texts}), rows=3)
    got = run_import(tmp_path / "w", path, "auto")
    assert entities(got) == ["iron", "tin"]
    assert [(position, reason[:14]) for position, reason in got.reasons] == [("row 1", "not valid UTF-")]


def test_a_large_file_is_read_batch_by_batch(tmp_path: Path) -> None:
    table = pa.table({"entity": ["iron"] * 1000, "sentence": ["x" * 1000] * 1000})
    with (tmp_path / "a.arrow").open("wb") as sink, ipc.new_stream(sink, table.schema) as writer:
        for _ in range(50):
            writer.write_table(table)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    most = number = 0
    for _ in RowFile(Store.open(tmp_path / "a.arrow"), "a", "arrow").rows(
        {"entity": "entity", "sentence": "sentence"}
    ):
        number += 1
        if number % 500 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == 50_000
    assert most < 8 << 20  # of 50 MB
    assert peak < 8 << 20


def test_a_name_on_the_hub_says_how_it_becomes_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = (
        r"nothing is there; .* \(a data set of the hub is hf://some/set, or fetched first: hf download some"
    )
    with pytest.raises(StorageError, match=said):
        run_import(tmp_path / "w", "some/set", "auto")
    with pytest.raises(StorageError, match=said):
        find_row_files("some/set")
    with pytest.raises(StorageError, match=r"s3:// address$"):
        find_row_files("/some/set")
