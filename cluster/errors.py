"""Find what a user can mend in whatever a command ended with, also in what Ray wrapped or raised itself."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import UserError
from engine.external_errors import as_user_error, first_line, package_of

TRACEBACK = "SEEDSET_TRACEBACK"
"""The variable that shows tracebacks beside the one line; ``--traceback`` sets it."""

DEFECT_STATUS, USER_STATUS = 1, 2

SHOWN_FRAMES = 3

HELD = ("cause", "controller_failure", "health_check_failure", "_base_exc")
"""Attributes in which Ray's wrappers hold an error: of a task, of a training's controller and its workers."""

RAY_LOGS = "see the logs of Ray's session, /tmp/ray/session_latest/logs"

_MEMORY = "take fewer --workers or smaller batches, or machines with more memory"
_LOST = "what was finished is kept: run the command again, it goes on from there"

RAY_ERRORS: dict[str, tuple[str, str]] = {
    "OutOfMemoryError": ("a worker was ended, since its node ran out of memory", _MEMORY),
    "ObjectStoreFullError": ("Ray's object store is full", _MEMORY),
    "OutOfDiskError": (
        "the disk of Ray's session folder is full",
        "free space there, or name another folder in RAY_TMPDIR",
    ),
    "AuthenticationError": (
        "the cluster refuses the token",
        "set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN",
    ),
    "RuntimeEnvSetupError": (
        "a node cannot set up what the job runs in",
        "check --working-dir and its size",
    ),
    "NodeDiedError": ("a node was lost", _LOST),
    "LocalRayletDiedError": ("Ray ended on this node", _LOST),
    "ObjectLostError": ("a node was lost with results that it held", _LOST),
    "ActorUnschedulableError": ("no node has what a worker asks for", "take fewer --workers"),
    "TaskUnschedulableError": ("no node has what a worker asks for", "take fewer --workers"),
    "WorkerCrashedError": ("a worker's process ended without an error: it was killed, or crashed", _LOST),
    "RayActorError": ("a worker's process ended without an error: it was killed, or crashed", _LOST),
    "GetTimeoutError": ("a worker did not answer in time", _LOST),
    "RayTrainError": ("the training failed", _LOST),
    "RayServeException": ("Ray Serve failed", RAY_LOGS),
    "RayError": ("Ray failed", RAY_LOGS),
}
"""What Ray's own errors say, and the way out; the first one in the order of a class and its bases counts."""


def user_error(error: BaseException) -> UserError | None:
    """Return what a user can mend of an error: ours that Ray wrapped, the outside's, or Ray's own; else None.

    An error is found where a task or an actor's method raised it. Of an actor whose constructor fails Ray
    keeps the text only: a worker that may meet a user's mistake there keeps the error and raises it
    when it is first called.
    """
    # Ray's wrapper of an error looks like what it wraps, but its text is a traceback.
    own = [one for one in chain(error) if not _is_of_ray(one)]
    for one in own:
        if isinstance(one, UserError):
            return one
    # The innermost says most: what stands around it was raised because of it.
    for one in reversed(own):
        if found := as_user_error(one):
            return found
    return None if own else _of_ray(error)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the causes below it, Ray's too, the outermost first."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = next(_below(one), one.__cause__)


def _below(error: BaseException) -> Iterator[BaseException]:
    """Yield what Ray's wrappers hold: of a task, of a training's workers, of its controller."""
    failures = getattr(error, "worker_failures", None)
    several = list(failures.values()) if isinstance(failures, dict) else []
    # A worker that lost another one says so, and not why: the one with a reason of its own counts.
    several.sort(key=lambda one: user_error(one) is None)
    held = (getattr(error, name, None) for name in HELD)
    yield from (one for one in (*held, *several) if isinstance(one, BaseException))


@contextmanager
def connecting_to_ray(address: str | None = None) -> Iterator[None]:
    """Let whatever keeps Ray from starting, or from being reached, leave the block as one line.

    Args:
        address: of a cluster that runs; None: Ray starts on this machine.

    Raises:
        UserError: names the cluster, and what to look at.
    """
    try:
        yield
    except UserError:
        raise
    except (
        Exception
    ) as error:  # a time-out is a bare Exception, a refusal a RuntimeError or a ConnectionError
        if address:
            raise UserError(
                f"RAY_ADDRESS {address}: the cluster cannot be reached ({first_line(error)}); check that it "
                "runs and its token (RAY_AUTH_TOKEN), or unset RAY_ADDRESS to work on this machine"
            ) from error
        raise UserError(
            f"Ray did not start on this machine ({first_line(error)}); free processors, memory and the disk "
            f"of /tmp, then run the command again; {RAY_LOGS}"
        ) from error


def _is_of_ray(error: BaseException) -> bool:
    return any(kind.__module__.partition(".")[0] == "ray" for kind in type(error).__mro__)


def _of_ray(error: BaseException) -> UserError | None:
    for kind in type(error).__mro__:
        if kind.__name__ in RAY_ERRORS and package_of(error) == "ray":
            what, way_out = RAY_ERRORS[kind.__name__]
            # The first line is Ray's, the last one of an error in a constructor is the error's.
            lines = [line.strip() for line in str(error).split("\n") if line.strip()] or [
                type(error).__name__
            ]
            said = lines[-1] if any(line.startswith("Traceback") for line in lines) else lines[0]
            return UserError(f"{what} ({said.rstrip(' .')}); {way_out}")
    return None


def wants_traceback() -> bool:
    """Return whether tracebacks are shown beside the one line."""
    return os.environ.get(TRACEBACK, "").lower() not in ("", "0", "false", "no")


def show_tracebacks() -> None:
    """Show tracebacks in this process, and in the workers of a cluster that is started here."""
    os.environ[TRACEBACK] = "1"


def whole_traceback(error: BaseException) -> str:
    """Return the traceback of an error with all that led to it, also what ``from None`` hides."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        one.__suppress_context__ = one.__cause__ is not None
        one = one.__cause__ or one.__context__
    return "".join(traceback.format_exception(error))


def line_of(error: BaseException) -> tuple[str, int]:
    """Return the line that a command ends with, and its exit status.

    An error that is a defect of the program, not of what was given, is shown with the lines of code that it
    passed through, the innermost first.
    """
    if found := user_error(error):
        return first_line_whole(found), USER_STATUS
    inner = [one for one in chain(error) if not _is_of_ray(one)][-1:] or [error]
    frames = [frame for one in (inner[0], error) for frame in _frames(one)][:SHOWN_FRAMES]
    at = f" at {' < '.join(frames)}" if frames else ""
    return (
        f"unexpected {type(inner[0]).__name__}: {first_line(inner[0])}{at}; this is a defect of the program, "
        f"please report it with what {TRACEBACK}=1 shows",
        DEFECT_STATUS,
    )


def first_line_whole(error: UserError) -> str:
    """Return the first line of our error's text: Ray appends its own advice."""
    return (str(error).split("\n") or [""])[0] or type(error).__name__


def _frames(error: BaseException) -> list[str]:
    """Return where an error was raised and what it passed, the innermost first: ``folder/file.py:3``."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return [f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno}" for frame in frames]
