"""Build a view of an encoder's mean states at the masks; what was summed of a part is kept.

So an index that is built again by the same encoder, of a corpus that has grown, reads the new parts alone.
The map by which the joint view reads a view (:func:`sentence_map`) is made anew, of some sentences.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from engine.models.device import worker_device
from engine.models.fingerprint import check_unchanged, model_fingerprint
from engine.models.text import BARE_TOKENS, TextEncoder
from engine.retrieval.index import Vectors
from engine.retrieval.views import EntitySums, mean_view
from engine.retrieval.within_entities import Scatter, within_map
from engine.storage.parts import PartFolder, check_whole
from engine.storage.store import Store, machine_cache
from engine.storage.workspace import Workspace
from engine.training.cache import CachedPart, FrozenCache, masked_states, masked_sums
from engine.training.input_rows import InputRows
from jobs import console
from jobs.workers.executor import Executor, in_order, make_parts

SUMS = "sums"
"""End of the names of folders of sums."""

SENTENCES = 1 << 15
"""Sentences that a map is made of, about: some tens for each dimension."""


class SumsTask(NamedTuple):
    """A part, by its name in the model input."""

    name: str
    part: CachedPart


def mask_view(
    name: str, encoder: str, cache: FrozenCache, workspace: Workspace, n_entities: int, executor: Executor
) -> Vectors:
    """Return the unit means of an encoder's states at the masks, [N, D], from cached frozen states.

    Args:
        name: of the view.
        encoder: folder or name of the encoder, whose frozen layers are those of the cache.
        cache: states of all sentences.
        workspace: whose cache keeps the sums.
        n_entities: of the vocabulary.
        executor: where the encoder runs.
    """
    inputs, fingerprint = cache.inputs, model_fingerprint(encoder)
    key = f"{inputs.manifest.settings.parts_key()}-{fingerprint[:8]}-{SUMS}"
    tasks = {part: SumsTask(part, states) for part, states in zip(inputs.names, cache.parts, strict=True)}
    rows = dict(zip(inputs.names, inputs.rows, strict=True))
    parts = _parts(workspace, key)
    make_parts(
        parts,
        tasks,
        MaskSumsWorker,
        (workspace.root.uri, encoder, fingerprint, key),
        executor,
        f"{name} view, sentences",
        size=lambda task: rows[task.name],
        gpu=True,
    )
    # One at a time, as an entity of which every part has a sentence has a sum in each.
    return mean_view((_read_sums(parts.file(part)) for part in inputs.names), n_entities)


def sentence_map(encoder: str, cache: FrozenCache, executor: Executor) -> Vectors | None:
    """Return the map after which what sentences of one entity differ in counts less, [D, D].

    Of about :data:`SENTENCES` sentences, in parts that lie evenly over all (at least one part).

    Args:
        encoder: folder or name of the encoder, whose frozen layers are those of the cache.
        cache: states of all sentences.
        executor: where the encoder runs.
    """
    step = -(-sum(cache.inputs.rows) // SENTENCES) or 1
    parts, rows = cache.parts[::step], cache.inputs.rows[::step]

    def scatters() -> Iterator[Scatter]:
        with console.meter("sentences of one entity", sum(rows)) as meter:
            made = in_order(executor.map(MaskStatesWorker, (encoder,), parts, gpu=True))
            for part, n_rows, states_nD in zip(parts, rows, made, strict=True):
                own = InputRows.read(part.inputs.local_copy(machine_cache()), with_ids=False)
                yield Scatter.of(own.entity_id[own.lengths > BARE_TOKENS], states_nD)
                meter.add(n_rows)

    return within_map(scatters())


def _parts(workspace: Workspace, key: str) -> PartFolder[None]:
    return PartFolder(workspace.cache(key), (".safetensors",), check_whole)


def _read_sums(file: Store) -> EntitySums:
    kept = load_file(file.local_copy(machine_cache()))
    return EntitySums(kept["ids"], kept["sums"])


class MaskSumsWorker:
    """A worker that sums the mask representations of one part, per entity.

    Args:
        workspace: its address.
        encoder: whose last layer makes them; the frozen ones are those of the cache.
        fingerprint: of the encoder.
        key: of the folder of sums.

    Raises:
        UserError: the encoder is another one on this machine.
    """

    def __init__(self, workspace: str, encoder: str, fingerprint: str, key: str) -> None:
        check_unchanged(encoder, fingerprint)
        self._parts = _parts(Workspace.open(workspace), key)
        self._encoder = TextEncoder.load(encoder).to(worker_device())

    def __call__(self, task: SumsTask) -> None:
        """Write the sums of a part."""
        found = EntitySums(*masked_sums(self._encoder, task.part.open()))
        with self._parts.writing(task.name) as path:
            save_file({"ids": found.ids, "sums": found.sums_nD}, path)


class MaskStatesWorker:
    """A worker that computes the states at the masks of one part.

    Args:
        encoder: whose last layer makes them; the frozen ones are those of the cache.
    """

    def __init__(self, encoder: str) -> None:
        self._encoder = TextEncoder.load(encoder).to(worker_device())

    def __call__(self, part: CachedPart) -> npt.NDArray[np.float32]:
        """Return the states at the masks of a part's sentences that have text, [n, D]."""
        data = part.open()
        states_nD = np.zeros((len(data), self._encoder.dim), np.float32)
        for rows, found_nD in masked_states(self._encoder, data):
            states_nD[rows] = found_nD
        return states_nD[data.with_text]
