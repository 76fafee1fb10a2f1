"""Make the parts of a batch expansion: all stages in one process, or each kind of stage in a pool of its own.

Both ways write the same bytes but for what differs between machines; tests hold that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from cluster.capacity import living_nodes
from engine.errors import UserError
from engine.models import device
from engine.queries.results import PartCounts
from engine.storage.bundle import Bundle
from jobs.workers import executor
from jobs.workers.chain import Row
from jobs.workers.executor import PARTS_KEPT, LocalExecutor, actor_pool, one_is_enough
from jobs.workers.failures import deaths_in_words
from jobs.workers.lost_nodes import Reader, Watchdog, all_rows, dead_nodes
from jobs.workers.part_rows import pack, read_rows, read_table, unpack
from jobs.workers.pool_sizes import Wish, pools_of
from jobs.workers.stage_run import BatchExpansion, PartRowWriter, StageRun

NUMBERS = [name for name in PartCounts._fields if name != "counted"]
"""The counts of a part that its writer passes on; what stages counted stands in the part's file."""


class PartQueries(NamedTuple):
    """The queries of a part: its name, the file of this machine that has their rows, and their number."""

    part: str
    file: Path
    queries: int


class PartExpander:
    """A worker: runs all stages on a part's queries and writes the part.

    Args:
        job: what is expanded, and how.

    Raises:
        UserError: the bundle lacks what a stage needs.
    """

    def __init__(self, job: BatchExpansion) -> None:
        bundle = job.source.open()
        self._run = StageRun(job, range(len(job.chain.stages)), bundle)
        self._write = PartRowWriter(bundle, job.output)

    def __call__(self, task: PartQueries) -> PartCounts:
        """Make the part and return its counts."""
        return self._write(task.part, self._run(task.part, read_rows(task.file)))


class StagePools:
    """An executor of a :class:`PartExpander`, and no other worker: on Ray Data, an actor pool for each
    kind of stage (:attr:`jobs.workers.chain.Chain.pools`).

    A row of the dataset is a part, which moves from pool to pool and is written by the last one. Where one
    worker is enough (as for :class:`jobs.workers.executor.AutoExecutor`) all stages run in this process.

    Args:
        wish: of actors and GPUs.
    """

    def __init__(self, wish: Wish | None = None) -> None:
        self._wish = wish or Wish()

    def map(
        self,
        worker: executor.Worker[Any, Any],
        arguments: tuple[Any, ...],
        tasks: Sequence[Any],
        gpu: bool = False,
    ) -> Iterator[tuple[int, Any]]:
        """See :class:`jobs.workers.executor.Executor`; the stages themselves say which needs a GPU."""
        if one_is_enough(self._wish.workers, len(tasks)):
            yield from LocalExecutor().map(worker, arguments, tasks, gpu)
            return
        from cluster.session import session
        from cluster.sharing import check_shared

        (job,) = arguments
        places = {task.part: place for place, task in enumerate(tasks)}
        with session(), deaths_in_words(PARTS_KEPT):
            check_shared([job.source.workspace, job.output])
            for row in all_rows(
                lambda some: Reader(_pooled(job, [tasks[place] for place in some], self._wish)),
                range(len(tasks)),
                lambda row: places[row["part"]],
                lambda: Watchdog(dead_nodes),
            ):
                yield places[row["part"]], PartCounts(**{name: row[name] for name in NUMBERS})


def _pooled(job: BatchExpansion, tasks: Sequence[PartQueries], wish: Wish) -> Any:
    """Return a ``ray.data.Dataset`` of the counts of parts, which makes them as it is read."""
    import ray

    # One part after the other: what the object store has no room for, Ray puts on the disk.
    tables: list[Any] = [ray.put(read_table(task.file)) for task in tasks]
    dataset: ray.data.Dataset = ray.data.from_arrow_refs(tables)
    pools = pools_of(job.chain, living_nodes(), wish, len(tasks))
    for pool in pools:
        actor = LastStageActor if pool is pools[-1] else StageActor
        dataset = actor_pool(
            dataset,
            actor,
            fn_constructor_args=(job, pool.places, pool.gpus > 0),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=pool.actors),
        )
    return dataset


class OpenedStep:
    """A step of an actor on one part. A user's mistake met while opening is raised at the first call.

    (Of an actor whose constructor fails, Ray keeps no exception, only its text.)
    """

    def __init__(self, open_step: Callable[[], Callable[[str, list[Row]], pa.Table]]) -> None:
        self._failure: UserError | None = None
        try:
            self._step = open_step()
        except UserError as error:
            self._failure = error

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the table of the parts after this step."""
        if self._failure is not None:
            raise self._failure
        return pa.concat_tables([self._step(part, rows) for part, rows in unpack(table)])


class StageActor(OpenedStep):
    """Some stages, opened once, run on the queries of a part."""

    def __init__(self, job: BatchExpansion, places: Sequence[int], gpu: bool) -> None:
        def open_step() -> Callable[[str, list[Row]], pa.Table]:
            run = _granted(job, places, gpu, job.source.open())
            return lambda part, rows: pack(part, run(part, rows))

        super().__init__(open_step)


class LastStageActor(OpenedStep):
    """An actor of the last pool: runs its stages, writes the part and passes on its counts."""

    def __init__(self, job: BatchExpansion, places: Sequence[int], gpu: bool) -> None:
        def open_step() -> Callable[[str, list[Row]], pa.Table]:
            bundle = job.source.open()
            run, write = _granted(job, places, gpu, bundle), PartRowWriter(bundle, job.output)

            def step(part: str, rows: list[Row]) -> pa.Table:
                counts = write.made(part) or write(part, run(part, rows))
                return pa.table({"part": [part], **{name: [getattr(counts, name)] for name in NUMBERS}})

            return step

        super().__init__(open_step)


def _granted(job: BatchExpansion, places: Sequence[int], gpu: bool, bundle: Bundle) -> StageRun:
    """Open some stages, on a GPU if Ray reserved one."""
    device.grant(gpu)
    return StageRun(job, places, bundle)
