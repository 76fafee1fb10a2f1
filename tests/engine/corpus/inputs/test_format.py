from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.corpus.inputs.format import (
    InputManifest,
    InputSettings,
    Stats,
    draw_rows,
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
    assert settings.key("c") == "mask-L128-S30-032d8762", (
        "inputs made before there were images keep their key"
    )
    masked = settings.model_copy(update={"descriptions": True, "description_names": "masked"})
    assert masked.key("c") == "mask-L128-S30-RA-e692c2e5", "as before names could be kept"
    assert masked.parts_key() == "parts-mask-L128-RA-644b7657"
    assert settings.parts_key() == "parts-mask-L128-f3bbc42e"
    kinds = [settings, masked, *(masked.model_copy(update={"description_names": n}) for n in ("kept",))]
    parts = {one.model_copy(update={"window": w}).parts_key() for one in kinds for w in ("sentence", "input")}
    assert len(parts) == 6
    with pytest.raises(ValidationError):
        InputSettings(tokenizer="t", max_length=2)


def test_inputs_of_an_earlier_version_have_names_masked_in_descriptions() -> None:
    manifest = InputManifest(
        settings=InputSettings(tokenizer="t", descriptions=True),
        model="embedded",
        corpus_digest="c",
        mentions=0,
        tokens=0,
        longest=0,
        clipped=0,
        parts={},
    )
    assert InputManifest.model_validate_json(manifest.model_dump_json()) == manifest
    earlier = manifest.model_dump()
    del earlier["settings"]["description_names"], earlier["settings"]["window"]
    read = InputManifest.model_validate(earlier).settings
    assert (read.description_names, read.window) == ("masked", "sentence")
    earlier["settings"]["descriptions"] = False
    assert InputManifest.model_validate(earlier).settings.description_names == "kept"


@given(st.lists(st.integers(0, 6), max_size=80), st.integers(1, 10), st.integers(0, 5))
def test_every_entity_gets_its_share(ids: list[int], at_most: int, seed: int) -> None:
    entity_ids = np.array(ids, np.int32)
    rows = draw_rows(entity_ids, at_most, seed)
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, draw_rows(entity_ids, at_most, seed))
    for entity in set(ids):
        assert (entity_ids[rows] == entity).sum() == min(at_most, ids.count(entity))


def test_another_seed_draws_other_rows() -> None:
    ids = np.zeros(1000, np.int32)
    drawn = [set(draw_rows(ids, 100, seed)) for seed in range(2)]
    assert 0 < len(drawn[0] & drawn[1]) < 30


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
    )
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
