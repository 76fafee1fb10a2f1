import hashlib
import os
import unicodedata
from pathlib import Path
from typing import NoReturn

import pyarrow.fs as pafs
import pytest

from engine.corpus.image_addresses import address_in
from engine.errors import StorageError
from engine.images.decode import UnusableImageError
from engine.images.fetch import ImageFiles, ImageHasher
from engine.refusals import Code, Refusal
from engine.storage import store as stores
from engine.storage.alike_paths import alike, existing
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from tests.support.images import image_bytes


def test_an_address_of_an_unknown_kind_is_refused_and_stops_nothing(tmp_path: Path) -> None:
    """The importer lets none through; a corpus may be older than that, or written by someone else."""
    sha256, refusal = ImageHasher(str(tmp_path)).hashed("http://example.org/x.png")
    assert sha256 == ""
    assert refusal is not None
    assert refusal.code is Code.IMAGE_ADDRESS
    assert "only local paths and s3://" in refusal.detail


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    hasher = ImageHasher(str(tmp_path / "w"))
    irregular = Refusal(Code.IMAGE_UNREADABLE, "cannot be read: not a regular file")
    for name in ("pipe.png", "folder.png", "link.png"):
        assert hasher.hashed(str(tmp_path / name)) == ("", irregular)
    missing = Refusal(Code.IMAGE_MISSING, "missing: no such file")
    assert hasher.hashed(str(tmp_path / "none.png")) == ("", missing)


@pytest.mark.parametrize(
    "spelt",
    [
        "my images/Caf\u00e9 1.png",
        "my%20images/Caf%C3%A9%201.png",
        "my images\\Caf\u00e9 1.png",
        ".\\my images\\caf\u00e9 1.PNG",
        "My Images/CAF\u00c9 1.png",
        "my\u00a0images/Cafe\u0301 1.png",
        "my images//./Caf\u00e9  1.png",
        "file://localhost{folder}/my%20images/Caf%C3%A9%201.png",
        "FILE://{folder}/my images/Caf\u00e9 1.png",
    ],
)
@pytest.mark.parametrize("decomposed", [False, True])
def test_an_image_is_found_however_its_path_is_spelt(tmp_path: Path, spelt: str, decomposed: bool) -> None:
    folder = tmp_path / "my images"
    folder.mkdir()
    (folder / unicodedata.normalize("NFD" if decomposed else "NFC", "Caf\u00e9 1.png")).write_bytes(
        image_bytes("red")
    )
    (folder / "Cafe 1.png").write_bytes(image_bytes("blue"))  # another letter, another file
    address = address_in(Store.open(tmp_path), spelt.replace("{folder}", str(tmp_path)))
    sha256, refusal = ImageHasher(str(tmp_path / "w")).hashed(address)
    assert refusal is None
    assert sha256 == hashlib.sha256(image_bytes("red")).hexdigest()
    assert Workspace.open(tmp_path / "w").image(address).read_bytes() == image_bytes("red")


def test_the_exact_path_comes_first_and_nobody_is_guessed(tmp_path: Path) -> None:
    for name in ("a.png", "A.png", "b%20c.png", "b c.png"):
        (tmp_path / name).write_bytes(name.encode())
    image = Workspace.open(tmp_path / "w").image
    for name in ("a.png", "A.png", "b%20c.png", "b c.png"):
        assert image(str(tmp_path / name)).read_bytes() == name.encode()
    _, refusal = ImageHasher(str(tmp_path / "w")).hashed(str(tmp_path / "a.PNG"))
    assert refusal is not None
    assert sorted(refusal.detail.partition("alike are ")[2].split(", ")) == ["'A.png'", "'a.png'"]


@pytest.mark.parametrize(
    "spelt", ["none.png", "no folder/x.png", "images%2f..%2f..%2fx.png", "x\ud83d.png", "x\0.png"]
)
def test_what_is_nowhere_is_missing(tmp_path: Path, spelt: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "x.png").write_bytes(b"x")
    store = Store.open(tmp_path) / "images" / spelt
    assert alike(store) == []
    assert existing(store) == store


def test_an_image_in_a_bucket_is_found_likewise(s3: str, tmp_path: Path) -> None:
    (Store.open(s3) / "my images" / "Café 1.png").write_bytes(image_bytes("red"))
    for spelt in ("my%20images/Caf%C3%A9%201.png", "My Images\\Cafe\u0301 1.PNG"):
        sha256, refusal = ImageHasher(str(tmp_path / "w")).hashed(f"{s3}/{spelt}")
        assert refusal is None
        assert sha256 == hashlib.sha256(image_bytes("red")).hexdigest()


class Unreachable(pafs.LocalFileSystem):
    """A file system whose network or disk fails."""

    def open_input_file(self, path: str) -> NoReturn:
        raise OSError(5, "Input/output error")


def test_what_cannot_be_reached_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk's fault costs the image, with its reason; a bucket's ends the work, which goes on from there."""
    monkeypatch.setattr(stores, "open_object", Unreachable().open_input_file)
    files = ImageFiles(Workspace.open(tmp_path))
    for local in (True, False):
        store = Store(Unreachable(), f"{tmp_path}/red.png", local)
        files._buckets["far"] = Store(Unreachable(), "far", local)
        with pytest.raises(StorageError, match="Input/output error"):
            store.open_input()
        kind = UnusableImageError if local else StorageError
        with pytest.raises(kind, match="Input/output error"):
            files.read("s3://far/red.png")
