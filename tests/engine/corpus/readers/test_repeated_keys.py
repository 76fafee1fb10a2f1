"""A record that gives a key twice is refused with its place: neither value is guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.corpora import jsonl, run_import, ultrawiki

TWICE = [
    '{"entity": "gold", "sentence": "Gold one.", "sentence": "Gold two."}',
    '{"entity": "gold", "sentence": "Gold.", "image": {"path": "a.png", "path": "b.png"}}',
]


@pytest.mark.parametrize("line", TWICE)
def test_a_line_is_refused_alone(line: str, tmp_path: Path) -> None:
    jsonl(tmp_path / "raw/sentences.jsonl", [{"entity": "iron", "sentence": "An iron bar."}, line])
    got = run_import(tmp_path / "w", tmp_path / "raw", "jsonl")
    assert got.held == [("iron", "iron")]
    ((position, reason),) = got.reasons
    assert position.startswith("line 2")
    assert "is given a second time; of two equal keys leave one" in reason
    assert got.quarantine[0]["code"] == "conflicting_fields"


def test_of_two_descriptions_the_first_stays_and_the_other_is_told(tmp_path: Path) -> None:
    source = ultrawiki(tmp_path / "raw", {"iron": ["Iron."], "gold": ["Gold."]}, ent2text={})
    text = '{"iron": "A metal.", "gold": "Dear.", "gold": "Dear.", "iron": "Another."}'
    (source / "ent2text.json").write_text(text)
    got = run_import(tmp_path / "w", source, "ultrawiki")
    assert [e["description"] for e in got.entities] == ["A metal.", "Dear."]
    assert got.reasons == [("'iron'", "is described twice; the first text stays")]


def test_of_two_lists_of_attributes_the_first_stays_and_the_other_is_told(tmp_path: Path) -> None:
    source = tmp_path / "raw"
    row = {"tokens": ["Iron", "."], "entityMentions": [{"entityId": 7, "start": 0, "end": 0}]}
    jsonl(source / "sentences.json", [row])
    (source / "entity2id.txt").write_text("Iron\t7\n")
    first, second = ({"phase": [phase]} for phase in ("solid", "liquid"))
    (source / "attributes.json").write_text(f'{{"Iron": {json.dumps(first)}, "Iron": {json.dumps(second)}}}')
    got = run_import(tmp_path / "w", source, "mesed")
    assert got.entities[0]["attributes"] == first
    assert got.reasons == [("'Iron'", "has attributes twice; the first ones stay")]
