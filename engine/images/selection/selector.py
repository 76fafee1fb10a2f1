"""Select images with models: from addresses and sentences to the scores of equation 1 (MESED).

Independent of its caller. Neighbouring records often share candidates
(the images of one entity), so the vectors of an address are cached.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from engine.corpus.image_addresses import fault_of_address
from engine.images.decode import Pixels, UnusableImageError, decode
from engine.images.fetch import ImageFiles
from engine.images.selection.scoring import Floats, Scores, score_candidates
from engine.images.selection.settings import SelectionSettings
from engine.images.selection.table import SelectionRecord
from engine.models.clip import ClipEncoder
from engine.models.detector import PARTS, WHOLE, Box, ObjectFinder, cut_out
from engine.models.device import worker_device
from engine.models.vision import VisionBackbone
from engine.refusals import Refusal

Item = TypeVar("Item")
Key = TypeVar("Key")
Value = TypeVar("Value")

BATCH = 16
"""Images that go through a model at a time."""

REMEMBERED = 1024
"""Addresses; ten objects of 2,048 numbers each are 80 KiB, so at most 80 MiB."""


@dataclass(frozen=True)
class ImageVectors:
    """The vectors of an image: its own in CLIP's space, [d], and its objects', [k, c]."""

    image: Floats
    objects: Floats | None


@dataclass(frozen=True)
class SelectionResult:
    """The result of a record: usable candidates with their scores, and refused ones with the reason."""

    record: SelectionRecord
    usable: list[str] = field(default_factory=list)
    scores: Scores | None = None
    refused: dict[str, Refusal] = field(default_factory=dict)

    def best(self) -> tuple[str, float] | None:
        """Return the chosen image and its score; None where no candidate can be used."""
        if self.scores is None:
            return None
        first = int(self.scores.best_first()[0])
        return self.usable[first], float(self.scores.score[first])


class ImageSelector:
    """A selector of images; see :meth:`choose`.

    Args:
        settings: the models and alpha.
        files: reads what addresses name.
    """

    def __init__(self, settings: SelectionSettings, files: ImageFiles) -> None:
        self._files, self._alpha = files, settings.alpha
        device = worker_device()
        self._clip = ClipEncoder.load(settings.clip).to(device)
        self._finder = ObjectFinder.load(settings.detector).to(device) if settings.detector else None
        self._vision = None
        if settings.vision:
            self._vision = VisionBackbone.load(settings.vision, role="--vision").to(device)
        self._object_side = self._vision.side if self._vision else self._clip.side
        # Large enough that half a side, cut out, still has the pixels that a model wants.
        sides = [self._clip.side, 2 * self._object_side, self._finder.side if self._finder else 0]
        self._side = max(sides)
        self._cache: OrderedDict[tuple[str, bool], ImageVectors | Refusal] = OrderedDict()
        self._typical: OrderedDict[str, Floats | Refusal] = OrderedDict()

    def choose(self, records: Sequence[SelectionRecord]) -> list[SelectionResult]:
        """Return what comes of each record.

        Raises:
            StorageError: a bucket cannot be used.
        """
        texts = [self._clip.texts([r.sentence for r in some]).numpy() for some in _batches(records)]
        return [
            self._choose(record, text)
            for record, text in zip(records, np.concatenate(texts) if texts else [], strict=True)
        ]

    def _choose(self, record: SelectionRecord, text: Floats) -> SelectionResult:
        refused: dict[str, Refusal] = {}
        typical = self._typical_of(record.typical) if record.typical and self._alpha < 1 else None
        if isinstance(typical, Refusal):
            refused[str(record.typical)] = typical.about("the typical image:")
            typical = None
        found = self._vectors_of(record.candidates, with_objects=typical is not None)
        seen: dict[str, ImageVectors] = {}
        for address, one in found.items():
            if isinstance(one, Refusal):
                refused[address] = one
            else:
                seen[address] = one
        if not seen:
            return SelectionResult(record, refused=refused)
        images = np.stack([one.image for one in seen.values()])
        objects = [one.objects for one in seen.values() if one.objects is not None]
        scores = score_candidates(
            text, images, objects if typical is not None else None, typical, self._alpha
        )
        return SelectionResult(record, list(seen), scores, refused)

    def _vectors_of(self, addresses: Sequence[str], with_objects: bool) -> dict[str, ImageVectors | Refusal]:
        """Return what is seen at each address, or why nothing is, in the order of the addresses."""
        known = {a: self._cache[a, with_objects] for a in addresses if (a, with_objects) in self._cache}
        new = [a for a in addresses if a not in known]
        for some in _batches(new):
            known |= self._encode(some, with_objects)
        for address, one in known.items():
            _remember(self._cache, (address, with_objects), one)
        return {address: known[address] for address in addresses}

    def _encode(self, addresses: Sequence[str], with_objects: bool) -> dict[str, ImageVectors | Refusal]:
        decoded = self._decoded(addresses)
        good = {a: p for a, p in zip(addresses, decoded, strict=True) if not isinstance(p, Refusal)}
        found: dict[str, ImageVectors | Refusal] = {
            a: p for a, p in zip(addresses, decoded, strict=True) if isinstance(p, Refusal)
        }
        if not good:
            return found
        images = self._clip.images(_at(list(good.values()), self._clip.side)).numpy()
        objects: Sequence[Floats | None] = [None] * len(good)
        if with_objects:
            boxes = self._boxes(list(good.values()))
            objects = [self._object_vectors(p, b) for p, b in zip(good.values(), boxes, strict=True)]
        seen = [ImageVectors(image, some) for image, some in zip(images, objects, strict=True)]
        return found | dict(zip(good, seen, strict=True))

    def _boxes(self, images: Sequence[Pixels]) -> Sequence[Sequence[Box]]:
        if self._finder is None:
            return [PARTS] * len(images)
        return self._finder.boxes(_at(images, self._finder.side))

    def _object_vectors(self, pixels: Pixels, boxes: Sequence[Box]) -> Floats:
        """Return a vector for each part of an image, float32 [boxes, c]."""
        cuts = torch.from_numpy(cut_out(pixels, boxes, self._object_side))
        found = self._clip.images(cuts) if self._vision is None else self._vision.encode(cuts).mean(dim=1)
        return found.numpy()

    def _typical_of(self, address: str) -> Floats | Refusal:
        """Return the vector of a typical image, [c], or why there is none."""
        if address not in self._typical:
            (pixels,) = self._decoded([address])
            found = pixels if isinstance(pixels, Refusal) else self._object_vectors(pixels, [WHOLE])[0]
            _remember(self._typical, address, found)
        return self._typical[address]

    def _decoded(self, addresses: Sequence[str]) -> list[Pixels | Refusal]:
        with ThreadPoolExecutor(self._files.threads(addresses)) as pool:
            return list(pool.map(self._decode, addresses))

    def _decode(self, address: str) -> Pixels | Refusal:
        if fault := fault_of_address(address):
            return fault
        try:
            return decode(self._files.read(address), self._side)
        except UnusableImageError as error:
            return error.refusal


def _at(images: Sequence[Pixels], side: int) -> torch.Tensor:
    """Return whole images squeezed to a side, uint8 [images, side, side, 3]."""
    return torch.from_numpy(np.concatenate([cut_out(pixels, [WHOLE], side) for pixels in images]))


def _batches(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[at : at + BATCH] for at in range(0, len(items), BATCH)]


def _remember(cache: OrderedDict[Key, Value], key: Key, value: Value) -> None:
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > REMEMBERED:
        cache.popitem(last=False)
