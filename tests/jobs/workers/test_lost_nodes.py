from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from jobs.workers import lost_nodes as module
from jobs.workers.failures import RESTARTS, WorkerDiedError
from jobs.workers.lost_nodes import LONGEST_WAITS, POLL_S, QUIET_S, Reader, Watchdog, all_rows


@pytest.fixture(autouse=True)
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.gc, "collect", lambda: 0)  # among all that the tests imported: a second


class World:
    """A clock that goes on while a row is waited for, and the nodes that are dead."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.dead: dict[str, str] = {"long ago": "10.0.0.9"}
        self.said: list[str] = []
        self.passes: list[Script] = []

    def watchdog(self) -> Watchdog:
        return Watchdog(lambda: dict(self.dead), self.said.append, lambda: self.now)

    def run(self, scripts: Sequence[Callable[[Sequence[str]], Iterator[Any]]], tasks: Sequence[str]) -> Any:
        """Yield the rows of some tasks, the passes after each other as the scripts say."""
        given = iter(scripts)

        def begin(some: Sequence[str]) -> Script:
            self.passes.append(Script(self, list(some), next(given)))
            return self.passes[-1]

        return all_rows(begin, tasks, lambda row: row[0], self.watchdog)


class Script:
    """The rows of a pass: a script yields a row, seconds in which none comes, or raises."""

    ends = True

    def __init__(self, world: World, tasks: list[str], script: Callable[[Sequence[str]], Any]) -> None:
        self.world, self.tasks, self.ended = world, tasks, 0
        self._script, self._owed = script(tasks), 0.0

    def take(self, seconds: float) -> Any:
        if self._owed <= 0:
            match next(self._script):
                case float(owed):
                    self._owed = owed
                case row:
                    return row
        self.world.now += min(seconds, self._owed)
        self._owed -= seconds
        return None

    def end(self) -> bool:
        self.ended += 1
        return self.ends


def rows(tasks: Sequence[str]) -> Iterator[Any]:
    yield from ((task, task.upper()) for task in tasks)


def test_a_pass_without_a_fault_is_read_through_once() -> None:
    world = World()
    assert list(world.run([rows], "abc")) == [("a", "A"), ("b", "B"), ("c", "C")]
    assert [(one.tasks, one.ended) for one in world.passes] == [(["a", "b", "c"], 1)]
    assert world.said == [], "a node that was dead before is none of this pass"


def test_nothing_to_do_begins_no_pass() -> None:
    world = World()
    assert list(world.run([], "")) == []
    assert world.passes == []


def test_a_pass_that_waits_for_a_lost_node_is_begun_again_with_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = World()

    def hangs(tasks: Sequence[str]) -> Iterator[Any]:
        yield ("b", 1)
        world.dead["n2"] = "10.0.0.2"
        yield 1e9

    found = list(world.run([hangs, rows], "abc"))
    assert found == [("b", 1), ("a", "A"), ("c", "C")], "none twice, none lost"
    assert [(one.tasks, one.ended) for one in world.passes] == [(["a", "b", "c"], 1), (["a", "c"], 1)]
    assert QUIET_S <= world.now - 1000 <= QUIET_S + 2 * POLL_S
    shown = capsys.readouterr().err
    assert "after the node at 10.0.0.2 was lost; begun again with the 2 of 3 parts" in " ".join(shown.split())


def test_a_row_that_comes_twice_is_given_once() -> None:
    def twice(tasks: Sequence[str]) -> Iterator[Any]:
        yield from (("a", 1), ("a", 2), ("b", 3))

    assert list(World().run([twice], "ab")) == [("a", 1), ("b", 3)]


def test_a_lost_node_ends_nothing_while_rows_come() -> None:
    world = World()

    def slow(tasks: Sequence[str]) -> Iterator[Any]:
        world.dead["n2"] = "10.0.0.2"
        for row in rows(tasks):
            yield 0.9 * QUIET_S
            yield row

    assert len(list(world.run([slow], "abcdef"))) == 6
    assert len(world.passes) == 1


def test_who_was_slow_before_is_given_longer() -> None:
    world = World()
    slow_s = 2 * QUIET_S

    def slow(tasks: Sequence[str]) -> Iterator[Any]:
        yield slow_s
        yield ("a", 1)
        world.dead["n2"] = "10.0.0.2"
        yield 0.9 * LONGEST_WAITS * slow_s
        yield ("b", 2)

    assert len(list(world.run([slow], "ab"))) == 2
    assert len(world.passes) == 1


def test_the_time_counts_from_the_loss() -> None:
    world = World()

    def late(tasks: Sequence[str]) -> Iterator[Any]:
        yield 10 * QUIET_S
        world.dead["n2"] = "10.0.0.2"
        yield 0.9 * QUIET_S
        yield ("a", 1)

    assert list(world.run([late], "a")) == [("a", 1)]


def test_a_slow_pass_without_a_lost_node_is_told_of_and_goes_on() -> None:
    world = World()

    def slow(tasks: Sequence[str]) -> Iterator[Any]:
        yield 8.5 * QUIET_S
        yield ("a", 1)

    assert list(world.run([slow], "a")) == [("a", 1)]
    assert len(world.passes) == 1
    assert [line.split(";")[0] for line in world.said] == [
        f"no result came for {times * QUIET_S:.0f} s" for times in (1, 2, 4, 8)
    ]


def test_a_pass_that_hangs_each_time_ends_with_what_to_do() -> None:
    world = World()

    def hangs(tasks: Sequence[str]) -> Iterator[Any]:
        world.dead[f"n{len(world.passes)}"] = "10.0.0.2"
        yield 1e9

    with pytest.raises(WorkerDiedError, match=rf"{RESTARTS + 1} times in a row.*run the same command again"):
        list(world.run([hangs] * 9, "ab"))
    assert len(world.passes) == RESTARTS + 1


def test_passes_that_get_further_may_lose_any_number_of_nodes() -> None:
    world = World()

    def one_and_hangs(tasks: Sequence[str]) -> Iterator[Any]:
        yield (tasks[0], 1)
        world.dead[f"n{len(world.passes)}"] = "10.0.0.2"
        yield 1e9

    tasks = [str(number) for number in range(3 * RESTARTS)]
    assert list(world.run([one_and_hangs] * len(tasks), tasks)) == [(task, 1) for task in tasks]


def test_actors_that_died_too_often_are_begun_again_where_they_brought_rows() -> None:
    world = World()

    def one_and_dies(tasks: Sequence[str]) -> Iterator[Any]:
        yield (tasks[0], 1)
        raise ActorDiedError

    def dies(tasks: Sequence[str]) -> Iterator[Any]:
        yield from ()
        raise ActorDiedError

    tasks = [str(number) for number in range(3 * RESTARTS)]
    assert list(world.run([one_and_dies] * len(tasks), tasks)) == [(task, 1) for task in tasks]
    begun = len(world.passes)
    with pytest.raises(ActorDiedError):
        list(world.run([one_and_dies, dies], "ab"))
    assert [one.ended for one in world.passes[begun:]] == [1, 1]


def test_what_does_not_end_is_not_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(Script, "ends", False)

    def hangs(tasks: Sequence[str]) -> Iterator[Any]:
        world.dead["n2"] = "10.0.0.2"
        yield 1e9

    with pytest.raises(WorkerDiedError, match="Ray did not end the work"):
        list(world.run([hangs], "ab"))
    assert len(world.passes) == 1


def test_rows_that_are_missing_at_the_end_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="without the results of 1 of 2 tasks"):
        list(World().run([lambda tasks: rows(tasks[:1])], "ab"))


def test_what_a_pass_raises_is_raised_and_the_pass_is_ended() -> None:
    world = World()

    def fails(tasks: Sequence[str]) -> Iterator[Any]:
        yield ("a", 1)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        list(world.run([fails], "ab"))
    assert world.passes[0].ended == 1


def test_a_pass_that_is_left_early_is_ended() -> None:
    world = World()
    reading = world.run([rows], "ab")
    next(reading)
    reading.close()
    assert world.passes[0].ended == 1


class FakeDataset:
    """What a :class:`Reader` uses of a dataset: rows, and a pass that hangs until it is shut down."""

    def __init__(self, given: Sequence[Any], hangs: bool = False) -> None:
        self.context = type("Context", (), {})()
        self._given, self._hangs = given, hangs
        self._shut = threading.Event()

    def iter_rows(self) -> Iterator[Any]:
        (callback,) = self.context.custom_execution_callback_classes
        callback().before_execution_starts(self)
        yield from self._given
        if self._hangs:
            self._shut.wait(10)

    def shutdown(self, force: bool) -> None:
        assert force, "else actors that are started again hold their cores"
        self._shut.set()


def test_a_reader_gives_the_rows_then_stops() -> None:
    reader = Reader(FakeDataset([1, 2]))
    assert [reader.take(5), reader.take(5)] == [1, 2]
    with pytest.raises(StopIteration):
        reader.take(5)
    assert reader.end()


def test_a_reader_raises_what_the_pass_raised() -> None:
    class Fails(FakeDataset):
        def iter_rows(self) -> Iterator[Any]:
            raise OSError("disk")

    reader = Reader(Fails([]))
    with pytest.raises(OSError, match="disk"):
        reader.take(5)
    assert reader.end()


def test_a_reader_that_hangs_is_ended() -> None:
    reader = Reader(FakeDataset([1], hangs=True))
    assert reader.take(5) == 1
    assert reader.take(0.01) is None
    assert reader.end()
    assert not reader.is_alive()


def test_a_reader_far_ahead_is_ended() -> None:
    reader = Reader(FakeDataset(range(1000)))
    assert reader.take(5) == 0
    assert reader.end()
    assert not reader.is_alive()


def test_a_reader_that_cannot_be_ended_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_S", 0.02)
    monkeypatch.setattr(FakeDataset, "shutdown", lambda self, force: None)
    dataset = FakeDataset([], hangs=True)
    reader = Reader(dataset)
    assert reader.take(0.01) is None
    assert not reader.end()
    dataset._shut.set()
