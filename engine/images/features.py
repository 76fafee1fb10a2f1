"""Describe and read patch features of a corpus' images on disk.

A feature belongs to the content of a file, by its sha256, not to its address: what two mentions or two
corpora share is computed and stored once, and a corpus that grows only adds parts.

``images/<key>`` is a folder of parts (:mod:`engine.storage.parts`): ``part-<id>.npy`` is float16 [n, P, C],
``part-<id>.parquet`` names the n contents in the same order. ``index.parquet`` says for every address of the
corpus which content it has, or why none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from engine.errors import StorageError
from engine.images.settings import ImageSettings
from engine.storage.manifests import VersionedManifest
from engine.storage.npy_rows import HeldRows, NpyRows, Span, mapped_rows, read_spans
from engine.storage.parts import MANIFEST, PartFolder, read_model, read_pointer
from engine.storage.store import Store, machine_cache
from engine.storage.whole import fault_of
from engine.storage.workspace import Workspace

PART_SCHEMA = pa.schema(
    [pa.field("sha256", pa.string(), nullable=False), pa.field("reason", pa.string())],
)
"""``reason``: why this content could not be decoded; its row holds zeros. Null: its row is its feature."""

INDEX_SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
"""``sha256`` is null where the file could not be read, ``reason`` where there is a feature."""

INDEX = "index.parquet"

NO_IMAGE = -1
"""The row of a mention without an image, or with one that was refused."""

Rows = npt.NDArray[np.int64]
Features = TypeVar("Features", npt.NDArray[np.float16], NpyRows)


class ImageManifest(VersionedManifest):
    """The manifest ``images/<key>/manifest.json``, written last."""

    anew = "run `seedset image-features`"

    format_version: str = "1.1"
    """1.1 names what made the parts."""
    settings: ImageSettings
    model: str
    corpus_digest: str = ""
    """Of the corpus whose images these are; empty: of a version that did not say."""
    n_patches: int
    dim: int
    parts: dict[str, int]
    """Rows of every part by its id, in the order in which rows are numbered."""
    images: int
    """Addresses in the index."""
    refused: int
    """Those among them without a feature."""


def part_id(sha256s: Sequence[str]) -> str:
    """Return the name of the part that holds these contents in this order."""
    return hashlib.sha256("\n".join(sha256s).encode()).hexdigest()[:16]


def read_table(file: Store) -> pa.Table:
    """Return a whole Parquet file.

    Raises:
        StorageError: it is not there.
        pa.ArrowException: it is not whole.
    """
    with file.open_input() as stream:
        return pq.read_table(stream)


def feature_parts(folder: Store) -> PartFolder[pa.Table]:
    """Return the parts below ``images/<key>``; of each its contents are known, as :data:`PART_SCHEMA`."""
    return PartFolder(folder, (".npy", ".parquet"), _read_contents, fault_of)


def _read_contents(file: Store) -> pa.Table:
    table = read_table(file)
    if not table.schema.equals(PART_SCHEMA):
        raise ValueError(f"{file.uri}: has the columns {table.schema.names}")
    return table


class ImageFeatures:
    """The features of one corpus' images under one key, opened for reading.

    Args:
        folder: ``images/<key>``.
        manifest: of that folder.
        way_out: what to run if something is missing.
    """

    def __init__(self, folder: Store, manifest: ImageManifest, way_out: str) -> None:
        self._folder, self.manifest, self._way_out = folder, manifest, way_out
        self._files = feature_parts(folder)
        self._files.check_complete(manifest.parts, f"{way_out} again")
        self._first, self._names = np.cumsum([0, *manifest.parts.values()]), list(manifest.parts)
        self._parts: list[npt.NDArray[np.float16] | NpyRows | HeldRows] = [
            self._opened(part) for part in manifest.parts
        ]
        self._rows = self._row_by_address()

    @classmethod
    def open(cls, workspace: Workspace, key: str | None = None) -> ImageFeatures:
        """Open the features of a workspace.

        On a disk they are mapped. From a bucket nothing is copied: rows are read when they are asked for, but
        for those that are held (:meth:`hold`).

        Args:
            workspace: where ``seedset image-features`` ran.
            key: which backbone and settings (a folder below ``images``); None: what was made last.

        Raises:
            StorageError: none were made, or not all is there.
        """
        way_out = f"run `seedset image-features --workspace {workspace.root.uri} --model …`"
        if key is None:
            key = read_pointer(workspace.root / "images")
        if key is None:
            raise StorageError(f"{workspace.root.uri}: no image features here yet; {way_out} first")
        folder = workspace.images(key)
        if not (folder / MANIFEST).exists():
            raise StorageError(f"{folder.uri}: no such image features, or not complete; {way_out}")
        return cls(folder, read_model(folder / MANIFEST, ImageManifest, way_out), way_out)

    @property
    def key(self) -> str:
        """The folder's name, which stands for the backbone and the settings."""
        return self._folder.name

    @property
    def uri(self) -> str:
        """Where the features are."""
        return self._folder.uri

    @cached_property
    def digest(self) -> str:
        """A digest of which content every address has: the key does not say what was in the files."""
        digest = hashlib.sha256()
        for image, sha256 in sorted(self._sha256s.items()):
            digest.update(f"{image}\0{sha256}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()[:16]

    @property
    def n_patches(self) -> int:
        """Patches of an image, P."""
        return self.manifest.n_patches

    @property
    def dim(self) -> int:
        """Dimensions of a patch, C."""
        return self.manifest.dim

    def rows_of(self, addresses: Sequence[str | None]) -> Rows:
        """Return the row of each mention's image, int64 [n]; -1 where there is none or it was refused.

        Raises:
            StorageError: an address that was not in the corpus when the features were made.
        """
        try:
            rows = [NO_IMAGE if address is None else self._rows[address] for address in addresses]
        except KeyError as error:
            raise StorageError(
                f"{self._folder.uri}: knows no image {error.args[0]!r}; the corpus has changed since: "
                f"{self._way_out} again, it makes what is missing"
            ) from None
        return np.array(rows, np.int64)

    @property
    def refused(self) -> list[str]:
        """The addresses of images that could not be used."""
        return [address for address, row in self._rows.items() if row == NO_IMAGE]

    def hold(self, rows: Rows) -> None:
        """Copy the features of some rows from a bucket to this machine, for who reads them more than once.

        Of a part of which they are at least half, the whole file is copied into the machine's cache, where
        other processes find it. On a disk nothing is copied.

        Args:
            rows: in any order; -1: no row.
        """
        for part, source, own in self._to_copy(rows):
            name = self._names[part]
            if source.mapped is not None or 2 * len(own) >= self.manifest.parts[name]:
                self._parts[part] = self._mapped(self._file(name).local_copy(machine_cache()), name)
            else:
                self._parts[part] = HeldRows(self._checked(source, name), own - self._first[part])

    def bytes_to_hold(self, rows: Rows) -> int:
        """Return how much :meth:`hold` copies for some rows: nothing of files that were copied before."""
        missing = [one for one in self._to_copy(rows) if one[1].mapped is None]
        sizes = [(self.manifest.parts[self._names[part]], len(own)) for part, _, own in missing]
        copied = sum(there if 2 * wanted >= there else wanted for there, wanted in sizes)
        return 2 * copied * self.n_patches * self.dim

    def _to_copy(self, rows: Rows) -> Iterator[tuple[int, NpyRows, Rows]]:
        """Yield of some rows those, ascending, that each part in a bucket has, with its number."""
        rows = np.unique(rows[rows != NO_IMAGE])
        for part, places in self._by_part(rows):
            source = self._parts[part]
            if isinstance(source, NpyRows):
                yield part, source, rows[places]

    def gather(self, rows: Rows) -> torch.Tensor:
        """Return the features of some rows, float32 [B, P, C]; zeros for -1."""
        features_BPC = np.zeros((len(rows), self.n_patches, self.dim), np.float32)
        places, spans = [], []
        for part, own in self._by_part(rows):
            source, wanted = self._parts[part], rows[own] - self._first[part]
            if isinstance(source, np.ndarray):
                features_BPC[own] = source[wanted]
                continue
            if isinstance(source, HeldRows):
                held, found = source.take(wanted)
                features_BPC[own[held]] = found
                own, wanted, source = own[~held], wanted[~held], source.source
            places += own.tolist()
            checked = self._checked(source, self._names[part]) if len(wanted) else source
            spans += [Span(checked, row, row + 1) for row in wanted.tolist()]
        for place, found in zip(places, read_spans(spans), strict=True):
            features_BPC[place] = found[0]
        return torch.from_numpy(features_BPC)

    def _by_part(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        """Yield the number of each part that some rows are in, and the places of those among them."""
        parts = np.searchsorted(self._first, rows, side="right") - 1
        for part in np.unique(parts[rows != NO_IMAGE]).tolist():
            yield part, np.flatnonzero(parts == part)

    def _file(self, part: str) -> Store:
        return self._files.file(part, ".npy")

    def _opened(self, part: str) -> npt.NDArray[np.float16] | NpyRows:
        file = self._file(part)
        return self._mapped(Path(file.path), part) if file.is_local else NpyRows(file)

    def _mapped(self, path: Path, part: str) -> npt.NDArray[np.float16]:
        return self._checked(mapped_rows(path), part)

    def _checked(self, rows: Features, part: str) -> Features:
        expected = (self.manifest.parts[part], self.n_patches, self.dim)
        if rows.shape != expected or rows.dtype != np.float16:
            raise StorageError(
                f"{self._file(part).uri}: holds {rows.dtype} {rows.shape}, not float16 {expected}"
            )
        return rows

    def _row_by_address(self) -> Mapping[str, int]:
        rows: dict[str, int] = {}
        for part, first in zip(self.manifest.parts, self._first, strict=False):
            table = self._files.read(self._files.file(part))
            for place, (sha256, reason) in enumerate(zip(*table.to_pydict().values(), strict=True)):
                rows[sha256] = NO_IMAGE if reason is not None else int(first) + place
        file = self._folder / INDEX
        if not file.exists():
            raise StorageError(f"{file.uri}: is missing; {self._way_out} again, it makes what is missing")
        index = read_table(file).to_pydict()
        self._sha256s = dict(zip(index["image"], index["sha256"], strict=True))
        entries = zip(index["image"], index["sha256"], index["reason"], strict=True)
        return {image: NO_IMAGE if why is not None else rows[sha] for image, sha, why in entries}
