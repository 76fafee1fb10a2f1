"""Test how commands end: one line for what a user can mend, also through Ray; tracebacks when asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError
from ray.train import WorkerGroupError

from cluster.commandline import run_app
from cluster.errors import TRACEBACK, connecting_to_ray, line_of, user_error
from cluster.session import unwrapped
from engine.errors import UserError

FULL = OSError(28, "No space left on device", "/data/part")


def of_task(cause: Exception) -> Exception:
    """What Ray raises of an error in a task."""
    found: Exception = RayTaskError("work", "Traceback …\nlines", cause).as_instanceof_cause()
    return found


@pytest.mark.parametrize("mine", [UserError("told"), of_task(UserError("told"))])
def test_our_own_error_comes_out_of_rays(mine: Exception) -> None:
    assert line_of(mine) == ("told", 2)
    with pytest.raises(UserError, match="told") as caught, unwrapped():
        raise mine
    assert type(caught.value) is UserError


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        of_task(FULL),
        WorkerGroupError("of workers", {0: ValueError("the other one left"), 1: FULL}),
        WorkerGroupError("of workers", {0: of_task(FULL)}),
    ],
)
def test_an_error_of_the_outside_comes_out_of_rays_as_one_line(error: Exception) -> None:
    line, status = line_of(error)
    assert status == 2
    assert line.startswith("/data/part: No space left on device; free space")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OutOfMemoryError("Task was killed due to the node running low on memory.\nmore"), "fewer --workers"),
        (WorkerCrashedError(), "it was killed, or crashed"),
        (
            RayActorError(error_msg="It died.\nTraceback:\nOSError: [Errno 28] full"),
            "(OSError: [Errno 28] full)",
        ),
    ],
)
def test_rays_own_errors_are_one_line(error: Exception, said: str) -> None:
    line, status = line_of(error)
    assert status == 2
    assert said in line
    assert "\n" not in line


def test_a_defect_names_where_it_is_and_has_another_status() -> None:
    def fails() -> None:
        raise KeyError("key")

    with pytest.raises(KeyError) as caught:
        fails()
    line, status = line_of(caught.value)
    assert status == 1
    assert line.startswith("unexpected KeyError: 'key' at cluster/test_errors.py:")
    assert TRACEBACK in line
    assert user_error(caught.value) is None


def test_a_circle_of_causes_ends() -> None:
    one, other = ValueError("a"), KeyError("b")
    one.__cause__, other.__cause__ = other, one
    assert user_error(one) is None


@pytest.mark.parametrize("shown", ["", "1"])
def test_a_command_ends_with_one_line_and_with_the_traceback_if_asked(
    shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command()
    def command() -> None:
        try:
            (Path("nowhere") / "file").read_bytes()
        except OSError:
            raise UserError("nothing there; look elsewhere") from None

    monkeypatch.setenv(TRACEBACK, shown)
    with pytest.raises(SystemExit) as ended:
        run_app(app, [])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.rstrip().endswith("error: nothing there; look elsewhere")
    assert ("FileNotFoundError" in said) == bool(shown), "the original, also where the code hides it"
    assert bool(shown) == (said.count("\n") > 1)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, "Ray did not start on this machine (timed out)"),
        ("10.0.0.1:6379", "RAY_ADDRESS 10.0.0.1:6379: "),
    ],
)
def test_a_ray_that_is_not_up_is_one_line(address: str | None, said: str) -> None:
    with pytest.raises(UserError) as caught, connecting_to_ray(address):
        raise Exception("timed out.\nmore")
    assert str(caught.value).startswith(said)
    assert "; " in str(caught.value)
    assert os.environ.get("RAY_ADDRESS") is None
