"""A corpus is published whole or not at all, and of two imports at once one is told."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from engine.corpus.schema import read_manifest
from engine.errors import StorageError
from engine.storage import s3 as buckets
from engine.storage import store as stores
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from tests.support.corpora import Imported, jsonl, run_import
from tests.support.kills import Killed, kill_at_upload


@pytest.fixture(params=["local", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a workspace that does not exist yet."""
    return f"{request.getfixturevalue('s3')}/w" if request.param == "bucket" else str(tmp_path / "w")


def source(tmp_path: Path, name: str) -> Path:
    rows = [{"entity": name, "sentence": f"{name} {n}.", "image_bytes": "QQ=="} for n in range(3)]
    return jsonl(tmp_path / "raw" / name / "sentences.jsonl", rows).parent


def import_of(place: str, tmp_path: Path, name: str, overwrite: bool = True) -> Imported:
    return run_import(place, source(tmp_path, name), "jsonl", overwrite=overwrite)


def names_in(place: str) -> set[str]:
    """The names that entity table and sentences hold, each read for itself."""
    workspace = Workspace.open(place)
    content = b"".join(file.read_bytes() for file in [workspace.entities, *workspace.mentions()])
    return {name for name in ("iron", "gold", "zinc") if name.encode() in content}


@pytest.mark.parametrize("after", range(4))
def test_a_kill_in_an_overwrite_leaves_the_corpus_that_was_there(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    place = f"{s3}/w"
    import_of(place, tmp_path, "iron")
    with monkeypatch.context() as patched:
        kill_at_upload(patched, lambda _, done: done == after)
        patched.setattr(Store, "delete", lambda self: None)  # nor is anything cleared away
        with pytest.raises(Killed):  # at the mentions, the entities, an image, the manifest
            import_of(place, tmp_path, "gold")
    assert names_in(place) == {"iron"}
    assert len(Workspace.open(place).mentions()) == 1
    import_of(place, tmp_path, "zinc")
    assert names_in(place) == {"zinc"}
    folders = {f.path.split("/")[3] for f in Store.open(f"{place}/corpora").files()}
    assert len(folders) == 3, "the pointer, the corpus, the one before; what was interrupted is gone"


def test_a_kill_before_the_pointer_leaves_the_corpus_that_was_there(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_of(f"{s3}/w", tmp_path, "iron")

    def killed(*_: object) -> bool:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(buckets, "replace", killed)
        with pytest.raises(Killed):
            import_of(f"{s3}/w", tmp_path, "gold")
    assert names_in(f"{s3}/w") == {"iron"}


def test_a_corpus_that_was_published_in_place_is_read_and_replaced(s3: str, tmp_path: Path) -> None:
    place = f"{s3}/w"
    import_of(str(tmp_path / "old"), tmp_path, "iron")
    for file in (p for p in (tmp_path / "old/corpus").rglob("*") if p.is_file()):
        (Store.open(place) / file.relative_to(tmp_path / "old").as_posix()).write_bytes(file.read_bytes())
    old = Workspace.open(place)
    assert names_in(place) == {"iron"}
    with pytest.raises(StorageError, match="a corpus is there already"):
        import_of(place, tmp_path, "gold", overwrite=False)
    images = [old.image(f"corpus/images/{f.name}").read_bytes() for f in (old.corpus / "images").files()]
    assert images == [b"A"]
    import_of(place, tmp_path, "gold")
    assert names_in(place) == {"gold"}
    import_of(place, tmp_path, "zinc")
    assert not Store.open(f"{place}/corpus").exists(), "two imports ago"
    assert names_in(place) == {"zinc"}


def test_a_job_goes_on_with_the_corpus_that_it_began_with(s3: str, tmp_path: Path) -> None:
    place = f"{s3}/w"
    import_of(place, tmp_path, "iron")
    job = Workspace.open(place)
    before = read_manifest(job)
    import_of(place, tmp_path, "gold")
    assert b"iron" in job.entities.read_bytes()
    assert read_manifest(job) == before
    assert read_manifest(Workspace.open(place)) != before


@pytest.mark.parametrize("first", [None, "iron"])
def test_of_two_imports_at_once_one_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str | None
) -> None:
    if first:
        import_of(place, tmp_path, first)
    publish = Workspace.publish_corpus

    def later(self: Workspace, folder: Path, seen: bytes | None, kept: Iterable[str] = ()) -> None:
        monkeypatch.setattr(Workspace, "publish_corpus", publish)
        import_of(place, tmp_path, "gold")
        publish(self, folder, seen, kept)

    monkeypatch.setattr(Workspace, "publish_corpus", later)
    with pytest.raises(StorageError, match=r"another import published a corpus here meanwhile.*--overwrite"):
        import_of(place, tmp_path, "zinc")
    assert names_in(place) == {"gold"}
    left = [f.path for f in Store.open(place).files() if b"zinc" in f.read_bytes()]
    assert left == []


def test_of_two_imports_that_reach_the_pointer_together_one_is_refused(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{s3}/w"
    replace = buckets.replace

    def later(path: str, content: bytes, expected: buckets.Version | None) -> bool:
        monkeypatch.setattr(buckets, "replace", replace)
        import_of(place, tmp_path, "gold")
        return replace(path, content, expected)

    monkeypatch.setattr(buckets, "replace", later)
    with pytest.raises(StorageError, match="meanwhile"):
        import_of(place, tmp_path, "zinc")
    assert names_in(place) == {"gold"}


def test_an_overwrite_of_a_folder_is_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(tmp_path / "w")
    import_of(place, tmp_path, "iron")

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(stores.os, "rename", killed)  # would be two steps
    import_of(place, tmp_path, "gold")
    assert names_in(place) == {"gold"}
    assert [p.name for p in (tmp_path / "w").iterdir()] == ["corpus"]


def test_where_a_disk_cannot_exchange_a_kill_leaves_the_corpus_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "w")
    import_of(place, tmp_path, "iron")
    monkeypatch.setattr("engine.storage.local_files._exchanged", lambda *_: False)
    rename, left = stores.os.rename, [None]

    def killed(*paths: Path) -> None:
        if not left:
            raise Killed
        left.pop()
        rename(*paths)

    with monkeypatch.context() as patched:
        patched.setattr(stores.os, "rename", killed)
        with pytest.raises(Killed):
            import_of(place, tmp_path, "gold")
    assert not (tmp_path / "w" / "corpus").exists()
    assert names_in(place) == {"iron"}
    with pytest.raises(StorageError, match="a corpus is there already"):
        import_of(place, tmp_path, "gold", overwrite=False)
    import_of(place, tmp_path, "gold")
    assert names_in(place) == {"gold"}
    assert [p.name for p in (tmp_path / "w").iterdir()] == ["corpus"]


def test_a_pointer_that_names_no_corpus_is_named(s3: str) -> None:
    pointer = Store.open(f"{s3}/w/corpora/CURRENT")
    for content in (b"", b"\xff\xfe", b"../x"):
        pointer.write_bytes(content)
        with pytest.raises(StorageError, match=r"corpora/CURRENT: names no corpus"):
            Workspace.open(f"{s3}/w").mentions()


def test_an_interrupted_publication_in_a_bucket_is_neither_the_old_nor_the_new(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Store.open(f"{s3}/encoder")

    def publish(content: str) -> None:
        staged = target.staging()
        for name in ("a.safetensors", "config.json"):
            (staged / name).write_text(content)
        target.publish_folder(staged, last="config.json")

    publish("old")
    kill_at_upload(monkeypatch, lambda path, _: path.endswith("config.json"))
    with pytest.raises(Killed):
        publish("new")
    assert not (target / "config.json").exists()
