"""The sample data set: what its readers rely on must hold for every entity and query."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from examples.make_sample import main, write_sample
from examples.phrases import countries, elements, instruments, presidents, solar_system
from examples.sentences import find_mention
from examples.tables import attribute_names, load_classes, load_table, with_article

Record = dict[str, Any]
MAX_TOLD = 0.6


def read_lines(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    assert main(["--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def entities(sample: Path) -> dict[str, Record]:
    records = read_lines(sample / "entities.jsonl")
    found = {record["name"]: record for record in records}
    assert len(found) == len(records), "an entity is written twice"
    return found


@pytest.fixture(scope="module")
def sentences(sample: Path) -> list[Record]:
    return read_lines(sample / "sentences.jsonl")


@pytest.fixture(scope="module")
def queries(sample: Path) -> dict[str, list[Record]]:
    paths = sorted((sample / "queries").glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def test_sizes(entities: dict[str, Record], sentences: list[Record]) -> None:
    classes = Counter(record["attributes"]["class"][0] for record in entities.values())
    counts = Counter(record["entity"] for record in sentences)
    assert len(entities) >= 400
    assert len(classes) >= 5
    assert min(classes.values()) >= 40
    assert set(counts) == set(entities)
    assert min(counts.values()) >= 6
    assert sum(counts.values()) / len(counts) >= 8


def test_names_differ_even_without_case(entities: dict[str, Record]) -> None:
    names = Counter(name.casefold() for name in entities)
    assert [name for name, count in names.items() if count > 1] == []
    for name, record in entities.items():
        assert name not in record["aliases"]
        taken = [alias for alias in record["aliases"] if alias.casefold() in names]
        assert taken in ([], [name.casefold()]), name


def test_attributes_are_those_of_the_class(entities: dict[str, Record]) -> None:
    for name, record in entities.items():
        attributes = record["attributes"]
        (cls,) = attributes["class"]
        allowed = {"class", *attribute_names(cls)}
        assert set(attributes) <= allowed, name
        assert len(attributes) >= 2, f"{name} has no attribute to ask for"
        assert all(values and all(values) for values in attributes.values()), name


def test_descriptions_are_sentences(entities: dict[str, Record]) -> None:
    for name, record in entities.items():
        text = record["description"]
        assert re.fullmatch(r"[^\W\d_].*\.", text), name
        assert text[0].isupper(), name
        assert find_mention(name, text) is not None, name


def test_mentions_are_exact(sentences: list[Record]) -> None:
    for record in sentences:
        text, name = record["sentence"], record["entity"]
        assert text[record["start"] : record["end"]] == name
        assert len(re.findall(rf"(?<!\w){re.escape(name)}(?!\w)", text)) == 1, text


def test_mentions_stand_at_all_places(sentences: list[Record]) -> None:
    places = Counter(round(2 * r["start"] / max(1, len(r["sentence"]))) for r in sentences)
    assert min(places[0], places[1], places[2]) / len(sentences) > 0.1


def test_sentences_are_unique_and_well_formed(sentences: list[Record]) -> None:
    texts = [record["sentence"] for record in sentences]
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert 6 <= len(text.split()) <= 45, text
        assert text[0].isupper() or text[0].isdigit(), text
        assert text[-1] in ".?", text
        assert not re.search(r"  | [,.;:?]|\.\.|[{}]|\bthe the\b|\ba [aeio]\w", text), text


def test_no_bare_wording_dominates(sentences: list[Record], entities: dict[str, Record]) -> None:
    frames: dict[str, Counter[str]] = defaultdict(Counter)
    for record in sentences:
        (cls,) = entities[record["entity"]]["attributes"]["class"]
        opening = record["sentence"].replace(record["entity"], "X").split()[:4]
        frames[cls][" ".join(opening)] += 1
    for cls, counter in frames.items():
        frame, count = counter.most_common(1)[0]
        assert count <= 0.08 * counter.total(), (cls, frame)


def telling_words(cls: str, name: str, attr: str, value: str) -> list[str]:
    """The value and everything else that the class file says gives it away."""
    entry: Record = load_classes()[cls]
    row = load_table(cls)[name]
    cells = [row[column] for column in entry["told_by_column"].get(attr, [])]
    words = entry["told_by_words"].get(attr, {}).get(value, [])
    return [word for word in [value, *cells, *words] if word]


def test_no_attribute_is_told_in_most_sentences(entities: dict[str, Record], sentences: list[Record]) -> None:
    texts: dict[str, list[str]] = defaultdict(list)
    for record in sentences:
        texts[record["entity"]].append(record["sentence"].replace(record["entity"], "it"))
    told_at_all = 0
    for name, record in entities.items():
        (cls,) = record["attributes"]["class"]
        for attr in attribute_names(cls):
            for value in record["attributes"].get(attr, []):
                words = "|".join(map(re.escape, telling_words(cls, name, attr, value)))
                pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)
                told = sum(bool(pattern.search(text)) for text in texts[name])
                assert told <= MAX_TOLD * len(texts[name]), (name, attr, value, told)
                told_at_all += told > 0
    assert told_at_all > 0.8 * 2 * len(entities), "the telling words no longer match the texts"


def test_every_kind_of_fact_has_ten_wordings() -> None:
    for module in (countries, elements, instruments, presidents, solar_system):
        for kind in module.PLAN:
            if kind.startswith("note"):
                continue
            own = [k for k in module.KINDS if k == kind or k.startswith(f"{kind}=")]
            wordings = [template for k in own for template in module.KINDS[k]]
            assert len(wordings) >= 10, (module.__name__, kind)
            assert len(set(wordings)) == len(wordings), (module.__name__, kind)


def test_output_is_the_same_on_every_run(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path)
    first = {p.relative_to(sample): p.read_bytes() for p in sample.rglob("*") if p.is_file()}
    again = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert first == again


def test_query_counts(queries: dict[str, list[Record]]) -> None:
    assert set(queries) == set(load_classes())
    seen: set[str] = set()
    for cls, items in queries.items():
        groups = Counter(query["group_id"] for query in items)
        assert 8 <= len(groups) <= 15, cls
        assert set(groups.values()) == {3}, cls
        ids = {query["query_id"] for query in items}
        assert len(ids) == len(items)
        assert not ids & seen
        seen |= ids


def holders(entities: dict[str, Record], cls: str, condition: dict[str, str]) -> set[str]:
    """The entities that meet a condition, worked out anew from the written file."""
    return {
        name
        for name, record in entities.items()
        if cls in record["attributes"]["class"]
        and all(value in record["attributes"].get(attr, []) for attr, value in condition.items())
    }


def test_query_invariants(queries: dict[str, list[Record]], entities: dict[str, Record]) -> None:
    for cls, items in queries.items():
        for query in items:
            pos = holders(entities, cls, query["pos_attrs"])
            neg = holders(entities, cls, query["neg_attrs"])
            pos_seeds, neg_seeds = set(query["pos_seeds"]), set(query["neg_seeds"])
            where = query["query_id"]
            assert where.startswith(f"{cls}-{query['group_id']:03d}-")
            assert 3 <= len(query["pos_seeds"]) == len(pos_seeds) <= 5, where
            assert 3 <= len(query["neg_seeds"]) == len(neg_seeds) <= 5, where
            assert pos_seeds <= pos - neg, where
            assert neg_seeds <= neg - pos, where
            assert set(query["pos_gt"]) == pos - neg - pos_seeds, where
            assert set(query["neg_gt"]) == neg - neg_seeds, where
            assert min(len(query["pos_gt"]), len(query["neg_gt"])) >= 5, where
            assert len(set(query["pos_gt"])) == len(query["pos_gt"]), where


def test_queries_of_a_group_share_conditions_not_seeds(queries: dict[str, list[Record]]) -> None:
    for items in queries.values():
        groups: dict[int, list[Record]] = defaultdict(list)
        for query in items:
            groups[query["group_id"]].append(query)
        for group in groups.values():
            assert len({json.dumps([q["pos_attrs"], q["neg_attrs"]]) for q in group}) == 1
            assert len({(*q["pos_seeds"], *q["neg_seeds"]) for q in group}) == len(group)


def test_both_kinds_of_conditions_occur(queries: dict[str, list[Record]]) -> None:
    for cls, items in queries.items():
        same = [q for q in items if set(q["pos_attrs"]) == set(q["neg_attrs"])]
        other = [q for q in items if set(q["pos_attrs"]) != set(q["neg_attrs"])]
        assert same, cls
        assert other, cls


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("violin", "a violin"),
        ("oboe", "an oboe"),
        ("ukulele", "a ukulele"),
        ("euphonium", "a euphonium"),
        ("actinide", "an actinide"),
        ("emir", "an emir"),
        ("English horn", "an English horn"),
        ("irregular moon", "an irregular moon"),
    ],
)
def test_articles(noun: str, expected: str) -> None:
    assert with_article(noun) == expected


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "python -m examples.make_sample --output" in capsys.readouterr().out


def test_one_class_alone_is_written_without_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output", str(tmp_path / "one"), "--class", "countries"]) == 0
    names = {
        json.loads(line)["name"] for line in (tmp_path / "one" / "entities.jsonl").open(encoding="utf-8")
    }
    sentences = [json.loads(line) for line in (tmp_path / "one" / "sentences.jsonl").open(encoding="utf-8")]
    assert {one["entity"] for one in sentences} <= names
    assert not any("image" in one for one in sentences)
    assert [file.name for file in (tmp_path / "one" / "queries").iterdir()] == ["countries.json"]
    assert f"{len(names)} entities, {len(sentences)} sentences" in capsys.readouterr().out
