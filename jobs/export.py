"""Export a corpus as a Hugging Face data set: two tables of Parquet, a card, and images."""

from __future__ import annotations

import time

from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings
from engine.corpus.exporting import export_corpus
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console

EXAMPLES = """
  seedset export --workspace work --output corpus-for-the-hub
  seedset export --workspace s3://bucket/work --output s3://bucket/corpus --overwrite
  seedset import --workspace another --source corpus-for-the-hub
"""


class ExportSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix with the corpus.")
    output: str = Field(description="Write into this folder or s3:// prefix, which must not be there yet.")
    bundle: str | None = Field(
        default=None,
        description="Take only the entities that the bundle of this id has.  [default: all of the corpus]",
    )
    overwrite: bool = Field(default=False, description="Replace an earlier export that is there.")


@command(EXAMPLES)
def main(settings: ExportSettings) -> None:
    """Write the corpus as a folder that `datasets.load_dataset(FOLDER)` reads, and `seedset import` too.

    It has the tables sentences and entities, as Parquet, with a dataset card (README.md) that names them.
    Images that the corpus has as bytes are copied; of others the address is written. Whole or not at all.
    """
    started = time.monotonic()
    workspace, output = Workspace.open(settings.workspace), Store.open(settings.output)
    only = ("entities.parquet",)
    bundle = Bundle.open(workspace, settings.bundle, only) if settings.bundle else None
    with console.meter("mentions") as meter:
        counts = export_corpus(workspace, output, bundle, settings.overwrite, meter.add)
    if counts.images_elsewhere:
        console.say(
            f"{counts.images_elsewhere} rows have images that lie elsewhere: not copied, their addresses are "
            "as in the corpus"
        )
    console.result(
        entities=counts.entities,
        removed=counts.removed,
        sentences=counts.sentences,
        images=counts.images,
        files=counts.files,
        output=output.uri,
        seconds=f"{time.monotonic() - started:.1f}",
    )


if __name__ == "__main__":
    main.run()
