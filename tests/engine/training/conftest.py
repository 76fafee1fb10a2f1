"""Undo what DeepSpeed changes in a process after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.training.deepspeed import torch_settings_restored


@pytest.fixture(autouse=True)
def linear_as_it_was() -> Iterator[None]:
    with torch_settings_restored():
        yield
