"""Make the parts of a batch expansion: all stages in one process, or each stage in a pool of its own.

Both ways write the same bytes but for what differs between machines; tests hold that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa

from cluster.capacity import Node, describe, fits, living_nodes, room
from engine.catalogue import open_catalogue
from engine.errors import UserError
from engine.queries.results import ExpansionFolder, PartCounts, labels_of
from engine.queries.rows import EXPANSION_SCHEMA
from engine.query import Expansion, Query, from_rows, to_rows
from engine.stages.base import Pipeline, Stage, Worker, finish, isolated, timed
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs.workers import executor
from jobs.workers.executor import PARTS_KEPT, LocalExecutor, actor_pool, one_is_enough
from jobs.workers.failures import deaths_in_words

WRITER_CPUS = 0.1
"""A writer waits for most of the time."""

NUMBERS = [name for name in PartCounts._fields if name != "counted"]
"""The counts of a part that its writer passes on; what stages counted stands in the part's file."""

PART_SCHEMA = pa.schema([("part", pa.string()), ("rows", pa.list_(pa.struct(EXPANSION_SCHEMA)))])
"""Schema of a table between pools: a part's name, and its expansions as :func:`engine.query.to_rows`."""


def pack(part: str, expansions: Sequence[Expansion]) -> pa.Table:
    """Return a part as a table of one row, see :data:`PART_SCHEMA`."""
    return pa.table({"part": [part], "rows": [to_rows(expansions)]}, schema=PART_SCHEMA)


def unpack(table: pa.Table) -> list[tuple[str, list[Expansion]]]:
    """Return the parts of a table (see :func:`pack`)."""
    return [(str(row["part"]), from_rows(row["rows"])) for row in table.to_pylist()]


@dataclass(frozen=True)
class BundleRef:
    """A reference to a bundle: it crosses processes, the opened bundle does not."""

    workspace: str
    bundle: str

    def open(self) -> Bundle:
        """Open the bundle on this machine; its files are checked."""
        return Bundle.open(Workspace.open(self.workspace), self.bundle)


@dataclass(frozen=True)
class BatchExpansion:
    """The description of a batch expansion.

    Args:
        pipeline: the method.
        source: the bundle.
        output: address of an :class:`engine.queries.results.ExpansionFolder`.
        batch_size: queries that a stage takes at once.
    """

    pipeline: Pipeline
    source: BundleRef
    output: str
    batch_size: int


class PartQueries(NamedTuple):
    """The queries of a part, by the part's name."""

    part: str
    queries: Sequence[Query]


class PartExpander:
    """A worker: runs all stages on a part's queries and writes the part.

    Args:
        job: what is expanded, and how.

    Raises:
        UserError: the bundle lacks what a stage needs.
    """

    def __init__(self, job: BatchExpansion) -> None:
        bundle = job.source.open()
        self._stages = [isolated(stage, timed(stage, stage.open(bundle))) for stage in job.pipeline.stages]
        self._write = open_writer(bundle, job.output)
        self._batch_size = job.batch_size

    def __call__(self, task: PartQueries) -> PartCounts:
        """Make the part and return its counts."""
        expansions = [Expansion(query) for query in task.queries]
        for stage in self._stages:
            expansions = in_batches(stage, expansions, self._batch_size)
        return self._write(task.part, expansions)


def in_batches(stage: Worker, expansions: list[Expansion], batch_size: int) -> list[Expansion]:
    """Return what a stage makes of expansions that it takes batch by batch."""
    done: list[Expansion] = []
    for start in range(0, len(expansions), batch_size):
        done += stage(expansions[start : start + batch_size])
    return done


def open_writer(bundle: Bundle, output: str) -> Callable[[str, list[Expansion]], PartCounts]:
    """Return what cuts each ranking of a part to what was asked for, writes the part and counts it."""
    labels = labels_of(bundle.vocabulary, open_catalogue(bundle))
    folder = ExpansionFolder(Store.open(output))
    return lambda part, expansions: folder.write_part(part, [finish(e) for e in expansions], labels)


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

    tables = [pack(task.part, [Expansion(query) for query in task.queries]) for task in tasks]
    workers = min(workers or default_workers(job.pipeline), len(tasks))
    options: dict[str, Any] = {
        "batch_size": 1,
        "batch_format": "pyarrow",
        "compute": ray.data.ActorPoolStrategy(size=workers),
    }
    nodes = living_nodes()
    _check_gpus(job.pipeline, workers, nodes)
    scale = cpu_scale(job.pipeline, workers, nodes)
    dataset: ray.data.Dataset = ray.data.from_arrow(tables)
    for stage in job.pipeline.stages:
        dataset = actor_pool(
            dataset,
            StageActor,
            fn_constructor_args=(stage, job.source, job.batch_size),
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

    def __init__(self, open_step: Callable[[], Callable[[str, list[Expansion]], pa.Table]]) -> None:
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
    """One stage, opened once, run on batches of queries."""

    def __init__(self, stage: Stage, source: BundleRef, batch_size: int) -> None:
        def open_step() -> Callable[[str, list[Expansion]], pa.Table]:
            worker = isolated(stage, timed(stage, stage.open(source.open())))
            return lambda part, expansions: pack(part, in_batches(worker, expansions, batch_size))

        super().__init__(open_step)


class PartWriter(OpenedStep):
    """The actor of the last pool: writes the part and passes on its counts."""

    def __init__(self, source: BundleRef, output: str) -> None:
        def open_step() -> Callable[[str, list[Expansion]], pa.Table]:
            write = open_writer(source.open(), output)

            def step(part: str, expansions: list[Expansion]) -> pa.Table:
                counts = write(part, expansions)
                return pa.table({"part": [part], **{name: [getattr(counts, name)] for name in NUMBERS}})

            return step

        super().__init__(open_step)


def _wanted_cpus(pipeline: Pipeline) -> float:
    return sum(stage.num_cpus for stage in pipeline.stages) + WRITER_CPUS


def default_workers(pipeline: Pipeline) -> int:
    """Return how many actors of every stage the connected cluster has cores for, at least 1."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1) // _wanted_cpus(pipeline)))


def _check_gpus(pipeline: Pipeline, workers: int, nodes: Sequence[Node]) -> None:
    """Refuse more actors than there are GPUs for.

    Raises:
        UserError: says how many would fit.
    """
    for stage in pipeline.stages:
        if stage.num_gpus and (most := room(nodes, 0, stage.num_gpus)) < workers:
            raise UserError(
                f"--workers {workers}: the stage {type(stage).__name__} needs {stage.num_gpus:g} GPU each; "
                f"{most} fit on this cluster ({describe(nodes)})"
            )


def cpu_scale(pipeline: Pipeline, workers: int, nodes: Sequence[Node]) -> float:
    """Return what share of its cores an actor may claim so that all pools start.

    A pool that cannot start would make those before it wait for ever. An actor's cores lie on one node.
    """
    sizes = [*(stage.num_cpus for stage in pipeline.stages), WRITER_CPUS]
    # A tenth is room for Ray Data's own small tasks. Rounded down to what Ray resolves.
    usable = [replace(node, cpus=0.9 * node.cpus) for node in nodes]
    thousandths = min(1000, int(1000 * sum(node.cpus for node in usable) / (workers * sum(sizes))))
    while thousandths > 1 and not fits(usable, [thousandths / 1000 * size for size in sizes] * workers):
        thousandths = int(thousandths * 0.95)
    return max(1, thousandths) / 1000
