"""Expand a table of queries into Parquet: in this process, or on Ray Data with an actor pool per stage.

What is made is a part of the output (up to some thousand queries), written in one step. So a part that is
lost with its node is made again as a whole, and a rerun with the same output makes only the parts that are
missing.
"""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import Annotated

from pydantic import Field

from cluster.commandline import command
from cluster.methods import LIST_METHODS, METHOD_NAME, Changes, MethodSettings, pipelines
from cluster.options import CommandSettings, declared
from engine.catalogue import open_catalogue
from engine.corpus.readers.row_files import parse_columns
from engine.corpus.readers.source_files import shown
from engine.errors import QueryError, UserError
from engine.methods import ABLATIONS, METHODS, with_new_entities
from engine.queries.formats import QuerySet, read_queries
from engine.queries.records import FIELDS
from engine.queries.results import ExpansionFolder, PartCounts, RunDescription
from engine.query import no_answer
from engine.stages.base import Pipeline
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console
from jobs.steps.query_options import with_checked_options
from jobs.workers.executor import Executor, PartsResult, make_parts
from jobs.workers.expansion import BatchExpansion, BundleRef, PartExpander, PartQueries, StagePools

EXAMPLES = """
  seedset expand --workspace demo-workspace/workspace --queries demo-workspace/sample/queries --method default
  seedset expand --workspace s3://b/w --queries q.parquet --method retexpan --output s3://b/out
  seedset expand --workspace s3://b/w --queries s3://b/asked --columns id=request,positive=wanted \\
      --method default
  seedset expand --workspace work --queries q.jsonl --method retexpan --set SegmentRerank.length=8
"""

MAX_PART = 1024
"""Queries of a part: large enough for the file format, small enough to be made twice."""

MIN_PARTS = 16
"""Small tables are cut finer, so that no worker idles while another makes the last part."""


class ExpandSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix that holds the bundle.")
    queries: str = Field(
        description="File or folder of queries (.json, .jsonl, .parquet; in MESED's layout .txt)."
    )
    columns: str = Field(
        default="",
        description="Columns of the queries that have other names, as id=request,positive=wanted; what else "
        "the table has is then not read.",
    )
    method: Annotated[str, METHOD_NAME] = Field(description="Expand by this method.")
    set: Changes = declared(MethodSettings, "set")
    output: str | None = Field(
        default=None,
        description="Write to this folder or s3:// prefix.  [default: a folder in the workspace's "
        "expansions/]",
    )
    bundle: str | None = Field(
        default=None, description="Use the bundle of this id.  [default: the current one]"
    )
    workers: int | None = Field(
        default=None, ge=1, description="Run this many actors a stage.  [default: as many as the cores allow]"
    )
    batch_size: int = Field(default=64, ge=1, description="Give a stage this many queries at once.")
    part_size: int | None = Field(
        default=None, ge=1, description="Write this many queries a part of the output.  [default: up to 1024]"
    )
    overwrite: bool = Field(default=False, description="Replace another run's output.")


@command(EXAMPLES, actions=[LIST_METHODS])
def main(settings: ExpandSettings) -> None:
    """Expand a table of queries into Parquet; a rerun makes only what is missing."""
    workspace, pipeline = Workspace.open(settings.workspace), _pipeline(settings)
    opened = Bundle.open(workspace, settings.bundle)
    asked = read_queries(
        Store.open(settings.queries),
        opened.vocabulary,
        partial(open_catalogue, opened),
        parse_columns(settings.columns, FIELDS, "--columns"),
    )
    if asked.unread:
        console.say(f"columns that are not read, as --columns names others: {shown(asked.unread)}")
    found = with_checked_options(asked, pipeline)
    if any(labelled.query.new for labelled in found.queries):
        pipeline = with_new_entities(pipeline)
    console.say_refused(found.refused, "_refused.jsonl lists them")
    wanted = RunDescription(
        method=settings.method,
        pipeline=str(pipeline),
        bundle=opened.id,
        queries_digest=found.digest,
        queries=len(found.queries),
        part_size=settings.part_size or default_part_size(len(found.queries), settings.batch_size),
    )
    output = settings.output
    target = ExpansionFolder(Store.open(output) if output else default_output(workspace, wanted, pipeline))
    run = target.begin(wanted, settings.overwrite)
    source = BundleRef(workspace.root.uri, opened.id)
    job = BatchExpansion(pipeline, source, target.folder.uri, settings.batch_size)
    made = expand(job, found, run, target, StagePools(settings.workers))
    manifest = target.finish(run, found.refused)
    console.say(f"expansions: {target.folder.uri}")
    console.account(pipeline, opened)
    console.result(
        manifest["counts"],
        output=target.folder.uri,
        queries=manifest["queries"],
        rows=manifest["rows"],
        empty=manifest["empty"],
        degraded=manifest["degraded"],
        refused=manifest["refused"],
        parts=len(manifest["parts"]),
        made=made.made,
    )
    if manifest["empty"] == manifest["degraded"] == manifest["queries"]:
        why = target.first_note(next(iter(run.parts)))
        raise QueryError(no_answer(manifest["queries"], why))


def _pipeline(settings: ExpandSettings) -> Pipeline:
    """Return the method's pipeline.

    Raises:
        UserError: there is no such method or setting, or the answers are not the same however the table is
            cut into parts.
    """
    method = settings.method
    pipeline = pipelines([method], settings.set)[method]
    if pipeline.batch_dependent:
        raise UserError(
            f"--method {method}: its answers depend on which queries are handed over together, and so on how "
            "the table is cut into parts; measure it with `seedset evaluate`"
        )
    return pipeline


def expand(
    job: BatchExpansion, found: QuerySet, run: RunDescription, target: ExpansionFolder, executor: Executor
) -> PartsResult[PartCounts]:
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


def default_output(workspace: Workspace, run: RunDescription, pipeline: Pipeline) -> Store:
    """Return the same folder for the same work, so that a rerun goes on.

    A pipeline has a folder of its own where it is not one of our methods as it is listed: by its settings, by
    the chat model that the environment names and its endpoint, or as one of the user's own.
    """
    sources = "".join(f" {one}" for stage in pipeline.stages if (one := stage.source()))
    listed = {**METHODS, **ABLATIONS}.get(run.method)
    as_listed = str(listed) == run.pipeline and not sources
    changed = "" if as_listed else f"-{sha256((run.pipeline + sources).encode()).hexdigest()[:8]}"
    return workspace.root / "expansions" / f"{run.method}{changed}-{run.queries_digest[:8]}-{run.bundle[:8]}"


if __name__ == "__main__":
    main.run()
