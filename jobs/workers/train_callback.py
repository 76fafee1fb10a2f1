"""End a training on Ray Train where a new try would be in vain: Ray would begin it again all the same."""

from __future__ import annotations

from typing import Any

from ray.train import UserCallback

from jobs.workers.failures import CHECKPOINT_KEPT, RESTARTS, deaths_in_words, lasting_mistake


class EndInVain(UserCallback):
    """A callback of Ray Train's controller.

    Workers that fail are started again as often as there was a checkpoint since the failure before, and
    :data:`~jobs.workers.failures.RESTARTS` times without one: a training of weeks loses more machines than
    that, and each time goes on.
    """

    def __init__(self) -> None:
        self._failures = 0

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Note that the training got further."""
        if checkpoint is not None:
            self._failures = 0

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise an error in the controller, for which that is final, or let it start the workers again.

        Raises:
            UserError: the mistake of a user, which a new try would meet again.
            WorkerDiedError: workers died too often.
            Exception: a worker's, where they failed too often with it.
        """
        for error in worker_exceptions.values():
            if mistake := lasting_mistake(error):
                raise mistake
        self._failures += 1
        if self._failures > RESTARTS:
            with deaths_in_words(CHECKPOINT_KEPT):
                raise next(iter(worker_exceptions.values()))
