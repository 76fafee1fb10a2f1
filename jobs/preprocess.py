"""Turn a corpus into model input: sentences drawn per entity, mentions masked, text tokenised.

Ray Data spreads the corpus' parts over actors that each load the tokenizer once. Every part is written
whole or not at all, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings, Group
from cluster.session import session
from engine.corpus.inputs.format import (
    CURRENT,
    MANIFEST,
    InputManifest,
    InputSettings,
    draw_rows,
    part_name,
)
from engine.corpus.inputs.masking import MentionMasker, fingerprint, load_tokenizer
from engine.corpus.inputs.worker import PartMaker, Stats
from engine.corpus.schema import CorpusManifest, read_manifest
from engine.errors import StorageError
from engine.models.hub import EMBEDDED, model_path
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console
from jobs.workers.executor import pooled

EXAMPLES = """
  python -m jobs.preprocess --workspace work
  python -m jobs.preprocess --workspace work --model bert-base-uncased --max-length 300 --max-sentences 50
  python -m jobs.preprocess --workspace s3://bucket/work --descriptions --max-length 500
"""


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    key: str
    manifest: InputManifest
    made: int
    kept: int


def preprocess(
    workspace: Workspace,
    model: str,
    settings: InputSettings,
    workers: int | None = None,
    force: bool = False,
) -> Outcome:
    """Make the model input of a workspace's corpus; parts that are there already are kept.

    Args:
        workspace: holds the corpus, receives ``inputs/<key>``.
        model: whose tokenizer is used: a folder or a hub name that every node can read, or "embedded".
        settings: made with that tokenizer's fingerprint.
        workers: actors; default: the CPUs of the cluster.
        force: make everything again.

    Raises:
        StorageError: there is no corpus.
    """
    corpus = read_manifest(workspace)
    key = settings.key(corpus.digest)
    folder = workspace.inputs(key)
    if force:
        folder.delete()
    drawn = _drawn(workspace.mentions(), corpus, settings)
    stats = _finished(folder, drawn)
    kept = len(stats)
    todo = [i for i in range(len(drawn)) if i not in stats]
    if kept:
        console.say(f"{folder.uri}: {kept} of {len(drawn)} parts are there already and are kept")
    if todo:
        stats |= _make(workspace, model, settings, key, {i: drawn[i] for i in todo}, workers)
    manifest = _summary(settings, model, corpus, [stats[i] for i in range(len(drawn))])
    (folder / MANIFEST).write_bytes(manifest.model_dump_json(indent=1).encode())
    workspace.inputs(CURRENT).write_bytes(key.encode())
    return Outcome(key, manifest, len(todo), kept)


def _drawn(parts: list[Store], corpus: CorpusManifest, settings: InputSettings) -> list[np.ndarray]:
    """Return for every part the row numbers, within it, of the contexts that were drawn."""
    tables = []
    for part in parts:
        with part.open_input() as stream:
            tables.append(pq.read_table(stream, columns=["entity_id", "end"]))
    if [len(table) for table in tables] != corpus.parts:
        raise StorageError("corpus/mentions: not the parts that corpus/manifest.json lists; import again")
    borders = np.cumsum([0, *corpus.parts])
    mentions = pa.concat_tables(tables)
    able = np.flatnonzero(mentions["end"].to_numpy() > 0)  # those with a sentence
    if settings.images:
        able = np.arange(len(mentions))
    if not len(able):
        raise StorageError("corpus/mentions: no sentence in it, images alone; add --images")
    drawn = draw_rows(mentions["entity_id"].to_numpy()[able], settings.max_sentences, settings.seed)
    rows = able[drawn]
    split = np.searchsorted(rows, borders)
    return [rows[a:b] - first for a, b, first in zip(split[:-1], split[1:], borders[:-1], strict=True)]


def _finished(folder: Store, drawn: list[np.ndarray]) -> dict[int, Stats]:
    """Return the counts of the parts that are there with the rows that they should have."""
    there = {f.name for f in folder.files(".parquet")}
    found: dict[int, Stats] = {}
    for i, rows in enumerate(drawn):
        if part_name(i) not in there:
            continue
        try:
            with (folder / part_name(i)).open_input() as stream:
                schema = pq.read_schema(stream)
            stats = {k.decode(): int(v) for k, v in (schema.metadata or {}).items()}
        except (pa.ArrowException, ValueError):
            continue
        if stats.get("rows") == len(rows):
            found[i] = stats
    return found


def _make(
    workspace: Workspace,
    model: str,
    settings: InputSettings,
    key: str,
    drawn: dict[int, np.ndarray],
    workers: int | None,
) -> dict[int, Stats]:
    """Make the given parts on the cluster and return their counts."""
    items = [{"part": i, "rows": rows.astype(np.int64).tobytes()} for i, rows in drawn.items()]
    arguments = (workspace.root.uri, model, settings, key)
    stats: dict[int, Stats] = {}
    with session(), console.meter("sentences", sum(map(len, drawn.values()))) as meter:
        for row in pooled(items, PartMaker, arguments, workers):
            stats[int(row["part"])] = {k: int(v) for k, v in row.items() if k != "part"}
            meter.add(int(row["rows"]))
    return stats


def _summary(
    settings: InputSettings, model: str, corpus: CorpusManifest, stats: list[Stats]
) -> InputManifest:
    return InputManifest(
        settings=settings,
        model=model,
        corpus_digest=corpus.digest,
        mentions=sum(s["rows"] for s in stats),
        tokens=sum(s["tokens"] for s in stats),
        longest=max(s["longest"] for s in stats),
        clipped=sum(s["clipped"] for s in stats),
        parts=[s["rows"] for s in stats],
    )


class PreprocessSettings(CommandSettings):
    """What the command is told."""

    workspace: str = Field(description="Folder or s3:// prefix with an imported corpus.")
    model: str = Field(
        default=EMBEDDED,
        description='Whose tokenizer: a model folder, a hub name, or "embedded" (MiniLM, no network).',
    )
    inputs: Annotated[InputSettings, Group(without=["tokenizer"])] = InputSettings(tokenizer="")
    workers: int | None = Field(default=None, ge=1, description="Actors.  [default: the cluster's CPUs]")
    force: bool = Field(default=False, description="Make everything again, also what is there already.")


@command(EXAMPLES)
def main(settings: PreprocessSettings) -> None:
    """Make model input of a workspace's corpus: inputs/KEY, one part per part of the corpus.

    KEY stands for the corpus and all settings; other settings make another folder beside it.
    """
    started = time.monotonic()
    place = Workspace.open(settings.workspace)
    read_manifest(place)  # no corpus: say so before a tokenizer is fetched
    tokenizer = load_tokenizer(model_path(settings.model))
    # A limit that the model cannot take: say so before anything starts.
    MentionMasker(tokenizer, settings.inputs.max_length)
    inputs = settings.inputs.model_copy(update={"tokenizer": fingerprint(tokenizer)})
    outcome = preprocess(place, settings.model, inputs, settings.workers, settings.force)
    seconds = time.monotonic() - started
    console.result(
        key=outcome.key,
        mentions=outcome.manifest.mentions,
        tokens=outcome.manifest.tokens,
        clipped=outcome.manifest.clipped,
        parts_made=outcome.made,
        parts_kept=outcome.kept,
        seconds=f"{seconds:.1f}",
    )


if __name__ == "__main__":
    main.run()
