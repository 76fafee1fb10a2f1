"""How workers failed: which errors a new try would meet again, and what a death is called."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError, WorkerCrashedError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerGroupStartupFailedError,
    WorkerHealthCheckFailedError,
)

from cluster import capacity
from cluster.capacity import Node
from engine.errors import StorageError, UserError
from jobs.workers import executor
from jobs.workers.executor import actor_pool
from jobs.workers.failures import (
    RESTARTS,
    WorkerDiedError,
    deaths_in_words,
    disk_named,
    lasting_mistake,
    worker_death,
)
from jobs.workers.train_callback import EndInVain
from jobs.workers.trainer import _waiting_in_words

DIED = ActorDiedError()
TWO = {0: RuntimeError("lost a neighbour"), 1: UserError("a")}


def of_worker(error: BaseException) -> UserExceptionWithTraceback:
    """What Ray Train makes of an error in a worker."""
    return UserExceptionWithTraceback(error, "Traceback …")


def of_task(error: Exception) -> RayTaskError:
    return RayTaskError("task", "Traceback …", error)


@pytest.mark.parametrize(
    ("error", "lasting"),
    [
        (of_worker(UserError("a")), True),
        (WorkerGroupError("…", {rank: of_worker(error) for rank, error in TWO.items()}), True),
        (of_task(UserError("a")), True),
        (of_worker(StorageError("the bucket is away")), False),
        (of_worker(RuntimeError("a")), False),
        (DIED, False),
    ],
)
def test_a_mistake_is_not_tried_again_and_what_may_pass_is(error: Exception, lasting: bool) -> None:
    assert (lasting_mistake(error) is not None) == lasting
    end = EndInVain()
    if not lasting:
        end.after_exception(None, {0: error})
        return
    with pytest.raises(UserError, match=r"^a$"):
        end.after_exception(None, {1: RuntimeError("lost a neighbour"), 0: error})


def test_workers_fail_as_often_as_they_get_further_and_three_times_where_they_do_not() -> None:
    end, checkpoint = EndInVain(), object()
    for _ in range(5):
        for _ in range(RESTARTS):
            end.after_exception(None, {0: DIED})
        end.after_report(None, [{}], None)
        end.after_report(None, [{}], checkpoint)
    for _ in range(RESTARTS):
        end.after_report(None, [{}], None)
        end.after_exception(None, {0: DIED})
    with pytest.raises(WorkerDiedError, match=r"died 4 times at the same work"):
        end.after_exception(None, {1: DIED})
    with pytest.raises(UserExceptionWithTraceback):
        end.after_exception(None, {1: of_worker(RuntimeError("a defect"))})


def test_a_death_is_told_in_words_and_another_error_stays_itself() -> None:
    words = r"died 4 times .*(actor|worker) died .*fewer --workers.*; the rest is kept"
    checked = WorkerGroupError("…", {0: WorkerHealthCheckFailedError("no answer", DIED)})
    for death in (WorkerGroupError("…", {0: DIED}), checked, WorkerCrashedError()):
        with pytest.raises(UserError, match=words), deaths_in_words("the rest is kept"):
            raise death
    with pytest.raises(KeyError), deaths_in_words("…"):
        raise KeyError("a defect")
    assert worker_death(of_task(UserError("a"))) is None


def test_a_training_ends_with_the_mistake_itself_or_with_what_it_waits_for() -> None:
    with pytest.raises(UserError, match=r"^step 2$"), _waiting_in_words(2, 1.5):
        raise ControllerError(UserError("step 2"))
    words = r"2 workers .*\(no room\): each needs 1.5 free cores"
    with pytest.raises(UserError, match=words), _waiting_in_words(2, 1.5):
        raise ControllerError(WorkerGroupStartupFailedError("no room"))
    with (
        pytest.raises(WorkerDiedError, match=r"died while it started .*same command"),
        _waiting_in_words(2, 1.5),
    ):
        raise ControllerError(DIED)
    with pytest.raises(ControllerError), _waiting_in_words(2, 1.5):
        raise ControllerError(of_worker(RuntimeError("a defect")))
    with pytest.raises(WorkerGroupError), _waiting_in_words(2, 1.5):
        raise WorkerGroupError("…", {0: of_worker(RuntimeError("a defect"))})


def test_actors_are_started_again_so_many_times_and_no_more() -> None:
    given: dict[str, Any] = {}

    class Data:
        def map_batches(self, actor: type, **options: Any) -> str:
            given.update(options, actor=actor)
            return "pool"

    assert actor_pool(Data(), int, batch_size=1) == "pool"
    bounds = {"max_restarts": RESTARTS, "max_task_retries": -1}
    assert given == {"actor": int, "batch_size": 1, **bounds}


def test_a_pool_is_as_large_as_its_nodes_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = [Node("a", 2.5), Node("b", 1.5, 1), Node("c", 0.9)]
    monkeypatch.setattr(capacity, "living_nodes", lambda: cluster)
    assert executor._room(gpu=False) == (0, 3), "4.9 cores, three of them whole on a node"
    assert executor._room(gpu=True) == (1, 1)
    monkeypatch.setattr(capacity, "living_nodes", lambda: cluster[2:])
    with pytest.raises(
        UserError, match=r"needs a whole core of one node, and none has one \(one node of 0.9"
    ):
        executor._room(gpu=False)


def test_a_disk_that_fails_under_a_training_is_told_with_the_run_s_folder() -> None:
    full = "^/w/runs/a: No space left on device; free space"
    with pytest.raises(StorageError, match=full), disk_named("/w/runs/a"):
        raise ControllerError(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(StorageError, match=full), disk_named("/w/runs/a"):
        raise of_worker(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(StorageError, match=r"^/w/runs/a: .*No space left"), disk_named("/w/runs/a"):
        raise of_worker(RuntimeError("I/O error: No space left on device (os error 28)"))  # safetensors' form
    with pytest.raises(ControllerError), disk_named("/w/runs/a"):  # which names a file
        raise ControllerError(OSError(errno.ENOSPC, "No space left on device", "/elsewhere"))
    with pytest.raises(ControllerError), disk_named("/w/runs/a"):
        raise ControllerError(StorageError("/b: told already"))
