"""Read the rows of model input: of one part with its tokens, or what a training asks of all parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch

from engine.models.text import BARE_TOKENS

Tensor = torch.Tensor


@dataclass(frozen=True)
class InputRows:
    """One inputs part in memory: token ids flat, and a row per sentence.

    Attributes:
        ids: all token ids after one another, int32 [T].
        offsets: where each sentence begins and the last one ends, int64 [n + 1].
        mask_index: position of the mask token in its sentence, int64 [n].
        entity_id: int64 [n].
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    mask_index: npt.NDArray[np.int64]
    entity_id: npt.NDArray[np.int64]

    @classmethod
    def read(cls, path: Path | str, with_ids: bool = True) -> InputRows:
        """Read an inputs part; ``with_ids=False`` leaves the tokens themselves out."""
        table = pq.read_table(path, columns=["entity_id", "input_ids", "mask_index"]).combine_chunks()
        tokens = table["input_ids"].combine_chunks()
        offsets = tokens.offsets.to_numpy().astype(np.int64)
        ids = tokens.values.to_numpy() if with_ids else np.empty(0, np.int32)
        return cls(
            ids[offsets[0] :] if with_ids else ids,
            offsets - offsets[0],
            table["mask_index"].to_numpy().astype(np.int64),
            table["entity_id"].to_numpy().astype(np.int64),
        )

    def __len__(self) -> int:
        return len(self.mask_index)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each sentence."""
        return np.diff(self.offsets)

    def tokens_of(self, row: int) -> bytes:
        """Return the token ids of a sentence as bytes, by which it is told from any other."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def padded_ids(self, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return the token ids [B, L] (0 beyond a sentence) and lengths [B] of some rows."""
        lengths = self.lengths[rows]
        padded = np.zeros((len(rows), lengths.max()), np.int64)
        for i, row in enumerate(rows):
            padded[i, : lengths[i]] = self.ids[self.offsets[row] : self.offsets[row + 1]]
        return torch.from_numpy(padded), torch.from_numpy(lengths)


def has_text(lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return the rows with text, of the tokens of each: without any there is the bare mask."""
    return np.flatnonzero(lengths > BARE_TOKENS)


class RowColumns(NamedTuple):
    """The rows of all parts, one part after the other.

    Filled part by part: joined, all parts would be in memory twice, and what many small arrays leave behind
    does not go back to the system.
    """

    first: npt.NDArray[np.int64]
    """The row that each part begins with, and the number of rows at the end."""
    starts: npt.NDArray[np.int32]
    """Token of its part that a row begins with: a part has less than 2^31."""
    lengths: npt.NDArray[np.unsignedinteger]
    mask_index: npt.NDArray[np.unsignedinteger]
    entity_id: npt.NDArray[Any]
    """int32."""

    @classmethod
    def of(cls, parts: Iterable[InputRows], n_rows: int | None) -> RowColumns:
        """Read parts one at a time, of so many rows together."""
        if n_rows is None:
            parts = list(parts)
            n_rows = sum(map(len, parts))
        starts, entity_id = np.empty(n_rows, np.int32), np.empty(n_rows, np.int32)
        lengths, mask_index = np.empty(n_rows, np.uint8), np.empty(n_rows, np.uint8)
        first = [0]
        for one in parts:
            at = slice(first[-1], first[-1] + len(one))
            first.append(at.stop)
            starts[at], entity_id[at] = one.offsets[:-1], one.entity_id
            lengths = _put(lengths, at, one.lengths)
            mask_index = _put(mask_index, at, one.mask_index)
        if first[-1] != n_rows:
            raise ValueError(f"the parts have {first[-1]} rows, not {n_rows}")
        return cls(np.array(first), starts, lengths, mask_index, entity_id)


def _put(
    column: npt.NDArray[np.unsignedinteger], at: slice, values: npt.NDArray[np.integer]
) -> npt.NDArray[np.unsignedinteger]:
    """Put values into a column, or into one of a wider type where they need it; returns that column."""
    needed = np.min_scalar_type(int(values.max(initial=0)))
    column = column.astype(np.promote_types(column.dtype, needed), copy=False)
    column[at] = values
    return column
