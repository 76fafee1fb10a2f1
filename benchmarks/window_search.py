"""Measure window search over sparse distributions against the same search over dense ones.

The dense search is what the authors' setting invites: all distributions in one matrix [N, N], the class a
row of N, each window's divergences over all N. It fits for a few thousand entities only (5,000: 100 MB in
float32; 50,000: 10 GB), so the two are compared there, and ours is measured at the large size beside it.
Entities belong to classes, whose logits they share up to noise.

    python -m benchmarks.window_search
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from benchmarks.report import medians, report
from engine.query import Ids, Scores
from engine.retrieval.distributions import EPSILON, KEPT, ClassMean, SparseDistributions, truncate
from engine.retrieval.window import WindowSearchState, grow_sets
from jobs import console

BAR_MS = 100.0
"""A query over the large vocabulary may take so long."""

WINDOW, SEEDS = 10, 3
CLASS_SIZE = 100
CLASS_DEVIATION, ENTITY_DEVIATION = 4.0, 2.0
ROWS = 500


def main(
    entities: Annotated[int, typer.Option(help="Vocabulary of the large size.")] = 50_000,
    dense_entities: Annotated[int, typer.Option(help="Vocabulary at which both are measured.")] = 5_000,
    kept: Annotated[int, typer.Option(help="Probabilities kept of an entity.")] = KEPT,
    k: Annotated[int, typer.Option(help="Entities that a search takes.")] = 200,
    rounds: Annotated[int, typer.Option(help="Measurements of each, in turn.")] = 9,
) -> None:
    """Measure one query's window search."""
    large, _ = made(entities, kept, keep_dense=False)
    small, dense_NN = made(dense_entities, kept, keep_dense=True)
    agreement = len(set(sparse_search(small, k)) & set(dense_search(dense_NN, k))) / k
    seconds = medians(
        {
            "large": lambda: sparse_search(large, k),
            "small": lambda: sparse_search(small, k),
            "dense": lambda: dense_search(dense_NN, k),
        },
        rounds,
    )
    milliseconds = {name: 1e3 * value for name, value in seconds.items()}
    ratio = seconds["dense"] / seconds["small"]
    report(
        f"window search, {kept} kept, k={k}, window {WINDOW}, milliseconds a query (median of {rounds})",
        ["entities", "ours", "dense", "dense / ours", "taken by both"],
        [
            [
                str(dense_entities),
                f"{milliseconds['small']:.1f}",
                f"{milliseconds['dense']:.1f}",
                f"{ratio:.1f}",
                f"{agreement:.0%}",
            ],
            [str(entities), f"{milliseconds['large']:.1f}", "does not fit", "", ""],
        ],
        name="window_search",
        ratio=ratio,
        ms_large=milliseconds["large"],
        ms_bar=BAR_MS,
        agreement=agreement,
        holds=milliseconds["large"] <= BAR_MS,
    )


def made(n: int, kept: int, keep_dense: bool) -> tuple[SparseDistributions, Scores]:
    """Return distributions of n entities, ready for search, and the dense ones [n, n] where wanted."""
    random = np.random.default_rng(0)
    parts, dense = [], []
    centre_N = np.zeros(n, np.float32)
    for start in range(0, n, ROWS):
        logits = np.empty((min(ROWS, n - start), n), np.float32)
        for row in range(len(logits)):
            if (start + row) % CLASS_SIZE == 0:
                centre_N = CLASS_DEVIATION * random.standard_normal(n, np.float32)
            logits[row] = centre_N + ENTITY_DEVIATION * random.standard_normal(n, np.float32)
        rows = np.exp(logits - logits.max(axis=1, keepdims=True))
        rows /= rows.sum(axis=1, keepdims=True)
        parts.append(truncate(rows, kept))
        if keep_dense:
            dense.append(rows)
    ids, values, rest = map(np.concatenate, zip(*parts, strict=True))
    found = SparseDistributions(ids, values, rest)
    found.prepare("class")
    return found, np.concatenate(dense) if dense else np.empty((0, 0), np.float32)


def sparse_search(distributions: SparseDistributions, k: int) -> list[int]:
    """Return what a search from the first entities takes."""
    mean = ClassMean(len(distributions))
    for seed in range(SEEDS):
        mean.add(distributions, seed)
    own = WindowSearchState(
        distributions, mean, None, exclude=range(SEEDS), window=WINDOW, decay=1, towards="class"
    )
    grow_sets([own], [k])
    own.to_class()
    return [int(entity) for entity in own.candidates[own.taken]]


def dense_search(dense_NN: Scores, k: int) -> list[int]:
    """Return what the same search takes over whole distributions."""
    n = len(dense_NN)
    total_N, weight = dense_NN[:SEEDS].sum(axis=0, dtype=np.float64), float(SEEDS)

    def divergences(rows: Ids | slice) -> Scores:
        logs_N = np.log((1 - EPSILON) * total_N / weight + EPSILON / n).astype(np.float32)
        chosen = np.float32(1 - EPSILON) * dense_NN[rows] + np.float32(EPSILON / n)
        return np.einsum("bn,bn->b", chosen, np.log(chosen) - logs_N)

    first = divergences(slice(None))
    first[:SEEDS] = np.inf
    order = np.argsort(first, kind="stable")[: n - SEEDS].astype(np.int32)
    window, rest = order[:WINDOW], WINDOW
    taken: list[int] = []
    while len(taken) < k and len(window):
        best = int(np.argmin(divergences(window)))
        taken.append(int(window[best]))
        step = 1 / (1 + len(taken))
        total_N = total_N + step * dense_NN[taken[-1]]
        weight += step
        window = np.append(np.delete(window, best), order[rest : rest + 1])
        rest += 1
    divergences(np.array(taken, np.int32))
    return taken


if __name__ == "__main__":
    console.run(main, "python -m benchmarks.window_search")
