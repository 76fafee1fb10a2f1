"""Decodes and encodes images: the second pass, the work of an actor, which knows nothing of the cluster."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from engine.errors import StorageError, UserError
from engine.images.decode import PictureRefused, Pixels, decode
from engine.images.features import PART_SCHEMA, ImageSettings, part_id
from engine.images.fetch import WAITING_THREADS, ImageFiles
from engine.models.vision import VisionBackbone
from engine.refusals import Refusal
from engine.storage.workspace import Workspace


class ImageMaker:
    """Decodes and encodes a part's contents, a thread's work ahead of the backbone.

    Args:
        workspace: its address.
        model: the backbone's name.
        settings: made with that backbone's fingerprint.
        key: folder below ``images``.
        batch_size: images that are encoded at a time.
    """

    def __init__(
        self, workspace: str, model: str, settings: ImageSettings, key: str, batch_size: int
    ) -> None:
        self._uri, self._model, self._settings = workspace, model, settings
        self._key, self._batch_size = key, batch_size

    @cached_property
    def _workspace(self) -> Workspace:
        return Workspace.open(self._uri)

    @cached_property
    def _files(self) -> ImageFiles:
        return ImageFiles(self._workspace)

    @cached_property
    def backbone(self) -> VisionBackbone:
        """The backbone, on this actor's GPU if it has one, else on one thread."""
        backbone = VisionBackbone.load(self._model, self._settings.patches, self._settings.grid, "--model")
        if backbone.fingerprint() != self._settings.backbone:
            raise UserError(
                f"--model {self._model}: this node has another model under that name than the driver"
            )
        if torch.cuda.is_available():
            return backbone.to(torch.device("cuda"))
        # One thread an actor: two that share a core wait for each other.
        torch.set_num_threads(1)
        return backbone

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[int]]:
        """Make the part of a batch of one; returns its rows."""
        sha256s = [str(sha) for sha in batch["sha256"][0]]
        self.make(sha256s, [str(address) for address in batch["images"][0]])
        return {"rows": [len(sha256s)]}

    def make(self, sha256s: Sequence[str], addresses: Sequence[str]) -> None:
        """Write the part of some contents, each found at the address beside it."""
        name = f"part-{part_id(sha256s)}"
        folder = self._workspace.images(self._key)
        with (folder / f"{name}.npy").writing() as path:
            reasons = self._write(path, sha256s, addresses)
        with (folder / f"{name}.parquet").writing() as path:
            pq.write_table(pa.table([list(sha256s), reasons], schema=PART_SCHEMA), path)

    def _write(self, path: Path, sha256s: Sequence[str], addresses: Sequence[str]) -> list[str | None]:
        """Write the features batch by batch, so that memory does not grow with the part."""
        backbone = self.backbone
        row_shape = (backbone.n_patches, backbone.dim)
        reasons: list[str | None] = []
        with path.open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (len(sha256s), *row_shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for batch in self._decoded(sha256s, addresses):
                good = {i: picture for i, picture in enumerate(batch) if not isinstance(picture, Refusal)}
                features = np.zeros((len(batch), *row_shape), np.float16)
                if good:
                    pixels = torch.from_numpy(np.stack(list(good.values())))
                    features[list(good)] = backbone.encode(pixels).numpy()
                file.write(features.data)
                reasons += [picture.detail if isinstance(picture, Refusal) else None for picture in batch]
        return reasons

    def _decoded(self, sha256s: Sequence[str], addresses: Sequence[str]) -> Iterator[list[Pixels | Refusal]]:
        """Yield the pictures in batches, or why not, always with the next batch at work."""
        work = deque(zip(sha256s, addresses, strict=True))
        ahead: deque[Future[Pixels | Refusal]] = deque()
        threads = WAITING_THREADS if torch.cuda.is_available() else self._files.threads(addresses)
        with ThreadPoolExecutor(threads) as pool:
            while work or ahead:
                while work and len(ahead) < 2 * self._batch_size:
                    ahead.append(pool.submit(self._picture, *work.popleft()))
                yield [ahead.popleft().result() for _ in range(min(self._batch_size, len(ahead)))]

    def _picture(self, sha256: str, address: str) -> Pixels | Refusal:
        try:
            content = self._files.read(address)
        except PictureRefused:
            content = b""  # it was there in the first pass
        if hashlib.sha256(content).hexdigest() != sha256:
            raise StorageError(f"{address}: has changed while the job ran; run it again")
        try:
            return decode(content, self.backbone.side)
        except PictureRefused as error:
            return error.refusal
