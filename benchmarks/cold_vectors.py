"""Measure how fast mapped vectors are read that are not in memory: all of them, and single rows.

A file is written, and before each measurement the system is asked to forget it. All rows are looked
through (which of them have a vector), as where a view is opened; single rows are looked up, sorted, as by a
search by codes. FAISS' own map of the file is read beside ours, in turn. The least is to read the file.

    python -m benchmarks.cold_vectors
    python -m benchmarks.cold_vectors --rows 1000000 --folder DIR
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import typer

from benchmarks.report import medians, report
from engine.retrieval.index import Vectors, have_vectors, read_vectors, write_vectors
from engine.storage.reading_order import read_singly
from jobs import console

PASS_BAR = 2.0
"""A pass takes at most so many times what reading the file does."""

LOOKED_UP = 400
BLOCK = 1 << 14


def main(
    rows: Annotated[int, typer.Option(help="Vectors; 3 KiB each at 768 dimensions.")] = 300_000,
    dimensions: Annotated[int, typer.Option(help="Of a vector.")] = 768,
    rounds: Annotated[int, typer.Option(help="Measurements of each, in turn.")] = 5,
    folder: Annotated[
        Path | None, typer.Option(help="On the disk that is measured. Default: temporary.")
    ] = None,
) -> None:
    """Read mapped vectors that are not in memory: in order, and singly."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path = Path(own) / "view.faiss"
        block = np.ones((BLOCK, dimensions), np.float32)
        sizes = [min(BLOCK, rows - start) for start in range(0, rows, BLOCK)]
        write_vectors(path, (block[:size] for size in sizes), (rows, dimensions))
        with path.open("rb") as file:
            os.fsync(file.fileno())  # what is not on the disk yet is not forgotten
        _measure(path, rows, dimensions, rounds)


def _measure(path: Path, rows: int, dimensions: int, rounds: int) -> None:
    chosen = np.sort(np.random.default_rng(0).choice(rows, min(LOOKED_UP, rows), replace=False))

    def singly() -> Vectors:
        vectors = read_vectors(path, mapped=True)
        read_singly(vectors)
        return vectors[chosen]

    seconds = medians(
        {
            "pass": _cold(path, lambda: have_vectors(read_vectors(path, mapped=True))),
            "pass by FAISS": _cold(path, lambda: _faiss_pass(path, (rows, dimensions))),
            "file": _cold(path, lambda: _read(path)),
            "singly": _cold(path, singly),
            "read ahead": _cold(path, lambda: read_vectors(path, mapped=True)[chosen]),
        },
        rounds,
        warm_up=0,
    )
    size = path.stat().st_size / 1e9
    floor, ratio = seconds["pass"] / seconds["file"], seconds["pass by FAISS"] / seconds["pass"]
    holds = floor <= PASS_BAR and ratio >= 1 and seconds["singly"] <= seconds["read ahead"]
    report(
        f"{rows} x {dimensions}, {size:.2f} GB that are not in memory, medians of {rounds}",
        ["", "ms", "GB/s", "bar"],
        [
            ["all rows", f"{1e3 * seconds['pass']:.0f}", f"{size / seconds['pass']:.2f}", ""],
            ["the same as FAISS maps them", f"{1e3 * seconds['pass by FAISS']:.0f}",
             f"{size / seconds['pass by FAISS']:.2f}", "slower"],
            ["the file read, nothing else", f"{1e3 * seconds['file']:.0f}",
             f"{size / seconds['file']:.2f}", f"a pass: {PASS_BAR} times"],
            [f"{len(chosen)} rows, singly", f"{1e3 * seconds['singly']:.0f}", "", ""],
            ["the same where the system reads ahead", f"{1e3 * seconds['read ahead']:.0f}", "", "slower"],
        ],
        name="cold_vectors",
        vectors=rows,
        dimensions=dimensions,
        seconds={name: round(value, 4) for name, value in seconds.items()},
        ratio=ratio,
        floor_ratio=floor,
        floor_bar=PASS_BAR,
        holds=holds,
    )  # fmt: skip


def _cold(path: Path, work: Callable[[], object]) -> Callable[[], None]:
    """Return what does the work after nothing of the file is in memory any more; both are timed.

    To forget is a matter of milliseconds; what is still mapped by a former measurement would stay.
    """

    def run() -> None:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        work()

    return run


def _faiss_pass(path: Path, shape: tuple[int, int]) -> None:
    index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)  # which the map ends with
    faiss.rev_swig_ptr(index.get_xb(), shape[0] * shape[1]).reshape(shape).any(axis=1)


def _read(path: Path) -> None:
    buffer = bytearray(1 << 22)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


if __name__ == "__main__":
    console.run(main, "python -m benchmarks.cold_vectors")
