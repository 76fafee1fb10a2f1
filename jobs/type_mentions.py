"""Type mentions of entities by a typing model: a file of sentences with marked mentions into Parquet."""

from __future__ import annotations

import time
from typing import Literal

from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console
from jobs.workers.executor import AutoExecutor

EXAMPLES = """
  seedset type-mentions --workspace work --mentions mentions.jsonl --output types
  seedset type-mentions --workspace work --mentions mentions.jsonl.gz --output types --model RUN --workers 8
  ray job submit --working-dir . -- python -m jobs.type_mentions --workspace s3://b/work \\
      --mentions s3://b/mentions.jsonl.gz --output s3://b/types
"""


class TypeMentionsSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix with the model of `seedset train-typing`.")
    mentions: str = Field(
        description="Type the mentions of this file, JSON lines such as "
        '{"left": "We flew to", "mention": "Oslo", "right": "at night."}; UFET\'s layout is read, too.'
    )
    output: str = Field(description="Write Parquet parts into this folder or s3:// prefix.")
    model: str = Field(default="newest", description='Typing model: its folder, its run, or "newest".')
    rule: Literal["threshold", "single"] | None = Field(
        default=None,
        description="Predict all types whose score is above 0 (the best one where none is), or a single one "
        "and its parents.  [default: single where types are paths]",
    )
    part_size: int = Field(default=10_000, ge=1, description="Write so many mentions a part.")
    workers: int | None = Field(
        default=None, ge=1, description="Run this many actors.  [default: the cluster's CPUs]"
    )
    overwrite: bool = Field(default=False, description="Delete another output that is in the folder.")


@command(EXAMPLES)
def main(settings: TypeMentionsSettings) -> None:
    """Type every mention of a file: a row each, with its types and how sure the model is of them.

    Parts are kept: a run that was stopped goes on with those that are missing. _manifest.json comes last.
    """
    from jobs.steps.mention_types import type_mentions
    from jobs.steps.typing import typing_model

    started = time.monotonic()
    workspace, output = Workspace.open(settings.workspace), Store.open(settings.output)
    model = typing_model(workspace, settings.model)
    mentions = Store.open(settings.mentions)
    with AutoExecutor(settings.workers, [output.uri]) as executor:
        manifest = type_mentions(
            mentions, model, output, settings.rule, settings.part_size, executor, settings.overwrite
        )
    console.result(
        mentions=manifest.mentions,
        parts=len(manifest.parts),
        model=manifest.model,
        rule=manifest.rule,
        seconds=f"{time.monotonic() - started:.1f}",
    )


if __name__ == "__main__":
    main.run()
