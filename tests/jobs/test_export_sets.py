"""Test `seedset export --answers`: sets that a batch expansion found, as files that are read again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from engine.catalogue.opening import open_catalogue
from engine.queries.answer_table import Labels, Result, labels_of
from engine.queries.results import ExpansionFolder, RunDescription
from engine.query import Expansion, Query, Ranking
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from jobs.export import main
from jobs.steps.set_export import file_name
from tests.support.bundles import method_bundle
from tests.support.commands import run_command
from tests.support.corpora import jsonl, run_import

NAMES = ["Japan", "=SUM(1)", "Norway", "Thailand"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("work"), names=NAMES, d=4)


@pytest.fixture(scope="module")
def answers(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers to three queries in two parts: with a proposed set, without any entity, and a plain one."""
    noted = {"probability": np.array([0.9, 0.5, 0.1], np.float32)}
    ranking = Ranking(np.array([1, 3, 0], np.int32), np.array([3, 2, 1], np.float32), noted)
    nothing = Ranking(np.zeros(0, np.int32), np.zeros(0, np.float32))
    plain = Ranking(np.array([2], np.int32), np.array([-0.5], np.float32))
    found = [
        Expansion(Query("../q 1", (0,)), ranking, counts={"proposed": 2}),
        Expansion(Query("q2", (0,)), nothing, degraded=("Retrieve: no vector",)),
        Expansion(Query("q3", (0,)), plain),
    ]
    labels: Labels = labels_of(bundle.vocabulary, open_catalogue(bundle))
    folder = tmp_path_factory.mktemp("answers")
    run = RunDescription(
        method="default", pipeline="p", bundle=bundle.id, queries_digest="d", queries=3, part_size=2
    )
    output = ExpansionFolder(Store.open(folder))
    output.begin(run, overwrite=False)
    for part, place in run.parts.items():
        output.write_part(part, [Result(one) for one in found[place]], labels)
    output.finish(run, [])
    return folder


def words(bundle: Bundle, answers: Path, output: Path, *more: object) -> list[object]:
    workspace = bundle.folder.parent.parent
    return ["--workspace", workspace, "--answers", answers, "--output", output, *more]


def test_each_query_is_a_file(
    bundle: Bundle, answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, *words(bundle, answers, tmp_path)) == 0
    printed = capsys.readouterr()
    assert "sets=3" in printed.out
    assert "1 queries have no answer" in printed.err
    assert "Retrieve: no vector" in printed.err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["%2E.%2Fq 1.csv", "q2.csv", "q3.csv"]
    with (tmp_path / "%2E.%2Fq 1.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["name"]) for row in rows] == [
        ("1", "'=SUM(1)"),
        ("2", "Thailand"),
        ("3", "Japan"),
    ]
    assert [row["probability"] for row in rows] == ["0.899999976", "0.5", "0.100000001"]
    assert rows[1]["description"] == "The odd one of number 3."
    assert run_command(main, *words(bundle, answers, tmp_path)) == 2
    assert "is there already; give --overwrite" in capsys.readouterr().err
    assert run_command(main, *words(bundle, answers, tmp_path, "--overwrite")) == 0


def test_lines_and_tables_are_entities_of_an_import(bundle: Bundle, answers: Path, tmp_path: Path) -> None:
    for kind in ("jsonl", "csv"):
        output = tmp_path / kind
        assert run_command(main, *words(bundle, answers, output, "--format", kind, "--query", "q3")) == 0
        (output / f"q3.{kind}").rename(output / f"entities.{kind}")
        jsonl(output / "sentences.jsonl", [{"entity": "Norway", "sentence": "Norway is cold."}])
        imported = run_import(tmp_path / f"work-{kind}", output, "auto")
        assert imported.quarantine == []
        (entity,) = imported.entities
        assert (entity["name"], entity["description"]) == ("Norway", "The even one of number 2.")
        assert entity["attributes"]["parity"] == ["even"]


def test_the_proposed_set_alone(
    bundle: Bundle, answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--format", "patterns", "--proposed", "--query", "../q 1", "--label", "country")
    assert run_command(main, *words(bundle, answers, tmp_path, *more)) == 0
    lines = (tmp_path / "%2E.%2Fq 1.patterns.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"label": "country", "pattern": "=SUM(1)"},
        {"label": "country", "pattern": [{"lower": "thailand"}]},
    ]
    assert run_command(main, *words(bundle, answers, tmp_path, "--proposed", "--query", "q3")) == 2
    assert "'q3' proposes no set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--query", "q4"), "no query has the id 'q4'"),
        (("--format", "skos"), "such as https://example.org/things/"),
        (("--bundle", "0123"), "not of 0123"),
    ],
)
def test_what_cannot_be_is_refused(
    bundle: Bundle,
    answers: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    message: str,
) -> None:
    assert run_command(main, *words(bundle, answers, tmp_path, *more)) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_options_of_sets_need_answers(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--workspace", bundle.folder.parent.parent, "--output", tmp_path / "o", "--proposed"]
    assert run_command(main, *given) == 2
    assert "--proposed is of sets" in capsys.readouterr().err


def test_no_two_queries_share_a_file() -> None:
    long = ["a" * 500, "a" * 499 + "b", "a/b", "a%2Fb", "..", "."]
    names = [file_name(one, "csv") for one in long]
    assert len(set(names)) == len(names)
    assert all("/" not in name and not name.startswith(".") and len(name) < 200 for name in names)
