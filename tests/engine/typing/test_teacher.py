"""A teacher's labels: the rule by hand, what is kept of them, and what the student's loss counts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import UserError
from engine.storage.store import Store
from engine.training.settings import TypingSettings
from engine.training.typing import TypingTraining
from engine.typing.mentions import Mention, TypedMention
from engine.typing.model import TypingModel
from engine.typing.network import typing_loss
from engine.typing.teacher import Thresholds, read_taught, taught, write_taught
from tests.support.encoders import write_encoder

LABELS = ["ab", "cd", "e_f", "gh"]
MENTIONS = [TypedMention(str(i), Mention("t", "m", "r"), ("never",)) for i in range(2)]


def logits(*probabilities: float) -> list[float]:
    return [math.log(p / (1 - p)) for p in probabilities]


def said(scores: list[list[float]], thresholds: Thresholds) -> list[tuple[list[int], list[int]]]:
    found = taught(np.array(scores, np.float32), thresholds)
    return [(one.positive.tolist(), one.uncertain.tolist()) for one in found]


def test_what_holds_and_what_does_not_count_by_hand() -> None:
    scores = [logits(0.95, 0.5, 0.02, 0.005), logits(0.89, 0.009, 0.91, 0.92)]
    assert said(scores, Thresholds()) == [([0], [1, 2]), ([2, 3], [0])]
    # A probability that is a threshold itself is no more uncertain; that of 0.5 is a score of exactly 0.
    assert said([[0.0, -1.0]], Thresholds(0.5, 0.1)) == [([0], [1])]
    assert said([[0.0, 1.0]], Thresholds(0.9, 0.5)) == [([], [1])]
    with pytest.raises(UserError, match=r"--negative-probability 0\.5: must be below --positive-probability"):
        Thresholds(0.5, 0.5).check()


def test_mentions_without_a_sure_type_are_not_learnt(tmp_path: Path) -> None:
    found = taught(np.array([logits(0.95, 0.5, 0.02, 0.005), logits(*[0.5] * 4)], np.float32), Thresholds())
    write_taught(tmp_path / "part.parquet", MENTIONS, found)
    kept = read_taught(Store.open(tmp_path / "part.parquet"), LABELS)
    assert kept == [TypedMention("0", Mention("t", "m", "r"), (), ("ab",), ("cd", "e_f"))]


CROWD = TypedMention("crowd", Mention("t", "on", "r"), ("cd",))
TAUGHT = TypedMention("taught", Mention("", "m", "r"), (), ("ab", "gh"), ("cd",))


def test_the_students_loss_leaves_out_what_does_not_count(tmp_path: Path) -> None:
    write_encoder(tmp_path)
    model = TypingModel.begin(str(tmp_path), LABELS)
    settings = TypingSettings(mlm=False, next_word=False, precision="float32")
    training = TypingTraining(model, [CROWD, TAUGHT], settings)
    asked = training._questions.questions(training.data, [0, 1], 0)
    assert asked.target_PN.tolist() == [[0, 1, 0, 0], [1, 0, 0, 1]]
    assert asked.weight_PN.tolist() == [[1, 5, 1, 1], [1, 0, 1, 1]]
    scores = torch.tensor([[0.3, -2.0, 1.5, 0.0], [1.0, 9.0, -0.5, 2.0]], requires_grad=True)
    wanted = []
    for row, one in enumerate((CROWD, TAUGHT)):
        total = 0.0
        for column, label in enumerate(LABELS):
            if label in one.uncertain:
                continue
            p = 1 / (1 + math.exp(-scores[row, column].item()))
            holds = label in one.labels or label in one.added
            total -= (5 if label in one.labels else 1) * math.log(p if holds else 1 - p)
        wanted.append(total)
    loss = typing_loss(scores, asked.target_PN, asked.weight_PN)
    assert loss.tolist() == pytest.approx(wanted)
    loss.sum().backward()
    assert scores.grad is not None
    assert (scores.grad == 0).tolist() == [[False] * 4, [False, True, False, False]]
