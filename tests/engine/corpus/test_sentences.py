"""The sentences that a bundle shows, against a plain loop over the corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.corpus import sentences as module
from engine.corpus.schema import MENTION_SCHEMA
from engine.corpus.sentences import MAX_CHARACTERS, PER_ENTITY, write_sentences
from engine.storage.workspace import Workspace
from tests.support.corpora import jsonl, run_import


def test_the_first_short_sentences_of_each_entity_sorted_by_entity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP_ROWS", 7)
    monkeypatch.setattr(module, "WRITTEN_ROWS", 21)
    random = np.random.default_rng(0)
    workspace = Workspace.open(tmp_path / "w")
    folder = tmp_path / "w" / "corpus" / "mentions"
    folder.mkdir(parents=True)
    (folder.parent / "manifest.json").write_text("{}")
    every = []
    for part in range(3):
        rows = []
        for place in range(40):
            length = random.choice([30, MAX_CHARACTERS, MAX_CHARACTERS + 1])
            text = f"part {part}, place {place}: ".ljust(length, "é")
            image = None if place % 2 else f"{part}-{place}.png"
            rows.append((int(random.integers(6)), text, 0, 4, image))
        table = pa.Table.from_pylist(
            [dict(zip(MENTION_SCHEMA.names, r, strict=True)) for r in rows], MENTION_SCHEMA
        )
        pq.write_table(table, folder / f"part-{part:05}.parquet", row_group_size=16)
        every += rows
    write_sentences(workspace, tmp_path / "found.parquet", 7)
    expected = [
        row
        for entity in range(7)
        for row in [r for r in every if r[0] == entity and len(r[1]) <= MAX_CHARACTERS][:PER_ENTITY]
    ]
    assert 7 < len(expected) < len([r for r in every if len(r[1]) <= MAX_CHARACTERS])
    found = pq.ParquetFile(tmp_path / "found.parquet")
    assert [tuple(row.values()) for row in found.read().to_pylist()] == expected
    assert found.schema_arrow.equals(MENTION_SCHEMA)
    assert found.num_row_groups == -(-len(expected) // 7)


def test_images_without_a_sentence_take_turns_with_sentences(tmp_path: Path) -> None:
    rows = [{"entity": "iron", "image": f"{i}.png"} for i in range(12)]
    rows += [{"entity": "gold", "sentence": f"Gold {i}."} for i in range(9)]
    rows += [{"entity": "iron", "sentence": f"Iron {i}.", "image": "12.png"} for i in range(5)]
    rows += [{"entity": "tin", "image": "13.png"}]
    run_import(tmp_path / "w", jsonl(tmp_path / "s.jsonl", rows), "jsonl")
    write_sentences(Workspace.open(tmp_path / "w"), tmp_path / "found.parquet", 3)
    found = pq.read_table(tmp_path / "found.parquet").to_pylist()
    shown = [(r["entity_id"], r["sentence"], r["image"] and r["image"].rsplit("/")[-1]) for r in found]
    iron = [one for i in range(4) for one in ((0, f"Iron {i}.", "12.png"), (0, "", f"{i}.png"))]
    assert shown == [*iron, *((1, f"Gold {i}.", None) for i in range(8)), (2, "", "13.png")]


def test_refused_images_are_not_named_and_what_had_nothing_else_is_not_shown(tmp_path: Path) -> None:
    rows = [
        {"entity": "iron", "image": "broken.png"},
        {"entity": "iron", "sentence": "Iron is.", "image": "broken.png"},
        {"entity": "iron", "sentence": "Iron was.", "image": "fine.png"},
        {"entity": "iron", "image": "other.png"},
    ]
    run_import(tmp_path / "w", jsonl(tmp_path / "s.jsonl", rows), "jsonl")
    refused = [str(tmp_path / "broken.png")]
    write_sentences(Workspace.open(tmp_path / "w"), tmp_path / "found.parquet", 1, refused)
    found = pq.read_table(tmp_path / "found.parquet").to_pylist()
    shown = [(r["sentence"], r["image"] and r["image"].rsplit("/")[-1]) for r in found]
    assert shown == [("Iron is.", None), ("", "other.png"), ("Iron was.", "fine.png")]
