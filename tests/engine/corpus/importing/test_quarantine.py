"""The lines of the quarantine: where, which kind of fault, why, and the record."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.refusals import Code
from tests.support.corpora import jsonl, run_import, ultrawiki

IRON = {"entity": "iron", "sentence": "Iron is heavy."}


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"entity": "iron", "sentence": "Nothing of it."}, Code.MENTION_NOT_FOUND),
        ({"entity": "iron", "sentence": "An iron gate."}, Code.MENTION_IN_LONGER_NAME),
        ({**IRON, "start": 0, "end": 99}, Code.SPAN_OUT_OF_RANGE),
        ({**IRON, "start": 4, "end": 5}, Code.SPAN_BLANK),
        ({**IRON, "start": 5, "end": 7}, Code.SPAN_MISMATCH),
        ({"entity": "iron", "sentence": "Iron. " * 20}, Code.TEXT_TOO_LONG),
        ({"entity": "iron", "sentence": " \n"}, Code.TEXT_EMPTY),
        ({"entity": "iron", "sentence": "Iron\0"}, Code.TEXT_CONTROL_CHARACTER),
        ({"entity": "iron", "sentence": "Iron \ud800"}, Code.TEXT_SURROGATE),
        ({"entity": "gold", "sentence": "Gold."}, Code.UNKNOWN_ENTITY),
        ({"entity": 7, "sentence": "Iron."}, Code.WRONG_TYPE),
        ({"entity": "iron"}, Code.NO_CONTENT),
        ({**IRON, "start": 0}, Code.CONFLICTING_FIELDS),
        ({**IRON, "image": "http://x/y.png"}, Code.IMAGE_ADDRESS),
        ({**IRON, "image_bytes": "é"}, Code.IMAGE_NOT_BASE64),
        ({"entity": "iron", "sentence": "Iron rusts."}, Code.DUPLICATE_SENTENCE),
        ("{", Code.NOT_JSON),
        (b"\xff", Code.NOT_UTF8),
    ],
)
def test_every_kind_of_fault_has_its_code(tmp_path: Path, row: object, code: Code) -> None:
    jsonl(tmp_path / "raw/entities.jsonl", [{"name": "iron"}, {"name": "iron gate"}])
    jsonl(tmp_path / "raw/sentences.jsonl", [{"entity": "iron", "sentence": "Iron rusts."}, row])
    got = run_import(tmp_path / "w", tmp_path / "raw", "jsonl", max_sentence_characters=100)
    (line,) = got.quarantine
    assert list(line) == ["source", "position", "code", "reason", "record"]
    assert (line["source"], line["position"], line["code"]) == ("sentences.jsonl", "line 2, byte 46", code)


def test_entities_details_and_broken_files_have_theirs(tmp_path: Path) -> None:
    names = ["iron", "iron", "x\ty"]
    source = ultrawiki(tmp_path / "raw", b'{"iron": ["Iron."', names, ent2text={"gold": "Yellow.", "iron": 7})
    got = run_import(tmp_path / "w", source, "ultrawiki", accept_broken_files=True)
    assert {(q["source"], q["position"], q["code"]) for q in got.quarantine} == {
        ("ent2text.json", "'iron'", Code.WRONG_TYPE),
        ("ent2text.json", "'gold'", Code.UNKNOWN_ENTITY),
        ("entities.txt", "line 2, byte 5", Code.DUPLICATE_ENTITY),
        ("entities.txt", "line 3, byte 10", Code.TEXT_LINE_BREAK),
        ("ent2sents.json", "after 'iron', sentence 0", Code.FILE_CUT_OFF),
    }


def test_a_source_of_a_long_name_has_its_quarantine_file(tmp_path: Path) -> None:
    name, deep = "a" * 248, tmp_path / "raw" / "sentences" / ("b" * 200)
    for file in (f"{name}1.jsonl", f"{name}2.jsonl"):
        jsonl(deep / file, [{"entity": "iron", "sentence": f"Iron rusts in {file}."}, "{"])
    got = run_import(tmp_path / "w", tmp_path / "raw", "jsonl")
    assert [line["source"][-7:] for line in got.quarantine] == ["1.jsonl", "2.jsonl"]


def test_a_file_of_a_name_that_is_not_utf8_beside_the_source_does_not_matter(tmp_path: Path) -> None:
    jsonl(tmp_path / "raw/sentences.jsonl", [{"entity": "iron", "sentence": "Iron rusts."}])
    (tmp_path / "raw/photos").mkdir()
    (tmp_path / "raw/photos" / os.fsdecode(b"caf\xe9.jpg")).touch()
    assert run_import(tmp_path / "w", tmp_path / "raw", "jsonl").manifest.counts.mentions == 1
