"""Import corpora whose files spell the same names with different signs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.corpora import run_import, ultrawiki


def tables(
    folder: Path, sentences: list[dict[str, Any]], entities: list[dict[str, Any]] | None = None
) -> Path:
    folder.mkdir()
    for name, rows in (("sentences", sentences), ("entities", entities)):
        if rows is not None:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


SPELT = ["O'Tool Bay", "O\u2019Tool\u00a0Bay", "\ufeffO'Tool  Bay", "O'Tool Bay\u200b", "Ｏ'Tool Bay"]


@pytest.mark.parametrize("listed", [True, False])
def test_sentences_belong_to_the_entity_however_it_is_spelt(tmp_path: Path, listed: bool) -> None:
    rows = [
        {"entity": name, "sentence": f"{number} ships sail to {name}."} for number, name in enumerate(SPELT)
    ]
    entities = [{"name": SPELT[0]}] if listed else None
    got = run_import(tmp_path / "w", tables(tmp_path / "raw", rows, entities), "jsonl")
    assert [e["name"] for e in got.entities] == ["O'Tool Bay"]
    assert [m["sentence"] for m in got.mentions] == [row["sentence"] for row in rows]
    assert got.reasons == []


def test_names_are_stored_clean_and_a_second_one_is_refused_by_its_sign(tmp_path: Path) -> None:
    entities: list[dict[str, Any]] = [
        {
            "name": "\ufeffSoft\u00a0Bay",
            "aliases": ["Bay\u00adlet ", "\u200b"],
            "attributes": {"sea\u200b": ["Red\u00a0Sea"]},
        },
        {"name": "Soft\u2003Bay"},
        {"name": "\u2060"},
        {"name": "Soft\u2010Bay"},  # another visible sign: another name
    ]
    rows = [
        {"entity": "Soft Bay", "sentence": "The Soft Bay."},
        {"entity": "Soft\u2011Bay", "sentence": "The Soft-Bay."},
    ]
    got = run_import(tmp_path / "w", tables(tmp_path / "raw", rows, entities), "jsonl")
    assert [(e["name"], e["aliases"]) for e in got.entities] == [
        ("Soft Bay", ["Baylet"]),
        ("Soft\u2010Bay", []),
    ]
    assert got.entities[0]["attributes"] == {"sea": ["Red Sea"]}
    assert got.held == [("Soft Bay", "Soft Bay"), ("Soft\u2010Bay", "Soft-Bay")]
    told = {q["reason"]: q["code"] for q in got.quarantine}
    assert any("but for U+2003 at 4 in place of U+0020" in reason for reason in told)
    assert sorted(told.values()) == ["duplicate_entity", "text_empty", "text_empty"]


def test_an_unknown_name_is_refused_with_the_sign_that_makes_it_one(tmp_path: Path) -> None:
    rows = [{"entity": name, "sentence": "The Camp."} for name in ("Camp", "\u0421amp", "A\u2012B", "\u3164")]
    source = tables(tmp_path / "raw", rows, [{"name": n} for n in ("Camp", "A-B", "A\u2013B")])
    got = run_import(tmp_path / "w", source, "jsonl")
    twin, several, blank = (reason for _, reason in got.reasons)
    assert "alike are 'Camp' (given: U+0421 at 0 in place of U+0043)" in twin
    assert "'A-B' (given: U+2012 at 1 in place of U+002D), 'A\u2013B' (given:" in several
    assert blank == "entity name empty"


def test_the_files_of_a_layout_need_not_agree_on_signs(tmp_path: Path) -> None:
    source = ultrawiki(
        tmp_path / "raw",
        {"Cafe\u0301\u00a0Point": ["At Café Point."], "O\u2019Tool": ["At O&#39;Tool."]},
        names=["Café Point", "O'Tool", "\u200b"],
        ent2text={"O\u02bcTool": "A rock.", "Caf\u00e9 Point\u200e": "A bay."},
        attributes={"places": {"O\u2019Tool": {"kind": ["rock"]}}},
    )
    got = run_import(tmp_path / "w", source, "ultrawiki")
    assert got.held == [("Café Point", "Café Point"), ("O'Tool", "O&#39;Tool")]
    assert [e["description"] for e in got.entities] == ["A bay.", "A rock."]
    assert got.entities[1]["attributes"] == {"class": ["places"], "kind": ["rock"]}
    assert [(q["position"][:6], q["reason"]) for q in got.quarantine] == [("line 3", "empty")]


def test_a_sentence_or_a_description_without_a_visible_sign_is_empty(tmp_path: Path) -> None:
    rows = [{"entity": "iron", "sentence": text} for text in ("Iron.", "\u200b\u00a0", "\u2800")]
    source = tables(tmp_path / "raw", rows, [{"name": "iron", "description": "\u2060"}])
    got = run_import(tmp_path / "w", source, "jsonl")
    assert [q["code"] for q in got.quarantine] == ["text_empty"] * 3
    assert got.entities[0]["description"] is None
