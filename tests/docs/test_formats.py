"""The samples of data are read by the readers that the documents name."""

from __future__ import annotations

import json
from pathlib import Path

from engine.images.selection.table import COLUMNS
from engine.queries.formats import read_queries
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from tests.support.corpora import jsonl, run_import
from tests.support.documents import PAGES, ROOT, blocks, write_titled

FORMATS = ROOT / "docs" / "data-formats.md"


def test_every_json_block_is_json() -> None:
    found = [block for page in PAGES for block in blocks(page, "json")]
    assert len(found) >= 8
    for block in found:
        for line in block.code.splitlines():
            assert isinstance(json.loads(line), dict), block.place


def test_the_corpus_is_imported_whole(world: Path) -> None:
    taken = run_import("other", "corpus", "jsonl", strict=True)
    assert taken.held == [("Norway", "Norway"), ("Norway", "Norway"), ("Japan", "Nippon"), ("Japan", "")]
    assert [one["image"] is not None for one in taken.mentions] == [False, False, True, True]


def test_the_queries_are_read_whole(world: Path, countries: Bundle) -> None:
    found = read_queries(Store.open("queries.jsonl"), countries.vocabulary)
    assert [q.query.id for q in found.queries] == ["q1", "q2"]
    assert (found.refused, found.missing) == ([], 0)
    assert found.queries[0].positive.size == found.queries[1].positive.size == 1


def test_the_readmes_records_are_a_corpus(tmp_path: Path) -> None:
    (block,) = blocks(ROOT / "README.md", "json")
    sentences, entities = block.code.splitlines()
    (tmp_path / "sentences.jsonl").write_text(sentences)
    (tmp_path / "entities.jsonl").write_text(entities)
    assert run_import(tmp_path / "w", tmp_path, "jsonl", strict=True).held == [("Norway", "Norway")]


def test_the_table_of_candidate_images_has_its_fields(tmp_path: Path) -> None:
    write_titled(tmp_path, ROOT / "docs" / "multimodal.md")
    record = json.loads((tmp_path / "found.jsonl").read_text())
    assert set(record) <= set(COLUMNS)


def test_a_line_of_the_quarantine_looks_as_it_is_shown(tmp_path: Path) -> None:
    (shown,) = [b.code for b in blocks(FORMATS, "json") if b.title == "a quarantine line"]
    rows = [{"entity": "Norway", "sentence": text} for text in ("Norway is cold.", "It is cold.")]
    source = jsonl(tmp_path / "sentences.jsonl", rows)
    (line,) = run_import(tmp_path / "w", source, "jsonl").quarantine
    line |= {"position": "line 7, byte 512", "reason": "…", "record": "…"}
    assert json.loads(shown) == line
