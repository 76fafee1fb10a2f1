"""Type every entity of a workspace: a typing model reads the mentions that the encoders read.

What it said of each mention is kept in the workspace's cache by the sentences and the model, and read from
there when an index is built again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.attributes import TYPE
from engine.corpus.inputs.format import Inputs
from engine.corpus.schema import part_digests
from engine.entity_types import MAX_TYPES, MIN_PROBABILITY, TYPES, EntityTypes
from engine.models.device import worker_device
from engine.models.fingerprint import check_unchanged, model_fingerprint
from engine.retrieval.index import Vectors, unit
from engine.retrieval.views import centred
from engine.stages.type_mentions import TYPING
from engine.storage.parts import PartFolder, check_whole, content_key
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.typing.labels_file import LabelsFile
from engine.typing.mentions import Mention
from engine.typing.model import TypingModel
from jobs.steps.read_sentences import sentence_rows
from jobs.workers.executor import Executor, make_parts

TOGETHER = 1024
"""Mentions that are typed at a time."""
PAIRS = 1 << 22
"""Types of mentions that wait to be added up, 64 MB."""


class TypingTask(NamedTuple):
    """The mentions that one part is made of: of mentions part ``part`` the rows, int64 [n]."""

    name: str
    part: int
    rows: npt.NDArray[np.int64]


class TypedEntities(NamedTuple):
    """The types of all entities, the view of their mean states, [N, D], and the typing model's folder."""

    types: EntityTypes
    view: Vectors
    model: str

    def write(self, staged: Path) -> None:
        """Write what a bundle holds of them besides the view: the types, and the model."""
        self.types.write(staged / TYPES)
        (staged / TYPING).mkdir()
        TypingModel.load(self.model).save(staged / TYPING)


class EntityTypingWorker:
    """A worker that types some rows of a mentions part, and writes what the model said of each.

    Args:
        workspace: its address.
        model: a typing model's folder.
        fingerprint: of the model.

    Raises:
        UserError: the model is another one on this machine.
    """

    def __init__(self, workspace: str, model: str, fingerprint: str) -> None:
        check_unchanged(model, fingerprint, "--types")
        place = Workspace.open(workspace)
        self._mentions, self._parts = place.mentions(), _parts(place, fingerprint)
        self._model = TypingModel.load(model).to(worker_device())

    def __call__(self, task: TypingTask) -> None:
        """Write a part."""
        with self._mentions[task.part].open_input() as stream:
            columns = ["entity_id", "sentence", "start", "end"]
            table = pq.read_table(stream, columns=columns).take(pa.array(task.rows))
        typed = [
            self._typed(table.slice(start, TOGETHER)) for start in range(0, max(len(table), 1), TOGETHER)
        ]
        with self._parts.writing(task.name) as path:
            pq.write_table(pa.concat_tables(typed), path)

    def _typed(self, table: pa.Table) -> pa.Table:
        sentences, starts, ends = (table[name].to_pylist() for name in ("sentence", "start", "end"))
        states_nD, scores_nN = self._model.states_and_scores(
            [
                Mention.at(sentence, start, end)
                for sentence, start, end in zip(sentences, starts, ends, strict=True)
            ]
        )
        least = np.log(MIN_PROBABILITY / (1 - MIN_PROBABILITY))
        types, probabilities = [], []
        for scores_N in scores_nN:
            kept = np.flatnonzero(scores_N >= least)
            kept = np.sort(kept[np.argsort(-scores_N[kept], kind="stable")[:MAX_TYPES]])
            types.append(kept.astype(np.int32))
            probabilities.append((1 / (1 + np.exp(-scores_N[kept]))).astype(np.float32))
        states = pa.FixedSizeListArray.from_arrays(
            pa.array(states_nD.astype(np.float16).reshape(-1)), states_nD.shape[1]
        )
        return pa.table(
            {
                "entity_id": table["entity_id"],
                "state": states,
                "types": pa.array(types, pa.list_(pa.int32())),
                "probabilities": pa.array(probabilities, pa.list_(pa.float32())),
            }
        )


