"""Expand a table of queries on Ray Data: one actor pool per stage of the method's pipeline.

A row of the dataset is a part of the output (up to some thousand queries), which moves from pool to
pool and is written by the last one, in one step. So a part that is lost with its node is made again
as a whole, and a rerun with the same output makes only the parts that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings
from cluster.session import session
from engine.catalogue import open_catalogue
from engine.errors import UserError
from engine.methods import method as named_method
from engine.queries.formats import QuerySet, read_queries
from engine.queries.results import ExpansionFolder, RunDescription, labels_of
from engine.query import Expansion, from_rows, to_rows
from engine.stages.base import Pipeline, Stage, finish, timed
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console

EXAMPLES = """
  python -m jobs.expand --workspace w --queries q.jsonl --method retexpan
  python -m jobs.expand --workspace s3://b/w --queries q.parquet --method retexpan --output s3://b/out
"""

MAX_PART = 1024
"""Queries of a part: large enough for the file format, small enough to be made twice."""

MIN_PARTS = 16
"""Small tables are cut finer, so that no worker idles while another makes the last part."""

SHOWN = 5
"""Refused queries that are shown one by one; ``_refused.jsonl`` lists all."""

_FLOATS = pa.list_(pa.float32())
_ROW = pa.struct(
    [
        ("query_id", pa.string()),
        ("positive", pa.list_(pa.int32())),
        ("negative", pa.list_(pa.int32())),
        ("top_k", pa.int32()),
        ("entity_ids", pa.list_(pa.int32())),
        ("scores", _FLOATS),
        ("evidence_names", pa.list_(pa.string())),
        ("evidence", pa.list_(_FLOATS)),
        ("seconds_names", pa.list_(pa.string())),
        ("seconds", pa.list_(pa.float64())),
        ("degraded", pa.list_(pa.string())),
    ]
)
PART_SCHEMA = pa.schema([("part", pa.int32()), ("rows", pa.list_(_ROW))])
"""What flows between pools: a part's number, and its expansions as :func:`engine.query.to_rows`."""


def pack(part: int, expansions: Sequence[Expansion]) -> pa.Table:
    """Return a part as a table of one row, see :data:`PART_SCHEMA`."""
    return pa.table({"part": [part], "rows": [to_rows(expansions)]}, schema=PART_SCHEMA)


def unpack(table: pa.Table) -> list[tuple[int, list[Expansion]]]:
    """Return the parts of a table (see :func:`pack`)."""
    return [(int(row["part"]), from_rows(row["rows"])) for row in table.to_pylist()]


@dataclass(frozen=True)
class Source:
    """What an actor opens: it crosses processes, the opened bundle does not."""

    workspace: str
    bundle: str

    def open(self) -> Bundle:
        """Open the bundle on this machine; its files are checked."""
        return Bundle.open(Workspace.open(self.workspace), self.bundle)


class Opened:
    """An actor's step on one part. A user's mistake met while opening is raised at the first call.

    (Of an actor whose constructor fails, Ray keeps no exception, only its text.)
    """

    def __init__(self, open_step: Callable[[], Callable[[int, list[Expansion]], pa.Table]]) -> None:
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


class StageActor(Opened):
    """One stage, opened once, run on batches of queries."""

    def __init__(self, stage: Stage, source: Source, batch_size: int) -> None:
        def open_step() -> Callable[[int, list[Expansion]], pa.Table]:
            worker = timed(stage, stage.open(source.open()))

            def step(part: int, expansions: list[Expansion]) -> pa.Table:
                done: list[Expansion] = []
                for start in range(0, len(expansions), batch_size):
                    done += worker(expansions[start : start + batch_size])
                return pack(part, done)

            return step

        super().__init__(open_step)


class PartWriter(Opened):
    """The last pool: cuts each ranking to what was asked for, and writes the part."""

    def __init__(self, source: Source, output: str) -> None:
        def open_step() -> Callable[[int, list[Expansion]], pa.Table]:
            bundle = source.open()
            labels = labels_of(bundle.vocabulary, open_catalogue(bundle))
            folder = ExpansionFolder(Store.open(output))

            def step(part: int, expansions: list[Expansion]) -> pa.Table:
                rows = folder.write_part(part, [finish(e) for e in expansions], labels)
                return pa.table({"part": [part], "queries": [len(expansions)], "rows": [rows]})

            return step

        super().__init__(open_step)


class ExpandSettings(CommandSettings):
    """What the command is told."""

    workspace: str = Field(description="Folder or s3:// prefix that holds the bundle.")
    queries: str = Field(description="File or folder (.json, .jsonl, .parquet; MESED: .txt).")
    method: str = Field(description="The method's name.")
    output: str | None = Field(
        default=None, description="Folder or s3:// prefix; default: in the workspace's expansions/."
    )
    bundle: str | None = Field(default=None, description="Bundle id; default: the current one.")
    workers: int | None = Field(
        default=None, ge=1, description="Actors a stage; default: as the cores allow."
    )
    batch_size: int = Field(default=64, ge=1, description="Queries a stage takes at once.")
    part_size: int | None = Field(
        default=None, ge=1, description="Queries of an output part; default: up to 1024."
    )
    overwrite: bool = Field(default=False, description="Replace another run's output.")


