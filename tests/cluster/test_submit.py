"""Jobs through ``ray job submit``, as a user runs them: authenticated, with the code shipped."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.submit import ROOT, JobServer

pytestmark = pytest.mark.slow


def test_the_command_line_ships_the_code_and_returns_the_jobs_status(jobs_at: JobServer) -> None:
    ray = shutil.which("ray", path=str(Path(sys.executable).parent)) or "ray"
    look = "import os, engine.methods; print(sorted(os.listdir('.')), os.environ['RAY_ADDRESS'])"
    done = subprocess.run(
        [ray, "job", "submit", "--working-dir", ".", "--", "python", "-c", look],
        cwd=ROOT,
        env=jobs_at.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'engine'" in done.stdout
    assert jobs_at.address in done.stdout
    assert "'.git'" not in done.stdout, "the history would blow the limit of the upload"


def test_a_job_that_fails_is_reported_as_failed(jobs_at: JobServer) -> None:
    status, logs = jobs_at.submitted("python -c 'import sys; sys.exit(\"no such luck\")'")
    assert status == "FAILED"
    assert "no such luck" in logs
