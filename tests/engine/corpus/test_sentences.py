"""The sentences that a bundle shows, against a plain loop over the corpus."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus import sentences as module
from engine.corpus.schema import MENTION_SCHEMA
from engine.corpus.sentences import MAX_CHARACTERS, PER_ENTITY, write_sentences
from engine.workspace import Workspace


def test_the_first_short_sentences_of_each_entity_sorted_by_entity(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GROUP_ROWS", 7)
    random = np.random.default_rng(0)
    house = Workspace.open(tmp_path / "w")
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
    write_sentences(house, tmp_path / "found.parquet", 7)
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
