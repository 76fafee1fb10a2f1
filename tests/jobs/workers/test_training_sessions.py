"""A training in this process: its checkpoints, and where its run goes on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import FormatError
from engine.storage.store import Store
from engine.storage.whole import sizes_of
from engine.training.checkpoint import STATE, read_state, write_state
from engine.training.settings import EncoderSettings
from engine.training.trainer import StepReport, Trainer
from jobs import console
from jobs.workers import trainer
from jobs.workers.training_run import Run
from jobs.workers.training_sessions import (
    CHECKPOINTS,
    SNAPSHOT,
    LocalSession,
    RaySession,
    began_on_ray,
    drop_broken_snapshot,
    local_checkpoint,
    whole_checkpoint,
)


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


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("workers", "gpu", "on_ray"), [(1, False, False), (2, False, True), (1, True, True)])
def test_more_workers_than_one_train_on_ray_also_where_no_cluster_runs(
    workers: int, gpu: bool, on_ray: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Store.open(tmp_path / "run")
    asked: list[str] = []
    monkeypatch.setattr(trainer, "session", nullcontext)
    monkeypatch.setattr(trainer, "_fit_on_ray", lambda run, workers: asked.append(f"{workers} on Ray"))
    monkeypatch.setattr(trainer, "_fit_here", lambda run: asked.append("here"))
    trainer.fit(cast(Run[Any], SimpleNamespace(folder=folder, gpu=gpu)), workers)
    assert asked == ([f"{workers} on Ray"] if on_ray else ["here"])
    monkeypatch.setattr(trainer, "_checked_session", lambda *given: nullcontext("a cluster"))
    with trainer.cluster_for(workers, gpu, folder) as cluster:
        assert (cluster == "a cluster") == on_ray


def test_the_newest_checkpoint_is_found_and_all_but_one_before_it_are_removed(run: Store) -> None:
    session, training = session_of(run), cast(Trainer, Kept())
    with session.checkpoint() as folder:
        assert folder is None
    for number in (9, 10, 100):
        session.keep(step(number), training)
        with session.checkpoint() as folder:
            assert folder is not None
            assert {file.name for file in folder.iterdir()} == {"tensors", STATE}
    assert {file.path.split("/")[-2] for file in (run / CHECKPOINTS).files()} == {f"{10:010}", f"{100:010}"}


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


def checkpoint(folder: Path, number: int) -> None:
    """Write a checkpoint of two shards into an existing folder."""
    for shard in range(2):
        save_file({"weight": torch.full((64,), float(number))}, folder / f"shard-{shard:05}.safetensors")
    write_state(folder, {"step": number}, EncoderSettings(), sizes_of(folder))


class Sharded:
    """A training whose checkpoints have shards."""

    def __init__(self) -> None:
        self.step = 0

    def save(self, folder: Path) -> None:
        self.step += 5
        checkpoint(folder, self.step)


def run_with(run: Store, names: list[str]) -> None:
    """Put checkpoints into a run's folder, of the steps 5, 10 and so on."""
    for place, name in enumerate(names):
        staged = (run / name).staging()
        checkpoint(staged, 5 * (place + 1))
        (run / name).publish_folder(staged, last=STATE)


OURS = [f"{CHECKPOINTS}/{step:010}" for step in (5, 10)]
RAYS = ["checkpoint_2026-01-01_00-00-00.000000", "checkpoint_2026-01-01_00-00-09.000000"]


def cut(file: Store) -> None:
    file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.parametrize("lost", [STATE, "shard-00001.safetensors"])
