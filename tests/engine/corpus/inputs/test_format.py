from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from engine.corpus.inputs.format import (
    InputManifest,
    InputSettings,
    Stats,
    input_parts,
    open_inputs,
)
from engine.errors import StorageError
from engine.storage.parts import MANIFEST, PartFolder, write_pointer
from engine.storage.workspace import Workspace


def test_the_key_names_the_settings_and_changes_with_each() -> None:
    settings = InputSettings(tokenizer="t", max_length=128, max_sentences=30)
    assert settings.key("c").startswith("mask-L128-S30-")
    changes: list[dict[str, object]] = [
        {"tokenizer": "u"},
        {"max_length": 64},
        {"max_sentences": 5},
        {"descriptions": True},
        {"seed": 14},
        {"images": True},
        {"window": "input"},
        {"descriptions": True, "description_names": "masked"},
    ]
    keys = {settings.model_copy(update=c).key("c") for c in changes} | {settings.key("c"), settings.key("d")}
    assert len(keys) == len(changes) + 2
    assert "-RA-" in settings.model_copy(update={"descriptions": True}).key("c")
    assert "-RA-I-" in settings.model_copy(update={"descriptions": True, "images": True}).key("c")
    masked = settings.model_copy(update={"descriptions": True, "description_names": "masked"})
    kinds = [settings, masked, *(masked.model_copy(update={"description_names": n}) for n in ("kept",))]
    parts = {one.model_copy(update={"window": w}).parts_key() for one in kinds for w in ("sentence", "input")}
    assert len(parts) == 6
    with pytest.raises(ValidationError):
        InputSettings(tokenizer="t", max_length=2)


def write_part(parts: PartFolder[Stats], name: str) -> None:
    """Write a part without rows."""
    counts = {"rows": "0", "tokens": "0", "longest": "0", "clipped": "0"}
    with parts.writing(name) as path:
        pq.write_table(pa.table({}).replace_schema_metadata(counts), path)


def test_inputs_that_are_missing_or_not_complete(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    with pytest.raises(StorageError, match=r"no model input here yet; run `seedset preprocess"):
        open_inputs(workspace)
    with pytest.raises(StorageError, match="no such model input"):
        open_inputs(workspace, "mask")
    settings = InputSettings(tokenizer="t")
    parts = input_parts(workspace, settings)
    write_part(parts, "a")
    folder = workspace.inputs("mask")
    (folder / "part-00000.parquet").write_bytes(b"of an earlier version")
    write_pointer(workspace.inputs(), "mask")
    with pytest.raises(StorageError, match=r"not complete, its manifest.json is missing"):
        open_inputs(workspace)
    (folder / MANIFEST).write_bytes(b"{}")
    with pytest.raises(StorageError, match="cannot be read"):
        open_inputs(workspace)
    manifest = InputManifest(
        settings=settings,
        model="embedded",
        corpus_digest="c",
        mentions=2,
        tokens=8,
        longest=4,
        clipped=0,
        parts={"b": 1, "a": 1},
        sources=["0", "1"],
    )
    earlier = manifest.model_dump_json(exclude={"sources"})
    (folder / MANIFEST).write_bytes(earlier.encode())
    with pytest.raises(StorageError, match=r"made by an earlier version.*`seedset preprocess` again"):
        open_inputs(workspace)
    (folder / MANIFEST).write_bytes(manifest.model_dump_json().encode())
    with pytest.raises(StorageError, match=r"1 of 2 parts are missing \(part-b.parquet\)"):
        open_inputs(workspace)
    parts.file("b").write_bytes(b"PAR1")
    with pytest.raises(StorageError, match=r"1 of 2 parts are missing \(part-b.parquet: cut\); run.*again"):
        open_inputs(workspace)
    write_part(parts, "b")
    inputs = open_inputs(workspace)
    assert (inputs.key, [p.name for p in inputs.parts]) == (
        "mask",
        ["part-b.parquet", "part-a.parquet"],
    )
    assert inputs.manifest == manifest
