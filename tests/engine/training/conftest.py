"""What DeepSpeed leaves behind in a process is taken back after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch.nn import functional

LINEAR = functional.linear


@pytest.fixture(autouse=True)
def linear_as_it_was() -> Iterator[None]:
    """ZeRO stage 3 puts its own ``linear`` in torch's place, for good, and that one rounds otherwise."""
    yield
    functional.linear = LINEAR
