"""Expand a table of queries into Parquet: in this process, or on Ray Data with an actor pool per stage.

What is made is a part of the output (up to some thousand queries), written in one step. So a part that is
lost with its node is made again as a whole, and a rerun with the same output makes only the parts that are
missing.
"""

from __future__ import annotations

from typing import Annotated

import typer

from engine.errors import UserError
from engine.methods import method as named_method
from engine.queries.formats import QuerySet, read_queries
from engine.queries.results import ExpansionFolder, PartCounts, RunDescription
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console
from jobs.workers.executor import Executor, Made, make_parts
from jobs.workers.expansion import BatchExpansion, PartExpander, PartQueries, Source, StagePools

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


def main(
    workspace: Annotated[str, typer.Option(help="Folder or s3:// prefix that holds the bundle.")],
    queries: Annotated[str, typer.Option(help="File or folder (.json, .jsonl, .parquet; MESED: .txt).")],
    method: Annotated[str, typer.Option(help="The method's name.")],
    output: Annotated[
        str | None,
        typer.Option(help="Folder or s3:// prefix; default: in the workspace's expansions/."),
    ] = None,
    bundle: Annotated[str | None, typer.Option(help="Bundle id; default: the current one.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Actors a stage; default: as the cores allow.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries a stage takes at once.")] = 64,
    part_size: Annotated[
        int | None, typer.Option(min=1, help="Queries of an output part; default: up to 1024.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace another run's output.")] = False,
) -> None:
    """Expand a table of queries into Parquet; a rerun makes only what is missing."""
    house = Workspace.open(workspace)
    pipeline = named_method(method)
    if pipeline.together:
        raise UserError(
            f"--method {method}: its answers depend on which queries are handed over together, and so on how "
            "the table is cut into parts; measure it with jobs.evaluate"
        )
    opened = Bundle.open(house, bundle)
    found = read_queries(Store.open(queries), opened.vocabulary)
    _show_refused(found)
    wanted = RunDescription(
        method=method,
        pipeline=str(pipeline),
        bundle=opened.id,
        queries_digest=found.digest,
        queries=len(found.queries),
        part_size=part_size or default_part_size(len(found.queries), batch_size),
    )
    target = ExpansionFolder(Store.open(output) if output else _default_output(house, wanted))
    run = target.begin(wanted, overwrite)
    job = BatchExpansion(pipeline, Source(house.root.uri, opened.id), target.folder.uri, batch_size)
    made = expand(job, found, run, target, StagePools(workers))
    manifest = target.finish(run, found.refused)
    console.say(f"expansions: {target.folder.uri}")
    console.result(
        output=target.folder.uri,
        queries=manifest["queries"],
        rows=manifest["rows"],
        empty=manifest["empty"],
        refused=manifest["refused"],
        parts=len(manifest["parts"]),
        made=made.made,
    )


def expand(
    job: BatchExpansion, found: QuerySet, run: RunDescription, target: ExpansionFolder, executor: Executor
) -> Made[PartCounts]:
    """Make the parts of an output that are missing.

    Args:
        job: the method, the bundle, the output.
        found: the queries.
        run: says which of them belong to which part.
        target: the output, opened.
        executor: :class:`StagePools`, or one that takes any worker.
    """
    queries = [labelled.query for labelled in found.queries]
    tasks = {part: PartQueries(part, queries[place]) for part, place in run.parts.items()}
    return make_parts(
        target.parts,
        tasks,
        PartExpander,
        (job,),
        executor,
        label="expand",
        size=lambda task: len(task.queries),
        gpu=True,
    )


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
    console.run(main, EXAMPLES)
