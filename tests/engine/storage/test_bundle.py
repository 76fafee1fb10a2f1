import datetime
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engine.errors import BundleError, StorageError
from engine.retrieval.index import VectorIndex, unit
from engine.storage.bundle import Bundle, current_id, listing
from engine.storage.publishing import derive, point_to, publish
from engine.storage.workspace import Workspace
from tests.support.bundles import publish_vectors, random_bundle, write_entities

INDEX = "index/mask.faiss"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    random_bundle(tmp_path)
    return Workspace.open(tmp_path)


def folder_of(workspace: Workspace) -> Path:
    return Path((workspace.bundles / current_id(workspace)).path)


def test_publish_and_open(workspace: Workspace) -> None:
    bundle = Bundle.open(workspace)
    assert bundle.id == current_id(workspace)
    assert len(bundle.vocabulary) == 500
    assert VectorIndex.read(bundle.path(INDEX)).vectors_ND.shape == (500, 16)
    assert bundle.path("index").is_dir()
    assert Bundle.open(workspace, bundle.id).manifest == bundle.manifest


def test_the_same_content_has_the_same_id(tmp_path: Path) -> None:
    vectors = {"mask": np.eye(3)}
    names = ["a", "b", "c"]
    ids = [publish_vectors(Workspace.open(tmp_path / n), names, vectors).id for n in "xy"]
    again = publish_vectors(Workspace.open(tmp_path / "x"), names, vectors).id
    other = publish_vectors(Workspace.open(tmp_path / "x"), names, {"mask": -np.eye(3)}).id
    assert ids == [again, again]
    assert other != again
    assert current_id(Workspace.open(tmp_path / "x")) == other
    assert Bundle.open(Workspace.open(tmp_path / "x"), again).id == again  # the older one stays


def test_nothing_published_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle was published yet.*build-index"):
        Bundle.open(Workspace.open(tmp_path))


def test_an_unknown_id_is_refused(workspace: Workspace) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        Bundle.open(workspace, "0123456789abcdef")


def test_what_a_bundle_lacks_is_named_beside_what_it_holds(workspace: Workspace) -> None:
    with pytest.raises(
        BundleError, match=r"holds no .trie.; run `seedset pretrain-lm`.*; it holds entities\.parquet"
    ):
        Bundle.open(workspace).path("trie")


def remove(path: Path) -> None:
    path.unlink()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(("damage", "reason"), [(remove, "missing"), (flip, "checksum"), (truncate, "bytes")])
@pytest.mark.parametrize("name", [INDEX, "entities.parquet"])
def test_a_damaged_file_is_named(workspace: Workspace, damage, reason: str, name: str) -> None:
    damage(folder_of(workspace) / name)
    with pytest.raises(BundleError, match=rf"'{name}'.*{reason}"):
        Bundle.open(workspace)


@pytest.mark.parametrize("name", ["../../CURRENT", "/etc/hostname", "index/../../x"])
def test_a_manifest_that_leads_out_of_the_bundle_is_refused(workspace: Workspace, name: str) -> None:
    path = folder_of(workspace) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = {"size": 1, "sha256": "0" * 64}
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="leads out of the bundle"):
        Bundle.open(workspace)


@pytest.mark.parametrize("text", ["", "{", '{"id": 1}', "[]"])
def test_a_manifest_that_is_none_is_refused(workspace: Workspace, text: str) -> None:
    (folder_of(workspace) / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="not a manifest"):
        Bundle.open(workspace)


def test_a_manifest_of_another_format_is_refused(workspace: Workspace) -> None:
    path = folder_of(workspace) / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": "1.1"', '"format_version": "2.0"'))
    with pytest.raises(
        BundleError, match=r"format 2\.0, this program reads 1\.x; install seedset .* or later"
    ):
        Bundle.open(workspace)


def test_a_current_that_names_another_folder_is_refused(workspace: Workspace) -> None:
    (workspace.bundles / "CURRENT").write_bytes(b"../corpus\n")
    with pytest.raises(BundleError):
        Bundle.open(workspace)


def test_publishing_is_all_or_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    before = current_id(workspace)
    staged = workspace.bundles.staging()
    VectorIndex(unit(np.eye(2))).write(staged / INDEX)

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("engine.storage.store.swap_in", broken)
    with pytest.raises(StorageError, match="disk full"):
        publish(workspace, staged, {})
    assert current_id(workspace) == before
    assert Bundle.open(workspace).id == before


def staged_with(workspace: Workspace, **files: str) -> Path:
    """A staged folder with the current bundle's entities and some files, ``a__b`` standing for a/b."""
    staged = workspace.bundles.staging()
    Bundle.open(workspace).path("entities.parquet")
    (workspace.bundles / current_id(workspace) / "entities.parquet").fetch(staged / "entities.parquet")
    for name, text in files.items():
        path = staged / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return staged


def test_a_derived_bundle_holds_what_its_parent_does_besides(workspace: Workspace) -> None:
    parent = Bundle.open(workspace)
    manifest, left_out = derive(workspace, staged_with(workspace, lm__a="1"), {"lm": 1}, replaces=["lm/"])
    assert left_out == ""
    assert manifest.parent == parent.id
    assert set(manifest.files) == {*parent.manifest.files, "lm/a"}
    assert manifest.settings == parent.manifest.settings | {"lm": 1}
    again, _ = derive(workspace, staged_with(workspace, lm__b="2"), {"lm": 2}, replaces=["lm/"])
    assert set(again.files) == {*parent.manifest.files, "lm/b"}, "what is replaced is not carried over"
    Bundle.open(workspace, parent.id)
    bundle = Bundle.open(workspace)
    assert VectorIndex.read(bundle.path(INDEX)).vectors_ND.shape == (500, 16)
    assert bundle.path(INDEX).stat().st_nlink == 3, "no second copy on the disk"


