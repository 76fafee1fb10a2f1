"""Import a corpus of sentences and images of entities, from UltraWiki's or MESED's layout, JSON lines or
Parquet.

Runs on one core and streams: what is held in memory is the entities, not the sentences. The result is
``corpus/`` in the workspace; records that cannot be used go to ``corpus/quarantine`` with the reason.
"""

from __future__ import annotations

import gc
import time
from typing import Annotated

from pydantic import Field

from cluster.commandline import command, preformatted
from cluster.lock import Writes
from cluster.options import RUN, Choices, CommandSettings, Former
from engine.corpus.importing.importer import ImportSettings, import_corpus
from engine.corpus.importing.source import AUTO, ImportSource, formats
from engine.corpus.readers import mesed, ultrawiki
from engine.corpus.readers import tables as rows
from engine.corpus.readers.row_files import parse_columns
from engine.corpus.readers.source_files import set_aside_together, shown
from engine.corpus.schema import Counts
from engine.storage.workspace import Workspace
from jobs import console
from jobs.settings import DATA, presets

EXAMPLES = """
  seedset import --workspace work --source demo-workspace/sample
  seedset import --workspace work --source ultrawiki/ --overwrite
  seedset import --workspace work --source today.jsonl --append
  seedset import --workspace work --source whole.parquet --update --remove-missing
  seedset import --workspace work --source ultrawiki/ --mention-rule first
  seedset import --workspace work --source mesed/ --strict
  seedset import --workspace s3://bucket/work --source 's3://bucket/reviews/part-*.parquet' \\
      --columns entity=product,sentence=text,name=title --entities s3://bucket/products.csv
"""


FORMATS_HELP = (
    f"--format ultrawiki. {ultrawiki.__doc__}\n--format mesed. {mesed.__doc__}\n"
    f"--format jsonl, parquet, arrow, csv or tsv. {rows.__doc__}"
)


class ImportCommandSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix that will hold the corpus.")
    source: str = Field(
        description="Folder, file, pattern of names or address (s3://, hf://OWNER/NAME, …) to import."
    )
    format: Annotated[str, Choices(formats())] = Field(
        default="auto",
        description="Read the source in this form, see above; auto: by its files' names.",
    )
    columns: str = Field(
        default="",
        description="Columns of tables that have other names, as entity=product,sentence=text,name=title.",
    )
    entities: str = Field(
        default="",
        description="Table of entities that lies elsewhere: a file, folder, pattern or s3:// address.",
    )
    strictness: ImportSettings = ImportSettings()


@command(
    EXAMPLES,
    headings={"strictness": RUN, "strictness.mention_rule": DATA},
    former={"max_sentence_chars": Former("max_sentence_characters")},
    about=preformatted(FORMATS_HELP),
    presets=presets("import"),
    writes=Writes("import", exclusive=True),
)
def main(settings: ImportCommandSettings) -> None:
    """Import a corpus into a workspace."""
    started = time.monotonic()
    place = Workspace.open(settings.workspace)
    columns = parse_columns(settings.columns, (*rows.SENTENCE_COLUMNS, *rows.ENTITY_COLUMNS), "--columns")
    source = ImportSource(settings.source, settings.format, columns, settings.entities)
    with console.meter("sentences") as meter:
        manifest = import_corpus(place, source, settings.strictness, meter.add)
    counts, added = manifest.counts, manifest.added
    if settings.format == AUTO:
        read = manifest.files[-manifest.files_added :]
        console.say(f"read as {manifest.format}: {shown(one.name for one in read)}")
    if manifest.unread:
        unread = shown(set_aside_together(manifest.unread))
        console.say(f"not read: {unread}; --help says what --format {settings.format} reads")
    if settings.strictness.adds:
        _say_what_was_added(added)
    for reason, number in manifest.reasons.items():
        console.say(f"  {number} × {reason}")
    if counts.quarantined:
        lost = f"{counts.quarantined} records or details were not imported"
        console.say(f"{lost}; see {place.corpus.uri}/quarantine")
    console.result(
        entities=counts.entities,
        mentions=counts.mentions,
        refused=counts.refused,
        duplicates=counts.duplicates,
        entities_refused=counts.entities_refused,
        details_refused=counts.details_refused,
        files_broken=counts.files_broken,
        images=counts.images,
        entities_without_sentences=counts.entities_without_sentences,
        seconds=f"{time.monotonic() - started:.1f}",
        quarantine=f"{place.corpus.uri}/quarantine",
    )


def _say_what_was_added(added: Counts) -> None:
    console.say(
        f"added: {added.entities} entities and {added.mentions} mentions; {added.known} sentences were there "
        "already. `seedset refresh` makes anew what was made from the corpus before"
    )
    if added.removed or added.entities_removed:
        console.say(
            f"removed: {added.removed} mentions; {added.entities_removed} entities, which keep their ids"
        )
    if added.details_known:
        console.say(
            f"{added.details_known} entities are there with other aliases, description or attributes, which "
            "stay; --update takes the new ones"
        )


if __name__ == "__main__":
    gc.disable()  # nothing here makes reference cycles, and looking for them costs a fifth of the time
    main.run()
