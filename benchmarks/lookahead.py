"""Measure generation that looks ahead to retrieval scores with a quarter of the beams against all of them.

    python -m benchmarks.lookahead --workspace W --queries FOLDER --every 5

The workspace's bundle holds a language model (``seedset pretrain-lm``) and the view that is looked at. Each
query is answered by GenExpan with all beams, with a quarter of them, and with a quarter and a look-ahead
(:mod:`engine.generation.lookahead`) of several weights. The weight is the one with the best PosMAP@100 on
queries with even numbers. Queries with odd ones tell the result: PosMAP@100 of that weight less that of all
beams, with a bootstrap interval and the p value of a paired randomisation test; besides, all beams with that
look-ahead, and RetExpan, whose scores these are. The bar is that a quarter of the beams has no less.

Rounds are cut, as elsewhere where generation is measured, and lists at the longest cut-off. ``steps`` are
passes through the model a query; CPU seconds are this process'.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.conditioned_retrieval import halves_of
from benchmarks.report import report
from engine.evaluation.measuring import QueryScore
from engine.evaluation.metrics import CUTOFFS
from engine.evaluation.report import evaluate
from engine.evaluation.significance import intervals, randomisation_p
from engine.methods import method
from engine.queries.formats import QuerySet, read_queries
from engine.stages.base import LocalPipeline, Pipeline, counts_of
from engine.stages.options import change
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace

COLUMN = "PosMAP@100"
COLUMNS = ("PosMAP@10", "NegMAP@10", COLUMN, "NegMAP@100", "CombMAP")
WEIGHTS = (1.0, 2.0, 4.0, 8.0, 16.0)
BATCH = 8


@dataclass(frozen=True)
class Measured:
    """Means of a pipeline's columns, :data:`COLUMN` of each query, and what a query costs."""

    means: Mapping[str, float]
    by_query: npt.NDArray[np.float64]
    steps: float
    seconds: float

    def cells(self) -> list[str]:
        """Return the row of a table."""
        return [*(f"{self.means[c]:.1f}" for c in COLUMNS), f"{self.steps:.0f}", f"{self.seconds:.2f}"]


def measured(pipeline: Pipeline, bundle: Bundle, queries: QuerySet) -> Measured:
    """Answer some queries and measure the answers."""
    run = LocalPipeline([(stage, stage.open(bundle)) for stage in pipeline.stages])
    scores: list[QueryScore] = []
    started = time.process_time()
    overall: dict[str, Any] = evaluate(run, queries, batch_size=BATCH, on_score=scores.append)["overall"]
    spent = time.process_time() - started
    steps = sum(counts_of(worker).get("decode_steps", 0) for _, worker in run.opened)
    return Measured(
        {column: float(overall[column]) for column in COLUMNS},
        np.array([score.columns[COLUMN] for score in scores]),
        steps / len(scores),
        spent / len(scores),
    )


def generating(beams: int, rounds: int, weight: float, view: str) -> Pipeline:
    """Return GenExpan with so many beams and rounds, and a look-ahead of some weight; 0: without."""
    settings: dict[str, Any] = {"beams": beams, "max_rounds": rounds, "k": CUTOFFS[-1]}
    settings |= {"lookahead": weight, "lookahead_view": view}
    return change(method("genexpan"), {f"Generate.{name}": value for name, value in settings.items()})


def main() -> None:
    """Choose the weight on one half of the queries and print the result on the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--queries", required=True, help="a folder of labelled queries")
    parser.add_argument("--every", type=int, default=5, help="take one query in so many, an odd number")
    parser.add_argument("--beams", type=int, default=40, help="all of them [default: 40]")
    parser.add_argument("--rounds", type=int, default=10, help="of a query, at most [default: 10]")
    parser.add_argument("--view", default="mask", help="the view that is looked at [default: mask]")
    given = parser.parse_args()
    bundle = Bundle.open(Workspace.open(given.workspace))
    queries = read_queries(Store.open(given.queries), bundle.vocabulary)
    halves = halves_of(queries.queries, given.every)
    few = max(1, given.beams // 4)

    def figures(beams: int, weight: float, half: str) -> Measured:
        found = measured(generating(beams, given.rounds, weight, given.view), bundle, halves[half])
        name = f"{half}: {beams} beams, look-ahead {weight:g}"
        print(f"{name}: {dict(zip((*COLUMNS, 'steps', 'seconds'), found.cells(), strict=True))}", flush=True)
        return found

    even = {weight: figures(few, weight, "even") for weight in (0.0, *WEIGHTS)}
    chosen = max(WEIGHTS, key=lambda weight: even[weight].means[COLUMN])
    asked = [(given.beams, 0.0), (few, 0.0), (few, chosen), (given.beams, chosen)]
    odd = {one: figures(*one, "odd") for one in asked}
    retrieval = measured(method("retexpan"), bundle, halves["odd"])
    difference = odd[few, chosen].by_query - odd[given.beams, 0.0].by_query
    (low,), (high,) = intervals(difference[:, None])
    rows = [[f"{b} beams, look-ahead {w:g}", *own.cells()] for (b, w), own in odd.items()]
    report(
        f"genexpan, {given.rounds} rounds, {len(difference)} queries with odd numbers (percent); the weight "
        f"was chosen on {len(halves['even'].queries)} with even ones",
        ["search", *COLUMNS, "steps", "CPU s"],
        [*rows, ["retexpan", *retrieval.cells()]],
        name="lookahead",
        weight=chosen,
        even={f"{weight:g}": round(own.means[COLUMN], 2) for weight, own in even.items()},
        difference=round(float(difference.mean()), 2),
        interval=[round(float(low), 2), round(float(high), 2)],
        p=round(randomisation_p(difference), 4),
        holds=bool(difference.mean() >= 0),
    )


if __name__ == "__main__":
    main()
