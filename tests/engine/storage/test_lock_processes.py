"""Processes that hold a workspace: killed, asked to end, forked, and many at once."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import StorageError
from engine.storage.lock import hold
from engine.storage.workspace import Workspace
from tests.support.locks import Clock

ROOT = Path(__file__).parents[3]
HOLDS = """
import signal, sys, time
# What starts the tests may ignore these (nohup, a job in the background), and a process inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from engine.storage.lock import hold
from engine.storage.workspace import Workspace
with hold(Workspace.open(sys.argv[1]).locks, "import", exclusive=True):
    print("in", flush=True)
    time.sleep(60)
"""


def start(workspace: Workspace) -> subprocess.Popen[str]:
    """Return a process that holds a workspace alone."""
    words = [sys.executable, "-c", HOLDS, workspace.root.uri]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


@pytest.mark.parametrize("reaped", [False, True])
def test_the_lock_of_a_killed_process_is_taken_over_at_once(
    workspace: Workspace, caplog: pytest.LogCaptureFixture, reaped: bool
) -> None:
    process, clock = start(workspace), Clock()
    with pytest.raises(StorageError, match=f"process {process.pid}"), hold(workspace.locks, "preprocess"):
        pass
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    if reaped:
        process.wait()
    with caplog.at_level(logging.WARNING), hold(workspace.locks, "preprocess", timing=clock.timing):
        assert clock.passed == 0
    assert f"process {process.pid}), which has ended without a word" in caplog.text
    assert workspace.locks.files() == []
    process.communicate()


def test_what_killed_ones_had_taken_over_from_each_other_goes_with_the_last(workspace: Workspace) -> None:
    for _ in range(3):
        process = start(workspace)
        process.kill()
        process.communicate()
    assert len(workspace.locks.files()) == 3
    with hold(workspace.locks, "preprocess"):
        pass
    assert workspace.locks.files() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_process_that_is_asked_to_end_leaves_nothing(tmp_path: Path, number: int) -> None:
    workspace = Workspace.open(tmp_path / "w")
    process = start(workspace)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGINT else 128 + number)
    assert not (tmp_path / "w").exists()


def test_a_fork_leaves_its_parents_lock_alone(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    with hold(workspace.locks, "preprocess") as lock:
        (file,) = workspace.locks.files()
        content = file.read_bytes()
        child = os.fork()
        if not child:
            try:
                lock.check()
                lock.release()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert file.read_bytes() == content
        lock.check()


def test_the_handlers_of_signals_are_as_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with hold(Workspace.open(tmp_path).locks, "preprocess"):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_of_many_at_once_one_that_replaces_is_always_alone(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    tries = 150 if workspace.root.is_local else 5
    words = [
        sys.executable,
        "-m",
        "tests.support.lock_contender",
        workspace.root.uri,
        str(tmp_path / "inside"),
    ]
    kinds = ["exclusive"] * 3 + ["shared"] * 2
    processes = [
        subprocess.Popen([*words, kind, str(tries)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for kind in kinds
    ]
    held = [int(process.communicate(timeout=120)[0] or -1) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(kinds)
    assert sum(held[:3]) > 0
    assert sum(held[3:]) > 0
    assert workspace.locks.files() == []
