"""Who writes into a workspace together, who is refused, and what a job that was killed leaves."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path

import pytest

from engine.errors import StorageError
from engine.storage import holders
from engine.storage.holders import Holder
from engine.storage.lock import Timing, WorkspaceLock, check_held, hold
from engine.storage.parts import write_pointer
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from tests.support.locks import NOW, Clock, heartbeats, stranger


def test_commands_that_add_go_together_and_leave_nothing(workspace: Workspace) -> None:
    with hold(workspace.locks, "preprocess") as one:
        with hold(workspace.locks, "pretrain-lm") as two:
            one.check()
            two.check()
            commands = [Holder.read(f, f.read_bytes()).command for f in workspace.locks.files()]
            assert sorted(commands) == ["preprocess", "pretrain-lm"]
        assert len(workspace.locks.files()) == 1
    assert not workspace.root.exists()


@pytest.mark.parametrize(("first", "second"), [(False, True), (True, False), (True, True)])
def test_one_that_replaces_is_alone(workspace: Workspace, first: bool, second: bool) -> None:
    with hold(workspace.locks, "mine-contrast", first) as lock:
        with pytest.raises(StorageError) as refused, hold(workspace.locks, "clean", second):
            pass
        lock.check()
        assert len(workspace.locks.files()) == 1
    alone = "`seedset mine-contrast`" if first else "`seedset clean` lets no other one write"
    for part in (
        workspace.root.uri,
        f"`seedset mine-contrast` of {holders._account()} on ",
        f"(process {os.getpid()}) has written here for ",
        "its last sign of life was ",
        alone,
        "--wait MINUTES",
        "after 2 min",
    ):
        assert part in str(refused.value)
    with hold(workspace.locks, "clean", second):
        pass


def test_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    with hold(Workspace.open(tmp_path / "w").locks, "import", exclusive=True):
        (tmp_path / "w" / "corpus").mkdir()
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["corpus"]
    (tmp_path / "w" / "corpus").rmdir()
    with hold(Workspace.open(tmp_path / "w").locks, "import", exclusive=True):
        pass
    assert (tmp_path / "w").is_dir()


def test_a_number_that_another_process_has_now_is_not_the_holder(tmp_path: Path) -> None:
    workspace, clock = Workspace.open(tmp_path), Clock()
    own = Holder.here("import", True, NOW)
    assert own.lives()
    assert own.started is not None
    stranger(workspace, machine=own.machine, started=own.started - 1)
    with hold(workspace.locks, "import", exclusive=True, timing=clock.timing):
        assert clock.passed == 0


def test_where_the_system_shows_no_process_its_file_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, clock = Workspace.open(tmp_path), Clock()
    stranger(workspace, machine=holders.machine_id(), heartbeat=NOW - 100)
    monkeypatch.setattr(holders, "_began", lambda pid: None)
    with hold(workspace.locks, "import", exclusive=True, timing=clock.timing):
        assert clock.passed >= 120


@pytest.mark.parametrize("difference", [-61.0, -24 * 3600.0, 5 * 3600.0])
def test_a_file_of_another_machine_that_stays_as_it_is_is_taken_over(
    workspace: Workspace, difference: float
) -> None:
    file, clock = stranger(workspace, heartbeat=NOW + difference), Clock()
    with hold(workspace.locks, "import", exclusive=True, timing=clock.timing) as lock:
        assert 120 <= clock.passed < 125
        assert Holder.read(file, file.read_bytes()).taken_over_by.startswith("`seedset import` of ")
        lock.check()
        with pytest.raises(StorageError, match="seedset import"), hold(workspace.locks, "preprocess"):
            pass
    assert workspace.locks.files() == []


@pytest.mark.parametrize("difference", [-24 * 3600.0, -61.0, 5 * 3600.0])
def test_one_of_another_machine_that_lives_is_not_whatever_its_clock_shows(
    workspace: Workspace, difference: float
) -> None:
    file = stranger(workspace, heartbeat=NOW + difference)
    due = [20.0]

    def then(passed: float) -> None:
        if passed >= due[0]:
            heartbeats(file, 20)
            due[0] += 20

    clock = Clock(then)
    with (
        pytest.raises(StorageError, match="of ada on far"),
        hold(workspace.locks, "import", exclusive=True, timing=clock.timing),
    ):
        pass
    assert 20 <= clock.passed < 30
    assert Holder.read(file, file.read_bytes()).taken_over_by == ""


def test_one_of_another_machine_with_a_new_beat_refuses_at_once(tmp_path: Path) -> None:
    workspace, clock = Workspace.open(tmp_path), Clock()
    stranger(workspace, heartbeat=NOW - 30)
    with (
        pytest.raises(StorageError, match=r"was 3[01] s ago"),
        hold(workspace.locks, "preprocess", timing=clock.timing),
    ):
        pass
    assert clock.passed < 2


def test_who_waits_gets_in_when_the_other_one_ends_and_no_later(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    file = stranger(workspace, heartbeat=NOW)
    clock = Clock(lambda passed: file.delete() if passed >= 50 else heartbeats(file, 1))
    with hold(workspace.locks, "preprocess", wait_s=60, timing=clock.timing):
        assert 50 <= clock.passed < 53
    stranger(workspace, heartbeat=NOW)
    clock = Clock(lambda passed: heartbeats(file, 1))
    with (
        pytest.raises(StorageError, match="of ada on far"),
        hold(workspace.locks, "preprocess", wait_s=60, timing=clock.timing),
    ):
        pass
    assert 60 <= clock.passed < 63


def test_while_one_waits_the_other_one_may_die(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    file = stranger(workspace, heartbeat=NOW)
    clock = Clock(lambda passed: heartbeats(file, 1) if passed < 50 else None)
    with hold(workspace.locks, "preprocess", wait_s=600, timing=clock.timing):
        assert 168 <= clock.passed < 175


def test_an_old_file_of_another_machine_stops_nobody_that_may_go_beside_it(tmp_path: Path) -> None:
    workspace, clock = Workspace.open(tmp_path), Clock()
    stranger(workspace, exclusive=False, heartbeat=NOW - 9999)
    with hold(workspace.locks, "preprocess", timing=clock.timing):
        assert clock.passed == 0


@pytest.fixture
def suspended(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> WorkspaceLock:
    """A lock of this process as if of another machine, which writes no heartbeat of itself."""
    with monkeypatch.context() as patch:
        patch.setattr(holders, "machine_id", lambda: "00000000")
        lock = WorkspaceLock(workspace.locks, "build-index", False, Timing(heartbeat_s=3600))
        lock.acquire()
    return lock


def test_one_that_was_suspended_finds_that_it_was_taken_over(
    workspace: Workspace, suspended: WorkspaceLock
) -> None:
    suspended.check()
    clock = Clock()
    with hold(workspace.locks, "import", exclusive=True, timing=clock.timing) as taker:
        assert clock.passed >= 120
        with pytest.raises(StorageError, match=r"taken over by `seedset import` of .*nothing was published"):
            suspended.check()
        suspended.release()
        taker.check()
    with pytest.raises(StorageError, match="taken over"):
        suspended.check()
    assert workspace.locks.files() == []


def test_after_the_taker_has_ended_it_finds_so_too(workspace: Workspace, suspended: WorkspaceLock) -> None:
    with hold(workspace.locks, "import", exclusive=True, timing=Clock().timing):
        pass
    with pytest.raises(StorageError, match="taken over by another command, which has ended since"):
        suspended.check()
    suspended.release()
    assert workspace.locks.files() == []


def test_of_two_that_take_over_at_once_one_does(workspace: Workspace) -> None:
    file = stranger(workspace, heartbeat=NOW - 9999)
    content = file.read_bytes()
    one, two = (WorkspaceLock(workspace.locks, name, True) for name in ("import", "clean"))
    holder = Holder.read(file, content)
    assert [lock._take_over(file, content, holder) for lock in (one, two)] == [True, False]
    assert "seedset import" in Holder.read(file, file.read_bytes()).taken_over_by


def test_what_a_taker_that_was_killed_left_goes(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    stranger(workspace, taken_over_by="`seedset import`", taker="gone.json")
    with hold(workspace.locks, "import", exclusive=True):
        assert len(workspace.locks.files()) == 1


def test_nothing_is_published_after_a_takeover(tmp_path: Path) -> None:
    workspace, other = Workspace.open(tmp_path / "w"), Workspace.open(tmp_path / "w2")
    with hold(workspace.locks, "preprocess"):
        write_pointer(workspace.inputs(), "one")
        (file,) = workspace.locks.files()
        file.delete()
        staged = workspace.root.staging()
        with pytest.raises(StorageError, match="taken over"):
            write_pointer(workspace.inputs(), "two")
        with pytest.raises(StorageError, match="taken over"):
            workspace.publish_corpus(staged, None)
        write_pointer(other.inputs(), "two")
        check_held(Store.open(tmp_path / "w2"))
        assert file.size() == -1
    check_held(workspace.root)
    assert (workspace.inputs() / "CURRENT").read_bytes() == b"one"
    assert not workspace.corpus.exists()


def test_a_holder_writes_beats_and_says_when_it_has_lost(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    with hold(workspace.locks, "preprocess", timing=Timing(heartbeat_s=0.02)):
        (file,) = workspace.locks.files()
        seen: set[datetime.datetime] = set()
        end = time.monotonic() + 20
        while len(seen) < 3:
            assert time.monotonic() < end
            if content := file.read_if_there():
                seen.add(Holder.read(file, content).heartbeat)
            time.sleep(0.005)
        file.delete()
        while "this command will publish nothing" not in caplog.text:
            assert time.monotonic() < end
            time.sleep(0.005)
    assert "taken over" in caplog.text


def test_an_answer_that_was_lost_is_no_loss(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that tries again, as the first answer did not come, is refused for what it wrote itself."""

    answers = [True, False]
    """Whether what is refused was written."""

    def refused(store: Store, content: bytes, expected: bytes | None) -> bool:
        if answers.pop(0):
            store.write_bytes(content)
        return False

    with hold(workspace.locks, "preprocess") as lock:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "replace_bytes", refused)
            lock.check()
            lock.check()
        lock.check()
    assert answers == []


def test_a_file_that_is_none_is_named(workspace: Workspace) -> None:
    (workspace.locks / "odd.json").write_bytes(b"{")
    with (
        pytest.raises(StorageError, match=r"locks/odd\.json: .*remove the file"),
        hold(workspace.locks, "preprocess"),
    ):
        pass
    assert [file.name for file in workspace.locks.files()] == ["odd.json"]


def test_where_nothing_can_be_written_the_command_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(store: Store, content: bytes) -> None:
        raise StorageError(f"{store.uri}: Permission denied")

    workspace = Workspace.open(tmp_path)
    monkeypatch.setattr(Store, "write_bytes", refused)
    with hold(workspace.locks, "preprocess") as lock:
        lock.check()
    assert "others cannot see that this command writes here: " in caplog.text
    with (
        pytest.raises(StorageError, match=r"\.json: Permission denied"),
        hold(workspace.locks, "import", exclusive=True),
    ):
        pass
    caplog.clear()
    with hold(Workspace.open(tmp_path / "none").locks, "preprocess"):
        pass
    assert caplog.text == ""
