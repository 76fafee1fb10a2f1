"""Tell how workers on Ray failed: by a user's mistake, which a new try meets again, or by a death."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.errors import HELD
from engine.errors import StorageError, UserError
from engine.external_errors import as_user_error, system_number

RESTARTS = 3
"""What dies, or whose node does, is started again so many times where nothing comes of it meanwhile."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""The operating system's numbers for a disk that takes no more, or fails."""

CHECKPOINT_KEPT = "its last checkpoint is kept, and the same command goes on from there"


class WorkerDiedError(UserError):
    """A process died each time that it was started."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that led to it, also what Ray's wrappers hold of workers."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [getattr(one, name, None) for name in HELD]
        failures = getattr(one, "worker_failures", None)
        waiting += list(failures.values()) if isinstance(failures, dict) else []
        waiting.append(one.__cause__)


def lasting_mistake(error: BaseException) -> UserError | None:
    """Return the mistake of a user that an error comes from, if a new try would meet it again.

    A disk or a bucket that cannot be reached may be back a little later.
    """
    mistakes = (one for one in causes(error) if isinstance(one, UserError))
    return next((one for one in mistakes if not isinstance(one, StorageError)), None)


def worker_death(error: BaseException) -> str | None:
    """Return in Ray's words why a process or its node died, if that is what an error comes from."""
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

    kinds = (RayActorError, OutOfMemoryError, WorkerCrashedError, NodeDiedError)
    for one in causes(error):
        if isinstance(one, UserError):
            return None
        if isinstance(one, kinds):
            lines = [line.strip() for line in str(one).splitlines() if line.strip()]
            return (lines or [type(one).__name__])[0].rstrip(".: ")
    return None


@contextmanager
def disk_named(place: str) -> Iterator[None]:
    """Name the folder of a run where a disk failed under what writes there and names no file in its error.

    TensorBoard's events, safetensors and Ray Train's copies and records are such.

    Args:
        place: the folder.

    Raises:
        StorageError: in place of an error that comes from it.
    """
    try:
        yield
    except Exception as error:
        found = list(causes(error))
        if any(isinstance(one, UserError) for one in found):
            raise
        # The innermost: the text of what Ray puts around it is a traceback.
        fault = next((one for one in reversed(found) if system_number(one) in DISK_ERRORS), None)
        if fault is None or getattr(fault, "filename", None) or not (told := as_user_error(fault, place)):
            raise
        raise told from error


@contextmanager
def deaths_in_words(kept: str) -> Iterator[None]:
    """Turn the error of a process that died each time that it was started into one that says what to do.

    Args:
        kept: what is not lost, and how it goes on.

    Raises:
        WorkerDiedError: names how often it died, and the cause as Ray knows it.
    """
    try:
        yield
    except Exception as error:
        if (death := worker_death(error)) is None:
            raise
        raise WorkerDiedError(
            f"a worker process died {RESTARTS + 1} times at the same work ({death}); mostly it is memory: "
            "take fewer --workers, smaller batches or larger machines, and read its last words with "
            f"`ray logs`; {kept}"
        ) from error