def typed_entities(
    workspace: Workspace, inputs: Inputs, model: str, n_entities: int, executor: Executor
) -> TypedEntities:
    """Return the types of all entities by the sentences of a model input.

    Args:
        workspace: with the corpus that the input was made from.
        inputs: whose sentences are read; contexts without a sentence say nothing.
        model: a typing model's folder.
        n_entities: of the vocabulary.
        executor: where the model runs.

    Raises:
        UserError: there is no such typing model.
    """
    fingerprint = model_fingerprint(model, "--types")
    names = LabelsFile.read(model).labels
    tasks = {task.name: task for task in _tasks(workspace, inputs)}
    parts = _parts(workspace, fingerprint)
    arguments = (workspace.root.uri, model, fingerprint)
    made = make_parts(
        parts, tasks, EntityTypingWorker, arguments, executor, "types, sentences", lambda t: len(t.rows), True
    )
    types, view = collected([parts.file(name) for name in made.parts], names, n_entities)
    return TypedEntities(types, view, model)


def has_own_types(workspace: Workspace) -> bool:
    """Return whether the corpus' entities have an attribute of the name that found types get."""
    with workspace.entities.open_input() as stream:
        column = pq.read_table(stream, columns=["attributes"])["attributes"].combine_chunks()
    return bool(pc.any(pc.equal(column.keys, TYPE)).as_py())


def _parts(workspace: Workspace, fingerprint: str) -> PartFolder[None]:
    return PartFolder(workspace.cache(f"types-{fingerprint}"), (".parquet",), check_whole)


def _tasks(workspace: Workspace, inputs: Inputs) -> list[TypingTask]:
    """Return what each part is made of."""
    kept = f"{MIN_PROBABILITY} {MAX_TYPES}"
    digests = part_digests(workspace)
    return [
        TypingTask(content_key(digests[number], rows.tobytes(), kept), number, rows)
        for number, rows in enumerate(sentence_rows(workspace, inputs))
    ]


def collected(files: list[Store], names: list[str], n_entities: int) -> tuple[EntityTypes, Vectors]:
    """Return what parts say of all entities together: types, and the view.

    Args:
        files: of the parts.
        names: of the types that their numbers stand for.
        n_entities: of the vocabulary.
    """
    total_ND: npt.NDArray[np.float64] | None = None
    mentions_N = np.zeros(n_entities, np.int64)
    sums = PairSums(max(len(names), 1))
    for file in files:
        with file.open_input() as stream:
            table = pq.read_table(stream).combine_chunks()
        entities = table["entity_id"].to_numpy().astype(np.int64)
        states = table["state"].combine_chunks()
        states_nD = states.flatten().to_numpy().reshape(len(table), -1) if len(table) else None
        if states_nD is not None:
            total_ND = np.zeros((n_entities, states_nD.shape[1])) if total_ND is None else total_ND
            np.add.at(total_ND, entities, states_nD.astype(np.float64))
        mentions_N += np.bincount(entities, minlength=n_entities)
        types = table["types"].combine_chunks()
        each = np.repeat(entities, types.value_lengths().to_numpy())
        probabilities = table["probabilities"].combine_chunks().flatten().to_numpy()
        sums.add(each, types.flatten().to_numpy(), probabilities)
    found = EntityTypes.collect(names, *sums.total(), mentions_N)
    means = total_ND if total_ND is not None else np.zeros((n_entities, 1))
    return found, centred(unit(means.astype(np.float32)))


class PairSums:
    """Sums of probabilities by entity and type: no more is held than there are pairs, and some that come.

    Args:
        width: how many types there are.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._pairs: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._sums: npt.NDArray[Any] = np.empty(0)
        self._new: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = []

    def add(
        self,
        entities: npt.NDArray[np.int64],
        types: npt.NDArray[np.int32],
        probabilities: npt.NDArray[np.float32],
    ) -> None:
        """Add the probabilities of some types of some entities, [n] each."""
        self._new.append((entities * self._width + types, probabilities.astype(np.float64)))
        if sum(len(pairs) for pairs, _ in self._new) > PAIRS:
            self._add_up()

    def _add_up(self) -> None:
        pairs, sums = (
            np.concatenate(column) for column in zip((self._pairs, self._sums), *self._new, strict=True)
        )
        self._pairs, places = np.unique(pairs, return_inverse=True)
        self._sums = np.bincount(places, sums, len(self._pairs))
        self._new = []

    def total(
        self,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return entities and types, each pair once, and the sum of each."""
        self._add_up()
        entities, types = np.divmod(self._pairs, self._width)
        return entities, types, self._sums
