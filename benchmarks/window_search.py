"""Measure window search over sparse distributions against the authors' search over dense ones.

The dense search does what the authors' program does at every step: it sums the members' rows of N anew,
sorts all N sums, and takes each divergence over all N. (Theirs also standardises every row again.) All
distributions and log-distributions are two matrices [N, N]: that fits for a few thousand entities only
(5,000: 200 MB in float32; 50,000: 20 GB), so the two are compared there, and ours is measured at the large
size beside it.
Entities belong to classes: an entity predicts those of its class more than others, and noise.

    python -m benchmarks.window_search
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from benchmarks.report import medians, report
from engine.query import Scores
from engine.retrieval.distributions import KEPT, EntityDistributions, standardised
from engine.retrieval.window import RANK_WEIGHTS, SEARCH_WEIGHTS, Schedule, WindowSearchState, expand_sets
from jobs import console

BAR_MS = 100.0
"""A query over the large vocabulary may take so long."""

SEEDS, MU = 3, 9
CLASS_SIZE = 100
CLASS_LIFT, CLASS_DEVIATION, ENTITY_DEVIATION = 4.0, 1.0, 2.0
ROWS = 500


def main(
    entities: Annotated[int, typer.Option(help="Vocabulary of the large size.")] = 50_000,
    dense_entities: Annotated[int, typer.Option(help="Vocabulary at which both are measured.")] = 5_000,
    kept: Annotated[int, typer.Option(help="Probabilities kept of an entity.")] = KEPT,
    k: Annotated[int, typer.Option(help="Entities that a search takes.")] = 200,
    rounds: Annotated[int, typer.Option(help="Measurements of each, in turn.")] = 9,
) -> None:
    """Measure one query's window search."""
    large, _, _ = made(entities, kept, keep_dense=False)
    small, dense_NN, logs_NN = made(dense_entities, kept, keep_dense=True)
    ours, plain = sparse_search(small, k), dense_search(dense_NN, logs_NN, k)
    agreement = len(set(ours) & set(plain)) / k
    first = next((i for i, pair in enumerate(zip(ours, plain, strict=True)) if pair[0] != pair[1]), k)
    seconds = medians(
        {
            "large": lambda: sparse_search(large, k),
            "small": lambda: sparse_search(small, k),
            "dense": lambda: dense_search(dense_NN, logs_NN, k),
        },
        rounds,
    )
    milliseconds = {name: 1e3 * value for name, value in seconds.items()}
    ratio = seconds["dense"] / seconds["small"]
    report(
        f"window search, {kept} kept, k={k}, milliseconds a query (median of {rounds})",
        ["entities", "ours", "dense", "dense / ours", "found by both", "first that differ"],
        [
            [
                str(dense_entities),
                f"{milliseconds['small']:.1f}",
                f"{milliseconds['dense']:.1f}",
                f"{ratio:.1f}",
                f"{agreement:.0%}",
                f"{first + 1}" if first < k else "none",
            ],
            [str(entities), f"{milliseconds['large']:.1f}", "does not fit", "", "", ""],
        ],
        name="window_search",
        ratio=ratio,
        ms_large=milliseconds["large"],
        ms_bar=BAR_MS,
        agreement=agreement,
        holds=milliseconds["large"] <= BAR_MS,
    )


def made(n: int, kept: int, keep_dense: bool) -> tuple[EntityDistributions, Scores, Scores]:
    """Return what is kept of n entities, and, where wanted, the dense rows [n, n] that it was made of."""
    random = np.random.default_rng(0)
    parts, dense, logs = [], [], []
    centre_N = np.zeros(n, np.float32)
    # Each entity's noise is a stretch of these: drawing all n * n anew would take minutes.
    noise = ENTITY_DEVIATION * random.standard_normal(4 * n, np.float32)
    for start in range(0, n, ROWS):
        logits = np.empty((min(ROWS, n - start), n), np.float32)
        for row in range(len(logits)):
            if (start + row) % CLASS_SIZE == 0:
                centre_N = CLASS_DEVIATION * random.standard_normal(n, np.float32)
                centre_N[start + row : start + row + CLASS_SIZE] += CLASS_LIFT
            first = int(random.integers(3 * n))
            logits[row] = centre_N + noise[first : first + n]
        rows = np.exp(logits - logits.max(axis=1, keepdims=True))
        rows /= rows.sum(axis=1, keepdims=True)
        parts.append(EntityDistributions.of(rows, logits, kept))
        if keep_dense:
            dense.append(rows)
            logs.append(standardised(logits).astype(np.float32))
    nothing = np.empty((0, 0), np.float32)
    found = EntityDistributions.concatenate(parts)
    return found, np.concatenate(dense or [nothing]), np.concatenate(logs or [nothing])


def sparse_search(distributions: EntityDistributions, k: int) -> list[int]:
    """Return what a search from the first entities finds, best first."""
    own = WindowSearchState(distributions, distributions, range(SEEDS))
    (found,) = expand_sets([own], [k], MU)
    return [int(entity) for entity in found.ids]


def dense_search(dense_NN: Scores, logs_NN: Scores, k: int) -> list[int]:
    """Return what the same search finds over whole distributions."""
    members, schedule = list(range(SEEDS)), Schedule()
    free_N = np.ones(len(dense_NN), bool)
    free_N[members] = False
    for taken in range(k):
        order = np.argsort(-logs_NN[members].sum(axis=0), kind="stable")
        window = order[free_N[order]][: schedule.size(taken)]
        near = [divergence(dense_NN[c], int(c), members, SEARCH_WEIGHTS) for c in window]
        members.append(int(window[int(np.argmin(near))]))
        free_N[members[-1]] = False
    taken_ids = np.array(members[SEEDS:])
    near = [divergence(dense_NN[c], int(c), members, RANK_WEIGHTS) for c in taken_ids]
    rank = np.empty(k)
    rank[np.argsort(near, kind="stable")] = np.arange(1, k + 1)
    scores = (MU / np.arange(1, k + 1) + 1 / rank).astype(np.float32)
    return [int(entity) for entity in taken_ids[np.lexsort((taken_ids, -scores))]]


def divergence(
    p_N: Scores, candidate: int, members: list[int], weights: tuple[tuple[int | None, float], ...]
) -> float:
    """Return KL(s || p) over all entities."""
    s_N = np.full(len(p_N), p_N.mean())
    s_N[candidate] = p_N[candidate]
    start = 0
    for end, weight in weights:
        s_N[members[start:end]] = weight * p_N.mean()
        start = end or len(members)
    s_N /= s_N.sum()
    return float((s_N * np.log(s_N / p_N)).sum())


if __name__ == "__main__":
    console.run(main, "python -m benchmarks.window_search")