@command(EXAMPLES)
def main(settings: ExpandSettings) -> None:
    """Expand a table of queries into Parquet; a rerun makes only what is missing."""
    house, pipeline = Workspace.open(settings.workspace), _pipeline(settings.method)
    opened = Bundle.open(house, settings.bundle)
    found = read_queries(Store.open(settings.queries), opened.vocabulary)
    _show_refused(found)
    wanted = RunDescription(
        method=settings.method,
        pipeline=str(pipeline),
        bundle=opened.id,
        queries_digest=found.digest,
        queries=len(found.queries),
        part_size=settings.part_size or default_part_size(len(found.queries), settings.batch_size),
    )
    output = settings.output
    target = ExpansionFolder(Store.open(output) if output else _default_output(house, wanted))
    run = target.begin(wanted, settings.overwrite)
    missing = target.missing(run)
    if len(missing) < len(run.parts):
        console.say(f"{len(run.parts) - len(missing)} of {len(run.parts)} parts are there already")
    if missing:
        source, place = Source(house.root.uri, opened.id), target.folder.uri
        with session():
            expand(pipeline, found, run, missing, source, place, settings.workers, settings.batch_size)
    manifest = target.finish(run, found.refused)
    console.say(f"expansions: {target.folder.uri}")
    console.result(
        output=target.folder.uri,
        queries=manifest["queries"],
        rows=manifest["rows"],
        empty=manifest["empty"],
        refused=manifest["refused"],
        parts=len(manifest["parts"]),
        made=len(missing),
    )


def _pipeline(method: str) -> Pipeline:
    """Return a method's pipeline.

    Raises:
        UserError: its answers are not the same however the table is cut into parts.
    """
    pipeline = named_method(method)
    if pipeline.together:
        raise UserError(
            f"--method {method}: its answers depend on which queries are handed over together, and so on how "
            "the table is cut into parts; measure it with jobs.evaluate"
        )
    return pipeline


def expand(
    pipeline: Pipeline,
    found: QuerySet,
    run: RunDescription,
    parts: Sequence[int],
    source: Source,
    output: str,
    workers: int | None,
    batch_size: int,
) -> None:
    """Make the given parts on the connected cluster, with ``workers`` actors a stage."""
    import ray

    tables = [
        pack(part, [Expansion(labelled.query) for labelled in found.queries[run.slice(part)]])
        for part in parts
    ]
    workers = min(workers or default_workers(pipeline), len(parts))
    options: dict[str, Any] = {
        "batch_size": 1,
        "batch_format": "pyarrow",
        "compute": ray.data.ActorPoolStrategy(size=workers),
    }
    scale = _cpu_scale(pipeline, workers)
    dataset: ray.data.Dataset = ray.data.from_arrow(tables)
    for stage in pipeline.stages:
        dataset = dataset.map_batches(
            StageActor,
            fn_constructor_args=(stage, source, batch_size),
            num_cpus=stage.num_cpus * scale,
            num_gpus=stage.num_gpus or None,
            **options,
        )
    dataset = dataset.map_batches(
        PartWriter, fn_constructor_args=(source, output), num_cpus=WRITER_CPUS * scale, **options
    )
    with console.meter("expand", sum(len(found.queries[run.slice(p)]) for p in parts)) as meter:
        for row in dataset.iter_rows():
            meter.add(row["queries"])


WRITER_CPUS = 0.1
"""A writer waits for most of the time."""


def _wanted_cpus(pipeline: Pipeline) -> float:
    return sum(stage.num_cpus for stage in pipeline.stages) + WRITER_CPUS


def default_workers(pipeline: Pipeline) -> int:
    """Return how many actors of every stage the connected cluster has cores for, at least 1."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1) // _wanted_cpus(pipeline)))


def _cpu_scale(pipeline: Pipeline, workers: int) -> float:
    """Return what share of its cores an actor may claim so that all pools start.

    A pool that cannot start would make those before it wait for ever.
    """
    import ray

    cpus = float(ray.cluster_resources().get("CPU", 1))
    # Rounded down to what Ray resolves, with room for Ray Data's own small tasks.
    return min(1.0, int(1000 * 0.9 * cpus / (workers * _wanted_cpus(pipeline))) / 1000)


def default_part_size(queries: int, batch_size: int) -> int:
    """Return how many queries a part has: a batch at least, :data:`MAX_PART` at most."""
    return max(batch_size, min(MAX_PART, -(-queries // MIN_PARTS)))


def _default_output(house: Workspace, run: RunDescription) -> Store:
    """Return the same folder for the same work, so that a rerun goes on."""
    return house.root / "expansions" / f"{run.method}-{run.queries_digest[:8]}-{run.bundle[:8]}"


def _show_refused(found: QuerySet) -> None:
    for refusal in found.refused[:SHOWN]:
        console.say(f"REFUSED {refusal}")
    if found.refused:
        console.say(f"REFUSED in all: {len(found.refused)} queries; _refused.jsonl lists them")


if __name__ == "__main__":
    main.run()
