"""To watch a training is no part of it: a counter that is lost ends nothing."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, GetTimeoutError

from jobs import console
from jobs.workers.progress import Watch, tell


class Counter:
    """The handle of a counter, whose answers :func:`answering` gives."""

    class get:
        @staticmethod
        def remote() -> None:
            return None

    class set:
        @staticmethod
        def remote(*state: object) -> None:
            raise ActorDiedError


@pytest.mark.parametrize("error", [ActorDiedError(), GetTimeoutError(), RuntimeError("not connected")])
def test_a_lost_counter_is_said_once_and_fails_no_finished_training(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(*_: object, **__: object) -> Any:
        raise error

    monkeypatch.setattr(ray, "get", lost)
    watch = Watch(Counter(), console.Meter("training", None, None))
    with watch:
        watch._poll()
        watch._poll()
    assert not watch.is_alive()
    assert capsys.readouterr().err.count(f"({type(error).__name__}); the training goes on") == 1


def test_what_a_counter_says_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda *_, **__: (3, 8, "epoch 1"))
    meter = console.Meter("training", None, None)
    with Watch(Counter(), meter):
        pass
    assert (meter.done, meter.total) == (3, 8)


def test_a_worker_goes_on_when_nobody_listens() -> None:
    tell(Counter(), 1, 2, "…")
