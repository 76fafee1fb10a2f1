"""The choice of images as a user runs it, into a corpus; and on Ray."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.images.selection import results
from engine.images.selection.settings import SelectionSettings
from jobs.choose_images import main
from jobs.steps import image_selection
from jobs.steps.image_selection import choose_images
from tests.support import choice_models
from tests.support.commands import run_command
from tests.support.corpora import run_import
from tests.support.executors import LastFirst
from tests.support.images import image_bytes


def found_images(folder: Path) -> Path:
    """Write a table of five records, one of which cannot be used, and their images; return its file."""
    folder.mkdir()
    for colour in ("red", "blue"):
        (folder / f"{colour}.png").write_bytes(image_bytes(colour))
    both = ["red.png", "blue.png", "missing.png"]
    records = [
        {"entity": "iron", "sentence": f"iron is number {i} .", "candidates": both, "typical": "red.png"}
        for i in range(3)
    ]
    records += [{"entity": "gold", "sentence": "gold has no picture ."}, {"entity": "tin"}]
    (folder / "found.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder / "found.jsonl"


def test_from_a_table_to_a_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, output = found_images(tmp_path / "raw"), tmp_path / "out"
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


def test_sentences_that_clip_does_not_know_are_refused(tmp_path: Path) -> None:
    table = found_images(tmp_path / "raw")
    table.write_bytes(table.read_bytes().replace(b" is number", "は鉄の数です".encode()))
    with pytest.raises(UserError, match=r"--clip .*/clip: .*% of the tokens of 4 sentences .* name a CLIP"):
        choose_images(
            str(table), str(tmp_path / "out"), SelectionSettings(clip=choice_models.clip(tmp_path / "clip"))
        )


class BlindWorker(results.SelectionWorker):
    """A worker on a node without the disk that the images are on."""

    def __call__(self, part: str) -> Counter[str]:
        records = self._folder.records(part)
        records.write_bytes(records.read_bytes().replace(b"/raw/", b"/nowhere/"))
        counts = super().__call__(part)
        quarantine = self._folder.quarantine(f"part-{part}.jsonl")
        quarantine.write_bytes(quarantine.read_bytes().replace(b"/nowhere/", b"/raw/"))
        return counts


def test_candidates_that_a_node_does_not_see_are_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, output = str(found_images(tmp_path / "raw")), tmp_path / "out"
    settings = SelectionSettings(clip=choice_models.clip(tmp_path / "clip"))
    with monkeypatch.context() as patched:
        patched.setattr(image_selection, "SelectionWorker", BlindWorker)
        with pytest.raises(UserError, match=r"red\.png: this image is there, and was not where a worker"):
            choose_images(table, str(output), settings, executor=LastFirst())
    assert not list((output / "sentences").glob("part-*")), "what it made is removed"
    _, counts, made = choose_images(table, str(output), settings, executor=LastFirst())
    assert (made, counts["chosen"], counts["images_refused"]) == (1, 3, 3)
    (tmp_path / "raw" / "missing.png").write_bytes(image_bytes("green"))
    _, counts, made = choose_images(table, str(output), settings, executor=LastFirst())
    assert (made, counts["images_refused"]) == (1, 0), "an image that has come is looked at"


class FailingWorker(results.SelectionWorker):
    """A worker that ends before it has made a part."""

    def __call__(self, part: str) -> Counter[str]:
        raise UserError("there is not enough memory")


def test_work_that_fails_after_an_image_has_come_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, output = str(found_images(tmp_path / "raw")), str(tmp_path / "out")
    settings = SelectionSettings(clip=choice_models.clip(tmp_path / "clip"))
    choose_images(table, output, settings, executor=LastFirst())
    (tmp_path / "raw" / "missing.png").write_bytes(image_bytes("green"))
    monkeypatch.setattr(image_selection, "SelectionWorker", FailingWorker)
    with pytest.raises(UserError, match="not enough memory"):
        choose_images(table, output, settings, executor=LastFirst())
