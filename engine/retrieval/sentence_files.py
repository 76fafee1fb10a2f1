"""Write the sentences of entities (:class:`EntitySentences`) of a corpus of any size.

The sentences come part by part, and are needed entity by entity. So they are put in files first, each at its
place, and brought into herding order from there, some entities at a time.

**Size.** On disk, beside what is written: 8 B a sentence, 4 B a token, and 4 B for each number of a state. 10
million sentences of 35 tokens and 384 numbers are 17 GB. In memory: 16 B an entity, and :data:`TOGETHER`
sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.retrieval.by_entity import ByEntity
from engine.retrieval.entity_sentences import KEPT_STATES, EntitySentences
from engine.storage.mapped import flush, new_array

TOGETHER = 1 << 13
"""Sentences that are brought into order at a time."""


class SentenceRows(NamedTuple):
    """Sentences of a part.

    Args:
        entities_n: int64 [n].
        lengths_n: tokens of each.
        mask_n: the mask's place in each.
        tokens: of all after one another, int32.
    """

    entities_n: npt.NDArray[np.int64]
    lengths_n: npt.NDArray[np.int64]
    mask_n: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]


Parts = Callable[[], Iterable[SentenceRows]]
"""Reads all parts, in the same order every time."""


def write_sentences(
    folder: Path,
    scratch: Path,
    n_entities: int,
    dim: int,
    parts: Parts,
    states: Iterable[npt.NDArray[np.float32]],
) -> EntitySentences:
    """Write what :meth:`EntitySentences.of` makes of all parts together, and map it.

    Args:
        folder: receives the files.
        scratch: a folder for what is in between, on a disk of the size that is said above.
        n_entities: N.
        dim: D.
        parts: the sentences.
        states: of each part's sentences, [n, D], in the order of the parts.
    """
    counts_N = np.zeros(n_entities, np.int64)
    for part in parts():
        counts_N += np.bincount(part.entities_n, minlength=n_entities)
    arranged = _arranged(scratch, counts_N, dim, parts, states)
    _write_herded(folder, ByEntity(counts_N), arranged, dim)
    return EntitySentences.read(folder)


@dataclass(frozen=True)
class _Arranged:
    """Sentences entity by entity, in files: of each where its tokens begin, the mask's place, the state."""

    offsets_R1: npt.NDArray[np.int64]
    mask_R: npt.NDArray[np.int32]
    tokens_T: npt.NDArray[np.int32]
    states_RD: npt.NDArray[np.float32]


def _arranged(
    scratch: Path,
    counts_N: npt.NDArray[np.int64],
    dim: int,
    parts: Parts,
    states: Iterable[npt.NDArray[np.float32]],
) -> _Arranged:
    by_entity, n_rows = ByEntity(counts_N), int(counts_N.sum())
    offsets_R1 = new_array(scratch / "offsets.npy", np.int64, (n_rows + 1,))
    mask_R = new_array(scratch / "mask.npy", np.int32, (n_rows,))
    for part in parts():
        places = by_entity.places(part.entities_n)
        offsets_R1[places + 1], mask_R[places] = part.lengths_n, part.mask_n
    np.cumsum(offsets_R1, out=offsets_R1)
    tokens_T = new_array(scratch / "tokens.npy", np.int32, (int(offsets_R1[-1]),))
    states_RD = new_array(scratch / "states.npy", np.float32, (n_rows, dim))
    by_entity = ByEntity(counts_N)
    for part, states_nD in zip(parts(), states, strict=True):
        places = by_entity.places(part.entities_n)
        states_RD[places] = states_nD
        moved_n = offsets_R1[places] - (np.cumsum(part.lengths_n) - part.lengths_n)
        tokens_T[np.repeat(moved_n, part.lengths_n) + np.arange(len(part.tokens))] = part.tokens
    return _Arranged(offsets_R1, mask_R, tokens_T, states_RD)


def _write_herded(folder: Path, by_entity: ByEntity, rows: _Arranged, dim: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    starts_N1 = by_entity.starts_N1
    n_entities = len(starts_N1) - 1
    np.save(folder / "starts.npy", starts_N1, allow_pickle=False)
    offsets_R1 = new_array(folder / "offsets.npy", np.int64, rows.offsets_R1.shape)
    tokens_T = new_array(folder / "tokens.npy", np.int32, rows.tokens_T.shape)
    mask_R = new_array(folder / "mask_index.npy", np.int32, rows.mask_R.shape)
    means_ND = new_array(folder / "means.npy", np.float32, (n_entities, dim))
    states_NKD = new_array(folder / "states.npy", np.float16, (n_entities, KEPT_STATES, dim))
    for first, end in by_entity.ranges(TOGETHER):
        begin, last = int(starts_N1[first]), int(starts_N1[end])
        entities_n = np.repeat(np.arange(end - first), np.diff(starts_N1[first : end + 1]))
        places = rows.offsets_R1[begin : last + 1]
        found = EntitySentences.of(
            end - first,
            entities_n,
            [rows.tokens_T[a:b] for a, b in pairwise(places.tolist())],
            rows.mask_R[begin:last].astype(np.int64),
            rows.states_RD[begin:last],
        )
        offsets_R1[begin + 1 : last + 1] = found.offsets[1:] + places[0]
        tokens_T[places[0] : places[-1]] = found.tokens
        mask_R[begin:last] = found.mask_index
        means_ND[first:end], states_NKD[first:end] = found.means, found.states
    flush(offsets_R1, tokens_T, mask_R, means_ND, states_NKD)