@pytest.mark.parametrize("damage", [cut, Store.delete, lambda file: file.write_bytes(b"")])
@pytest.mark.parametrize("names", [OURS, RAYS, [*OURS[:1], *RAYS[:1]]])
def test_a_run_falls_back_to_the_checkpoint_before_one_that_is_cut(
    tmp_path: Path, names: list[str], damage: Any, lost: str
) -> None:
    run, said = Store.open(tmp_path / "run"), list[str]()
    run_with(run, names)
    with local_checkpoint(run) as folder:
        assert folder is not None
        assert read_state(folder, EncoderSettings())["step"] == 10
    damage(run / names[1] / lost)
    found = whole_checkpoint(run, said.append)
    assert found == run / names[0]
    # One without a state was never finished: nothing is lost with it.
    assert said or (lost == STATE and damage is Store.delete)
    for text in said:
        assert text.startswith(f"{(run / names[1]).uri}: {lost} ")
        assert "goes on from the checkpoint before it" in text
    damage(run / names[0] / "shard-00000.safetensors")
    with pytest.raises(FormatError, match=r"no other checkpoint is whole; start afresh with --restart"):
        whole_checkpoint(run)


def test_a_run_in_a_bucket_falls_back_too_and_goes_on(s3: str) -> None:
    run = Store.open(f"{s3}/run")
    run_with(run, OURS)
    cut(run / OURS[1] / "shard-00001.safetensors")
    with local_checkpoint(run) as folder:
        assert folder is not None
        assert read_state(folder, EncoderSettings())["step"] == 5
    training = Sharded()
    training.step = 2
    session_of(run).keep(step(7), cast(Trainer, training))
    left = {state.path.split("/")[-2] for state in (run / CHECKPOINTS).files(STATE)}
    assert left == {f"{5:010}", f"{7:010}"}, "what is cut is not kept as the one before"


def test_a_worker_of_ray_train_falls_back_too(run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run_with(run, RAYS)

    class Newest:
        path = f"{run.path}/{RAYS[1]}"

        @contextmanager
        def as_directory(self) -> Iterator[str]:
            yield "the newest"

    train = SimpleNamespace(get_checkpoint=Newest)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(train=train, is_initialized=lambda: False))
    session = RaySession(cast(Run[Any], SimpleNamespace(folder=run)), 1, None)
    with session.checkpoint() as folder:
        assert folder == Path("the newest")
    cut(run / RAYS[1] / "shard-00001.safetensors")
    with session.checkpoint() as folder:
        assert folder is not None
        assert read_state(folder, EncoderSettings())["step"] == 5


def test_a_checkpoint_of_an_earlier_version_is_judged_by_its_tensors(tmp_path: Path) -> None:
    run = Store.open(tmp_path / "run")
    run_with(run, OURS)
    for name in OURS:
        state = json.loads((run / name / STATE).read_bytes())
        del state["files"]
        (run / name / STATE).write_bytes(json.dumps(state).encode())
    assert whole_checkpoint(run) == run / OURS[1]
    cut(run / OURS[1] / "shard-00000.safetensors")
    assert whole_checkpoint(run) == run / OURS[0]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"settings": ', b"\xff"])
def test_a_state_that_cannot_be_read_names_the_way_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(FormatError, match=r"state.json: not the state of a checkpoint.*--restart"):
        read_state(tmp_path, EncoderSettings())


def test_ray_trains_record_is_removed_if_ray_train_could_not_begin_with_it(run: Store) -> None:
    said = list[str]()
    drop_broken_snapshot(run, said.append)
    run_with(run, RAYS)
    whole = json.dumps({"checkpoint_results": [{"checkpoint_dir_name": name} for name in RAYS]}).encode()
    (run / SNAPSHOT).write_bytes(whole)
    drop_broken_snapshot(run, said.append)
    assert (run / SNAPSHOT).exists()
    assert said == []
    (run / SNAPSHOT).write_bytes(whole[:-9])
    drop_broken_snapshot(run, said.append)
    assert not (run / SNAPSHOT).exists()
    (run / SNAPSHOT).write_bytes(whole)
    (run / RAYS[0]).delete()
    drop_broken_snapshot(run, said.append)
    assert not (run / SNAPSHOT).exists()
    assert [text.split("; ")[0].split(": ", 1)[1] for text in said] == [
        "cannot be read",
        f"names {RAYS[0]}, which is gone",
    ]
    assert whole_checkpoint(run) == run / RAYS[1]
