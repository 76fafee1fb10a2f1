"""Refusals are values: a code for programs, a detail for people."""

from __future__ import annotations

import pickle
import re

from engine.images.decode import UnusableImageError
from engine.refusals import Code, Refusal


def test_a_code_is_one_word_that_a_program_can_keep() -> None:
    assert all(re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", code.value) for code in Code)
    assert all(code.value == code.name.lower() for code in Code)


def test_what_is_said_of_a_part_keeps_its_code() -> None:
    refusal = Refusal(Code.TEXT_EMPTY, "empty")
    assert refusal.about("alias") == Refusal(Code.TEXT_EMPTY, "alias empty")
    assert str(refusal.about("alias")) == "alias empty"


def test_a_refused_picture_crosses_processes_with_its_refusal() -> None:
    error = UnusableImageError(Refusal(Code.IMAGE_ANIMATED, "animated: several images in one"))
    again = pickle.loads(pickle.dumps(error))
    assert again.refusal == error.refusal
    assert str(again) == "animated: several images in one"
