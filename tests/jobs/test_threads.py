"""Test the settings of torch's threads before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("given", "expected"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_a_job_settles_how_long_threads_wait_before_torch_is_there(
    given: dict[str, str], expected: str
) -> None:
    code = "import jobs, os, sys; print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | given
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["False", expected]
