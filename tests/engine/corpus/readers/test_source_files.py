"""Files of a source: every one of a table is read, or named; copies and by-products are not read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.corpus.importing.importer import ImportSettings, import_corpus
from engine.corpus.importing.source import ImportSource
from engine.corpus.readers.source_files import list_source, partition_of, set_aside_together
from engine.errors import FormatError, StorageError
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from tests.support.corpora import Imported, jsonl, parquet, run_import, ultrawiki


def said(name: str) -> dict[str, str]:
    return {"entity": name, "sentence": f"The {name} is heavy."}


def table(path: Path, *names: str) -> None:
    parquet(path, entity=list(names), sentence=[f"The {n} is heavy." for n in names])


def names(got: Imported) -> list[str]:
    return [name for name, _ in got.held]


def test_tables_in_parts_and_folders_are_read_whole(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    parquet(raw / "entities-0-of-2.parquet", name=["iron"], description=["A metal."])
    parquet(raw / "entities.parquet/part-0.parquet", name=["gold"], description=["Yellow."])
    table(raw / "sentences.parquet/part-0.parquet", "iron")
    table(raw / "sentences/deep/er/x.PARQUET", "gold")
    (raw / "sentences.parquet/_SUCCESS").touch()
    (raw / "sentences.parquet/.part-0.parquet.crc").touch()
    table(raw / "sentences.parquet/_temporary/0/part-9.parquet", "tin")
    got = run_import(tmp_path / "w", raw, "parquet")
    assert [e["description"] for e in got.entities] == ["A metal.", "Yellow."]
    assert sorted(names(got)) == ["gold", "iron"]
    assert not got.quarantine
    assert got.manifest.unread == ["sentences.parquet/_temporary/0/part-9.parquet"]
    alone = run_import(tmp_path / "v", raw / "sentences.parquet", "parquet")
    assert names(alone) == ["iron"]
    assert "../entities.parquet" in alone.manifest.unread


def test_what_is_set_aside_in_a_folder_is_said_at_once() -> None:
    unread = ["_found/a.json", "_found/b/c.json", "more/_temporary/0/d.parquet", "more/_e.csv", "notes.csv"]
    together = ["_found/ (2 files)", "more/_temporary/ (1 file)", "more/_e.csv", "notes.csv"]
    assert set_aside_together(unread) == together


def test_folders_of_partitions_give_the_columns_that_files_lack(tmp_path: Path) -> None:
    parts = tmp_path / "raw/sentences"
    parquet(parts / "lang=en/entity=Red%20Oak/part-0.parquet", sentence=["A Red Oak stands."])
    parquet(parts / "lang=en/entity=iron/part-0.parquet", sentence=["Iron rusts."])
    jsonl(tmp_path / "json/sentences/entity=iron/a.jsonl", [{"sentence": "Iron."}, said("gold")])
    assert names(run_import(tmp_path / "w", tmp_path / "raw", "parquet")) == ["Red Oak", "iron"]
    assert names(run_import(tmp_path / "v", tmp_path / "json", "jsonl")) == ["iron", "gold"]
    assert partition_of("a=__HIVE_DEFAULT_PARTITION__/b/x=y.jsonl") == {"a": None}


@pytest.mark.parametrize(
    ("add", "named"),
    [
        (lambda raw: jsonl(raw / "sentences/b.csv", ["x"]), "sentences/b.csv"),
        (lambda raw: jsonl(raw / "sentences/b.jsonl.zip", ["x"]), "sentences/b.jsonl.zip"),
        (lambda raw: jsonl(raw / "sentences-more/b.jsonl", ["x"]), "sentences-more/b.jsonl"),
        (lambda raw: parquet(raw / "entities.parquet", name=["iron"]), "entities.parquet"),
        (lambda raw: jsonl(raw / "Entities.json", ["x"]), "Entities.json"),
        (lambda raw: jsonl(raw / "entities.txt", ["x"]), "entities.txt"),
        (lambda raw: jsonl(raw / "sentences/part-00000", ["x"]), "sentences/part-00000"),
        (lambda raw: os.mkfifo(raw / "sentences.jsonl"), r"sentences.jsonl \(not a regular file"),
        (lambda raw: (raw / "sentences/c.jsonl").symlink_to("gone"), r"sentences/c.jsonl \(a link to gone"),
        (lambda raw: (raw / "entities").symlink_to("gone"), r"entities \(a link to gone, where nothing is"),
        (
            lambda raw: jsonl(Path(os.fsdecode(bytes(raw) + b"/sentences/\xff.jsonl")), []),
            r"sentences/\\udcff.jsonl \(its name is not UTF-8",
        ),
    ],
)
def test_a_file_of_a_table_that_would_not_be_read_ends_the_import(
    tmp_path: Path, add: Callable[[Path], Any], named: str
) -> None:
    jsonl(tmp_path / "raw/sentences/a.jsonl", [said("iron")])
    add(tmp_path / "raw")
    with pytest.raises(FormatError, match=rf"not all of it would be read: {named}.*--format jsonl reads"):
        run_import(tmp_path / "w", tmp_path / "raw", "jsonl")
    assert not (tmp_path / "w").exists()


def test_other_files_are_named_and_copies_are_none(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    jsonl(raw / "sentences.jsonl", [said("iron")])
    jsonl(raw / "sentences/.ipynb_checkpoints/a.jsonl", [said("gold")])
    table(raw / "sentences.parquet", "iron")  # the same table in another format
    jsonl(raw / "queries/q.jsonl", ["{}"])
    for name in ("README.md", "sentences/README", "sentences/a.jsonl.bak"):
        (raw / name).touch()
    (raw / "loop").symlink_to(raw)
    (raw / "images").mkdir()
    (raw / "images/a.png").symlink_to("gone")
    got = run_import(tmp_path / "w", raw, "jsonl")
    assert names(got) == ["iron"]
    assert sorted(got.manifest.unread) == [
        "images/a.png",
        "queries/q.jsonl",
        "sentences.parquet",
        "sentences/README",
        "sentences/a.jsonl.bak",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ent2text.jsonl", "{}"),
        ("attributes/a.json", "{}"),
        ("ent2sents-2.json.br", ""),
        ("Ent2Text.csv", ""),
        ("entities-2.txt", "gold"),
    ],
)
def test_files_of_a_layout_too(tmp_path: Path, name: str, content: str) -> None:
    source = ultrawiki(tmp_path / "raw", {"iron": ["Iron."]})
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_text(content)
    with pytest.raises(
        FormatError, match=rf"not all of it would be read: {name}.*reads entities.txt, ent2sent"
    ):
        run_import(tmp_path / "w", source, "ultrawiki")
    (source / name).unlink()
    (source / "attributes.json").symlink_to("gone")
    with pytest.raises(FormatError, match=r"attributes.json \(a link to gone"):
        run_import(tmp_path / "w", source, "ultrawiki")


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("inner"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StorageError, match=r"inner: the folder cannot be read \(Permission denied\)"):
        list_source(Store.open(tmp_path))


def test_tables_are_found_by_what_they_are_called(tmp_path: Path) -> None:
    rows = [{"entity": "iron", "sentence": "Iron is heavy."}]
    ultrawiki(tmp_path / "u", {"iron": ["Iron is heavy."]})
    jsonl(tmp_path / "j/sentences.jsonl", rows)
    parquet(tmp_path / "p/sentences/part-0.parquet", entity=["iron"], sentence=["Iron is heavy."])
    (tmp_path / "c").mkdir()
    (tmp_path / "c/sentences.csv").write_text("entity,sentence,start,end\niron,Iron is heavy.,0,4\n")
    (tmp_path / "c/entities.csv").write_text(
        'name,aliases,attributes\niron,Fe|ferrum,"{""kind"": ""metal""}"\n', encoding="utf-8"
    )
    expected = {"u": "ultrawiki", "j": "jsonl", "p": "parquet", "c": "csv"}
    for folder, form in expected.items():
        got = run_import(tmp_path / "w" / folder, tmp_path / folder, "auto")
        assert (got.manifest.format, got.held) == (form, [("iron", "Iron")])
        assert not got.quarantine
    assert got.entities[0]["aliases"] == ["Fe", "ferrum"]
    assert got.entities[0]["attributes"] == {"kind": ["metal"]}
    jsonl(tmp_path / "p/sentences.jsonl", rows)
    with pytest.raises(FormatError, match="sentences as jsonl and as parquet; name one with --format"):
        run_import(tmp_path / "w" / "both", tmp_path / "p", "auto")


def test_columns_and_files_may_have_other_names(tmp_path: Path) -> None:
    """As Spark writes them: any folder, names by number, hidden checksums; the entities lie elsewhere."""
    reviews, products = tmp_path / "raw/reviews", tmp_path / "raw/products.csv"
    for number, name in enumerate(("iron", "tin")):
        part = reviews / f"part-0000{number}-9f.c000.snappy.parquet"
        parquet(part, product=[name], body=[f"The {name} is heavy."], stars=[5])
    (reviews / "_SUCCESS").touch()
    (reviews / ".part-00000.crc").touch()
    products.write_text("title,also\niron,Fe\ntin,\n")
    columns = {"entity": "product", "sentence": "body", "name": "title", "aliases": "also"}
    place, again = Workspace.open(tmp_path / "w"), ImportSettings(overwrite=True)
    for address in (reviews, f"{reviews}/part-*.parquet"):
        manifest = import_corpus(place, ImportSource(str(address), "auto", columns, str(products)), again)
        assert (manifest.counts.mentions, manifest.counts.entities, manifest.counts.quarantined) == (2, 2, 0)
        assert manifest.files[0].name == "products.csv"
    for source, said in (
        (
            ImportSource(str(reviews), "auto", {"sentence": "text"}),
            r"no column text \(found: product, body, stars\)",
        ),
        (
            ImportSource(str(reviews), "auto", {**columns, "aliases": "alt"}, str(products)),
            r"no column alt \(found: title, also\)",
        ),
        (ImportSource(str(reviews)), "where files have other names, give --columns"),
        (
            ImportSource(str(reviews), "ultrawiki", columns),
            "--columns: of tables alone, and --format ultrawiki is",
        ),
        (ImportSource(str(tmp_path / "raw/none*")), "no file of it can be read"),
    ):
        with pytest.raises(FormatError, match=said):
            import_corpus(place, source, again)
