"""A corpus as a Hugging Face data set: imported again it is the same, and nothing is half there or lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from engine.corpus import exporting
from engine.corpus.exporting import CARD, export_corpus
from engine.errors import BundleError, StorageError
from engine.storage.bundle import Bundle
from engine.storage.publishing import publish
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from tests.support.corpora import Imported, jsonl, parquet, run_import
from tests.support.images import image_bytes

ENTITIES = [
    {
        "name": "Norway",
        "aliases": ["Kingdom of Norway"],
        "description": "A country.",
        "attributes": {"kind": ["x", "y"]},
    },
    {"name": "Guinea", "attributes": {"kind": []}},
    {"name": "Guinea-Bissau"},
    {"name": "nobody", "description": "Without a sentence."},
]
SENTENCES = [
    {"entity": "Norway", "sentence": "The Kingdom of Norway is cold; norway again.", "start": 4, "end": 21},
    {"entity": "Norway", "sentence": "In NORWAY and “Norwegian” places."},
    {"entity": "Guinea", "sentence": "Guinea-Bissau lies by Guinea."},
    {"entity": "Guinea-Bissau", "sentence": "Guinea\u2010Bissau with another hyphen."},
    {"entity": "Guinea", "sentence": "Équatorial 🌍 Guinea.", "image": "s3://elsewhere/a.png"},
]


def corpus(folder: Path, entities: list[Any] = ENTITIES, sentences: list[Any] = SENTENCES) -> Path:
    jsonl(folder / "entities.jsonl", entities)
    jsonl(folder / "sentences.jsonl", sentences)
    return folder


def again(workspace: str | Path, export: str | Path) -> Imported:
    return run_import(workspace, export, "auto", strict=True)


def same(one: Imported, other: Imported) -> None:
    assert one.entities == other.entities
    assert one.mentions == other.mentions


def test_imported_again_it_is_the_same_corpus(tmp_path: Path) -> None:
    given = run_import(tmp_path / "w", corpus(tmp_path / "raw"), "jsonl")
    counts = export_corpus(Workspace.open(tmp_path / "w"), Store.open(tmp_path / "out"))
    assert (counts.entities, counts.sentences, counts.images_elsewhere, counts.files) == (4, 5, 1, 1)
    same(given, again(tmp_path / "v", tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    rows = pq.read_table(tmp_path / "out/sentences/train-00000-of-00001.parquet").to_pylist()
    assert rows[0] == {
        "entity": "Norway",
        "sentence": "The Kingdom of Norway is cold; norway again.",
        "start": 4,
        "end": 21,
        "image": None,
        "annotated": False,
    }
    [first, *_] = pq.read_table(tmp_path / "out/entities/train-00000-of-00001.parquet").to_pylist()
    assert first["attributes"] == [{"key": "kind", "value": ["x", "y"]}]


def test_mentions_that_people_marked_stay_where_they_are(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "entity2id.txt").write_text("Norway\t0\n")
    tokens = ["Norway", "and", "its", "fjords", ",", "Norway", "and", "the", "country"]
    marks = [{"entityId": 0, "start": s, "end": s, "name": ""} for s in (0, 5, 8)]
    (raw / "sentences.json").write_text(json.dumps({"tokens": tokens, "entityMentions": marks}) + "\n")
    given = run_import(tmp_path / "w", raw, "mesed")
    assert [held for _, held in given.held] == ["Norway", "Norway", "country"]
    export_corpus(Workspace.open(tmp_path / "w"), Store.open(tmp_path / "out"))
    same(given, again(tmp_path / "v", tmp_path / "out"))
    [file] = (tmp_path / "out/sentences").iterdir()
    assert pq.read_table(file)["annotated"].to_pylist() == [False, True, True]


def test_images_come_along_and_can_be_read_from_there(tmp_path: Path) -> None:
    red, blue = image_bytes("red"), image_bytes("blue")
    parquet(
        tmp_path / "raw/sentences.parquet",
        entity=["iron", "iron", "gold"],
        sentence=["Iron.", None, "Gold."],
        image=[{"bytes": red, "path": None}, {"bytes": blue, "path": None}, {"bytes": red, "path": None}],
    )
    given = run_import(tmp_path / "w", tmp_path / "raw", "auto")
    counts = export_corpus(Workspace.open(tmp_path / "w"), Store.open(tmp_path / "out"))
    assert (counts.images, counts.images_elsewhere) == (2, 0)
    got = again(tmp_path / "v", tmp_path / "out")
    place = Workspace.open(tmp_path / "v")
    assert [place.image(m["image"]).read_bytes() for m in got.mentions] == [red, blue, red]
    assert [{**m, "image": None} for m in got.mentions] == [{**m, "image": None} for m in given.mentions]
    assert all(m["image"].startswith(f"{tmp_path}/out/images/") for m in got.mentions)


def test_the_card_names_the_tables_as_the_hub_reads_them(tmp_path: Path) -> None:
    run_import(tmp_path / "w", corpus(tmp_path / "raw"), "jsonl")
    export_corpus(Workspace.open(tmp_path / "w"), Store.open(tmp_path / "out"))
    text = (tmp_path / "out" / CARD).read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert [one["config_name"] for one in front["configs"]] == ["sentences", "entities"]
    for one in front["configs"]:
        [files] = one["data_files"]
        assert files["split"] == "train"
        assert len(list((tmp_path / "out").glob(files["path"]))) == 1
    assert [one.get("default", False) for one in front["configs"]] == [True, False]
    assert str(tmp_path) not in text


def test_entities_that_are_gone_are_left_out(tmp_path: Path) -> None:
    run_import(tmp_path / "w", corpus(tmp_path / "raw"), "jsonl")
    kept = corpus(tmp_path / "less", ENTITIES[1:], SENTENCES[2:])
    run_import(tmp_path / "w", kept, "jsonl", update=True, remove_missing=True)
    counts = export_corpus(Workspace.open(tmp_path / "w"), Store.open(tmp_path / "out"))
    assert (counts.entities, counts.removed, counts.sentences) == (3, 1, 3)
    same(run_import(tmp_path / "u", kept, "jsonl"), again(tmp_path / "v", tmp_path / "out"))


def test_many_parts_become_files_of_about_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "SHARD_ROWS", 10_000)
    rows = [{"entity": "iron", "sentence": f"Number {i} is iron."} for i in range(20_000)]
    given = run_import(tmp_path / "w", jsonl(tmp_path / "a.jsonl", rows), "jsonl")
    assert given.manifest.parts == [8192, 8192, 3616]
    seen: list[int] = []
    counts = export_corpus(Workspace.open(tmp_path / "w"), Store.open(tmp_path / "out"), progress=seen.append)
    files = sorted((tmp_path / "out/sentences").iterdir())
    assert [(file.name, pq.read_metadata(file).num_rows) for file in files] == [
        ("train-00000-of-00002.parquet", 16_384),
        ("train-00001-of-00002.parquet", 3616),
    ]
    assert (counts.files, sum(seen)) == (2, 20_000)
    same(given, again(tmp_path / "v", tmp_path / "out"))


def test_a_bundle_says_which_entities(tmp_path: Path) -> None:
    place = Workspace.open(tmp_path / "w")
    run_import(tmp_path / "w", corpus(tmp_path / "raw", ENTITIES[:2], SENTENCES[:3]), "jsonl")
    staged = place.bundles.staging()
    place.entities.fetch(staged / "entities.parquet")
    old = publish(place, staged, {}).id
    run_import(tmp_path / "w", corpus(tmp_path / "more"), "jsonl", append=True)
    counts = export_corpus(place, Store.open(tmp_path / "out"), Bundle.open(place, old))
    assert (counts.entities, counts.sentences) == (2, 4)
    run_import(tmp_path / "w", corpus(tmp_path / "raw", ENTITIES[1:]), "jsonl", overwrite=True)
    with pytest.raises(BundleError, match="has other entities than the corpus"):
        export_corpus(place, Store.open(tmp_path / "other"), Bundle.open(place, old))
    assert not (tmp_path / "other").exists()


def test_what_is_there_is_replaced_only_if_it_is_an_export_and_that_is_wanted(tmp_path: Path) -> None:
    place, out = Workspace.open(tmp_path / "w"), tmp_path / "out"
    run_import(tmp_path / "w", corpus(tmp_path / "raw"), "jsonl")
    out.mkdir()
    export_corpus(place, Store.open(out))
    (out / "sentences/old.parquet").touch()
    with pytest.raises(StorageError, match=r"is there already; name another --output, or give --overwrite"):
        export_corpus(place, Store.open(out))
    export_corpus(place, Store.open(out), overwrite=True)
    assert not (out / "sentences/old.parquet").exists()
    (out / ".git").mkdir()
    with pytest.raises(StorageError, match=r"holds \.git, which no export wrote"):
        export_corpus(place, Store.open(out), overwrite=True)
    (out / ".git").rmdir()
    (out / CARD).write_text("my own")
    with pytest.raises(StorageError, match=r"holds README\.md, which no export wrote"):
        export_corpus(place, Store.open(out), overwrite=True)
    with pytest.raises(StorageError, match="a file; name a folder"):
        export_corpus(place, Store.open(out / CARD), overwrite=True)
    with pytest.raises(StorageError, match=r"no corpus here yet"):
        export_corpus(Workspace.open(tmp_path / "none"), Store.open(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_one_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_import(tmp_path / "w", corpus(tmp_path / "raw"), "jsonl")

    def progress(number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_corpus(Workspace.open(tmp_path / "w"), Store.open(tmp_path / "out"), progress=progress)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "w"]


def test_from_bucket_to_bucket(tmp_path: Path, s3: str) -> None:
    given = run_import(f"{s3}/w", corpus(tmp_path / "raw"), "jsonl")
    out = Store.open(f"{s3}/out")
    export_corpus(Workspace.open(f"{s3}/w"), out)
    same(given, again(tmp_path / "v", out.uri))
    with pytest.raises(StorageError, match="is there already"):
        export_corpus(Workspace.open(f"{s3}/w"), out)
    (out / CARD).delete()  # as one that was interrupted
    export_corpus(Workspace.open(f"{s3}/w"), out, overwrite=True)
    assert [file.name for file in out.files(".md")] == [CARD]
