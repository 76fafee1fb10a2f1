"""The command: what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.export import main
from tests.support.commands import run_command
from tests.support.corpora import jsonl, run_import


def test_a_corpus_is_exported_and_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"entity": "iron", "sentence": "Iron is heavy.", "image": "a.png"}]
    run_import(tmp_path / "w", jsonl(tmp_path / "raw/s.jsonl", rows), "jsonl")
    words = ["--workspace", tmp_path / "w", "--output", tmp_path / "out"]
    assert run_command(main, *words) == 0
    printed = capsys.readouterr()
    assert "1 rows have images that lie elsewhere: not copied" in printed.err
    assert "sentences=1" in printed.out
    assert run_import(tmp_path / "v", tmp_path / "out", "auto").held == [("iron", "Iron")]
    assert run_command(main, *words) == 2
    assert f"{tmp_path}/out: is there already" in capsys.readouterr().err
    assert run_command(main, *words, "--overwrite") == 0
    assert run_command(main, *words, "--overwrite", "--bundle", "nope") == 2
    assert "nope" in capsys.readouterr().err
