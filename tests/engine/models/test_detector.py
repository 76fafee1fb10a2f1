from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.errors import UserError
from engine.models import detector as objects
from engine.models.clip import ClipEncoder
from engine.models.detector import PARTS, WHOLE, Box, ObjectFinder, cut_out
from engine.models.vision import Scaling
from tests.support import choice_models

PLAIN = Scaling(side=4, factor=1 / 255, mean=(0.0,) * 3, std=(1.0,) * 3)


class Said(torch.nn.Module):
    """A detector that says what it was told to."""

    def __init__(self, kind: str, logits: list[list[float]], boxes: list[list[float]]) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type=kind)
        self.said = SimpleNamespace(logits=torch.tensor([logits]), pred_boxes=torch.tensor([boxes]))

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        return self.said


def found(kind: str, logits: list[list[float]], boxes: list[list[float]]) -> list[Box]:
    finder = ObjectFinder(Said(kind, logits, boxes), PLAIN)
    return finder.boxes(torch.zeros(1, 4, 4, 3, dtype=torch.uint8))[0]


def test_boxes_are_the_sure_ones_the_surest_first_within_the_picture() -> None:
    logits = [[3.0, 0.0, 0.0], [0.0, 0.0, 9.0], [0.0, 5.0, 0.0], [0.4, 0.0, 0.4]]
    boxes = [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.2, 0.2], [0.1, 0.2, 0.4, 0.2], [0.5, 0.5, 0.1, 0.1]]
    # The last class is "no object": the second box is surely none, the fourth is not sure of anything.
    want = [pytest.approx((0.0, 0.1, 0.3, 0.3)), pytest.approx((0.25, 0.25, 0.75, 0.75))]
    assert found("yolos", logits, boxes) == want


def test_where_each_class_stands_alone_the_last_one_is_an_object_too() -> None:
    logits, boxes = [[-5.0, 2.0], [-5.0, -0.1]], [[0.5, 0.5, 1.0, 0.5], [0.5, 0.5, 0.2, 0.2]]
    assert found("rt_detr", logits, boxes) == [pytest.approx((0.0, 0.25, 1.0, 0.75))]


def test_where_nothing_is_found_the_whole_picture_is_the_object() -> None:
    assert found("yolos", [[0.0, 9.0]], [[0.5, 0.5, 0.5, 0.5]]) == [WHOLE]
    assert found("yolos", [[9.0, 0.0]], [[0.5, 0.5, 0.001, 0.5]]) == [WHOLE]


@pytest.mark.parametrize("write", [choice_models.yolos, choice_models.detr, choice_models.conditional_detr])
def test_detectors_run_without_torchvision_and_timm(
    write: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "CONFIDENT", 0.0)  # random weights are sure of nothing
    finder = ObjectFinder.load(write(tmp_path))
    torch.manual_seed(1)
    pixels = torch.randint(0, 256, (2, finder.side, finder.side, 3), dtype=torch.uint8)
    for boxes in finder.boxes(pixels):
        assert boxes != [WHOLE]
        assert all(0 <= x < x2 <= 1 and 0 <= y < y2 <= 1 for x, y, x2, y2 in boxes)


def test_a_detector_of_another_kind_is_named(tmp_path: Path) -> None:
    clip = choice_models.clip(tmp_path / "clip")
    with pytest.raises(UserError, match=r"--detector .*'clip'; known are .*yolos"):
        ObjectFinder.load(clip)
    with pytest.raises(UserError, match=r"--detector .*cannot be loaded"):
        ObjectFinder.load(str(tmp_path / "nothing"))


def test_a_part_is_cut_out_and_squeezed() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:4, 4:] = 200
    cuts = cut_out(picture, PARTS, 4)
    assert cuts.shape == (6, 4, 4, 3)
    assert [int(cut.mean()) for cut in cuts[1:5]] == [0, 200, 0, 0]
    assert 40 < cuts[0].mean() < 60


def test_clip_gives_vectors_of_one_space_whatever_stands_beside(tmp_path: Path) -> None:
    clip = ClipEncoder.load(choice_models.clip(tmp_path))
    sentences = ["a red flag", "the flag of gold is red . the flag of iron is blue . a green flag ."]
    together = clip.texts(sentences)
    assert together.shape == (2, 8)
    torch.testing.assert_close(clip.texts(sentences[:1]), together[:1])
    torch.manual_seed(1)
    pixels = torch.randint(0, 256, (3, clip.side, clip.side, 3), dtype=torch.uint8)
    images = clip.images(pixels)
    assert images.shape == (3, 8)
    torch.testing.assert_close(clip.images(pixels[1:2]), images[1:2], rtol=1e-4, atol=1e-5)
    assert (images[0] - images[1]).norm() > 1e-4


def test_a_model_that_is_no_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--clip .*'yolos'; a CLIP"):
        ClipEncoder.load(choice_models.yolos(tmp_path))
