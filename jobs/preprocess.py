"""Turn a corpus into model input: sentences drawn per entity, mentions masked, text tokenised.

Ray Data spreads the corpus' parts over actors that each load the tokenizer once. Every part is written
whole or not at all, under the digest of what it is made from: a run that was stopped goes on where it was,
and a corpus that has changed costs the parts that differ.
"""

from __future__ import annotations

import time
from typing import Annotated

from pydantic import Field

from cluster.commandline import command
from cluster.lock import Writes
from cluster.options import CommandSettings, Group
from engine.corpus.inputs.format import InputSettings
from engine.corpus.inputs.masking import fingerprint, fitting_tokenizer
from engine.corpus.schema import read_manifest
from engine.models.hub import EMBEDDED
from engine.storage.workspace import Workspace
from jobs import console
from jobs.settings import DATA, presets
from jobs.steps.model_input import preprocess
from jobs.workers.executor import AutoExecutor

EXAMPLES = """
  seedset preprocess --workspace demo-workspace/workspace
  seedset preprocess --workspace work --model bert-base-uncased --max-length 300 --max-sentences 50
  seedset preprocess --workspace s3://bucket/work --descriptions --max-length 500
  seedset preprocess --workspace work --descriptions --description-names masked
"""


class PreprocessSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix with an imported corpus.")
    model: str = Field(
        default=EMBEDDED,
        description='Encoder whose tokenizer is used: a model folder, a hub name, or "embedded" (MiniLM, no '
        "network).",
    )
    inputs: Annotated[InputSettings, Group(without=["tokenizer"])] = InputSettings(tokenizer="")
    workers: int | None = Field(
        default=None, ge=1, description="Run this many actors.  [default: the cluster's CPUs]"
    )
    force: bool = Field(default=False, description="Make everything again, also what is there already.")

    def unused(self) -> dict[str, str]:
        """Return the options that the input asked for does without, and why."""
        return {} if self.inputs.descriptions else {"description_names": "without --descriptions"}


@command(EXAMPLES, headings={"inputs": DATA}, presets=presets("preprocess"), writes=Writes("preprocess"))
def main(settings: PreprocessSettings) -> None:
    """Make model input of a workspace's corpus: inputs/KEY, one part per part of the corpus.

    KEY stands for the corpus and all settings; other settings make another folder beside it.
    """
    started = time.monotonic()
    place = Workspace.open(settings.workspace)
    read_manifest(place)  # no corpus: say so before a tokenizer is fetched
    # What does not fit: say so before a cluster is asked for.
    tokenizer = fitting_tokenizer(settings.model, settings.inputs.max_length)
    inputs = settings.inputs.model_copy(update={"tokenizer": fingerprint(tokenizer)})
    with AutoExecutor(settings.workers, [place.root.uri]) as executor:
        outcome = preprocess(place, settings.model, inputs, executor, settings.force)
    seconds = time.monotonic() - started
    console.result(
        key=outcome.key,
        mentions=outcome.manifest.mentions,
        tokens=outcome.manifest.tokens,
        clipped=outcome.manifest.clipped,
        unknown=outcome.manifest.unknown,
        parts_made=outcome.made,
        parts_kept=outcome.kept,
        seconds=f"{seconds:.1f}",
    )


if __name__ == "__main__":
    main.run()
