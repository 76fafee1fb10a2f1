"""Measure exact retrieval against the least that the machine needs, and against FAISS.

The floor of one query is reading the matrix once (its sum, with all threads); that of a batch is the
bare matrix product, by NumPy, the faster of the two libraries here. Both are measured in the same
run, in turn with ours. Ours includes the exact re-scoring, the order by score and id, and the
exclusion of seeds, none of which the floors or FAISS do.

    python -m benchmarks.retrieval
"""

from __future__ import annotations

from typing import Annotated

import faiss
import numpy as np
import torch
import typer

from benchmarks.report import medians, report
from engine.retrieval.index import VectorIndex, mean_of, unit
from jobs import console

BAR = 1.5
"""Ours may take so many times the floor."""

SEEDS = 8


def main(
    entities: Annotated[int, typer.Option(help="Rows of the matrix.")] = 51_000,
    dimensions: Annotated[int, typer.Option(help="Columns of the matrix.")] = 768,
    batch: Annotated[int, typer.Option(help="Queries of a batch.")] = 64,
    k: Annotated[int, typer.Option(help="Entities wanted.")] = 200,
    rounds: Annotated[int, typer.Option(help="Measurements of each, in turn.")] = 25,
) -> None:
    """Measure VectorIndex.search on random unit vectors."""
    random = np.random.default_rng(0)
    vectors_ND = unit(random.standard_normal((entities, dimensions), np.float32))
    index, rival = VectorIndex(vectors_ND), faiss.IndexFlatIP(dimensions)
    rival.add(vectors_ND)
    seeds = [random.choice(entities, SEEDS, replace=False).astype(np.int32).tolist() for _ in range(batch)]
    means_QD = np.stack([mean_of(index.vectors_of(s[: SEEDS // 2])) for s in seeds])
    queries_QD = means_QD.astype(np.float32)
    matrix_ND = torch.from_numpy(vectors_ND)
    seconds = medians(
        {
            "one": lambda: index.search(means_QD[:1], k, seeds[:1]),
            "one floor": matrix_ND.sum,
            "one FAISS": lambda: rival.search(queries_QD[:1], k + SEEDS),
        },
        rounds,
    )
    seconds |= medians(
        {
            "batch": lambda: index.search(means_QD, k, seeds),
            "batch floor": lambda: queries_QD @ vectors_ND.T,
            "batch FAISS": lambda: rival.search(queries_QD, k + SEEDS),
        },
        rounds,
    )
    floor = {size: seconds[size] / seconds[f"{size} floor"] for size in ("one", "batch")}
    ratio = {size: seconds[f"{size} FAISS"] / seconds[size] for size in ("one", "batch")}
    rows = [
        [
            label,
            *(f"{1e3 * seconds[name]:.2f}" for name in (size, f"{size} floor", f"{size} FAISS")),
            f"{floor[size]:.2f}",
            f"{ratio[size]:.2f}",
        ]
        for size, label in (("one", "one query"), ("batch", f"{batch} queries"))
    ]
    report(
        f"exact search, {entities} x {dimensions} float32, k={k}, "
        f"{torch.get_num_threads()} threads, milliseconds (median of {rounds})",
        ["", "ours", "floor", "FAISS flat", "ours / floor", "FAISS / ours"],
        rows,
        name="retrieval",
        ratio=min(ratio.values()),
        ratio_one=ratio["one"],
        ratio_batch=ratio["batch"],
        floor_ratio=max(floor.values()),
        floor_ratio_one=floor["one"],
        floor_ratio_batch=floor["batch"],
        floor_bar=BAR,
        holds=max(floor.values()) <= BAR,
    )


if __name__ == "__main__":
    console.run(main, "python -m benchmarks.retrieval")
