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
from jobs.import_corpus import main as import_corpus
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
        (["--class-attribute", "sort", "--hard-negatives", "2"], "every entity of the corpus is of a class"),
        (["--hard-negatives", "-1"], "--hard-negatives -1: give a whole number, at least 0"),
        (["--seeds-most", "6"], "--seeds-least 3, --seeds-most 6, --least 6: each must be less"),
    ],
)
def test_mistakes(corpus: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(corpus, *words) == 2
    assert said in capsys.readouterr().err
    assert not (corpus / "made").exists()


def vocabulary(root: Path) -> list[dict]:
    text = (root / "made/vocabulary.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_texts_that_memory_does_not_hold_are_refused_before_they_are_read(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.steps.query_vocabulary.memory_limit", lambda: 10_000)
    assert make(corpus, "--hard-negatives", 3) == 2
    assert "or leave this option out" in capsys.readouterr().err
    assert not (corpus / "made").exists()


def test_hard_negatives_are_imported_beside_the_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of six that are of no class three share rare words with a car; "the" alone makes nobody the best."""
    cars: list[dict] = [
        {"name": f"car {i}", "attributes": {"class": ["cars"], "colour": [("red", "blue")[i % 2]]}}
        for i in range(20)
    ]
    others = {
        "truck": "The truck has wheels and an engine.",
        "rose": "The rose is a flower.",
        "van": "The van has wheels.",
        "tulip": "The tulip is a flower.",
        "bus": "The bus has wheels.",
        "fern": "Green.",
    }
    entities = [*({"name": name} for name in others), *cars]
    sentences = [{"entity": name, "sentence": text} for name, text in others.items()]
    sentences += [{"entity": one["name"], "sentence": f"The {one['name']} has wheels."} for one in cars]
    sentences[-1]["sentence"] = "The car 19 has an engine."
    jsonl(tmp_path / "raw/entities.jsonl", entities)
    jsonl(tmp_path / "raw/sentences.jsonl", sentences)
    run_import(tmp_path / "w", tmp_path / "raw", "jsonl")
    assert make(tmp_path, "--hard-negatives", 2) == 0
    told = vocabulary(tmp_path)
    # Each car finds the two short ones with wheels, the last one the truck and its engine before them.
    assert [one["name"] for one in told] == ["truck", "van", "bus", *(f"car {i}" for i in range(20))]
    assert [one.get("near") for one in told[:4]] == ["car 19", "car 0", "car 0", None]
    assert told[1]["bm25"] == told[2]["bm25"] > 0
    assert told[3] == cars[0]
    statistics = json.loads((tmp_path / "made/statistics.json").read_text(encoding="utf-8"))
    sizes = {"entities": 23, "of_classes": 20, "hard_negatives": 3, "pool": 6}
    assert statistics["vocabulary"] == sizes
    assert "| of them hard negatives, by BM25 | 3 |" in (tmp_path / "made/report.md").read_text(
        encoding="utf-8"
    )
    table = ("--entities", tmp_path / "made/vocabulary.jsonl")
    source = ("--source", tmp_path / "raw/sentences.jsonl")
    assert run_command(import_corpus, "--workspace", tmp_path / "w2", *source, *table) == 0
    assert "entities=23" in capsys.readouterr().out
    read = Vocabulary.read(Path(Workspace.open(tmp_path / "w2").entities.path))
    assert read.names == [one["name"] for one in told]
    assert not read_queries(Store.open(tmp_path / "made/query"), read).missing


def test_the_same_vocabulary_comes_again_and_an_old_one_goes(corpus: Path) -> None:
    assert make(corpus, "--hard-negatives", 3) == 0
    first = (corpus / "made/vocabulary.jsonl").read_bytes()
    # Fruits are a class without queries: they are of no class that is asked for.
    assert {one["name"].split()[0] for one in vocabulary(corpus) if "near" in one} == {"fruit"}
    assert make(corpus, "--hard-negatives", 3, "--overwrite") == 0
    assert (corpus / "made/vocabulary.jsonl").read_bytes() == first
    assert make(corpus, "--overwrite") == 0
    assert not (corpus / "made/vocabulary.jsonl").exists()


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
