"""Bundles that are published at once, and those whose parent is not whole."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.errors import BundleError
from engine.storage import bundle as bundles
from engine.storage.bundle import Bundle, current_id, listing
from engine.storage.publishing import check_current, derive, publish
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from tests.support.bundles import publish_vectors, write_entities


@pytest.fixture(params=["local", "bucket"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with a bundle of two entities, here or in a bucket."""
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    root = request.getfixturevalue("s3") if request.param == "bucket" else tmp_path
    found = Workspace.open(f"{root}/w")
    publish_vectors(found, ["a", "b"], {"mask": np.eye(2)})
    return found


def staged_with(workspace: Workspace, name: str, text: str) -> Path:
    staged = workspace.bundles.staging()
    write_entities(staged / "entities.parquet", ["a", "b"])
    (staged / name).parent.mkdir(exist_ok=True)
    (staged / name).write_text(text)
    return staged


def derived(workspace: Workspace, name: str, text: str) -> bundles.Manifest:
    staged = staged_with(workspace, name, text)
    return derive(workspace, staged, {name: text}, replaces=[f"{name.partition('/')[0]}/"])[0]


def meanwhile(monkeypatch: pytest.MonkeyPatch, workspace: Workspace, names: list[str]) -> None:
    """Let other jobs publish these files, one each time, just before a pointer is moved."""
    replace, others = Store.replace_bytes, list(names)

    def later(self: Store, content: bytes, expected: bytes | None) -> bool:
        if others:
            name, others[:] = others[0], others[1:]
            with monkeypatch.context() as inner:
                inner.setattr(Store, "replace_bytes", replace)
                derived(workspace, name, "theirs")
        return replace(self, content, expected)

    monkeypatch.setattr(Store, "replace_bytes", later)


def test_what_two_jobs_publish_at_once_is_in_one_bundle(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch, workspace, ["lm/a"])
    ours = derived(workspace, "trie/b", "ours")
    bundle = Bundle.open(workspace)
    assert bundle.id == ours.id == current_id(workspace)
    assert bundle.path("lm/a").read_text() == "theirs"
    assert bundle.path("trie/b").read_text() == "ours"
    assert bundle.path("index/mask.faiss").is_file()
    assert (ours.settings["lm/a"], ours.settings["trie/b"]) == ("theirs", "ours")


def test_jobs_that_publish_all_the_time_are_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch, workspace, [f"lm/{n}" for n in range(9)])
    with pytest.raises(BundleError, match=r"CURRENT: other jobs publish all the time.*run the command again"):
        derived(workspace, "trie/b", "ours")
    assert Bundle.open(workspace).path("lm/4").read_text() == "theirs"


def test_the_same_content_is_there_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    first = derived(workspace, "lm/a", "1")
    monkeypatch.setattr(Store, "publish_folder", None)  # would fail
    assert publish(workspace, staged_of(workspace, first), first.settings) == first
    assert current_id(workspace) == first.id


def staged_of(workspace: Workspace, manifest: bundles.Manifest) -> Path:
    staged = workspace.bundles.staging()
    for name in manifest.files:
        (workspace.bundles / manifest.id / name).fetch(staged / name)
    return staged


def test_a_bundle_that_is_not_whole_is_written_again(workspace: Workspace) -> None:
    first = derived(workspace, "lm/a", "1")
    staged = staged_of(workspace, first)
    (workspace.bundles / first.id / "lm/a").write_bytes(b"2")
    assert publish(workspace, staged, first.settings).id == first.id
    assert Bundle.open(workspace).path("lm/a").read_text() == "1"


WAY_OUT = r"the current bundle cannot be built upon: .*seedset bundles --workspace \S+/w --use ID.*or delete"


@pytest.mark.parametrize("lost", ["", "/index/mask.faiss", "/manifest.json"])
def test_a_current_bundle_that_is_gone_is_named_before_the_work(workspace: Workspace, lost: str) -> None:
    before = current_id(workspace)
    assert check_current(workspace) is not None
    Store(workspace.root.fs, f"{workspace.bundles.path}/{before}{lost}", workspace.root.is_local).delete()
    with pytest.raises(BundleError, match=WAY_OUT):
        check_current(workspace)
    with pytest.raises(BundleError, match=WAY_OUT):
        derived(workspace, "lm/a", "1")
    assert current_id(workspace) == before, "what it held is not dropped without a word"
    if "mask" not in lost:  # else a copy of it may be whole on this machine
        with pytest.raises(BundleError, match=r"no such bundle; choose .*--use ID"):
            Bundle.open(workspace)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\n", b"../corpus", b"a b"])
def test_a_pointer_that_names_no_bundle_is_named(tmp_path: Path, content: bytes) -> None:
    workspace = Workspace.open(tmp_path)
    (workspace.bundles / "CURRENT").write_bytes(content)
    for read in (current_id, check_current):
        with pytest.raises(BundleError, match=r"bundles/CURRENT: names no bundle .*--use ID"):
            read(workspace)


def test_without_a_bundle_there_is_nothing_to_check(tmp_path: Path) -> None:
    assert check_current(Workspace.open(tmp_path)) is None
    assert listing(Workspace.open(tmp_path)) == ([], {})


@pytest.mark.parametrize("reason", [errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK])
def test_a_disk_without_links_takes_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    workspace = Workspace.open(tmp_path)
    publish_vectors(workspace, ["a", "b"], {"mask": np.eye(2)})

    def refused(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "link", refused)
    derived(workspace, "lm/a", "1")
    assert Bundle.open(workspace).path("index/mask.faiss").stat().st_nlink == 1


def test_a_file_that_is_gone_is_not_linked(tmp_path: Path) -> None:
    gone = Store.open(tmp_path / "gone")
    with pytest.raises(Exception, match=re.escape("gone: no such file")):
        gone.link_or_fetch(tmp_path / "copy")
    shutil.copy(__file__, gone.path)
    assert gone.link_or_fetch(tmp_path / "copy").samefile(gone.path)


def test_a_bundle_names_what_made_it_and_its_id_does_not_depend_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, vectors = ["a", "b"], {"mask": np.eye(2)}
    ours = publish_vectors(Workspace.open(tmp_path / "a"), names, vectors).manifest
    assert [one["seedset"] for one in ours.made_by]
    assert ours.made_by[0].keys() >= {"seedset", "python", "torch", "faiss-cpu", "tokenizers"}
    other = {"seedset": "99.0", "torch": "99.0"}
    monkeypatch.setattr("engine.storage.publishing.versions_of", lambda libraries: other)
    workspace = Workspace.open(tmp_path / "b")
    theirs = publish_vectors(workspace, names, vectors).manifest
    assert (theirs.id, theirs.made_by) == (ours.id, (other,))
    monkeypatch.undo()
    assert publish_vectors(workspace, names, vectors).manifest.made_by == (other,), "made before, and kept"
    child, _ = derive(workspace, staged_with(workspace, "note.txt", "new"), {}, replaces=["nothing/"])
    assert child.made_by == (other, *ours.made_by), "its index was carried over"
