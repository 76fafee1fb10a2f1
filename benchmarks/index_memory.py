"""Measure what parts of `build-index` and of a training take in one process, at the size of the bar.

Ten million sentences of 200,000 entities take hours from import to bundle. Here what one process does with
all of them is done on random numbers of that size, in the worst case that the form of a corpus allows: every
part of the sentences has another choice of entities. Memory is what the process has for itself (`RssAnon` and
`RssShmem`), looked at a hundred times a second; of files that it maps, whose pages the system drops when it
needs them, the most that was resident is told beside it.

Not here: the neighbours of hubs, whose memory ends at 65,536 entities, and what runs part by part.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.peak_memory import own_memory, own_peak
from benchmarks.report import report
from engine.corpus.schema import PART_ROWS
from engine.corpus.terms import repeated
from engine.retrieval.latent_semantics import latent_vectors
from engine.retrieval.lexical import ENDS, TermWeights, ends_by_range, pairs_between
from engine.retrieval.views import EntitySums, mean_view
from engine.training.order import epoch_batches
from jobs import console

LIMIT_BYTES = 3 * 2**30
EXAMPLES = """
  python -m benchmarks.index_memory
  python -m benchmarks.index_memory --no-reduction
  python -m benchmarks.index_memory --sentences 100000 --entities 4000
"""
BATCH = 256
SUMS = 60
"""Parts whose sums of states are added up: each touches entities everywhere."""
BLOCKS, WEIGHTS = 2, 4_000_000
"""Blocks of the lexical view's matrix, of at most so many weights each; more blocks take time alone."""
WEIGHTS_A_TERM = 4
SEED = 11
REDUCTION = "lexical view, reduction"


Work = tuple[str, Callable[[], object]]
"""A part of a command by its name."""


def _mapped(path: Path, dtype: npt.DTypeLike, n_parts: int, fill: Callable[[Any], None]) -> list[Any]:
    """Write parts, one after the other, and return them mapped."""
    written = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), (n_parts, PART_ROWS))
    for part in written:
        fill(part)
    written.flush()
    return list(np.asarray(np.load(path, mmap_mode="r")))


def works(folder: Path, sentences: int, entities: int, dim: int, reduction: bool) -> Iterator[Work]:
    """Yield what is measured, with its name."""
    rng = np.random.default_rng(SEED)
    n_parts = -(-sentences // PART_ROWS)
    rows = min(PART_ROWS, entities)

    def hashes(part: Any) -> None:
        part[:] = np.sort(rng.integers(1 << 64, size=PART_ROWS, dtype=np.uint64))

    def ends(part: Any) -> None:
        part["entity"] = np.sort(rng.choice(entities, PART_ROWS, replace=entities < PART_ROWS))
        part["words"] = 9
        for name in ("first", "last"):
            part[name] = rng.integers(1 << 62, size=PART_ROWS)

    def sums() -> Iterator[EntitySums]:
        for _ in range(SUMS):
            yield EntitySums(np.sort(rng.choice(entities, rows, replace=False)), np.ones((rows, dim)))

    def blocks() -> Iterator[TermWeights]:
        size = min(WEIGHTS, 20 * sentences)
        starts = np.arange(0, size + 1, WEIGHTS_A_TERM)
        for seed in range(BLOCKS):
            own = np.random.default_rng(seed)
            weights = own.random(size, np.float32)
            yield TermWeights(starts, own.integers(entities, size=size).astype(np.int32), weights)

    parts = _mapped(folder / "hashes.npy", np.uint64, n_parts, hashes)
    yield "lexical view, sentences of several parts", lambda: repeated(parts)
    parts = _mapped(folder / "ends.npy", ENDS, n_parts, ends)
    between = lambda: [len(pairs_between(some)) for some in ends_by_range(parts, entities)]  # noqa: E731
    yield "lexical view, pairs of words of two parts", between
    yield f"mask view, means of {dim}", lambda: mean_view(sums(), entities)
    lengths = rng.integers(10, 120, size=sentences).astype(np.uint8)
    yield "training, an epoch's order", lambda: epoch_batches(lengths, BATCH, SEED, 0)
    if reduction:
        yield REDUCTION, lambda: latent_vectors(blocks, entities)


def main(
    sentences: int = typer.Option(10_000_000, help="Sentences of the corpus."),
    entities: int = typer.Option(200_000, help="Entities of the vocabulary."),
    dim: int = typer.Option(384, help="Dimensions of the encoder's states."),
    reduction: bool = typer.Option(True, help="Reduce a lexical view, too: minutes of a core."),
) -> None:
    """Measure what parts of building an index take in one process, at the size of the bar."""
    table, peaks = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name, work in works(Path(folder), sentences, entities, dim, reduction):
            before = own_memory()
            most, mapped, seconds = own_peak(work)
            peaks[name] = round((most - before) / 2**20)
            table.append([name, f"{peaks[name]}", f"{mapped / 2**20:.0f}", f"{seconds:.0f}"])
    most = max(peaks.values()) * 2**20
    report(
        f"Memory of parts of an index of {sentences:,} sentences, {entities:,} entities",
        ["part", "own MiB more", "mapped MiB", "seconds"],
        table,
        name="index_memory",
        ratio=LIMIT_BYTES / max(most, 1),
        floor_ratio=most / (entities * dim * 4),
        holds=most < LIMIT_BYTES,
        peak_mib=peaks,
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
