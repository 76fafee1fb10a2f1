"""Turn a corpus into model input: sentences drawn per entity, mentions masked, text tokenised.

Ray Data spreads the corpus' parts over actors that each load the tokenizer once. Every part is written
whole or not at all, under the digest of what it is made from: a run that was stopped goes on where it was,
and a corpus that has changed costs the parts that differ.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings, Group
from engine.corpus.drawing import draw_of, drawn
from engine.corpus.inputs.format import InputManifest, InputSettings, Stats, input_parts
from engine.corpus.inputs.masking import fingerprint, fitting_tokenizer
from engine.corpus.inputs.worker import InputTask, InputWorker
from engine.corpus.schema import CorpusManifest, check_same_corpus, check_whole, part_digests, read_manifest
from engine.errors import StorageError
from engine.models.hub import EMBEDDED
from engine.storage.parts import MANIFEST, content_key, write_model, write_pointer
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console
from jobs.settings import DATA, presets
from jobs.steps.unknown_tokens import check_words, sampled_sentences
from jobs.workers.executor import AutoExecutor, Executor, given_or_auto, make_parts

EXAMPLES = """
  seedset preprocess --workspace demo-workspace/workspace
  seedset preprocess --workspace work --model bert-base-uncased --max-length 300 --max-sentences 50
  seedset preprocess --workspace s3://bucket/work --descriptions --max-length 500
  seedset preprocess --workspace work --descriptions --description-names masked
"""


@dataclass(frozen=True)
class PreprocessResult:
    """The result of a run."""

    key: str
    manifest: InputManifest
    made: int
    kept: int


def preprocess(
    workspace: Workspace,
    model: str,
    settings: InputSettings,
    executor: Executor | None = None,
    force: bool = False,
) -> PreprocessResult:
    """Make the model input of a workspace's corpus; parts that are there already are kept.

    Args:
        workspace: holds the corpus, receives ``inputs/<key>`` and the parts that it names.
        model: whose tokenizer is used: a folder or a hub name that every node can read, or "embedded".
        settings: made with that tokenizer's fingerprint.
        executor: where parts are made; default: see :class:`jobs.workers.executor.AutoExecutor`.
        force: make everything again.

    Raises:
        StorageError: there is no corpus.
        UserError: model, tokenizer, settings and corpus do not fit.
    """
    corpus = check_whole(workspace)
    tokenizer = fitting_tokenizer(model, settings.max_length)
    key = settings.key(corpus.digest)
    by_part = _tasks(workspace, corpus, settings)
    sentences = sampled_sentences(workspace, {task.part: task.rows for task in by_part})
    check_words(sentences, tokenizer, f"--model {model}")
    tasks = {task.name: task for task in by_part}
    parts = input_parts(workspace, settings)
    if force:
        for name in tasks:
            parts.file(name).delete()
    arguments = (workspace.root.uri, model, settings)
    with given_or_auto(executor, workspace.root) as where:
        made = make_parts(
            parts,
            tasks,
            InputWorker,
            arguments,
            where,
            "sentences",
            size=lambda task: len(task.rows),
            check=lambda: check_same_corpus(workspace, corpus.digest),
        )
    manifest = _summary(settings, model, corpus, made.parts, part_digests(workspace))
    write_model(workspace.inputs(key) / MANIFEST, manifest)
    write_pointer(workspace.inputs(), key)
    return PreprocessResult(key, manifest, made.made, made.kept)


def _tasks(workspace: Workspace, corpus: CorpusManifest, settings: InputSettings) -> list[InputTask]:
    """Return what each part is made from, under the digest of that."""
    rows_of_parts = _drawn(workspace, corpus, settings)
    told = _descriptions(workspace, rows_of_parts) if settings.descriptions else [""] * len(rows_of_parts)
    return [
        InputTask(content_key(digest, rows.tobytes(), about), part, rows)
        for part, (digest, rows, about) in enumerate(
            zip(part_digests(workspace), rows_of_parts, told, strict=True)
        )
    ]


def _descriptions(workspace: Workspace, drawn: Sequence[npt.NDArray[np.int64]]) -> list[str]:
    """Return, for every part, all that is told of the entities of its drawn rows."""
    with workspace.entities.open_input() as stream:
        entities = pq.read_table(stream, columns=["name", "aliases", "description"])
    found = []
    for part, rows in zip(workspace.mentions(), drawn, strict=True):
        with part.open_input() as stream:
            ids = pq.read_table(stream, columns=["entity_id"])["entity_id"].to_numpy()[rows]
        found.append(json.dumps(entities.take(pa.array(np.unique(ids))).to_pylist()))
    return found


def _drawn(
    workspace: Workspace, corpus: CorpusManifest, settings: InputSettings
) -> list[npt.NDArray[np.int64]]:
    """Return for every part the row numbers, within it, of the contexts that were drawn."""
    with workspace.entities.open_input() as stream:
        names = pq.read_table(stream, columns=["name"])["name"].to_pylist()
    entities, draws = [], []
    for part in workspace.mentions():
        ids, numbers, able = _draws_of(part, names, settings)
        # Below 0: not drawn.
        entities.append(np.where(able, ids, -1))
        draws.append(numbers)
    if [len(one) for one in draws] != corpus.parts:
        raise StorageError("corpus/mentions: not the parts that corpus/manifest.json lists; import again")
    together = np.concatenate(entities)
    if (together < 0).all():
        raise StorageError("corpus/mentions: no sentence in it, images alone; add --images")
    kept, _ = drawn(together, np.concatenate(draws), settings.max_sentences)
    return [np.flatnonzero(own) for own in np.split(kept, np.cumsum(corpus.parts)[:-1])]


def _draws_of(
    part: Store, names: Sequence[str], settings: InputSettings
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Return the entity and the draw of every mention of a part, and whether it may be drawn, [rows]."""
    with part.open_input() as stream:
        table = pq.read_table(stream)
    ids = table["entity_id"].to_numpy()
    seed = str(settings.seed)
    columns = (table[name].to_pylist() for name in ("entity_id", "sentence", "start", "image"))
    draws = [
        draw_of(seed, names[entity], sentence, str(start), image or "")
        for entity, sentence, start, image in zip(*columns, strict=True)
    ]
    able = table["end"].to_numpy() > 0  # those with a sentence
    return ids, np.array(draws, np.uint64), able | settings.images


def _summary(
    settings: InputSettings,
    model: str,
    corpus: CorpusManifest,
    parts: dict[str, Stats],
    sources: list[str],
) -> InputManifest:
    stats = parts.values()
    return InputManifest(
        settings=settings,
        model=model,
        corpus_digest=corpus.digest,
        mentions=sum(s["rows"] for s in stats),
        tokens=sum(s["tokens"] for s in stats),
        longest=max((s["longest"] for s in stats), default=0),
        clipped=sum(s["clipped"] for s in stats),
        unknown=sum(s["unknown"] for s in stats),
        parts={name: s["rows"] for name, s in parts.items()},
        sources=sources,
    )


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


@command(EXAMPLES, headings={"inputs": DATA}, presets=presets("preprocess"))
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
