"""Find the objects of an image: boxes from a detection model, or fixed parts of it where there is none.

A box is left, top, right, bottom in shares of the image's sides, so it means the same at any size.

Shape letters: B images, S pixels a side, Q queries of the detector, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import AutoModelForObjectDetection

from engine.errors import UserError
from engine.models.clip import scaled
from engine.models.hub import NamedModel
from engine.models.vision import Scaling, read_scaling

Tensor = torch.Tensor
Box = tuple[float, float, float, float]
Pixels = npt.NDArray[np.uint8]

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
PARTS: tuple[Box, ...] = (
    WHOLE,
    (0.0, 0.0, 0.5, 0.5),
    (0.5, 0.0, 1.0, 0.5),
    (0.0, 0.5, 0.5, 1.0),
    (0.5, 0.5, 1.0, 1.0),
    (0.25, 0.25, 0.75, 0.75),
)
"""Boxes in place of objects without a detector: the whole image, its quadrants and its middle."""

NOTHING_LAST = ("detr", "table-transformer", "yolos")
"""Families whose classes exclude each other, the last of them being "no object"."""

EACH_CLASS_ALONE = (
    "conditional_detr",
    "d_fine",
    "dab-detr",
    "deformable_detr",
    "lw_detr",
    "rf_detr",
    "rt_detr",
    "rt_detr_v2",
)
"""Families that give each class a probability of its own."""

CONFIDENT = 0.5
MAX_OBJECTS = 10
"""Limit on the objects of an image, those of the highest score."""

SMALLEST = 0.02
"""Shares of a side; what is narrower shows nothing once it is cut out."""


class ObjectFinder:
    """A loaded detector; see :meth:`load`."""

    def __init__(self, model: Any, scaling: Scaling) -> None:
        self.model = model.eval().requires_grad_(False)
        self.scaling = scaling
        self._device = torch.device("cpu")

    @classmethod
    def load(cls, name: str) -> ObjectFinder:
        """Load from a model folder, local or in a bucket, or a hub name (:class:`NamedModel`).

        Raises:
            UserError: there is no such model, it detects no objects, or it needs a library that is not here.
        """
        named = NamedModel.open(name, "--detector")
        config = named.config()
        known = sorted(NOTHING_LAST + EACH_CLASS_ALONE)
        if config.model_type not in known:
            raise UserError(f"{named.label}: of type {config.model_type!r}; known are {', '.join(known)}")
        scaling = read_scaling(named, config)
        model = named.model(
            AutoModelForObjectDetection,
            torch.float32,
            # What is missing is timm, which has the backbones of the first DETRs.
            missing_library="use a YOLOS or an RT-DETR, or a DETR saved with use_timm_backbone=False",
        )
        return cls(model, scaling)

    @property
    def side(self) -> int:
        """Pixels a side of the images that :meth:`boxes` takes, S."""
        return self.scaling.side

    def to(self, device: torch.device) -> ObjectFinder:
        """Move the weights to a device."""
        self.model.to(device)
        self._device = device
        return self

    @torch.inference_mode()
    def boxes(self, pixels_BSS3: Tensor) -> list[list[Box]]:
        """Return the objects of each image, by falling score; the whole image where none was found.

        Args:
            pixels_BSS3: uint8, :attr:`side` pixels a side.
        """
        found = self.model(pixel_values=scaled(pixels_BSS3, self.scaling, self._device))
        if self.model.config.model_type in NOTHING_LAST:
            sure_BQ = found.logits.softmax(-1)[..., :-1].amax(-1)
        else:
            sure_BQ = found.logits.sigmoid().amax(-1)
        middle, size = found.pred_boxes.split(2, dim=-1)
        corners_BQ4 = torch.cat([middle - size / 2, middle + size / 2], dim=-1).clamp(0, 1)
        return [_kept(sure, corners) for sure, corners in zip(sure_BQ.cpu(), corners_BQ4.cpu(), strict=True)]


def _kept(sure_Q: Tensor, corners_Q4: Tensor) -> list[Box]:
    wide_Q = (corners_Q4[:, 2:] - corners_Q4[:, :2]).amin(-1) >= SMALLEST
    order = sure_Q.argsort(descending=True, stable=True)
    good = [i for i in order.tolist() if sure_Q[i] >= CONFIDENT and wide_Q[i]][:MAX_OBJECTS]
    boxes = [(left, top, right, bottom) for left, top, right, bottom in corners_Q4[good].tolist()]
    return boxes or [WHOLE]


def cut_out(image: Pixels, boxes: Sequence[Box], side: int) -> Pixels:
    """Return parts of an image, each squeezed to a square, uint8 [boxes, side, side, 3].

    Args:
        image: uint8 [height, width, 3].
        boxes: what to cut out.
        side: pixels.
    """
    whole = Image.fromarray(image)
    width, height = whole.size
    cuts = []
    for left, top, right, bottom in boxes:
        place = (left * width, top * height, right * width, bottom * height)
        cuts.append(np.asarray(whole.resize((side, side), Image.Resampling.BICUBIC, box=place)))
    return np.stack(cuts)
