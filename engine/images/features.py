"""Patch features of a corpus' images on disk: which settings they were made with, and reading them.

A feature belongs to the content of a file, by its sha256, not to its address: what two mentions or two
corpora share is computed and stored once, and a corpus that grows only adds parts.

``images/<key>/part-<id>.npy`` is float16 [n, P, C], ``part-<id>.parquet`` names the n contents in the same
order and is written second: a part counts once it is there. ``index.parquet`` says for every address of the
corpus which content it has, or why none; ``manifest.json`` comes last.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import StorageError
from engine.storage.store import Store, machine_cache
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

MANIFEST, INDEX, CURRENT = "manifest.json", "index.parquet", "CURRENT"

NO_IMAGE = -1
"""The row of a mention without an image, or with one that was refused."""

Rows = npt.NDArray[np.int64]


class ImageSettings(BaseModel):
    """Everything that decides what the features are, apart from the images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    """:meth:`engine.models.vision.VisionBackbone.fingerprint`."""
    patches: Literal["grid", "crop"] = Field(
        default="grid",
        description='"grid": the cells of the last feature map of the whole picture. "crop" (the paper\'s): '
        "6 x 6 pieces of 32 x 32 pixels, each by itself; for ResNet and MobileNet.",
    )
    grid: int = Field(default=7, ge=1, description="Cells a side at most; a larger map is averaged down.")
    """Means nothing for "crop"."""

    def key(self, model: str) -> str:
        """Return the folder name of these settings: readable, and different if anything is.

        Args:
            model: as the user named it; its last part is shown.
        """
        cut = f"grid{self.grid}" if self.patches == "grid" else "crop"
        digest = hashlib.sha256(f"{self.backbone} {cut}".encode()).hexdigest()[:8]
        shown = re.sub(r"[^\w.-]+", "-", model.rstrip("/").rsplit("/", 1)[-1]).strip(".-") or "model"
        return f"{shown}-{cut}-{digest}"


class ImageManifest(BaseModel):
    """``images/<key>/manifest.json``, written last."""

    model_config = ConfigDict(frozen=True)

    settings: ImageSettings
    model: str
    n_patches: int
    dim: int
    parts: dict[str, int]
    """Rows of every part by its id, in the order in which rows are numbered."""
    images: int
    """Addresses in the index."""
    refused: int
    """Of them, those without a feature."""


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


def finished_parts(folder: Store) -> dict[str, pa.Table]:
    """Return the contents (:data:`PART_SCHEMA`) of every whole part below ``images/<key>``, by its id."""
    names = {file.name for file in folder.files(".npy")}
    found: dict[str, pa.Table] = {}
    for file in folder.files(".parquet"):
        name = file.name.removesuffix(".parquet")
        if f"{name}.npy" not in names:
            continue
        try:
            table = read_table(file)
        except pa.ArrowException:
            continue  # broken from outside: made again
        if table.schema.equals(PART_SCHEMA):
            found[name.removeprefix("part-")] = table
    return found


class ImageFeatures:
    """The features of one corpus' images under one key, opened for reading.

    Args:
        folder: ``images/<key>``.
        manifest: of that folder.
        way_out: what to run if something is missing.
    """

    def __init__(self, folder: Store, manifest: ImageManifest, way_out: str) -> None:
        self._folder, self.manifest, self._way_out = folder, manifest, way_out
        self._first = np.cumsum([0, *manifest.parts.values()])
        self._parts = [self._mapped(part) for part in manifest.parts]
        self._rows = self._row_by_address()

    @classmethod
    def open(cls, workspace: Workspace, key: str | None = None) -> ImageFeatures:
        """Open the features of a workspace (from a bucket: copied to this machine first).

        Args:
            workspace: where ``jobs.image_features`` ran.
            key: which backbone and settings (a folder below ``images``); None: what was made last.

        Raises:
            StorageError: none were made, or not all is there.
        """
        way_out = f"run `python -m jobs.image_features --workspace {workspace.root.uri} --model …`"
        if key is None:
            pointer = workspace.images(CURRENT)
            if not pointer.exists():
                raise StorageError(f"{workspace.root.uri}: no image features here yet; {way_out} first")
            key = pointer.read_bytes().decode().strip()
        folder = workspace.images(key)
        if not (folder / MANIFEST).exists():
            raise StorageError(f"{folder.uri}: no such image features, or not complete; {way_out}")
        try:
            manifest = ImageManifest.model_validate_json((folder / MANIFEST).read_bytes())
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise StorageError(f"{folder.uri}/{MANIFEST}: cannot be read ({reason}); {way_out}") from None
        return cls(folder, manifest, way_out)

    @property
    def key(self) -> str:
        """The folder's name, which stands for the backbone and the settings."""
        return self._folder.name

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

    def gather(self, rows: Rows) -> torch.Tensor:
        """Return the features of some rows, float32 [B, P, C]; zeros for -1."""
        features_BPC = np.zeros((len(rows), self.n_patches, self.dim), np.float32)
        parts = np.searchsorted(self._first, rows, side="right") - 1
        for part in np.unique(parts[rows >= 0]):
            places = np.flatnonzero(parts == part)
            features_BPC[places] = self._parts[part][rows[places] - self._first[part]]
        return torch.from_numpy(features_BPC)

    def _mapped(self, part: str) -> npt.NDArray[np.float16]:
        path: Path = self._present(f"part-{part}.npy").local_copy(machine_cache())
        array: npt.NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
        expected = (self.manifest.parts[part], self.n_patches, self.dim)
        if array.shape != expected or array.dtype != np.float16:
            raise StorageError(f"{path}: holds {array.dtype} {array.shape}, not float16 {expected}")
        return array

    def _row_by_address(self) -> Mapping[str, int]:
        rows: dict[str, int] = {}
        for part, first in zip(self.manifest.parts, self._first, strict=False):
            table = read_table(self._present(f"part-{part}.parquet"))
            for place, (sha256, reason) in enumerate(zip(*table.to_pydict().values(), strict=True)):
                rows[sha256] = NO_IMAGE if reason is not None else int(first) + place
        index = read_table(self._present(INDEX)).to_pydict()
        entries = zip(index["image"], index["sha256"], index["reason"], strict=True)
        return {image: NO_IMAGE if why is not None else rows[sha] for image, sha, why in entries}

    def _present(self, name: str) -> Store:
        file = self._folder / name
        if not file.exists():
            raise StorageError(f"{file.uri}: is missing; {self._way_out} again, it makes what is missing")
        return file
