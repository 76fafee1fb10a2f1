"""Open bundles: versioned, checksummed sets of a pipeline's artifacts.

``bundles/<id>/manifest.json`` lists every other file with its size and sha256; ``bundles/CURRENT``
names the bundle that is used. A bundle is never changed after it was published
(:mod:`engine.storage.publishing`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import BundleError
from engine.storage.local_files import locked
from engine.storage.manifests import VersionedManifest, format_fault
from engine.storage.store import Store, machine_cache, sha256_of
from engine.storage.workspace import Workspace
from engine.vocabulary import Vocabulary

MANIFEST = "manifest.json"

_NAME = re.compile(r"\w[\w.-]*", re.ASCII)

_OF_IMAGES = (
    "it is made of a corpus with images: run `seedset image-features`, `seedset preprocess --images`, "
    "`seedset train-encoder --modality text+image` and `seedset build-index`"
)

_OF_CONTRAST = (
    "run `seedset train-encoder --contrast newest{}`, and `seedset build-index` after it, which makes it"
)

_OF_TYPES = "run `seedset build-index --types newest`, with a model of `seedset train-typing`, which makes it"

MADE_BY = {
    "lm": "run `seedset pretrain-lm`, which publishes a language model with the trie of all names",
    "trie": "run `seedset pretrain-lm`, which publishes a language model with the trie of all names",
    "index/image.": _OF_IMAGES,
    "index/multimodal.": _OF_IMAGES,
    "distributions/multimodal": _OF_IMAGES,
    "index/contrast.": _OF_CONTRAST.format(""),
    "contrast": _OF_CONTRAST.format(" --seed-text"),
    "index/types.": _OF_TYPES,
    "types": _OF_TYPES,
    "typing": _OF_TYPES,
    "index/": "run `seedset build-index`, which makes it",
    "distributions/": "run `seedset build-index`, which makes them of an encoder that `seedset "
    "train-encoder` has trained",
    "skipgrams": "run `seedset build-index` again, which makes it",
    "probing": "run `seedset build-index --class-names`, which makes it",
}
"""How to get what a bundle may lack, by the beginning of its name: the first that fits counts."""

T = TypeVar("T")


class FileEntry(BaseModel):
    """Size in bytes and sha256 of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(VersionedManifest):
    """The manifest of a bundle: its files and what it was made from."""

    anew = "run `seedset build-index`, and `seedset pretrain-lm` for its language model, which make one anew"

    id: str
    format_version: str = "1.1"
    """1.1 names what made the files."""
    created: str
    parent: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its manifest and a local folder with its files, checked."""

    manifest: Manifest
    folder: Path
    _read: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    workspace: Workspace | None = field(default=None, repr=False, compare=False)
    """Where it was opened; None: the folder alone is known."""

    @classmethod
    def open(
        cls, workspace: Workspace, bundle_id: str | None = None, only: Sequence[str] | None = None
    ) -> Bundle:
        """Open a bundle (the current one if none is named) and check every file of it.

        A bundle in a bucket is copied to a local cache first, once a machine.

        Args:
            workspace: that holds it.
            bundle_id: its name.
            only: names of files; what is opened holds no others, and they are neither copied nor checked.

        Raises:
            BundleError: none was published, or a file is missing, has another size or another checksum.
        """
        chosen = bundle_id is not None
        bundle_id = bundle_id or current_id(workspace)
        source = workspace.bundles / bundle_id
        try:
            manifest = manifest_of(workspace, bundle_id)
        except BundleError as error:
            if chosen:
                raise
            raise BundleError(f"{error}; {choosing(workspace)}", error.public_message) from None
        if only is not None:
            manifest = manifest.model_copy(
                update={"files": {n: entry for n, entry in manifest.files.items() if n in only}}
            )
        folder = Path(source.path) if source.is_local else _fetch(source, manifest)
        check_files(Store.open(folder), manifest)
        return cls(manifest, folder, workspace=workspace)

    @property
    def id(self) -> str:
        """The bundle's name."""
        return self.manifest.id

    def path(self, name: str) -> Path:
        """Return the local path of a file or folder of the bundle.

        Raises:
            BundleError: the bundle has no such file; says what makes it.
        """
        if name not in self.manifest.files and not any(
            file.startswith(f"{name}/") for file in self.manifest.files
        ):
            how = f"; {made_by}" if (made_by := how_made(name)) else ""
            raise BundleError(f"bundle {self.id}: holds no {name!r}{how}; it holds {self._listing(name)}")
        return self.folder / name

    def check_present(self) -> None:
        """Check that the files are still where they were opened, by their sizes. What is in memory stays.

        Raises:
            BundleError: names the first file that is missing or has another size, and the way out.
        """
        for name, entry in self.manifest.files.items():
            try:
                whole = (self.folder / name).stat().st_size == entry.size
            except OSError as error:
                raise lost_file(self.id, name, error) from None
            if not whole:
                raise lost_file(self.id, name, ValueError())

    def once(self, name: str, read: Callable[[Path], T]) -> T:
        """Return ``read(path of name)``, read the first time only: the stages of a process share it."""
        if name not in self._read:
            self._read[name] = read(self.path(name))
        found: T = self._read[name]
        return found

    def provide(self, name: str, value: object) -> None:
        """Let :meth:`once` return ``value`` for a file, such as a client of who holds it elsewhere."""
        self._read[name] = value

    def provided(self, name: str) -> object | None:
        """Return what was provided, or read already, under a name; None: nothing was."""
        return self._read.get(name)

    def _listing(self, name: str) -> str:
        """Return the files beside a name, and of other folders the names alone."""
        beside = name.split("/")[0]
        shown = {file if file.split("/")[0] == beside else file.split("/")[0] for file in self.manifest.files}
        return ", ".join(sorted(shown))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The entities that can be ranked."""
        return Vocabulary.read(self.path("entities.parquet"))


def how_made(name: str) -> str:
    """Return in words how a bundle comes by a file or folder; nothing where it is not known."""
    return next((how for what, how in MADE_BY.items() if name.startswith(what)), "")


def lost_file(bundle_id: str, name: str, error: Exception) -> BundleError:
    """Return the error of a file of an open bundle that cannot be read any more."""
    number = getattr(error, "errno", None)
    reason = os.strerror(number) if number else "it is cut off or changed"
    return BundleError(
        f"bundle {bundle_id}: {name!r} cannot be read any more ({reason}), though the bundle is served; put "
        "its folder back, or publish it again, or serve another (`seedset bundles --use ID`)"
    )


def current_id(workspace: Workspace) -> str:
    """Return the id of the bundle in use.

    Raises:
        BundleError: nothing was published yet.
    """
    pointed = pointer(workspace).read_if_there()
    if pointed is None:
        raise BundleError(
            f"{workspace.root.uri}: no bundle was published yet; run `seedset build-index "
            f"--workspace {workspace.root.uri}`",
            public="no bundle was published yet",
        )
    name = pointed.decode(errors="replace").strip()
    if not _NAME.fullmatch(name):
        unnamed = f"names no bundle ({name[:40]!r})"
        raise BundleError(f"{pointer(workspace).uri}: {unnamed}; {choosing(workspace)}", f"CURRENT {unnamed}")
    return name


def pointer(workspace: Workspace) -> Store:
    """Return the file that names the bundle in use."""
    return workspace.bundles / "CURRENT"


def choosing(workspace: Workspace) -> str:
    """Return in words how to choose another bundle."""
    return (
        f"choose a whole bundle with `seedset bundles --workspace {workspace.root.uri} --use ID`, or delete "
        f"{pointer(workspace).uri} to begin without one"
    )


def listing(workspace: Workspace) -> tuple[list[Manifest], dict[str, str]]:
    """Return a workspace's bundles, newest first, and by name why other folders beside them are none."""
    root = workspace.bundles
    inside = (file.path[len(root.path) + 1 :].split("/") for file in root.files())
    names = {folder for folder, *rest in inside if rest and not folder.startswith(".")}
    found: list[Manifest] = []
    broken: dict[str, str] = {}
    for name in sorted(names):
        try:
            found.append(manifest_of(workspace, name))
        except BundleError as error:
            broken[name] = str(error)
    return sorted(found, key=lambda manifest: manifest.created, reverse=True), broken


