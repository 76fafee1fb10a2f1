"""Sources in file systems that are only read from: a folder of this disk stands for each of them here."""

from __future__ import annotations

from pathlib import Path

import pyarrow.fs as pafs
import pytest

from engine.corpus.importing.importer import ImportSettings, import_corpus
from engine.corpus.importing.source import ImportSource
from engine.errors import StorageError
from engine.storage import sources
from engine.storage.read_only import READ_ONLY
from engine.storage.sources import SourceStore, source_store
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs.link import main as link
from tests.support.commands import run_command
from tests.support.corpora import jsonl, parquet, run_import

BASES = {"gs": "bucket", "abfs": "bucket/", "hdfs": "/"}
"""What pyarrow says the path of an address without one is."""


@pytest.fixture(params=BASES)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Path]:
    """An address, and the local folder that stands for it."""
    base = BASES[request.param]
    folder = tmp_path / "far" / base.strip("/")
    folder.mkdir(parents=True)
    if base == "/":
        monkeypatch.setattr(sources, "_file_system", lambda origin: (pafs.LocalFileSystem(), base))
        return f"{request.param}://host{folder}", folder
    fs = pafs.SubTreeFileSystem(str(tmp_path / "far"), pafs.LocalFileSystem())
    monkeypatch.setattr(sources, "_file_system", lambda origin: (fs, base))
    return f"{request.param}://host", folder


def test_addresses_name_what_they_did(place: tuple[str, Path]) -> None:
    address, folder = place
    (folder / "a b").mkdir()
    (folder / "a b/c#1%20?.txt").write_bytes(b"one")
    (folder / "a b/.hidden").write_bytes(b"")
    store = source_store(f"{address}/a b/")
    [file] = store.files()
    assert isinstance(file, SourceStore)
    assert (store.uri, file.uri) == (f"{address}/a b", f"{address}/a b/c#1%20?.txt")
    assert (file.parent.uri, store.parent.uri, (store.parent / "x").uri) == (
        store.uri,
        address,
        f"{address}/x",
    )
    assert (store / file.name).read_bytes() == source_store(file.uri).read_bytes() == b"one"
    assert (file.size(), store.size(), (store / "none").exists()) == (3, -1, False)
    assert file.read_if_there() == b"one"
    assert (store / "none").read_if_there() is None
    assert source_store(folder).uri == str(folder)


def test_a_local_copy_follows_the_file(place: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = place
    (folder / "a.txt").write_bytes(b"one")
    file = source_store(f"{address}/a.txt")
    copy, stamp = file.local_copy(tmp_path / "cache"), file.stamp()
    assert (copy.read_bytes(), copy.name) == (b"one", "a.txt")
    (folder / "a.txt").write_bytes(b"other")
    assert file.local_copy(tmp_path / "cache").read_bytes() == b"other"
    assert file.stamp() != stamp


def test_a_corpus_is_imported_from_there(place: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = place
    parquet(folder / "raw/sentences/a.parquet", entity=["iron"], sentence=["Iron is heavy."], image=["a.png"])
    jsonl(folder / "raw/sentences/b.json", [])
    parquet(folder / "raw/entities.parquet", name=["iron"], description=["A metal."])
    with pytest.raises(Exception, match=rf"{address}/raw: not all of it would be read: sentences/b\.json"):
        run_import(tmp_path / "w", f"{address}/raw", "auto")
    (folder / "raw/sentences/b.json").unlink()
    got = run_import(tmp_path / "w", f"{address}/raw", "auto")
    assert (got.held, got.entities[0]["description"]) == ([("iron", "Iron")], "A metal.")
    [(_, reason)] = got.reasons  # images are opened where they are used, from local paths and buckets
    assert reason == f"image {f'{address}/raw/a.png'[:80]!r} is no path and no s3:// address"
    pattern = run_import(tmp_path / "v", f"{address}/raw/sent*/*.parquet", "auto")
    assert pattern.held == [("iron", "Iron")]
    jsonl(tmp_path / "here.jsonl", [{"entity": "iron", "sentence": "The iron."}])
    import_corpus(
        Workspace.open(tmp_path / "u"),
        ImportSource(str(tmp_path / "here.jsonl"), entities=f"{address}/raw/entities.parquet"),
        ImportSettings(),
    )
    with pytest.raises(StorageError, match=f"{address}/none: nothing is there"):
        run_import(tmp_path / "x", f"{address}/none", "auto")


def test_texts_are_linked_from_there(place: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = place
    (folder / "names.txt").write_text("Oslo\n")
    jsonl(folder / "texts/a.jsonl", [{"text": "Oslo is here."}])
    words = ["--entities", f"{address}/names.txt", "--texts", f"{address}/texts", "--workers", 1]
    assert run_command(link, *words, "--output", tmp_path / "out") == 0
    assert run_import(tmp_path / "w", tmp_path / "out", "auto").held == [("Oslo", "Oslo")]
    jsonl(folder / "texts/a.jsonl", [{"text": "Now Oslo is there."}])
    assert run_command(link, *words, "--output", tmp_path / "out") == 0
    [mention] = run_import(tmp_path / "v", tmp_path / "out", "auto").mentions
    assert mention["sentence"] == "Now Oslo is there."


def test_nothing_is_written_there(
    place: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, folder = place
    scheme = address.partition(":")[0]
    with pytest.raises(StorageError, match=rf"^{address}/w: {scheme}:// is only read from, as a source of"):
        Workspace.open(f"{address}/w")
    words = ["--entities", tmp_path / "names.txt", "--texts", tmp_path, "--output", f"{address}/out"]
    assert run_command(link, *words) == 2
    assert "is only read from" in capsys.readouterr().err
    store = source_store(f"{address}/new")
    for write in (
        lambda: store.write_bytes(b""),
        store.delete,
        store.staging,
        lambda: store.replace_bytes(b"", None),
    ):
        with pytest.raises(StorageError, match=rf"^{address}/new: is only read from; write to a local path"):
            write()
    assert not list(folder.iterdir())


def test_a_place_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setattr(sources, "_RETRIED_S", 1)
    sources._file_system.cache_clear()
    with pytest.raises(
        StorageError, match=r"^gs://anonymous@b/x: cannot be reached \(.*\); check the name"
    ) as caught:
        source_store("gs://anonymous@b/x")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    sources._file_system.cache_clear()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("gs:///x", r"^gs:///x: names no bucket; write gs://NAME/path"),
        ("abfs://x/y", r"^abfs://x/y: cannot be reached \(.*account.*\); check the name \(abfs://CONTAINER@"),
        ("gs://b/a/../c", r"a path with the part '', '\.' or '\.\.' is not read"),
        ("gs://b//c", r"a path with the part"),
        ("ftp://b/c", r"only local paths and s3:// addresses are known"),
    ],
)
def test_an_address_that_names_nothing_is_refused(address: str, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        source_store(address)


@pytest.mark.parametrize("scheme", ["gs", "gcs", "abfs", "abfss"])
def test_pyarrow_knows_the_schemes(scheme: str) -> None:
    host = "bucket" if scheme.startswith("g") else "container@account.dfs.core.windows.net"
    fs, base = sources._file_system(f"{scheme}://{host}")
    assert fs.type_name in ("gcs", "abfs")
    assert base.rstrip("/") in ("bucket", "container")
    assert scheme in READ_ONLY
    assert isinstance(Store.open("."), Store)
