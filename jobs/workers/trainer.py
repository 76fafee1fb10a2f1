"""Start the workers of a training, on Ray Train or alone in this process, and show how far they are."""

from __future__ import annotations

import math
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from cluster.capacity import LEAST_CPUS, cores_of_a_worker, living_nodes, room
from cluster.session import session
from cluster.sharing import check_shared
from engine.errors import DamagedFileError, MissingFileError, UserError
from engine.storage.store import Store
from jobs import console
from jobs.workers.executor import one_is_enough
from jobs.workers.failures import (
    CHECKPOINT_KEPT,
    WorkerDiedError,
    causes,
    deaths_in_words,
    disk_named,
    worker_death,
)
from jobs.workers.progress import Watch, start_counter, tell
from jobs.workers.summaries import SUMMARY, finished_summary

if TYPE_CHECKING:
    from jobs.workers.training_run import Run


STARTS = 9
"""Ray Train waits a minute for the cores of its workers, so many times once more: ten minutes together."""

DID_NOT_START = "WorkerGroupStartup"
"""Beginning of the names of Ray Train's errors that say so; it has no public ones."""


def cluster_for(workers: int, gpu: bool, workspace: Store) -> AbstractContextManager[None]:
    """Connect to the cluster of a training for the block, if it needs one.

    One worker on the CPU needs none, unless there is one to use (:func:`one_is_enough`).

    Args:
        workers: training processes.
        gpu: one GPU a worker.
        workspace: the folder that every node must see.

    Raises:
        UserError: ``gpu`` on a cluster without one, more workers than fit on its nodes, or a node that does
            not see the workspace.
    """
    if not gpu and one_is_enough(workers, tasks=workers):
        return nullcontext()
    return _checked_session(workers, gpu, workspace)


@contextmanager
def _checked_session(workers: int, gpu: bool, workspace: Store) -> Iterator[None]:
    with session():
        nodes = living_nodes()
        if gpu and not room(nodes, 0, 1):
            raise UserError("--gpu: this cluster has no GPU; leave the flag out to train on CPUs")
        cores_of_a_worker(nodes, workers, gpu)
        check_shared([workspace.uri])
        yield


def train_or_load_summary(run: Run[Any], workers: int, restart: bool) -> dict[str, Any]:
    """Return a run's summary, after it was trained to its end unless it is there already.

    Args:
        run, workers: see :func:`fit`.
        restart: forget what there is of the run.
    """
    folder = run.folder
    if restart:
        folder.delete()
    if (folder / SUMMARY).exists():
        try:
            found = finished_summary(folder, run.artifact)
        except (MissingFileError, DamagedFileError) as error:
            console.say(f"{error}; it is made again from the last checkpoint")
            (folder / SUMMARY).delete()
        else:
            if not math.isfinite(found.get("loss") or 0.0):  # of a version that went on all the same
                raise UserError(
                    f"{folder.uri}: this run ended with a loss of {found['loss']}; take a lower "
                    "--learning-rate, or begin it again with --restart"
                )
            console.say(f"{folder.uri}: this run is finished; --restart trains it again")
            return found
    fit(run, workers)
    return finished_summary(folder, run.artifact)


def fit(run: Run[Any], workers: int) -> None:
    """Run the workers to their end and show their progress.

    A run of the same name resumes from its last checkpoint, also on another number of workers.

    Args:
        run: the description for every worker.
        workers: training processes; one on the CPU trains in this process, unless there is a cluster to use
            or Ray Train began the run.
    """
    from jobs.workers.training_sessions import began_on_ray, drop_broken_snapshot, whole_checkpoint

    whole_checkpoint(run.folder, console.say)  # what cannot go on: say so before a cluster is asked for
    drop_broken_snapshot(run.folder, console.say)
    if run.gpu or not one_is_enough(workers, tasks=workers) or began_on_ray(run.folder):
        with session(), disk_named(run.folder.uri):
            _fit_on_ray(run, workers)
    else:
        with disk_named(run.folder.uri):
            _fit_here(run)


