"""Work that faults meet: what is begun again, and what is said of it, with commands that are played."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.crashing.commands import Running
from cluster.crashing.events import Ended, Expanded, Log, Trained
from cluster.crashing.work import PART_SIZE, PARTS, Batch, Publisher, Training

Played = Callable[[Sequence[str]], tuple[int, bool, str]]
"""Does what a command does with its words; returns its status, whether a fault ended it, and its output."""


class Stage(Running):
    """Commands that are played one after the other; the last one ends the run."""

    def __init__(self, name: str, log: Log, played: Sequence[Played], stop: threading.Event) -> None:
        super().__init__(name, log)
        self.left, self.stop, self.words = list(played), stop, list[Sequence[str]]()

    def run(self, words: Sequence[str]) -> tuple[Ended, str]:
        self.words.append(words)
        status, killed, output = self.left.pop(0)(words)
        if not self.left:
            self.stop.set()
        ended = Ended(self.log.now(), self.name, status, killed, output)
        self.log.add(ended)
        return ended, output


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path / "events.jsonl") as one:
        yield one


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


def writes(count: int, status: int = 0, killed: bool = False) -> Played:
    """Return a command that writes parts of the table that are missing, so many at most."""

    def played(words: Sequence[str]) -> tuple[int, bool, str]:
        output = Path(words[-1])
        output.mkdir(parents=True, exist_ok=True)
        missing = [n for n in range(PARTS) if not (output / f"part-{n:05}.parquet").exists()][:count]
        for part in missing:
            rows = [f"q{n}" for n in range(part * PART_SIZE, (part + 1) * PART_SIZE)]
            table = pa.table({"query_id": rows + rows, "rank": [1] * PART_SIZE + [2] * PART_SIZE})
            pq.write_table(table, output / f"part-{part:05}.parquet")
        return status, killed, f"expand: 1/2\nqueries={PARTS * PART_SIZE} made={len(missing)}"

    return played


def test_a_table_whose_command_dies_is_expanded_again_and_rows_are_counted(
    log: Log, stop: threading.Event, tmp_path: Path
) -> None:
    played = Stage("batch", log, [writes(5, -9, True), writes(3, -9, True), writes(PARTS)], stop)
    Batch(["expand", "--queries", "q"], tmp_path / "expanded", played).work(stop)
    (one,) = log.of(Expanded)
    assert sorted(one.queries) == sorted(f"q{n}" for n in range(PARTS * PART_SIZE))
    assert len(one.digests) == PARTS
    assert (one.lost, one.again, one.remade) == (4 * PART_SIZE, 4 * PART_SIZE, [])
    assert not (tmp_path / "expanded").exists() or not list((tmp_path / "expanded").iterdir())
    assert {tuple(words[3:6]) for words in played.words} == {("expand", "--queries", "q")}


def test_a_table_that_fails_by_itself_is_left_to_the_checker(
    log: Log, stop: threading.Event, tmp_path: Path
) -> None:
    Batch([], tmp_path / "expanded", Stage("batch", log, [writes(2, status=2)], stop)).work(stop)
    assert log.of(Expanded) == []
    assert [one.status for one in log.of(Ended)] == [2]


def trains(runs: Path, step: int, *, done: bool = False, killed: bool = False) -> Played:
    """Return a job that trains up to a step, with a checkpoint there."""

    def played(words: Sequence[str]) -> tuple[int, bool, str]:
        kept = [int(folder.name[len("checkpoint_") :]) for folder in runs.glob("run/checkpoint_*")]
        folder = runs / "run" / f"checkpoint_{step:04}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"step": step, "files": {}}))
        if done:
            about = {"loss": 4.5, "steps": step, "resumed_at": max(kept, default=0)}
            (runs / "run" / "summary.json").write_text(json.dumps(about))
        return 0 if done else 1, killed, ""

    return played


def test_a_training_that_is_stopped_is_submitted_again_and_says_where_it_went_on(
    log: Log, stop: threading.Event, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    jobs = [trains(runs, 20, killed=True), trains(runs, 60, done=True)]
    played = Stage("training", log, jobs, stop)
    Training(["python", "-m", "jobs.train_encoder"], runs, played).work(stop)
    (one,) = log.of(Trained)
    assert (one.loss, one.steps, one.resumed_at, one.stopped_at) == (4.5, 60, 20, 20)
    names = [words[words.index("--submission-id") + 1] for words in played.words]
    assert len(set(names)) == 2


@pytest.mark.parametrize(("status", "stopped", "killed"), [(0, "crash-7", True), (1, "", False)])
def test_a_job_that_cannot_be_stopped_is_not_excused(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, stopped: str, killed: bool
) -> None:
    script = f"import sys; sys.exit({status})"
    monkeypatch.setattr("cluster.crashing.work.ray_job", lambda action: [sys.executable, "-c", script])
    training = Training([], tmp_path, Running("training", log), job="crash-7")
    assert training.stop_job() == "", "nothing runs"
    told: list[str] = []

    def stop_it() -> None:
        while not training.running.expect_end():
            time.sleep(0.01)
        training.running.expect_no_end()
        told.append(training.stop_job())
        ended.touch()

    ended = tmp_path / "ended"
    stopper = threading.Thread(target=stop_it)
    stopper.start()
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(ended)!r}).exists(): time.sleep(0.01)"
    one, _ = training.running.run([sys.executable, "-c", waits])
    stopper.join()
    assert told == [stopped]
    assert one.killed is killed


def test_a_training_begins_anew_in_each_round(log: Log, stop: threading.Event, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    jobs = [trains(runs, 60, done=True), trains(runs, 60, done=True)]
    Training([], runs, Stage("training", log, jobs, stop)).work(stop)
    assert [one.resumed_at for one in log.of(Trained)] == [0, 0]


def test_a_training_that_fails_by_itself_is_left_to_the_checker(
    log: Log, stop: threading.Event, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    Training([], runs, Stage("training", log, [trains(runs, 20)], stop)).work(stop)
    assert log.of(Trained) == []
    assert [(one.status, one.killed) for one in log.of(Ended)] == [(1, False)]


def test_bundles_of_all_inputs_become_current_and_the_first_between_them(
    log: Log, stop: threading.Event, tmp_path: Path
) -> None:
    pointer = tmp_path / "bundles" / "CURRENT"
    pointer.parent.mkdir()
    pointer.write_text("first\n")
    played = Stage("publisher", log, [lambda words: (0, False, "")] * 5, stop)
    Publisher(tmp_path, ["a", "b"], played).work(stop)
    told = [" ".join(words[3:]) for words in played.words]
    assert [line.partition(" --workspace")[0] for line in told] == ["build-index", "bundles"] * 2 + [
        "build-index"
    ]
    assert [word for line in told for word in ("a", "b") if f"--inputs {word} " in line] == ["b", "a", "b"]
    assert told[1].endswith("--use first")
