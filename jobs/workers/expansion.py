"""Make the parts of a batch expansion: all stages in one process, or each stage in a pool of its own.

Both ways write the same bytes but for what differs between machines; tests hold that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from cluster.capacity import Node, describe, fits, living_nodes, room
from engine.errors import UserError
from engine.queries.results import PartCounts
from jobs.workers import executor
from jobs.workers.chain import Chain, Row
from jobs.workers.executor import PARTS_KEPT, LocalExecutor, actor_pool, one_is_enough
from jobs.workers.failures import deaths_in_words
from jobs.workers.part_rows import pack, read_rows, read_table, unpack
from jobs.workers.stage_run import BatchExpansion, BundleRef, PartRowWriter, StageRun

WRITER_CPUS = 0.1
"""A writer waits for most of the time."""

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
    """An executor of a :class:`PartExpander`, and no other worker: on Ray Data, an actor pool per stage.

    A row of the dataset is a part, which moves from pool to pool and is written by the last one. Where one
    worker is enough (as for :class:`jobs.workers.executor.AutoExecutor`) all stages run in this process.

    Args:
        workers: actors a stage; default: as the cluster's cores allow.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers

    def map(
        self,
        worker: executor.Worker[Any, Any],
        arguments: tuple[Any, ...],
        tasks: Sequence[Any],
        gpu: bool = False,
    ) -> Iterator[tuple[int, Any]]:
        """See :class:`jobs.workers.executor.Executor`; the stages themselves say which needs a GPU."""
        if one_is_enough(self._workers, len(tasks)):
            yield from LocalExecutor().map(worker, arguments, tasks, gpu)
            return
        from cluster.session import session
        from cluster.sharing import check_shared

        (job,) = arguments
        places = {task.part: place for place, task in enumerate(tasks)}
        with session(), deaths_in_words(PARTS_KEPT):
            check_shared([job.source.workspace, job.output])
            for row in _pooled(job, tasks, self._workers).iter_rows():
                yield places[row["part"]], PartCounts(**{name: row[name] for name in NUMBERS})


def _pooled(job: BatchExpansion, tasks: Sequence[PartQueries], workers: int | None) -> Any:
    """Return a ``ray.data.Dataset`` of the counts of parts, which makes them as it is read."""
    import ray

    # One part after the other: what the object store has no room for, Ray puts on the disk.
    tables: list[Any] = [ray.put(read_table(task.file)) for task in tasks]
    workers = min(workers or default_workers(job.chain), len(tasks))
    options: dict[str, Any] = {
        "batch_size": 1,
        "batch_format": "pyarrow",
        "compute": ray.data.ActorPoolStrategy(size=workers),
    }
    nodes = living_nodes()
    _check_gpus(job.chain, workers, nodes)
    scale = cpu_scale(job.chain, workers, nodes)
    dataset: ray.data.Dataset = ray.data.from_arrow_refs(tables)
    for place, stage in enumerate(job.chain.stages):
        dataset = actor_pool(
            dataset,
            StageActor,
            fn_constructor_args=(job, (place,)),
            num_cpus=stage.num_cpus * scale,
            num_gpus=stage.num_gpus or None,
            **options,
        )
    return actor_pool(
        dataset,
        PartWriter,
        fn_constructor_args=(job.source, job.output),
        num_cpus=WRITER_CPUS * scale,
        **options,
    )


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
    """Some stages, opened once, run on batches of queries."""

    def __init__(self, job: BatchExpansion, places: Sequence[int]) -> None:
        def open_step() -> Callable[[str, list[Row]], pa.Table]:
            run = StageRun(job, places, job.source.open())
            return lambda part, rows: pack(part, run(part, rows))

        super().__init__(open_step)


class PartWriter(OpenedStep):
    """The actor of the last pool: writes the part and passes on its counts."""

    def __init__(self, source: BundleRef, output: str) -> None:
        def open_step() -> Callable[[str, list[Row]], pa.Table]:
            write = PartRowWriter(source.open(), output)

            def step(part: str, rows: list[Row]) -> pa.Table:
                counts = write(part, rows)
                return pa.table({"part": [part], **{name: [getattr(counts, name)] for name in NUMBERS}})

            return step

        super().__init__(open_step)


def _wanted_cpus(chain: Chain) -> float:
    return sum(stage.num_cpus for stage in chain.stages) + WRITER_CPUS


def default_workers(chain: Chain) -> int:
    """Return how many actors of every stage the connected cluster has cores for, at least 1."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1) // _wanted_cpus(chain)))


def _check_gpus(chain: Chain, workers: int, nodes: Sequence[Node]) -> None:
    """Refuse more actors than there are GPUs for.

    Raises:
        UserError: says how many would fit.
    """
    for stage in chain.stages:
        if stage.num_gpus and (most := room(nodes, 0, stage.num_gpus)) < workers:
            raise UserError(
                f"--workers {workers}: the stage {type(stage).__name__} needs {stage.num_gpus:g} GPU each; "
                f"{most} fit on this cluster ({describe(nodes)})"
            )


def cpu_scale(chain: Chain, workers: int, nodes: Sequence[Node]) -> float:
    """Return what share of its cores an actor may claim so that all pools start.

    A pool that cannot start would make those before it wait for ever. An actor's cores lie on one node.
    """
    sizes = [*(stage.num_cpus for stage in chain.stages), WRITER_CPUS]
    # A tenth is room for Ray Data's own small tasks. Rounded down to what Ray resolves.
    usable = [replace(node, cpus=0.9 * node.cpus) for node in nodes]
    thousandths = min(1000, int(1000 * sum(node.cpus for node in usable) / (workers * sum(sizes))))
    while thousandths > 1 and not fits(usable, [thousandths / 1000 * size for size in sizes] * workers):
        thousandths = int(thousandths * 0.95)
    return max(1, thousandths) / 1000
