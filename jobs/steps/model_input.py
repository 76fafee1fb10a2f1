"""Make model input: draw sentences of each entity, and have every part of them written that is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.drawing import draw_of, drawn, ranks_within
from engine.corpus.inputs.format import (
    InputManifest,
    InputSettings,
    Stats,
    input_manifests,
    input_parts,
)
from engine.corpus.inputs.masking import fitting_tokenizer
from engine.corpus.inputs.worker import InputTask, InputWorker
from engine.corpus.schema import CorpusManifest, check_same_corpus, check_whole, part_digests
from engine.errors import StorageError
from engine.models.plain_text import token_ids
from engine.storage.manifests import made_by_after, makers_of
from engine.storage.parts import MANIFEST, content_key, write_model, write_pointer
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.text.hashes import hashes_of
from engine.versions import OF_TOKENS, versions_of
from jobs.steps.unknown_tokens import check_words, sampled_sentences
from jobs.workers.executor import Executor, given_or_auto, make_parts

BYTES_A_TOKEN = 2.5
"""On disk: 2.3 of wikispeedia-mini's sentences, 1.5 of shorter ones."""


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
    lengths = [len(ids) for ids in token_ids(tokenizer, sentences)]
    a_sentence = BYTES_A_TOKEN * sum(lengths) / max(1, len(lengths))
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
            stored=lambda task: len(task.rows) * a_sentence,
        )
    others = input_manifests(workspace, settings.parts_key())
    makers = makers_of(others, made.parts) if made.kept else ()
    manifest = _summary(settings, model, corpus, made.parts, part_digests(workspace)).model_copy(
        update={"made_by": made_by_after(makers, versions_of(OF_TOKENS) if made.made else None)}
    )
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
    for part, told_apart in zip(workspace.mentions(), numbers_of_images(workspace), strict=True):
        ids, numbers, able = _draws_of(part, names, settings, told_apart)
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


def numbers_of_images(workspace: Workspace) -> list[npt.NDArray[np.int32]]:
    """Return for every part the number of each of its contexts, 0 where it has no image.

    The contexts of an entity with the same sentence and an image are numbered from 1 in the order of the
    corpus. They are told by a hash, so that 8 bytes of each are in memory.
    """
    places, hashes = [], [np.empty(0, np.uint64)]
    rows = []
    for part in workspace.mentions():
        with part.open_input() as stream:
            file = pq.ParquetFile(stream)
            images = file.read(["image"])["image"]
            rows.append(len(images))
            places.append(np.flatnonzero(images.is_valid()))
            if len(places[-1]):
                names = ["entity_id", "start", "sentence"]
                told = file.read(names).take(pa.array(places[-1]))
                columns = (told[name].to_pylist() for name in names)
                hashes.append(hashes_of(f"{e} {at} {text}" for e, at, text in zip(*columns, strict=True)))
    numbers = np.split(ranks_within(np.concatenate(hashes)) + 1, np.cumsum([len(one) for one in places])[:-1])
    found = []
    for length, own, numbered in zip(rows, places, numbers, strict=True):
        found.append(np.zeros(length, np.int32))
        found[-1][own] = numbered
    return found


def _draws_of(
    part: Store, names: Sequence[str], settings: InputSettings, numbers: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Return the entity and the draw of every mention of a part, and whether it may be drawn, [rows].

    Contexts of one sentence with several images are told apart by their number, not by the images'
    addresses: images may be moved.

    Args:
        part: of the mentions.
        names: of all entities.
        settings: of the draw.
        numbers: of its contexts, see :func:`numbers_of_images`.
    """
    with part.open_input() as stream:
        table = pq.read_table(stream)
    ids = table["entity_id"].to_numpy()
    seed = str(settings.seed)
    columns = (table[name].to_pylist() for name in ("entity_id", "sentence", "start"))
    draws = [
        draw_of(seed, names[entity], sentence, str(start), str(number))
        for entity, sentence, start, number in zip(*columns, numbers.tolist(), strict=True)
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
