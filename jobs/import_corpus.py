"""Import a corpus of sentences and images of entities, from UltraWiki's or MESED's layout, JSON lines or
Parquet.

Runs on one core and streams: what is held in memory is the entities, not the sentences. The result is
``corpus/`` in the workspace; records that cannot be used go to ``corpus/quarantine`` with the reason.
"""

from __future__ import annotations

import gc
import time

import typer

from engine.corpus.importing.importer import FORMATS, ImportSettings, import_corpus
from engine.corpus.readers import mesed, ultrawiki
from engine.corpus.readers import tables as rows
from engine.corpus.text import MAX_SENTENCE_CHARACTERS
from engine.storage.workspace import Workspace
from jobs import console

EXAMPLES = """
  python -m jobs.import_corpus --workspace work --source ultrawiki/
  python -m jobs.import_corpus --workspace work --source mesed/ --format mesed
  python -m jobs.import_corpus --workspace s3://bucket/work --source s3://bucket/raw --format jsonl
  python -m jobs.import_corpus --workspace work --source mine.jsonl --format jsonl --strict
"""


def main(
    workspace: str = typer.Option(..., help="Folder or s3:// prefix that will hold the corpus."),
    source: str = typer.Option(..., help="Folder, file or s3:// address to import."),
    form: str = typer.Option("ultrawiki", "--format", help=f"One of: {', '.join(FORMATS)}."),
    max_sentence_chars: int = typer.Option(
        MAX_SENTENCE_CHARACTERS, min=1, help="Longer sentences are refused."
    ),
    strict: bool = typer.Option(False, help="Publish nothing if any record is refused."),
    overwrite: bool = typer.Option(False, help="Replace the corpus that is there."),
) -> None:
    """Import a corpus into a workspace."""
    started = time.monotonic()
    place = Workspace.open(workspace)
    settings = ImportSettings(max_sentence_chars, strict, overwrite)
    with console.meter("sentences") as meter:
        manifest = import_corpus(place, source, form, settings, meter.add)
    counts = manifest.counts
    for reason, number in manifest.reasons.items():
        console.say(f"  {number} × {reason}")
    if counts.quarantined:
        console.say(f"{counts.quarantined} records were not imported; see {place.corpus.uri}/quarantine")
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


_FORMATS_HELP = (
    f"--format ultrawiki. {ultrawiki.__doc__}\n--format mesed. {mesed.__doc__}\n"
    f"--format jsonl or parquet. {rows.__doc__}"
)
# "\b" keeps the lines of a paragraph as they are.
main.__doc__ = f"{main.__doc__}\n\n{_FORMATS_HELP}".replace("``", "").replace("\n\n", "\n\n\b\n")

if __name__ == "__main__":
    gc.disable()  # nothing here makes reference cycles, and looking for them costs a fifth of the time
    console.run(main, EXAMPLES)
