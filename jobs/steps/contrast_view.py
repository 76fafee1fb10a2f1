"""Build the view of the contrastive training, and what conditioned retrieval reads of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.corpus.inputs.masking import load_tokenizer
from engine.models.device import worker_device
from engine.models.text import TextEncoder
from engine.retrieval.entity_sentences import CONTRAST, EntitySentences
from engine.retrieval.index import Vectors, unit
from engine.storage.store import machine_cache
from engine.training.cache import CachedPart, FrozenCache, InputRows, masked_states
from jobs import console
from jobs.workers.executor import Executor


@dataclass(frozen=True)
class ContrastView:
    """The unit means of all entities, [N, D], and their sentences.

    Args:
        vectors: of the view.
        sentences: that conditioned retrieval reads anew.
        encoder: folder of the encoder that was trained, with its tokenizer.
    """

    vectors: Vectors
    sentences: EntitySentences
    encoder: str

    def write(self, staged: Path) -> None:
        """Write the encoder, the tokenizer and the sentences into a bundle's staged folder."""
        folder = staged / CONTRAST
        TextEncoder.load(self.encoder).save(folder / "encoder")
        load_tokenizer(self.encoder).save_pretrained(folder / "encoder")
        self.sentences.write(folder / "sentences")


def contrast_view(encoder: str, cache: FrozenCache, n_entities: int, executor: Executor) -> ContrastView:
    """Return the view that an encoder makes of all sentences without seeds.

    The training moves the last layer alone, so that of sentences without seeds the layers below are those of
    the cache.

    Args:
        encoder: folder of the contrastive training's encoder.
        cache: states of all sentences, by the encoder that the training began with.
        n_entities: of the vocabulary.
        executor: where the encoder runs.
    """
    inputs = cache.inputs
    found: dict[int, PartStates] = {}
    with console.meter("contrast view, sentences", sum(inputs.rows)) as meter:
        for place, one in executor.map(ContrastStatesWorker, (encoder,), cache.parts, gpu=True):
            found[place] = one
            meter.add(inputs.rows[place])
    ordered = [found[place] for place in sorted(found)]
    read = [InputRows.read(part.local_copy(machine_cache())) for part in inputs.parts]
    taken = [(own, row) for own, states in zip(read, ordered, strict=True) for row in states.rows.tolist()]
    dim = TextEncoder.load(encoder).dim
    sentences = EntitySentences.of(
        n_entities,
        np.array([own.entity_id[row] for own, row in taken], np.int64),
        [own.ids[own.offsets[row] : own.offsets[row + 1]] for own, row in taken],
        np.array([own.mask_index[row] for own, row in taken], np.int64),
        np.concatenate([np.zeros((0, dim), np.float32), *(states.states_nD for states in ordered)]),
    )
    return ContrastView(unit(sentences.means), sentences, encoder)


class PartStates(NamedTuple):
    """Rows of a part that have text, ascending, and their states at the mask, float32 [n, D]."""

    rows: npt.NDArray[np.int64]
    states_nD: npt.NDArray[np.float32]


class ContrastStatesWorker:
    """A worker that computes the states at the masks of one part.

    Args:
        encoder: whose last layer makes them; the frozen ones are those of the cache.
    """

    def __init__(self, encoder: str) -> None:
        self._encoder = TextEncoder.load(encoder).to(worker_device())

    def __call__(self, part: CachedPart) -> PartStates:
        """Return the states of a part's sentences; contexts without text are left out."""
        data = part.open()
        states_nD = np.zeros((len(data), self._encoder.dim), np.float32)
        for rows, found_nD in masked_states(self._encoder, data):
            states_nD[rows] = found_nD
        return PartStates(data.with_text, states_nD[data.with_text])
