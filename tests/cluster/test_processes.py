"""Commands that are started, waited for and ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.processes import stop, wait_for_words
from engine.errors import UserError

HOLDS = "print('ready', flush=True); import time; time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {HOLDS}"


def started(program: str, output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as log:
        return subprocess.Popen([sys.executable, "-c", program], stdout=log, stderr=log)


@pytest.mark.parametrize(
    ("program", "number"), [(HOLDS, signal.SIGTERM), (DEAF, signal.SIGKILL)], ids=["told", "killed"]
)
def test_a_command_is_told_to_end_and_killed_if_it_does_not(
    program: str, number: signal.Signals, tmp_path: Path
) -> None:
    output = tmp_path / "log"
    process = started(program, output)
    try:
        wait_for_words(process, "ready", output, 60)
    finally:
        stop(process, 60 if number == signal.SIGTERM else 0.1)
    assert process.returncode == -number, "it has ended, and nothing is left of it"
    stop(process, 60)


def test_a_command_that_is_never_ready_is_told_with_what_it_wrote(tmp_path: Path) -> None:
    output = tmp_path / "log"
    process = started("import sys; sys.exit('no port')", output)
    with pytest.raises(UserError, match=r"'ready' before it ended with status 1: no port"):
        wait_for_words(process, "ready", output, 60)
    process = started(HOLDS, output)
    try:
        with pytest.raises(UserError, match=r"'never' within 0.1 s: "):
            wait_for_words(process, "never", output, 0.1)
    finally:
        stop(process, 60)
