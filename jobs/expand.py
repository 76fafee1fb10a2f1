"""Expand a table of queries into Parquet: in this process, or on Ray Data by pools of actors.

What is made is a part of the output (up to some thousand queries), written in one step. So a part that is
lost with its node is made again as a whole, and a rerun with the same output makes only the parts that are
missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from cluster.capacity import TensorParallel, check_group_gpus, in_whole_ones
from cluster.commandline import command
from cluster.methods import LIST_METHODS, METHOD_NAME, Changes, MethodSettings, pipelines
from cluster.options import CommandSettings, declared
from engine.catalogue.opening import open_catalogue
from engine.errors import QueryError, UserError
from engine.methods import ABLATIONS, METHODS
from engine.queries.formats import iter_queries, none_usable
from engine.queries.results import ExpansionFolder, PartCounts, RunDescription
from engine.query import no_answer
from engine.stages.base import Pipeline
from engine.stages.split_models import check_split_model
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console
from jobs.steps.query_spool import QuerySpool
from jobs.steps.query_tables import QueryTableSettings, query_columns, say_unread
from jobs.steps.routing import Router
from jobs.workers.attempts import died_at_work, forget
from jobs.workers.executor import Executor, PartsResult, make_parts
from jobs.workers.expansion import PartExpander, StagePools
from jobs.workers.failures import WorkerDiedError
from jobs.workers.pool_sizes import Wish, model_bytes
from jobs.workers.stage_run import BatchExpansion, BundleRef

T = TypeVar("T")

ROUNDS = 5
"""Times that the work goes on where a process died each time that Ray started it: a part may hold several
queries that kill."""

EXAMPLES = """
  seedset expand --workspace demo-workspace/workspace --queries demo-workspace/sample/queries --method default
  seedset expand --workspace s3://b/w --queries q.parquet --method retexpan --output s3://b/out
  seedset expand --workspace s3://b/w --queries s3://b/asked --columns id=request,positive=wanted \\
      --method default
  seedset expand --workspace work --queries q.jsonl --method retexpan --set SegmentRerank.length=8
  seedset expand --workspace s3://b/w --queries q.parquet --method genexpan --tensor-parallel 4
