"""Run every distinct image of a corpus once through a frozen vision backbone, and store its patch features.

A first pass reads and hashes what the mentions name; the second decodes and encodes the contents that have
no features yet, part by part. A part is there whole or not at all, so a run that was stopped goes on where it
was, and a corpus that has grown costs only what is new.
"""

from __future__ import annotations

import time

from pydantic import Field

from cluster.commandline import command
from cluster.lock import Writes
from cluster.options import RUN, CommandSettings
from engine.storage.workspace import Workspace
from jobs import console
from jobs.settings import MODEL, Making, presets
from jobs.workers.executor import AutoExecutor

EXAMPLES = """
  seedset image-features --workspace demo-workspace/workspace-images --model demo-workspace/backbone
  seedset image-features --workspace work --model microsoft/resnet-50 --patches crop
  seedset image-features --workspace s3://bucket/work --model s3://bucket/models/clip --grid 4
"""


class ImageFeaturesSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix with a corpus whose mentions have images.")
    making: Making
    workers: int | None = Field(
        default=None,
        ge=1,
        description="Run this many actors.  [default: the cluster's GPUs, or its CPUs where there are none]",
    )
    force: bool = Field(default=False, description="Make everything again, also what is there already.")

    def unused(self) -> dict[str, str]:
        """Return the options that the features asked for do without, and why."""
        patches = self.making.patches
        return {} if patches == "grid" else {"grid": f"beside --patches {patches}"}


@command(
    EXAMPLES,
    headings={"making": MODEL, "making.batch_size": RUN},
    presets=presets("image-features"),
    writes=Writes("image-features"),
)
def main(settings: ImageFeaturesSettings) -> None:
    """Make patch features of a corpus' images: images/KEY, in parts of 512 distinct images.

    KEY stands for the backbone and the settings; others make another folder beside it. Images are told apart
    by their content: one that a thousand mentions share is read once and encoded once.

    An image that is missing, broken, animated, too large or in colours for print is named, with the reason,
    in corpus/quarantine/images.jsonl; its sentences stay, without an image.

    There is no torchvision here: Pillow decodes and resizes, on the CPU, a thread's work ahead of the
    backbone, and the fast image processors of transformers are not used. Each picture is squeezed to a
    square (not cropped), bicubic; scaling comes out of the model's preprocessor_config.json. Nothing is
    downloaded but the model, if you name one on the hub.
    """
    from jobs.steps.image_features import make_image_features

    started = time.monotonic()
    place = Workspace.open(settings.workspace)
    with AutoExecutor(settings.workers, [place.root.uri]) as executor:
        outcome = make_image_features(place, settings.making, settings.force, executor)
    seconds = time.monotonic() - started
    console.result(
        key=outcome.key,
        images=outcome.manifest.images,
        distinct=outcome.distinct,
        made=outcome.made,
        kept=outcome.kept,
        refused=outcome.manifest.refused,
        images_per_second=f"{outcome.made / seconds:.1f}",
        seconds=f"{seconds:.1f}",
    )


if __name__ == "__main__":
    main.run()
