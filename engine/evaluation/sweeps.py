"""Vary one setting of a method, as UltraWiki's figures 7 and 9 do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import QueryError
from engine.queries.formats import LabelledQuery, QuerySet
from engine.stages.base import Pipeline

Value = int | float


@dataclass(frozen=True)
class Sweep:
    """Values of one setting of one method.

    Args:
        title: for people.
        method: whose setting it is.
        stage: the name of the stage; empty: the number of negative seeds.
        field: the setting.
        values: tried, in order.
    """

    title: str
    method: str
    stage: str
    field: str
    values: tuple[Value, ...]

    def pipeline(self, base: Pipeline, value: Value) -> Pipeline:
        """Return the method with the value in place of its own."""
        return with_setting(base, self.stage, self.field, value) if self.stage else base

    def negative_seeds(self, value: Value) -> int | None:
        """Return how many negative seeds are used; None: all."""
        return None if self.stage else int(value)


LENGTHS = (1, 2, 4, 8, 16, 32)
MASSES = (0.5, 0.6, 0.7, 0.8, 0.9)
SEEDS = (0, 1, 2, 3, 4, 5)
SWEEPS: Mapping[str, Sweep] = {
    "negatives": Sweep("Number of negative seeds (figure 9)", "retexpan", "", "negative_seeds", SEEDS),
    "length": Sweep("Length of segments (figure 7)", "retexpan", "SegmentRerank", "length", LENGTHS),
    "genexpan-length": Sweep(
        "Length of segments, GenExpan (figure 7)", "genexpan", "SegmentRerank", "length", LENGTHS
    ),
    "top-p": Sweep("Top-p of selection (figure 7)", "genexpan", "Generate", "top_p", MASSES),
}
"""The paper gives no list of its values: these lie around its settings (4 and 0.7)."""


@dataclass(frozen=True)
class TrainedSweep:
    """A setting of the training: each value is a bundle.

    Args:
        title: for people.
        method: that reads what was trained.
    """

    title: str
    method: str


TRAINED_SWEEPS: Mapping[str, TrainedSweep] = {
    "smoothing": TrainedSweep("Label smoothing (figure 7)", "retexpan"),
    "mined": TrainedSweep(
        "Entities of either side that contrast is mined from (figure 7)", "retexpan+contrast"
    ),
}


def with_setting(pipeline: Pipeline, stage: str, field: str, value: Value) -> Pipeline:
    """Return a pipeline with one setting of its stages of a name replaced.

    Raises:
        QueryError: it has no such stage.
    """
    if stage not in [one.name for one in pipeline.stages]:
        raise QueryError(f"{pipeline}: has no stage {stage}")
    return Pipeline(
        tuple(
            type(one).model_validate({**one.model_dump(), field: value}) if one.name == stage else one
            for one in pipeline.stages
        )
    )


def sample(queries: QuerySet, n: int | None) -> QuerySet:
    """Return about n of the queries, evenly spaced within every class; None: all.

    The same queries give the same sample.
    """
    if n is None or n >= len(queries.queries):
        return queries
    by_class: dict[str, list[LabelledQuery]] = {}
    for one in queries.queries:
        by_class.setdefault(one.label, []).append(one)
    chosen: set[str] = set()
    for own in by_class.values():
        share = max(1, round(n * len(own) / len(queries.queries)))
        chosen.update(own[place * len(own) // share].query.id for place in range(share))
    return QuerySet([q for q in queries.queries if q.query.id in chosen], queries.refused)
