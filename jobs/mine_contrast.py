"""Mine the lists that ultra-fine contrastive learning is trained on (RetExpan, section 5.1.2).

Everything runs in this process, which asks a chat model for several queries at once. What is made is one
folder of the workspace (:mod:`engine.training.contrast_lists`); a rerun with the same settings finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field

from cluster.commandline import command
from cluster.lock import Writes
from cluster.methods import LIST_METHODS, METHOD_NAME, Changes, MethodSettings, pipelines
from cluster.options import CommandSettings, declared
from engine.chat.settings import ChatSettings
from engine.contrast.judges import AgreementJudge, Judge, JudgeName, LikelihoodJudge
from engine.contrast.mining import Mined, mine
from engine.corpus.schema import read_manifest
from engine.errors import QueryError, UserError
from engine.query import MAX_TOP_K, Query
from engine.stages.base import Pipeline
from engine.storage.bundle import Bundle
from engine.storage.parts import MANIFEST, write_pointer
from engine.storage.workspace import Workspace
from engine.training.contrast_lists import lists_key, open_lists, publish_lists
from jobs import console
from jobs.settings import presets
from jobs.steps.query_tables import QueryTableSettings, read_query_table
from jobs.steps.read_sentences import check_bundle_of_corpus

EXAMPLES = """
  seedset mine-contrast --workspace work --queries ultrawiki/query
  seedset mine-contrast --workspace work --queries q.jsonl --judge language-model --top 20
  seedset mine-contrast --workspace work --queries q.jsonl --judge chat  # with SEEDSET_CHAT_URL, _MODEL
