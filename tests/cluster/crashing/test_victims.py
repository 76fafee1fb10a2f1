"""Which processes faults come to, and how commands end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.crashing.commands import Running, result_of
from cluster.crashing.events import Ended, Log, Pointed, Struck
from cluster.crashing.victims import candidates
from cluster.crashing.work import Batch, Pointer
from cluster.processes import Process, below, kill, running

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")


def test_all_that_a_process_started_is_found_and_nothing_else() -> None:
    processes = [Process(2, 1, "a"), Process(3, 2, "b"), Process(4, 3, "c"), Process(9, 8, "d")]
    assert [process.title for process in below(processes, 2)] == ["b", "c"]


def test_a_kind_of_fault_has_its_own_processes_in_an_order_that_ids_do_not_decide() -> None:
    titles = [
        "ray::ServeReplica:seedset:Ingress.handle_request",
        "ray::ProxyActor",
        "ray::MapWorker(MapBatches(StageActor)).submit",
        "ray::IDLE",
        "ray::ServeController.listen_for_change",
        "ray::ServeReplica:seedset:Fused",
        "python",
    ]
    processes = [Process(pid, 1, title) for pid, title in enumerate(titles)]
    assert [one.pid for one in candidates("worker", processes)] == [2]
    assert [one.pid for one in candidates("proxy", processes)] == [1]
    assert [one.pid for one in candidates("replica", processes)] == [5, 0]


def test_a_process_of_this_machine_is_seen_and_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (own,) = (one for one in below(running(), os.getpid()) if one.pid == process.pid)
    kill(own)
    assert process.wait(10) == -9
    kill(own)  # it is gone


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path / "events.jsonl") as one:
        yield one


def test_a_command_that_ends_and_one_that_is_killed_are_told_apart(log: Log) -> None:
    place = Running("batch", log)
    assert place.strike() == "", "nothing runs yet"
    ended, written = place.run([sys.executable, "-c", "print('queries=3 made=2')"])
    assert (ended.status, ended.killed, result_of(written)) == (0, False, {"queries": "3", "made": "2"})
    killed: list[str] = []

    def strike() -> None:
        while not killed or not killed[0]:
            killed[:] = [place.strike()]
            time.sleep(0.01)

    striker = threading.Thread(target=strike)
    striker.start()
    ended, _ = place.run([sys.executable, "-c", "import time; time.sleep(60)"])
    striker.join()
    assert (ended.status, ended.killed) == (-9, True)
    assert killed[0].startswith("batch ")
    assert [one.killed for one in log.of(Ended)] == [False, True]


def test_a_closed_place_begins_nothing(log: Log) -> None:
    place = Running("batch", log)
    assert place.close() == ""
    ended, written = place.run([sys.executable, "-c", "print('made=1')"])
    assert (ended.killed, written) == (False, "")
    assert log.of(Ended) == []


def test_the_log_holds_the_events_on_the_disk_too(log: Log, tmp_path: Path) -> None:
    log.add(Struck(5.0, "raylet", "node 1"))
    log.add(Pointed(6.0, "one"))
    assert (tmp_path / "events.jsonl").read_text().splitlines() == [
        '{"event": "Struck", "at": 5.0, "kind": "raylet", "victim": "node 1"}',
        '{"event": "Pointed", "at": 6.0, "bundle": "one"}',
    ]
    assert log.of(Pointed) == [Pointed(6.0, "one")]


def test_a_moved_pointer_is_logged_once_with_the_time_at_which_it_was_written(
    log: Log, tmp_path: Path
) -> None:
    file = tmp_path / "CURRENT"
    file.write_text("one\n")
    pointer = Pointer(file, log, began=1000.0)
    os.utime(file, (1007.0, 1007.0))
    pointer.look()
    pointer.look()
    assert log.of(Pointed) == [Pointed(7.0, "one")]
    aside = tmp_path / "aside"
    aside.write_text("other\n")
    os.utime(aside, (1009.5, 1009.5))
    aside.replace(file)
    pointer.look()
    assert log.of(Pointed)[1:] == [Pointed(9.5, "other")]


def test_a_part_that_is_written_again_is_noticed(log: Log, tmp_path: Path) -> None:
    batch = Batch([], tmp_path, Running("batch", log))
    part = tmp_path / "part-00000.parquet"
    part.write_bytes(b"one")
    batch.look(tmp_path)
    batch.look(tmp_path)
    assert batch.remade == []
    aside = tmp_path / "aside"
    aside.write_bytes(b"one")
    aside.replace(part)
    batch.look(tmp_path)
    assert batch.remade == ["part-00000.parquet"]
