"""A benchmark from a corpus' attributes: what is written is read and measured, and the same comes again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.queries.formats import read_queries
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.vocabulary import Vocabulary
from jobs.evaluate import main as evaluate
from jobs.make_queries import main
from tests.support.bundles import publish_vectors
from tests.support.commands import run_command
from tests.support.corpora import jsonl, run_import

N = 40


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Cars of two colours and three ages, and ten fruits, of which too few are of a kind."""
    entities = [
        {
            "name": f"car {i}",
            "attributes": {"class": ["cars"], "colour": [("red", "blue")[i % 2]], "age": [str(i % 3)]},
        }
        for i in range(N - 10)
    ]
    entities += [
        {"name": f"fruit {i}", "attributes": {"class": ["fruits"], "kind": [str(i)]}} for i in range(10)
    ]
    jsonl(tmp_path / "raw/entities.jsonl", entities)
    jsonl(
        tmp_path / "raw/sentences.jsonl",
        [{"entity": one["name"], "sentence": f"A {one['name']} is here."} for one in entities],
    )
    run_import(tmp_path / "w", tmp_path / "raw", "jsonl")
    return tmp_path


def make(root: Path, *extra: object) -> int:
    return run_command(main, "--workspace", root / "w", "--output", root / "made", *extra)


def test_what_is_made_is_read_and_measured(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(corpus) == 0
    told = capsys.readouterr()
    assert "fine_classes=2 " in told.out
    assert "fruits: no ultra-fine class: too few entities of any two conditions" in told.err
    names = [*(f"car {i}" for i in range(N - 10)), *(f"fruit {i}" for i in range(10))]
    found = read_queries(Store.open(corpus / "made/query"), Vocabulary(names))
    assert not found.refused
    assert not found.missing
    assert {one.label for one in found.queries} == {"cars"}
    for one in found.queries:
        assert one.positive.size > 0
        assert not set(one.query.positive) & (one.positive.ids | one.negative.ids)
    vectors = np.random.default_rng(0).normal(size=(N, 4))
    publish_vectors(Workspace.open(corpus / "w"), names, {"mask": vectors})
    asked = ("--workspace", corpus / "w", "--queries", corpus / "made/query", "--method", "retexpan")
    assert run_command(evaluate, *asked) == 0
    assert f"queries={len(found.queries)}" in capsys.readouterr().out


def test_the_same_input_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    assert make(corpus) == 0
    first = {file.name: file.read_bytes() for file in (corpus / "made").rglob("*") if file.is_file()}
    assert make(corpus) == 2
    assert make(corpus, "--overwrite") == 0
    assert {f.name: f.read_bytes() for f in (corpus / "made").rglob("*") if f.is_file()} == first
    assert make(corpus, "--overwrite", "--seed", 14) == 0
    assert (corpus / "made/query/cars.json").read_bytes() != first["cars.json"]


def test_statistics_and_agreement_are_told(corpus: Path) -> None:
    labels = corpus / "labels.csv"
    rows = [f"car {i},colour,{who},{('red', 'blue')[i % 2]}" for i in range(4) for who in "abc"]
    rows[0] = "car 0,colour,a,blue"
    labels.write_text("entity,attribute,annotator,value\n" + "\n".join(rows) + "\n", encoding="utf-8")
    assert make(corpus, "--annotations", labels, "--per-class", 0, "--attribute", "colour") == 0
    told = json.loads((corpus / "made/statistics.json").read_text(encoding="utf-8"))
    assert told["ultra_fine_classes"] == 2
    assert told["attribute_counts"] == {"1, 1": 2}
    assert told["positive_entities"] == 15.0
    # Three pairs of six agree fully, one in a third; 5 of 12 say red, 7 blue.
    agreement, chance = (3 + 1 / 3) / 4, (5 / 12) ** 2 + (7 / 12) ** 2
    kappa = (agreement - chance) / (1 - chance)
    assert told["agreement"] == {"colour": {"items": 4, "annotators": 3, "kappa": round(kappa, 4)}}
    page = (corpus / "made/report.md").read_text(encoding="utf-8")
    assert "| cars | 30 | 2 | colour |" in page
    assert f"| colour | 4 | 3 | {kappa:.3f} |" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fine-class", "ships"], "--fine-class ships: not in this corpus; it has cars, fruits"),
        (["--attribute", "size"], "--attribute size: not in this corpus; it has age, colour, kind"),
        (["--least", "40"], "no two conditions of a fine class have 40 entities each"),
        (["--seeds-most", "6"], "--seeds-least 3, --seeds-most 6, --least 6: each must be less"),
    ],
)
def test_mistakes(corpus: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(corpus, *words) == 2
    assert said in capsys.readouterr().err
    assert not (corpus / "made").exists()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["car 0,colour,a,red", "car 0,colour,a,red"], "line 3: a judged colour of 'car 0' before"),
        (["car 0,colour,a,red"], "colour of 'car 0' has 1 annotators"),
        (["car 0,colour,a,"], "line 2: value must be a text, not null"),
        ([], "no annotation in it"),
    ],
)
def test_annotations_that_cannot_be_compared(
    corpus: Path, rows: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = corpus / "labels.csv"
    labels.write_text("\n".join(["entity,attribute,annotator,value", *rows]) + "\n", encoding="utf-8")
    assert make(corpus, "--annotations", labels) == 2
    assert said in capsys.readouterr().err


def test_without_classes_all_entities_are_one(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(corpus, "--class-attribute", "sort", "--attribute", "colour") == 0
    assert "fine_classes=1 ultra_fine_classes=2" in capsys.readouterr().out
    assert (corpus / "made/query/all.json").exists()