def test_nothing_is_carried_over_to_other_entities(workspace: Workspace, tmp_path: Path) -> None:
    parent = current_id(workspace)
    staged = workspace.bundles.staging()
    write_entities(staged / "entities.parquet", ["another"])
    manifest, left_out = derive(workspace, staged, {"lm": 1}, replaces=["lm/"])
    assert left_out == f"left out of the new bundle: index of {parent}, which has other entities"
    assert set(manifest.files) == {"entities.parquet"}
    assert (manifest.parent, manifest.settings) == (parent, {"lm": 1})


def test_what_fits_the_same_names_is_carried_over_whatever_their_details(workspace: Workspace) -> None:
    parent = Bundle.open(workspace)
    staged = workspace.bundles.staging()
    names = parent.vocabulary.names
    write_entities(staged / "entities.parquet", names, aliases={names[0]: ["another spelling"]})
    manifest, left_out = derive(workspace, staged, {"lm": 1}, replaces=["lm/"])
    assert left_out == ""
    assert set(manifest.files) == set(parent.manifest.files)
    assert Bundle.open(workspace).vocabulary.find("another spelling") == 0


def test_the_first_bundle_has_nothing_to_carry_over(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    staged = workspace.bundles.staging()
    write_entities(staged / "entities.parquet", ["one"])
    manifest, left_out = derive(workspace, staged, {}, replaces=[])
    assert (manifest.parent, left_out) == (None, "")


def test_a_derived_bundle_in_a_bucket_is_whole(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    workspace = Workspace.open(f"{s3}/w")
    publish_vectors(workspace, ["a", "b"], {"mask": np.eye(2)})
    derive(workspace, staged_with(workspace, lm__a="1"), {"lm": 1}, replaces=["lm/"])
    bundle = Bundle.open(workspace)
    assert bundle.path("lm/a").read_text() == "1"
    assert VectorIndex.read(bundle.path(INDEX)).vectors_ND.shape == (2, 2)


def two_bundles(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The ids of an older bundle and of the current one, published at times a day apart."""
    old = current_id(workspace)
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda _: later), UTC=None)
    monkeypatch.setattr("engine.storage.publishing.datetime", clock)
    new = publish_vectors(workspace, ["a", "b"], {"mask": np.eye(2)}).id
    return old, new


def test_bundles_are_listed_newest_first_and_what_is_none_is_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = two_bundles(workspace, monkeypatch)
    folders = Path(workspace.bundles.path)
    (folders / "half").mkdir()
    (folders / "half" / "entities.parquet").write_bytes(b"x")
    (folders / "torn").mkdir()
    (folders / "torn" / "manifest.json").write_text("{")
    shutil.copytree(folders / old, folders / "renamed")
    (folders / f".{old}-old-1").mkdir()
    (folders / f".{old}-old-1" / "manifest.json").write_text("{")
    found, broken = listing(workspace)
    assert [m.id for m in found] == [new, old]
    assert {name: reason.split(": ", 1)[1][:20] for name, reason in broken.items()} == {
        "half": "no manifest.json, so",
        "torn": "not a manifest: 1 va",
        "renamed": f"of bundle '{old[:9]}",
    }
    assert listing(Workspace.open(folders / "nowhere")) == ([], {})


def test_an_older_bundle_is_pointed_to_and_back(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = two_bundles(workspace, monkeypatch)
    assert current_id(workspace) == new
    assert point_to(workspace, old).id == old
    assert Bundle.open(workspace).id == old
    point_to(workspace, new)
    assert Bundle.open(workspace).id == new


@pytest.mark.parametrize(("damage", "reason"), [(remove, "missing"), (flip, "checksum"), (truncate, "bytes")])
@pytest.mark.parametrize("name", [INDEX, "entities.parquet"])
def test_a_damaged_bundle_is_not_pointed_to(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, damage, reason: str, name: str
) -> None:
    old, new = two_bundles(workspace, monkeypatch)
    damage(Path(workspace.bundles.path) / old / name)
    with pytest.raises(BundleError, match=rf"'{name}'.*{reason}"):
        point_to(workspace, old)
    assert current_id(workspace) == new


@pytest.mark.parametrize("name", ["", "nothing", "../corpus", "../bundles/{}", "{}/"])
def test_what_is_no_bundles_name_is_not_pointed_to(workspace: Workspace, name: str) -> None:
    before = current_id(workspace)
    with pytest.raises(BundleError):
        point_to(workspace, name.format(before))
    assert current_id(workspace) == before


def test_a_bundle_that_a_bucket_lost_a_file_of_is_not_pointed_to(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    workspace = Workspace.open(f"{s3}/w")
    old = publish_vectors(workspace, ["a", "b"], {"mask": np.eye(2)}).id  # is whole in the cache from now on
    new = publish_vectors(workspace, ["a", "c"], {"mask": np.eye(2)}).id
    assert {m.id for m in listing(workspace)[0]} == {old, new}
    point_to(workspace, old)
    assert current_id(workspace) == old
    point_to(workspace, new)
    (workspace.bundles / old / INDEX).delete()
    with pytest.raises(BundleError, match="missing"):
        point_to(workspace, old)
    assert current_id(workspace) == new
