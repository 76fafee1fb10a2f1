"""An executor for tests that need no Ray: what it must not rely on, Ray's does not give either."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence

from jobs.workers.executor import Arguments, LocalExecutor, Result, Task, Worker


class LastFirst(LocalExecutor):
    """Works in this process, the last task first; what crosses processes on Ray is pickled here too."""

    def map(
        self, worker: Worker[Task, Result], arguments: Arguments, tasks: Sequence[Task], gpu: bool = False
    ) -> Iterator[tuple[int, Result]]:
        """See :class:`jobs.workers.executor.Executor`."""
        crossed = pickle.loads(pickle.dumps(list(tasks)))
        opened, given = pickle.loads(pickle.dumps((worker, arguments)))
        for place, result in super().map(opened, given, crossed[::-1], gpu):
            yield len(tasks) - 1 - place, pickle.loads(pickle.dumps(result))