"""


class ExpandSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix that holds the bundle.")
    queries: str = Field(
        description="File or folder of queries (.json, .jsonl, .parquet; in MESED's layout .txt). A row is "
        "what a request is: besides seeds, which may be new entities, and top_k it may have method, filter, "
        "options, explain and deadline_ms."
    )
    method: Annotated[str, METHOD_NAME] = Field(
        description="Expand the rows that name no method of their own by this one."
    )
    columns: str = declared(QueryTableSettings, "columns")
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
        default=None, ge=1, description="Run this many actors of each pool.  [default: one for each core]"
    )
    gpu: float | None = Field(
        default=None,
        ge=0,
        description="Reserve this share of a GPU, or so many whole ones, for each actor with a language "
        "model.  [default: one, or the share that all have, where the cluster has GPUs]",
    )
    tensor_parallel: TensorParallel = 1
    batch_size: int = Field(default=64, ge=1, description="Give a stage this many queries at once.")
    part_size: int | None = Field(
        default=None, ge=1, description="Write this many queries a part of the output.  [default: up to 1024]"
    )
    overwrite: bool = Field(default=False, description="Replace another run's output.")
    strict: bool = Field(
        default=False,
        description="Fail if any query is refused, before work begins, or if one cannot be answered.",
    )

    _whole_gpus = field_validator("gpu")(in_whole_ones)

    @model_validator(mode="after")
    def _gpu_for_each_process(self) -> Self:
        check_group_gpus(self.gpu, self.tensor_parallel)
        return self


@command(EXAMPLES, actions=[LIST_METHODS])
def main(settings: ExpandSettings) -> None:
    """Expand a table of queries into Parquet; a rerun makes only what is missing."""
    workspace, pipeline = Workspace.open(settings.workspace), _pipeline(settings)
    opened = Bundle.open(workspace, settings.bundle)
    router = Router(opened, settings.method, pipeline, settings.set)
    with TemporaryDirectory(prefix="seedset-expand-") as folder:
        spool = QuerySpool(Path(folder), settings.batch_size, settings.part_size or 0)
        _read(settings, spool, router)
        check_split_model(opened, router.chain.stages, settings.tensor_parallel)
        wanted = RunDescription(
            method=settings.method,
            pipeline=str(pipeline),
            bundle=opened.id,
            queries_digest=str(spool.digest),
            queries=spool.queries,
            part_size=spool.part_size,
            methods=router.others,
        )
        output = settings.output
        target = ExpansionFolder(
            Store.open(output) if output else default_output(workspace, wanted, pipeline)
        )
        run = target.begin(wanted, settings.overwrite)
        source = BundleRef(workspace.root.uri, opened.id)
        processes = settings.tensor_parallel
        job = BatchExpansion(router.chain, source, target.folder.uri, settings.batch_size, processes)
        wish = Wish(settings.workers, settings.gpu, model_bytes(opened), processes)
        made = expand(job, spool, run, target, StagePools(wish))
        manifest = target.finish(run, spool.refusals())
    console.say(f"expansions: {target.folder.uri}")
    for used in router.used.values():
        console.account(used, opened)
    counted = ("queries", "rows", "empty", "degraded", "refused", "failed")
    console.result(
        manifest["counts"],
        output=target.folder.uri,
        **{name: manifest[name] for name in counted},
        parts=len(manifest["parts"]),
        made=made.made,
    )
    _check_answers(settings, target, run, manifest)


def _read(settings: ExpandSettings, spool: QuerySpool, router: Router) -> None:
    """Read the queries, and say which are refused.

    Raises:
        QueryError: none can be used; or one is refused, and --strict was given.
    """
    source = Store.open(settings.queries)
    with console.meter("queries") as meter:
        columns = query_columns(settings.columns)
        bundle = router.bundle
        found = iter_queries(source, bundle.vocabulary, partial(open_catalogue, bundle), columns)
        spool.fill(_metered(found, meter), router)
    say_unread(columns)
    console.say_refused(spool.first_refused, "_refused.jsonl lists them", spool.refused)
    if not spool.queries:
        raise none_usable(source, spool.refused, spool.first_refused[0])
    if settings.strict and spool.refused:
        raise QueryError(f"{spool.refused} queries were refused, and --strict was given")


def _metered(found: Iterable[T], meter: console.Meter) -> Iterator[T]:
    for one in found:
        meter.add()
        yield one


def _check_answers(
    settings: ExpandSettings, target: ExpansionFolder, run: RunDescription, manifest: Mapping[str, Any]
) -> None:
    """Say which queries could not be answered.

    Raises:
        QueryError: no query has an answer; or one could not be answered, and --strict was given.
    """
    if failed := manifest["failed"]:
        parts = (part for part in run.parts if target.failures(part))
        first = [f"{one['query_id']}: {one['reason']}" for one in target.failures(next(parts))]
        console.say_refused(first[: console.REFUSED_SHOWN], "_refused.jsonl lists them", failed)
    if manifest["empty"] == manifest["degraded"] == manifest["queries"]:
        raise QueryError(no_answer(manifest["queries"], target.first_note(next(iter(run.parts)))))
    if settings.strict and failed:
        raise QueryError(f"{failed} queries could not be answered, and --strict was given")


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
    job: BatchExpansion, spool: QuerySpool, run: RunDescription, target: ExpansionFolder, executor: Executor
) -> PartsResult[PartCounts]:
    """Make the parts of an output that are missing.

    Where processes died with queries in hand, those that outlive :data:`ROUNDS` attempts at it are made.

    Args:
        job: the methods, the bundle, the output.
        spool: the queries.
        run: says which of them belong to which part.
        target: the output, opened.
        executor: :class:`StagePools`, or one that takes any worker.
    """
    spool.cut(run.part_size)
    tasks = spool.tasks(run)
    for attempts_left in reversed(range(ROUNDS)):
        try:
            made = make_parts(
                *(target.parts, tasks, PartExpander, (job,), executor),
                label="expand",
                size=lambda task: task.queries,
                gpu=True,
            )
        except WorkerDiedError as error:
            if not attempts_left or not died_at_work(target.folder):
                raise
            console.say(f"{error}; what they had in hand is tried again, query by query")
        except (KeyboardInterrupt, SystemExit):  # the command is told to end: its actors die of that
            forget(target.folder)
            raise
        else:
            break
    forget(target.folder)
    return made


def default_output(workspace: Workspace, run: RunDescription, pipeline: Pipeline) -> Store:
    """Return the same folder for the same work, so that a rerun goes on.

    A pipeline has a folder of its own where it is not one of our methods as it is listed: by its settings, by
    the chat model that the environment names and its endpoint, or as one of the user's own.
    """
    sources = "".join(f" {one}" for stage in pipeline.stages if (one := stage.source()))
    listed = {**METHODS, **ABLATIONS}.get(run.method)
    as_listed = str(listed) == run.pipeline and not sources
    others = {name: str(listed_as) for name, listed_as in METHODS.items() if name in run.methods}
    as_listed &= run.methods == others
    changed = (
        ""
        if as_listed
        else f"-{sha256((run.pipeline + sources + _in_words(run.methods)).encode()).hexdigest()[:8]}"
    )
    return workspace.root / "expansions" / f"{run.method}{changed}-{run.queries_digest[:8]}-{run.bundle[:8]}"


def _in_words(methods: Mapping[str, str]) -> str:
    return "".join(f" {name}: {pipeline}" for name, pipeline in methods.items())


if __name__ == "__main__":
    main.run()
