"""Measure how the ranking grows with the number of seeds: how many does a question need at most?

Classes are the entities that share one or two attribute values. Of each, 50 members drawn at random may be
seeds; the others are what is to be found. Questions have the first 3, 5, … of the 50, and no negative seeds;
what may be a seed counts nowhere, so that all numbers of seeds have the same classes and the same truth.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.report import report
from engine.catalogue.opening import open_catalogue
from engine.expander import Expander
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from jobs import console

POOL = 50
COUNTS = (3, 5, 10, 15, 20, 30, 40, 50)
LEAST_SOUGHT = 15
TOP_K = 300

EXAMPLES = """
  python -m benchmarks.seed_count --workspace demo-workspace/workspace
"""


def classes_of(bundle: Bundle) -> dict[str, list[str]]:
    """Return the names of classes with enough members, by what the members share."""
    catalogue, names = open_catalogue(bundle), bundle.vocabulary.names
    found: dict[str, list[str]] = defaultdict(list)
    for entity, name in enumerate(names):
        held = sorted((a, v) for a, values in catalogue.attributes_of(entity).items() for v in values)
        for shared in (*combinations(held, 1), *combinations(held, 2)):
            found["; ".join(f"{a} = {v}" for a, v in shared)].append(name)
    distinct = {tuple(members): shared for shared, members in sorted(found.items())}
    return {shared: [*members] for members, shared in distinct.items() if len(members) >= POOL + LEAST_SOUGHT}


def average_precision(ranked: Sequence[str], sought: Collection[str]) -> float:
    """Return the average precision of a list of names, in [0, 1]."""
    hits, total = 0, 0.0
    for rank, name in enumerate(ranked, 1):
        if name in sought:
            hits += 1
            total += hits / rank
    return total / len(sought)


def main(
    workspace: Annotated[Path, typer.Option(help="With a published bundle whose entities have attributes.")],
    method: Annotated[str, typer.Option(help="Method that answers.")] = "default",
    seed: Annotated[int, typer.Option(help="Of the members that may be seeds.")] = 0,
) -> None:
    """Measure how the ranking grows with the number of seeds."""
    expander = Expander.open(workspace, method)
    rng = random.Random(seed)
    found: dict[int, list[float]] = defaultdict(list)
    classes = classes_of(Bundle.open(Workspace.open(workspace)))
    for members in classes.values():
        drawn = rng.sample(members, len(members))
        pool, sought = drawn[:POOL], set(drawn[POOL:])
        for n in COUNTS:
            answer = expander.expand(pool[:n], top_k=TOP_K)
            ranked = [one.name for one in answer.results if one.name not in pool]
            found[n].append(average_precision(ranked, sought))
    mean = {n: 100 * float(np.mean(found[n])) for n in COUNTS}
    report(
        f"MAP on the members that are no seeds, {len(classes)} classes, {method}",
        ["seeds", "MAP"],
        [[str(n), f"{value:.1f}"] for n, value in mean.items()],
        name="seed_count",
        ratio=mean[COUNTS[-1]] / mean[COUNTS[0]],
        floor_ratio=None,
        map=mean,
        holds=True,
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
