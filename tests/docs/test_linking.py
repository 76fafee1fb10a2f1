"""The page on linking is walked as it is written: from a dump and a wiki's page to an imported corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster.commandline import Command
from jobs.link import main as link
from jobs.read_wikidata import main as read_wikidata
from jobs.workers import executor
from tests.support.commands import run_command
from tests.support.corpora import run_import
from tests.support.documents import ROOT, blocks, command_lines, write_titled

PAGE = ROOT / "docs" / "linking.md"
COMMANDS: dict[str, Command[Any]] = {"read-wikidata": read_wikidata, "link": link}


def commands(*holding: str) -> list[list[str]]:
    """The words of the page's commands that hold some words."""
    lines = [words for block in blocks(PAGE, "bash") for words in command_lines(block)]
    return [words for words in lines if set(holding) <= set(words)]


def test_from_a_dump_and_a_page_to_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executor, "has_cluster", lambda: False)
    write_titled(tmp_path, PAGE)
    (tmp_path / "redirects.csv").write_text("from,to\nsmall lake,Vessel Tarn\n", encoding="utf-8")
    for words in (*commands("read-wikidata"), *commands("link", "--markup")):
        assert run_command(COMMANDS[words[1]], *words[2:]) == 0, words
    rows = pq.read_table("lakes/entities.parquet").to_pylist(maps_as_pydicts="strict")
    assert [(row["name"], row["aliases"], row["attributes"]) for row in rows] == [
        ("Mira", ["Lake Mira", "Great Mira"], {"class": ["lake"]}),
        ("Vessel Tarn", [], {"class": ["lake"]}),
    ]
    got = run_import("w", "linked", "parquet", strict=True)
    assert got.held == [("Mira", "Mira"), ("Vessel Tarn", "Vessel"), ("Mira", "Great Mira")]
    assert [one["sentence"] for one in got.mentions][1:] == [
        "Northland has two lakes: Mira, and the tarn at Vessel.",
        "Boats cross the Great Mira in summer.",
    ]
