from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from engine.storage.parts import PartFolder
from engine.storage.store import Store
from jobs.workers import executor as module
from jobs.workers.executor import AutoExecutor, Executor, LocalExecutor, RayExecutor, in_order, make_parts
from tests.support.tasks import Refuses, Squares, WritesParts


def check_contract(executor: Executor, folder: Path) -> set[int]:
    """Check what every executor does; return the processes that worked."""
    tasks = [3, 1, 2, 5]
    found = dict(executor.map(Squares, (str(folder),), tasks))
    assert found == {0: 9, 1: 1, 2: 4, 3: 25}
    assert list(executor.map(Squares, (), [])) == []
    with pytest.raises(UserError, match=r"^m: no such model"):
        list(executor.map(Refuses, ("m",), [1]))
    done = [path.name.split("-") for path in folder.iterdir()]
    assert sorted(int(task) for task, _ in done) == [1, 2, 3, 5], "each task once"
    return {int(process) for _, process in done}


def test_the_contract_in_this_process(tmp_path: Path) -> None:
    assert check_contract(LocalExecutor(), tmp_path) == {os.getpid()}


@pytest.mark.slow
@pytest.mark.ray
def test_the_contract_on_ray(ray_local: None, tmp_path: Path) -> None:
    (tmp_path / "auto").mkdir()
    (tmp_path / "ray").mkdir()
    with AutoExecutor() as auto:
        assert os.getpid() not in check_contract(auto, tmp_path / "auto"), "a cluster that is there is used"
    from cluster.session import session

    with session():
        assert os.getpid() not in check_contract(RayExecutor(workers=2), tmp_path / "ray")


@pytest.mark.parametrize(
    ("workers", "tasks", "cluster", "here"),
    [
        (None, 1, False, True),
        (1, 3, False, True),
        (None, 2, False, False),
        (2, 2, False, False),
        (None, 1, True, False),
        (1, 1, True, False),
    ],
)
def test_ray_is_used_where_it_helps_or_is_there(
    workers: int | None, tasks: int, cluster: bool, here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def map_as(name: str) -> Callable[..., Iterator[Any]]:
        def mapped(self: object, *arguments: object) -> Iterator[Any]:
            asked.append(name)
            return iter(())

        return mapped

    monkeypatch.setattr(LocalExecutor, "map", map_as("here"))
    monkeypatch.setattr(RayExecutor, "map", map_as("ray"))
    monkeypatch.setattr(module, "has_cluster", lambda: cluster)
    monkeypatch.setattr("cluster.session.session", no_session)
    with AutoExecutor(workers) as auto:
        list(auto.map(Squares, (), list(range(tasks))))
    assert asked == (["here"] if here else ["ray"])


class no_session:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


def test_an_address_in_the_environment_is_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert module.has_cluster()


def test_parts_are_made_once_and_only_where_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "parts"
    parts = PartFolder(Store.open(folder), (".txt",), lambda file: int(file.read_bytes()))
    tasks = {"c": ("c", 3), "a": ("a", 1), "b": ("b", 2)}
    first = make_parts(parts, tasks, WritesParts, (str(folder),), LocalExecutor(), "numbers")
    assert (first.parts, first.made, first.kept) == ({"c": 3, "a": 1, "b": 2}, 3, 0)
    assert list(first.parts) == ["c", "a", "b"], "in the order of the tasks"
    (folder / "part-a.txt").unlink()
    (folder / "part-b.txt").write_text("half a num")
    stamp = (folder / "part-c.txt").stat().st_mtime_ns
    capsys.readouterr()
    again = make_parts(parts, tasks, WritesParts, (str(folder),), LocalExecutor(), "numbers")
    assert (again.parts, again.made, again.kept) == (first.parts, 2, 1)
    assert (folder / "part-c.txt").stat().st_mtime_ns == stamp
    assert "1 of 3 parts are there already and are kept" in capsys.readouterr().err


def test_results_come_in_the_order_of_their_tasks_as_soon_as_they_can() -> None:
    given: list[int] = []

    def results() -> Iterator[tuple[int, str]]:
        for place in (2, 0, 1, 3):
            given.append(place)
            yield place, "abcd"[place]

    ordered = in_order(results())
    assert next(ordered) == "a"
    assert given == [2, 0]
    assert list(ordered) == ["b", "c", "d"]
