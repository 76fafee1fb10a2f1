"""What DeepSpeed leaves behind in a process is taken back after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.training.deepspeed import torch_as_it_was


@pytest.fixture(autouse=True)
def linear_as_it_was() -> Iterator[None]:
    with torch_as_it_was():
        yield
