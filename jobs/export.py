"""Export a corpus as a Hugging Face data set, or the sets that `seedset expand` found as files."""

from __future__ import annotations

import time

from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings
from engine.corpus.exporting import export_corpus
from engine.errors import UserError
from engine.queries.set_formats import Format
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console
from jobs.steps.set_export import SetExport, export_sets

EXAMPLES = """
  seedset export --workspace work --output corpus-for-the-hub
  seedset export --workspace s3://bucket/work --output s3://bucket/corpus --overwrite
  seedset import --workspace another --source corpus-for-the-hub
  seedset export --workspace work --answers work/expansions/default-0123abcd --format csv --output sets
  seedset export --workspace work --answers a --format skos --base-iri https://example.org/ --output sets
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
    answers: str | None = Field(
        default=None,
        description="Export the sets that `seedset expand` wrote into this folder or s3:// prefix, a file a "
        "query, in place of the corpus.",
    )
    format: Format = Field(
        default="csv",
        description="Write sets as csv (for spreadsheets), jsonl, patterns (Prodigy's), or skos (Turtle).",
    )
    query: str | None = Field(default=None, description="Export the set of this query alone.  [default: all]")
    proposed: bool = Field(
        default=False, description="Take of each answer only what the method proposes as the set."
    )
    label: str = Field(
        default="", description="Name the sets so: the patterns' label.  [default: the query's id]"
    )
    base_iri: str = Field(
        default="", description="Name entities in SKOS below this address, as https://example.org/things/."
    )

    @property
    def given_for_answers(self) -> list[str]:
        """Options that were given and say something of sets alone."""
        own = ("format", "query", "proposed", "label", "base_iri")
        return [f"--{name.replace('_', '-')}" for name in own if name in self.model_fields_set]


@command(EXAMPLES)
def main(settings: ExportSettings) -> None:
    """Write the corpus as a folder that `datasets.load_dataset(FOLDER)` reads, or sets with --answers.

    A corpus' folder is read by `seedset import`, too. It has the tables sentences and entities, as Parquet,
    with a dataset card (README.md) that names them. Images that the corpus has as bytes are copied; of others
    the address is written. Whole or not at all. Of sets each is a file in the folder, named as its query.
    """
    started = time.monotonic()
    workspace, output = Workspace.open(settings.workspace), Store.open(settings.output)
    if settings.answers is not None:
        _export_sets(settings, workspace, output)
        return
    if given := settings.given_for_answers:
        raise UserError(f"{given[0]} is of sets: name the output of `seedset expand` with --answers")
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


def _export_sets(settings: ExportSettings, workspace: Workspace, output: Store) -> None:
    """Write the sets that a batch expansion found, and say what they lack."""
    asked = SetExport(
        settings.format, settings.query, settings.proposed, settings.label, settings.base_iri, settings.bundle
    )
    made = export_sets(workspace, Store.open(settings.answers or ""), output, asked, settings.overwrite)
    if made.empty:
        console.say(f"{made.empty} queries have no answer: their files hold no entity")
    if made.degraded:
        console.say(f"{made.degraded} answers lack something, such as: {made.first_note}")
    console.result(sets=made.sets, entities=made.entities, output=output.uri)


if __name__ == "__main__":
    main.run()
