"""Choose the best of several candidate images for each sentence, by models that you bring.

Equation 1 of the MESED paper. Workers each load the models once and take part after part of the table. Every
part is written whole or not at all, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import time

from pydantic import Field

from cluster.commandline import command, preformatted
from cluster.options import CommandSettings
from engine.images.selection import table as choice_table
from engine.images.selection.settings import SelectionSettings
from engine.storage.store import Store
from jobs import console
from jobs.settings import MODEL
from jobs.workers.executor import AutoExecutor

EXAMPLES = """
  seedset choose-images --table found.jsonl --output chosen --clip openai/clip-vit-base-patch32
  seedset choose-images --table s3://b/found.parquet --output s3://b/chosen \\
      --clip s3://b/models/clip --detector hustvl/yolos-tiny --alpha 0.7
  seedset import --source chosen --workspace work
"""


class ChooseImagesSettings(CommandSettings):
    """The settings of the command."""

    table: str = Field(description="File or s3:// address of the records: .jsonl or .parquet.")
    output: str = Field(description="Write to this folder or s3:// prefix.")
    choice: SelectionSettings
    workers: int | None = Field(
        default=None,
        ge=1,
        description="Run this many actors.  [default: the cluster's GPUs, or its CPUs where there are none]",
    )
    overwrite: bool = Field(default=False, description="Replace another choice in the output.")


@command(EXAMPLES, headings={"choice": MODEL}, about=preformatted(str(choice_table.__doc__)))
def main(settings: ChooseImagesSettings) -> None:
    """Choose an image for each sentence out of its candidates.

    score = alpha * cos(CLIP of the image, CLIP of the sentence)
          + (1 - alpha) * max over the image's objects of cos(object, typical image of the entity)

    The highest score wins; at a tie the earlier candidate. A record without a typical image (or whose typical
    image cannot be used) goes by the first term alone, and then its scores are not comparable with those of
    records that have one.

    OUTPUT/sentences is a source for `seedset import`: entity, sentence, start, end, image
    and image_score. OUTPUT/scores holds every usable candidate, for people who calibrate: record (the table's
    rows from 0), image, agreement, similarity, score, rank. OUTPUT/quarantine names what was refused, and
    why. A record without a usable candidate is kept without an image.

    CLIP reads the first 77 tokens of a sentence. Images are squeezed to squares (CLIP's own preprocessing
    crops), without torchvision. Nothing is downloaded but models that you name on the hub. A run that was
    stopped goes on with the same command and the same models.
    """
    from jobs.steps.image_selection import choose_images

    started = time.monotonic()
    output = settings.output
    with AutoExecutor(settings.workers, [Store.open(output).uri]) as executor:
        wanted, counts, made = choose_images(
            settings.table, output, settings.choice, settings.overwrite, executor
        )
    if counts["images_refused"] or wanted.refused or wanted.details_refused:
        console.say(
            f"{wanted.refused} records, {wanted.details_refused} details of others and "
            f"{counts['images_refused']} images cannot be used; see {output}/quarantine"
        )
    console.result(
        output=output,
        records=wanted.records,
        records_refused=wanted.refused,
        chosen=counts["chosen"],
        without_image=counts["without_image"],
        images_scored=counts["images_scored"],
        images_refused=counts["images_refused"],
        parts_made=made,
        parts_kept=wanted.parts - made,
        seconds=f"{time.monotonic() - started:.1f}",
    )


if __name__ == "__main__":
    main.run()
