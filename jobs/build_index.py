"""Turn the trained encoder and the corpus into entity vectors, and publish them as a bundle.

The mean of each entity's states at the mask, computed from the cached frozen states, is one view; beside it
stand the description, the words, images where there are any, and all together. With the vectors go the
encoder, which places entities that are not in the corpus, and sentences to be shown.
"""

from __future__ import annotations

import time
from typing import Literal

from pydantic import Field

from cluster.commandline import command
from cluster.lock import Writes
from cluster.options import CommandSettings, Former
from engine.storage.workspace import Workspace
from jobs import console
from jobs.settings import MASKED_LM_SENTENCES, presets, temperature_field
from jobs.workers.executor import AutoExecutor

EXAMPLES = """
  seedset build-index --workspace demo-workspace/workspace
  seedset build-index --workspace work --untrained
  seedset build-index --workspace work --inputs mask-L500-S50-RA-0123abcd
  seedset build-index --workspace work --adapt
  seedset build-index --workspace work --class-names
  seedset build-index --workspace work --types newest
  seedset build-index --workspace work --index ivf-sq8
  ray job submit --working-dir . -- python -m jobs.build_index --workspace s3://bucket/work --workers 16
"""


class BuildIndexSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix with the model input of `seedset preprocess`.")
    untrained: bool = Field(default=False, description="Take the encoder as it came, without training.")
    inputs: str | None = Field(
        default=None,
        description="Encode this model input, by the key that `seedset preprocess` printed: descriptions in "
        "front at inference alone, say.  [default: what the encoder was trained on]",
    )
    index: Literal["auto", "exact", "ivf-sq8", "ivf-pq"] = Field(
        default="auto",
        description="Search a view's vectors exactly, or look for candidates among codes first, of one byte "
        "(ivf-sq8) or two bits (ivf-pq) a dimension. auto: exactly up to 1 GiB of vectors, else by bytes "
        "where they fit into a quarter of this machine's memory. Recall is measured, shown and kept in the "
        "manifest.",
    )
    workers: int | None = Field(
        default=None, ge=1, description="Run this many actors a pool.  [default: the cluster's CPUs]"
    )
    temperature: float = temperature_field()
    text_distributions: bool = Field(
        default=True,
        description="Make the distributions that the text encoder's head predicts, for --method probexpan: a "
        "product of every sentence with every entity.",
    )

    types: str | None = Field(
        default=None,
        description="Type every entity by this typing model of `seedset train-typing`: its folder, its run, "
        'or "newest". The bundle gets each entity\'s types, an attribute `type` and a view.',
    )
    adapt: bool = Field(
        default=False,
        description="Train a copy of the encoder as a masked language model on the corpus, all layers, which "
        "takes minutes, and let how it reads mentions have half of the mask view's place in the joint view. "
        "For encoders of the family bert; one that brings its head goes on from it.",
    )
    lists: str | None = Field(
        default=None,
        description="Let the joint view tell apart what the seeds of the queries tell apart that `seedset "
        'mine-contrast` made these lists of: their key, "newest", or "none".  [default: the newest, where '
        "there are any]",
    )
    class_names: bool = Field(
        default=False,
        description="Make what `cgexpan` asks, too: the state of every mention, and a masked language model, "
        "which is the one that --adapt trains, or else an encoder that brings its head, as it came.",
    )
    masked_lm_sentences: int = Field(
        default=MASKED_LM_SENTENCES,
        ge=1,
        description="Train that model on at most so many sentences, drawn at random.",
    )

    def unused(self) -> dict[str, str]:
        """Return the options that the views asked for do without, and why."""
        asked = self.class_names or self.adapt
        found = {} if asked else {"masked_lm_sentences": "without --adapt or --class-names"}
        return found | ({"text_distributions": "beside --untrained"} if self.untrained else {})


@command(
    EXAMPLES,
    former={"head_sentences": Former("masked_lm_sentences")},
    presets=presets("build-index"),
    writes=Writes("build-index"),
)
def main(settings: BuildIndexSettings) -> None:
    """Make the entity vectors of every view and publish them as the workspace's current bundle.

    A bundle holds the entities, the index of each view, the encoder, and the first sentences of each entity.
    """
    from jobs.steps.index_building import build
    from jobs.steps.masked_lm import MaskedLmUse

    started = time.monotonic()
    probed = MaskedLmUse(settings.adapt, settings.class_names, settings.masked_lm_sentences)
    place = Workspace.open(settings.workspace)
    with AutoExecutor(settings.workers, [place.root.uri]) as executor:
        manifest = build(
            place,
            settings.untrained,
            executor,
            settings.temperature,
            settings.inputs,
            settings.text_distributions,
            probed,
            settings.types,
            settings.lists,
            settings.index,
        )
    console.result(
        bundle=manifest.id,
        files=len(manifest.files),
        mib=sum(f.size for f in manifest.files.values()) >> 20,
        views=",".join(manifest.settings["views"]),
        seconds=f"{time.monotonic() - started:.1f}",
    )


if __name__ == "__main__":
    main.run()