"""

BATCH = 64
"""Queries that are expanded at once."""

SHOWN = 5
"""Queries with lists of seeds alone that are named one by one."""


class MineContrastSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix that holds the corpus and the bundle.")
    queries: str = Field(
        description="File or folder of queries (.json, .jsonl, .parquet; in MESED's layout .txt); only their "
        "seeds are read."
    )
    columns: str = declared(QueryTableSettings, "columns")
    judge: JudgeName = Field(
        default="agreement",
        description="Keep what is nearer to its side's seeds in most views, what the bundle's language model "
        "finds nearer to them, or what a chat model says (SEEDSET_CHAT_URL, SEEDSET_CHAT_MODEL …).",
    )
    top: int = Field(default=10, ge=1, le=1000, description="Judge this many entities of each side.")
    recall: int = Field(
        default=200,
        ge=1,
        le=MAX_TOP_K,
        description="Recall this many entities of each side; all others are of other fine-grained classes.",
    )
    method: Annotated[str, METHOD_NAME] = Field(
        default="joint", description="Recall by this method, from either side's seeds."
    )
    set: Changes = declared(MethodSettings, "set")
    bundle: str | None = Field(
        default=None, description="Use the bundle of this id.  [default: the current one]"
    )


@command(EXAMPLES, actions=[LIST_METHODS], presets=presets("mine-contrast"), writes=Writes("mine-contrast"))
def main(settings: MineContrastSettings) -> None:
    """Mine lists of entities that agree with the seeds of queries, for contrastive training.

    Each query is expanded from its positive seeds, and again from its negative seeds taken as positive. A
    judge keeps those of the best of either list that agree with the seeds. What both sides keep goes to
    neither. A query that the judge cannot judge gets lists of its seeds alone, and is said; an endpoint that
    cannot be asked ends the run, and a rerun goes on with the answers that were kept.
    """
    if settings.recall < settings.top:
        raise UserError(f"--top {settings.top}: more than --recall {settings.recall}; raise that, too")
    workspace = Workspace.open(settings.workspace)
    pipeline = _pipeline(settings)
    bundle = Bundle.open(workspace, settings.bundle)
    check_bundle_of_corpus(workspace, bundle, "which is trained on")
    found = read_query_table(settings.queries, settings.columns, bundle.vocabulary)
    console.say_refused(found.refused, "they get no lists")
    run = _Run(settings, workspace, bundle, pipeline, found.digest)
    if not run.found():
        run.make([labelled.query for labelled in found.queries], len(found.refused))


def _pipeline(settings: MineContrastSettings) -> Pipeline:
    """Return the method that recalls.

    Raises:
        UserError: there is no such method or setting, or its answers depend on the batch.
    """
    pipeline = pipelines([settings.method], settings.set)[settings.method]
    if pipeline.batch_dependent:
        raise UserError(
            f"--method {settings.method}: its answers depend on which queries are handed over together; "
            "choose another"
        )
    return pipeline


def _judge(name: JudgeName, bundle: Bundle) -> Judge:
    if name == "agreement":
        return AgreementJudge.open(bundle)
    if name == "language-model":
        return LikelihoodJudge.open(bundle)
    from engine.contrast.chat_judge import ChatJudge  # what sends prompts is imported where it is used

    return ChatJudge.open(bundle)


@dataclass(frozen=True)
class _Run:
    """A run of the command: what it is asked for, and from what it is made."""

    settings: MineContrastSettings
    workspace: Workspace
    bundle: Bundle
    pipeline: Pipeline
    queries_digest: str

    @cached_property
    def made_by(self) -> dict[str, Any]:
        """All that tells the lists from others, the corpus apart."""
        settings = self.settings
        about = {
            "bundle": self.bundle.id,
            "queries_digest": self.queries_digest,
            "pipeline": str(self.pipeline),
            "judge": settings.judge,
            "top": settings.top,
            "recall": settings.recall,
        }
        if settings.judge == "chat":
            chat = ChatSettings.of()
            about |= {"chat_model": chat.model, "chat_url": chat.url}
        return about

    def found(self) -> bool:
        """Return whether the lists are there already; then they are the newest, and it is said."""
        key = lists_key(read_manifest(self.workspace).digest, self.made_by)
        if not (self.workspace.contrast(key) / MANIFEST).exists():
            return False
        lists = open_lists(self.workspace, key).read(len(self.bundle.vocabulary.names))
        write_pointer(self.workspace.contrast(), key)
        console.say(f"contrast lists: {self.workspace.contrast(key).uri} (made before, by the same settings)")
        kept = sum(
            len(one.pos_list) + len(one.neg_list) - len(one.positive) - len(one.negative) for one in lists
        )
        console.result(key=key, queries=len(lists), kept=kept, made=0)
        return True

    def make(self, queries: Sequence[Query], refused: int) -> None:
        """Mine the lists, publish them, and say what is in them.

        Raises:
            QueryError: not one query was judged.
        """
        settings = self.settings
        judge, expand = _judge(settings.judge, self.bundle), self.pipeline.open(self.bundle)
        mined: list[Mined] = []
        with console.meter("mine", len(queries)) as meter:
            for start in range(0, len(queries), BATCH):
                some = queries[start : start + BATCH]
                for one in mine(some, expand, judge, settings.top, settings.recall):
                    mined.append(one)
                    meter.add(note=f"{sum(m.kept for m in mined)} kept")
        unjudged = [one for one in mined if one.problem]
        if mined and len(unjudged) == len(mined):
            first = unjudged[0]
            raise QueryError(
                f"none of the {len(mined)} queries was judged; {first.lists.query_id!r}: {first.problem}"
            )
        key = publish_lists(self.workspace, [one.lists for one in mined], self.made_by)
        _say_poor(mined)
        console.say(f"contrast lists: {self.workspace.contrast(key).uri}")
        if account := judge.account():
            console.say(account)
        console.result(
            key=key,
            queries=len(mined),
            refused=refused,
            judged=sum(one.judged for one in mined),
            kept=sum(one.kept for one in mined),
            on_both_sides=sum(one.both for one in mined),
            seeds_alone=sum(len(one.empty) for one in mined),
            unjudged=len(unjudged),
            made=len(mined),
        )


def _say_poor(mined: Sequence[Mined]) -> None:
    """Say which queries have a list that holds seeds alone, and why."""
    poor = [one for one in mined if one.problem or one.empty]
    for one in poor[:SHOWN]:
        why = one.problem or "nothing that was judged is kept"
        console.say(
            f"query {one.lists.query_id!r}: seeds alone in the {' and the '.join(one.empty)} list: {why}"
        )
    if len(poor) > SHOWN:
        console.say(f"lists of seeds alone: {len(poor)} queries in all")


if __name__ == "__main__":
    main.run()
