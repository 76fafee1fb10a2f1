"""The sample's own backbone: what it is shown, and that it learns to look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine.models.vision import VisionBackbone
from examples.backbone import WIDTH, make_backbone
from examples.demo_images import CLASS, SEEDS, countries_alone
from examples.flags import draw_flag, load_flags
from examples.invented import FAMILIES, KINDS, LABELS, invent, labels_of
from examples.make_sample import write_sample
from examples.multimodal import class_members


def test_invented_flags_are_the_same_again_varied_and_can_be_drawn() -> None:
    flags = [invent(number) for number in range(200)]
    assert flags == [invent(number) for number in range(200)]
    assert len({flag.parts for flag in flags}) > 180
    for flag in flags[:40]:
        assert draw_flag(flag, 48, 32).size[0] <= 48


def test_labels_say_what_was_drawn_and_each_occurs() -> None:
    labels = np.array([labels_of(invent(number)) for number in range(600)])
    assert labels.shape == (600, len(LABELS)) == (600, len(KINDS) + len(FAMILIES))
    assert (labels.sum(axis=0) > 10).all()
    flag = invent(3)
    assert {label for label, there in zip(LABELS, labels_of(flag), strict=True) if there} == (
        flag.kinds() | flag.colours()
    )


def test_a_short_training_knows_more_than_how_frequent_each_label_is(tmp_path: Path) -> None:
    loss = make_backbone(tmp_path, flags=256, epochs=8)
    shares = np.array([labels_of(invent(number)) for number in range(256)]).mean(axis=0)
    blind = -(shares * np.log(shares) + (1 - shares) * np.log(1 - shares)).mean()
    assert loss < 0.92 * blind
    again = make_backbone(tmp_path / "again", flags=256, epochs=8)
    assert again == loss, "the same flags, weights and order"
    backbone = VisionBackbone.load(str(tmp_path), grid=2)
    flat = np.asarray(draw_flag(invent(0), 96, 64).resize((backbone.side,) * 2, Image.Resampling.BILINEAR))
    assert backbone.encode(torch.from_numpy(flat[None].copy())).shape == (1, 4, WIDTH)


def test_the_demo_takes_what_is_told_and_shown_of_countries(tmp_path: Path) -> None:
    write_sample(tmp_path / "sample")
    counts = countries_alone(tmp_path / "sample", tmp_path / "countries")
    assert counts["entities.jsonl"] == 195
    assert counts["sentences.jsonl"] > 1500
    assert counts["sentences_images.jsonl"] > 20
    assert set(SEEDS) < set(class_members(CLASS))
    assert set(SEEDS) < set(load_flags())
