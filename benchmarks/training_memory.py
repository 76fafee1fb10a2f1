"""Measure what one worker of a training of the text encoder takes, at the size of the bar.

Ten million sentences of 200,000 entities take hours to fill a cache with. A training's memory does not know
what the states are: here all parts are one and the same, of zeros, and the phases of a worker are gone
through one after the other. Its steps are the last of an epoch and the first of the next, between which an
order is made while there was one already.

Memory is what the process has for itself (`RssAnon` and `RssShmem`), whole, with its libraries, looked at a
hundred times a second. Pages of the states, which the system drops when it needs them, are left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from benchmarks.peak_memory import own_memory, own_peak
from benchmarks.report import report
from engine.corpus.inputs.format import INPUT_SCHEMA
from engine.corpus.schema import PART_ROWS
from engine.models.text import TextEncoder
from engine.training.cache import CachedStates
from engine.training.input_rows import InputRows
from engine.training.settings import EncoderSettings
from engine.training.text import EncoderTraining
from jobs import console

LIMIT_BYTES = 3 * 2**30
EXAMPLES = """
  python -m benchmarks.training_memory
  python -m benchmarks.training_memory --entities 250000
  python -m benchmarks.training_memory --sentences 100000 --entities 4000
"""
SHORTEST, LONGEST = 10, 58
"""Tokens of a sentence: 34 on average."""
SEED = 11
NUMBER_BYTES = 16
"""Of a number of the head: the weight, its gradient, and Adam's two moments, in float32."""


def write_part(folder: Path, entities: int, dim: int) -> tuple[Path, Path]:
    """Write a part of model input and its states, which are zeros; returns both files."""
    rng = np.random.default_rng(SEED)
    lengths = rng.integers(SHORTEST, LONGEST + 1, PART_ROWS)
    offsets = np.cumsum([0, *lengths]).astype(np.int32)
    rows, states = folder / "rows.parquet", folder / "states.npy"
    columns = [
        pa.array(rng.integers(entities, size=PART_ROWS).astype(np.int32)),
        pa.array(np.arange(PART_ROWS, dtype=np.int32)),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ones(offsets[-1], np.int32))),
        pa.array((lengths // 2).astype(np.int32)),
    ]
    pq.write_table(pa.table(columns, schema=INPUT_SCHEMA), rows)
    np.lib.format.open_memmap(states, "w+", np.uint16, (int(offsets[-1]), dim)).flush()
    return rows, states


class _Worker:
    """A worker of a training, whose phases are gone through one by one."""

    def __init__(self, folder: Path, sentences: int, entities: int) -> None:
        self._folder, self._parts, self._entities = folder, -(-sentences // PART_ROWS), entities
        self._encoder = TextEncoder.load("embedded")
        self.dim = self._encoder.dim
        self._rows, self._states = write_part(folder, entities, self.dim)

    def phases(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield the phases with their names."""
        yield "contexts are opened", self._open_data
        yield "the training is opened", self._open
        yield "steps of two epochs", self._steps
        yield "a checkpoint is written", lambda: self._training.save(self._folder / "checkpoint")
        yield "the encoder is written", lambda: self._training.save_encoder(self._folder / "encoder")
        del self._training
        yield "the training goes on from its checkpoint", lambda: self._open(self._folder / "checkpoint")
        yield "its next steps", self._steps

    def _open_data(self) -> None:
        rows = (InputRows.read(self._rows, with_ids=False) for _ in range(self._parts))
        self._data = CachedStates(rows, [self._states] * self._parts, self._parts * PART_ROWS)

    def _open(self, checkpoint: Path | None = None) -> None:
        settings = EncoderSettings(epochs=2)
        self._training = EncoderTraining(
            self._encoder, self._data, self._entities, settings, checkpoint=checkpoint
        )

    def _steps(self) -> None:
        training = self._training
        training.step = training.steps_per_epoch - 1
        for step in training.run():
            if step.step > training.steps_per_epoch:
                break


def main(
    sentences: int = typer.Option(10_000_000, help="Sentences of the corpus."),
    entities: int = typer.Option(200_000, help="Entities of the vocabulary."),
) -> None:
    """Measure the memory of a worker of a training in each of its phases."""
    table, peaks = [], {}
    with tempfile.TemporaryDirectory() as folder:
        worker = _Worker(Path(folder), sentences, entities)
        before = own_memory()
        table.append(["before", f"{before / 2**20:.0f}", ""])
        for name, work in worker.phases():
            peak, *_ = own_peak(work)
            peaks[name] = round(peak / 2**20)
            table.append([name, f"{peaks[name]}", f"{own_memory() / 2**20:.0f}"])
            del work
    most = max(peaks.values()) * 2**20
    report(
        f"Memory of a worker of a training, {sentences:,} sentences, {entities:,} entities of {worker.dim}",
        ["phase", "peak MiB", "MiB after it"],
        table,
        name="training_memory",
        ratio=LIMIT_BYTES / most,
        floor_ratio=most / (NUMBER_BYTES * entities * worker.dim),
        holds=most < LIMIT_BYTES,
        peak_mib=peaks,
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
