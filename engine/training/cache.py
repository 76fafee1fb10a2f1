"""Cache the frozen layers: states below the last layer, computed once per sentence.

One ``part-NNNNN.npy`` per inputs part, [T, D], all sentences' tokens after one another without
padding, memory-mapped on reading: training touches only the rows of its batch, and the operating
system keeps what fits. bfloat16 is stored as its 16-bit patterns (npy knows no bfloat16).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from engine.corpus.inputs.format import Inputs
from engine.errors import FormatError
from engine.models.mask_states import length_batches
from engine.models.text import TextEncoder, fast_dtype
from engine.storage.manifests import VersionedManifest
from engine.storage.mapped import flush, new_array, scratch_array
from engine.storage.npy_rows import NpyRows, Span, mapped_rows, read_spans
from engine.storage.store import Store, machine_cache
from engine.training.input_rows import InputRows, RowColumns, has_text
from engine.training.order import Rows

Tensor = torch.Tensor

ROWS_MULTIPLE = 16
"""Rows of a batch of the frozen layers are a multiple: for each shape of a batch that a process meets, oneDNN
keeps about a megabyte, and of sentences of 10 to 55 tokens there would be 320 shapes in place of 60."""
STATES_BATCH = 256
"""Sentences a step when mask representations are computed."""


def fill_part(
    encoder: TextEncoder,
    rows: InputRows,
    target: Path,
    dtype: torch.dtype,
    device: torch.device,
    known: Mapping[bytes, npt.NDArray[Any]] = MappingProxyType({}),
) -> None:
    """Run the frozen layers over one inputs part and write its states to ``target``.

    States depend on the tokens alone, so that those of a sentence that another part holds are copied.

    The file is written through a memory map: memory does not grow with the part.

    Args:
        encoder: on ``device``.
        rows: the part, with ids.
        target: the npy file.
        dtype: bfloat16 or float32, of the stored states.
        device: where the layers run; in bfloat16 if that is both stored and fast there.
        known: from :func:`known_states`, of the same frozen layers and type.
    """
    stored = np.uint16 if dtype == torch.bfloat16 else np.float32
    states = new_array(target, stored, (int(rows.offsets[-1]), encoder.dim))
    if not len(states):
        return
    new = _copy_known(rows, states, known)
    compute = dtype if fast_dtype(device) == dtype else torch.float32
    with torch.inference_mode(), torch.autocast(device.type, compute, enabled=compute != torch.float32):
        for places in length_batches(rows.lengths[new], multiple=ROWS_MULTIPLE):
            batch = new[places]
            ids_BL, lengths_B = rows.padded_ids(batch)
            found_BLD = encoder.lower_states(ids_BL.to(device), lengths_B.to(device)).to(dtype).cpu()
            for i, row in enumerate(batch):
                one = found_BLD[i, : lengths_B[i]]
                bits = one.view(torch.uint16) if dtype == torch.bfloat16 else one
                states[rows.offsets[row] : rows.offsets[row + 1]] = bits.numpy()
    flush(states)


def known_states(parts: Iterable[CachedPart]) -> dict[bytes, npt.NDArray[Any]]:
    """Return the stored states, [L, D], of every sentence of some parts by its token ids.

    The states stay on disk until they are read.
    """
    found = {}
    for part in parts:
        rows = InputRows.read(part.inputs.local_copy(machine_cache()))
        states = mapped_rows(part.states.local_copy(machine_cache()))
        for row in range(len(rows)):
            found[rows.tokens_of(row)] = states[rows.offsets[row] : rows.offsets[row + 1]]
    return found


def _copy_known(
    rows: InputRows, states: npt.NDArray[Any], known: Mapping[bytes, npt.NDArray[Any]]
) -> npt.NDArray[np.int64]:
    """Write the states that are known already; return the rows whose states are not."""
    new = []
    for row in range(len(rows)):
        found = known.get(rows.tokens_of(row))
        if found is None:
            new.append(row)
        else:
            states[rows.offsets[row] : rows.offsets[row + 1]] = found
    return np.array(new, np.int64)


class CachedStates:
    """All rows of a training set with their frozen states, gathered batch by batch.

    In memory are 10 bytes a row, 100 MB of 10 million (12 where a sentence has more than 255 tokens); states
    are mapped: what of them stays in memory is the system's to decide.

    Args:
        rows: the inputs parts (token ids are not needed), which are read one at a time.
        states: the cache file of each part, or what reads rows of one that is not on this machine.
        n_rows: of all parts together; None: the parts are in memory, and counted.
    """

    def __init__(
        self, rows: Iterable[InputRows], states: Sequence[Path | NpyRows], n_rows: int | None = None
    ) -> None:
        self._states = [mapped_rows(one) if isinstance(one, Path) else one for one in states]
        # Tells dimensions and type: of what is here if there is any, as the others have to be asked.
        here = (one for one in self._states if not isinstance(one, NpyRows))
        self._like = next(here, self._states[0] if self._states else np.empty((0, 0), np.float32))
        columns = RowColumns.of(rows, n_rows)
        self._first, self._starts, self.lengths, self.mask_index, self.entity_id = columns

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def with_text(self) -> npt.NDArray[np.int64]:
        """The rows with text: an image-only context says nothing of its entity to a text encoder."""
        return has_text(self.lengths)

    def owners_of(self, batch: Rows, world: int, together: int = 1) -> Rows:
        """Return the worker that takes each row of a global batch.

        Args:
            batch: the rows.
            world: number of workers.
            together: rows after one another that one worker takes, where it does not matter which.
        """
        return np.arange(len(batch)) // together % world

    def rows_of_worker(self, rank: int) -> Rows:
        """Return the rows that a worker may take of some batch, ascending: here any."""
        return np.arange(len(self))

    def gather(
        self, rows: npt.NDArray[np.int64], dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return states [B, L, D] (zeros beyond a sentence), lengths, mask places and entities [B].

        What is not on this machine is read from where it is, all of a batch at once.
        """
        lengths, parts = self.lengths[rows].astype(np.int64), self.parts_of(rows)
        stored = self._like
        padded = np.empty((len(rows), int(lengths.max(initial=0)), stored.shape[1]), stored.dtype)
        places = zip(parts.tolist(), self._starts[rows].tolist(), lengths.tolist(), strict=True)
        spans = [(self._states[part], start, start + length) for part, start, length in places]
        read = iter(read_spans([Span(*span) for span in spans if isinstance(span[0], NpyRows)]))
        # In numpy, as the bits are stored: a tensor's slice costs more than the copy of a sentence.
        for one, (source, start, stop) in zip(padded, spans, strict=True):
            length = stop - start
            one[:length] = next(read) if isinstance(source, NpyRows) else source[start:stop]
            one[length:] = 0
        return (
            _as_tensor(padded).to(dtype),
            torch.from_numpy(lengths),
            torch.from_numpy(self.mask_index[rows].astype(np.int64)),
            self.entities_of(rows),
        )

    def entities_of(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return the entities of some rows, int64 [B]."""
        return torch.from_numpy(self.entity_id[rows].astype(np.int64))

    def parts_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the number of the part that each of some rows is in."""
        return np.searchsorted(self._first, rows, side="right") - 1

    def tokens_at(self, row: int) -> slice:
        """Return where a row's tokens are in its part."""
        start = int(self._starts[row])
        return slice(start, start + int(self.lengths[row]))


def _as_tensor(states: npt.NDArray[Any]) -> Tensor:
    """Return stored states as a tensor of the same memory: 16-bit patterns are bfloat16."""
    tensor = torch.from_numpy(states)
    return tensor.view(torch.bfloat16) if states.dtype == np.uint16 else tensor


class CacheManifest(VersionedManifest):
    """The manifest ``cache/<key>/manifest.json``: what made the states. Parts are whole without it."""

    anew = "delete the folder; `seedset train-encoder` and `seedset build-index` make what is missing"

    format_version: str = "1.0"
    model: str
    """The encoder that the last states were made with, as it was named."""


class CachedPart(NamedTuple):
    """A part of a filled cache: an inputs part, and the frozen states of its sentences."""

    inputs: Store
    states: Store

    def open(self) -> CachedStates:
        """Map the part on this machine (from a bucket: copied here first)."""
        rows = InputRows.read(self.inputs.local_copy(machine_cache()), with_ids=False)
        return CachedStates([rows], [self.states.local_copy(machine_cache())])


@dataclass(frozen=True)
class FrozenCache:
    """A filled cache: one file of states per inputs part."""

    inputs: Inputs
    states: list[Store]

    @property
    def parts(self) -> list[CachedPart]:
        """The parts, in order: a worker's tasks."""
        return [CachedPart(*pair) for pair in zip(self.inputs.parts, self.states, strict=True)]

    def open(self) -> CachedStates:
        """Map the cache on this machine (from a bucket: copied here first)."""
        return self._with(s.local_copy(machine_cache()) for s in self.states)

    def open_rows(self) -> CachedStates:
        """Open the cache; from a bucket the rows that are asked for are read, each time, and nothing else."""
        return self._with(Path(one.path) if one.is_local else NpyRows(one) for one in self.states)

    def _with(self, states: Iterable[Path | NpyRows]) -> CachedStates:
        return CachedStates(self.rows_of_parts(), list(states), sum(self.inputs.rows))

    def rows_of_parts(self) -> Iterator[InputRows]:
        """Read the inputs parts, one at a time, without token ids (from a bucket: copied here first).

        Raises:
            FormatError: a part has not the rows that the manifest says.
        """
        for part, n in zip(self.inputs.parts, self.inputs.rows, strict=True):
            rows = InputRows.read(part.local_copy(machine_cache()), with_ids=False)
            if len(rows) != n:
                raise FormatError(
                    f"{part.uri}: has {len(rows)} rows where the manifest says {n}; delete the file and run "
                    "`seedset preprocess` again"
                )
            yield rows


def mapped_tokens(inputs: Inputs) -> list[npt.NDArray[np.int32]]:
    """Return the token ids of every part, of many mapped: 4 bytes a token on disk."""
    whole = scratch_array(machine_cache(), np.int32, (inputs.manifest.tokens,))
    found, begin = [], 0
    for part in inputs.parts:
        ids = InputRows.read(part.local_copy(machine_cache())).ids
        whole[begin : begin + len(ids)] = ids
        found.append(whole[begin : begin + len(ids)])
        begin += len(ids)
    return found


def masked_states(
    encoder: TextEncoder, data: CachedStates
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Yield rows, [n], and their mask representations, [n, D], of all sentences with text, by length.

    Only the last layer runs, at one position, on cached states.
    """
    device = next(encoder.last.parameters()).device
    with_text = data.with_text
    order = with_text[np.argsort(data.lengths[with_text], kind="stable")]
    for start in range(0, len(order), STATES_BATCH):
        rows = order[start : start + STATES_BATCH]
        states, lengths, mask, _ = (t.to(device) for t in data.gather(rows))
        with torch.inference_mode():
            at_mask = encoder.last(states, lengths, mask)
        yield rows, at_mask.float().cpu().numpy()


def masked_sums(
    encoder: TextEncoder, data: CachedStates
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the entities of some sentences and the sums of their mask representations, [n] and [n, D].

    Contexts without text are left out. Sums are float64, in row order within an entity's length-sorted
    batches, so that they are the same on every machine layout.
    """
    ids = np.unique(data.entity_id[data.with_text])
    sums = np.zeros((len(ids), encoder.dim))
    for rows, states_nD in masked_states(encoder, data):
        np.add.at(sums, np.searchsorted(ids, data.entity_id[rows]), states_nD.astype(np.float64))
    return ids, sums
