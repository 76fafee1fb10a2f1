"""How rates and costs are taken, without a cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer

from benchmarks.cluster_scaling import EXAMPLES, main, rate_of, show, write_corpus
from engine.errors import UserError


def test_the_examples_of_the_help_are_taken() -> None:
    app = typer.Typer()
    app.command()(main)
    examples = EXAMPLES.strip().splitlines()
    assert len(examples) == 2
    for example in examples:
        _, _, _, *options = example.split()
        typer.main.get_command(app).make_context("benchmark", options)


def test_a_rate_is_from_the_first_part_to_the_last(tmp_path: Path) -> None:
    parts = [tmp_path / name for name in "abc"]
    for part, at in zip(parts, (1014.0, 1010.0, 1012.0), strict=True):
        part.touch()
        os.utime(part, (at, at))
    assert rate_of(parts) == 0.5
    with pytest.raises(UserError, match="2 parts tell no rate"):
        rate_of(parts[:2])


def test_the_corpus_is_one_that_import_reads(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", 400)
    sentences = pq.read_table(tmp_path / "corpus" / "sentences.parquet").to_pylist()
    assert len(sentences) == 400
    assert all(row["entity"].lower() in row["sentence"].lower() for row in sentences)
    assert pq.read_table(tmp_path / "corpus" / "entities.parquet").num_rows == 10


@pytest.mark.parametrize(
    ("batch", "preprocess", "dear", "holds"),
    [(1.8, 1.7, 3.2, True), (1.6, 1.7, 3.2, False), (1.8, 1.5, 3.2, False), (1.8, 1.7, 4.0, False)],
)
def test_the_bars(
    batch: float, preprocess: float, dear: float, holds: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    show({"batch": [2.0, 2 * batch], "preprocess": [1.0, preprocess]}, {1000: 0.003, 100_000: dear / 1000})
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["holds"] is holds
    assert figures["spread"] == pytest.approx(dear / 3, abs=1e-3)
