"""Methods of a user's own, named on a command line as ``tests.support.own_methods:LIFTED``."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from engine.query import Expansion
from engine.stages.base import Pipeline, Stage, Worker, by_settings
from engine.stages.retrieve import Retrieve
from engine.storage.bundle import Bundle


class Lift(Stage):
    """Add ``by`` to every score."""

    by: float = 1.0

    per_request: ClassVar = {"by": (0.0, 100.0)}

    def open(self, bundle: Bundle) -> Worker:
        """Return the worker."""
        return lambda expansions: by_settings(self, expansions, _lifted)


def _lifted(stage: Lift, expansions: list[Expansion]) -> list[Expansion]:
    return [
        replace(e, ranking=replace(e.ranking, scores=e.ranking.scores + np.float32(stage.by)))
        for e in expansions
    ]


LIFTED = Retrieve() >> Lift()


class Deadly(Retrieve):
    """Kill the process at a query of the id "killer", as a library does that crashes."""

    def open(self, bundle: Bundle) -> Worker:
        """Return the worker."""
        retrieve = super().open(bundle)

        def run(expansions: list[Expansion]) -> list[Expansion]:
            if any(e.query.id == "killer" for e in expansions):
                os.kill(os.getpid(), signal.SIGKILL)
            return retrieve(expansions)

        return run


DEADLY = Pipeline((Deadly(),))


class Reserved(Retrieve):
    """Retrieve, and say in ``degraded`` how many GPUs the actor reserves.

    ``model``: as a stage with a language model does.
    """

    model: bool

    @property
    def language_model(self) -> bool:
        """True where the test says so."""
        return self.model

    def open(self, bundle: Bundle) -> Worker:
        """Return the worker."""
        import ray

        retrieve, context = super().open(bundle), ray.get_runtime_context()
        note = f"{self.model} {context.get_assigned_resources().get('GPU', 0):g}"

        def run(expansions: list[Expansion]) -> list[Expansion]:
            if self.model:
                _meet(Path(os.environ["MET"]), str(context.get_actor_id()), 2)
            return [replace(e, degraded=(*e.degraded, note)) for e in retrieve(expansions)]

        return run


def _meet(folder: Path, name: str, actors: int) -> None:
    """Wait until so many actors are here, each with a name of its own."""
    (folder / name).touch()
    end = time.monotonic() + 60
    while len(list(folder.iterdir())) < actors:
        if time.monotonic() > end:
            raise TimeoutError(f"fewer than {actors} actors were placed")
        time.sleep(0.05)


RESERVED = Reserved(model=False) >> Reserved(model=True)


class Held(Retrieve):
    """Retrieve, but wait at a query of the id "held" while the file that ``HELD`` names is there."""

    def open(self, bundle: Bundle) -> Worker:
        """Return the worker."""
        retrieve = super().open(bundle)

        def run(expansions: list[Expansion]) -> list[Expansion]:
            while any(e.query.id == "held" for e in expansions) and os.path.exists(os.environ["HELD"]):
                time.sleep(0.05)
            return retrieve(expansions)

        return run


HELD = Pipeline((Held(),))
