"""Build the view of the contrastive training, and what conditioned retrieval reads of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.models.text import BARE_TOKENS, TextEncoder
from engine.retrieval.entity_sentences import KEPT_STATES
from engine.retrieval.index import Vectors, unit
from engine.retrieval.sentence_files import SentenceRows, write_sentences
from engine.storage.store import machine_cache
from engine.storage.workspace import Workspace
from engine.training.cache import FrozenCache
from engine.training.input_rows import InputRows
from jobs import console
from jobs.steps.mask_view import MaskStatesWorker
from jobs.workers.disk_use import check_disk
from jobs.workers.executor import Executor, in_order


def contrast_view(
    workspace: Workspace, encoder: str, cache: FrozenCache, n_entities: int, executor: Executor, folder: Path
) -> Vectors:
    """Return the view that an encoder makes of all sentences without seeds, and write the sentences.

    The training moves the last layer alone, so that of sentences without seeds the layers below are those of
    the cache.

    Args:
        workspace: on whose disk, if it is local, lies what is in between.
        encoder: folder of the contrastive training's encoder.
        cache: states of all sentences, by the encoder that the training began with.
        n_entities: of the vocabulary.
        executor: where the encoder runs.
        folder: receives the sentences, which conditioned retrieval reads anew.
    """
    dim, manifest = TextEncoder.load(encoder).dim, cache.inputs.manifest
    kept = n_entities * dim * (4 + 2 * KEPT_STATES)
    # Tokens and places twice: as they come, and in order.
    check_disk(workspace.bundles, 8 * manifest.tokens + manifest.mentions * (24 + 4 * dim) + kept)
    scratch = workspace.bundles.staging()
    try:
        states = _states(encoder, cache, executor)
        found = write_sentences(folder, scratch, n_entities, dim, partial(_sentences, cache), states)
    finally:
        shutil.rmtree(scratch)
    return unit(found.means)


def _states(encoder: str, cache: FrozenCache, executor: Executor) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the states of every part's sentences, in the order of the parts."""
    rows = cache.inputs.rows
    with console.meter("contrast view, sentences", sum(rows)) as meter:
        made = executor.map(MaskStatesWorker, (encoder,), cache.parts, gpu=True)
        for part, states_nD in enumerate(in_order(made)):
            yield states_nD
            meter.add(rows[part])


def _sentences(cache: FrozenCache) -> Iterator[SentenceRows]:
    """Yield every part's sentences; contexts without text are left out."""
    for part in cache.inputs.parts:
        own = InputRows.read(part.local_copy(machine_cache()))
        told = own.lengths > BARE_TOKENS
        tokens = own.ids[np.repeat(told, own.lengths)]
        yield SentenceRows(own.entity_id[told], own.lengths[told], own.mask_index[told], tokens)