def _fit_here(run: Run[Any]) -> None:
    from engine.training.deepspeed import torch_settings_restored
    from jobs.workers.training_run import work
    from jobs.workers.training_sessions import LocalSession

    with torch_settings_restored(), console.meter("training, steps") as meter:
        work(run, LocalSession(run, meter))


def _fit_on_ray(run: Run[Any], workers: int) -> None:
    import ray
    from ray.train import ScalingConfig

    # A report waits for the controller's next look at its workers, every two seconds unless set otherwise.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    # Half a core is left free for each worker: Train's own actors and the readers of data need some.
    cores = cores_of_a_worker(living_nodes(), workers, run.gpu)
    cpus = max(LEAST_CPUS, cores - 0.5)
    free = float(ray.available_resources().get("CPU", 0))
    short = f"waiting for {workers} x {cpus:g} free cores, of which {free:g} are free"
    note = "starting the workers" if free >= workers * cpus else short
    progress = start_counter(note)
    given = {"run": pickle.dumps(run), "cores": cores, "progress": progress}
    scaling = ScalingConfig(
        num_workers=workers,
        use_gpu=run.gpu,
        resources_per_worker={"CPU": cpus} | ({"GPU": 1} if run.gpu else {}),
    )
    shown, worded = console.meter("training, steps"), _waiting_in_words(workers, cpus)
    with shown as meter, Watch(progress, meter), _interruptible(), deaths_in_words(CHECKPOINT_KEPT), worded:
        _trainer(run, given, scaling).fit()


def _trainer(run: Run[Any], given: dict[str, Any], scaling: Any) -> Any:
    """Return Ray Train's trainer of a run, which goes on from its last checkpoint."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from jobs.workers.train_callback import EndInVain

    folder = run.folder
    # Ray shows type checkers the settings of another version of Ray Train.
    failures: Any = FailureConfig
    callbacks: Any = [EndInVain()]
    return TorchTrainer(
        _work,
        train_loop_config=given,
        scaling_config=scaling,
        torch_config=TorchConfig(backend="nccl" if run.gpu else "gloo"),
        run_config=RunConfig(
            name=folder.name,
            storage_path=folder.path.rsplit("/", 1)[0],
            storage_filesystem=None if folder.is_local else folder.fs,
            failure_config=failures(max_failures=-1, controller_failure_limit=STARTS),  # see EndInVain
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=callbacks,
        ),
    )


@contextmanager
def _waiting_in_words(workers: int, cpus: float) -> Iterator[None]:
    """Turn what Ray Train makes of a user's mistake, or of workers that do not start, into the error of it.

    Raises:
        UserError: a worker's, as itself; or says what the workers wait for.
    """
    from ray.train import TrainingFailedError

    try:
        yield
    except TrainingFailedError as error:
        for one in causes(error):
            if isinstance(one, UserError):
                raise one from None
        reason = getattr(error, "controller_failure", None)
        if reason is not None and (death := worker_death(reason)):
            raise WorkerDiedError(
                f"a worker of the training died while it started ({death}), after which Ray Train does "
                f"not go on; {CHECKPOINT_KEPT}"
            ) from error
        if not type(reason).__name__.startswith(DID_NOT_START):
            raise
        first = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
        raise UserError(
            f"the {workers} workers of the training were not started in {STARTS + 1} tries of a minute each "
            f"({first}): each needs {cpus:g} free cores of one node, which other work may hold; wait for its "
            "end, or take fewer --workers"
        ) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the block as it ends any other, and work as before after it.

    Ray Train has a handler of its own, which stops the workers, but then ends the program with status 0, as
    if the run had been finished; and it leaves the handler behind.
    """
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if in_main:
            signal.signal(signal.SIGINT, handler)


def _work(config: dict[str, Any]) -> None:
    """Do a worker's part.

    Train's controller opens what its workers are given: for it the run stays closed and its modules, which
    bring torch, transformers and DeepSpeed along, are not imported. That saves a process ten seconds.
    """
    from jobs.workers.training_run import work
    from jobs.workers.training_sessions import RaySession

    tell(config["progress"], 0, 0, "opening the model and its data")
    run = pickle.loads(config["run"])
    work(run, RaySession(run, config["cores"], config["progress"]))