def check_files(folder: Store, manifest: Manifest, contents: bool = True) -> None:
    """Compare every file with the manifest, sizes before contents.

    Args:
        folder: of the bundle.
        manifest: that lists them.
        contents: compare checksums too, for which every byte is read.

    Raises:
        BundleError: names the first file that is missing or differs.
    """
    for name, entry in manifest.files.items():
        size = (folder / name).size()
        if size < 0:
            raise BundleError(f"bundle {manifest.id}: the file {name!r} is missing; publish it again")
        if size != entry.size:
            raise BundleError(
                f"bundle {manifest.id}: {name!r} has {size} bytes, the manifest says {entry.size}; "
                "publish it again"
            )
    for name, entry in manifest.files.items() if contents else ():
        if (folder / name).sha256() != entry.sha256:
            raise BundleError(f"bundle {manifest.id}: {name!r} fails its checksum; publish it again")


def manifest_of(workspace: Workspace, bundle_id: str) -> Manifest:
    """Return the manifest of a bundle, checked to be that of this name."""
    source = workspace.bundles / bundle_id
    if not (source / MANIFEST).exists():
        missing = f"no {MANIFEST}, so there is no such bundle"
        raise BundleError(f"{source.uri}: {missing}", public=f"bundle {bundle_id}: {missing}")
    manifest = _read_manifest(source)
    if manifest.id != bundle_id:
        other = f"of bundle {manifest.id!r}, not of the folder's name"
        raise BundleError(f"{source.uri}/{MANIFEST}: {other}", public=f"{bundle_id}/{MANIFEST}: {other}")
    return manifest


def _read_manifest(source: Store) -> Manifest:
    try:
        manifest = Manifest.model_validate_json((source / MANIFEST).read_bytes())
    except ValidationError as error:
        if fault := format_fault(error):
            raise BundleError(f"bundle {source.name}: {fault}") from None
        public = f"{source.name}/{MANIFEST}: not a manifest"
        raise BundleError(f"{source.uri}/{MANIFEST}: not a manifest: {error}", public) from None
    for name in manifest.files:
        if name.startswith("/") or ".." in name.split("/"):
            raise BundleError(f"bundle {manifest.id}: the file name {name!r} leads out of the bundle")
    return manifest


def _fetch(source: Store, manifest: Manifest) -> Path:
    """Copy a bundle to this machine's cache; files that are there whole are kept.

    Of the processes of a machine that open it one copies, and the others wait for it.
    """
    folder = machine_cache() / "bundles" / manifest.id
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        for name, entry in manifest.files.items():
            target = folder / name
            if not (target.is_file() and sha256_of(target) == entry.sha256):
                (source / name).fetch(target)
    return folder
