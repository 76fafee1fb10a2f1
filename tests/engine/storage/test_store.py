from pathlib import Path

import pytest

from engine.errors import StorageError
from engine.storage.store import Store, local_folder, sha256_of


def test_addresses(tmp_path: Path) -> None:
    assert Store.open(tmp_path).uri == str(tmp_path)
    assert Store.open(f"file://{tmp_path}/a") == Store.open(tmp_path) / "a"
    assert (Store.open(tmp_path) / "a" / "b.txt").name == "b.txt"
    assert Store.open(str(Store.open(tmp_path / "a"))).is_local


@pytest.mark.parametrize(
    ("address", "reason"), [("ftp://b/x", "only local paths"), ("s3:///x", "names no bucket")]
)
def test_an_address_that_cannot_be_used_is_named(address, reason) -> None:
    with pytest.raises(StorageError, match=f"{address}: {reason}"):
        Store.open(address)


def test_write_and_read(tmp_path: Path) -> None:
    file = Store.open(tmp_path) / "deep" / "a.txt"
    assert not file.exists()
    assert file.size() == -1
    file.write_bytes(b"one")
    file.write_bytes(b"three")
    assert (file.read_bytes(), file.size(), file.exists()) == (b"three", 5, True)
    with pytest.raises(StorageError, match=r"b.txt: no such file"):
        (Store.open(tmp_path) / "b.txt").read_bytes()


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = Store.open(tmp_path) / "a.txt"
    file.write_bytes(b"old")

    def half_written() -> None:
        with file.writing() as path:
            path.write_bytes(b"ne")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        half_written()
    assert file.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]  # no remains


def test_files_are_sorted_and_hidden_ones_left_out(tmp_path: Path) -> None:
    folder = Store.open(tmp_path)
    for name in ("b.json", "a/c.json", ".d.json", "e.txt"):
        (folder / name).write_bytes(b"")
    assert [f.name for f in folder.files(".json")] == ["c.json", "b.json"]
    assert len(folder.files()) == 3
    assert (folder / "none").files() == []


def test_publish_folder_replaces_the_whole(tmp_path: Path) -> None:
    target = Store.open(tmp_path) / "out"
    for content in ({"a": b"1", "gone": b"2"}, {"a": b"3", "sub/b": b"4"}):
        staged = target.staging()
        for name, text in content.items():
            (Store.open(staged) / name).write_bytes(text)
        target.publish_folder(staged, last="a")
        assert {f.path.removeprefix(f"{target.path}/"): f.read_bytes() for f in target.files()} == (content)
        assert not staged.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_fetch_copies_and_reports(tmp_path: Path) -> None:
    source = Store.open(tmp_path) / "a"
    source.write_bytes(b"x" * 10)
    seen: list[int] = []
    target = source.fetch(tmp_path / "deep" / "b", seen.append)
    assert target.read_bytes() == b"x" * 10
    assert sum(seen) == 10
    assert sha256_of(target) == sha256_of(tmp_path / "a")


def test_delete(tmp_path: Path) -> None:
    folder = Store.open(tmp_path) / "x"
    (folder / "a").write_bytes(b"")
    folder.delete()
    folder.delete()
    assert not folder.exists()


def test_a_bucket_is_read_written_and_published_like_a_folder(s3: str, tmp_path: Path) -> None:
    store = Store.open(f"{s3}/w")
    assert not store.exists()
    (store / "a" / "one.txt").write_bytes(b"one")
    assert (store / "a" / "one.txt").read_bytes() == b"one"
    for content in ("old", "new"):
        staged = store.staging()
        (staged / f"{content}.txt").write_text(content)
        (staged / "manifest.json").write_text("{}")
        (store / "p").publish_folder(staged, last="manifest.json")
    assert [f.name for f in (store / "p").files()] == ["manifest.json", "new.txt"]
    (store / "a").delete()
    assert not (store / "a").exists()


def test_a_bucket_that_is_not_there_is_named(s3: str) -> None:
    with pytest.raises(StorageError, match=r"s3://nowhere: .*AWS_ENDPOINT_URL"):
        Store.open("s3://nowhere/w")


def test_a_local_copy_follows_the_file_in_the_bucket(s3: str, tmp_path: Path) -> None:
    store = Store.open(f"{s3}/f.txt")
    store.write_bytes(b"first")
    copy = store.local_copy(tmp_path)
    before = copy.stat().st_ino
    assert store.local_copy(tmp_path).stat().st_ino == before, "nothing changed, nothing is copied"
    store.write_bytes(b"another")
    assert store.local_copy(tmp_path).read_bytes() == b"another"


def test_a_local_file_is_its_own_copy(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    assert Store.open(tmp_path / "f").local_copy(tmp_path / "cache") == tmp_path / "f"


def test_a_local_folder_is_the_one_that_was_named_with_its_sub_folders(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path))
    folder = Store.open(f"{s3}/models/m")
    content = {"a/first.txt": b"1", "config.json": b"2", "z/deep/last.txt": b"3"}
    for name, text in content.items():
        (folder / name).write_bytes(text)
    (Store.open(s3) / "models" / "m2" / "other").write_bytes(b"of another folder")
    copy = Path(local_folder(folder.uri))
    assert copy.name == "m"
    assert {p.relative_to(copy).as_posix(): p.read_bytes() for p in copy.rglob("*") if p.is_file()} == content
    assert local_folder(f"{folder.uri}/") == str(copy)


def test_a_local_folder_loses_what_its_bucket_lost(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path))
    folder = Store.open(f"{s3}/m")
    (folder / "old").write_bytes(b"1")
    (folder / "sub" / "old").write_bytes(b"1")
    (Path(local_folder(folder.uri)) / ".new.being-written").write_bytes(b"2")
    (folder / "new").write_bytes(b"2")
    (folder / "sub").delete()
    (folder / "old").delete()
    copy = Path(local_folder(folder.uri))
    assert {p.name for p in copy.rglob("*") if p.is_file()} == {"new", ".new.being-written"}


def test_a_local_folder_that_is_none_is_named(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path))
    (Store.open(s3) / "file").write_bytes(b"1")
    for name in (f"{s3}/nothing", f"{s3}/file"):
        with pytest.raises(StorageError, match=f"{name}: no such folder"):
            local_folder(name)


def test_local_names_come_back(tmp_path: Path) -> None:
    assert local_folder("some/model") == "some/model"
    assert local_folder(f"file://{tmp_path}") == str(tmp_path)


def test_a_file_that_goes_while_it_is_looked_for_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    assert Store.open(tmp_path / "gone").read_if_there() is None
