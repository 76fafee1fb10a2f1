"""Build the view of the descriptions: each is read once by the encoder as it came, and kept.

The parts are of entities whose ids follow each other, under the digest of their texts, so that of a corpus
that has grown only the new ones are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.corpus.inputs.masking import load_tokenizer
from engine.models.device import worker_device
from engine.models.fingerprint import check_unchanged, model_fingerprint
from engine.models.hub import NamedModel
from engine.models.pooling import TextPooler
from engine.models.sentence_settings import read_settings
from engine.models.text import TextEncoder
from engine.retrieval.index import Vectors
from engine.retrieval.views import unit_rows
from engine.storage.parts import PartFolder, content_key
from engine.storage.store import Store, machine_cache
from engine.storage.whole import fault_of
from engine.storage.workspace import Workspace
from jobs import console
from jobs.workers.executor import Executor, make_parts

TOGETHER = 512
"""Entities of a part."""
DESCRIPTIONS = "descriptions-"
"""Begin of the names of folders of parts, before the fingerprint of the encoder."""


class DescriptionTask(NamedTuple):
    """The texts of a part, and its name."""

    name: str
    texts: list[str]


def description_view(workspace: Workspace, encoder: str, texts: list[str], executor: Executor) -> Vectors:
    """Return the unit vectors of the descriptions, [N, D]; zeros where there is none.

    Args:
        workspace: whose cache keeps them.
        encoder: as it was before training.
        texts: of all entities, "" where there is none.
        executor: where the encoder runs.
    """
    fingerprint = model_fingerprint(encoder)
    tasks = {name: DescriptionTask(name, chunk) for name, chunk in named_chunks(texts)}
    names = [name for name, _ in named_chunks(texts)]
    parts = _parts(workspace, fingerprint)
    made = make_parts(
        parts,
        tasks,
        DescriptionWorker,
        (workspace.root.uri, encoder, fingerprint),
        executor,
        "description view, entities",
        size=lambda task: len(task.texts),
        gpu=True,
    )
    if cut := sum(made.parts[name] for name in names):
        most = read_settings(NamedModel.open(encoder, "encoder")).max_tokens
        console.say(f"description view: {cut} descriptions have more than the {most} tokens that are read")
    if not names:
        return np.zeros((0, 1), np.float32)
    vectors = (np.load(parts.file(name, ".npy").local_copy(machine_cache())) for name in names)
    first = next(vectors)
    return unit_rows(chain([first], vectors), (len(texts), first.shape[1]))


def named_chunks(texts: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the texts of every part of some descriptions."""
    for start in range(0, len(texts), TOGETHER):
        chunk = texts[start : start + TOGETHER]
        yield content_key(*chunk), chunk


def _parts(workspace: Workspace, fingerprint: str) -> PartFolder[int]:
    """Return the parts of an encoder; of each is known how many of its texts were cut."""
    folder = workspace.cache(f"{DESCRIPTIONS}{fingerprint}")
    return PartFolder(folder, (".npy", ".json"), _read_cut, fault_of)


def _read_cut(file: Store) -> int:
    return int(json.loads(file.read_bytes())["cut"])


class DescriptionWorker:
    """A worker that encodes the descriptions of a part.

    Args:
        workspace: its address.
        encoder: as it was before training.
        fingerprint: of it.

    Raises:
        UserError: the encoder is another one on this machine.
    """

    def __init__(self, workspace: str, encoder: str, fingerprint: str) -> None:
        check_unchanged(encoder, fingerprint)
        self._parts = _parts(Workspace.open(workspace), fingerprint)
        loaded = TextEncoder.load(encoder).to(worker_device())
        settings = read_settings(NamedModel.open(encoder, "encoder"))
        self._pooler = TextPooler(loaded, load_tokenizer(encoder), settings)

    def __call__(self, task: DescriptionTask) -> int:
        """Write a part, and return how many of its texts were cut."""
        # Those of about the same length are padded together.
        order = np.argsort([len(text) for text in task.texts], kind="stable")
        found = self._pooler([task.texts[place] for place in order])
        vectors = np.empty_like(found.vectors_nD)
        vectors[order] = found.vectors_nD
        with self._parts.writing(task.name, ".npy") as path, Path(path).open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
        with self._parts.writing(task.name, ".json") as path:
            path.write_text(json.dumps({"cut": found.cut}), encoding="utf-8")
        return found.cut
