"""End a training on Ray Train at a user's mistake: Ray would begin it again and meet the same one."""

from __future__ import annotations

from typing import Any

from ray.train import UserCallback

from jobs.workers.failures import lasting_mistake


class EndAtMistake(UserCallback):
    """A callback of Ray Train's controller."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise a worker's mistake in the controller, for which that is final.

        Raises:
            UserError: the mistake.
        """
        for error in worker_exceptions.values():
            if mistake := lasting_mistake(error):
                raise mistake
