"""Decode and encode images: the second pass, wherever it runs."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from engine.errors import StorageError, UserError
from engine.images.decode import Pixels, UnusableImageError, decode
from engine.images.features import PART_SCHEMA, feature_parts, part_id
from engine.images.fetch import WAITING_THREADS, ImageFiles
from engine.images.settings import ImageSettings
from engine.models.device import worker_device
from engine.models.vision import VisionBackbone
from engine.refusals import Refusal
from engine.storage.workspace import Workspace


class Contents(NamedTuple):
    """A part's contents, and for each an address at which it is found."""

    sha256s: Sequence[str]
    addresses: Sequence[str]


class ImageWorker:
    """A worker: decodes and encodes a part's contents, a thread's work ahead of the backbone.

    Args:
        workspace: its address.
        model: the backbone's name.
        settings: made with that backbone's fingerprint.
        key: folder below ``images``.
        batch_size: images that are encoded at a time.

    Raises:
        UserError: the backbone cannot be loaded, or is another one on this node.
    """

    def __init__(
        self, workspace: str, model: str, settings: ImageSettings, key: str, batch_size: int
    ) -> None:
        opened = Workspace.open(workspace)
        self._files, self._parts = ImageFiles(opened), feature_parts(opened.images(key))
        self._batch_size = batch_size
        self._device = worker_device()
        self.backbone = VisionBackbone.load(model, settings.patches, settings.grid, "--model").to(
            self._device
        )
        if self.backbone.fingerprint() != settings.backbone:
            raise UserError(f"--model {model}: this node has another model under that name than the driver")

    def __call__(self, contents: Contents) -> pa.Table:
        """Write a part and return what it holds, as :data:`engine.images.features.PART_SCHEMA`.

        Raises:
            StorageError: a content is no longer what it was, or a bucket cannot be used.
        """
        name = part_id(contents.sha256s)
        with self._parts.writing(name, ".npy") as path:
            reasons = self._write(path, *contents)
        table = pa.table([list(contents.sha256s), reasons], schema=PART_SCHEMA)
        with self._parts.writing(name) as path:
            pq.write_table(table, path)
        return table

    def _write(self, path: Path, sha256s: Sequence[str], addresses: Sequence[str]) -> list[str | None]:
        """Write the features batch by batch, so that memory does not grow with the part."""
        backbone = self.backbone
        row_shape = (backbone.n_patches, backbone.dim)
        reasons: list[str | None] = []
        with path.open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (len(sha256s), *row_shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for batch in self._decoded(sha256s, addresses):
                good = {i: image for i, image in enumerate(batch) if not isinstance(image, Refusal)}
                features = np.zeros((len(batch), *row_shape), np.float16)
                if good:
                    pixels = torch.from_numpy(np.stack(list(good.values())))
                    features[list(good)] = backbone.encode(pixels).numpy()
                file.write(features.data)
                reasons += [image.detail if isinstance(image, Refusal) else None for image in batch]
        return reasons

    def _decoded(self, sha256s: Sequence[str], addresses: Sequence[str]) -> Iterator[list[Pixels | Refusal]]:
        """Yield the images in batches, refusals among them, while the next batch is decoded."""
        work = deque(zip(sha256s, addresses, strict=True))
        ahead: deque[Future[Pixels | Refusal]] = deque()
        threads = WAITING_THREADS if self._device.type == "cuda" else self._files.threads(addresses)
        with ThreadPoolExecutor(threads) as pool:
            while work or ahead:
                while work and len(ahead) < 2 * self._batch_size:
                    ahead.append(pool.submit(self._decode, *work.popleft()))
                yield [ahead.popleft().result() for _ in range(min(self._batch_size, len(ahead)))]

    def _decode(self, sha256: str, address: str) -> Pixels | Refusal:
        try:
            content = self._files.read(address)
        except UnusableImageError:
            content = b""  # it was there in the first pass
        if hashlib.sha256(content).hexdigest() != sha256:
            raise StorageError(f"{address}: has changed while the job ran; run it again")
        try:
            return decode(content, self.backbone.side)
        except UnusableImageError as error:
            return error.refusal
