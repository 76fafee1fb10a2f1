"""The choice of images as a user runs it, on a small Ray, into a corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.choose_images import main
from tests.support import choice_models
from tests.support.commands import run_command
from tests.support.corpora import run_import
from tests.support.images import picture

pytestmark = pytest.mark.slow


def test_from_a_table_to_a_corpus(
    tmp_path: Path, ray_local: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raw").mkdir()
    for colour in ("red", "blue"):
        (tmp_path / "raw" / f"{colour}.png").write_bytes(picture(colour))
    both = ["red.png", "blue.png", "missing.png"]
    records = [
        {"entity": "iron", "sentence": f"iron is number {i} .", "candidates": both, "typical": "red.png"}
        for i in range(3)
    ]
    records += [{"entity": "gold", "sentence": "gold has no picture ."}, {"entity": "tin"}]
    table, output = tmp_path / "raw" / "found.jsonl", tmp_path / "out"
    table.write_text("".join(json.dumps(r) + "\n" for r in records))
    words = ["--table", table, "--output", output, "--workers", 1]
    clip = choice_models.clip(tmp_path / "clip")
    assert run_command(main, *words, "--clip", clip, "--alpha", 0) == 0
    last = dict(pair.split("=", 1) for pair in capsys.readouterr().out.split())
    assert {k: last[k] for k in ("records", "records_refused", "chosen", "without_image")} == {
        "records": "4",
        "records_refused": "1",
        "chosen": "3",
        "without_image": "1",
    }
    assert (last["images_scored"], last["images_refused"]) == ("6", "3")
    got = run_import(tmp_path / "w", output, "jsonl")
    assert got.manifest.counts.mentions == 4
    assert got.manifest.counts.images == 3
    assert run_command(main, *words, "--clip", clip, "--alpha", 0) == 0
    assert "parts_made=0 parts_kept=1" in capsys.readouterr().out
