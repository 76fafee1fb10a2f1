"""A training in this process: its checkpoints, and where its run goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.storage.store import Store
from engine.training.checkpoint import STATE
from engine.training.trainer import StepReport, Trainer
from jobs import console
from jobs.workers.training_run import Run
from jobs.workers.training_sessions import CHECKPOINTS, LocalSession, began_on_ray, local_checkpoint


class Kept:
    """A record of what a session asks of a training."""

    def save(self, folder: Path) -> None:
        (folder / "tensors").write_text("all of them")
        (folder / STATE).write_text("{}")


def session_of(folder: Store) -> LocalSession:
    run = cast(Run[Any], SimpleNamespace(folder=folder))
    return LocalSession(run, console.Meter("training", None, None))


def step(number: int) -> StepReport:
    return cast(StepReport, SimpleNamespace(step=number))


@pytest.fixture(params=["disk", "bucket"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    place = tmp_path if request.param == "disk" else request.getfixturevalue("s3")
    return Store.open(f"{place}/run")


def test_the_newest_checkpoint_is_found_and_those_before_are_removed(run: Store) -> None:
    session, training = session_of(run), cast(Trainer, Kept())
    with session.checkpoint() as folder:
        assert folder is None
    for number in (9, 10, 100):
        session.keep(step(number), training)
        with session.checkpoint() as folder:
            assert folder is not None
            assert {file.name for file in folder.iterdir()} == {"tensors", STATE}
    assert {file.path.split("/")[-2] for file in (run / CHECKPOINTS).files()} == {f"{100:010}"}


def test_a_checkpoint_that_is_not_whole_is_none(run: Store) -> None:
    session_of(run).keep(step(3), cast(Trainer, Kept()))
    (run / CHECKPOINTS / f"{4:010}" / "tensors").write_bytes(b"a part")
    with local_checkpoint(run) as folder:
        assert folder is not None
        assert (folder / STATE).is_file()


def test_the_same_step_again_takes_the_place_of_the_first(run: Store) -> None:
    session = session_of(run)
    session.keep(step(3), cast(Trainer, Kept()))
    session.keep(step(3), cast(Trainer, Kept()))
    with session.checkpoint() as folder:
        assert folder is not None


def test_what_ray_train_began_is_told_from_what_began_here(run: Store) -> None:
    assert not began_on_ray(run)
    session_of(run).keep(step(3), cast(Trainer, Kept()))
    assert not began_on_ray(run)
    (run / "checkpoint_2026-01-01_00-00-00.000000" / STATE).write_bytes(b"{}")
    assert began_on_ray(run)


def test_no_session_here_connects_to_a_cluster(run: Store) -> None:
    session = session_of(run)
    assert (session.worker.rank, session.worker.world, session.worker.device.type) == (0, 1, "cpu")
    ray = sys.modules.get("ray")
    assert ray is None or not ray.is_initialized()
