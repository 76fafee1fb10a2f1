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

from cluster.session import session
from engine.errors import StorageError, UserError
from jobs import console
from jobs.workers.executor import one_is_enough
from jobs.workers.summaries import SUMMARY, finished_summary

if TYPE_CHECKING:
    from jobs.workers.training_run import Run


def cluster_for(workers: int, gpu: bool) -> AbstractContextManager[None]:
    """Connect to the cluster of a training for the block, if it needs one.

    One worker on the CPU needs none, unless there is one to use (:func:`one_is_enough`).

    Args:
        workers: training processes.
        gpu: one GPU a worker.

    Raises:
        UserError: ``gpu`` on a cluster without one.
    """
    return nullcontext() if not gpu and one_is_enough(workers, tasks=1) else _checked_session(gpu)


@contextmanager
def _checked_session(gpu: bool) -> Iterator[None]:
    import ray

    with session():
        if gpu and not ray.cluster_resources().get("GPU"):
            raise UserError("--gpu: this cluster has no GPU; leave the flag out to train on CPUs")
        yield


def cores_of_a_worker(workers: int) -> float:
    """Return the cores that each of the workers can have, a node's at most."""
    import ray

    nodes = [float(n["Resources"].get("CPU", 0)) for n in ray.nodes() if n["Alive"]]
    return min(sum(nodes) / workers, max(nodes))


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
        except StorageError as error:
            console.say(f"{error}; it is made again from the last checkpoint")
            (folder / SUMMARY).delete()
        else:
            if not math.isfinite(found.get("loss") or 0.0):  # of a version that trained to the end all the same
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
    if run.gpu or not one_is_enough(workers, tasks=1) or began_on_ray(run.folder):
        with session():
            _fit_on_ray(run, workers)
    else:
        _fit_here(run)


def _fit_here(run: Run[Any]) -> None:
    from engine.training.deepspeed import torch_settings_restored
    from jobs.workers.training_run import work
    from jobs.workers.training_sessions import LocalSession

    with torch_settings_restored(), console.meter("training, steps") as meter:
        work(run, LocalSession(run, meter))


def _fit_on_ray(run: Run[Any], workers: int) -> None:
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # A report waits for the controller's next look at its workers, every two seconds unless set otherwise.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    # Half a core is left free for each worker: Train's own actors and the readers of data need some.
    cores = cores_of_a_worker(workers)
    cpus = max(0.5, cores - 0.5)
    folder = run.folder
    free = float(ray.available_resources().get("CPU", 0))
    short = f"waiting for {workers} x {cpus:g} free cores, of which {free:g} are free"
    note = "starting the workers" if free >= workers * cpus else short
    progress = ray.remote(num_cpus=0)(Progress).remote(note)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"run": pickle.dumps(run), "cores": cores, "progress": progress},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=run.gpu,
            resources_per_worker={"CPU": cpus} | ({"GPU": 1} if run.gpu else {}),
        ),
        torch_config=TorchConfig(backend="nccl" if run.gpu else "gloo"),
        run_config=RunConfig(
            name=folder.name,
            storage_path=folder.path.rsplit("/", 1)[0],
            storage_filesystem=None if folder.is_local else folder.fs,
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    with console.meter("training, steps") as meter, _Watch(progress, meter), _interruptible():
        trainer.fit()


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

    config["progress"].set.remote(0, 0, "opening the model and its data")
    run = pickle.loads(config["run"])
    work(run, RaySession(run, config["cores"], config["progress"]))


class Progress:
    """A named counter on the cluster: the first worker writes, the driver reads."""

    def __init__(self, note: str) -> None:
        self.state: tuple[int, int, str] = (0, 0, note)

    def set(self, done: int, total: int, note: str) -> None:
        """Say how many steps are done, of how many, and what else is worth showing."""
        self.state = (done, total, note)

    def get(self) -> tuple[int, int, str]:
        """Return what was said last."""
        return self.state


class _Watch(threading.Thread):
    """A thread that shows the workers' progress while the driver waits for them."""

    def __init__(self, progress: Any, meter: console.Meter) -> None:
        super().__init__(daemon=True)
        self._progress, self._meter, self._ended = progress, meter, threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
        self._poll()

    def run(self) -> None:
        while not self._ended.wait(0.5):
            self._poll()

    def _poll(self) -> None:
        import ray

        done, total, note = ray.get(self._progress.get.remote())
        self._meter.expect(total)
        # After a restart from a checkpoint the worker is behind what was shown; the bar waits for it.
        self._meter.add(max(0, done - self._meter.done), note)
