"""A dump of Wikidata to a table of entities that `link` and `import` read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.importing.importer import ImportSettings, import_corpus
from engine.corpus.importing.source import ImportSource
from engine.corpus.readers.row_files import RowFile
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.vocabulary import Vocabulary
from jobs.link import main as link
from jobs.read_wikidata import main
from jobs.steps import wikidata_table
from jobs.steps.wikidata_table import DumpSettings, DumpTable
from tests.support.commands import run_command
from tests.support.corpora import jsonl
from tests.support.wikidata import entity, item, statement, write_dump

LENGTH = statement({"type": "quantity", "value": {"amount": "+12.5", "unit": "http://w.example/entity/Q901"}})

DUMP = [
    entity("P30", "on continent"),
    entity(
        "Q1",
        "Mira",
        aliases=["Lake Mira", "Mira (lake)"],
        description="A lake in the north.",
        title="Mira (lake)",
        claims={"P31": [item(900)], "P30": [item(50)], "P5": [LENGTH]},
    ),
    entity("Q2", "Mira", title="Mira Town", claims={"P31": [item(900, "deprecated"), item(902)]}),
    entity("Q3", "Mira", claims={"P31": [item(900)], "P30": [item(50), item(51)]}),
    entity("Q4", "Vessel Tarn", title="Vessel Tarn", claims={"P31": [item(900)]}),
    entity("Q5", {"de": "Nur Deutsch"}, claims={"P31": [item(900)]}),
    entity("Q6", {"mul": "Anywhere"}, claims={"P31": [item(900)], "P30": [statement("somevalue")]}),
    {"type": "lexeme", "id": "L1"},
    entity("Q50", "Northland"),
    entity("Q900", "lake"),
    entity("Q901", "kilometre"),
    entity("Q902", "town"),
]


def read(root: Path, *words: object, dump: Path | None = None) -> int:
    file = dump or root / "dump.json"
    if not file.exists():
        write_dump(file, DUMP)
    return run_command(main, "--dump", file, "--output", root / "out", *words)


LAKES = ("--instance-of", "Q900", "--attribute", "P31=class", "--attribute", "P30", "--attribute", "P5=long")


def table(root: Path) -> dict[str, dict[str, Any]]:
    found = pq.read_table(root / "out" / "entities.parquet").to_pylist(maps_as_pydicts="strict")
    return {row.pop("name"): row for row in found}


def test_a_table_of_a_class_with_aliases_and_attributes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(tmp_path, *LAKES) == 0
    told = capsys.readouterr()
    assert "entities=4 read=10 refused=0" in told.out
    assert "left out: 5 × no instance of Q900; 1 × no label in en; 1 × neither item nor property" in told.err
    assert "2 entities have a label that others have too: named by title or id" in told.err
    assert "1 of 4 entities that attributes name have no label in en here: written as their ids" in told.err
    assert table(tmp_path) == {
        "Mira (lake)": {
            "aliases": ["Mira", "Lake Mira"],
            "description": "A lake in the north.",
            "attributes": {"class": ["lake"], "on continent": ["Northland"], "long": ["12.5 kilometre"]},
            "id": "Q1",
            "title": "Mira (lake)",
        },
        "Mira (Q3)": {
            "aliases": ["Mira"],
            "description": None,
            "attributes": {"class": ["lake"], "on continent": ["Northland", "Q51"]},
            "id": "Q3",
            "title": None,
        },
        "Vessel Tarn": {
            "aliases": [],
            "description": None,
            "attributes": {"class": ["lake"]},
            "id": "Q4",
            "title": "Vessel Tarn",
        },
        "Anywhere": {
            "aliases": [],
            "description": None,
            "attributes": {"class": ["lake"]},
            "id": "Q6",
            "title": None,
        },
    }


def test_link_and_import_read_the_table(tmp_path: Path) -> None:
    """As a file, and as the folder with what is refused beside it."""
    assert read(tmp_path, *LAKES) == 0
    texts = jsonl(
        tmp_path / "t.jsonl", [{"text": "Boats cross Lake Mira. A tarn, [[Mira (lake)|it]], is far."}]
    )
    for entities in (tmp_path / "out", tmp_path / "out" / "entities.parquet"):
        words = ("--entities", entities, "--texts", texts, "--output", tmp_path / "linked", "--workers", 1)
        assert run_command(link, *words) == 0
        assert run_command(link, *words, "--markup", "wikitext") == 0
    sentences = jsonl(tmp_path / "s.jsonl", [{"entity": "Vessel Tarn", "sentence": "Vessel Tarn is deep."}])
    place = Workspace.open(tmp_path / "w")
    source = ImportSource(str(sentences), entities=str(tmp_path / "out"))
    assert import_corpus(place, source, ImportSettings(strict=True)).counts.entities == 4
    vocabulary = Vocabulary.read(Path(place.entities.path))
    assert vocabulary.names == ["Mira (lake)", "Mira (Q3)", "Vessel Tarn", "Anywhere"]


def test_languages_come_in_order_and_the_site_follows(tmp_path: Path) -> None:
    dump = [
        entity("Q1", {"en": "Lake", "de": "See"}),
        entity("Q2", {"en": "Tarn"}),
        entity("Q3", {"fr": "Lac"}),
    ]
    dump[0]["sitelinks"] = {"dewiki": {"title": "See (Gewässer)"}, "enwiki": {"title": "Lake"}}
    write_dump(tmp_path / "dump.json", dump)
    assert read(tmp_path, "--language", "de", "--language", "en") == 0
    assert {name: row["title"] for name, row in table(tmp_path).items()} == {
        "See": "See (Gewässer)",
        "Tarn": None,
    }
    assert read(tmp_path, "--overwrite", "--with-page") == 0
    assert {name: row["title"] for name, row in table(tmp_path).items()} == {"Lake": "Lake"}
    assert (
        read(
            tmp_path, "--overwrite", "--with-page", "--site", "dewiki", "--language", "fr", "--language", "en"
        )
        == 0
    )
    assert {name: row["title"] for name, row in table(tmp_path).items()} == {"Lake": "See (Gewässer)"}


def test_lines_that_cannot_be_read_are_in_quarantine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = entity("Q8", "Eight") | {"aliases": 5}
    dump = [DUMP[1], "{broken", {"id": 5}, wrong, entity("Q9", "x" * 600), entity("Q7", "Se\x00ven"), DUMP[1]]
    write_dump(tmp_path / "dump.json", dump)
    assert read(tmp_path) == 0
    told = capsys.readouterr()
    assert "entities=2 read=5 refused=5" in told.out
    assert "left out: 1 × a second time the same id" in told.err
    assert list(table(tmp_path)) == ["Mira", "Eight"]
    lines = (tmp_path / "out" / "_refused.jsonl").read_text(encoding="utf-8").splitlines()
    found = [
        (one["position"].partition(",")[0], one["code"], one["reason"]) for one in map(json.loads, lines)
    ]
    assert [one[:2] for one in found] == [
        ("line 3", "not_json"),
        ("line 4", "wrong_type"),
        ("line 5", "wrong_type"),
        ("line 6", "text_too_long"),
        ("line 7", "text_control_character"),
    ]
    assert found[2][2] == "Q8: aliases must be an object, not a number"
    assert (tmp_path / "out" / "_manifest.json").exists()
    assert read(tmp_path, "--strict", "--overwrite") == 2
    assert "5 lines or details were refused, and --strict allows none; see" in capsys.readouterr().err
    assert not (tmp_path / "out" / "_manifest.json").exists()


def test_a_dump_that_is_cut_off_is_read_up_to_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = write_dump(tmp_path / "whole.json", DUMP).read_bytes()
    (tmp_path / "dump.json").write_bytes(text[: len(text) // 2])
    assert read(tmp_path) == 0
    assert "refused=1" in capsys.readouterr().out
    assert "file_cut_off" in (tmp_path / "out" / "_refused.jsonl").read_text(encoding="utf-8")


def test_the_same_dump_gives_the_same_bytes_also_compressed_and_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(tmp_path, *LAKES) == 0
    first = (tmp_path / "out" / "entities.parquet").read_bytes()
    (tmp_path / "dump.json.gz").write_bytes(gzip.compress((tmp_path / "dump.json").read_bytes()))
    assert read(tmp_path, *LAKES, "--overwrite", dump=tmp_path / "dump.json.gz") == 0
    assert (tmp_path / "out" / "entities.parquet").read_bytes() == first
    whole = table(tmp_path)
    monkeypatch.setattr(wikidata_table, "BATCH", 1)
    assert read(tmp_path, *LAKES, "--overwrite") == 0
    assert table(tmp_path) == whole


LABELS = st.lists(
    st.tuples(st.sampled_from(["A", "B", "A (Q1)"]), st.sampled_from(["", "A", "B", "T1", "T2"])), max_size=8
)


@given(LABELS)
def test_names_are_unique_and_labels_stay_among_the_spellings(
    tmp_path_factory: pytest.TempPathFactory, given_names: list[tuple[str, str]]
) -> None:
    """Titles of a site are unique, as a wiki has one page of a title."""
    root = tmp_path_factory.mktemp("names")
    titles: set[str] = set()
    dump = []
    for number, (label, title) in enumerate(given_names, 10):
        dump.append(entity(f"Q{number}", label, title="" if title in titles else title))
        titles.add(title)
    file = write_dump(root / "d.json", dump)
    settings = DumpSettings(languages=["en"], site="enwiki")
    DumpTable(Store.open(root / "out"), settings).make([RowFile(Store.open(file), "d.json", "jsonl")])
    found = pq.read_table(root / "out" / "entities.parquet").to_pylist()
    assert len({row["name"] for row in found}) == len(found) == len(dump)
    for row, (label, _) in zip(found, given_names, strict=True):
        assert label in (row["name"], *row["aliases"])
        assert row["name"] not in row["aliases"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dump", "{}/none.json"], "none.json: nothing is there; give a file, a folder"),
        (["--attribute", "P31=class", "--attribute", "P31"], "--attribute P31: P31 is given a second time"),
        (
            ["--attribute", "class=P31"],
            "--attribute class=P31: write PROPERTY=NAME or PROPERTY, as P30=continent",
        ),
        (["--attribute", "P31="], "--attribute P31=: write PROPERTY=NAME"),
        (["--instance-of", "country"], "--instance-of country: write the id of an item, as Q6256"),
        (["--instance-of", "P31"], "--instance-of P31: write the id of an item"),
        (["--language", "English"], "--language English: write a code as Wikidata has it, such as en"),
        (["--instance-of", "Q7"], "no entity is left of 10 items in the dump: 10 × no instance of Q7"),
        (["--language", "xx", "--instance-of", "Q902"], "1 × no label in xx; 1 × neither"),
        (["--output", "{}"], "lies within --dump"),
        (
            ["--dump", "{}/one.json"],
            "no entity is left of 0 items in the dump: a dump has an entity a line; 1 lines",
        ),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.json").write_text('{"entities": {"Q1": {}}}', encoding="utf-8")
    assert read(tmp_path, *(word.format(tmp_path) for word in words)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_a_table_that_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(tmp_path) == 0
    assert read(tmp_path) == 2
    assert "has a table already; name another --output, or give --overwrite" in capsys.readouterr().err


def test_from_bucket_to_bucket(s3: str, tmp_path: Path) -> None:
    (Store.open(s3) / "dump.json").write_bytes(write_dump(tmp_path / "d.json", DUMP).read_bytes())
    assert run_command(main, "--dump", f"{s3}/dump.json", "--output", f"{s3}/out", *LAKES) == 0
    names = [one.name for one in (Store.open(s3) / "out").files()]
    assert sorted(names) == ["_manifest.json", "_refused.jsonl", "entities.parquet"]
